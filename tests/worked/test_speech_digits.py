"""The worked example of spoken digits: its features, no leak from a new voice, and what its page claims."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from worked.running import assert_page_shows, run_example, script_of

pytest.importorskip("torch")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script_of("speech_digits", monkeypatch)


def figures(printed: str, start: str) -> dict[str, list[float]]:
    """Give the numbers of the rows of the table under a line that begins so."""
    lines = printed[printed.index(start) :].split("\n\n")[0].splitlines()[2:]
    rows = (re.split(r"\s{2,}", line.strip()) for line in lines if re.search(r"\s{2,}", line.strip()))
    return {name: [float(cell) if cell != "-" else np.nan for cell in cells] for name, *cells in rows}


def test_slices_are_means_of_their_frames_and_the_level_is_gone(script: ModuleType) -> None:
    frames, ptr = np.random.default_rng(0).integers(0, 256, (53, 40)), np.array([0, 20, 23, 53])
    found = script.features(frames, ptr)
    assert found.shape == (3, 10 * 20 + 1 + 20)
    first = np.array([frames[2 * s : 2 * s + 2].mean(axis=0).reshape(20, 2).mean(axis=1) for s in range(10)])
    np.testing.assert_allclose(found[0, :200], (first - first.mean()).ravel())
    np.testing.assert_allclose(found[:, :200].mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(found[:, 200], np.log([20, 3, 30]))
    np.testing.assert_allclose(found[0, 201:], (first - first.mean()).mean(axis=0))
    louder = script.features(frames + 7, ptr)
    np.testing.assert_allclose(louder, found, err_msg="the level must not matter")


def test_columns_learn_from_known_rows_alone(script: ModuleType) -> None:
    values = np.random.default_rng(1).normal(size=(150, 221))
    known = np.arange(150) < 120
    found = script.columns(values, known)
    assert found.shape == (150, script.SOUNDS + script.VOICES)
    other = values.copy()
    other[120:] *= 5
    np.testing.assert_allclose(script.columns(other, known)[:120], found[:120])
    assert not np.allclose(script.columns(other, known)[120:], found[120:])


def test_the_gate_sees_the_voice_alone(script: ModuleType) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(200, script.SOUNDS + script.VOICES))
    y = (X[:, 0] > 0).astype(int)
    model = script.mixture(n_experts=2, expert_hidden=()).set_params(epochs=2).fit(X, y)
    other = X.copy()
    other[:, : script.SOUNDS] += 1
    np.testing.assert_array_equal(model.gate_proba(other), model.gate_proba(X))
    other[:, script.SOUNDS :] += 1
    assert not np.allclose(model.gate_proba(other), model.gate_proba(X))


@pytest.mark.slow
def test_a_quick_run_has_two_new_speakers(data_dir: Path) -> None:
    printed = run_example("speech_digits", data_dir, "--quick")
    assert "mean over 2 speakers" in printed
    rows = figures(printed, "right answers about the new speaker\n")
    assert all(len(cells) == 2 and 0.1 < min(cells) < max(cells) < 1 for cells in rows.values())


@pytest.mark.slow
def test_what_the_page_claims(data_dir: Path, script: ModuleType) -> None:
    printed = run_example("speech_digits", data_dir)
    rows = figures(printed, "right answers, mean over 6")
    known, new, known_after, after, _, weighed = (
        {name: cells[i] for name, cells in rows.items()} for i in range(1, 7)
    )
    assert set(rows) == set(script.SIZES)
    assert min(new["logistic"], new["network"]) > max(new["Meta-Pi"], new["found"]) + 0.02, "it loses"
    assert min(after["Meta-Pi"], after["found"]) > max(after["logistic"], after["network"]) + 0.02
    assert min(weighed["logistic"], weighed["network"]) > max(after["Meta-Pi"], after["found"]) + 0.02
    assert known_after["Meta-Pi"] < known["Meta-Pi"] - 0.03, "the new expert takes cases of known voices"
    assert known_after["shots alone"] < 0.6
    asked = figures(printed, "rows for which the gate")
    for i, cells in enumerate(asked.values()):
        assert np.isnan(cells[i])
        assert np.nansum(cells) == pytest.approx(1, abs=0.005)
    for line in (
        "new: found minus logistic: .* logistic wins",
        "shots: Meta-Pi minus logistic: .* Meta-Pi wins",
        "shots against shots x45: Meta-Pi minus logistic: .* logistic wins",
        "4 have a partner of their accent: 3 ask him most, he alone is best for 3",
        "after his shots, as heavy as one likes: logistic",
    ):
        assert re.search(line, printed), line
    assert_page_shows("speech_digits.md", printed, 0.03)
