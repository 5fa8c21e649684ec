"""Recording the routings of layers deep inside a model: all, once, in order; or an error, never silence."""

import gc
import re
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from expertise.nn import Experts, MoE, TopKRouter, record_routing
from expertise.nn.balance import load_balance_loss
from expertise.nn.routing import SoftRouting
from expertise.nn.soft import SoftMoE

D = 6


def sparse(num_experts: int = 4) -> MoE:
    return MoE(TopKRouter(D, num_experts), Experts(num_experts, D, 8))


class Nested(nn.Module):
    """Defined in another order than run: inner, then last, then inner again."""

    def __init__(self) -> None:
        super().__init__()
        self.last = sparse(3)
        self.block = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(D, D), sparse(5))})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.block["deep"](x)
        x = x + self.last(x)
        return x + self.block["deep"](x)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_nested_layers_come_in_the_order_in_which_they_run() -> None:
    model = Nested()
    x = torch.randn(7, D)
    with record_routing(model) as routings:
        assert routings == []
        model(x)
    deep, last = model.block["deep"][1], model.last
    assert routings.layers == [deep, last, deep]
    assert [one.num_experts for one in routings] == [5, 3, 5]
    _, expected = deep(model.block["deep"][0](x), return_routing=True)
    assert torch.equal(routings[0].experts_TK, expected.experts_TK)


def test_the_model_itself_may_be_a_layer_and_soft_layers_are_recorded_too() -> None:
    layer = sparse()
    with record_routing(layer) as routings:
        layer(torch.randn(2, D))
    assert len(routings) == 1
    model = nn.Sequential(SoftMoE(D, Experts(2, D, 8)), layer)
    with record_routing(model) as routings:
        model(torch.randn(3, D))
    assert isinstance(routings[0], SoftRouting)
    assert routings.layers == [model[0], model[1]]


def test_what_runs_outside_the_block_or_the_model_is_not_recorded() -> None:
    model, other = Nested(), sparse()
    model(torch.randn(2, D))
    with record_routing(model) as routings:
        other(torch.randn(2, D))
    model(torch.randn(2, D))
    assert routings == []


def test_nothing_is_kept_afterwards() -> None:
    model = Nested()
    with record_routing(model) as routings:
        y = model(torch.randn(7, D))
    dies = [weakref.ref(one) for one in routings] + [weakref.ref(routings)]
    assert all(one() is not None for one in dies)
    del routings, y
    gc.collect()
    assert all(one() is None for one in dies)
    assert all(layer.recorder is None for layer in model.modules() if isinstance(layer, MoE))


def test_gradients_of_losses_are_those_of_the_routing_that_was_returned() -> None:
    layer, x = sparse(), torch.randn(7, D)
    _, routing = layer(x, return_routing=True)
    load_balance_loss(routing).backward()
    expected = layer.router.weight_ED.grad.clone()
    layer.zero_grad()
    with record_routing(layer) as routings:
        layer(x)
    load_balance_loss(routings).backward()
    assert expected.any()
    assert torch.equal(layer.router.weight_ED.grad, expected)


def test_a_block_within_a_block_takes_its_part_and_gives_the_layers_back() -> None:
    model, x = Nested(), torch.randn(3, D)
    with record_routing(model) as outer:
        model(x)
        with record_routing(model.last) as inner:
            model(x)
        model(x)
    assert inner.layers == [model.last]
    deep = model.block["deep"][1]
    assert outer.layers == [deep, model.last, deep, deep, deep, deep, model.last, deep]


def test_after_an_exception_the_layers_are_free() -> None:
    model = Nested()

    def fail() -> None:
        with record_routing(model):
            model(torch.randn(3, D))
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert all(layer.recorder is None for layer in model.modules() if isinstance(layer, MoE))
    with record_routing(model) as routings:
        model(torch.randn(3, D))
    assert len(routings) == 3


def test_without_gradient_it_records_as_well() -> None:
    model = Nested()
    with torch.no_grad(), record_routing(model) as routings:
        model(torch.randn(3, D))
    with record_routing(model) as inside, torch.inference_mode():
        model(torch.randn(3, D))
    assert len(routings) == len(inside) == 3


