"""An exponential moving average of a model's weights: --ema_decay."""

import copy

import torch

from expertise.youtube8m.models import AbstractModel


class AveragedModel:
    """A model whose weights follow those of another one: w' = d w' + (1 - d) w after every step.

    The decay d begins small, min(decay, (1 + t) / (10 + t)) at step t, so that the first weights are soon
    forgotten (as tf.train.ExponentialMovingAverage with num_updates). Buffers, such as the moments of batch
    normalisation, are averages already, and are copied.
    """

    def __init__(self, model: AbstractModel, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, model: AbstractModel, step: int) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1.0 - decay)
        for buffer, other in zip(self.model.buffers(), model.buffers(), strict=True):
            if buffer.dtype == torch.float32:  # a memory of videos is filled by itself, and is large
                buffer.copy_(other)
