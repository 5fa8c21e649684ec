"""Student-t experts: the score at convergence, outliers, nesting of the Gaussian, and what they refuse."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from expertise.mixture.experts import ExpertSettings, GaussianExpert, StudentTExpert
from expertise.mixture.rows import Array
from mixture.helpers import iterated, loglik, make_rows, objective, updated

N = 400
RNG = np.random.default_rng(31)
X = np.column_stack([RNG.normal(1990, 10, N), RNG.normal(size=N)])
MEAN = 0.3 * (X[:, 0] - 1990) + 2 * X[:, 1]
ONES = np.ones(N)


def noise(nu: float, seed: int = 0) -> Array:
    drawn: Array = stats.t.rvs(nu, size=N, random_state=np.random.default_rng(seed))
    return drawn


def fit(expert: Any, rows: Any, times: int = 300, resp: Array | None = None, **given: Any) -> Any:
    return iterated(expert.bound(ExpertSettings(**given)), rows, ONES if resp is None else resp, times)


def test_at_convergence_every_score_is_zero() -> None:
    sample = make_rows(X, MEAN + noise(3))
    resp = RNG.uniform(0, 1, N)
    expert = fit(StudentTExpert(), sample.rows, 800, resp)
    assert 1.5 < expert.nu < 6
    np.testing.assert_allclose(expert.gradient(sample.rows, resp), 0, atol=1e-5)
    around = [
        loglik(StudentTExpert(beta=expert.beta, sigma=expert.sigma, nu=expert.nu * f), sample.rows, resp)
        for f in (0.9, 0.99, 1, 1.01, 1.1)
    ]
    assert int(np.argmax(around)) == 2


def test_it_is_the_maximum_that_a_general_optimiser_finds() -> None:
    y = MEAN + noise(4)
    sample = make_rows(X, y)
    expert = fit(StudentTExpert(), sample.rows, 800)
    design, z = sample.rows.expert.x, sample.rows.z[:, 0]

    def loss(v: Array) -> float:
        logs = stats.t.logpdf(z, np.exp(v[4]), loc=design @ v[:3], scale=np.exp(v[3]))
        return -float(logs.sum())

    found = minimize(loss, np.append(expert.parameters[:3] * 0.9, [-1.0, 2.0]), method="BFGS")
    assert loglik(expert, sample.rows) == pytest.approx(-found.fun - N * sample.rows.log_scale, abs=1e-4)


@pytest.mark.parametrize("nu", [0.5, 1.0, 3.0, 30.0, None])
def test_no_update_lowers_the_objective(nu: float | None) -> None:
    y = MEAN + (RNG.normal(size=N) if nu is None else noise(nu))
    sample = make_rows(X, y)
    resp = RNG.uniform(0, 1, N)
    for alpha in (0.0, 3.0):
        expert: Any = updated(StudentTExpert().bound(ExpertSettings(alpha=alpha)), sample.rows, ONES)
        before = objective(expert, sample.rows, resp)
        for _ in range(60):
            expert = updated(expert, sample.rows, resp)
            after = objective(expert, sample.rows, resp)
            assert after >= before - 1e-10 * abs(before)
            before = after


def test_outliers_do_not_bend_it() -> None:
    y = MEAN + 0.1 * RNG.normal(size=N)
    y[:20] += 100
    sample = make_rows(X, y)
    robust, plain = (
        fit(e, sample.rows).unscaled(sample.x, sample.y) for e in (StudentTExpert(), GaussianExpert())
    )
    np.testing.assert_allclose(robust.beta[1:, 0], [0.3, 2.0], atol=0.01)
    assert abs(plain.beta[2, 0] - 2.0) > 0.3


@pytest.mark.parametrize("nu", [1.5, 5.0, None])
def test_it_is_never_below_the_gaussian(nu: float | None) -> None:
    y = MEAN + (np.random.default_rng(5).normal(size=N) if nu is None else noise(nu, 5))
    sample = make_rows(X, y)
    gaussian: Any = fit(GaussianExpert(), sample.rows, 2)
    base = loglik(gaussian, sample.rows)
    nested = StudentTExpert.like_gaussian(gaussian)
    assert nested.nu == nested.max_nu == 1e5
    assert loglik(nested, sample.rows) >= base - 1e-2
    ends = [iterated(nested, sample.rows, ONES, 60), fit(StudentTExpert(), sample.rows, 60)]
    values = [loglik(end, sample.rows) for end in ends]
    assert min(values) >= base - 1e-2
    assert values[0] == pytest.approx(values[1], abs=1e-2)  # from either side


def test_a_like_gaussian_keeps_options_and_coefficients() -> None:
    sample = make_rows(X, MEAN + noise(5))
    gaussian: Any = fit(GaussianExpert(alpha=2.0, variance_floor=1e-3), sample.rows, 1)
    nested = StudentTExpert.like_gaussian(gaussian, max_nu=80)
    assert (nested.alpha, nested.variance_floor, nested.nu, nested.max_nu) == (2.0, 1e-3, 80, 80)
    np.testing.assert_array_equal(nested.beta, gaussian.beta)
    np.testing.assert_array_equal(nested.sigma, gaussian.sigma)


def test_fixed_degrees_of_freedom_stay_and_do_not_count() -> None:
    sample = make_rows(X, MEAN + noise(2))
    free = fit(StudentTExpert(), sample.rows)
    fixed = fit(StudentTExpert(fixed_nu=7.0), sample.rows)
    assert fixed.nu == 7.0
    assert fixed.n_parameters == free.n_parameters - 1 == len(fixed.parameters)
    assert loglik(fixed, sample.rows) < loglik(free, sample.rows)
    np.testing.assert_allclose(fixed.gradient(sample.rows, ONES), 0, atol=1e-5)
    assert fixed.with_parameters(fixed.parameters).nu == 7.0


def test_nu_stays_between_its_bounds() -> None:
    wild = np.sign(noise(1)) * np.exp(8 * RNG.normal(size=N))
    rows = replace(make_rows(X, wild).rows, z=wild[:, None])  # standardised, nearly all would be 0
    assert fit(StudentTExpert(), rows, 200).nu == 0.2
    even = make_rows(X, MEAN + RNG.uniform(-1, 1, N))
    assert fit(StudentTExpert(max_nu=20.0), even.rows, 400).nu == 20.0


def test_a_variance_at_the_floor_is_said() -> None:
    sample = make_rows(X, MEAN)
    expert = fit(StudentTExpert(), sample.rows, 50)
    assert expert.degenerate() == "its variance is at the floor"
    assert np.isfinite(loglik(expert, sample.rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_nu": 0.1}, "max_nu must be at least 0.2, got 0.1; 1 is the Cauchy distribution"),
        ({"fixed_nu": -3}, "fixed_nu must be at least 0.2, got -3; 1 is the Cauchy distribution"),
        ({"fixed_nu": np.nan}, "fixed_nu must be at least 0.2, got nan; 1 is the Cauchy distribution"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        StudentTExpert(**options).bound(ExpertSettings())


@pytest.mark.parametrize("nu", [0.3, 99.0, 101.0, 1e5])
def test_the_density_keeps_its_digits_for_any_nu(nu: float) -> None:
    sample = make_rows(X[:3], np.array([0.0, 1.0, 5.0]))
    rows = replace(sample.rows, z=np.array([[0.0], [1.0], [5.0]]), log_scale=0.0)
    expert = StudentTExpert(beta=np.zeros((3, 1)), sigma=np.ones(1), nu=nu)
    by_hand = [stats.t.logpdf(z, nu) for z in (0.0, 1.0, 5.0)]
    np.testing.assert_allclose(StudentTExpert.log_densities([expert], rows)[:, 0], by_hand, rtol=1e-9)
    if nu == 1e5:
        normal = stats.norm.logpdf(0.0) - 1 / (4 * nu)  # the first two terms of the expansion in 1 / nu
        assert StudentTExpert.log_densities([expert], rows)[0, 0] == pytest.approx(normal, rel=1e-14)


def test_without_a_floor_a_perfect_fit_stays_finite() -> None:
    sample = make_rows(X, MEAN)
    expert = fit(StudentTExpert(variance_floor=0.0), sample.rows, 30)
    assert np.isfinite(loglik(expert, sample.rows))


def test_any_numbers_are_accepted() -> None:
    StudentTExpert.check_y(np.array([-1.5, 2.0]))
