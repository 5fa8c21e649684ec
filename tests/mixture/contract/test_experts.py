"""Every family of experts, from its table: what EM and the estimators ask of each."""

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from expertise.mixture.experts import (
    CLASSIFICATION_EXPERTS,
    EXPERTS,
    REGRESSION_EXPERTS,
    ConstantExpert,
    ExpertSettings,
    StudentTExpert,
)
from expertise.mixture.sums import Sums
from mixture.expert_cases import Family, N, blank, fitted, inputs, sample_of, some_resp, target
from mixture.helpers import improved, loglik, make_rows, objective, updated

ADDITIVE = [family for family in EXPERTS if family.additive]
LINEAR = [family for family in ADDITIVE if "Constant" not in family.__name__]


def each(families: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", families, ids=lambda family: family.__name__)


def test_names_in_the_tables_are_those_of_the_classes() -> None:
    for task, table in {"regression": REGRESSION_EXPERTS, "classification": CLASSIFICATION_EXPERTS}.items():
        for name, family in table.items():
            assert (family.name, family.task) == (name, task)


@each(EXPERTS)
def test_before_and_after_the_first_update(family: Family) -> None:
    sample = sample_of(family)
    expert = blank(family)
    assert not expert.is_fitted
    after = updated(expert, sample.rows, np.ones(N))
    assert after.is_fitted
    assert not expert.is_fitted  # an expert never changes
    assert after.degenerate() is None


@each(EXPERTS)
def test_log_densities_are_columns_of_single_experts(family: Family) -> None:
    sample = sample_of(family, with_offset=True)
    experts = [fitted(family, sample, times) for times in (0, 3)]
    together = family.log_densities(experts, sample.rows)
    assert together.shape == (N, 2)
    assert np.isfinite(together).all()
    alone = [family.log_densities([expert], sample.rows)[:, 0] for expert in experts]
    np.testing.assert_allclose(together, np.column_stack(alone), rtol=1e-12)


@each([family for family in EXPERTS if family.task == "regression"])
def test_log_density_is_that_of_the_distribution_in_original_units(family: Family) -> None:
    sample = sample_of(family, with_offset=True)
    expert = fitted(family, sample)
    inside = family.log_densities([expert], sample.rows)[:, 0]
    there = expert.unscaled(sample.x, sample.y)
    assert there is not None
    frozen = there.distribution(sample.design, sample.rows.offset)
    y = sample.rows.y
    if family.name == "binomial":  # its distribution is that of one trial
        outside = stats.binom.logpmf(y[:, 0], y.sum(axis=1), frozen.mean())
    else:
        outside = frozen.logpmf(y) if family.discrete else frozen.logpdf(y)
    np.testing.assert_allclose(inside, outside, rtol=1e-9, atol=1e-9)
    if family.name != "student_t":
        np.testing.assert_allclose(there.predict(sample.design, sample.rows.offset), frozen.mean(), rtol=1e-9)


@each([family for family in EXPERTS if family.task == "classification"])
def test_log_density_is_that_of_the_predicted_probability(family: Family) -> None:
    sample = sample_of(family)
    expert = fitted(family, sample)
    proba = expert.unscaled(sample.x, sample.y).predict(sample.design)
    assert proba.shape == (N, 2 if family.name == "logistic" else 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    inside = family.log_densities([expert], sample.rows)[:, 0]
    np.testing.assert_allclose(np.exp(inside), proba[np.arange(N), sample.rows.y], rtol=1e-9)


@each(ADDITIVE)
@pytest.mark.parametrize("started", [False, True])
def test_sums_of_shards_are_the_sums_of_the_whole(family: Family, started: bool) -> None:
    sample = sample_of(family, with_offset=True)
    experts = [fitted(family, sample, times) if started else blank(family) for times in (0, 2)]
    resp = some_resp(N, 2)
    whole = family.statistics(experts, sample.rows, resp)
    bounds = ((0, 31), (31, 32), (32, N))
    shards = [family.statistics(experts, sample.rows.take(slice(a, b)), resp[a:b]) for a, b in bounds]
    for k in range(2):
        total = shards[0][k] + shards[1][k] + shards[2][k]  # type: ignore[operator]
        expected = whole[k]
        assert isinstance(expected, Sums)
        assert isinstance(total, Sums)
        for name, value in expected.items():
            size = np.abs(value).max()
            np.testing.assert_allclose(total[name], value, rtol=0, atol=1e-10 * max(size, 1e-30))


@each(ADDITIVE)
def test_statistics_of_several_experts_are_those_of_each(family: Family) -> None:
    sample = sample_of(family)
    experts = [blank(family), fitted(family, sample), fitted(family, sample, 1)]
    resp = some_resp(N, 3)
    together = family.statistics(experts, sample.rows, resp)
    for k, expert in enumerate(experts):
        alone = family.statistics([expert], sample.rows, resp[:, [k]])[0]
        assert isinstance(alone, Sums)
        for name, value in alone.items():
            np.testing.assert_allclose(together[k][name], value, rtol=1e-10, atol=1e-10)  # type: ignore[index]


@each(ADDITIVE)
@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_no_update_lowers_the_penalised_loglik(family: Family, alpha: float) -> None:
    for seed in range(3):
        sample = sample_of(family, seed, with_offset=True)
        resp = some_resp(N, 2, seed)[:, 0]
        expert = updated(blank(family, alpha=alpha), sample.rows, some_resp(N, 2, seed + 50)[:, 0])
        for _ in range(8):
            before = objective(expert, sample.rows, resp)
            if family.closed_form:
                after = updated(expert, sample.rows, resp)
            else:
                after = improved(expert, sample.rows, resp)
            assert objective(after, sample.rows, resp) >= before - 1e-9 * abs(before)
            expert = after


@each(ADDITIVE)
def test_a_step_from_far_away_is_mended_by_halving(family: Family) -> None:
    sample = sample_of(family)
    resp = np.ones(N)
    near = fitted(family, sample)
    vector = near.parameters
    assert vector is not None
    best = objective(near, sample.rows, resp)
    rng = np.random.default_rng(5)
    for _ in range(5):
        expert = near.with_parameters(vector + rng.normal(0, 1.5, len(vector)))
        for _ in range(80):
            expert = improved(expert, sample.rows, resp)
        assert objective(expert, sample.rows, resp) >= best - 1e-6 * abs(best)


@each(ADDITIVE)
def test_weight_2_is_the_row_twice(family: Family) -> None:
    sample = sample_of(family)
    weight = np.random.default_rng(2).integers(1, 4, N)
    twice = sample.rows.take(np.repeat(np.arange(N), weight))
    expert = blank(family)
    for _ in range(3):
        one = updated(expert, sample.rows, weight.astype(float))
        other = updated(expert, twice, np.ones(len(twice)))
        expert = one
    assert one.parameters is not None
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=1e-8, atol=1e-9)  # type: ignore[arg-type]


@each(ADDITIVE)
def test_scales_and_back(family: Family) -> None:
    sample = sample_of(family)
    expert = fitted(family, sample)
    back = expert.unscaled(sample.x, sample.y).scaled(sample.x, sample.y)
    np.testing.assert_allclose(back.parameters, expert.parameters, rtol=1e-9, atol=1e-10)  # type: ignore[arg-type]
    assert not blank(family).scaled(sample.x, sample.y).is_fitted


@each(ADDITIVE)
def test_gradient_is_that_of_finite_differences(family: Family) -> None:
    sample = sample_of(family, with_offset=True)
    resp = some_resp(N, 2, 8)[:, 0]
    expert = fitted(family, sample)
    vector = expert.parameters
    assert vector is not None
    gradient = expert.gradient(sample.rows, resp)
    assert gradient.shape == vector.shape
    step = 1e-5
    slopes = [
        (
            loglik(expert.with_parameters(vector + step * one), sample.rows, resp)
            - loglik(expert.with_parameters(vector - step * one), sample.rows, resp)
        )
        / (2 * step)
        for one in np.eye(len(vector))
    ]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-5)
    assert expert.n_parameters == len(vector)


