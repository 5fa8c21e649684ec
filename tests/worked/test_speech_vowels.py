"""The worked example of vowels: what it counts, and what its page claims about who finds the group."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from worked.running import assert_page_shows, run_example, script_of

pytest.importorskip("torch")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> ModuleType:
    monkeypatch.setenv("EXPERTISE_DATA", str(data_dir))
    return script_of("speech_vowels", monkeypatch)


def figures(printed: str, start: str) -> dict[str, list[float]]:
    """Give the numbers of the rows of the table under a line that begins so."""
    lines = printed[printed.index(start) :].split("\n\n")[0].splitlines()[2:]
    rows = (re.split(r"\s{2,}", line.strip()) for line in lines)
    return {name: [float(cell) if cell != "-" else np.nan for cell in cells] for name, *cells in rows}


def test_it_reads_ten_vowels_of_76_speakers_in_three_groups(script: ModuleType) -> None:
    X, y, group, speaker = script.read()
    assert X.shape == (1520, 4)
    assert (len(set(y)), set(group), len(set(speaker))) == (10, set(script.GROUPS), 76)
    assert (np.diff(np.exp(X[:, 1:]), axis=1) > -1).all(), "F1, F2 and F3 rise"
    assert 100 < np.exp(X[group == "m", 0]).mean() < 180 < np.exp(X[group == "w", 0]).mean(), "f0 in Hz"


def test_models_have_as_many_parameters_as_the_table_says(script: ModuleType) -> None:
    X, y, _, _ = script.read()
    for columns, degree, size in (([1, 2], 1, 27), ([0, 1, 2], 2, 90), ([0, 1, 2, 3], 2, 135)):
        fitted = script.logistic(columns, degree).fit(X, y)
        assert (len(fitted.classes_) - 1) * (fitted[-1].coef_.shape[1] + 1) == size
    for hidden in (5, 9):
        net = script.network(hidden).fit(X[::7], y[::7])[-1]
        assert sum(part.size for part in (*net.coefs_, *net.intercepts_)) == 15 * hidden + 10


def test_an_expert_of_some_columns_does_not_see_the_others(script: ModuleType) -> None:
    X, y, _, _ = script.read()
    fitted = script.logistic([1, 2]).fit(X, y)
    other = X.copy()
    other[:, [0, 3]] += 1
    np.testing.assert_array_equal(fitted.predict_proba(other), fitted.predict_proba(X))
    other[:, 1] += 1
    assert np.abs(fitted.predict_proba(other) - fitted.predict_proba(X)).max() > 0.1


@pytest.mark.slow
def test_a_quick_run_prints_every_table(data_dir: Path) -> None:
    printed = run_example("speech_vowels", data_dir, "--quick")
    assert "most often right: " in printed
    assert len(figures(printed, "160 vowels")) == 14


@pytest.mark.slow
def test_what_the_page_claims(data_dir: Path) -> None:
    printed = run_example("speech_vowels", data_dir)
    rows = figures(printed, "1520 vowels")
    right = {name: cells[1] for name, cells in rows.items()}
    assert right["Meta-Pi, F1 F2"] > right["logistic, F1 F2"] + 0.05
    assert abs(right["Meta-Pi, F1 F2"] - right["told the group, F1 F2"]) < 0.02
    assert right["logistic, f0-F3"] > right["Meta-Pi, F1 F2"] + 0.02, "the loss is shown"
    assert max(right, key=lambda name: right[name]) == "logistic, f0-F3"
    assert rows["Meta-Pi, F1 F2"][2] > rows["found, F1 F2"][2] + 0.3, "only the given experts are the groups"
    assert rows["found, F1 F2"][3] > rows["found, F1 F2"][2], "those that were found go by the vowel"
    wrong = np.array(list(figures(printed, "wrong answers").values()))
    assert (wrong.argmin(axis=1) == [0, 1, 2]).all(), "each expert is best at its own group"
    assert np.diag(wrong).max() < 0.6 * wrong[~np.eye(3, dtype=bool)].mean()
    for line in (
        r"Meta-Pi, F1 F2 minus logistic, F1 F2: .* Meta-Pi, F1 F2 wins",
        r"Meta-Pi, F1 F2 minus products, f0 F1 F2: .* no difference",
        r"found, F1 F2 minus network, 5 hidden: .* network, 5 hidden wins",
        r"most often right: logistic, f0-F3",
    ):
        assert re.search(line, printed), line
    assert_page_shows("speech_vowels.md", printed, 0.02)
