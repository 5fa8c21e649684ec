"""What once was wrong in the layers, each with the case that showed it.

Letters of shapes: D model.
"""

import copy

import pytest
import torch
from torch import nn

from expertise.nn import (
    ExpertList,
    Experts,
    FeedForward,
    LossFreeBias,
    MoE,
    SoftMoE,
    TopKRouter,
    load_balance_loss,
    record_routing,
)

D = 8


def layer_of(**settings: object) -> MoE:
    torch.manual_seed(0)
    return MoE(TopKRouter(D, 4, 2), Experts(4, D, 16), **settings)  # type: ignore[arg-type]


def test_nan_in_the_padding_stays_out_of_the_gradient_of_the_shared_module() -> None:
    layer = layer_of(shared=FeedForward(D, 16), shared_gate=True)
    x = torch.randn(2, 5, D)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])

    def gradients(padding: float) -> list[torch.Tensor]:
        y = layer(torch.where(mask[..., None], x, padding), mask=mask)
        return list(torch.autograd.grad(y.square().sum(), list(layer.parameters())))

    for one, other in zip(gradients(torch.nan), gradients(0.0), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_selection_bias_is_float32_whatever_the_default_type_is(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        router = TopKRouter(D, 4, selection_bias=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert router.weight_ED.dtype == dtype
    assert router.selection_bias_E is not None
    assert router.selection_bias_E.dtype == torch.float32


def test_the_selection_bias_is_float32_though_a_loaded_one_is_assigned() -> None:
    router = TopKRouter(D, 4, selection_bias=True)
    state = {name: value.bfloat16() for name, value in router.state_dict().items()}
    router.load_state_dict(state, assign=True)
    assert router.weight_ED.dtype == torch.bfloat16
    assert router.selection_bias_E is not None
    assert router.selection_bias_E.dtype == torch.float32


def test_reset_parameters_after_to_empty_sets_the_selection_bias_too() -> None:
    with torch.device("meta"):
        router = TopKRouter(D, 4, selection_bias=True)
    router.to_empty(device="cpu")
    assert router.selection_bias_E is not None
    router.selection_bias_E.fill_(torch.nan)  # what empty memory may hold
    router.reset_parameters()
    assert router.selection_bias_E.tolist() == [0.0] * 4


def test_the_counts_are_no_buffers_which_data_parallel_training_would_overwrite() -> None:
    # DistributedDataParallel gives every rank the buffers of rank 0 before each forward; with two forwards a
    # step the counts of the first were then those of rank 0 on all ranks
    layer = MoE(TopKRouter(D, 4, selection_bias=True), Experts(4, D, 16))
    LossFreeBias(layer)
    layer(torch.randn(6, D))
    assert layer.router.load_E is not None
    assert layer.router.load_E.sum() == 12
    assert all(buffer is not layer.router.load_E for buffer in layer.buffers())
    load_E = layer.to("meta").router.load_E  # and yet they move
    assert load_E is not None
    assert load_E.device.type == "meta"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_trace_of_few_tokens_does_not_take_their_experts_for_constants() -> None:
    layer = layer_of().eval()
    with torch.no_grad():
        traced = torch.jit.trace(layer, (torch.randn(1, 2, D),), check_trace=False)
        for _ in range(5):
            x = torch.randn(1, 2, D)
            torch.testing.assert_close(traced(x), layer(x))


@pytest.mark.parametrize("bias", [False, True])
def test_autocast_leaves_float64_as_it_is(bias: bool) -> None:
    layer = MoE(TopKRouter(D, 4), Experts(4, D, 16, bias=bias)).double()
    x = torch.randn(6, D, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, layer(x))


def test_a_shared_module_of_another_width_is_refused_rather_than_spread() -> None:
    layer = layer_of(shared=nn.Linear(D, 1))
    with pytest.raises(ValueError, match=r"shared must give \(6, 8\) as .*Linear gave \(6, 1\)"):
        layer(torch.randn(6, D))


def test_parts_of_a_wrong_kind_are_named() -> None:
    router, experts = TopKRouter(D, 4), Experts(4, D, 16)
    with pytest.raises(ValueError, match=r"router must be one of expertise\.nn\.ROUTERS.*got Experts"):
        MoE(experts, router)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ExpertList\(modules\) for modules of your own; got list"):
        MoE(router, [nn.Linear(D, D)] * 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"experts must be Experts\(num_experts, .*got ModuleList"):
        SoftMoE(D, nn.ModuleList([nn.Linear(D, D)]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shared must be a torch module, or None; got str"):
        layer_of(shared="yes")


def test_experts_of_a_list_that_do_not_fit_one_another_are_named() -> None:
    x_PD, ends_E = torch.randn(4, D), torch.tensor([2, 4], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"same width; Linear gave 5, one before it 3"):
        ExpertList([nn.Linear(D, 3), nn.Linear(D, 5)])(x_PD, ends_E)
    with pytest.raises(ValueError, match=r"must map \(n, D\) to \(n, D\); LSTM made a tuple of \(2, 8\)"):
        ExpertList([nn.LSTM(D, D), nn.Linear(D, D)])(x_PD, ends_E)


def test_a_loss_names_the_soft_routing_it_got() -> None:
    _, routing = SoftMoE(D, Experts(4, D, 16))(torch.randn(3, D), return_routing=True)
    with pytest.raises(ValueError, match=r"got a SoftRouting among them; leave out soft layers"):
        load_balance_loss(routing)
    with pytest.raises(ValueError, match=r"got a NoneType among them"):
        load_balance_loss(None)  # type: ignore[arg-type]


def test_a_copy_made_while_recording_keeps_nothing() -> None:
    layer = layer_of()
    with record_routing(layer) as routings:
        layer(torch.randn(3, D))
        twin = copy.deepcopy(layer)
        twin(torch.randn(3, D))
    assert len(routings) == 1
    assert twin.recorder is None
