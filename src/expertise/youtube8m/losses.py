"""The label losses: probabilities (B, C) and labels (B, C) to one number, the mean over the batch."""

from collections.abc import Callable

import torch
from torch import Tensor

_EPSILON = 1e-5  # of the reference's CrossEntropyLoss


def cross_entropy_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """-sum_c [y log(p + 1e-5) + (1 - y) log(1 - p + 1e-5)], mean over the batch.

    >>> round(cross_entropy_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])).item(), 4)
    1.3863
    """
    said = torch.where(labels, probabilities, 1.0 - probabilities)
    return -(said + _EPSILON).log().sum() / labels.shape[0]


def hinge_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """sum_c max(0, 1 - (2 y - 1) p), mean over the batch.

    >>> hinge_loss(torch.tensor([[0.75, 0.5]]), torch.tensor([[True, False]])).item()
    1.75
    """
    signed = torch.where(labels, probabilities, -probabilities)
    return (1.0 - signed).clamp_min(0.0).sum() / labels.shape[0]


def softmax_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Labels, normalised to sum 1, against log softmax of the predictions; mean over the batch.

    A video without labels counts 0.

    >>> round(softmax_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]])).item(), 4)
    0.6931
    """
    target = labels / labels.sum(dim=1, keepdim=True).clamp_min(1)
    return -(target * torch.log_softmax(probabilities, dim=1)).sum() / labels.shape[0]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "CrossEntropyLoss": cross_entropy_loss,
    "HingeLoss": hinge_loss,
    "SoftmaxLoss": softmax_loss,
}
