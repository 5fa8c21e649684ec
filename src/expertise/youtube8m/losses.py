"""The label losses: probabilities (B, C) and labels (B, C) to one number, the mean over the batch.

Labels are bool, or numbers from 0 to 1: shares, of a mixture of videos or said by a teacher. ``rated``, bool
(B, C), leaves out labels that nobody has rated. ``rows`` is what the sum over the videos is divided by: B
unless given; a process that has a part of a batch gives its share of the whole.
"""

from typing import Protocol

import torch
from torch import Tensor

_EPSILON = 1e-5  # of the reference's CrossEntropyLoss


class LabelLoss(Protocol):
    """What every label loss is."""

    def __call__(
        self, probabilities: Tensor, labels: Tensor, rated: Tensor | None = None, rows: float | None = None
    ) -> Tensor:
        """Give the loss."""


def cross_entropy_loss(
    probabilities: Tensor, labels: Tensor, rated: Tensor | None = None, rows: float | None = None
) -> Tensor:
    """-sum_c [y log(p + 1e-5) + (1 - y) log(1 - p + 1e-5)], mean over the batch.

    >>> round(cross_entropy_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])).item(), 4)
    1.3863
    """
    if labels.dtype == torch.bool:
        log_said = (torch.where(labels, probabilities, 1.0 - probabilities) + _EPSILON).log()
    else:
        log_yes, log_no = (probabilities + _EPSILON).log(), (1.0 - probabilities + _EPSILON).log()
        log_said = torch.lerp(log_no, log_yes, labels)
    return -_mean(log_said, rated, rows)


def hinge_loss(
    probabilities: Tensor, labels: Tensor, rated: Tensor | None = None, rows: float | None = None
) -> Tensor:
    """sum_c max(0, 1 - (2 y - 1) p), mean over the batch.

    >>> hinge_loss(torch.tensor([[0.75, 0.5]]), torch.tensor([[True, False]])).item()
    1.75
    """
    if labels.dtype == torch.bool:
        signed = torch.where(labels, probabilities, -probabilities)
    else:
        signed = (2.0 * labels - 1.0) * probabilities
    return _mean((1.0 - signed).clamp_min(0.0), rated, rows)


def softmax_loss(
    probabilities: Tensor, labels: Tensor, rated: Tensor | None = None, rows: float | None = None
) -> Tensor:
    """Labels, normalised to sum 1, against log softmax of the predictions; mean over the batch.

    A video without labels counts 0. Where labels are unrated, both are over the rated ones.

    >>> round(softmax_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])).item(), 4)
    0.6931
    """
    shares = labels.float()
    if rated is not None:
        shares = shares * rated
        probabilities = probabilities.masked_fill(~rated, -1e9)  # their share of the softmax is 0
    target = shares / shares.sum(dim=1, keepdim=True).clamp_min(1e-12)
    return -_mean(target * torch.log_softmax(probabilities, dim=1), None, rows)


def _mean(values_BC: Tensor, rated: Tensor | None, rows: float | None) -> Tensor:
    """Sum over what is rated, divided by the rows; no videos at all give 0."""
    total = values_BC.sum() if rated is None else (values_BC * rated).sum()
    return total / (max(len(values_BC), 1) if rows is None else rows)


LOSSES: dict[str, LabelLoss] = {
    "CrossEntropyLoss": cross_entropy_loss,
    "HingeLoss": hinge_loss,
    "SoftmaxLoss": softmax_loss,
}
