"""A layer made of a dense block gives what the block gives, whatever its router chooses."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from expertise.nn import Experts, TopKRouter
from expertise.nn.exchange import FeedForward, upcycle

D, H = 6, 10


class GatedMLP(nn.Module):
    """The form of the MLPs of transformers."""

    def __init__(self, act: nn.Module, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(D, H, bias=bias)
        self.up_proj = nn.Linear(D, H, bias=False)
        self.down_proj = nn.Linear(H, D, bias=False)
        self.act_fn = act

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class PlainMLP(nn.Module):
    """The form of T5's and of Switch's blocks; with ``residual`` it does more than that."""

    def __init__(self, act: nn.Module, residual: bool = False, p: float = 0.0) -> None:
        super().__init__()
        self.wi, self.wo = nn.Linear(D, H, bias=False), nn.Linear(H, D, bias=False)
        self.act, self.dropout, self.residual = act, nn.Dropout(p), residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.wo(self.dropout(self.act(self.wi(x))))
        return x + y if self.residual else y


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "swiglu": lambda: FeedForward(D, H),
    "relu with bias": lambda: FeedForward(D, H, activation="relu", bias=True),
    "gated": lambda: GatedMLP(nn.SiLU()),
    "gated, some biases": lambda: GatedMLP(nn.SiLU(), bias=True),
    "plain": lambda: PlainMLP(nn.ReLU()),
    "sequential": lambda: nn.Sequential(nn.Linear(D, H), nn.GELU(), nn.Linear(H, D)),
    "sequential, one bias": lambda: nn.Sequential(
        nn.Linear(D, H, bias=False), nn.ReLU(), nn.Identity(), nn.Linear(H, D), nn.Dropout(0.0)
    ),
}


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("name", BLOCKS)
def test_the_output_at_the_start_is_the_blocks(name: str, k: int) -> None:
    torch.manual_seed(k)
    block = BLOCKS[name]()
    for dtype, close in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        layer = upcycle(block.to(dtype), num_experts=5, k=k)
        x = torch.randn(3, 7, D, dtype=dtype)
        y, routing = layer(x, return_routing=True)
        assert y.dtype == dtype
        assert (y - block(x)).abs().max() <= close
        assert (routing.load_E > 0).all() or k < 5  # the router does choose
        assert {p.dtype for p in layer.parameters()} == {dtype}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_layer_that_is_made_double_later_still_agrees(name: str) -> None:
    torch.manual_seed(1)
    block = BLOCKS[name]()
    layer = upcycle(block, num_experts=4, k=2).double()
    x = torch.randn(50, D, dtype=torch.float64)
    assert (layer(x) - block.double()(x)).abs().max() <= 1e-14


def test_experts_are_copies_that_learn() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(D, H), nn.GELU(), nn.Linear(H, D)).requires_grad_(False)
    before = copy.deepcopy(block.state_dict())
    layer = upcycle(block, num_experts=3, k=2)
    experts = layer.experts
    assert isinstance(experts, Experts)
    for e in range(3):
        assert torch.equal(experts.up_weight[e], block[0].weight)
        assert torch.equal(experts.down_bias[e], block[2].bias)  # type: ignore[index]
    assert all(parameter.requires_grad for parameter in layer.parameters())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.randn(20, D)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(experts.up_weight[0], experts.up_weight[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())


def test_noise_is_a_share_of_the_spread() -> None:
    torch.manual_seed(0)
    block = FeedForward(40, 60)
    experts = upcycle(block, num_experts=4, noise=0.25).experts
    assert isinstance(experts, Experts)
    for stacked, one in ((experts.up_weight, block.up_weight), (experts.down_weight, block.down_weight)):
        difference = stacked - one
        assert (difference.std() / one.std()).item() == pytest.approx(0.25, rel=0.03)
        assert not torch.equal(stacked[0], stacked[1])


def test_dropout_and_mode_come_along() -> None:
    layer = upcycle(PlainMLP(nn.ReLU(), p=0.3).eval(), num_experts=4)
    assert not layer.training
    assert isinstance(layer.experts, Experts)
    assert layer.experts.dropout == 0.3
    block = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Dropout(0.2), nn.Linear(H, D))
    layer = upcycle(block, num_experts=4)
    assert layer.training
    assert block[2].training, "the check must leave the block as it was"
    assert isinstance(layer.experts, Experts)
    assert layer.experts.dropout == 0.2


def test_a_router_of_ones_own() -> None:
    router = TopKRouter(D, 4, k=1)
    layer = upcycle(FeedForward(D, H), 4, router=router)
    assert layer.router is router
    with pytest.raises(ValueError, match=r"router must have dim=6 and num_experts=4; got dim=6 and num_exp"):
        upcycle(FeedForward(D, H), 4, router=TopKRouter(D, 3))


def test_feed_forward_is_one_expert_of_experts() -> None:
    torch.manual_seed(0)
    for activation in ("swiglu", "gelu", "relu"):
        experts = Experts(3, D, H, activation=activation, bias=True)
        block = FeedForward(D, H, activation=activation, bias=True)
        block.load_state_dict({name: tensor[1] for name, tensor in experts.state_dict().items()})
        x = torch.randn(4, 2, D)
        assert torch.equal(block(x), experts.one(1, x))


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (
            Unknown(),
            r"block must be a dense feed-forward block; got Unknown; known: FeedForward; torch.nn.Seq",
        ),
        (
            PlainMLP(nn.ReLU(), residual=True),
            r"a PlainMLP does more than its two linear maps and the activation.*ExpertList\(\[copy.deepcopy",
        ),
        (GatedMLP(nn.GELU()), r"its activation GELU\(approximate='none'\) has no equal.*known: silu"),
        (
            PlainMLP(nn.GELU("tanh")),
            r"its activation GELU\(approximate='tanh'\) has no equal.*gelu \(exact\)",
        ),
        (nn.Sequential(nn.Linear(D, H), nn.SiLU(), nn.Linear(H, D)), r"its activation SiLU\(\) has no equal"),
        (nn.Sequential(nn.Linear(D, D)), r"block must be Sequential\(Linear, activation, Linear\).*got Seq"),
        (
            nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D), nn.Dropout(0.1)),
            r"got Sequential\(Linear, ReLU, Linear, Dropout\)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_blocks_that_it_cannot_be_made_of(block: nn.Module, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        upcycle(block, 4)


def test_a_map_that_is_not_linear() -> None:
    block = GatedMLP(nn.SiLU())
    block.up_proj = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"up_proj must be a torch.nn.Linear; got Identity"):
        upcycle(block, 4)


def test_arguments() -> None:
    block = FeedForward(D, H)
    with pytest.raises(ValueError, match=r"k must be at least 2 .*got 1.*router=TopKRouter\(6, 4, k=1\)"):
        upcycle(block, 4, k=1)
    with pytest.raises(ValueError, match=r"num_experts must be a whole number of at least 1; got 0"):
        upcycle(block, 0)
    with pytest.raises(ValueError, match=r"noise must be a number of at least 0; got -1"):
        upcycle(block, 4, noise=-1)
    x = torch.randn(3, D)
    assert torch.allclose(upcycle(block, 1, k=1)(x), block(x), atol=1e-6)  # of one expert the weight is 1
