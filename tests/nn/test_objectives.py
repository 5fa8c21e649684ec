"""The objectives of 1991 and the hard gate: gradients as their formulas say, means, variances, logarithms."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from scipy.special import softmax
from torch import Tensor

from expertise.nn.objectives import (
    BASELINES,
    OBJECTIVES,
    cooperative,
    cross_entropy,
    each_loss,
    expected,
    gaussian_loss,
    half_squared_error,
    hard_gate,
    likelihood,
    log_loss,
    mean_of_others,
    reinforce,
    sample_experts,
    squared_error,
    weighted_mean,
)

Array = npt.NDArray[Any]
B, E, O = 5, 3, 2  # noqa: E741


def case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Make gate logits (B, E), outputs (B, E, O) and targets (B, O) in doubles."""
    torch.manual_seed(seed)
    logits = torch.randn(B, E, dtype=torch.float64, requires_grad=True)
    outputs = torch.randn(B, E, O, dtype=torch.float64, requires_grad=True)
    return logits, outputs, torch.randn(B, O, dtype=torch.float64)


def gradients(objective: Any) -> tuple[Array, Array, Array, Array, Array]:
    """Give the gradients of an objective's sum, and what the formulas are made of."""
    logits, outputs, y = case()
    objective(logits.log_softmax(1), outputs, y).sum().backward()
    assert logits.grad is not None
    assert outputs.grad is not None
    o, d = outputs.detach().numpy(), y.numpy()
    return logits.grad.numpy(), outputs.grad.numpy(), softmax(logits.detach().numpy(), axis=1), o, d


def test_the_table_has_the_four() -> None:
    assert set(OBJECTIVES) == {"likelihood", "expected", "cooperative", "reinforce"}


def test_cooperative_has_the_gradient_of_e1() -> None:
    of_gate, of_outputs, p, o, d = gradients(cooperative)
    blend = np.einsum("be,beo->bo", p, o)
    slope = -2 * p * np.einsum("bo,beo->be", d - blend, o - blend[:, None])
    np.testing.assert_allclose(of_gate, slope, atol=1e-12)
    np.testing.assert_allclose(of_outputs, -2 * p[:, :, None] * (d - blend)[:, None], atol=1e-12)


def test_expected_has_the_gradient_of_e2() -> None:
    of_gate, of_outputs, p, o, d = gradients(expected)
    each = ((d[:, None] - o) ** 2).sum(axis=2)
    mean = (p * each).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(of_gate, p * (each - mean), atol=1e-12)
    np.testing.assert_allclose(of_outputs, -2 * p[:, :, None] * (d[:, None] - o), atol=1e-12)


def test_likelihood_has_the_gradient_of_e3() -> None:
    of_gate, of_outputs, p, o, d = gradients(likelihood)
    joint = p * np.exp(-((d[:, None] - o) ** 2).sum(axis=2) / 2)
    h = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(of_gate, p - h, atol=1e-12)
    np.testing.assert_allclose(of_outputs, -h[:, :, None] * (d[:, None] - o), atol=1e-12)


def test_pitfall_01_the_error_of_the_blend_is_not_the_model_of_1991() -> None:
    """Two experts, one right: the likelihood leaves it alone, the cooperative objective pulls it away."""
    log_gate = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    y = torch.zeros(1, 1, dtype=torch.float64)
    slopes = {}
    for name in ("likelihood", "cooperative"):
        outputs = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64, requires_grad=True)
        OBJECTIVES[name](log_gate, outputs, y).sum().backward()
        assert outputs.grad is not None
        slopes[name] = outputs.grad[0, 0].item()
    assert slopes["likelihood"] == 0
    assert slopes["cooperative"] == pytest.approx(1.0)  # 2 p (ybar - d) = 2 * .5 * 1


@pytest.mark.parametrize("name", ["likelihood", "expected", "cooperative"])
def test_gradcheck(name: str) -> None:
    logits, outputs, y = case(1)
    assert torch.autograd.gradcheck(lambda s, o: OBJECTIVES[name](s.log_softmax(1), o, y), (logits, outputs))


def test_likelihood_stays_in_the_domain_of_logarithms() -> None:
    """exp(-loss) is 0 in doubles from a loss of 745 on; value and gradient must not notice."""
    log_gate = torch.tensor([[0.9, 0.1]], dtype=torch.float64).log()
    outputs = torch.tensor([[[300.0], [301.0]]], dtype=torch.float64, requires_grad=True)
    value = likelihood(log_gate, outputs, torch.zeros(1, 1, dtype=torch.float64))
    assert value.item() == pytest.approx(45000 - np.log(0.9), rel=1e-12)
    value.sum().backward()
    assert outputs.grad is not None
    np.testing.assert_allclose(outputs.grad.numpy().ravel(), [300.0, 0.0], atol=1e-9)


