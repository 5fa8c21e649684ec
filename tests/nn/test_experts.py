"""The banks of experts: the fused operation against plain products, gradients, any modules."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expertise.nn import ExpertList, Experts
from expertise.nn._fused import feed_forward
from expertise.nn._grouped import grouped_mm, grouped_outer


def ends(*counts: int) -> Tensor:
    return torch.tensor(counts).cumsum(0).to(torch.int32)


def slow(experts: Experts, x: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Row by row, with torch's own operations."""
    rows, row = [], 0
    for e, count in enumerate(counts):
        for _ in range(count):
            h = F.linear(
                x[row], experts.up_weight[e], None if experts.up_bias is None else experts.up_bias[e]
            )
            if experts.activation == "swiglu":
                h = F.silu(h[: experts.hidden]) * h[experts.hidden :]
            else:
                h = F.gelu(h) if experts.activation == "gelu" else F.relu(h)
            down_bias = None if experts.down_bias is None else experts.down_bias[e]
            rows.append(F.linear(h, experts.down_weight[e], down_bias))
            row += 1
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["swiglu", "gelu", "relu"])
def test_forward_and_gradients_equal_those_of_single_rows(activation: str, bias: bool) -> None:
    torch.manual_seed(0)
    counts = (3, 0, 2, 1)
    experts = Experts(4, 5, 6, activation=activation, bias=bias).double()
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(6, 5, dtype=torch.float64)
    fast, plain = experts(x, ends(*counts)), slow(experts, x, counts)
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(plain, [x, *experts.parameters()], g)
    for got, want in zip(torch.autograd.grad(fast, [x, *experts.parameters()], g), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ["swiglu", "gelu", "relu"])
def test_gradcheck_of_the_fused_operation(activation: str) -> None:
    torch.manual_seed(1)
    wide = 6 if activation == "swiglu" else 3
    shapes = ((5, 4), (3, wide, 4), (3, 4, 3))
    arguments = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(
        lambda x, up, down: feed_forward(x, up, down, ends(2, 0, 2), activation, True)[0], arguments
    )


def test_gradcheck_of_the_grouped_products_also_twice() -> None:
    torch.manual_seed(2)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: grouped_mm(x, w, ends(2, 0, 2)), (x, w))
    assert torch.autograd.gradcheck(lambda y, x: grouped_outer(y, x, ends(2, 0, 2)), (y, x))
    assert torch.autograd.gradgradcheck(lambda x, w: grouped_mm(x, w, ends(2, 0, 2)), (x, w))
    assert torch.autograd.gradgradcheck(lambda y, x: grouped_outer(y, x, ends(2, 0, 2)), (y, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_operations_keep_torchs_contract(dtype: torch.dtype) -> None:
    """Torch's own check of custom operations: schema, fake, autograd registration, with dynamic shapes."""
    torch.manual_seed(3)
    x = torch.randn(5, 4, dtype=dtype, requires_grad=True)
    up = torch.randn(3, 6, 4, dtype=dtype, requires_grad=True)
    down = torch.randn(3, 4, 3, dtype=dtype, requires_grad=True)
    tolerance = {"rtol": 1e-2, "atol": 1e-2}
    torch.library.opcheck(feed_forward, (x, up, down, ends(2, 1, 2), "swiglu", True), **tolerance)
    torch.library.opcheck(grouped_mm, (x, up, ends(2, 1, 2)), **tolerance)
    torch.library.opcheck(grouped_outer, (up[0, :5].detach(), x, ends(2, 1, 2)), **tolerance)


def test_rows_past_the_last_expert_are_zero_and_give_no_gradient() -> None:
    for bias in (False, True):
        experts = Experts(2, 3, 4, bias=bias)
        x = torch.randn(5, 3, requires_grad=True)
        x.data[3:] = float("nan")
        y = experts(x, ends(1, 2))
        assert torch.isfinite(y[:3]).all()
        y[:3].sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in experts.parameters() if p.grad is not None)
    fused = Experts(2, 3, 4)(x, ends(1, 2))
    assert (fused[3:] == 0).all()


def test_an_expert_without_rows_has_a_gradient_of_zero() -> None:
    experts = Experts(3, 2, 4)
    experts(torch.randn(4, 2), ends(4, 0, 0)).sum().backward()
    assert experts.up_weight.grad is not None
    assert (experts.up_weight.grad[1:] == 0).all()
    assert experts.up_weight.grad[0].abs().sum() > 0


def test_frozen_weights_get_no_gradient_but_the_input_does() -> None:
    experts = Experts(2, 3, 4).requires_grad_(False)
    x = torch.randn(4, 3, requires_grad=True)
    experts(x, ends(2, 2)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in experts.parameters())


def test_nothing_is_kept_without_gradient() -> None:
    _, hidden = feed_forward(
        torch.randn(4, 2), torch.randn(2, 6, 2), torch.randn(2, 2, 3), ends(2, 2), "swiglu", False
    )
    assert hidden.numel() == 0


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    experts = Experts(2, 8, 64, dropout=0.5)
    x = torch.randn(6, 8)
    assert not torch.equal(experts(x, ends(3, 3)), experts(x, ends(3, 3)))
    experts.eval()
    torch.testing.assert_close(experts(x, ends(3, 3)), slow(experts, x, (3, 3)))


def test_autocast_runs_the_products_in_its_type() -> None:
    experts = Experts(2, 8, 16)
    x = torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = experts(x, ends(2, 2))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert experts.up_weight.grad is not None
    assert experts.up_weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), experts(x, ends(2, 2)), rtol=0.05, atol=0.05)


