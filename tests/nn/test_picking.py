"""Experts that no row picked keep their weights and their optimizer's state, whatever the optimizer."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from expertise.nn import ExpertList, Experts, MoE, TopKRouter, record_routing
from expertise.nn.picking import only_picked
from expertise.nn.soft import SoftMoE

E, D = 5, 4
Make = Callable[..., Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": partial(optim.SGD, lr=0.1),
    "sgd with momentum": partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=True),
    "sgd with nesterov": partial(
        optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, fused=True
    ),
    "adam": partial(optim.Adam, lr=0.1, foreach=False),
    "adam, foreach": partial(optim.Adam, lr=0.1, foreach=True, amsgrad=True),
    "adam, fused": partial(optim.Adam, lr=0.1, weight_decay=0.1, fused=True),
    "adamw": partial(optim.AdamW, lr=0.1, weight_decay=0.5, foreach=False),
    "adamw, foreach": partial(optim.AdamW, lr=0.1, weight_decay=0.5, foreach=True),
    "adamw, fused": partial(optim.AdamW, lr=0.1, weight_decay=0.5, fused=True),
    "adagrad": partial(optim.Adagrad, lr=0.1, weight_decay=0.1, initial_accumulator_value=0.5),
    "rmsprop": partial(optim.RMSprop, lr=0.1, momentum=0.9, centered=True),
    "nadam": partial(optim.NAdam, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    "adadelta": partial(optim.Adadelta, lr=1.0, weight_decay=0.1),
    "adafactor": partial(optim.Adafactor, lr=0.1, weight_decay=0.1),
    "rprop": partial(optim.Rprop, lr=0.1),
}
every_optimizer = pytest.mark.parametrize("make", list(OPTIMIZERS.values()), ids=list(OPTIMIZERS))


def layer_of(kind: str = "stacked", **keywords: object) -> MoE:
    """Expert e runs on the tokens whose largest entry is e; there are as many entries as experts."""
    torch.manual_seed(0)
    router = TopKRouter(E, E, k=1)
    with torch.no_grad():
        router.weight_ED.copy_(3 * torch.eye(E))
    router.requires_grad_(False)
    if kind == "stacked":
        experts: Experts | ExpertList = Experts(E, E, 6, bias=True, **keywords)
    else:
        experts = ExpertList([nn.Sequential(nn.Linear(E, 6), nn.Tanh(), nn.Linear(6, E)) for _ in range(E)])
    return MoE(router, experts)


def tokens(*experts: int) -> Tensor:
    """Rows that go to these experts, 2 each."""
    rows = torch.tensor(experts).repeat_interleave(2)
    return torch.eye(E)[rows] + 0.1 * torch.randn(len(rows), E)


def rows_of(layer: MoE, e: int) -> dict[str, Tensor]:
    """The weights of one expert."""
    if isinstance(layer.experts, Experts):
        return {name: value.detach()[e].clone() for name, value in layer.experts.named_parameters()}
    return {name: value.detach().clone() for name, value in layer.experts.experts[e].named_parameters()}


def state_of(optimizer: Optimizer, layer: MoE, e: int) -> dict[str, Tensor]:
    """What the optimizer knows of one expert, without what is one number for a whole parameter."""
    found = {}
    if isinstance(layer.experts, Experts):
        for name, parameter in layer.experts.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and len(value.shape) and len(value) == E:
                    found[f"{name}.{key}"] = value[e].clone()
    else:
        for name, parameter in layer.experts.experts[e].named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                found[f"{name}.{key}"] = torch.as_tensor(value).clone()
    return found


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def train_step(layer: MoE, optimizer: Optimizer, *experts: int, keep: bool = True) -> None:
    optimizer.zero_grad(set_to_none=False)
    y, routing = layer(tokens(*experts), return_routing=True)
    assert set(routing.experts_TK.flatten().tolist()) == set(experts)
    (y - 1).square().sum().backward()
    if keep:
        with only_picked(optimizer, [(layer, routing)]):
            optimizer.step()
    else:
        optimizer.step()


@pytest.mark.parametrize("kind", ["stacked", "list"])
@every_optimizer
def test_who_was_not_picked_does_not_change_at_all(make: Make, kind: str) -> None:
    layer = layer_of(kind)
    optimizer = make(layer.experts.parameters())
    train_step(layer, optimizer, *range(E), keep=False)  # everybody has momentum now
    for picked in [(0, 2), (1,), (0, 1, 3), (2, 4)]:
        weights = [rows_of(layer, e) for e in range(E)]
        states = [state_of(optimizer, layer, e) for e in range(E)]
        train_step(layer, optimizer, *picked)
        for e in range(E):
            assert same(weights[e], rows_of(layer, e)) == (e not in picked), (picked, e)
            if e not in picked:
                assert same(states[e], state_of(optimizer, layer, e)), (picked, e)


@pytest.mark.parametrize(
    "make", [OPTIMIZERS[name] for name in ("sgd with momentum", "adamw", "adagrad", "adadelta")]
)
def test_without_it_they_move(make: Make) -> None:
    """The test above would find it: momentum and weight decay do move experts whose gradient is 0."""
    layer = layer_of()
    optimizer = make(layer.experts.parameters())
    train_step(layer, optimizer, *range(E), keep=False)
    before = rows_of(layer, 4)
    train_step(layer, optimizer, 0, keep=False)
    assert not same(before, rows_of(layer, 4))


@every_optimizer
def test_state_made_by_the_step_is_fresh_where_nobody_was_picked(make: Make) -> None:
    """An expert that is first picked later starts from the state that it would have had at the start."""
    late, early = layer_of(), layer_of()
    optimizers = make(late.experts.parameters()), make(early.experts.parameters())
    torch.manual_seed(1)
    train_step(late, optimizers[0], 0, 1)
    fresh = state_of(optimizers[0], late, 4)
    for parameter in early.experts.parameters():  # one step with gradient 0 and no decay makes fresh state
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizers[1].param_groups:
        group["weight_decay"] = 0.0
    optimizers[1].step()
    expected = state_of(optimizers[1], early, 4)
    assert fresh.keys() == expected.keys()
    for name, value in fresh.items():
        assert torch.allclose(value, expected[name], atol=1e-12), name


@pytest.mark.parametrize("name", ["sgd with momentum", "sgd with nesterov", "adagrad", "rmsprop"])
def test_stacked_experts_train_as_modules_do_that_are_passed_over(name: str) -> None:
    """An optimizer passes over a module without gradient; rows of a stack must fare the same."""
    stacked, single = layer_of(), [layer_of() for _ in range(E)]
    make = OPTIMIZERS[name]
    of_stack = make(stacked.experts.parameters())
    of_single = [make(one.experts.parameters()) for one in single]  # each trains for one expert alone
    for step, picked in enumerate([(0, 1), (1, 2), (0,), (4, 1), (0, 2, 4)]):
        torch.manual_seed(step)
        train_step(stacked, of_stack, *picked)
        for e in picked:
            torch.manual_seed(step)
            train_step(single[e], of_single[e], *picked, keep=False)
    for e in range(E):
        ours, theirs = rows_of(stacked, e), rows_of(single[e], e)
        for key in ours:
            assert torch.allclose(ours[key], theirs[key], atol=1e-6), (e, key)


# ---- who counts as picked


def changed(layer: MoE, before: list[dict[str, Tensor]]) -> list[int]:
    return [e for e in range(E) if not same(before[e], rows_of(layer, e))]


@pytest.mark.parametrize("kind", ["stacked", "list"])
def test_a_layer_that_runs_twice_has_the_union(kind: str) -> None:
    layer = layer_of(kind)
    optimizer = optim.AdamW(layer.experts.parameters(), lr=0.1)
    before = [rows_of(layer, e) for e in range(E)]
    with record_routing(layer) as routings:
        (layer(tokens(0)).sum() + layer(tokens(3)).sum()).backward()
    with only_picked(optimizer, routings):
        optimizer.step()
    assert changed(layer, before) == [0, 3]


@pytest.mark.parametrize("kind", ["stacked", "list"])
def test_experts_of_two_layers_have_the_union(kind: str) -> None:
    first, second = layer_of(kind), layer_of(kind)
    second.experts = first.experts
    model = nn.ModuleList([first, second])
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    before = [rows_of(first, e) for e in range(E)]
    with record_routing(model) as routings:
        (first(tokens(1)).sum() + second(tokens(4)).sum()).backward()
    with only_picked(optimizer, routings):
        optimizer.step()
    assert changed(first, before) == [1, 4]


def test_weights_tied_between_two_banks_have_the_union() -> None:
    first, second = layer_of(), layer_of()
    second.experts.up_weight = first.experts.up_weight
    optimizer = optim.AdamW(nn.ModuleList([first, second]).parameters(), lr=0.1)
    before = first.experts.up_weight.detach().clone(), second.experts.down_weight.detach().clone()
    with record_routing(nn.ModuleList([first, second])) as routings:
        (first(tokens(1)).sum() + second(tokens(4)).sum()).backward()
    with only_picked(optimizer, routings):
        optimizer.step()
    moved = [
        (old != new).flatten(1).any(1).nonzero().flatten().tolist()
        for old, new in zip(before, (first.experts.up_weight, second.experts.down_weight), strict=True)
    ]
    assert moved == [[1, 4], [4]]


def test_a_module_that_is_two_experts_moves_when_one_of_them_is_picked() -> None:
    layer = layer_of("list")
    layer.experts.experts[3] = layer.experts.experts[1]
    optimizer = optim.AdamW(layer.experts.parameters(), lr=0.1)
    before = [rows_of(layer, e) for e in range(E)]
    train_step(layer, optimizer, 3)
    assert changed(layer, before) == [1, 3]


def test_a_module_that_is_also_the_shared_one_moves() -> None:
    layer = layer_of("list")
    layer.shared = layer.experts.experts[1]
    optimizer = optim.AdamW(layer.experts.parameters(), lr=0.1)
    before = [rows_of(layer, e) for e in range(E)]
    train_step(layer, optimizer, 0)
    assert changed(layer, before) == [0, 1]


def test_a_token_that_was_dropped_picks_nobody() -> None:
    layer = layer_of()
    layer.capacity = 0
    optimizer = optim.AdamW(layer.experts.parameters(), lr=0.1)
    before = [rows_of(layer, e) for e in range(E)]
    train_step(layer, optimizer, 0, 1)
    assert changed(layer, before) == []


def test_padding_picks_nobody() -> None:
    layer = layer_of()
    optimizer = optim.AdamW(layer.experts.parameters(), lr=0.1)
    before = [rows_of(layer, e) for e in range(E)]
    y, routing = layer(tokens(0, 1), mask=torch.tensor([True, True, False, False]), return_routing=True)
    y.sum().backward()
    with only_picked(optimizer, [(layer, routing)]):
        optimizer.step()
    assert changed(layer, before) == [0]


def test_all_of_a_soft_layer_are_picked() -> None:
    layer = layer_of()
    soft = SoftMoE(E, layer.experts)
    optimizer = optim.AdamW(layer.experts.parameters(), lr=0.1)
    before = [rows_of(layer, e) for e in range(E)]
    with record_routing(nn.ModuleList([layer, soft])) as routings:
        (layer(tokens(1)).sum() + soft(tokens(1)).sum()).backward()
    with only_picked(optimizer, routings):
        optimizer.step()
    assert changed(layer, before) == list(range(E))


# ---- nothing else


def test_only_rows_that_were_not_picked_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of()
    optimizer = optim.SGD(layer.experts.parameters(), lr=0.1, momentum=0.9)
    train_step(layer, optimizer, *range(E))
    copied = []
    get = Tensor.__getitem__

    def watched(self: Tensor, index: object) -> Tensor:
        rows = get(self, index)
        if isinstance(index, Tensor) and index.dtype == torch.int64:
            copied.append(len(rows))
        return rows

    layer(tokens(0, 1, 2)).sum().backward()
    _, routing = layer(tokens(0, 1, 2), return_routing=True)
    monkeypatch.setattr(Tensor, "__getitem__", watched)
    with only_picked(optimizer, [(layer, routing)]):
        optimizer.step()
    assert copied == [2] * 8  # 2 experts of 4 parameters, each with its momentum


def test_gradients_and_other_parameters_are_as_without_it() -> None:
    layer = layer_of("list")
    dense = nn.Linear(E, E)
    optimizer = optim.AdamW([*layer.parameters(), *dense.parameters()], lr=0.1)
    y, routing = layer(dense(tokens(0)) * 0 + tokens(0), return_routing=True)
    y.sum().backward()
    for parameter in layer.experts.experts[1].parameters():
        parameter.grad = torch.ones_like(parameter)
    before = dense.weight.detach().clone(), rows_of(layer, 1)
    with only_picked(optimizer, [(layer, routing)]):
        optimizer.step()
    assert not torch.equal(before[0], dense.weight)  # it decays
    assert same(before[1], rows_of(layer, 1))
    assert all(torch.equal(one.grad, torch.ones_like(one)) for one in layer.experts.experts[1].parameters())


def test_the_optimizer_may_know_none_of_the_experts() -> None:
    layer, dense = layer_of(), nn.Linear(2, 2)
    optimizer = optim.SGD(dense.parameters(), lr=0.1)
    _, routing = layer(tokens(0), return_routing=True)
    dense(torch.ones(1, 2)).sum().backward()
    before = dense.weight.detach().clone()
    with only_picked(optimizer, [(layer, routing)]):
        optimizer.step()
    assert torch.allclose(dense.weight, before - 0.1)


def test_a_step_that_fails_leaves_everything_in_place() -> None:
    layer = layer_of("list")
    optimizer = optim.AdamW(layer.experts.parameters(), lr=0.1)
    _, routing = layer(tokens(0), return_routing=True)
    parameter = next(layer.experts.experts[1].parameters())
    parameter.grad = torch.ones_like(parameter)

    def fail() -> None:
        assert parameter.grad is None
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"), only_picked(optimizer, [(layer, routing)]):
        fail()
    assert parameter.grad is not None


# ---- errors


def bad_routings() -> Iterator[tuple[object, str]]:
    layer = layer_of()
    _, routing = layer(tokens(0), return_routing=True)
    yield (
        [routing],
        "must name their layers; got one Routing; give what record_routing gave, or a list of pairs",
    )
    yield (
        routing,
        "must name their layers; got one Routing; give what record_routing gave, or a list of pairs",
    )
    yield [(nn.Linear(2, 2), routing)], "must be those of MoE layers; got one of Linear"
    yield [(layer, 3)], "must name their layers; got one tuple"


@pytest.mark.parametrize(("routings", "message"), list(bad_routings()))
def test_errors_say_what_is_needed(routings: object, message: str) -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters())
    with pytest.raises(ValueError, match=message), only_picked(optimizer, routings):  # type: ignore[arg-type]
        pass
