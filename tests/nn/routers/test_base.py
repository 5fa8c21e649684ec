"""BASE (Lewis et al. 2021): the balanced assignment against every assignment, and against scipy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from expertise.nn.routers import BaseRouter
from expertise.nn.routers._assignment import balanced_assignment
from nn.reference import balanced


def total(score: np.ndarray, experts: object) -> float:
    return float(score[np.arange(len(score)), experts].sum())


def check(score: np.ndarray) -> np.ndarray:
    """Assert that it is balanced; give it."""
    experts = balanced_assignment(score)
    load = np.bincount(experts, minlength=score.shape[1])
    assert load.sum() == len(score)
    assert load.max() - load.min() <= 1
    return experts


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["normal", "whole", "skewed"]),
)
def test_no_assignment_is_better(T: int, E: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(T, E))
    if kind == "whole":
        score = np.round(score)  # many ties
    if kind == "skewed":
        score += rng.normal(size=E) * 100
    best = balanced(score.tolist())
    assert total(score, check(score)) == pytest.approx(total(score, list(best)), abs=1e-9)


@pytest.mark.parametrize("skew", [0.0, 2.0, 50.0])
@pytest.mark.parametrize(("T", "E"), [(96, 8), (101, 8), (7, 12), (130, 64)])
def test_it_is_as_good_as_scipy_s(T: int, E: int, skew: float) -> None:
    """The same as one to one: T // E columns of each expert, and one more that nobody need take."""
    rng = np.random.default_rng(T)
    score = rng.normal(size=(T, E)) + skew * rng.normal(size=E)
    expert_of_column = np.arange((T // E + (T % E > 0)) * E) % E
    square = np.zeros((len(expert_of_column),) * 2)
    square[:T] = score[:, expert_of_column]
    square[T:, : T // E * E] = -np.inf
    _, column = linear_sum_assignment(square, maximize=True)
    assert total(score, check(score)) == pytest.approx(total(score, expert_of_column[column[:T]]), rel=1e-12)


@pytest.mark.parametrize(
    "score", [np.zeros((50, 7)), np.tile(np.arange(4.0), (33, 1)), np.full((9, 2), 1e30)]
)
def test_ties_end(score: np.ndarray) -> None:
    check(score)


def test_no_tokens() -> None:
    assert balanced_assignment(np.zeros((0, 3))).tolist() == []


def test_the_router_assigns_in_training_and_takes_the_best_in_evaluation() -> None:
    torch.manual_seed(0)
    router, x = BaseRouter(4, 3), torch.randn(30, 4) + 2
    training, evaluation = router(x), router.eval()(x)
    assert training.load_E.tolist() == [10, 10, 10]
    assert (
        training.experts_TK[:, 0].tolist()
        == balanced_assignment(training.logits_TE.detach().numpy()).tolist()
    )
    assert torch.equal(evaluation.experts_TK[:, 0], evaluation.logits_TE.argmax(1))
    assert evaluation.load_E.max() > 15
    for routing in (training, evaluation):
        chosen = routing.logits_TE.gather(1, routing.experts_TK)
        torch.testing.assert_close(routing.weights_TK, chosen.sigmoid())


def test_only_real_tokens_are_balanced() -> None:
    torch.manual_seed(0)
    mask = torch.rand(50) < 0.5
    load_E = BaseRouter(4, 3)(torch.randn(50, 4) + 2, mask).load_E
    assert load_E.sum() == mask.sum()
    assert load_E.max() - load_E.min() <= 1


def test_what_is_not_finite_is_assigned_and_stays_visible() -> None:
    x = torch.randn(6, 4)
    x[0, 0], x[1, 0], x[2, 0] = torch.nan, torch.inf, -torch.inf
    routing = BaseRouter(4, 3)(x)
    assert routing.load_E.tolist() == [2, 2, 2]
    assert bool(routing.weights_TK[0].isnan())