@each(ADDITIVE)
def test_json_and_back(family: Family) -> None:
    sample = sample_of(family)
    expert = fitted(family, sample)
    again = family.from_dict(json.loads(json.dumps(expert.to_dict())))
    np.testing.assert_array_equal(
        family.log_densities([again], sample.rows), family.log_densities([expert], sample.rows)
    )


@each(LINEAR)
def test_sparse_inputs_equal_dense_ones(family: Family) -> None:
    rng = np.random.default_rng(4)
    X = inputs(rng) * (rng.random((N, 3)) < 0.5)
    y = target(family, rng, X)
    dense, csr = make_rows(X, y), make_rows(X, y, sparse=True)
    resp = some_resp(N, 2)[:, 0]
    there = []
    for sample in (dense, csr):
        expert = updated(blank(family), sample.rows, resp)
        for _ in range(40):
            expert = improved(expert, sample.rows, resp)
        there.append(expert.unscaled(sample.x, sample.y))
    one, other = (expert.predict(sample.design) for expert, sample in zip(there, (dense, csr), strict=True))
    np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-5)


@each(EXPERTS)
def test_nobody_leaves_an_expert_as_it_was(family: Family) -> None:
    sample = sample_of(family)
    expert = fitted(family, sample)
    same = updated(expert, sample.rows, np.zeros(N))
    before = family.log_densities([expert], sample.rows)
    np.testing.assert_array_equal(family.log_densities([same], sample.rows), before)
    born = updated(blank(family), sample.rows, np.zeros(N))
    assert np.isfinite(family.log_densities([born], sample.rows)).all()


