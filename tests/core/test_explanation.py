"""Explanations and summaries: effects by a double loop, words that say what the numbers say."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from core.mixtures import INTERCEPTS, SLOPES, TinyRegressor, classifier, inputs, regressor
from expertise.core import Explanation
from expertise.core.explanation import effects

TYPICAL = np.array([0.5, -0.25])


def test_effects_by_a_double_loop() -> None:
    model, X = regressor(), inputs(10)
    told = model.explain(X, offset=np.ones(10))
    np.testing.assert_allclose(told.prediction, model.predict(X, offset=np.ones(10)))
    np.testing.assert_array_equal(told.gate_proba, model.gate_proba(X))
    np.testing.assert_array_equal(told.expert_predictions, model.predict_experts(X, offset=np.ones(10)))
    assert told.chosen.tolist() == model.apply(X).tolist()
    for i in range(10):
        k = told.chosen[i]
        for j in range(2):
            moved = X[[i]]
            moved[0, j] = TYPICAL[j]
            expected = model.gate_proba(X)[i, k] - model.gate_proba(moved)[0, k]
            assert told.gate_effects[i, j] == pytest.approx(expected)
            assert told.expert_effects[i, j] == pytest.approx(
                (X[i, j] - TYPICAL[j]) * SLOPES[j, k], abs=1e-12
            )


def test_effects_of_several_outputs_are_by_output() -> None:
    one, two, X = regressor(), regressor(n_outputs=2), inputs(5)
    told = two.explain(X)
    assert told.expert_effects.shape == (5, 2, 2)
    np.testing.assert_allclose(told.expert_effects[..., 1], 2 * one.explain(X).expert_effects)
    assert "[" in str(told)


def test_effects_on_the_predicted_class() -> None:
    model, X = classifier(), inputs(8)
    told = model.explain(X)
    assert told.prediction.tolist() == model.predict(X).tolist()
    for i in range(8):
        v = model.classes_.tolist().index(told.prediction[i])
        for j in range(2):
            moved = X[[i]]
            moved[0, j] = 0
            k = told.chosen[i]
            expected = model.predict_experts(X)[i, k, v] - model.predict_experts(moved)[0, k, v]
            assert told.expert_effects[i, j] == pytest.approx(expected)
    assert f"experts said for {told.prediction[0]}:" in str(told[0])


def test_a_column_that_is_typical_or_has_no_typical_value_has_no_effect() -> None:
    X = np.array([[0.5, 3.0], [0.5, 1.0]])
    told = regressor().explain(X)
    assert (told.gate_effects[:, 0] == 0).all()
    assert (told.gate_effects[:, 1] != 0).all()
    unknown = regressor(nan_allowed=True).explain(np.array([[1.0, 3.0], [1.0, np.nan]]))
    assert (unknown.gate_effects[:, 1] == 0).all()
    assert (unknown.expert_effects[:, 0] != 0).all()
    assert "nothing, each input alone makes no difference" in str(regressor().explain(TYPICAL[None]))


def test_the_inputs_stay_as_they_were() -> None:
    X = inputs(6)
    before = X.copy()
    regressor().explain(X)
    np.testing.assert_array_equal(X, before)
    seen: list[int] = []

    def evaluate(moved: np.ndarray) -> np.ndarray:
        seen.append(len(moved))
        return np.asarray(moved.prod(axis=1))

    effects(X, np.zeros(2), evaluate)
    assert seen == [6, 6, 6]  # d + 1 evaluations


def squares(X: np.ndarray) -> np.ndarray:
    """Two values a row that no column alone explains."""
    return np.stack([X[:, 0] * X[:, 1] + X[:, 2], (X**2).sum(axis=1)], axis=1)


def test_columns_of_a_block_move_together() -> None:
    rng = np.random.default_rng(0)
    X, usual, blocks = rng.normal(size=(7, 4)), rng.normal(size=4), [[3], [0, 1], [2]]
    found = effects(X, usual, squares, blocks)
    assert found.shape == (7, 3, 2)
    for i in range(7):
        for b, block in enumerate(blocks):
            moved = X[[i]]
            for column in block:
                moved[0, column] = usual[column]
            np.testing.assert_allclose(found[i, b], squares(X[[i]])[0] - squares(moved)[0], atol=1e-12)
    alone = effects(X, usual, squares)
    np.testing.assert_array_equal(found[:, 0], alone[:, 3])
    assert not np.allclose(found[:, 1], alone[:, 0] + alone[:, 1])  # a product is more than its factors
    np.testing.assert_array_equal(effects(X, usual, squares, [[0], [1], [2], [3]]), alone)


def test_blocks_cost_an_evaluation_each_and_leave_the_inputs_as_they_were() -> None:
    X, seen = inputs(6), list[np.ndarray]()
    before = X.copy()

    def evaluate(moved: np.ndarray) -> np.ndarray:
        seen.append(moved.copy())
        return np.asarray(moved.sum(axis=1))

    effects(X, np.zeros(2), evaluate, [[0, 1], [1]])
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[1], np.zeros((6, 2)))
    np.testing.assert_array_equal(seen[2], np.stack([X[:, 0], np.zeros(6)], axis=1))
    np.testing.assert_array_equal(X, before)


def test_of_a_block_the_columns_without_a_typical_value_stay() -> None:
    X, usual = np.array([[1.0, 2.0, 3.0]]), np.array([0.0, np.nan, 3.0])
    found = effects(X, usual, lambda moved: moved @ [1.0, 10.0, 100.0], [[0, 1], [1], [2], []])
    assert found.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_words_say_the_numbers() -> None:
    frame = pd.DataFrame([[2.0, 1.0], [-1.0, 0.5]], columns=["age", "size"])
    told = TinyRegressor().fit(frame).explain(frame)
    lines = str(told).splitlines()
    k, gate = told.chosen[0], told.gate_proba[0]
    mean = frame.to_numpy()[0] @ SLOPES + INTERCEPTS
    assert (
        lines[0] == f"row 0: predicted {told.prediction[0]:.4g}; expert {k} decided with weight {gate[k]:.2f}"
    )
    for j in range(3):
        assert f"expert {j} {mean[j]:.4g} (weight {gate[j]:.2f})" in lines[1]
    assert lines[2].startswith(f"  what moved the gate to expert {k}: age = 2 (+")
    assert f"size = 1 ({told.gate_effects[0, 1]:+.4g})" in lines[2]
    assert f"age = 2 ({1.5 * SLOPES[0, k]:+.4g})" in lines[3]
    assert lines[4] == ""
    assert lines[5].startswith("row 1: ")


def test_the_three_largest_movers() -> None:
    told = Explanation(
        rows=np.array([7]),
        inputs=np.arange(5.0)[None],
        feature_names=("a", "b", "c", "d", "e"),
        gate_proba=np.array([[1.0]]),
        expert_predictions=np.array([[2.0]]),
        prediction=np.array([2.0]),
        chosen=np.array([0]),
        gate_effects=np.array([[0.1, -0.5, 0.2, 0.0, 0.3]]),
        expert_effects=np.array([[0.0, 0.0, 0.0, -4.0, 0.0]]),
    )
    gate, expert = str(told).splitlines()[2:]
    assert gate == "  what moved the gate to expert 0: b = 1 (-0.5), e = 4 (+0.3), c = 2 (+0.2)"
    assert expert == "  what moved expert 0: d = 3 (-4)"


def test_rows_of_an_explanation() -> None:
    told = regressor().explain(inputs(6))
    assert len(told) == 6
    assert str(told[4]).startswith("row 4: ")
    assert len(told[4]) == len(told[-1]) == 1
    assert told[1:3].rows.tolist() == [1, 2]
    assert str(told) == "\n\n".join(str(row) for row in told)
    assert told[2].gate_effects.tolist() == told.gate_effects[[2]].tolist()
    with pytest.raises(IndexError, match="row 6 of an explanation of 6 rows"):
        told[6]


def test_a_sparse_x_is_explained_where_it_is_narrow() -> None:
    X = inputs(4)
    np.testing.assert_allclose(
        regressor().explain(sparse.csr_array(X)).gate_effects, regressor().explain(X).gate_effects
    )
    wide = regressor()
    wide.n_features_in_ = 201
    message = r"up to 200 of a sparse X; got 201 columns; give the rows of interest as a dense array"
    with pytest.raises(ValueError, match=message):
        wide.explain(sparse.csr_array((3, 201)))


def test_summary() -> None:
    model = regressor()
    model.weights_ = np.array([0.125, 0.5, 0.375])
    assert model.summary().splitlines() == [
        "TinyRegressor: 3 experts",
        "gate: softmax",
        "",
        "expert  mean weight  parameters",
        "     0        0.125           4",
        "     1        0.500           4",
        "     2        0.375           4",
        "",
        "parameters             18",
        "active per prediction  10 (gate and largest expert)",
        "log-likelihood         -1,234.500",
    ]


def test_summary_of_what_has_no_number_of_parameters() -> None:
    model = regressor(counted=False, n_experts=2)
    model.fit_seconds_ = 1.25
    lines = model.summary().splitlines()
    assert lines[4:6] == ["     0        0.500           4", "     1        0.500     unknown"]
    assert lines[-4].split() == ["parameters", "unknown"]
    assert lines[-3].split() == ["active", "per", "prediction", "unknown"]
    assert lines[-1] == "fit time               1.25 s"
    assert regressor(n_experts=1).summary().startswith("TinyRegressor: 1 expert\n")


def test_summary_where_the_mixture_counts_nothing() -> None:
    assert classifier().summary().splitlines()[3:5] == [
        "     0        0.250     unknown",
        "     1        0.750     unknown",
    ]
