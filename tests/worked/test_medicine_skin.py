"""The worked example of the skin diseases: its functions, and the claims of its page."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from worked.running import assert_page_shows, run_example, script_of


@pytest.fixture
def skin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script_of("medicine_skin", monkeypatch)


def made(n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Three groups around three corners of a triangle, with one column of noise."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    X = np.column_stack([np.eye(3)[label] + rng.normal(0, 0.4, (n, 3)), rng.normal(size=n)])
    return X, np.array(["flat", "round", "wide"])[label]


def frequencies(skin: ModuleType, X: np.ndarray, y: np.ndarray) -> Any:
    return skin.MODELS["size of a specialist: frequencies"][0](X, y, 0.0)


def table(printed: str) -> dict[str, list[float]]:
    """Give accuracy, log loss and mass on the right specialist (where there is one) of each model."""
    rows = {}
    for line in printed.splitlines()[1:7]:
        name, _, *cells = re.split(r"\s{2,}", line.strip())
        rows[name] = [float(cell) for cell in cells if cell != "-"]
    return rows


def test_a_specialist_per_disease_is_the_logistic_regression_of_its_gate(skin: ModuleType) -> None:
    X, y = made()
    mixture, plain = skin.given(X, y, 0.01), skin.logistic(X, y, 0.01)
    assert mixture.subtasks_.tolist() == ["flat", "round", "wide"]
    np.testing.assert_allclose(mixture.predict_proba(X), mixture.gate_proba(X), atol=1e-9)
    np.testing.assert_allclose(mixture.predict_proba(X), plain.predict_proba(X), atol=1e-3)


def test_found_experts_are_matched_to_the_diseases_that_the_gate_sends_them(skin: ModuleType) -> None:
    X, y = made()
    model = skin.found(X, y, 0.01)
    names = skin.specialists(model, X, y)
    assert sorted(names) == ["flat", "round", "wide"]
    assert np.mean(names[model.apply(X)] == y) > 0.9
    assert skin.specialists(skin.given(X, y, 0.01), X, y).tolist() == ["flat", "round", "wide"]


def test_products_and_parameters_are_counted(skin: ModuleType) -> None:
    X, y = made()
    assert skin.count(skin.logistic(X, y, 0.01)) == str(2 * 5)
    assert skin.count(skin.logistic(X, y, 0.01, products=3)) == str(2 * 8)
    assert skin.count(frequencies(skin, X, y)) == "2"
    assert skin.count(skin.MODELS["gradient boosting"][0](X, y, 0.0)) == "trees"
    assert skin.count(skin.given(X, y, 0.01)) == str(2 * 5 + 3 * 2)


def test_log_loss_is_that_of_the_right_disease_and_bounded(skin: ModuleType) -> None:
    X, y = made(90)
    assert skin.log_loss(frequencies(skin, X, y), X, y) == pytest.approx(np.log(3))
    one = frequencies(skin, X[:1], y[:1])
    two = frequencies(skin, X[:2], y[:2])
    assert skin.log_loss(one, X[:1], y[:1]) == 0
    assert skin.log_loss(two, X[:2], y[:2]) == pytest.approx(np.log(2))


def test_the_ridge_is_chosen_among_those_given(skin: ModuleType) -> None:
    X, y = made()
    assert skin.choose(skin.logistic, (0.5,), X, y) == 0.5
    assert skin.choose(skin.logistic, (100.0, 0.01), X, y) == 0.01


def test_the_data_are_as_the_page_says(
    skin: ModuleType, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPERTISE_DATA", str(data_dir))
    X, y, names = skin.load()
    assert X.shape == (366, 34)
    assert names[33] == "age"
    assert np.isnan(X).sum() == np.isnan(X[:, 33]).sum() == 8
    assert dict(zip(*np.unique(y, return_counts=True), strict=True))["psoriasis"] == 112


def test_the_quick_run_prints_all(data_dir: Path) -> None:
    printed = run_example("medicine_skin", data_dir, "--quick")
    rows = table(printed)
    assert len(rows) == 6
    assert printed.count(" minus ") == 16
    assert rows["given: specialist per disease"][0] > 0.9
    assert "row 0: predicted" in printed
    assert "smallest log loss, within .005: given: specialist per disease" in printed


@pytest.mark.slow
def test_the_whole_run_is_that_of_the_page(data_dir: Path) -> None:
    printed = run_example("medicine_skin", data_dir)
    assert_page_shows("medicine_skin.md", printed, 0.03)
    rows = table(printed)
    accuracy, loss, mass = rows["given: specialist per disease"]
    assert accuracy > 0.95
    assert loss < 0.1
    assert mass > 0.9
    found = rows["found: 6 constant experts"]
    assert found[2] > 0.85  # EM finds the diseases
    plain = rows["multinomial logistic regression"]
    assert abs(plain[1] - loss) < 0.01  # and the mixture gains nothing over its gate
    assert rows["size of a specialist: frequencies"][1] > loss + 1
    for other in ("multinomial logistic regression", "the same + 6 products", "gradient boosting"):
        line = rf"^given: specialist per disease minus {re.escape(other)}: .* no difference that"
        assert len(re.findall(line, printed, re.M)) == 2  # in log loss and in accuracy
