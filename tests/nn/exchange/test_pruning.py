"""Pruning: what stays is as it was, what goes is what was least used, and the loss is told."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expertise.nn import ExpertList, Experts, MoE, TopKRouter, record_routing
from expertise.nn.exchange import FeedForward, prune
from nn.router_cases import CASES, Case

D, E = 6, 8
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0))


def make(k: int = 2, seed: int = 0, router: dict[str, Any] | None = None, **more: Any) -> MoE:
    torch.manual_seed(seed)
    return MoE(TopKRouter(D, E, k, **(router or {})), Experts(E, D, 5, bias=True), **more)


def routing_of(layer: MoE, x: Tensor = X) -> Any:
    return layer(x, return_routing=True)[1]


@pytest.mark.parametrize("by", ["load", "importance"])
def test_the_least_used_go_and_the_others_keep_every_bit(by: str) -> None:
    layer = make()
    routing = routing_of(layer)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    smaller, report = prune(layer, routing, keep=5, by=by)
    used = routing.load_E.double() if by == "load" else routing.importance_E.double()
    kept = sorted(used.argsort(descending=True, stable=True)[:5].tolist())
    assert report.kept == tuple(kept)
    assert sorted(report.kept + report.removed) == list(range(E))
    assert report.shares == pytest.approx((used / used.sum()).tolist())
    assert report.loss_change is None
    for name, tensor in smaller.state_dict().items():
        assert torch.equal(tensor, before[name][kept]), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    assert smaller.router.num_experts == smaller.experts.num_experts == 5


def test_load_and_importance_can_decide_differently() -> None:
    # expert 0 is every token's second choice with a tiny weight; expert 1 is the first choice of few
    layer = MoE(TopKRouter(3, 3, 2), Experts(3, 3, 4))
    with torch.no_grad():
        layer.router.weight_ED.copy_(torch.tensor([[0.0, 0, 0], [9, -9, 0], [-9, 9, 0]]))  # type: ignore[operator]
    x = torch.tensor([[1.0, 0, 0]] * 2 + [[0, 1.0, 0]] * 8)
    routing = routing_of(layer, x)
    assert routing.load_E.tolist() == [10, 2, 8]
    assert prune(layer, routing, keep=2, by="load")[1].removed == (1,)
    assert prune(layer, routing, keep=2, by="importance")[1].removed == (0,)


def test_what_never_ran_costs_nothing() -> None:
    layer = make(k=2)
    with torch.no_grad():
        layer.router.weight_ED[3:] = 0.01 * layer.router.weight_ED[3:]  # type: ignore[index]
    x = X[(layer.router(X).experts_TK < 3).all(-1)]
    assert len(x) > 20
    smaller, report = prune(layer, routing_of(layer, x), keep=3)
    assert report.kept == (0, 1, 2)
    assert (smaller(x) - layer(x)).abs().max() < 1e-6


def squared_error(x: Tensor, y: Tensor) -> Any:
    return lambda layer: (layer(x) - y).square().mean()


@pytest.mark.parametrize("tolerance", [0.0, 0.003, 0.01, 0.05, 10.0])
def test_the_loss_stays_within_the_tolerance(tolerance: float) -> None:
    layer = make(seed=3).eval()
    loss = squared_error(X, layer(X).detach() + 0.1)
    smaller, report = prune(layer, routing_of(layer), tolerance=tolerance, loss=loss)
    assert report.loss_change is not None
    assert report.loss_change <= tolerance
    assert report.loss_before == pytest.approx(0.01)
    assert report.loss_after == loss(smaller).item()
    assert len(report.kept) == smaller.experts.num_experts
    if tolerance == 10.0:
        assert len(report.kept) == 1
    if tolerance == 0.01:
        assert 1 < len(report.kept) < E


def test_a_costly_expert_stays_though_it_is_rare() -> None:
    """The least used one is tried first; when the loss forbids it, the next is tried."""
    layer = make(k=1, seed=1).eval()
    load_E = routing_of(layer).load_E
    rare = int(torch.where(load_E > 0, load_E, 1000).argmin())
    with torch.no_grad():
        layer.experts.down_weight[rare] *= 1000  # type: ignore[index]
    loss = squared_error(X, layer(X).detach())
    _, report = prune(layer, routing_of(layer), tolerance=1.0, loss=loss)
    assert rare in report.kept
    assert max(load_E[list(report.removed)]) > load_E[rare]


def test_a_loss_that_is_no_number_removes_nothing_and_the_last_call_is_the_result() -> None:
    layer = make()
    seen: list[Any] = []

    def loss(candidate: MoE) -> float:
        assert not torch.is_grad_enabled()
        seen.append(candidate)
        return float("nan") if candidate is not layer else 1.0

    smaller, report = prune(layer, routing_of(layer), tolerance=1.0, loss=loss)
    assert report.removed == ()
    assert seen[0] is layer
    assert seen[-1] is smaller


@pytest.mark.parametrize("k", [1, 2, 3])
def test_one_expert_is_left(k: int) -> None:
    for settings in ({}, {"activation": "sigmoid", "scale": 2.5, "selection_bias": True}):
        layer = make(k=k, router=settings)
        smaller, report = prune(layer, routing_of(layer), keep=1)
        (expert,) = report.kept
        renormalised = k > 1
        assert smaller.router.k == 1  # type: ignore[union-attr]
        if renormalised or not settings:
            scale = settings.get("scale", 1.0)
            assert torch.allclose(smaller(X), scale * layer.experts.one(expert, X), atol=1e-5)  # type: ignore[operator]


def test_a_token_takes_no_more_experts_than_there_are() -> None:
    layer = make(k=4)
    smaller, _ = prune(layer, routing_of(layer), keep=3)
    assert routing_of(smaller).experts_TK.shape == (200, 3)
    smaller, _ = prune(layer, routing_of(layer), keep=6)
    assert routing_of(smaller).experts_TK.shape == (200, 4)


def test_settings_and_shared_parts_stay() -> None:
    layer = make(
        router={"activation": "sigmoid", "selection_bias": True, "bias": True, "scale": 2.0},
        shared=FeedForward(D, 3),
        shared_gate=True,
        capacity_factor=1.25,
        eval_capacity_factor=2.0,
        capacity_order="priority",
        capacity_per_sequence=True,
    ).to(torch.bfloat16)
    nn.init.normal_(layer.router.selection_bias_E)  # type: ignore[arg-type]
    layer.router.weight_ED.requires_grad_(False)  # type: ignore[operator]
    smaller, report = prune(layer.eval(), routing_of(layer, X[:, None].bfloat16()), keep=6)
    kept = list(report.kept)
    old, new = layer.state_dict(), smaller.state_dict()
    assert old.keys() == new.keys()
    for name, tensor in new.items():
        whole = name.startswith(("shared.", "shared_gate."))
        assert torch.equal(tensor, old[name] if whole else old[name][kept]), name
        assert tensor.dtype == old[name].dtype
    assert new["router.selection_bias_E"].dtype == torch.float32
    assert not smaller.training
    assert not smaller.router.weight_ED.requires_grad
    for name in ("capacity_factor", "eval_capacity_factor", "capacity_order", "capacity_per_sequence"):
        assert getattr(smaller, name) == getattr(layer, name)
    assert smaller.shared is not layer.shared
    assert smaller.router.scale == 2.0  # type: ignore[union-attr]


def test_every_group_loses_the_same_number() -> None:
    settings = {"activation": "sigmoid", "groups": 4, "groups_kept": 2, "selection_bias": True}
    layer = make(router=settings)
    smaller, report = prune(layer, routing_of(layer), keep=4)
    assert [e // 2 for e in report.kept] == [0, 1, 2, 3]
    load_E = routing_of(layer).load_E
    assert all(load_E[e] >= load_E[e ^ 1] for e in report.kept)
    assert smaller.router.groups == 4  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"keep must be a multiple of 4, the router's groups.*got 6"):
        prune(layer, routing_of(layer), keep=6)
    _, report = prune(layer, routing_of(layer), tolerance=1e9, loss=lambda one: one(X).mean() * 0)
    assert len(report.kept) == 4
    lone = make(router=settings | {"groups_kept": 1})
    with pytest.raises(ValueError, match=r"could take only one, whose renormalised weight is always 1"):
        prune(lone, routing_of(lone), keep=4)
    _, report = prune(lone, routing_of(lone), tolerance=1e9, loss=lambda one: one(X).mean() * 0)
    assert len(report.kept) == 8  # two experts a group, both of which a token takes


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "hash"], ids=lambda c: f"{c.name}-{c.id}")
def test_every_router_with_rows_can_lose_experts(case: Case) -> None:
    layer = case.layer(dim=D, num_experts=6).eval()
    smaller, report = prune(layer, routing_of(layer), keep=4)
    old, new = layer.router.state_dict(), smaller.router.state_dict()
    for name, tensor in new.items():
        by_expert = name.rpartition("_")[2].startswith("E")
        assert torch.equal(tensor, old[name][list(report.kept)] if by_expert else old[name]), name
    assert smaller(X).shape == X.shape


def test_modules_of_any_kind() -> None:
    torch.manual_seed(0)
    modules = [nn.Linear(D, D), nn.Identity(), FeedForward(D, 3), nn.Sequential(nn.Linear(D, D), nn.ReLU())]
    layer = MoE(TopKRouter(D, 4, 2), ExpertList(modules))
    smaller, report = prune(layer, routing_of(layer), keep=2)
    experts = smaller.experts
    assert isinstance(experts, ExpertList)
    for new, old in zip(experts.experts, report.kept, strict=True):
        assert type(new) is type(modules[old])
        assert new is not modules[old]
        assert all(
            torch.equal(a, b) for a, b in zip(new.parameters(), modules[old].parameters(), strict=True)
        )


def test_routings_of_a_recorded_run_are_told_apart() -> None:
    first, second = make(seed=1), make(seed=2)
    with record_routing(nn.Sequential(first, second)) as routings:
        second(first(X))
        second(first(X + 1))
    _, report = prune(second, routings, keep=4)
    own = routings[1].load_E + routings[3].load_E
    assert report.shares == pytest.approx((own / own.sum()).tolist())
    with pytest.raises(ValueError, match=r"routings holds none of this layer; run the layer inside record"):
        prune(make(), routings, keep=4)


def test_the_report_can_be_read() -> None:
    layer = make(seed=3).eval()
    loss = squared_error(X, layer(X).detach() + 0.1)
    _, report = prune(layer, routing_of(layer), keep=7, loss=loss)
    (gone,) = report.removed
    share = f"{report.shares[gone]:.1%}"
    assert str(report).startswith(
        f"7 of 8 experts kept; removed [{gone}], with {share} of the load; loss 0.01 -> "
    )
    assert f"({report.loss_change:+.3g})" in str(report)
    _, report = prune(layer, routing_of(layer), keep=8)
    assert str(report) == "8 of 8 experts kept; removed [], with 0.0% of the load"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, r"give keep or tolerance, one of them; got keep=None and tolerance=None"),
        ({"keep": 2, "tolerance": 0.1}, r"give keep or tolerance, one of them; got keep=2 and tolerance=0.1"),
        ({"keep": 9}, r"keep must be a whole number of at least 1 and at most 8; got 9"),
        ({"keep": 0}, r"keep must be a whole number of at least 1 and at most 8; got 0"),
        ({"tolerance": -1.0}, r"tolerance must be a number of at least 0; got -1.0"),
        ({"tolerance": 0.1}, r"tolerance needs loss, a function of a layer that gives its loss; got None"),
        ({"keep": 2, "by": "size"}, r"by must be one of 'load', 'importance'; got 'size'"),
        (
            {"keep": 2, "loss": lambda one: torch.ones(2)},
            r"loss must give one number; got tensor\(\[1., 1.\]\)",
        ),
        ({"keep": 2, "routings": []}, r"routings holds none of this layer"),
        (
            {"keep": 2, "routings": "all"},
            r"routings must be a Routing, a list of them, or what record.*got str",
        ),
    ],
)
def test_arguments(arguments: dict[str, Any], text: str) -> None:
    layer = make()
    with pytest.raises(ValueError, match=text):
        prune(layer, **({"routings": routing_of(layer)} | arguments))


def test_layers_that_cannot_be_pruned() -> None:
    layer = make()
    with pytest.raises(ValueError, match=r"routings must be this layer's, of 8 experts; got one of 5"):
        prune(layer, routing_of(MoE(TopKRouter(D, 5), Experts(5, D, 2))), keep=2)
    with pytest.raises(ValueError, match=r"layer must be an expertise.nn.MoE; got Linear"):
        prune(nn.Linear(2, 2), [], keep=2)  # type: ignore[arg-type]
    hashed = next(case for case in CASES if case.name == "hash").layer()
    with pytest.raises(ValueError, match=r"the router 'hash' has no row of weights for each expert"):
        prune(hashed, [], keep=2)
