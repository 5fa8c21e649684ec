"""Who goes where: dispatch and combine against loops, and what must never happen on the way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from expertise.nn import ExpertList, Experts, MoE, TopKRouter
from expertise.nn.dispatch import Capacity, Dispatch, combine, dispatch
from expertise.nn.routing import Routing
from nn import reference


def some_routing(
    T: int, K: int, E: int, seed: int, masked: bool, sequences: int = 1, holes: bool = True
) -> Routing:
    """Random different experts for each token, some of them nobody, with different weights."""
    g = torch.Generator().manual_seed(seed)
    experts_TK = torch.rand(T, E, generator=g).argsort(1)[:, :K]
    nobody_TK = torch.rand(T, K, generator=g) < (0.2 if holes else 0.0)
    mask_T = torch.rand(T, generator=g) < 0.7 if masked else None
    if mask_T is not None:
        nobody_TK = nobody_TK | ~mask_T[:, None]
    experts_TK = torch.where(nobody_TK, E, experts_TK)
    weights_TK = torch.where(nobody_TK, 0.0, torch.rand(T, K, generator=g))
    shape = (sequences, T // sequences)
    return Routing(E, shape, torch.full((T, E), 1 / E), experts_TK, weights_TK, mask_T=mask_T)


def check(plan: Dispatch, routing: Routing, kept: list[list[bool]]) -> None:
    """Assert that every pair that is kept is found with its token, among the rows of its expert."""
    T, K = routing.experts_TK.shape
    ends = plan.offsets_E.tolist()
    starts = [0, *ends][:-1]
    seen = []
    for t in range(T):
        for k in range(K):
            place, e = int(plan.places_TK[t, k]), int(routing.experts_TK[t, k])
            goes = e < routing.num_experts and kept[t][k]
            if plan.kept_TK is not None and e < routing.num_experts:
                assert bool(plan.kept_TK[t, k]) == kept[t][k]
            if goes:
                assert int(plan.tokens_P[place]) == t
                assert starts[e] <= place < ends[e]
                seen.append(place)
            else:
                assert place >= ends[-1]
            assert place < len(plan.tokens_P)
    assert sorted(seen) == list(range(ends[-1]))
    assert plan.offsets_E.dtype == torch.int32


sizes = st.tuples(st.integers(0, 12), st.integers(1, 5), st.integers(1, 5)).filter(lambda s: s[1] <= s[2])


@settings(deadline=None, max_examples=150)
@given(size=sizes, seed=st.integers(0, 10**6), masked=st.booleans())
def test_every_pair_is_found_with_its_expert(size: tuple[int, int, int], seed: int, masked: bool) -> None:
    T, K, E = size
    routing = some_routing(T, K, E, seed, masked)
    check(dispatch(routing), routing, [[True] * K for _ in range(T)])


@settings(deadline=None, max_examples=250)
@given(
    size=sizes,
    seed=st.integers(0, 10**6),
    masked=st.booleans(),
    factor=st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.25, 9.0]),
    tokens=st.sampled_from([None, 0, 1, 3]),
    order=st.sampled_from(["position", "priority"]),
    sequences=st.sampled_from([1, 3]),
    per_sequence=st.booleans(),
)
def test_capacity_is_claimed_one_after_the_other(
    size: tuple[int, int, int],
    seed: int,
    masked: bool,
    factor: float,
    tokens: int | None,
    order: str,
    sequences: int,
    per_sequence: bool,
) -> None:
    T, K, E = size
    routing = some_routing(T * sequences, K, E, seed, masked, sequences)
    capacity = Capacity(factor, tokens, order, per_sequence)
    kept = reference.kept(routing, capacity) if T else []
    check(dispatch(routing, capacity), routing, kept)


@settings(deadline=None, max_examples=100)
@given(size=sizes, seed=st.integers(0, 10**6), masked=st.booleans(), extra=st.integers(0, 3))
def test_a_bound_on_the_pairs_only_cuts_rows_of_nobody(
    size: tuple[int, int, int], seed: int, masked: bool, extra: int
) -> None:
    T, K, E = size
    routing = some_routing(T, K, E, seed, masked)
    pairs = int(routing.chosen_TK.sum())
    bounded = Routing(**{**vars(routing), "max_pairs": min(T * K, pairs + extra)})
    for capacity in (None, Capacity(0.5)):
        plan = dispatch(bounded, capacity)
        assert len(plan.tokens_P) <= pairs + extra + 1
        kept = [[True] * K] * T if capacity is None or not T else reference.kept(routing, capacity)
        check(plan, routing, kept)


@settings(deadline=None, max_examples=60)
@given(size=sizes, seed=st.integers(0, 10**6), masked=st.booleans())
def test_combine_is_the_weighted_sum(size: tuple[int, int, int], seed: int, masked: bool) -> None:
    T, K, E = size
    routing = some_routing(T, K, E, seed, masked)
    plan = dispatch(routing)
    y_PD = torch.randn(len(plan.tokens_P), 3, generator=torch.Generator().manual_seed(seed))
    y_PD[plan.offsets_E[-1] :] = 0
    y_TD = combine(y_PD, plan.places_TK, routing.weights_TK)
    for t in range(T):
        expected = sum(routing.weights_TK[t, k] * y_PD[plan.places_TK[t, k]] for k in range(K))
        torch.testing.assert_close(y_TD[t], expected)


@pytest.mark.parametrize("masked", [False, True])
def test_position_takes_the_first_and_priority_the_largest(masked: bool) -> None:
    experts_TK, weights_TK = torch.tensor([[0], [0], [0], [0]]), torch.tensor([[0.1], [0.9], [0.5], [0.7]])
    mask_T = torch.ones(4, dtype=torch.bool) if masked else None
    routing = Routing(1, (4,), torch.ones(4, 1), experts_TK, weights_TK, mask_T=mask_T)
    by_position = dispatch(routing, Capacity(0.5, order="position")).kept_TK
    by_priority = dispatch(routing, Capacity(0.5, order="priority")).kept_TK
    assert by_position is not None
    assert by_priority is not None
    assert by_position.flatten().tolist() == [True, True, False, False]
    assert by_priority.flatten().tolist() == [False, True, False, True]


def test_first_choices_come_before_second_ones() -> None:
    """GShard, Algorithm 1: token 0's second choice loses to token 1's first."""
    routing = Routing(
        2, (2,), torch.full((2, 2), 0.5), torch.tensor([[0, 1], [1, 0]]), torch.full((2, 2), 0.5)
    )
    kept_TK = dispatch(routing, Capacity(0.0, tokens=1)).kept_TK
    assert kept_TK is not None
    assert kept_TK.tolist() == [[True, False], [True, False]]


def test_every_sequence_fills_the_experts_by_itself() -> None:
    experts_TK = torch.zeros(6, 1, dtype=torch.int64)
    routing = Routing(2, (2, 3), torch.full((6, 2), 0.5), experts_TK, torch.ones(6, 1))
    of_all = dispatch(routing, Capacity(0.0, tokens=2)).kept_TK
    of_each = dispatch(routing, Capacity(0.0, tokens=2, per_sequence=True)).kept_TK
    assert of_all is not None
    assert of_each is not None
    assert of_all.flatten().tolist() == [True, True, False, False, False, False]
    assert of_each.flatten().tolist() == [True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("tokens", "num_experts", "factor", "expected"), [(50, 5, 1.5, 15), (100, 5, 1.5, 30)]
)
@pytest.mark.parametrize(
    "masked",
    [
        False,
        True,
    ],
)
def test_the_capacity_is_the_same_with_a_mask(
    tokens: int, num_experts: int, factor: float, expected: int, masked: bool
) -> None:
    """50 x 1.5 / 5 is 15; a product in float32 is a little more, and its ceiling 16."""
    mask_T = torch.ones(tokens, dtype=torch.bool) if masked else None
    experts_TK = torch.zeros(tokens, 1, dtype=torch.int64)
    routing = Routing(
        num_experts,
        (tokens,),
        torch.ones(tokens, num_experts),
        experts_TK,
        torch.ones(tokens, 1),
        mask_T=mask_T,
    )
    plan = dispatch(routing, Capacity(factor))
    assert int(plan.offsets_E[-1]) == expected


class _Poison(nn.Module):
    """NaN for every row whose first value is above 10."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 10, torch.nan, x)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("capacity", [None, 5])
