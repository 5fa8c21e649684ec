"""Statistics of a recorded run: right by hand, the sum of their shards, and readable."""

import math
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expertise.nn import Experts, MoE, TopKRouter, record_routing
from expertise.nn.routing import Routing
from expertise.nn.soft import SoftMoE
from expertise.nn.statistics import LayerStatistics, RoutingStatistics, routing_statistics

D = 6


class Block(nn.Module):
    """Two sparse layers; the second runs twice in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MoE(TopKRouter(D, 4), Experts(4, D, 8), capacity_factor=1.0)
        self.second = MoE(TopKRouter(D, 8, k=1), Experts(8, D, 8))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.first(x, mask=mask)
        for _ in range(2):
            y = y + self.second(y, mask=mask)
        return y


def statistics_of(model: nn.Module, *batches: Tensor, named: bool = True) -> RoutingStatistics:
    with record_routing(model) as routings:
        for x in batches:
            model(x)
    return routing_statistics(routings, model if named else None)


def equal(one: LayerStatistics, other: LayerStatistics) -> bool:
    return (
        (one.name, one.tokens, one.dropped) == (other.name, other.tokens, other.dropped)
        and np.array_equal(one.load_E, other.load_E)
        and np.allclose(one.importance_E, other.importance_E)
        and math.isclose(one.entropy_sum, other.entropy_sum)
        and np.allclose(one.max_over_mean_S, other.max_over_mean_S, equal_nan=True)
    )


def test_by_hand() -> None:
    probs_TE = torch.tensor([[0.5, 0.5, 0], [1.0, 0, 0], [0, 0, 0], [0.25, 0.25, 0.5]])
    routing = Routing(
        3,
        (4,),
        probs_TE,
        torch.tensor([[0, 1], [0, 3], [3, 3], [2, 0]]),  # 3 is nobody, and the third row is padding
        torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0], [0.5, 0.25]]),
        mask_T=torch.tensor([True, True, False, True]),
        kept_TK=torch.tensor([[True, True], [True, True], [False, False], [True, False]]),
    )
    (one,) = routing_statistics([routing]).layers
    assert one.tokens == 3
    assert one.load_E.tolist() == [3, 1, 1]
    assert one.importance_E.tolist() == [1.75, 0.5, 0.5]
    assert one.entropy == pytest.approx((math.log(2) + 0 + 1.5 * math.log(2)) / 3)
    assert one.dropped == 1
    assert one.dropped_share == pytest.approx(1 / 5)
    assert one.unused == 0
    assert one.max_over_mean == pytest.approx(3 / (5 / 3))
    assert one.max_violation == pytest.approx(0.8)
    assert one.max_over_mean_S.tolist() == pytest.approx([1.8])


def test_shards_sum_to_the_whole() -> None:
    torch.manual_seed(0)
    model = Block()
    batches = torch.randn(3, 10, D).unbind(0)
    whole = statistics_of(model, *batches)
    summed = reduce(add, [statistics_of(model, one) for one in batches])
    assert [one.name for one in whole.layers] == ["first", "second"]
    for ours, theirs in zip(summed.layers, whole.layers, strict=True):
        assert equal(ours, theirs)


def test_a_layer_that_runs_twice_is_one_layer_of_two_steps() -> None:
    torch.manual_seed(0)
    first, second = statistics_of(Block(), torch.randn(10, D), torch.randn(10, D), named=False).layers
    assert (first.name, second.name) == ("layer 0", "layer 1")
    assert (first.tokens, second.tokens) == (20, 40)
    assert (len(first.max_over_mean_S), len(second.max_over_mean_S)) == (2, 4)
    assert second.load_E.sum() == 40
    assert first.dropped > 0


def test_the_load_over_all_steps_is_more_even_than_in_each() -> None:
    """Max over mean of the sum is no mean of the steps': what one batch lacks, another has."""
    routings = [
        Routing(2, (2,), torch.full((2, 2), 0.5), torch.tensor([[e], [e]]), torch.ones(2, 1)) for e in (0, 1)
    ]
    total = reduce(add, [routing_statistics([one]) for one in routings])
    assert total.layers[0].max_over_mean == 1
    assert total.layers[0].max_over_mean_S.tolist() == [2, 2]


def test_nothing_but_padding_gives_no_number_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    router = TopKRouter(D, 4)
    routing = router(torch.randn(3, D), mask=torch.zeros(3, dtype=torch.bool))
    statistics = routing_statistics([routing])
    (one,) = statistics.layers
    assert (one.tokens, one.unused, one.dropped) == (0, 4, 0)
    assert all(math.isnan(value) for value in (one.max_over_mean, one.entropy, one.dropped_share))
    assert statistics.table().splitlines()[1].split()[-4:] == ["-", "-", "-", "-"]
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_sigmoid_scores_have_an_entropy_too() -> None:
    router = TopKRouter(D, 4, activation="sigmoid")
    nn.init.zeros_(router.weight_ED)
    assert routing_statistics([router(torch.randn(3, D))]).layers[0].entropy == pytest.approx(math.log(4))


def test_soft_layers_are_left_out() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(SoftMoE(D, Experts(2, D, 8)), MoE(TopKRouter(D, 4), Experts(4, D, 8)))
    assert [one.name for one in statistics_of(model, torch.randn(5, D)).layers] == ["1"]
    with pytest.raises(ValueError, match="at least one Routing of a sparse layer; got 1 routings and none"):
        statistics_of(model[0], torch.randn(5, D))


def test_the_tables_are_aligned_and_complete() -> None:
    torch.manual_seed(0)
    statistics = statistics_of(Block(), torch.randn(100, D))
    lines = statistics.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == (
        ["layer", "tokens", "experts", "unused", "busiest", "max/mean", "importance", "entropy", "dropped"]
    )
    first = statistics.layers[0]
    assert lines[1].split() == [
        "first", "100", "4", "0", str(first.load_E.argmax()), f"{first.max_over_mean:.2f}",
        f"{first.importance_E.max() / first.importance_E.mean():.2f}", f"{first.entropy:.2f}",
        f"{first.dropped / 2:.1f}", "%",
    ]  # fmt: skip
    by_expert = statistics.table(experts=True).splitlines()
    assert len(by_expert) == 1 + 4 + 8
    assert [int(line.split()[2]) for line in by_expert[1:5]] == first.load_E.tolist()
    assert [float(line.split()[3]) for line in by_expert[1:5]] == pytest.approx(first.load_E / 50, abs=0.006)


def test_errors_say_what_does_not_fit() -> None:
    small, large = (TopKRouter(D, experts)(torch.randn(3, D)) for experts in (2, 4))
    with pytest.raises(
        ValueError, match=r"one layer only; got 'layer 0' with 2 experts and 'layer 0' with 4"
    ):
        routing_statistics([small]) + routing_statistics([large])
    with pytest.raises(
        ValueError, match=r"the same layers only; got \['layer 0'\] and \['layer 0', 'layer 1'\]"
    ):
        routing_statistics([small]) + routing_statistics([small, large])
    with pytest.raises(ValueError, match="at least one Routing of a sparse layer; got 0 routings"):
        routing_statistics([])
    with pytest.raises(ValueError, match="model names the layers of what record_routing gave; got another"):
        routing_statistics([small], Block())
    model = Block()
    with record_routing(model) as routings:
        model(torch.randn(2, D))
    with pytest.raises(
        ValueError, match="model must be the one that was recorded; a recorded MoE is not in it"
    ):
        routing_statistics(routings, Block())
