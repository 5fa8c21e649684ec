"""What every router of the table promises as part of the layer: outputs, gradients, padding, compilation."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from expertise.nn import MoE
from expertise.nn.dispatch import Capacity
from expertise.nn.routers import ROUTERS
from expertise.nn.routing import Routing
from nn import reference
from nn.router_cases import CASES, Case, ids_for

over_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.id}")
over_modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def run(layer: MoE, x: Tensor, mask: Tensor | None = None, seed: int = 7) -> tuple[Tensor, Routing]:
    torch.manual_seed(seed)
    return layer(x, mask=mask, token_ids=ids_for(x), return_routing=True)


def gradients(layer: MoE, x: Tensor, y: Tensor, keep: bool = False) -> list[Tensor]:
    """Give the gradients of a sum with random signs, of x and of every parameter; 0 where there is none."""
    sign = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y.dtype)
    of = [x, *layer.parameters()]
    grads = torch.autograd.grad((sign * y).sum(), of, allow_unused=True, retain_graph=keep)
    return [torch.zeros_like(a) if grad is None else grad for a, grad in zip(of, grads, strict=True)]


@over_cases
@over_modes
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_the_layer_is_the_double_loop(case: Case, training: bool, masked: bool) -> None:
    layer = case.layer().double().train(training)
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 5) < 0.7 if masked else None
    y, routing = run(layer, x, mask)
    expected = reference.layer(layer, x, routing)
    torch.testing.assert_close(y, expected)
    for a, b in zip(gradients(layer, x, y, keep=True), gradients(layer, x, expected), strict=True):
        torch.testing.assert_close(a, b)


@over_cases
@pytest.mark.parametrize("order", ["position", "priority"])
@pytest.mark.parametrize("per_sequence", [False, True], ids=["of_all", "per_sequence"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "whole"])
def test_the_layer_with_a_capacity_is_the_double_loop(
    case: Case, order: str, per_sequence: bool, masked: bool
) -> None:
    factor = 0.3 if case.name in ("dense", "expert_choice", "top_p") else 0.6
    settings = {"capacity_order": order, "capacity_per_sequence": per_sequence}
    layer = case.layer(capacity_factor=factor, **settings).double()
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 9) < 0.8 if masked else None
    y, routing = run(layer, x, mask)
    capacity = Capacity(factor, None, order, per_sequence)
    expected = reference.layer(layer, x, routing, capacity)
    assert routing.dropped > 0
    assert routing.picked_TK.tolist() == reference.kept(routing, capacity)
    torch.testing.assert_close(y, expected)
    for a, b in zip(gradients(layer, x, y, keep=True), gradients(layer, x, expected), strict=True):
        torch.testing.assert_close(a, b)


@over_cases
@pytest.mark.parametrize("seed", range(3))
def test_the_task_teaches_the_router_if_and_only_if_it_says_so(case: Case, seed: int) -> None:
    layer = case.layer(seed=seed)
    x = torch.randn(20, 4)
    sign = torch.randn(20, 4)
    y, _ = run(layer, x)
    (sign * y).sum().backward()
    learns = [p.grad is not None and bool(p.grad.any()) for p in layer.router.parameters()]
    assert any(learns) == ROUTERS[case.name].differentiable


@over_cases
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    """In training, with the same noise at every call; no choice is near enough to a tie to change."""
    layer = case.layer(3, 4).double()
    weights = {name: p.detach().clone() for name, p in layer.named_parameters()}
    weights.pop("router.threshold_E", None)
    x = torch.randn(5, 3, dtype=torch.float64)
    names = list(weights)

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        torch.manual_seed(3)
        state = dict(zip(names, values, strict=True))
        return functional_call(layer, state, (x,), {"token_ids": ids_for(x)})

    inputs = [value.requires_grad_() for value in (x, *weights.values())]
    assert torch.autograd.gradcheck(forward, inputs)


@over_cases
@over_modes
@pytest.mark.parametrize("capacity", [None, 0.6])
def test_padding_may_hold_anything_and_changes_nothing(
    case: Case, training: bool, capacity: float | None
) -> None:
    layer = case.layer(capacity_factor=capacity).train(training)
    x, mask = torch.randn(3, 8, 4), torch.rand(3, 8) < 0.6
    garbage = torch.where(mask[..., None], x, torch.nan).requires_grad_()
    x.requires_grad_()
    y, routing = run(layer, x, mask)
    y_garbage, routing_garbage = run(layer, garbage, mask)
    assert torch.equal(y, y_garbage)
    assert not y[~mask].any()
    assert torch.equal(routing.picked_load_E, routing_garbage.picked_load_E)
    for a, b in zip(gradients(layer, x, y), gradients(layer, garbage, y_garbage), strict=True):
        assert torch.equal(a, b)


@over_cases
@over_modes
@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (3, 4)])
def test_no_tokens_or_only_padding(case: Case, training: bool, shape: tuple[int, ...]) -> None:
    layer = case.layer(capacity_factor=1.0).train(training)
    x = torch.randn(shape, requires_grad=True)
    y, routing = run(layer, x, torch.zeros(shape[:-1], dtype=torch.bool))
    assert y.shape == x.shape
    assert not y.any()
    assert routing.num_tokens == 0
    assert not any(bool(grad.any()) for grad in gradients(layer, x, y))


@over_cases
def test_an_order_of_the_tokens_is_only_an_order(case: Case) -> None:
    layer, x, order = case.layer().eval(), torch.randn(30, 4), torch.randperm(30)
    ids = ids_for(x)
    torch.testing.assert_close(
        layer(x, token_ids=ids)[order], layer(x[order], token_ids=ids[order]), atol=1e-6, rtol=1e-5
    )


@over_cases
@over_modes
def test_autocast_leaves_the_choice_in_float32(case: Case, training: bool) -> None:
    layer = case.layer(16, 8).train(training)
    x = torch.randn(200, 16)
    _, plain = run(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        y, cast = run(layer, x)
    assert torch.equal(plain.experts_TK, cast.experts_TK)
    assert torch.equal(plain.weights_TK, cast.weights_TK)
    assert cast.logits_TE is None or cast.logits_TE.dtype == torch.float32
    assert y.dtype == torch.bfloat16


@over_cases
def test_evaluation_is_deterministic(case: Case) -> None:
    layer, x = case.layer().eval(), torch.randn(30, 4)
    assert torch.equal(run(layer, x, seed=1)[0], run(layer, x, seed=2)[0])


def check_compiled(case: Case, backend: str) -> None:
    """Evaluation draws nothing, so the compiled layer must give the same; training is compared for shape."""
    torch._dynamo.reset()
    layer = case.layer()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for training in (False, True):
        layer.train(training)
        for tokens in (12, 20):
            x = torch.randn(tokens, 4, requires_grad=True)
            mask = torch.rand(tokens) < 0.8
            y, routing = run(layer, x, mask)
            z, compiled_routing = compiled(x, mask=mask, token_ids=ids_for(x), return_routing=True)
            assert z.shape == y.shape
            if not (training and case.draws):
                assert torch.equal(routing.experts_TK, compiled_routing.experts_TK)
                torch.testing.assert_close(z, y)
                for a, b in zip(gradients(layer, x, y), gradients(layer, x, z), strict=True):
                    torch.testing.assert_close(a, b)


COMPILED_FAST = ("top_k-k2", "base-default")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=f"{case.name}-{case.id}",
            marks=() if f"{case.name}-{case.id}" in COMPILED_FAST else pytest.mark.slow,
        )
        for case in CASES
    ],
)
def test_the_layer_is_one_graph(case: Case) -> None:
    check_compiled(case, "aot_eager")


FIRST = list({case.name: case for case in reversed(CASES)}.values())


@pytest.mark.slow
@pytest.mark.parametrize("case", FIRST, ids=lambda case: f"{case.name}-{case.id}")
def test_the_layer_compiles_to_machine_code(case: Case) -> None:
    """One case of each router: half a minute each."""
    check_compiled(case, "inductor")
