"""What others got wrong with layers: evaluation, padding, types, memory, counts, causality (9 to 16)."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from expertise.nn import (
    ExpertChoiceRouter,
    Experts,
    LossFreeBias,
    MoE,
    SoftMoE,
    TopKRouter,
    load_balance_loss,
    record_routing,
    router_z_loss,
)
from expertise.nn._grouped import grouped_mm
from nn import watching
from nn.router_cases import CASES, Case

every_router = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.id}")


# ---- 9: evaluation


@every_router
def test_pitfall_09_evaluation_is_deterministic(case: Case) -> None:
    layer = case.layer().eval()
    x, ids = torch.randn(20, 4), torch.arange(20)
    first, second = (layer(x, token_ids=ids, return_routing=True) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].experts_TK, second[1].experts_TK)


def test_pitfall_09_random_seconds_jitter_and_dropout_are_off_in_evaluation() -> None:
    torch.manual_seed(0)
    router = TopKRouter(4, 8, k=2, second="random", jitter=0.5)
    layer = MoE(router, Experts(8, 4, 6, dropout=0.5))
    x = torch.randn(50, 4)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    y, routing = layer(x, return_routing=True)
    assert torch.equal(y, layer(x))
    assert routing.chosen_TK.all()


# ---- 10: padding


@pytest.mark.parametrize("order", ["position", "priority"])
def test_pitfall_10_padding_takes_no_capacity(order: str) -> None:
    torch.manual_seed(0)
    layer = MoE(TopKRouter(4, 2, k=1), Experts(2, 4, 6), capacity=3, capacity_order=order)
    x = torch.randn(1, 4).repeat(9, 1)  # all want the same expert
    x[:6] *= 2  # and the padding wants it most, and comes first
    mask = torch.arange(9) >= 6
    y, routing = layer(x, mask=mask, return_routing=True)
    assert routing.dropped == 0
    assert routing.picked_TK[:, 0].tolist() == mask.tolist()
    assert (y[mask].abs().sum(-1) > 0).all()
    assert not y[~mask].any()


@every_router
def test_pitfall_10_padding_is_in_no_loss(case: Case) -> None:
    router = case.router().eval()
    x, ids = torch.randn(12, 4), torch.arange(12)
    mask = torch.tensor([True] * 7 + [False] * 5)
    padded = router(x, mask=mask, token_ids=ids)
    alone = router(x[:7], token_ids=ids[:7])
    assert load_balance_loss(padded).item() == pytest.approx(load_balance_loss(alone).item(), abs=1e-6)
    assert padded.load_E.tolist() == alone.load_E.tolist()
    if alone.logits_TE is not None:
        assert router_z_loss(padded).item() == pytest.approx(router_z_loss(alone).item(), abs=1e-5)


# ---- 11: the router's type


def test_pitfall_11_the_router_chooses_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    router = TopKRouter(64, 256, k=8)
    x = torch.randn(500, 64).bfloat16()
    right = router.weight_ED @ x.float().T
    wrong = (router.weight_ED.bfloat16() @ x.T).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = router(x)
    assert routing.logits_TE.dtype == torch.float32

    def chosen(logits_ET: Tensor) -> Tensor:
        return logits_ET.T.topk(8, -1).indices.sort(-1).values

    ours = routing.experts_TK.sort(-1).values
    assert torch.equal(ours, chosen(right))
    assert (ours != chosen(wrong)).any(-1).float().mean() > 0.005  # bfloat16 would choose others


# ---- 12, 13, 14: memory and the grouped product


@pytest.mark.parametrize("bias", [False, True])
def test_pitfall_12_the_backward_pass_makes_no_full_gradient_for_each_expert(bias: bool) -> None:
    torch.manual_seed(0)
    E, D, H, rows = 16, 32, 32, 4
    experts = Experts(E, D, H, activation="gelu", bias=bias)
    x = torch.randn(E * rows, D)
    offsets = torch.arange(rows, E * rows + 1, rows, dtype=torch.int32)

    def in_a_loop(x: Tensor) -> Tensor:
        return torch.cat([experts.one(e, x[rows * e : rows * (e + 1)]) for e in range(E)])

    weights = experts.up_weight.nbytes + experts.down_weight.nbytes
    ours = watching.bytes_allocated(experts(x, offsets).sum().backward)
    loop = watching.bytes_allocated(in_a_loop(x).sum().backward)
    assert loop > E * weights  # W[e]: a gradient of the size of all weights for each expert
    assert ours < 2.5 * weights


@every_router
def test_pitfall_13_no_tensor_of_tokens_by_experts_by_capacity(case: Case) -> None:
    T, D, E, C = 64, 2, 16, 16
    layer = case.layer(dim=D, num_experts=E, capacity=C)
    x, ids = torch.randn(T, D), torch.arange(T)
    largest = watching.largest_tensor(lambda: layer(x, token_ids=ids).sum().backward())
    pairs = T * (E if case.name in ("dense", "top_p", "expert_choice") else 4)
    assert T * E <= largest <= max(pairs * 5, 2 * T * E)  # the experts are 5 wide
    assert largest < T * E * C / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_pitfall_14_rows_past_the_last_offset_come_to_nothing(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    experts = Experts(3, 5, 7, bias=bias).to(dtype)
    offsets = torch.tensor([2, 2, 5], dtype=torch.int32)
    x = torch.randn(12, 5, dtype=dtype)
    x[5:] = torch.nan
    used = experts(x[:5].clone(), offsets)
    used.sum().backward()
    expected = [one.grad.clone() for one in experts.parameters()]
    experts.zero_grad()
    y = experts(x, offsets)
    assert torch.equal(y[:5], used)
    assert torch.isfinite(y[5:]).all()
    if not bias:
        assert not y[5:].any()
    y[:5].sum().backward()
    for gradient, parameter in zip(expected, experts.parameters(), strict=True):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_pitfall_14_any_type_and_any_strides(dtype: torch.dtype) -> None:
    """Rows of 5 numbers are no multiple of 16 bytes, and nothing here is contiguous."""
    torch.manual_seed(0)
    x = torch.randn(5, 9, dtype=torch.float64).T  # (9, 5)
    weight = torch.randn(3, 5, 2 * 3, dtype=torch.float64)[:, :, ::2].mT  # (3, 3, 5)
    offsets = torch.tensor([4, 4, 7], dtype=torch.int32)
    y = grouped_mm(x.to(dtype), weight.to(dtype), offsets)
    expected = torch.cat([x[:4] @ weight[0].T, x[4:7] @ weight[2].T, torch.zeros(2, 3)])
    # twice the spacing of numbers of this type, over sums of 5
    assert torch.allclose(y.double(), expected, atol=20 * torch.finfo(dtype).eps)
    experts = Experts(3, 5, 7).to(dtype)
    y = experts(x.to(dtype), offsets)
    for e, start, end in ((0, 0, 4), (2, 4, 7)):
        one = experts.one(e, x[start:end].to(dtype))
        assert torch.allclose(y[start:end], one, atol=20 * torch.finfo(dtype).eps)


def test_pitfall_14_float32_compiles() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = MoE(TopKRouter(5, 4), Experts(4, 5, 7))
    x = torch.randn(20, 5)
    expected = layer(x)
    found = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    assert layer.experts.up_weight.grad.abs().sum() > 0


# ---- 15: counters


@pytest.mark.parametrize("reentrant", [True, False])
def test_pitfall_15_checkpointing_doubles_no_count_and_no_loss(reentrant: bool) -> None:
    torch.manual_seed(0)
    layer = MoE(TopKRouter(4, 8, selection_bias=True), Experts(8, 4, 6))
    LossFreeBias(layer)
    x = torch.randn(10, 4, requires_grad=True)
    if reentrant:
        checkpoint(layer, x, use_reentrant=True).sum().backward()
    else:
        with record_routing(layer) as routings:
            checkpoint(layer, x, use_reentrant=False).sum().backward()
        assert len(routings) == 1
    assert layer.router.load_E.sum() == 20


# ---- 16: rows that depend on one another


@every_router
def test_pitfall_16_a_router_says_whether_it_compares_rows(case: Case) -> None:
    """Where it does, a layer that is to be causal warns; and it tells the truth."""
    router = case.router().eval()
    x, ids = torch.randn(30, 4), torch.arange(30)
    together, alone = router(x, token_ids=ids), router(x[:3], token_ids=ids[:3])
    same = all(
        sorted(a) == sorted(b)
        for a, b in zip(together.experts_TK[:3].tolist(), alone.experts_TK.tolist(), strict=True)
    )
    says = type(router).row_independent if case.row_independent is None else case.row_independent
    assert same or not says
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MoE(router, Experts(4, 4, 6), causal=True)
    assert bool(caught) == (not type(router).row_independent)


def test_pitfall_16_expert_choice_does_depend_on_the_other_rows() -> None:
    torch.manual_seed(0)
    router = ExpertChoiceRouter(4, 4, capacity_factor=1.0)
    x = torch.randn(30, 4)
    together, alone = router(x), router(x[:3])
    assert together.load_E[:].tolist() == [8] * 4  # ceil(30 / 4)
    assert not torch.equal(together.chosen_TK[:3], alone.chosen_TK)


def test_pitfall_16_capacity_and_soft_layers_warn_in_causal_use() -> None:
    experts = Experts(4, 4, 6)
    with pytest.warns(UserWarning, match="whether an expert is full depends on other tokens.*no capacity"):
        MoE(TopKRouter(4, 4), experts, capacity_factor=1.0, causal=True)
    with pytest.warns(UserWarning, match="SoftMoE mixes all tokens of a sequence.*use MoE with a router"):
        SoftMoE(4, experts, causal=True)
