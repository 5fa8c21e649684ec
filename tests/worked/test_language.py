"""The worked example of languages: splits by sentence, no leak, and what its page claims."""

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
    return script_of("language", monkeypatch)


def figures(printed: str, start: str) -> dict[str, list[str]]:
    """Give the cells of the rows of the table under a line that begins so."""
    lines = printed[printed.index(start) :].split("\n\n")[0].splitlines()[2:]
    rows = (re.split(r"\s{2,}", line.strip()) for line in lines if re.search(r"\s{2,}", line.strip()))
    return {name: cells for name, *cells in rows}


def test_no_sentence_is_in_two_splits_in_any_language(script: ModuleType) -> None:
    data = script.Sentences(script.TWELVE, ["eng_Latn", "zho_Hans"])
    assert len(data.topic) == 2 * 1004 == data.counts.shape[0]
    assert len(set(data.topic)) == script.TOPICS
    parts = [set(data.number[data.split == one]) for one in ("train", "dev", "test")]
    assert [len(one) for one in parts] == [701, 99, 204]
    assert len(set.union(*parts)) == 1004


def test_columns_learn_from_the_rows_they_are_given(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "COLUMNS", 5)
    data = script.Sentences(script.TWELVE, ["eng_Latn", "deu_Latn"])
    learn = (data.split == "train") & (data.language == "eng_Latn")
    _, X = data.columns(learn)
    assert X.shape == (2008, 5)
    np.testing.assert_allclose(X[learn].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(X[learn].std(axis=0), 1, atol=1e-3)
    data.counts = data.counts.multiply(np.where(learn, 1, 3)[:, None]).tocsr()  # other rows change
    np.testing.assert_allclose(data.columns(learn)[1][learn], X[learn], atol=1e-3)


def test_the_network_is_as_large_as_it_is_asked_to_be(script: ModuleType) -> None:
    for wanted in (8241, 16683):
        hidden = script.network(wanted).hidden_layer_sizes
        size = hidden * (script.COLUMNS + 1) + (hidden + 1) * script.TOPICS
        assert abs(size - wanted) < script.COLUMNS


@pytest.mark.slow
def test_a_quick_run_has_three_languages(data_dir: Path) -> None:
    printed = run_example("language", data_dir, "--quick")
    assert {"eng_Latn", "hin_Deva", "spa_Latn"} == set(figures(printed, "found, clusters: share"))
    assert "most often right of those who are not told" in printed


@pytest.mark.slow
def test_what_the_page_claims(data_dir: Path, script: ModuleType) -> None:
    printed = run_example("language", data_dir)
    twelve, arabic = printed.split("six varieties of Arabic:\n")
    rows = figures(twelve, "2448 test sentences")
    right = {name: float(cells[1]) for name, cells in rows.items()}
    for mixture in ("Meta-Pi", "found, clusters"):
        for single in ("logistic", "network", "frequent n-grams"):
            assert right[mixture] > right[single] + 0.02
            assert re.search(f"{mixture} minus {single}: .* {mixture} wins", twelve)
        assert right["all n-grams"] > right[mixture] + 0.04, "the loss is shown"
        assert abs(right[mixture] - right["told the language"]) < 0.02
        assert float(rows[mixture][2]) > 0.9, "an expert is a language"
    assert float(rows["found, gradient"][2]) < 0.5
    unseen = figures(twelve, "a language that no training row is in")
    assert [unseen[one][-1][:3] for one in script.LEFT_OUT] == ["ita", "eng", "zho", "zho"]
    for one in script.LEFT_OUT:
        assert float(unseen[one][0]) < right["Meta-Pi"] - 0.1
    varieties = figures(arabic, "1224 test sentences")
    assert float(varieties["Meta-Pi"][2]) < 0.3, "a variety is hardly found"
    assert re.search("Meta-Pi minus network: .* no difference", arabic)
    assert re.search("found, clusters minus logistic: .* logistic wins", arabic)
    assert_page_shows("language.md", printed, 0.03)
