"""The worked example of the four hospitals: its functions, and the claims of its page."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score

from worked.running import assert_page_shows, run_example, script_of


@pytest.fixture
def hearts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script_of("medicine_hearts", monkeypatch)


def made(n: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thirteen findings of three hospitals, one of which did not take one; disease follows two of them."""
    rng = np.random.default_rng(0)
    hospital = np.array(["north", "south", "west"])[np.arange(n) % 3]
    X = np.column_stack([rng.normal(size=(n, 9)), rng.integers(1, 4, (n, 4))]).astype(float)
    y = (X[:, 0] + X[:, 7] + rng.normal(0, 0.5, n) > 0).astype(float)
    X[hospital == "west", 3] = np.nan
    X[rng.random(n) < 0.1, 12] = np.nan
    return X, y, hospital


def table(printed: str) -> dict[str, dict[str, float]]:
    head, *lines = printed.splitlines()[:5]
    columns = re.split(r"\s{2,}", head.strip())
    rows = (re.split(r"\s{2,}", line.strip()) for line in lines)
    return {name: dict(zip(columns, map(float, cells), strict=True)) for name, *cells in rows}


def test_missing_findings_become_numbers_with_an_indicator(hearts: ModuleType) -> None:
    X, _, hospital = made()
    Z = hearts.preparation().fit(X[hospital != "west"]).transform(X)
    assert np.isfinite(Z).all()  # also where a finding is missing that no hospital of the fit lacked
    prepare = hearts.preparation().fit(X)
    names = list(prepare.get_feature_names_out([*hearts.NUMBERS, *hearts.KINDS]))
    flag = prepare.transform(X)[:, names.index("missingindicator_chol")]
    assert (flag[hospital == "west"] > 0).all()
    assert (flag[hospital != "west"] < 0).all()
    assert "thal_nan" in names


def test_nobody_needs_the_hospital_of_a_new_patient(hearts: ModuleType) -> None:
    X, y, hospital = made()
    for fit, settings in hearts.MODELS.values():
        model, size = fit(X, y, hospital, *settings[0])
        said = model.predict_proba(X)[:, 1]
        assert said.shape == (240,)
        assert ((said >= 0) & (said <= 1)).all()
        assert size > 10
        assert roc_auc_score(y, said) > 0.85


def test_the_larger_logistic_regression_is_as_large_as_three_experts_and_their_gate(
    hearts: ModuleType,
) -> None:
    X, y, hospital = made()
    mixture, plain, larger, _ = hearts.MODELS.values()
    sizes = [fit(X, y, hospital, *settings[0])[1] for fit, settings in (mixture, plain, larger)]
    assert sizes[0] == sizes[2] == 5 * sizes[1]


def test_delong_gives_a_difference_of_auc_with_ties_and_the_variance_of_new_patients(
    hearts: ModuleType,
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2 * 1.0
    a = np.round(y * 0.4 + rng.random(200), 1)
    b = np.round(a + 0.5 * rng.random(200), 1)  # goes with a, so the variance is less than the sum of two
    difference, variance = hearts.delong(y, a, b)
    assert difference == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b))
    draws = []
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(np.flatnonzero(y == kind), 100) for kind in (1, 0)])
        draws.append(hearts.delong(y[drawn], a[drawn], b[drawn])[0])
    assert np.var(draws) == pytest.approx(variance, rel=0.2)
    assert hearts.delong(y, a, a) == (0, 0)


def test_the_products_are_those_that_vary_most(hearts: ModuleType) -> None:
    X = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3]
    wider = hearts.with_products(X, 2)(X[:5])
    expected = np.column_stack([X[:5], X[:5, 1] * X[:5, 2], X[:5, 0] * X[:5, 2]])
    np.testing.assert_allclose(wider, expected)
    np.testing.assert_array_equal(hearts.with_products(X, 0)(X), X)


def test_the_calibration_error_of_a_liar_is_his_lie(hearts: ModuleType) -> None:
    y = np.repeat([0.0, 1.0], [30, 10])
    assert hearts.calibration_error(y, np.full(40, 0.25)) == pytest.approx(0)
    assert hearts.calibration_error(y, np.full(40, 0.85)) == pytest.approx(0.6)
    assert hearts.calibration_error(y, np.ones(40)) == pytest.approx(0.75)  # 1 is in the last bin


def test_settings_are_chosen_on_hospitals_left_out(hearts: ModuleType) -> None:
    X, y, hospital = made()
    seen = []

    def fit(X: np.ndarray, y: np.ndarray, hospital: np.ndarray, p: float):  # type: ignore[no-untyped-def]
        seen.append(tuple(np.unique(hospital)))
        return DummyClassifier(strategy="constant" if p < 0.5 else "prior", constant=[0.0]).fit(X, y), 1

    assert hearts.choose(fit, [(0.01,), (0.5,)], X, y, hospital) == (0.5,)
    assert set(seen) == {("south", "west"), ("north", "west"), ("north", "south")}


def test_the_data_are_as_the_page_says(
    hearts: ModuleType, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPERTISE_DATA", str(data_dir))
    X, y, hospital = hearts.load()
    assert X.shape == (920, 13)
    assert {h: round(y[hospital == h].mean(), 3) for h in hearts.HOSPITALS} == {
        "cleveland": 0.459,
        "hungarian": 0.361,
        "switzerland": 0.935,
        "va": 0.745,
    }
    cholesterol = X[:, hearts.NUMBERS.index("chol")]
    assert np.isnan(cholesterol[hospital == "switzerland"]).all()
    assert not (cholesterol == 0).any()


def test_the_quick_run_prints_all(data_dir: Path) -> None:
    printed = run_example("medicine_hearts", data_dir, "--quick")
    rows = table(printed)
    assert len(rows) == 4
    assert all(0.5 < row["mean AUC"] < 0.9 for row in rows.values())
    assert printed.count("over patients:") == 3
    assert "row 0: predicted" in printed


@pytest.mark.slow
def test_the_whole_run_is_that_of_the_page(data_dir: Path) -> None:
    printed = run_example("medicine_hearts", data_dir)
    assert_page_shows("medicine_hearts.md", printed, 0.03)
    rows = table(printed)
    auc = {name: row["mean AUC"] for name, row in rows.items()}
    given = auc["mixture, hospitals given"]
    assert given > 0.80  # figures seen elsewhere for gradient boosting: mean .789
    assert given > auc["gradient boosting"]
    assert given > auc["equal parameters: logistic"] + 0.02
    assert abs(given - auc["same size: logistic"]) < 0.02  # and a plain regression is as good
    assert rows["same size: logistic"]["Brier"] == min(row["Brier"] for row in rows.values())
