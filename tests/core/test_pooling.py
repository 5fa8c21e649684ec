"""Poolings: which experts count, by how much, and that no other expert is asked."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.mixtures import inputs, regressor, softmax
from expertise.core import POOLINGS
from expertise.core.pooling import pool, pooling_weights


def test_weights_by_hand() -> None:
    gate = np.array([[0.5, 0.1, 0.4], [0.3, 0.3, 0.4]])
    assert pooling_weights("weighted_sum", gate, 2).tolist() == gate.tolist()
    assert pooling_weights("argmax", gate, 2).tolist() == [[1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(
        pooling_weights("top_k", gate, 2), [[5 / 9, 0, 4 / 9], [3 / 7, 0, 4 / 7]], rtol=1e-15
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.data())
def test_top_k_keeps_the_largest_and_sums_to_one(seed: int, n_experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n_experts))
    gate = softmax(np.random.default_rng(seed).normal(size=(5, n_experts)) * 3)
    weights = pooling_weights("top_k", gate, k)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    for row, kept in zip(gate, weights, strict=True):
        assert np.count_nonzero(kept) == k
        assert set(np.flatnonzero(kept)) == set(sorted(range(n_experts), key=lambda j: -row[j])[:k])
        ratios = kept[kept > 0] / row[kept > 0]
        np.testing.assert_allclose(ratios, ratios[0])


def test_of_equal_experts_the_first_counts() -> None:
    assert pooling_weights("argmax", np.full((1, 4), 0.25), 2).tolist() == [[1, 0, 0, 0]]
    many = np.tile([1 / 64, 3 / 64], 32)[None]  # enough experts for an unstable sort to show
    assert np.flatnonzero(pooling_weights("top_k", many, 5)).tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_prediction_equals_a_double_loop(pooling: str) -> None:
    model, X = regressor(), inputs(20)
    gate, experts = model.gate_proba(X), model.predict_experts(X)
    for i, value in enumerate(model.predict(X, pooling=pooling, k=2)):
        order = sorted(range(3), key=lambda j: -gate[i, j])
        kept = order[: {"weighted_sum": 3, "argmax": 1, "top_k": 2}[pooling]]
        total = sum(gate[i, j] for j in kept)
        assert value == pytest.approx(sum(gate[i, j] / total * experts[i, j] for j in kept), rel=1e-12)


@pytest.mark.parametrize("n_outputs", [None, 2])
def test_argmax_gives_the_experts_own_numbers(n_outputs: int | None) -> None:
    model, X = regressor(n_outputs=n_outputs), inputs(40)
    chosen, values = model.apply(X), model.predict(X, pooling="argmax")
    assert set(chosen) == {0, 1, 2}
    for k in range(3):
        rows = chosen == k
        assert values[rows].tobytes() == model.predict_experts(X[rows])[:, k].tobytes()


def test_a_lone_output_is_not_rounded() -> None:
    outputs = {0: np.array([-0.0, np.inf]), 1: np.array([np.nan, 1.0])}
    value = pool(np.array([[1.0, 0.0], [1.0 - 1e-16, 0.0]]), lambda k, rows: outputs[k][rows])
    assert value.tobytes() == outputs[0].tobytes()


def test_only_the_experts_that_count_are_asked() -> None:
    gate = np.array([[0.7, 0.2, 0.1, 0.0], [0.6, 0.1, 0.3, 0.0], [0.2, 0.5, 0.3, 0.0]])

    def asked(pooling: str) -> list[tuple[int, list[int]]]:
        calls: list[tuple[int, list[int]]] = []

        def predict_one(k: int, rows: Any) -> Any:
            calls.append((k, rows.tolist()))
            return np.ones(len(rows))

        pool(pooling_weights(pooling, gate, 2), predict_one)
        return calls

    assert asked("argmax") == [(0, [0, 1]), (1, [2])]
    assert asked("top_k") == [(0, [0, 1]), (1, [0, 2]), (2, [1, 2])]
    assert asked("weighted_sum") == [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [0, 1, 2])]


def test_a_mixture_asks_its_experts_once_for_their_rows() -> None:
    model, X = regressor(), inputs(30)
    counts = np.bincount(model.apply(X), minlength=3)
    model.predict(X, pooling="argmax")
    assert model.asked == [(k, count) for k, count in enumerate(counts) if count]
    model.asked.clear()
    model.predict(X, pooling="top_k", k=2)
    assert sum(rows for _, rows in model.asked) == 60


def test_a_gate_that_is_not_a_number_gives_no_number() -> None:
    assert np.isnan(pool(np.array([[np.nan, np.nan], [1.0, 0.0]]), lambda k, rows: np.ones(len(rows)))[0])
    assert np.isnan(pool(np.array([[np.nan]]), lambda k, rows: np.ones(len(rows)))).all()


def test_one_expert() -> None:
    model, X = regressor(n_experts=1), inputs(5)
    for pooling in POOLINGS:
        assert model.predict(X, pooling=pooling, k=1).tolist() == model.predict_experts(X)[:, 0].tolist()


@pytest.mark.parametrize(
    ("pooling", "k", "message"),
    [
        ("topk", 2, r"one of 'weighted_sum', 'argmax', 'top_k'; got 'topk'; did you mean 'top_k'\?"),
        ("zzz", 2, r"got 'zzz'$"),
        (None, 2, r"got None$"),
        (
            "top_k",
            4,
            r'k must be a whole number from 1 to the number of experts, 3; got 4; pooling="weighted',
        ),
        ("top_k", 0, r"got 0"),
        ("top_k", 1.5, r"got 1\.5"),
        ("top_k", True, r"got True"),
    ],
)
def test_wrong_poolings(pooling: Any, k: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regressor().predict(inputs(), pooling=pooling, k=k)
