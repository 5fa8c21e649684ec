"""Responsibilities, likelihood, information criteria: against products written out."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats

from core.mixtures import INTERCEPTS, SCALES, SLOPES, Array, classifier, inputs, regressor
from expertise.core import Inputs
from expertise.core._logs import add_logs, logsumexp, posterior

X = inputs(9)
Y = np.random.default_rng(1).normal(size=9) * 3
W = np.array([1.0, 2.0, 0.5, 1.0, 0.0, 3.0, 1.0, 1.0, 0.25])
GROUPS = np.array(list("bbacacacc"))


def density(i: int, k: int, y: float) -> float:
    mean = X[i] @ SLOPES[:, k] + INTERCEPTS[k]
    return math.exp(-((y - mean) ** 2) / (2 * SCALES[k] ** 2)) / (SCALES[k] * math.sqrt(2 * math.pi))


def joints_of_groups(weights: Array) -> dict[str, list[float]]:
    """g_k(first row) prod_i p_k(y_i) ** w_i, for each group."""
    gate = regressor().gate_proba(X)
    result = {}
    for group in "abc":
        rows = [i for i in range(9) if GROUPS[i] == group]
        result[group] = [
            gate[rows[0], k] * math.prod(density(i, k, Y[i]) ** weights[i] for i in rows) for k in range(3)
        ]
    return result


def test_rows_against_a_double_loop() -> None:
    model = regressor()
    gate, h, score = model.gate_proba(X), model.responsibilities(X, Y), model.score_samples(X, Y)
    for i in range(9):
        joint = [gate[i, k] * density(i, k, Y[i]) for k in range(3)]
        assert score[i] == pytest.approx(math.log(sum(joint)))
        np.testing.assert_allclose(h[i], np.array(joint) / sum(joint), rtol=1e-9)


def test_weights_of_rows_scale_the_likelihood_only() -> None:
    model = regressor()
    np.testing.assert_allclose(model.score_samples(X, Y, W), W * model.score_samples(X, Y))
    np.testing.assert_array_equal(model.responsibilities(X, Y, W), model.responsibilities(X, Y))


@pytest.mark.parametrize("weights", [None, W])
def test_groups_against_products(weights: Array | None) -> None:
    joint = joints_of_groups(np.ones(9) if weights is None else weights)
    model = regressor()
    h = model.responsibilities(X, Y, weights, groups=GROUPS)
    for i in range(9):
        each = np.array(joint[GROUPS[i]])
        np.testing.assert_allclose(h[i], each / each.sum(), rtol=1e-9)
    np.testing.assert_allclose(
        model.score_samples(X, Y, weights, groups=GROUPS), [math.log(sum(joint[g])) for g in "abc"]
    )


def test_groups_of_one_row_are_rows() -> None:
    model, order = regressor(), np.random.default_rng(2).permutation(9)
    np.testing.assert_allclose(
        model.responsibilities(X, Y, groups=order), model.responsibilities(X, Y), rtol=1e-12
    )
    np.testing.assert_allclose(
        model.score_samples(X, Y, groups=order)[order], model.score_samples(X, Y), rtol=1e-12
    )


def test_the_offset_shifts_what_the_experts_say() -> None:
    model, offset = regressor(), np.linspace(-1, 1, 9)
    np.testing.assert_allclose(
        model.responsibilities(X, Y + offset, offset=offset), model.responsibilities(X, Y), rtol=1e-9
    )
    np.testing.assert_allclose(model.predict(X, offset=offset), model.predict(X) + offset)


def test_several_outputs_multiply() -> None:
    model, y = regressor(n_outputs=2), np.stack([Y, Y - 1], axis=1)
    gate = model.gate_proba(X)
    for i, value in enumerate(model.score_samples(X, y)):
        total = 0.0
        for k in range(3):
            mean = X[i] @ SLOPES[:, k] + INTERCEPTS[k]
            total += gate[i, k] * math.prod(
                stats.norm(mean * (1 + j), SCALES[k]).pdf(y[i, j]) for j in range(2)
            )
        assert value == pytest.approx(math.log(total))


def test_classes_against_a_double_loop() -> None:
    model, labels = classifier(), np.array(["bee", "cat", "ant"] * 3)
    gate, experts, h = model.gate_proba(X), model.predict_experts(X), model.responsibilities(X, labels)
    for i in range(9):
        v = ["ant", "bee", "cat"].index(labels[i])
        joint = [gate[i, k] * experts[i, k, v] for k in range(2)]
        np.testing.assert_allclose(h[i], np.array(joint) / sum(joint))
        assert model.score_samples(X, labels)[i] == pytest.approx(math.log(sum(joint)))


@pytest.mark.parametrize("weights", [None, W])
@pytest.mark.parametrize("groups", [None, GROUPS])
def test_criteria_written_out(weights: Array | None, groups: Array | None) -> None:
    model = regressor()
    data = (X, Y, weights, None, groups)
    n = 9 if weights is None else W.sum()
    ll = model.score_samples(*data).sum()
    h = model.responsibilities(*data)
    entropy = [-sum(p * math.log(p) for p in row if p > 0) for row in h]
    if groups is None:
        total = sum(e * w for e, w in zip(entropy, np.ones(9) if weights is None else W, strict=True))
    else:
        total = sum(entropy[int(np.flatnonzero(groups == g)[0])] for g in "abc")
    assert model.aic(*data) == pytest.approx(-2 * ll + 2 * 18)
    assert model.bic(*data) == pytest.approx(-2 * ll + 18 * math.log(n))
    assert model.icl(*data) == pytest.approx(-2 * ll + 18 * math.log(n) + 2 * total)


def test_a_gate_that_models_the_inputs_counts_in_the_criteria(monkeypatch: pytest.MonkeyPatch) -> None:
    model = regressor()
    plain, weighted, grouped = model.aic(X, Y), model.aic(X, Y, W), model.aic(X, Y, groups=GROUPS)
    score = model.score_samples(X, Y)

    def evidence(inputs: Inputs) -> Array:
        return np.asarray(inputs.X[:, 0])

    monkeypatch.setattr(model, "_log_evidence", evidence)
    firsts = [2, 0, 3]  # of a, b, c
    assert model.aic(X, Y) == pytest.approx(plain - 2 * X[:, 0].sum())
    assert model.aic(X, Y, W) == pytest.approx(weighted - 2 * (W * X[:, 0]).sum())
    assert model.aic(X, Y, groups=GROUPS) == pytest.approx(grouped - 2 * X[firsts, 0].sum())
    np.testing.assert_array_equal(model.score_samples(X, Y), score)


def test_one_expert_has_no_entropy() -> None:
    model = regressor(n_experts=1)
    assert model.icl(X, Y) == model.bic(X, Y)
    assert (model.responsibilities(X, Y) == 1).all()


@pytest.mark.parametrize("criterion", ["aic", "bic", "icl"])
def test_criteria_need_a_number_of_parameters(criterion: str) -> None:
    message = r'need a number of parameters; expert 1 has none; use criterion="cv"'
    with pytest.raises(ValueError, match=message):
        getattr(regressor(counted=False), criterion)(X, Y)


def test_far_from_all_experts_nothing_overflows() -> None:
    model = regressor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h = model.responsibilities(X, Y + 1e5)
        assert np.isfinite(model.score_samples(X, Y + 1e5)).all()
    np.testing.assert_allclose(h.sum(axis=1), 1)


def test_what_no_expert_can_have_said_leaves_the_gate() -> None:
    model = regressor(family=lambda mean, k: stats.uniform(0, 1 + 0 * mean))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(model.responsibilities(X, np.full(9, 5.0)), model.gate_proba(X))
        assert (model.score_samples(X, np.full(9, 5.0)) == -np.inf).all()
        weight = np.array([0.0] + [1.0] * 8)
        assert model.score_samples(X, np.full(9, 5.0), weight)[0] == 0  # not 0 * -inf


def test_infinite_densities_share() -> None:
    inf = np.inf
    h = posterior(np.array([[inf, 0.0, inf], [-inf, -inf, 0.0]]), np.log(np.full((2, 3), 1 / 3)))
    assert h.tolist() == [[0.5, 0, 0.5], [0, 0, 1]]
    assert add_logs(np.array([-inf, 0.0]), np.array([inf, inf])).tolist() == [-inf, inf]
    assert logsumexp(np.array([[-inf, -inf], [inf, 0.0]])).tolist() == [-inf, inf]


def test_a_sparse_x_is_the_same() -> None:
    model, thin = regressor(), sparse.csr_array(X)
    np.testing.assert_allclose(model.responsibilities(thin, Y), model.responsibilities(X, Y))
    for pooling in ["weighted_sum", "argmax"]:
        np.testing.assert_allclose(model.predict(thin, pooling=pooling), model.predict(X, pooling=pooling))
    np.testing.assert_allclose(
        model.score_samples(thin, Y, groups=GROUPS), model.score_samples(X, Y, groups=GROUPS)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": Y[:5]}, r"y must have one entry for each of the 9 rows of X; got 5"),
        ({"y": np.where(np.arange(9) == 3, np.nan, Y)}, r"y must be finite; got nan; drop or impute"),
        ({"y": ["a"] * 9}, r"y must hold numbers; got \['a', 'a'"),
        (
            {"y": np.ones((9, 2, 2))},
            r"y must have the shape \(9,\) or \(9, outputs\); got the shape \(9, 2, 2\)",
        ),
        ({"y": np.ones((9, 9))}, r"y must have the shape that is predicted, \(9,\); got \(9, 9\)"),
        ({"y": np.ones((9, 2))}, r"y must have the shape that is predicted, \(9,\); got \(9, 2\)"),
        ({"offset": Y[:5]}, r"offset must have one entry for each of the 9 rows of X; got 5"),
        (
            {"offset": np.ones((9, 1))},
            r"offset must have the shape \(9,\), one number a row; got .* \(9, 1\)",
        ),
        ({"offset": np.full(9, np.inf)}, r"offset must be finite; got inf"),
        ({"sample_weight": -W}, r"sample_weight must not be negative; got -3\.0; use 0"),
        ({"sample_weight": W[1:]}, r"sample_weight must have one entry for each of the 9 rows"),
        ({"groups": GROUPS[1:]}, r"groups must have one entry for each of the 9 rows"),
        ({"groups": np.ones((9, 2))}, r"groups must have the shape \(9,\), one label a row; got .* \(9, 2\)"),
    ],
)
@pytest.mark.parametrize("method", ["responsibilities", "score_samples", "icl"])
def test_wrong_input(method: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(regressor(), method)(**{"X": X, "y": Y, **change})


def test_several_outputs_do_not_take_one() -> None:
    for y in (Y, Y[:, None]):
        with pytest.raises(
            ValueError, match=r"y must have the shape that is predicted, \(9, 9\); got \(9,\)"
        ):
            regressor(n_outputs=9).score_samples(X, y)


def test_a_single_column_of_y_is_one_output() -> None:
    np.testing.assert_array_equal(regressor().score_samples(X, Y[:, None]), regressor().score_samples(X, Y))


def test_wrong_labels() -> None:
    model = classifier()
    with pytest.raises(ValueError, match=r"the label 'dog', .* classes_ are 'ant', 'bee', 'cat'; leave such"):
        model.score_samples(X[:2], ["ant", "dog"])
    with pytest.raises(ValueError, match=r"the label 1, "):
        model.score_samples(X[:1], [1])
    with pytest.raises(ValueError, match=r"one label a row; got the shape \(2, 2\)"):
        model.score_samples(X[:2], [["ant", "bee"], ["ant", "bee"]])
    with pytest.raises(ValueError, match=r"y must have one entry for each of the 2 rows of X; got 1"):
        model.score_samples(X[:2], ["ant"])