@each(EXPERTS)
def test_a_constant_column_and_one_row(family: Family) -> None:
    rng = np.random.default_rng(6)
    X = inputs(rng)
    X[:, 1] = 7.0
    sample = make_rows(X, target(family, rng, X))
    one_row = np.zeros(N)
    one_row[5] = 1.0
    for resp in (np.ones(N), one_row, np.full(N, 1e-30)):
        expert = updated(blank(family), sample.rows, resp)
        for _ in range(10):
            expert = updated(expert, sample.rows, resp)
            assert np.isfinite(family.log_densities([expert], sample.rows)).all()
    single = sample_of(family, n=1)
    expert = updated(blank(family), single.rows, np.ones(1))
    assert np.isfinite(family.log_densities([expert], single.rows)).all()


@each([ConstantExpert, StudentTExpert, REGRESSION_EXPERTS["gaussian"]])
def test_several_outputs_are_independent_given_the_expert(family: Family) -> None:
    rng = np.random.default_rng(7)
    X = inputs(rng)
    Y = np.column_stack([target(family, rng, X), 40 * target(family, rng, X)])
    assert family.multioutput
    both = make_rows(X, Y)
    settings: dict[str, Any] = {"fixed_nu": 4.0} if family is StudentTExpert else {}
    expert = family(**settings).bound(ExpertSettings(n_outputs=2))
    singles = [family(**settings).bound(ExpertSettings()) for _ in range(2)]
    alone = [make_rows(X, Y[:, j]) for j in range(2)]
    for _ in range(3):
        expert = updated(expert, both.rows, np.ones(N))
        singles = [updated(one, sample.rows, np.ones(N)) for one, sample in zip(singles, alone, strict=True)]
    split = [family.log_densities([one], s.rows)[:, 0] for one, s in zip(singles, alone, strict=True)]
    np.testing.assert_allclose(family.log_densities([expert], both.rows)[:, 0], sum(split), rtol=1e-9)
    there = expert.unscaled(both.x, both.y)
    assert there.predict(both.design).shape == (N, 2)
    logpdf = there.distribution(both.design).logpdf(Y)
    np.testing.assert_allclose(logpdf.sum(axis=1), sum(split), rtol=1e-9)


@each([family for family in ADDITIVE if family.takes_offset])
def test_an_offset_is_what_a_coefficient_of_1_would_be(family: Family) -> None:
    sample = sample_of(family, with_offset=True)
    expert = fitted(family, sample)
    moved = sample.rows.offset
    assert moved is not None
    there = expert.unscaled(sample.x, sample.y)
    plain = there.predict(sample.design)
    with_offset = there.predict(sample.design, moved)
    if family.name in ("poisson", "gamma"):
        np.testing.assert_allclose(with_offset, plain * np.exp(moved), rtol=1e-10)
    elif family.name == "binomial":
        odds = plain / (1 - plain) * np.exp(moved)
        np.testing.assert_allclose(with_offset, odds / (1 + odds), rtol=1e-10)
    elif family.name == "logistic":
        odds = plain[:, 1] / plain[:, 0] * np.exp(moved)
        np.testing.assert_allclose(with_offset[:, 1], odds / (1 + odds), rtol=1e-10)
    else:
        np.testing.assert_allclose(with_offset, plain + moved, rtol=1e-10)


@each(ADDITIVE)
def test_between_0_and_1(family: Family) -> None:
    sample = sample_of(family)
    here, there = fitted(family, sample, 0), fitted(family, sample, 2)
    end = here.between(there, 1.0)
    np.testing.assert_allclose(end.parameters, there.parameters, rtol=1e-12)  # type: ignore[arg-type]
    if not family.closed_form:
        middle = here.between(there, 0.25).parameters
        assert here.parameters is not None
        expected = 0.75 * here.parameters + 0.25 * there.parameters  # type: ignore[operator]
        np.testing.assert_allclose(middle, expected, rtol=1e-10)  # type: ignore[arg-type]
