"""The example of spoken digits: what it packs, and, where the data are, that it beats the mean spectrum."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from papers import table

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "speech" / "spoken_digits.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("spoken_digits", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(data: Path, speakers: int) -> str:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"--speakers={speakers}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "EXPERTISE_DATA": str(data)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_features_are_what_the_script_says(script: ModuleType) -> None:
    """Against loops over recordings and frames."""
    rng = np.random.default_rng(0)
    frames, ptr = rng.integers(0, 256, (12, 40), dtype=np.uint8), np.array([0, 5, 6, 12], dtype=np.int32)
    found = script.features(frames, ptr)
    assert {name: values.shape[1] for name, values in found.items()} == {
        name: size for _, name, size, _ in script.MODELS.values()
    }
    for first, last in ((0, 5), (5, 6), (6, 12)):
        own = frames[first:last].astype(float)
        for t in range(last - first):
            row = first + t
            np.testing.assert_allclose(found["spectrum"][row], own[t] - own.mean(), atol=1e-3)
            np.testing.assert_allclose(found["sound"][row, :40], own[t] - own.mean(axis=0), atol=1e-3)
            assert found["sound"][row, 40] == script.LOUD
            for k in range(script.ARCS):
                wave = np.cos(np.pi * (k + 1) * (t + 0.5) / (last - first))
                arc = found["arc"][row, 40 * k : 40 * (k + 1)]
                np.testing.assert_allclose(arc, wave * (own[t] - own.mean(axis=0)), atol=1e-3)


def test_the_mean_of_a_recording_without_its_spectrum_says_nothing_but_its_arcs_do(
    script: ModuleType,
) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (30, 40), dtype=np.uint8)
    found = script.features(frames, np.array([0, 30], dtype=np.int32))
    np.testing.assert_allclose(found["sound"][:, :40].mean(axis=0), 0, atol=1e-4)
    assert np.abs(found["arc"].mean(axis=0)).mean() > 1


def test_without_the_data_it_says_so(tmp_path: Path) -> None:
    said = run(tmp_path, 1)
    assert said == (
        f"speech: SKIPPED, no {tmp_path}/speech/fsdd_logmel40_u8.npz; "
        "set EXPERTISE_DATA to the folder of the data\n"
    )


@pytest.mark.slow
def test_two_speakers_whom_no_model_has_heard(script: ModuleType, data_dir: Path) -> None:
    said = run(data_dir, 2)
    assert "3,000 recordings, 125,237 frames, 10 digits, 6 voices" in said
    _, hits, gaps = said.split("\n\n")[:3]
    for part in (hits, gaps):
        rows = table(part)
        assert list(rows) == list(script.MODELS)
        means = {row: values[-1] for row, values in rows.items()}
        for values in rows.values():
            assert len(values) == 3
            assert values[-1] == pytest.approx(np.mean(values[:2]), abs=0.001)
        assert means["arcs mixture"] > means["mean spectrum mixture"] + 0.1, "what happens when matters"
        assert max(means.values()) > 0.6
        assert f": {max(means, key=lambda row: means[row])} wins" in part


def test_the_script_is_short() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 150
