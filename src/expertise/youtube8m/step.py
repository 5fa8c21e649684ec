"""One step of training: predict, differentiate, penalise, clip variable by variable, update.

Letters of shapes: B batch, L frames, D features, C classes.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from expertise.youtube8m.flags import Flags
from expertise.youtube8m.loading import prepare
from expertise.youtube8m.losses import LabelLoss
from expertise.youtube8m.models import AbstractModel, Outputs
from expertise.youtube8m.optimizers import clip_each

Fused: TypeAlias = Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, Tensor, tuple[Tensor, ...]]]


@dataclass(frozen=True)
class Lesson:
    """What one step learns from, on the device.

    features, lengths : raw, see `prepare`.
    labels : (B, C) bool, or float32 where they are shares.
    rated : bool (B, C) or None, see losses.py.
    rows : what the sum of the losses is divided by: B, or a process's share of a batch of several.
    """

    features: Tensor
    lengths: Tensor | None
    labels: Tensor
    rated: Tensor | None
    rows: float


class TrainingNetwork(nn.Module):
    """All that is differentiated: from raw features to what the losses see. Several processes wrap it."""

    def __init__(self, model: AbstractModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, lengths: Tensor | None) -> Outputs:
        """Give the model's outputs in training."""
        return self.model.training_outputs(*prepare(features, lengths))


def train_step(
    flags: Flags,
    network: nn.Module,
    model: AbstractModel,
    optimizer: torch.optim.Optimizer,
    label_loss: LabelLoss,
    lesson: Lesson,
    rate: float,
    fused: Fused | None = None,
) -> tuple[Tensor, Tensor]:
    """Do one step.

    Parameters
    ----------
    network : a `TrainingNetwork` of ``model``, or its wrapper for several processes, which averages
        gradients.
    rate : the learning rate.
    fused : of `fuse`, for a whole lesson of bool labels; without it the element-wise part runs operation
        by operation.

    Returns
    -------
    The label loss before the step, and the predictions (B, C).
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(lesson.features.device.type, torch.bfloat16, enabled=flags.precision == "bf16"):
        outputs: Outputs = network(lesson.features, lesson.lengths)
    if fused is None:
        p_BC = model.pool(*outputs.logits)
        loss = label_loss(p_BC, lesson.labels, lesson.rated, lesson.rows)
        _whole_loss(model, label_loss, lesson, outputs, loss).backward()
    else:
        loss, p_BC, gradients = fused(tuple(logit.detach() for logit in outputs.logits), lesson.labels)
        roots: list[Tensor] = list(outputs.logits)
        seeds: list[Tensor | None] = list(gradients)
        if outputs.early or outputs.loss is not None:
            roots.append(_whole_loss(model, label_loss, lesson, outputs, loss.new_zeros(())))
            seeds.append(None)
        torch.autograd.backward(roots, seeds)
    for weight, l2 in model.penalized():
        # the gradient of penalty * l2 / 2 * sum w^2, by hand: autograd would make copies of w for it
        if weight.grad is not None and flags.regularization_penalty * l2 > 0:
            weight.grad.add_(weight.detach(), alpha=flags.regularization_penalty * l2)
    clip_each(model.parameters(), flags.clip_gradient_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.detach(), p_BC.detach()


def _whole_loss(
    model: AbstractModel, label_loss: LabelLoss, lesson: Lesson, outputs: Outputs, loss: Tensor
) -> Tensor:
    """Add to the label loss what else is learned: early predictions, and a loss of the model itself."""
    for early_BC in outputs.early:
        early = label_loss(early_BC, lesson.labels, lesson.rated, lesson.rows)
        loss = loss + model.early_weight * early
    return loss if outputs.loss is None else loss + outputs.loss


def fuse(model: AbstractModel, label_loss: LabelLoss) -> Fused:
    """Compile all that is element-wise, forward, loss and backward, into one loop over the logits.

    Returns
    -------
    A function of the logits and the labels that gives the loss, the predictions and the logits' gradients.
    It compiles when it is first called, and again for another shape.
    """

    def whole(logits: tuple[Tensor, ...], labels_BC: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        p_BC, pullback = model.pool_and_pullback(*logits)
        r_BC, loss = torch.func.grad_and_value(label_loss)(p_BC, labels_BC)
        return loss, p_BC, pullback(r_BC)

    return torch.compile(whole, dynamic=False)


def compiler_found(device: torch.device) -> bool:
    """Tell whether torch.compile can work here: on the CPU it needs a C++ compiler."""
    return device.type != "cpu" or shutil.which(os.environ.get("CXX", "g++")) is not None
