"""The predictive mixture: quadrature, enumeration, round trips, draws."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from core.mixtures import Array, softmax
from expertise.core import MixtureDistribution
from expertise.core._drawing import draw_columns

WEIGHTS = np.array([[0.2, 0.5, 0.3], [0.0, 0.9, 0.1], [1.0, 0.0, 0.0]])


def continuous() -> MixtureDistribution:
    return MixtureDistribution(
        WEIGHTS,
        [
            stats.norm(np.array([-2.0, 0.0, 1.0]), 0.5),
            stats.t(5, np.array([0.0, 1.0, 2.0]), 1.0),
            stats.gamma(np.array([2.0, 3.0, 4.0]), scale=1.5),
        ],
    )


def poissons() -> MixtureDistribution:
    return MixtureDistribution(
        WEIGHTS, [stats.poisson(np.array(mu)) for mu in ([1, 2, 3], [20, 30, 4], [7, 0.1, 9])]
    )


def both_outputs() -> MixtureDistribution:
    means = np.arange(6.0).reshape(3, 2)
    return MixtureDistribution(WEIGHTS, [stats.norm(means * scale, 1 + means) for scale in (1, -2, 3)])


def at(i: int, distribution: MixtureDistribution) -> MixtureDistribution:
    """One row alone."""
    experts = []
    for expert in distribution.experts:
        args = [np.broadcast_to(a, 3)[i : i + 1] for a in expert.args]
        kwds = {key: np.broadcast_to(a, 3)[i : i + 1] for key, a in expert.kwds.items()}
        experts.append(expert.dist(*args, **kwds))
    return MixtureDistribution(distribution.weights[i : i + 1], experts)


@pytest.mark.parametrize("row", range(3))
def test_density_and_moments_by_quadrature(row: int) -> None:
    one = at(row, continuous())

    def integral(of: Any, low: float = -60, high: float = 120) -> float:
        points = [p for p in (-5, 0, 5, 20) if low < p < high]
        value: float = integrate.quad(lambda y: of(y) * one.pdf(y)[0], low, high, limit=500, points=points)[0]
        return value

    assert integral(lambda y: 1.0) == pytest.approx(1, abs=1e-6)
    mean = integral(lambda y: y)
    assert one.mean()[0] == pytest.approx(mean, abs=1e-5)
    assert one.var()[0] == pytest.approx(integral(lambda y: (y - mean) ** 2), abs=2e-3)
    assert one.std()[0] == pytest.approx(math.sqrt(one.var()[0]))
    for y in (-1.3, 0.4, 3.0):
        assert one.cdf(y)[0] == pytest.approx(integral(lambda y: 1.0, high=y), abs=1e-6)


def test_rows_do_not_mix() -> None:
    every = continuous()
    for i in range(3):
        one = at(i, every)
        for name, args in {"mean": (), "var": (), "cdf": (0.7,), "logpdf": (0.7,), "ppf": (0.3,)}.items():
            np.testing.assert_allclose(
                getattr(every, name)(*args)[i], getattr(one, name)(*args)[0], rtol=1e-12
            )


def test_variance_of_distant_narrow_experts_keeps_its_digits() -> None:
    one = MixtureDistribution(np.array([[0.5, 0.5]]), [stats.norm([1e9], 1e-3), stats.norm([1e9 + 1], 1e-3)])
    assert one.var()[0] == pytest.approx(0.25 + 1e-6, rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1 - 1e-6))
@settings(max_examples=60, deadline=None)
def test_the_cdf_of_the_quantile_is_the_probability(seed: int, q: float) -> None:
    rng = np.random.default_rng(seed)
    weights = softmax(rng.normal(size=(4, 3)) * 3)
    spread = 10.0 ** rng.integers(-3, 4, size=3)
    experts = [stats.norm(rng.normal(size=4) * s, s * rng.uniform(0.1, 2, size=4)) for s in spread]
    mixture = MixtureDistribution(weights, experts)
    np.testing.assert_allclose(mixture.cdf(mixture.ppf(q)), q, rtol=1e-9)


def test_quantiles_rise_and_hold_each_row_and_output() -> None:
    mixture, q = both_outputs(), np.linspace(0.05, 0.95, 6).reshape(3, 2)
    found = mixture.ppf(q)
    for i in range(3):
        for j in range(2):
            cdf = sum(
                WEIGHTS[i, k] * stats.norm((2 * i + j) * scale, 1 + 2 * i + j).cdf(found[i, j])
                for k, scale in enumerate((1, -2, 3))
            )
            assert cdf == pytest.approx(q[i, j], rel=1e-10)
    rising = np.stack([mixture.ppf(p) for p in np.linspace(0, 1, 30)])
    assert (np.diff(rising, axis=0) > 0).all()


def test_the_ends_of_the_support() -> None:
    uniform = MixtureDistribution(WEIGHTS, [stats.uniform(np.full(3, low), 1) for low in (0.0, 5.0, -3.0)])
    assert uniform.ppf(0).tolist() == [-3, -3, 0]  # an expert of weight 0 does not count
    assert uniform.ppf(1).tolist() == [6, 6, 1]
    assert continuous().ppf(0).tolist() == [-np.inf] * 3
    assert poissons().ppf(0).tolist() == [0, 0, 0]
    assert poissons().ppf(1).tolist() == [np.inf] * 3


def test_a_gap_between_experts() -> None:
    gap = MixtureDistribution([[0.5, 0.5]], [stats.uniform([0.0], 1), stats.uniform([9.0], 1)])
    np.testing.assert_allclose(gap.ppf(0.25), 0.5)
    np.testing.assert_allclose(gap.ppf(0.75), 9.5)
    assert 1 <= gap.ppf(0.5)[0] <= 9


@pytest.mark.parametrize("q", [1e-12, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_discrete_quantiles_by_enumeration(q: float) -> None:
    mixture = poissons()
    cdf = np.stack([mixture.cdf(float(y)) for y in range(200)])  # (y, rows)
    assert mixture.ppf(q).tolist() == [int(np.argmax(cdf[:, i] >= q)) for i in range(3)]


def test_a_discrete_quantile_at_a_step_is_the_step() -> None:
    mixture = poissons()
    for y in range(0, 40, 3):
        steps = mixture.cdf(float(y))
        inside = steps < 1 - 1e-13
        assert (mixture.ppf(steps)[inside] == y).all()
        assert (mixture.ppf(np.minimum(steps + 1e-12, 1))[inside] > y).all()


def test_masses_by_hand() -> None:
    mixture = poissons()
    for i in range(3):
        mus = [expert.mean()[i] for expert in mixture.experts]
        by_hand = sum(w * math.exp(-mu) * mu**4 / 24 for w, mu in zip(WEIGHTS[i], mus, strict=True))
        assert mixture.pdf(4.0)[i] == pytest.approx(by_hand)
    masses = np.stack([mixture.pdf(float(y)) for y in range(150)])
    np.testing.assert_allclose(masses.sum(axis=0), 1)
    np.testing.assert_allclose(mixture.mean(), np.arange(150) @ masses)
    np.testing.assert_allclose(mixture.var(), np.arange(150) ** 2 @ masses - mixture.mean() ** 2)


def test_draws_follow_the_distribution() -> None:
    mixture = continuous()
    drawn = mixture.rvs(2000, random_state=0)
    assert drawn.shape == (2000, 3)
    ranks = np.stack([mixture.cdf(y) for y in drawn])  # uniform if the draws follow the cdf
    for i in range(3):
        assert stats.kstest(ranks[:, i], "uniform").pvalue > 0.01


def test_discrete_draws_follow_the_masses() -> None:
    mixture, n = poissons(), 3000
    drawn = mixture.rvs(n, random_state=1)
    for i in range(3):
        expected = n * np.array([mixture.pdf(float(y))[i] for y in range(60)])
        seen = np.bincount(drawn[:, i].astype(int), minlength=60)
        common = expected > 5
        distance = ((seen - expected)[common] ** 2 / expected[common]).sum()
        assert stats.chi2(common.sum()).sf(distance) > 0.01


def test_drawn_columns_share_the_sum_of_the_row() -> None:
    drawn = draw_columns(np.tile([0.0, 0.3, 0.5, 0.0], (4000, 1)), np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=4)
    assert counts[[0, 3]].tolist() == [0, 0]
    assert stats.chisquare(counts[1:3], [1500, 2500]).pvalue > 0.01


def test_all_outputs_of_a_draw_come_from_one_expert() -> None:
    means = np.array([[0.0, 0.0]])
    apart = MixtureDistribution([[0.5, 0.5]], [stats.norm(means, 0.1), stats.norm(means + 100, 0.1)])
    drawn = apart.rvs(200, random_state=1)
    assert drawn.shape == (200, 1, 2)
    assert ((drawn[:, 0, 0] > 50) == (drawn[:, 0, 1] > 50)).all()
    assert 60 < (drawn[:, 0, 0] > 50).sum() < 140


def test_draws_repeat() -> None:
    mixture = continuous()
    assert mixture.rvs(random_state=3).tolist() == mixture.rvs(random_state=3).tolist()
    rng = np.random.default_rng(3)
    first = mixture.rvs(random_state=rng)
    assert first.tolist() == mixture.rvs(random_state=3).tolist()
    assert first.tolist() != mixture.rvs(random_state=rng).tolist()
    legacy = [mixture.rvs(random_state=np.random.RandomState(0)).tolist() for _ in range(2)]
    assert legacy[0] == legacy[1]
    assert mixture.rvs(0).shape == (0, 3)


def test_parameters_that_rows_share() -> None:
    shared = MixtureDistribution(np.full((50, 2), 0.5), [stats.norm(0, 1), stats.norm(5, 1)])
    assert shared.mean().tolist() == [2.5] * 50
    assert len(set(shared.rvs(random_state=0))) == 50
    np.testing.assert_allclose(shared.ppf(0.5), 2.5)
    np.testing.assert_allclose(shared.pdf(np.zeros(50)), (stats.norm.pdf(0) + stats.norm.pdf(5)) / 2)


def test_the_joint_density_of_outputs() -> None:
    mixture, y = both_outputs(), np.array([[0.5, 1.0], [-3.0, 2.0], [4.0, 4.0]])
    for i in range(3):
        total = sum(
            WEIGHTS[i, k]
            * math.prod(stats.norm((2 * i + j) * scale, 1 + 2 * i + j).pdf(y[i, j]) for j in range(2))
            for k, scale in enumerate((1, -2, 3))
        )
        assert mixture.logpdf(y)[i] == pytest.approx(math.log(total))
    assert (
        mixture.cdf(y).shape
        == mixture.mean().shape
        == mixture.var().shape
        == mixture.ppf(0.2).shape
        == (3, 2)
    )


@pytest.mark.parametrize("df", [0.5, 1.0, 1.5, 2.0])
def test_heavy_tails_have_no_variance(df: float) -> None:
    heavy = MixtureDistribution(
        [[0.5, 0.5], [0.0, 1.0]], [stats.t(df, np.zeros(2)), stats.norm(np.ones(2), 2.0)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert heavy.var().tolist() == [np.inf, 4.0]
        assert heavy.std().tolist() == [np.inf, 2.0]
        assert heavy.mean().tolist() == [0.5 if df > 1 else np.inf, 1.0]
        np.testing.assert_allclose(heavy.cdf(heavy.ppf(0.999)), 0.999)


def test_means_at_both_infinities_are_none() -> None:
    torn = MixtureDistribution([[0.5, 0.5]], [stats.pareto(0.5, loc=[0.0]), stats.cauchy([0.0])])
    assert torn.mean().tolist() == [np.inf]


def test_intervals_are_central() -> None:
    mixture = continuous()
    low, high = mixture.interval(0.8)
    np.testing.assert_allclose(mixture.cdf(low), 0.1)
    np.testing.assert_allclose(mixture.cdf(high), 0.9)
    assert mixture.interval(1)[0].tolist() == [-np.inf] * 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            [[0.5, 0.4]],
            r"weights must be probabilities that sum to 1 in each row; got \[0\.5, 0\.4\] in row 0",
        ),
        ([[1.0, 0.0], [1.5, -0.5]], r"got \[1\.5, -0\.5\] in row 1"),
        ([[np.nan, 1.0]], r"got \[nan, 1\.0\] in row 0"),
        ([[1.0]], r"weights must have the shape \(rows, 2\), a column for each expert; got \(1, 1\)"),
        ([0.5, 0.5], r"got \(2,\)"),
    ],
)
def test_wrong_weights(weights: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureDistribution(weights, [stats.norm(0, 1), stats.norm(1, 1)])


def test_wrong_arguments() -> None:
    mixture = continuous()
    with pytest.raises(ValueError, match=r"all discrete or all continuous; got both kinds"):
        MixtureDistribution([[0.5, 0.5]], [stats.norm([0.0], 1), stats.poisson([1.0])])
    with pytest.raises(ValueError, match=r"q must be from 0 to 1; got 1\.5; 10 percent is 0\.1"):
        mixture.ppf(1.5)
    with pytest.raises(ValueError, match=r"q must be one number or have the shape \(3,\); got \(2,\)"):
        mixture.ppf([0.1, 0.2])
    with pytest.raises(ValueError, match=r"y must be one number or have the shape \(3,\); got \(3, 1\)"):
        mixture.cdf(np.zeros((3, 1)))
    with pytest.raises(
        ValueError, match=r"coverage must be one number over 0 and up to 1; got 90; 90 percent"
    ):
        mixture.interval(90)
    with pytest.raises(ValueError, match=r"got \[0\.5, 0\.9\]"):
        mixture.interval([0.5, 0.9])  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"random_state must be None, a whole number or a generator .* got 'x'"
    ):
        mixture.rvs(random_state="x")
