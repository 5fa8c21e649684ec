"""Families with a link against statsmodels and scikit-learn, at their edges, and what they refuse."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from expertise.mixture.experts import (
    AbstractExpert,
    BinomialExpert,
    ExpertSettings,
    GammaExpert,
    LogisticExpert,
    PoissonExpert,
)
from expertise.mixture.rows import Array
from mixture.helpers import Sample, improved, iterated, loglik, make_rows, objective, updated

N = 200
RNG = np.random.default_rng(11)
X = np.column_stack([RNG.normal(1990, 10, N), RNG.normal(size=N), RNG.random(N) < 0.3])
ETA = 0.5 + 0.04 * (X[:, 0] - 1990) - 0.5 * X[:, 1]
EXPOSURE = np.log(RNG.uniform(0.5, 4, N))
WITH_ONES = sm.add_constant(X)


def fit(expert: Any, sample: Sample, resp: Array | None = None, **given: Any) -> Any:
    resp = np.ones(len(sample.rows)) if resp is None else resp
    return iterated(expert.bound(ExpertSettings(**given)), sample.rows, resp)


def coefficients(expert: Any, sample: Sample) -> Array:
    beta: Array = expert.unscaled(sample.x, sample.y).beta[:, 0]
    return beta


def test_poisson_with_offset_and_weights_is_statsmodels_glm() -> None:
    y = RNG.poisson(np.exp(ETA + EXPOSURE))
    weight = RNG.uniform(0.2, 2, N)
    sample = make_rows(X, y, offset=EXPOSURE)
    expert = fit(PoissonExpert(), sample, weight)
    family = sm.families.Poisson()
    peer = sm.GLM(y, WITH_ONES, family, offset=EXPOSURE, freq_weights=weight).fit(tol=1e-14)
    np.testing.assert_allclose(coefficients(expert, sample), peer.params, rtol=1e-6, atol=1e-7)
    assert loglik(expert, sample.rows, weight) == pytest.approx(peer.llf, abs=1e-6)


def test_gamma_is_statsmodels_glm_and_its_shape_solves_the_score() -> None:
    y = RNG.gamma(3.0, np.exp(ETA + EXPOSURE) / 3)
    sample = make_rows(X, y, offset=EXPOSURE)
    expert = fit(GammaExpert(), sample)
    peer = sm.GLM(y, WITH_ONES, sm.families.Gamma(sm.families.links.Log()), offset=EXPOSURE).fit(tol=1e-14)
    np.testing.assert_allclose(coefficients(expert, sample), peer.params, rtol=1e-6, atol=1e-7)
    ratio = y / peer.fittedvalues
    a = expert.shape
    assert np.log(a) - digamma(a) == pytest.approx(np.mean(ratio - np.log(ratio) - 1), rel=1e-8)
    by_peer = peer.family.loglike(y, peer.fittedvalues, scale=1 / a)
    assert loglik(expert, sample.rows) == pytest.approx(by_peer, abs=1e-6)


def test_binomial_is_statsmodels_glm() -> None:
    trials = RNG.integers(1, 12, N)
    successes = RNG.binomial(trials, 1 / (1 + np.exp(-ETA)))
    y = np.column_stack([successes, trials - successes])
    sample = make_rows(X, y)
    expert = fit(BinomialExpert(), sample)
    peer = sm.GLM(y, WITH_ONES, sm.families.Binomial()).fit(tol=1e-14)
    np.testing.assert_allclose(coefficients(expert, sample), peer.params, rtol=1e-6, atol=1e-7)
    assert loglik(expert, sample.rows) == pytest.approx(peer.llf, abs=1e-6)


def test_logistic_is_statsmodels_logit_and_the_ridge_is_that_of_scikit_learn() -> None:
    y = (RNG.random(N) < 1 / (1 + np.exp(-ETA))).astype(int)
    sample = make_rows(X, y)
    expert = fit(LogisticExpert(), sample)
    peer = sm.Logit(y, WITH_ONES).fit(disp=0, tol=1e-10, maxiter=100)
    np.testing.assert_allclose(coefficients(expert, sample), peer.params, rtol=1e-6, atol=1e-7)
    assert loglik(expert, sample.rows) == pytest.approx(peer.llf, abs=1e-6)
    ridged = fit(LogisticExpert(), sample, alpha=4.0)
    inside = sample.rows.expert.x[:, 1:]
    other = LogisticRegression(C=1 / 4, tol=1e-12, max_iter=1000).fit(inside, y)
    np.testing.assert_allclose(ridged.beta[1:, 0], other.coef_[0], rtol=1e-5)


def test_the_ridge_of_poisson_is_that_of_scikit_learn() -> None:
    y = RNG.poisson(np.exp(ETA))
    sample = make_rows(X, y)
    expert = fit(PoissonExpert(alpha=6.0), sample, alpha=1.0)  # its own alpha wins
    peer = PoissonRegressor(alpha=6 / N, tol=1e-12, max_iter=1000).fit(sample.rows.expert.x[:, 1:], y)
    np.testing.assert_allclose(expert.beta[1:, 0], peer.coef_, rtol=1e-5)


def test_one_poisson_log_density_by_hand() -> None:
    expert = PoissonExpert(beta=np.array([[np.log(2.0)], [0.0]]))
    sample = make_rows(np.zeros((1, 1)), np.array([3]))
    density = PoissonExpert.log_densities([expert], sample.rows)[0, 0]
    assert density == pytest.approx(np.log(2.0**3 * np.exp(-2.0) / 6))


@pytest.mark.parametrize("n_rows", [1, 2, 200])
def test_counts_that_are_all_zero_keep_poisson_finite(n_rows: int) -> None:
    sample = make_rows(X[:n_rows], np.zeros(n_rows))
    expert = fit(PoissonExpert(), sample)
    assert np.isfinite(expert.beta).all()
    assert -1e-3 < loglik(expert, sample.rows) <= 0


@pytest.mark.parametrize("family", [LogisticExpert, BinomialExpert])
def test_separable_classes_keep_coefficients_finite(family: type[AbstractExpert]) -> None:
    second = X[:, 1] > 0
    y = second.astype(int) if family is LogisticExpert else np.column_stack([second, ~second]).astype(int)
    sample = make_rows(X, y)
    expert = family().bound(ExpertSettings())
    values: list[float] = []
    for _ in range(200):
        expert = (
            updated(expert, sample.rows, np.ones(N))
            if not values
            else improved(expert, sample.rows, np.ones(N))
        )
        values.append(objective(expert, sample.rows, np.ones(N)))
    assert values[-1] == pytest.approx(values[-2], abs=1e-9)  # there is a maximum, and it is reached
    assert -0.01 < loglik(expert, sample.rows) < 0
    assert expert.parameters is not None
    assert np.abs(expert.parameters).max() < 1e4


def test_one_class_only_gives_that_class() -> None:
    for code in (0, 1):
        sample = make_rows(X, np.full(N, code))
        proba = fit(LogisticExpert(), sample).predict(sample.rows.expert)
        assert (proba[:, code] > 1 - 1e-4).all()


def test_a_gamma_without_noise_stands_at_the_ceiling_and_says_so() -> None:
    sample = make_rows(X, np.exp(ETA))
    expert = fit(GammaExpert(), sample)
    assert expert.shape == 1e6
    assert expert.degenerate() == "its shape is at the ceiling"
    assert np.isfinite(loglik(expert, sample.rows))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_gamma_does_not_mind_the_unit_of_y(scale: float) -> None:
    y = np.random.default_rng(1).gamma(3.0, np.exp(ETA) / 3)
    one, other = make_rows(X, y), make_rows(X, y * scale)
    here, there = fit(GammaExpert(), one), fit(GammaExpert(), other)
    assert there.shape == pytest.approx(here.shape, rel=1e-5)
    moved = loglik(here, one.rows) - N * np.log(scale)
    assert loglik(there, other.rows) == pytest.approx(moved, abs=1e-3)


def test_a_step_of_poisson_is_kept_short() -> None:
    sample = make_rows(X, np.full(N, 1000))
    tiny = PoissonExpert(beta=np.array([[-20.0], [0.0], [0.0], [0.0]])).bound(ExpertSettings())
    after: Any = updated(tiny, sample.rows, np.ones(N))
    assert after.beta[0, 0] == pytest.approx(-17.0)  # full Newton would go to 5e11
    for _ in range(40):
        after = improved(after, sample.rows, np.ones(N))
    np.testing.assert_allclose(after.predict(sample.rows.expert), 1000, rtol=1e-8)


@given(st.floats(-1e6, 1e6), st.integers(0, 10**9))
@settings(max_examples=50, deadline=None)
def test_no_coefficient_makes_a_log_density_nan(intercept: float, count: int) -> None:
    beta = np.array([[intercept], [0.0]])
    cases: list[tuple[AbstractExpert, Any]] = [
        (PoissonExpert(beta=beta), np.array([count])),
        (GammaExpert(beta=beta, shape=2.0), np.array([count + 0.5])),
        (LogisticExpert(beta=beta), np.array([count % 2])),
        (BinomialExpert(beta=beta), np.array([[count, 1]])),
    ]
    for expert, y in cases:
        sample = make_rows(np.zeros((1, 1)), y)
        density = type(expert).log_densities([expert], sample.rows)
        assert np.isfinite(density).all()
        statistics = type(expert).statistics([expert], sample.rows, np.ones((1, 1)))[0]
        assert all(np.isfinite(value).all() for value in statistics.values())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("family", "y", "message"),
    [
        (
            PoissonExpert,
            np.array([1.0, -2.0, 0.0]),
            "expert='poisson' takes counts, 0 or more; the smallest of y is -2, in row 1. "
            'Use expert="gaussian" or "student_t" for a target that may be negative.',
        ),
        (
            PoissonExpert,
            np.array([1.0, 2.0, 0.5]),
            "expert='poisson' takes whole numbers; y in row 2 is 0.5. "
            'Round y, or use expert="gamma" for a positive target that is measured, not counted.',
        ),
        (
            GammaExpert,
            np.array([1.0, 0.0]),
            "expert='gamma' takes numbers above 0; the smallest value of y is 0, in row 1. "
            'Use expert="gaussian" or "student_t", or "poisson" for counts.',
        ),
        (
            LogisticExpert,
            np.array([0, 3, 1]),
            'expert="logistic" takes two classes, y has 4; use expert="multinomial"',
        ),
        (
            BinomialExpert,
            np.array([0, 3, 1]),
            "expert='binomial' takes y of shape (n, 2), successes and failures; got (3,). "
            "Stack them with numpy.column_stack([successes, trials - successes]); for single trials with "
            'two classes use MixtureOfExpertsClassifier with expert="logistic".',
        ),
        (
            BinomialExpert,
            np.array([[1, 2], [3, -1]]),
            "expert='binomial' takes counts, 0 or more; the smallest of y is -1, in row 1. "
            'Use expert="gaussian" or "student_t" for a target that may be negative.',
        ),
        (
            BinomialExpert,
            np.array([[1, 2], [0.5, 1]]),
            "expert='binomial' takes whole numbers; y in row 1 is [0.5, 1.0]. "
            'Round y, or use expert="gamma" for a positive target that is measured, not counted.',
        ),
    ],
)
def test_what_is_refused(family: type[AbstractExpert], y: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        family.check_y(y)
    assert str(caught.value) == message


@pytest.mark.parametrize("family", [PoissonExpert, BinomialExpert, GammaExpert, LogisticExpert])
def test_what_is_allowed(family: type[AbstractExpert]) -> None:
    y = {
        "binomial": np.array([[0, 2], [3.0, 0]]),
        "gamma": np.array([1e-300, 5]),
        "logistic": np.array([0, 1]),
    }
    family.check_y(y.get(family.name, np.array([0.0, 7])))