def test_the_losses() -> None:
    y, mean = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert squared_error(y, mean).tolist() == [5.0]
    assert half_squared_error(y[:, 0], mean[:, 0]).tolist() == [0.5]
    width = torch.tensor([[0.5, 2.0]])
    found = gaussian_loss(y, torch.cat([mean, width.log()], dim=1)).item()
    assert found == pytest.approx(-stats.norm([0.0, 4.0], [0.5, 2.0]).logpdf([1.0, 2.0]).sum(), rel=1e-6)
    proba = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    codes = torch.tensor([1, 0])
    np.testing.assert_allclose(cross_entropy(codes, proba), -np.log([0.8, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(log_loss(codes, proba.log()), -np.log([0.8, 1.0]), rtol=1e-6)
    assert torch.isfinite(cross_entropy(torch.tensor([1]), torch.tensor([[1.0, 0.0]]))).all()


def test_weighted_mean_of_batches_is_that_of_the_whole() -> None:
    values, weight = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([0.0, 2.0, 1.0, 1.0])
    whole = weighted_mean(values, weight)
    assert whole.item() == pytest.approx(17 / 4)
    halves = [weighted_mean(values[i : i + 2], weight[i : i + 2]) for i in (0, 2)]
    assert sum(half.item() for half in halves) / 2 == pytest.approx(whole.item())


# ---- the hard gate


def gate_gradient(values_B: Tensor, logits: Tensor) -> Array:
    return torch.autograd.grad(values_B.sum(), logits)[0].numpy()


@pytest.mark.parametrize("baseline", BASELINES)
def test_mean_of_the_gradient_over_all_draws_is_that_of_e2(baseline: str) -> None:
    """Exactly: every combination of draws, weighed by its probability."""
    logits, outputs, y = case(2)
    log_gate = logits.log_softmax(1)
    losses = each_loss(squared_error, y, outputs).detach()
    rows, total, weight = torch.arange(B), np.zeros((B, E)), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]).double()
    for draw in itertools.product(range(E), repeat=B):
        chosen = torch.tensor(draw)
        own = losses[rows, chosen]
        others = {
            "none": torch.zeros(B),
            "batch": mean_of_others(own, weight),
            "gate": (log_gate.exp() * losses).sum(1).detach(),
        }[baseline]
        probability = log_gate.detach()[rows, chosen].sum().exp().item()
        values = hard_gate(log_gate[rows, chosen], own, others)
        total += probability * torch.autograd.grad(values.sum(), logits, retain_graph=True)[0].numpy()
    exact = gate_gradient(expected(log_gate, outputs, y), logits)
    np.testing.assert_allclose(total, exact, atol=1e-12)


def test_only_the_drawn_expert_learns() -> None:
    logits, outputs, y = case(3)
    generator = torch.Generator().manual_seed(4)
    chosen = sample_experts(logits.log_softmax(1), torch.Generator().manual_seed(4))
    values = reinforce(logits.log_softmax(1), outputs, y, baseline="gate", generator=generator)
    values.sum().backward()
    rows = torch.arange(B)
    np.testing.assert_allclose(values.detach(), squared_error(y, outputs.detach()[rows, chosen]))
    assert outputs.grad is not None
    drawn = torch.zeros(B, E, dtype=torch.bool)
    drawn[rows, chosen] = True
    assert (outputs.grad[~drawn] == 0).all()
    np.testing.assert_allclose(outputs.grad[drawn], -2 * (y - outputs.detach()[drawn]), atol=1e-12)


def test_experts_are_drawn_by_the_gate_and_never_at_probability_0() -> None:
    probs = torch.tensor([[0.0, 0.25, 0.75, 0.0]]).repeat(20000, 1)
    chosen = sample_experts(probs.log(), torch.Generator().manual_seed(0))
    share = torch.bincount(chosen, minlength=4) / 20000
    assert share[0] == share[3] == 0
    assert share[1].item() == pytest.approx(0.25, abs=0.01)
    again = sample_experts(probs.log(), torch.Generator().manual_seed(0))
    assert torch.equal(chosen, again)


def test_mean_of_others_leaves_the_case_out() -> None:
    loss, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 2.0])
    np.testing.assert_allclose(mean_of_others(loss, weight), [14 / 3, 13 / 3, 1.5], rtol=1e-6)
    assert mean_of_others(torch.tensor([5.0])).tolist() == [0.0]


# ---- what is wrong is said


def test_a_loss_that_is_already_a_mean_is_refused() -> None:
    _, outputs, y = case()
    with pytest.raises(
        ValueError, match=r"loss must give one value for each case, the shape \(15,\); got \(\)"
    ):
        each_loss(lambda y, prediction: (y - prediction).square().mean(), y, outputs)
    with pytest.raises(
        ValueError, match=r"the shape \(5,\); got \(5, 2\); take the sum or mean over the outputs"
    ):
        cooperative(torch.zeros(B, E), outputs, y, lambda y, prediction: (y - prediction).square())


def test_an_unknown_baseline_is_refused() -> None:
    logits, outputs, y = case()
    with pytest.raises(ValueError, match=r"baseline must be one of 'none', 'batch', 'gate'; got 'mean'"):
        reinforce(logits.log_softmax(1), outputs, y, baseline="mean")
