"""One step of training: predict, differentiate, penalise, clip variable by variable, update."""

import os
import shutil
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from expertise.youtube8m.flags import Flags
from expertise.youtube8m.loading import Classifier
from expertise.youtube8m.models import AbstractVideoModel, l2_normalize
from expertise.youtube8m.optimizers import clip_each

LabelLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Fused: TypeAlias = Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, Tensor, tuple[Tensor, ...]]]


def train_step(
    flags: Flags,
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    label_loss: LabelLoss,
    features_BD: Tensor,
    labels_BC: Tensor,
    rate: float,
    fused: Fused | None = None,
) -> tuple[Tensor, Tensor]:
    """Do one step.

    Parameters
    ----------
    features_BD, labels_BC : raw features, float32; labels, bool.
    rate : the learning rate.
    fused : of `fuse`; without it the element-wise part runs operation by operation.

    Returns
    -------
    The label loss before the step, and the predictions (B, C).
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(features_BD.device.type, torch.bfloat16, enabled=flags.precision == "bf16"):
        if fused is None:
            p_BC = classifier(features_BD)
        else:
            logits = classifier.model.logits(l2_normalize(features_BD))
    if fused is None:
        loss = label_loss(p_BC, labels_BC)
        loss.backward()
    else:
        loss, p_BC, gradients = fused(tuple(logit.detach() for logit in logits), labels_BC)
        torch.autograd.backward(logits, gradients)
    for weight, l2 in classifier.model.penalized():
        # the gradient of penalty * l2 / 2 * sum w^2, by hand: autograd would make copies of w for it
        if weight.grad is not None and flags.regularization_penalty * l2 > 0:
            weight.grad.add_(weight.detach(), alpha=flags.regularization_penalty * l2)
    clip_each(classifier.parameters(), flags.clip_gradient_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.detach(), p_BC.detach()


def fuse(model: AbstractVideoModel, label_loss: LabelLoss) -> Fused:
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
