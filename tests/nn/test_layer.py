"""The sparse layer as a module: sizes, shared experts, capacity, types, compile, errors."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from expertise.nn import ExpertList, Experts, MoE, Routing, TopKRouter, load_balance_loss
from expertise.nn.layer import FEW_PAIRS


def layer(E: int = 4, k: int = 2, D: int = 6, **options: object) -> MoE:
    torch.manual_seed(0)
    return MoE(TopKRouter(D, E, k), Experts(E, D, 8), **options)  # type: ignore[arg-type]


def loops(moe: MoE, x: Tensor) -> Tensor:
    """Token by token, choice by choice, without capacity."""
    routing = moe.router(x)
    rows = x.reshape(-1, x.shape[-1])
    result = torch.zeros_like(rows)
    for t in range(len(rows)):
        for e, weight in zip(routing.experts_TK[t].tolist(), routing.weights_TK[t], strict=True):
            result[t] = result[t] + weight.to(x.dtype) * moe.experts.one(e, rows[t])
    return result.reshape(x.shape)


@pytest.mark.parametrize("shape", [(7, 6), (2, 3, 6), (2, 1, 3, 6), (1, 6), (0, 6), (6,)])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_any_leading_dimensions(shape: tuple[int, ...], k: int) -> None:
    moe, x = layer(k=k), torch.randn(*shape)
    y, routing = moe(x, return_routing=True)
    assert y.shape == shape
    assert routing.shape == shape[:-1]
    torch.testing.assert_close(y, loops(moe, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, FEW_PAIRS // 2, FEW_PAIRS // 2 + 1])
def test_a_handful_of_tokens_without_gradient_gives_the_same(tokens: int) -> None:
    """Both sides of the border between direct products and dispatch, with padding and biases."""
    torch.manual_seed(0)
    moe = MoE(TopKRouter(6, 4, 2), Experts(4, 6, 8, bias=True))
    x, mask = torch.randn(tokens, 6), torch.arange(tokens) != 1
    with_gradient = moe(x, mask=mask)
    with torch.no_grad():
        torch.testing.assert_close(moe(x, mask=mask), with_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_types(dtype: torch.dtype) -> None:
    whole = layer().double()
    x = torch.randn(5, 6, dtype=torch.float64)
    moe = copy.deepcopy(whole).to(dtype)
    low = x.to(dtype).requires_grad_()
    y, routing = moe(low, return_routing=True)
    assert y.dtype == dtype
    assert routing.logits_TE is not None
    assert routing.logits_TE.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    error = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    torch.testing.assert_close(y.double(), whole(x), rtol=error, atol=error)
    y.sum().backward()
    assert low.grad is not None
    assert all(p.grad is not None and p.grad.dtype == dtype for p in moe.parameters())


def test_autocast() -> None:
    moe, x = layer(), torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, routing = moe(x, return_routing=True)
    assert routing.logits_TE is not None
    assert (y.dtype, routing.logits_TE.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.float(), moe(x), rtol=0.05, atol=0.02)
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in moe.parameters())


def test_a_shared_expert_runs_on_every_real_token() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    moe = layer(shared=shared, shared_gate=True)
    plain = layer()
    plain.load_state_dict({k: v for k, v in moe.state_dict().items() if not k.startswith("shared")})
    x, mask = torch.randn(5, 6), torch.tensor([True, True, False, True, True])
    assert moe.shared_gate is not None
    gate = (x @ moe.shared_gate.weight.T).sigmoid()
    wanted = plain(x, mask=mask) + torch.where(mask[:, None], gate * shared(x), 0)
    torch.testing.assert_close(moe(x, mask=mask), wanted)
    ungated = layer(shared=shared)
    torch.testing.assert_close(ungated(x), plain_like(ungated)(x) + shared(x))


def plain_like(moe: MoE) -> MoE:
    return MoE(moe.router, moe.experts)


def test_a_full_expert_gives_zero_and_the_residual_carries_the_token() -> None:
    moe = layer(E=2, k=1, capacity=1)
    x = torch.randn(6, 6)
    y, routing = moe(x, return_routing=True)
    assert routing.dropped.item() == 6 - routing.picked_load_E.sum().item() == (y == 0).all(1).sum().item()
    assert routing.picked_load_E.max().item() == 1
    assert routing.load_E.sum().item() == 6
    first = {int(e): t for t, e in reversed(list(enumerate(routing.experts_TK[:, 0].tolist())))}
    assert all((y[t] != 0).any() for t in first.values()), "position order: who comes first is served"


def test_capacity_in_training_and_in_evaluation() -> None:
    moe = layer(E=2, k=1, capacity_factor=0.5, eval_capacity_factor=2.0)
    x = torch.randn(8, 6)
    _, train = moe(x, return_routing=True)
    _, test = moe.eval()(x, return_routing=True)
    assert train.picked_load_E.max().item() == 2
    assert test.dropped.item() == 0


def test_it_works_inside_sequential_and_saves_and_loads() -> None:
    model = nn.Sequential(nn.Linear(3, 6), layer(), nn.ReLU())
    x = torch.randn(5, 3)
    other = nn.Sequential(nn.Linear(3, 6), layer(), nn.ReLU())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def test_checkpointing_gives_the_same_gradients_and_the_routing() -> None:
    moe, x = layer(), torch.randn(5, 6)

    def gradients(y: Tensor, routing: Routing) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y.square().sum() + load_balance_loss(routing), list(moe.parameters()))

    plain = gradients(*moe(x, return_routing=True))
    again = gradients(*checkpoint(moe, x, return_routing=True, use_reentrant=False))
    for got, want in zip(again, plain, strict=True):
        torch.testing.assert_close(got, want)


def test_float64_gradcheck_of_the_whole_layer() -> None:
    torch.manual_seed(0)
    moe = MoE(
        TopKRouter(3, 4, 2),
        Experts(4, 3, 5, bias=True),
        shared=nn.Linear(3, 3),
        shared_gate=True,
        capacity_factor=1.0,
    ).double()
    names, parameters = zip(*moe.named_parameters(), strict=True)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(moe, dict(zip(names, values, strict=True)), (x,))
        return y

    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_as_one_graph(dtype: torch.dtype) -> None:
    """Forward, gradients, routing, mask and capacity, with the shapes changing."""
    for options in ({}, {"capacity_factor": 1.0, "capacity_order": "priority"}):
        torch.compiler.reset()
        moe = layer(**options).to(dtype)
        compiled = torch.compile(moe, fullgraph=True)
        for tokens in (5, 9):
            x = torch.randn(2, tokens, 6, dtype=dtype)
            mask = torch.rand(2, tokens) < 0.8
            results = []
            for run in (moe, compiled):
                moe.zero_grad()
                y, routing = run(x, mask=mask, return_routing=True)
                (y.float().square().sum() + load_balance_loss(routing)).backward()
                results.append([y, routing.weights_TK, *[p.grad for p in moe.parameters()]])
            for got, want in zip(*results, strict=True):
                torch.testing.assert_close(
                    got, want, rtol=0.05 if dtype == torch.bfloat16 else 1e-4, atol=1e-2
                )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(
            compiled(x.float()) if dtype == torch.float32 else compiled(x), moe(x), rtol=0.05, atol=0.05
        )


def test_errors_say_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="the router has num_experts=4, the experts are 3"):
        MoE(TopKRouter(6, 4), Experts(3, 6, 8))
    with pytest.raises(ValueError, match="the router has dim=6, the experts 5"):
        MoE(TopKRouter(6, 4), Experts(4, 5, 8))
    with pytest.raises(ValueError, match="shared_gate=True needs shared"):
        layer(shared_gate=True)
    with pytest.raises(ValueError, match="capacity_factor must be a number of at least 0; got -1"):
        layer(capacity_factor=-1)
    with pytest.raises(ValueError, match="capacity=3 is a fixed number of tokens; leave out capacity_factor"):
        layer(capacity=3, capacity_factor=1.0)
    with pytest.raises(ValueError, match=r"eval_capacity_factor needs capacity_factor"):
        layer(eval_capacity_factor=2.0)
    with pytest.raises(ValueError, match="capacity_order must be one of 'position', 'priority'; got 'size'"):
        layer(capacity_order="size")
    with pytest.raises(ValueError, match=r"x must have the shape \(..., 6\); got \(2, 5\)"):
        layer()(torch.zeros(2, 5))
    with pytest.raises(
        ValueError, match=r"mask must be boolean of shape \(2,\), True for real tokens; got torch.float32"
    ):
        layer()(torch.zeros(2, 6), mask=torch.ones(2))
    with pytest.raises(ValueError, match=r"x must be floating point; got torch.int64; embed token ids first"):
        layer()(torch.zeros(2, 6, dtype=torch.int64))


def test_causal_use_warns_of_what_looks_ahead() -> None:
    with pytest.warns(
        UserWarning, match="with a capacity, whether an expert is full depends on other tokens"
    ):
        layer(causal=True, capacity_factor=1.0)


def test_a_causal_layer_without_capacity_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    moe = layer(causal=True)
    assert not recwarn.list
    x = torch.randn(5, 6)
    other = x.clone()
    other[4] += 1
    torch.testing.assert_close(moe(x)[:4], moe(other)[:4], rtol=1e-6, atol=1e-7)


def test_a_list_of_modules_may_change_the_width() -> None:
    moe = MoE(TopKRouter(6, 2, 1), ExpertList([nn.Linear(6, 3), nn.Linear(6, 3)]))
    assert moe(torch.randn(2, 5, 6)).shape == (2, 5, 3)
