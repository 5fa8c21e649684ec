"""Merging: means of experts, and a router that gives a group the probability of its members."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from expertise.nn import ExpertList, Experts, MoE, TopKRouter
from expertise.nn.exchange import FeedForward, merge
from expertise.nn.routers import DenseRouter, TopPRouter
from nn.router_cases import CASES

D, E = 5, 6
X = torch.randn(100, D, generator=torch.Generator().manual_seed(0))


def make(k: int = 2, router: dict[str, Any] | None = None, **more: Any) -> MoE:
    torch.manual_seed(0)
    return MoE(TopKRouter(D, E, k, **(router or {})), Experts(E, D, 7, bias=True), **more)


def test_means_by_hand() -> None:
    layer = make(router={"bias": True})
    nn.init.normal_(layer.router.bias_E)  # type: ignore[arg-type]
    routing = layer(X, return_routing=True)[1]
    smaller = merge(layer, [[4], [0, 3], [5, 1, 2]], routing)
    load_E = routing.load_E.double()
    old, new = layer.state_dict(), smaller.state_dict()
    for name, tensor in new.items():
        assert torch.equal(tensor[0], old[name][4])
        for row, group in ((1, [0, 3]), (2, [5, 1, 2])):
            share = load_E[group] / load_E[group].sum()
            mean = sum(w * old[name][e].double() for w, e in zip(share, group, strict=True))
            if name == "router.bias_E":
                mean = mean + torch.special.entr(share).sum()
            assert torch.allclose(tensor[row].double(), mean, atol=1e-6), name


@pytest.mark.parametrize("kind", ["dense", "top_k", "top_p"])
def test_equal_experts_with_equal_rows_merge_without_a_trace(kind: str) -> None:
    """log-sum-exp of equal logits is the mean plus the entropy, so probabilities add up exactly."""
    torch.manual_seed(0)
    routers: dict[str, Any] = {
        "dense": DenseRouter(D, E),
        "top_k": TopKRouter(D, E, E),
        "top_p": TopPRouter(D, E, 1.0),
    }
    layer = MoE(routers[kind], Experts(E, D, 7))
    with torch.no_grad():
        for tensor in layer.parameters():
            tensor[3] = tensor[0]
            tensor[4] = tensor[0]
    smaller = merge(layer, [[0, 3, 4], [1], [2], [5]])
    assert (smaller(X) - layer(X)).abs().max() < 1e-5
    assert smaller.router.bias_E.tolist() == pytest.approx([math.log(3), 0, 0, 0])  # type: ignore[union-attr]


def test_the_bias_is_the_closest_of_all_lower_bounds() -> None:
    """sum w l + H(w) <= log sum exp l, and the shares decide where it is close."""
    layer = make(k=E)
    old = layer.router(X).logits_TE
    for shares in ([1.0, 1.0], [5.0, 1.0]):
        weights = torch.tensor(shares) / sum(shares)
        routing = layer(X, return_routing=True)[1]
        # loads with these shares: of experts 0 and 3
        experts_TK = torch.tensor([[0]] * int(shares[0]) + [[3]] * int(shares[1]))
        counted = type(routing)(E, (len(experts_TK),), routing.probs_TE, experts_TK, experts_TK.float())
        smaller = merge(layer, [[0, 3], [1], [2], [4], [5]], counted)
        new = smaller.router(X).logits_TE[:, 0]
        expected = old[:, [0, 3]] @ weights - (weights * weights.log()).sum()
        assert torch.allclose(new, expected, atol=1e-5)
        assert (new <= old[:, [0, 3]].logsumexp(-1) + 1e-5).all()


def test_sigmoid_scores_get_no_bias_and_the_selection_bias_is_a_mean() -> None:
    layer = make(router={"activation": "sigmoid", "selection_bias": True, "scale": 2.5})
    with torch.no_grad():
        layer.router.selection_bias_E.copy_(torch.arange(6.0))  # type: ignore[union-attr]
    smaller = merge(layer.bfloat16(), [[0, 1], [2, 3], [4, 5]])
    router = smaller.router
    assert isinstance(router, TopKRouter)
    assert router.bias_E is None
    assert router.selection_bias_E is not None
    assert router.selection_bias_E.tolist() == [0.5, 2.5, 4.5]
    assert router.selection_bias_E.dtype == torch.float32
    assert router.weight_ED.dtype == torch.bfloat16
    assert router.scale == 2.5


def test_without_groups_of_several_nothing_changes_but_the_order() -> None:
    layer = make()
    order = [3, 0, 5, 1, 4, 2]
    smaller = merge(layer, [[e] for e in order])
    assert smaller.router.bias_E is None  # type: ignore[union-attr]
    for name, tensor in smaller.state_dict().items():
        assert torch.equal(tensor, layer.state_dict()[name][order])
    assert (smaller(X) - layer(X)).abs().max() < 1e-6


def test_how_many_the_most_used_lead_and_the_others_join_the_nearest() -> None:
    layer = make()
    rows = torch.zeros(E, D)
    rows[[0, 1, 2], [0, 1, 2]] = 1.0
    rows[3] = 3 * rows[1] + 0.1
    rows[4] = rows[0] - 0.2
    rows[5] = rows[1] - 0.1
    with torch.no_grad():
        layer.router.weight_ED.copy_(rows)  # type: ignore[operator]
    experts_TK = torch.tensor([[0]] * 5 + [[1]] * 3 + [[3]] * 4 + [[2]] * 6)
    routing = layer(X, return_routing=True)[1]
    counted = type(routing)(E, (18,), routing.probs_TE, experts_TK, experts_TK.float())
    smaller = merge(layer, 3, counted)  # leaders are 0, 2, 3; 1 and 5 join 3, 4 joins 0
    expected = merge(layer, [[0, 4], [2], [1, 3, 5]], counted)
    for name, tensor in smaller.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    # experts 4 and 5 had no load, so they have no part in the mean
    assert torch.equal(smaller.experts.up_weight[0], layer.experts.up_weight[0])  # type: ignore[index]
    assert merge(layer, 6, counted).experts.num_experts == 6
    assert merge(layer, 1, counted)(X).shape == X.shape


def test_settings_stay_and_k_is_clipped() -> None:
    layer = make(k=4, shared=FeedForward(D, 3), shared_gate=True, capacity=9, capacity_order="priority")
    smaller = merge(layer.eval(), [[0, 1, 2], [3, 4], [5]])
    assert smaller.router.k == 3  # type: ignore[union-attr]
    assert (smaller.capacity, smaller.capacity_order, smaller.training) == (9, "priority", False)
    for name in ("shared.up_weight", "shared.down_weight", "shared_gate.weight"):
        assert torch.equal(smaller.state_dict()[name], layer.state_dict()[name])
    one = merge(layer, 1)
    assert one.router.k == 1  # type: ignore[union-attr]
    mean = layer.experts.up_weight.mean(0)  # type: ignore[operator]
    assert torch.allclose(one.experts.up_weight[0], mean, atol=1e-6)  # type: ignore[index]


def test_modules_of_one_class() -> None:
    torch.manual_seed(0)
    modules: list[nn.Module] = [nn.Linear(D, D) for _ in range(3)]
    layer = MoE(DenseRouter(D, 4), ExpertList([*modules, nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D))]))
    smaller = merge(layer, [[0, 2], [1], [3]])
    first = smaller.experts.experts[0]  # type: ignore[union-attr, index]
    mean = (modules[0].weight + modules[2].weight) / 2  # type: ignore[operator]
    assert torch.allclose(first.weight, mean)
    assert smaller(X).shape == X.shape
    with pytest.raises(
        ValueError, match=r"only modules of one class and of equal shapes.*Linear, Sequential"
    ):
        merge(layer, [[0, 3], [1], [2]])


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([[0, 1], [2, 3], [4]], r"groups must name each expert from 0 to 5 exactly once.*got \[\[0, 1\], \["),
        ([[0, 1], [1, 2, 3], [4, 5]], r"groups must name each expert from 0 to 5 exactly once"),
        ([[0, 1, 2, 3, 4, 5], []], r"in groups that are not empty"),
        (7, r"groups must be a whole number of at least 1 and at most 6; got 7"),
    ],
)
def test_groups_that_do_not_fit(groups: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        merge(make(), groups)


def test_layers_that_cannot_be_merged() -> None:
    hashed = next(case for case in CASES if case.name == "hash").layer()
    with pytest.raises(ValueError, match=r"merge knows the routers top_k, dense, .*; the layer has 'hash'"):
        merge(hashed, 2)
    grouped = make(router={"groups": 2, "groups_kept": 1})
    with pytest.raises(
        ValueError, match=r"its router chooses within groups=2, which would not stay of equal"
    ):
        merge(grouped, 2)
    with pytest.raises(ValueError, match=r"layer must be an expertise.nn.MoE; got Linear"):
        merge(nn.Linear(2, 2), 1)  # type: ignore[arg-type]
