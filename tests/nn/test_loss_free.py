"""Balance by a bias on the choice: it moves the load, is counted right, and touches nothing else."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from expertise.nn import Experts, MoE, TopKRouter
from expertise.nn.loss_free import LossFreeBias


def balanced_layer(k: int = 2, num_experts: int = 8) -> MoE:
    torch.manual_seed(0)
    router = TopKRouter(6, num_experts, k=k, activation="sigmoid", selection_bias=True)
    return MoE(router, Experts(num_experts, 6, 8))


def bias_of(layer: MoE) -> Tensor:
    return layer.router.get_buffer("selection_bias_E")


def counts_of(layer: MoE) -> list[int]:
    return layer.router.load_E.tolist()


def routed_by_hand(loads: list[int]) -> tuple[MoE, Tensor]:
    """A layer and an input that sends so many tokens to each expert, one each."""
    E = len(loads)
    router = TopKRouter(E, E, k=1, activation="sigmoid", selection_bias=True)
    with torch.no_grad():
        router.weight_ED.copy_(torch.eye(E))
    return MoE(router, Experts(E, E, 4)), torch.eye(E).repeat_interleave(torch.tensor(loads), 0)


def max_violation(layer: MoE, x: Tensor) -> float:
    load_E = layer.router(x).load_E
    return (load_E.max() / load_E.double().mean() - 1).item()


# ---- the rule


def test_a_step_moves_each_bias_towards_the_mean() -> None:
    layer, x = routed_by_hand([5, 2, 1, 0])  # mean 2
    bias = LossFreeBias(layer, rate=0.01)
    layer(x)
    assert counts_of(layer) == [5, 2, 1, 0]
    bias.step()
    assert bias_of(layer).tolist() == pytest.approx([-0.01, 0, 0.01, 0.01])
    assert counts_of(layer) == [0, 0, 0, 0]


def test_counts_of_several_passes_are_added() -> None:
    """As in accumulation of gradients: one step for all of them."""
    layer, x = routed_by_hand([3, 1])
    _, other = routed_by_hand([0, 4])
    bias = LossFreeBias(layer, rate=0.5)
    layer(x)
    layer(other)
    assert counts_of(layer) == [3, 5]
    bias.step()
    assert bias_of(layer).tolist() == [0.5, -0.5]


def test_a_router_that_saw_nothing_stays() -> None:
    layer, x = routed_by_hand([3, 1])
    bias = LossFreeBias(layer)
    layer(x)
    bias.step()
    after = bias_of(layer).clone()
    bias.step()
    assert torch.equal(bias_of(layer), after)


def test_padding_is_not_counted() -> None:
    layer, x = routed_by_hand([3, 2])
    LossFreeBias(layer)
    layer(x, mask=torch.tensor([True, False, False, True, True]))
    assert counts_of(layer) == [1, 2]


def test_evaluation_is_not_counted() -> None:
    layer, x = routed_by_hand([3, 1])
    LossFreeBias(layer)
    layer.eval()
    layer(x)
    assert counts_of(layer) == [0, 0]


def test_every_router_with_a_bias_is_found_once_and_others_stay() -> None:
    first, second = balanced_layer(), balanced_layer()
    second.router = first.router  # shared: it counts what both layers route
    plain = MoE(TopKRouter(6, 4), Experts(4, 6, 8))
    model = nn.Sequential(first, nn.Sequential(second), plain)
    bias = LossFreeBias(model)
    assert bias.routers == [first.router]
    model(torch.randn(5, 6))
    assert sum(counts_of(first)) == 2 * 5 * 2
    assert plain.router.load_E is None
    bias.step()


def test_the_load_of_a_skewed_toy_becomes_even() -> None:
    layer = balanced_layer(k=1)
    generator = torch.Generator().manual_seed(1)
    middle = 1.5 * torch.randn(6, generator=generator)  # tokens far from 0 all prefer the same experts
    draw = partial(torch.randn, 512, 6, generator=generator)
    held_out = draw() + middle
    before = max_violation(layer, held_out)
    bias = LossFreeBias(layer, rate=5e-3)
    with torch.no_grad():
        for _ in range(300):
            layer.router(draw() + middle)
            bias.step()
    assert before > 2
    assert max_violation(layer, held_out) < 0.3


# ---- counted once


def through_checkpoint(layer: MoE, x: Tensor, *, reentrant: bool) -> Tensor:
    return checkpoint(layer, x, use_reentrant=reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_counts_once(reentrant: bool) -> None:
    layer = balanced_layer()
    LossFreeBias(layer)
    x = torch.randn(10, 6, requires_grad=True)
    expected = layer.router(x).load_E
    layer.router.load_E.zero_()
    through_checkpoint(layer, x, reentrant=reentrant).square().sum().backward()
    assert counts_of(layer) == expected.tolist()
    assert expected.sum() == 20


def compiled_layer(layer: MoE) -> Callable[[Tensor], Tensor]:
    return torch.compile(layer, backend="aot_eager", fullgraph=True)


def compiled_around_a_checkpoint(layer: MoE) -> Callable[[Tensor], Tensor]:
    return torch.compile(partial(through_checkpoint, layer, reentrant=False), backend="aot_eager")


def checkpoint_around_compiled(layer: MoE) -> Callable[[Tensor], Tensor]:
    compiled = compiled_layer(layer)
    return lambda x: checkpoint(compiled, x, use_reentrant=False)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(compiled_layer, id="compiled"),
        pytest.param(compiled_around_a_checkpoint, id="checkpoint inside"),
        pytest.param(checkpoint_around_compiled, id="checkpoint outside"),
    ],
)
def test_compiled_code_counts_once(how: Callable[[MoE], Callable[[Tensor], Tensor]]) -> None:
    torch._dynamo.reset()
    layer = balanced_layer()
    bias = LossFreeBias(layer)
    run = how(layer)
    for seed in range(2):  # the second does not compile
        torch.manual_seed(seed)
        x = torch.randn(10, 6, requires_grad=True)
        expected = layer.router(x).load_E
        layer.router.load_E.zero_()
        run(x).square().sum().backward()
        assert counts_of(layer) == expected.tolist()
        bias.step()


# ---- a buffer, nothing else


def test_state_dict_has_the_bias_and_not_the_counts() -> None:
    layer = balanced_layer()
    names = set(layer.state_dict())
    bias = LossFreeBias(layer, rate=0.25)
    layer(torch.randn(9, 6))
    bias.step()
    assert set(layer.state_dict()) == names
    assert "router.selection_bias_E" in names
    other = balanced_layer()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(bias_of(other), bias_of(layer))
    assert bias_of(other).any()


def test_a_copy_of_the_model_counts_for_itself() -> None:
    layer = balanced_layer()
    LossFreeBias(layer)
    twin = copy.deepcopy(layer)
    twin(torch.randn(4, 6))
    assert counts_of(layer) == [0] * 8
    assert sum(counts_of(twin)) == 8


@pytest.mark.parametrize("name", ["half", "bfloat16", "double"])
def test_the_bias_is_float32_whatever_the_model_is(name: str) -> None:
    layer = balanced_layer()
    bias = LossFreeBias(layer, rate=1e-3)
    before = torch.full((8,), 1.0)
    bias_of(layer).copy_(before)
    getattr(layer, name)()
    assert bias_of(layer).dtype == torch.float32
    layer(torch.randn(33, 6).to(layer.router.weight_ED.dtype))
    bias.step()
    moved = (bias_of(layer) - before).abs()
    assert moved.max().item() == pytest.approx(1e-3, rel=1e-3)  # in bfloat16, 1 + .001 is 1


def test_the_bias_chooses_and_does_not_weigh() -> None:
    layer = balanced_layer()
    x = torch.randn(12, 6)
    bias_of(layer)[3] = 100.0
    routing = layer.router(x)
    assert (routing.experts_TK == 3).any(1).all()
    scores_TK = layer.router(x).logits_TE.sigmoid().gather(1, routing.experts_TK)
    assert torch.allclose(routing.weights_TK, scores_TK / scores_TK.sum(1, keepdim=True))
    assert not bias_of(layer).requires_grad
    assert all(parameter is not bias_of(layer) for parameter in layer.parameters())


# ---- errors


def test_errors_say_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"Linear has no router with a selection bias; make them as TopKRouter\("
    ):
        LossFreeBias(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"rate must be a number of at least 0; got -0\.1"):
        LossFreeBias(balanced_layer(), rate=-0.1)
    bias = LossFreeBias(balanced_layer(), group=True)
    with pytest.raises(ValueError, match=r"group=True needs torch\.distributed"):
        bias.step()
