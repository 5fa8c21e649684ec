"""Less computation: only the experts that were chosen run, and what is computed follows k, not E."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expertise.nn import ExpertList, Experts, MoE, Routing, TopKRouter
from nn import watching
from nn.router_cases import CASES, Case

T, D, H = 64, 16, 32


class Counting(nn.Module):
    """An expert that counts its calls and rows."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)
        self.calls = 0
        self.rows = 0

    def forward(self, x_ND: Tensor) -> Tensor:
        self.calls += 1
        self.rows += len(x_ND)
        return self.map(x_ND)


def steered(num_experts: int, k: int, experts: Experts | ExpertList) -> MoE:
    """Tokens whose first entries are large go to the experts of the same numbers."""
    torch.manual_seed(0)
    router = TopKRouter(D, num_experts, k)
    with torch.no_grad():
        router.weight_ED.copy_(3 * torch.eye(num_experts, D))
    return MoE(router, experts)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a23_experts_that_are_not_selected_are_never_called(training: bool) -> None:
    counting = [Counting(D) for _ in range(8)]
    layer = steered(8, 2, ExpertList(counting)).train(training)
    x = torch.zeros(5, D)
    x[:, 3], x[:, 6] = 2.0, 1.0
    x[4, 0] = 3.0  # the last token: experts 0 and 3
    layer(x)
    assert [one.calls for one in counting] == [1, 0, 0, 1, 0, 0, 1, 0]
    assert [one.rows for one in counting] == [1, 0, 0, 5, 0, 0, 4, 0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.id}")
def test_a23_every_expert_sees_its_own_tokens_and_no_others(case: Case) -> None:
    """Also with a capacity and with padding: an expert's rows are exactly those that picked it."""
    counting = [Counting(4) for _ in range(8)]
    layer = MoE(case.router(4, 8), ExpertList(counting), capacity=3)
    mask = torch.arange(20) % 4 > 0
    x, ids = torch.randn(20, 4), torch.arange(20)
    routing: Routing = layer(x, mask=mask, token_ids=ids, return_routing=True)[1]
    assert [one.rows for one in counting] == routing.picked_load_E.tolist()
    assert [one.calls for one in counting] == [int(load > 0) for load in routing.picked_load_E]


def test_a23_nobody_is_called_for_no_token() -> None:
    counting = [Counting(D) for _ in range(4)]
    layer = steered(4, 2, ExpertList(counting))
    layer(torch.randn(0, D))
    layer(torch.randn(3, D), mask=torch.zeros(3, dtype=torch.bool))
    assert sum(one.calls for one in counting) == 0


def products_of_experts(num_experts: int, k: int, *, bias: bool, backward: bool) -> int:
    """Multiplications and additions that the layer's experts do, without the router's."""
    torch.manual_seed(0)
    layer = MoE(TopKRouter(D, num_experts, k), Experts(num_experts, D, H, bias=bias))
    layer.router.requires_grad_(False)
    x = torch.randn(T, D, requires_grad=backward)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            y = layer(x)
            if backward:
                y.sum().backward()

    router = 2 * T * D * num_experts
    assert router == watching.product_flops(lambda: F.linear(x.detach(), layer.router.weight_ED))
    # a frozen router has a product for its logits, and one for the gradient by its input
    return watching.product_flops(run) - router * (2 if backward else 1)


@pytest.mark.parametrize("bias", [False, True], ids=["one operation", "grouped products"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "and backward"])
def test_a23_flops_follow_k_not_the_number_of_experts(bias: bool, backward: bool) -> None:
    block = 2 * T * (D * 2 * H + H * D)  # a dense swiglu block on every token
    times = 3 if backward else 1  # by the weights and by the input: two more products for each
    for num_experts, k in ((4, 1), (16, 1), (64, 1), (4, 2), (16, 2), (64, 2), (16, 4)):
        flops = products_of_experts(num_experts, k, bias=bias, backward=backward)
        assert flops == k * times * block, (num_experts, k)


def test_a23_a_dense_block_of_equal_active_work_does_as_much() -> None:
    """Eight experts of which two run cost what a dense block of twice the hidden size costs."""
    sparse = products_of_experts(8, 2, bias=False, backward=True)
    up, down = nn.Linear(D, 2 * 2 * H, bias=False), nn.Linear(2 * H, D, bias=False)
    x = torch.randn(T, D, requires_grad=True)

    def dense() -> None:
        gate, value = up(x).chunk(2, -1)
        down(F.silu(gate) * value).sum().backward()

    assert sparse == watching.product_flops(dense)
