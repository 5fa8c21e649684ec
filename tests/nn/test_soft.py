"""The soft layer, against its equations written out."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from expertise.nn import ExpertList, Experts, SoftMoE, record_routing


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def by_hand(layer: SoftMoE, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """One sequence, one token and one slot at a time (Puigcerver et al. 2023, eq. 1-3 and section 2.3)."""
    phi = layer.phi_DS.detach().numpy()
    tokens, slots = len(x), phi.shape[1]
    logits = np.empty((tokens, slots))
    for t in range(tokens):
        for s in range(slots):
            unit = phi[:, s] / np.sqrt((phi[:, s] ** 2).sum())
            logits[t, s] = layer.scale.item() * (x[t] / np.sqrt((x[t] ** 2).sum())) @ unit
    outputs = []
    for s in range(slots):
        mixed = softmax(logits[:, s]) @ x
        expert = s // layer.slots_per_expert
        outputs.append(layer.experts.one(expert, torch.from_numpy(mixed)).detach().numpy())
    return np.array([softmax(logits[t]) @ np.array(outputs) for t in range(tokens)])


def layer(**options: int) -> SoftMoE:
    torch.manual_seed(0)
    return SoftMoE(4, Experts(3, 4, 6), **options).double()


@pytest.mark.parametrize("slots", [1, 2])
def test_it_is_what_the_paper_says(slots: int) -> None:
    soft = layer(slots_per_expert=slots)
    soft.scale.data.fill_(1.7)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    y = soft(x).detach().numpy()
    for sequence, result in zip(x.numpy(), y, strict=True):
        np.testing.assert_allclose(result, by_hand(soft, sequence), rtol=1e-12, atol=1e-13)


def test_permuting_tokens_permutes_the_result() -> None:
    soft, x, order = layer(), torch.randn(5, 4, dtype=torch.float64), torch.randperm(5)
    torch.testing.assert_close(soft(x[order]), soft(x)[order])


def test_sequences_do_not_mix() -> None:
    soft, x = layer(), torch.randn(3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(soft(x)[1], soft(x[1]))


def test_an_earlier_token_depends_on_later_ones() -> None:
    soft, x = layer(), torch.randn(5, 4, dtype=torch.float64)
    other = x.clone()
    other[4] += 1
    assert (soft(other)[0] - soft(x)[0]).abs().max() > 1e-4
    with pytest.warns(UserWarning, match="depends on later tokens; use MoE with a router"):
        SoftMoE(4, Experts(3, 4, 6), causal=True)


def test_garbage_in_the_padding_changes_nothing() -> None:
    soft, x = layer(), torch.randn(2, 5, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, False], [False] * 5])
    x[~mask] = float("nan")
    x.requires_grad_()
    y, routing = soft(x, mask=mask, return_routing=True)
    torch.testing.assert_close(y[0, mask[0]], soft(x[0][mask[0]]))
    assert (y[~mask] == 0).all()
    y.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in soft.parameters() if p.grad is not None)
    torch.testing.assert_close(routing.dispatch_BLS[0].sum(0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(routing.importance_E.sum().item(), 3.0)


def test_gradcheck() -> None:
    soft = SoftMoE(3, Experts(2, 3, 4, activation="gelu", bias=True)).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*soft.named_parameters(), strict=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(soft, dict(zip(names, values, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, *parameters))


def test_low_precision_and_autocast_keep_the_logits_in_float32() -> None:
    x = torch.randn(2, 5, 4)
    soft = layer().to(torch.bfloat16)
    y, routing = soft(x.bfloat16(), return_routing=True)
    assert (y.dtype, routing.logits_BLS.dtype) == (torch.bfloat16, torch.float32)
    whole = layer().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, routing = whole(x, return_routing=True)
    assert routing.logits_BLS.dtype == torch.float32


def test_any_modules_recording_and_empty_input() -> None:
    model = nn.Sequential(nn.Linear(3, 4), SoftMoE(4, ExpertList([nn.Linear(4, 4), nn.Identity()])))
    with record_routing(model) as routings:
        assert model(torch.randn(2, 5, 3)).shape == (2, 5, 4)
    assert routings[0].combine_BLS.shape == (2, 5, 2)
    assert layer()(torch.zeros(0, 5, 4, dtype=torch.float64)).shape == (0, 5, 4)


@pytest.mark.slow
def test_compiled() -> None:
    soft, x = layer().float(), torch.randn(2, 5, 4)
    torch.testing.assert_close(torch.compile(soft, fullgraph=True)(x), soft(x))


def test_errors_say_what_was_got() -> None:
    with pytest.raises(ValueError, match=r"got dim=5, the experts have 4"):
        SoftMoE(5, Experts(3, 4, 6))
    with pytest.raises(ValueError, match="slots_per_expert must be a whole number of at least 1; got 0"):
        SoftMoE(4, Experts(3, 4, 6), slots_per_expert=0)
    with pytest.raises(ValueError, match=r"\(..., tokens, 4\); got torch.float32 of shape \(2, 3\)"):
        layer()(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"mask must be boolean of shape \(2, 5\)"):
        layer()(torch.zeros(2, 5, 4, dtype=torch.float64), mask=torch.ones(2, 5))
