"""Batch normalisation against TensorFlow's formula, written slowly, and what padding must not do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from expertise.youtube8m.models._batch_norm import DECAY, EPSILON, BatchNorm


def norm_of(size: int, seed: int = 0) -> BatchNorm:
    """One with weights that are not those of the start, in float64."""
    generator = torch.Generator().manual_seed(seed)
    norm = BatchNorm(size).double()
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


def twin(norm: BatchNorm, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What training gives for these rows, and their mean and variance, value by value."""
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    result, means, variances = np.zeros_like(rows), [], []
    for f in range(rows.shape[1]):
        mean = sum(rows[:, f]) / len(rows)
        variance = sum((value - mean) ** 2 for value in rows[:, f]) / len(rows)
        for n in range(len(rows)):
            result[n, f] = weight[f] * (rows[n, f] - mean) / (variance + EPSILON) ** 0.5 + bias[f]
        means.append(mean)
        variances.append(variance)
    return result, np.array(means), np.array(variances)


def frames(B: int, L: int, F: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, L, F, generator=generator, dtype=torch.float64) * 2 + 1
    keep = torch.rand(B, L, generator=generator) < 0.6
    return x, keep


@settings(max_examples=25, deadline=None)
@given(B=st.integers(1, 4), L=st.integers(1, 6), F=st.integers(1, 5), seed=st.integers(0, 100))
def test_training_equals_tensorflows_formula_over_the_rows_that_count(
    B: int, L: int, F: int, seed: int
) -> None:
    (x, keep), norm = frames(B, L, F, seed), norm_of(F, seed)
    keep[0, 0] = True
    y = norm(x, keep).detach()
    expected, means, variances = twin(norm, x[keep].numpy())
    np.testing.assert_allclose(y[keep].numpy(), expected, atol=1e-9)
    assert (y[~keep] == 0).all()
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.9 * means, atol=1e-6)
    np.testing.assert_allclose(norm.running_variance.numpy(), 0.1 + 0.9 * variances, atol=1e-6)


def test_running_moments_follow_step_by_step_and_serve_in_evaluation() -> None:
    norm, mean, variance = norm_of(3), np.zeros(3), np.ones(3)
    for seed in range(5):
        x, keep = frames(2, 4, 3, seed)
        norm(x, keep)
        _, batch_mean, batch_variance = twin(norm, x[keep].numpy())
        decay = (1 + seed) / (10 + seed)
        mean = decay * mean + (1 - decay) * batch_mean
        variance = decay * variance + (1 - decay) * batch_variance
    norm.eval()
    x, _ = frames(1, 5, 3, 9)
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    expected = weight * (x.numpy() - mean) / np.sqrt(variance + 1e-3) + bias
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, atol=1e-6)  # evaluation changes nothing


def test_the_decay_of_the_running_moments_comes_to_the_references() -> None:
    norm = norm_of(2)
    norm.steps.fill_(100_000)
    before = norm.running_mean.clone()
    x, keep = frames(2, 4, 2)
    norm(x, keep)
    _, mean, _ = twin(norm, x[keep].numpy())
    np.testing.assert_allclose(
        norm.running_mean.numpy(), DECAY * before.numpy() + (1 - DECAY) * mean, atol=1e-6
    )
    norm.reset()
    assert norm.steps.item() == 0


def test_evaluation_gives_a_row_the_same_whatever_is_beside_it() -> None:
    x, keep = frames(3, 4, 2)
    norm = norm_of(2).eval()
    assert_close(norm(x, keep)[1:2], norm(x[1:2], keep[1:2]))


def test_without_padding_all_rows_count() -> None:
    x, _ = frames(3, 4, 2)
    one, other = norm_of(2), norm_of(2)
    assert_close(one(x), other(x, torch.ones(3, 4, dtype=torch.bool)))
    assert_close(one.running_variance, other.running_variance)


def test_padding_changes_nothing_whatever_its_values() -> None:
    x, keep = frames(3, 4, 2)
    one, other = norm_of(2), norm_of(2)
    padded = torch.cat([x, torch.full((3, 7, 2), 1e3, dtype=torch.float64)], dim=1)
    wider = torch.cat([keep, torch.zeros(3, 7, dtype=torch.bool)], dim=1)
    assert_close(other(padded, wider)[:, :4], one(x, keep))
    assert_close(other.running_mean, one.running_mean)
    assert_close(other.running_variance, one.running_variance)


@pytest.mark.parametrize("with_keep", [True, False])
def test_gradients_equal_those_of_finite_differences(with_keep: bool) -> None:
    x, keep = frames(2, 3, 4)
    norm = norm_of(4)
    weights = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def total(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        values = {"weight": weight, "bias": bias}
        return (torch.func.functional_call(norm, values, (x, keep if with_keep else None)) * weights).sum()

    inputs = [value.detach().clone().requires_grad_() for value in (x, norm.weight, norm.bias)]
    assert torch.autograd.gradcheck(total, inputs)


def test_an_empty_batch_and_one_of_padding_pass_and_move_no_average() -> None:
    norm = norm_of(3)
    for x, keep in (
        (torch.zeros(0, 4, 3), torch.zeros(0, 4, dtype=torch.bool)),
        (torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool)),
        (torch.zeros(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool)),
    ):
        x.requires_grad_()
        norm.zero_grad()
        norm(x.double(), keep).sum().backward()
        assert norm.weight.grad is not None
        assert norm.weight.grad.isfinite().all()
        assert x.grad is not None
        assert x.grad.isfinite().all()
    assert_close(norm.running_mean, torch.zeros(3, dtype=torch.float64))
    assert_close(norm.running_variance, torch.ones(3, dtype=torch.float64))


def test_a_large_mean_does_not_swallow_the_variance() -> None:
    x = torch.tensor([[4000.0], [4000.5], [4001.0]])
    norm = BatchNorm(1)
    norm(x)
    # E x^2 - mean^2 in float32 would be off by one
    assert norm.running_variance.item() == pytest.approx(0.1 + 0.9 / 6, abs=1e-6)


def test_all_arithmetic_is_in_float32_under_autocast() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) + 3
    with torch.autocast("cpu", torch.bfloat16):
        one = BatchNorm(4)(x)
        narrow = BatchNorm(4)(x.bfloat16())
    assert one.dtype == narrow.dtype == torch.float32
    assert_close(one, BatchNorm(4)(x))
    assert_close(narrow, BatchNorm(4)(x.bfloat16().float()))


def test_scale_and_shift_do_what_forward_does() -> None:
    x, keep = frames(3, 4, 2)
    norm, other = norm_of(2), norm_of(2)
    scale, shift = norm.scale_and_shift(*norm.moments(x, keep))
    assert_close((x * scale + shift) * keep.unsqueeze(-1), other(x, keep))


def test_reset_forgets_everything() -> None:
    norm = BatchNorm(3)
    with torch.no_grad():
        norm.weight.fill_(7.0)
        norm.bias.fill_(7.0)
    norm(torch.randn(9, 3) + 5)
    norm.reset()
    for name, value in BatchNorm(3).state_dict().items():
        assert_close(norm.state_dict()[name], value)
