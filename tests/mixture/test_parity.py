"""Log-likelihoods at the maximum, against the published optima of R's packages (and nested models)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertise import MixtureOfExpertsRegressor
from mixture.datasets import Array, columns, numbers

# name: log-likelihood, parameters (BIC where it is published)
TABLE: dict[str, tuple[float, int, float | None]] = {
    "temperature": (102.94247, 8, -166.5837),
    "tone, constant gate": (141.19840, 7, None),
    "tone": (142.84801, 8, -245.6109),
    "co2": (-66.93977, 7, 157.2050),
    "ethanol": (122.03836, 7, None),
    "npreg, constant gate": (-642.53201, 9, None),
    "npreg, poisson": (-440.64029, 5, None),
    "npreg": (-701.10404, 8, None),
    "seizure": (-376.17621, 9, 796.827),
    "npreg, groups": (-561.5537, 9, None),
    "betablocker": (-158.3095, 8, None),
}


def one(values: Array) -> Array:
    return values[:, None]


def squared(values: Array) -> Array:
    return np.column_stack([values, values**2])


def data(folder: Path, name: str) -> tuple[Array, Array, dict[str, Any]]:
    """Give X, y and what else fit takes."""
    if name.startswith("temperature"):
        table = columns(folder, "nasa_temp_anomalies")
        return one(numbers(table["Year"])), numbers(table["AnnualAnomaly"]), {}
    if name.startswith("tone"):
        table = columns(folder, "tone_perception")
        return one(numbers(table["stretchratio"])), numbers(table["tuned"]), {}
    if name == "co2":
        table = columns(folder, "co2_gnp_1996")
        return one(numbers(table["GNP"])), numbers(table["CO2"]), {}
    if name == "ethanol":
        table = columns(folder, "ethanol_no")
        return one(numbers(table["NO"])), numbers(table["Equivalence"]), {}
    if name == "seizure":
        table = columns(folder, "seizure")
        treated = np.array([value == "Yes" for value in table["Treatment"]], float)
        log_day = np.log(numbers(table["Day"]))
        X = np.column_stack([treated, log_day, treated * log_day])
        return X, numbers(table["Seizures"]), {"offset": np.log(numbers(table["Hours"]))}
    if name == "betablocker":
        table = columns(folder, "betablocker")
        deaths, total = numbers(table["Deaths"]), numbers(table["Total"])
        treated = np.array([value == "Treated" for value in table["Treatment"]], float)
        return one(treated), np.column_stack([deaths, total - deaths]), {"groups": table["Center"]}
    table = columns(folder, "npreg")
    x, y = numbers(table["x"]), numbers(table["yp" if "poisson" in name else "yn"])
    if name in ("npreg", "npreg, poisson"):
        return one(x), y, {}
    return squared(x), y, {"groups": table["id2"]} if "groups" in name else {}


def model(name: str, seed: int = 0) -> MixtureOfExpertsRegressor:
    gate = "softmax" if name in ("temperature", "tone", "npreg") else "constant"
    family = {"npreg, poisson": "poisson", "seizure": "poisson", "betablocker": "binomial"}
    return MixtureOfExpertsRegressor(
        3 if name == "betablocker" else 2,
        expert=family.get(name, "gaussian"),
        gate=gate,
        n_init=20,
        random_state=seed,
    )


@pytest.mark.filterwarnings("ignore:few cases", "ignore:Number of distinct clusters")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", TABLE)
def test_the_maximum_is_the_published_one(data_dir: Path, name: str, seed: int) -> None:
    loglik, df, bic = TABLE[name]
    X, y, more = data(data_dir, name)
    fitted = model(name, seed).fit(X, y, **more)
    assert fitted.loglik_ == pytest.approx(loglik, abs=2e-3)
    assert fitted.n_parameters_ == df
    assert fitted.score_samples(X, y, **more).sum() == pytest.approx(fitted.loglik_, abs=1e-6)
    if bic is not None:
        assert fitted.bic(X, y, **more) == pytest.approx(bic, abs=4e-3)


def test_the_parameters_are_the_published_ones(data_dir: Path) -> None:
    X, y, _ = data(data_dir, "tone")
    tone = model("tone, constant gate").fit(X, y)
    order = np.argsort(-tone.weights_)
    np.testing.assert_allclose(tone.weights_[order], [0.6977, 0.3023], atol=2e-3)
    np.testing.assert_allclose(tone.intercept_[order], [1.91638, -0.01928], atol=1e-3)
    np.testing.assert_allclose(tone.coef_[order, 0], [0.042549, 0.99230], atol=1e-3)
    np.testing.assert_allclose(tone.sigma_[order], [0.04619, 0.13283], atol=1e-3)
    X, y, _ = data(data_dir, "co2")
    co2 = model("co2").fit(X, y)
    order = np.argsort(-co2.weights_)
    np.testing.assert_allclose(co2.weights_[order], [0.754921, 0.245079], atol=1e-3)
    np.testing.assert_allclose(co2.sigma_[order], [2.049315, 0.809389], atol=1e-3)
    np.testing.assert_allclose(co2.intercept_[order], [8.678987, 1.415150], atol=2e-3)
    np.testing.assert_allclose(co2.coef_[order, 0], [-0.023344, 0.676596], atol=1e-3)


def test_the_hard_optimum_of_mcycle_is_found_with_many_starts(data_dir: Path) -> None:
    """Of 60 starts on fitted residuals one ends there, and most at -539.425.

    A fit with a spike (4 rows on a line, -533.19) is left aside. Other starts find -537.243, which is no
    spike and better than what is published: the table's optimum is the best that was known.
    """
    table = columns(data_dir, "mcycle")
    X, y = squared(numbers(table["times"])), numbers(table["accel"])
    fitted = MixtureOfExpertsRegressor(
        4, gate_features=[0], starts=["residual"], n_init=60, screening_iter=1000, tol=1e-8, random_state=0
    ).fit(X, y)
    assert fitted.n_parameters_ == 22
    assert fitted.loglik_ == pytest.approx(-537.531, abs=2e-3)
    usual = [start for start in fitted.starts_ if abs(start["objective"] + 539.425) < 5e-3]
    assert len(usual) > 10


def test_student_t_reaches_what_is_published_and_never_loses_to_the_normal(data_dir: Path) -> None:
    X, y, _ = data(data_dir, "temperature")
    normal = model("temperature").fit(X, y)
    heavy = MixtureOfExpertsRegressor(2, expert="student_t", random_state=0).fit(X, y)
    assert heavy.n_parameters_ == 10
    assert heavy.loglik_ >= 102.91
    assert heavy.loglik_ >= normal.loglik_ - 1e-2


@pytest.mark.parametrize("name", ["temperature", "tone", "npreg"])
def test_larger_models_contain_smaller_ones(data_dir: Path, name: str) -> None:
    X, y, _ = data(data_dir, name)

    def loglik(k: int, **more: Any) -> float:
        return float(MixtureOfExpertsRegressor(k, random_state=0, **more).fit(X, y).loglik_)

    assert loglik(2) >= loglik(2, gate="constant") - 1e-3
    one_expert, two, three = loglik(1), loglik(2), loglik(3)
    assert one_expert - 1e-3 <= two <= three + 1e-3
    assert loglik(2, expert="student_t") >= two - 1e-2