class DenseConnection(nn.Module):
    """Two layers, each of which sees everything before it (as in DenseNet), brought back to D columns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, 4), nn.Linear(dim + 4, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.cat([x, F.relu(self.first(x))], 1))


class LeakyIntegrateAndFire(nn.Module):
    """A spiking unit: its potential leaks, integrates its input for some steps, and fires over 1."""

    def __init__(self, dim: int, steps: int = 5) -> None:
        super().__init__()
        self.current, self.steps = nn.Linear(dim, dim), steps

    def forward(self, x: Tensor) -> Tensor:
        drive, potential, rate = self.current(x), torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(self.steps):
            potential = 0.9 * potential + drive
            soft = torch.sigmoid(4 * (potential - 1))
            spike = (potential > 1).to(x.dtype) + soft - soft.detach()  # a surrogate gradient
            potential, rate = potential * (1 - spike.detach()), rate + spike / self.steps
        return rate


def test_different_modules_stand_side_by_side_and_learn() -> None:
    torch.manual_seed(0)
    modules = [
        DenseConnection(3),
        LeakyIntegrateAndFire(3),
        nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 3)),
    ]
    experts = ExpertList(modules)
    x = torch.randn(6, 3, requires_grad=True)
    y = experts(x, ends(2, 3, 1))
    wanted = torch.cat([modules[0](x[:2]), modules[1](x[2:5]), modules[2](x[5:])])
    torch.testing.assert_close(y, wanted)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in experts.parameters())


def test_a_list_calls_only_modules_with_rows() -> None:
    called: list[int] = []
    modules = [nn.Linear(2, 2) for _ in range(3)]
    for i, module in enumerate(modules):
        module.register_forward_hook(lambda *_, i=i: called.append(i))
    ExpertList(modules)(torch.randn(4, 2), ends(1, 0, 3))
    assert called == [0, 2]


def test_errors_say_what_was_got() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of 'swiglu', 'gelu', 'relu'; got 'tanh'"):
        Experts(2, 3, 4, activation="tanh")
    with pytest.raises(ValueError, match=r"hidden must be a whole number of at least 1; got 0"):
        Experts(2, 3, 0)
    with pytest.raises(ValueError, match=r"dropout must be a number of at least 0 and at most 1; got 2"):
        Experts(2, 3, 4, dropout=2)
    with pytest.raises(ValueError, match=r"experts\[1\] is 'no module'"):
        ExpertList([nn.Identity(), "no module"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one module"):
        ExpertList([])
    with pytest.raises(ValueError, match=r"Flatten made \(4,\)"):
        ExpertList([nn.Flatten(0)])(torch.randn(2, 2), ends(2))
