"""The label losses: against loops, with labels that are shares, and with labels that nobody has rated."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

from expertise.youtube8m.losses import LOSSES, LabelLoss, cross_entropy_loss
from youtube8m.twins_video import slopes

Array = NDArray[np.float64]
every_loss = pytest.mark.parametrize("name", LOSSES)


def by_loops(name: str, p: Array, labels: Array, rated: NDArray[np.bool_], rows: float) -> float:
    """The loss of each label that was rated, one by one."""
    total = 0.0
    for b in range(len(p)):
        columns = [c for c in range(p.shape[1]) if rated[b, c]]
        of_video = sum(labels[b, c] for c in columns)
        exponentials = sum(np.exp(p[b, c]) for c in columns)
        for c in columns:
            y, q = labels[b, c], p[b, c]
            if name == "CrossEntropyLoss":
                total -= y * np.log(q + 1e-5) + (1 - y) * np.log(1 - q + 1e-5)
            elif name == "HingeLoss":
                total += max(0.0, 1 - (2 * y - 1) * q)
            elif of_video > 0:
                total -= y / of_video * (q - np.log(exponentials))
    return total / rows


def drawn(seed: int, videos: int = 6, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, shares and ratings in float64; some shares are 0 or 1, some videos have none."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(videos, classes, generator=generator, dtype=torch.float64)
    shares = (torch.rand(videos, classes, generator=generator, dtype=torch.float64) * 3 - 1).clamp(0, 1)
    shares[::3] = 0.0
    return p, shares, torch.rand(videos, classes, generator=generator) < 0.6


@every_loss
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(1, 6),
    classes=st.integers(1, 5),
    some=st.booleans(),
    rows=st.sampled_from([None, 4.0, 0.5]),
)
@settings(max_examples=25, deadline=None)
def test_it_equals_the_loops(
    name: str, seed: int, videos: int, classes: int, some: bool, rows: float | None
) -> None:
    p, shares, rated = drawn(seed, videos, classes)
    loss = LOSSES[name](p, shares, rated if some else None, rows)
    kept = rated if some else torch.ones_like(rated)
    expected = by_loops(name, p.numpy(), shares.numpy(), kept.numpy(), rows or videos)
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@every_loss
@given(seed=st.integers(0, 10**6), some=st.booleans())
@settings(max_examples=20, deadline=None)
def test_shares_of_0_and_1_are_labels(name: str, seed: int, some: bool) -> None:
    p, shares, rated = drawn(seed)
    p, labels = p.float().requires_grad_(), shares > 0.5
    values = [LOSSES[name](p, given, rated if some else None) for given in (labels, labels.float())]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, p)[0] for value in values]
    assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-7)


@every_loss
def test_what_is_not_rated_is_not_there(name: str) -> None:
    p, shares, rated = drawn(1)
    rated[2] = False  # a video of which nothing was rated
    generator = torch.Generator().manual_seed(9)
    others = torch.rand(p.shape, generator=generator, dtype=torch.float64)
    changed_p, changed_shares = torch.where(rated, p, others), torch.where(rated, shares, 1 - shares)
    for labels, changed in ((shares, changed_shares), (shares > 0.5, changed_shares > 0.5)):
        given = p.clone().requires_grad_()
        loss = LOSSES[name](given, labels, rated)
        assert loss.item() == LOSSES[name](changed_p, changed, rated).item()
        (gradient,) = torch.autograd.grad(loss, given)
        assert (gradient[~rated] == 0).all()
        assert (gradient[rated] != 0).any()
    nobody = torch.zeros_like(rated)
    assert LOSSES[name](p, shares, nobody).item() == 0


@every_loss
@pytest.mark.parametrize("labelled", ["bool", "shares"])
@pytest.mark.parametrize("some", [False, True])
def test_the_gradient_is_the_slope(name: str, labelled: str, some: bool) -> None:
    p, shares, rated = drawn(2)
    labels = shares > 0.5 if labelled == "bool" else shares
    mask = rated if some else None
    given = p.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](given, labels, mask, 3.0), given)
    values = p.numpy().copy()
    slope = slopes(lambda: LOSSES[name](torch.from_numpy(values), labels, mask, 3.0).item(), values)
    np.testing.assert_allclose(gradient.numpy(), slope, rtol=1e-4, atol=1e-7)
    functional, value = torch.func.grad_and_value(LOSSES[name])(p, labels, mask, 3.0)
    assert_close(functional, gradient)
    assert value.item() == pytest.approx(LOSSES[name](p, labels, mask, 3.0).item())


@every_loss
def test_the_parts_of_a_batch_add_up_to_it(name: str) -> None:
    p, shares, rated = drawn(3)
    whole = LOSSES[name](p, shares, rated)
    parts = [slice(0, 4), slice(4, 6), slice(6, 6)]
    pieces = [LOSSES[name](p[part], shares[part], rated[part], rows=6.0) for part in parts]
    assert sum(pieces).item() == pytest.approx(whole.item(), rel=1e-12)


@every_loss
@pytest.mark.parametrize("rows", [None, 4.0])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_no_videos_lose_nothing(name: str, rows: float | None, dtype: torch.dtype) -> None:
    p = torch.zeros(0, 5, requires_grad=True)
    loss = LOSSES[name](p, torch.zeros(0, 5, dtype=dtype), torch.zeros(0, 5, dtype=torch.bool), rows)
    assert loss.item() == 0
    loss.backward()
    assert p.grad is not None


@pytest.mark.parametrize("loss", [LOSSES["CrossEntropyLoss"], LOSSES["HingeLoss"]])
def test_the_loss_of_a_mixture_is_the_mixture_of_losses(loss: LabelLoss) -> None:
    """So that learning s of one and 1 - s of the other label is learning either by chance."""
    p, shares, _ = drawn(4)
    first, second = (shares > 0.5).double(), (shares < 0.2).double()
    mixed = loss(p, 0.3 * first + 0.7 * second)
    assert mixed.item() == pytest.approx(0.3 * loss(p, first).item() + 0.7 * loss(p, second).item())


def test_cross_entropy_is_least_where_the_answer_is_the_share() -> None:
    share = torch.tensor([[0.2, 0.9]], dtype=torch.float64)
    least = cross_entropy_loss(share, share)
    for change in (-0.05, 0.05):
        assert cross_entropy_loss(share + change, share) > least


@every_loss
def test_sure_answers_are_finite(name: str) -> None:
    p = torch.tensor([[0.0, 1.0, 1.0, 0.0]], requires_grad=True)
    for labels in (torch.tensor([[True, False, True, False]]), torch.tensor([[0.5, 0.5, 1.0, 0.0]])):
        loss = LOSSES[name](p, labels)
        (gradient,) = torch.autograd.grad(loss, p)
        assert loss.isfinite()
        assert gradient.isfinite().all()