@pytest.mark.parametrize("order", ["position", "priority"])
def test_nan_of_one_token_reaches_no_other(k: int, capacity: int | None, order: str) -> None:
    torch.manual_seed(0)
    layer = MoE(
        TopKRouter(4, 3, k),
        ExpertList([_Poison() for _ in range(3)]),
        capacity=capacity,
        capacity_order=order,
    )
    x = torch.randn(20, 4)
    x[0, 0] = 20.0
    x.requires_grad_()
    y, routing = layer(x, return_routing=True)
    assert bool(y[0].isnan().any()) == bool(routing.picked_TK[0].any())
    assert bool(y[1:].isfinite().all())
    if capacity is not None:
        assert routing.dropped > 0
        assert not y[~routing.picked_TK.any(1)].any()
    y[1:].sum().backward()
    assert bool(x.grad[1:].isfinite().all())


class _Largest(TorchDispatchMode):
    """Remember the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, Tensor):
                self.size = max(self.size, one.numel())
        return result


@pytest.mark.parametrize("order", ["position", "priority"])
@pytest.mark.parametrize("per_sequence", [False, True])
def test_pitfall_13_nothing_grows_with_tokens_times_experts_times_capacity(
    order: str, per_sequence: bool
) -> None:
    B, L, D, H, E, K = 4, 128, 8, 4, 32, 2
    T, C = B * L, math.ceil(B * L * K / E)
    layer = MoE(
        TopKRouter(D, E, K),
        Experts(E, D, H, activation="relu"),
        capacity_factor=1.0,
        capacity_order=order,
        capacity_per_sequence=per_sequence,
    )
    with _Largest() as largest:
        layer(torch.randn(B, L, D)).sum().backward()
    assert largest.size <= T * max(E, K * D)
    assert T * max(E, K * D) < T * E * C / 30