def test_a_model_without_layers_is_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"Linear has no MoE or SoftMoE layer, so there is nothing to record"),
        record_routing(nn.Linear(2, 2)),
    ):
        pass


# ---- checkpointing


class Checkpointed(nn.Module):
    """Runs a model under activation checkpointing."""

    def __init__(self, model: nn.Module, *, reentrant: bool, **keywords: object) -> None:
        super().__init__()
        self.model = model
        self.run = partial(checkpoint, use_reentrant=reentrant, **keywords)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.model, x)


def gradients(model: nn.Module, x: Tensor, *, around_backward: bool) -> tuple[int, dict[str, Tensor]]:
    model.zero_grad()
    with record_routing(model) as routings:
        y = model(x)
        if around_backward:
            (y.square().sum() + load_balance_loss(routings)).backward()
    if not around_backward:
        (y.square().sum() + load_balance_loss(routings)).backward()
    return len(routings), {
        name.removeprefix("model."): parameter.grad.clone() for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("around_backward", [True, False], ids=["backward inside", "backward after"])
@pytest.mark.parametrize("early_stop", [True, False])
def test_checkpointing_without_reentry_records_once_with_the_right_gradients(
    around_backward: bool, early_stop: bool
) -> None:
    model, x = Nested(), torch.randn(7, D, requires_grad=True)
    count, expected = gradients(model, x, around_backward=True)
    assert count == 3
    again = Checkpointed(model, reentrant=False, early_stop=early_stop)
    count, found = gradients(again, x, around_backward=around_backward)
    assert count == 3
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


def test_reentrant_checkpointing_raises_with_the_alternative() -> None:
    model = Checkpointed(Nested(), reentrant=True)
    x = torch.randn(7, D, requires_grad=True)
    with (
        record_routing(model),
        pytest.raises(RuntimeError, match=r"use_reentrant=False.*return_routing=True"),
    ):
        model(x)


def test_without_gradient_reentrant_checkpointing_is_no_matter() -> None:
    model = Checkpointed(Nested(), reentrant=True)
    with torch.no_grad(), record_routing(model) as routings:
        model(torch.randn(7, D))
    assert len(routings) == 3


# ---- compiled


def compile_model(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    compiled = torch.compile(model, backend="eager")
    return compiled, compiled


def compile_in_place(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    model.compile(backend="eager")
    return model, model


def compile_a_part(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    model.block["deep"][1] = torch.compile(model.block["deep"][1], backend="eager")
    return model, model


def compile_a_part_in_place(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    model.block["deep"].compile(backend="eager")
    return model, model


def compile_a_copy(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The model itself stays as it was; its compiled face runs."""
    return model, torch.compile(model, backend="eager")


def compile_a_function_around(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    return model, torch.compile(lambda x: model(x) * 2, backend="eager")


def compile_a_function_in_one_graph(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    return model, torch.compile(lambda x: model(x) * 2, backend="eager", fullgraph=True)


def compile_the_forward(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    model.forward = torch.compile(model.forward, backend="eager")
    return model, model


HOW = [
    compile_model,
    compile_in_place,
    compile_a_part,
    compile_a_part_in_place,
    compile_a_copy,
    compile_a_function_around,
    compile_a_function_in_one_graph,
    compile_the_forward,
]


@pytest.mark.parametrize(
    "before", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["first call", "called before"]
)
@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
def test_compiled_code_raises_or_records_everything(
    how: Callable[[nn.Module], tuple[nn.Module, Callable[[Tensor], Tensor]]], before: bool
) -> None:
    model, run = how(Nested())
    x = torch.randn(7, D)
    if before:
        run(x)
    try:
        with record_routing(model) as routings:
            run(x)
        outcome = f"recorded {len(routings)}"
    except RuntimeError as error:
        outcome = str(error)
    assert outcome == "recorded 3" or re.search(r"record_routing.*return_routing=True", outcome, re.DOTALL)
    run(x)  # and afterwards it runs as before
    assert all(layer.recorder is None for layer in model.modules() if isinstance(layer, MoE))


def test_a_part_that_is_compiled_is_named() -> None:
    model, _ = compile_a_part_in_place(Nested())
    with (
        pytest.raises(RuntimeError, match=r"its part 'block\.deep' is compiled.*return_routing=True"),
        record_routing(model),
    ):
        pass
