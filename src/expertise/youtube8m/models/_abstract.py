"""What every video-level model is.

Letters of shapes: B batch, D features, C classes, M mixtures.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags

Pullback = Callable[[Tensor], tuple[Tensor, ...]]


class Explanation(NamedTuple):
    """Who decided, for each video and class: what the experts said and how far the gate trusted them."""

    probabilities: np.ndarray
    """(B, C) the pooled answer."""
    gate_weights: np.ndarray
    """(B, C, M + 1) the gate's weights, which sum to 1; the last is the dummy expert, which says 0."""
    expert_votes: np.ndarray
    """(B, C, M) the probability that each expert gives to the class."""


class AbstractVideoModel(nn.Module, ABC):
    """From normalised features (B, D) to probabilities (B, C).

    The input is expected to be l2-normalised already (`l2_normalize`). Each parameter is one variable of
    the reference, so that a gradient is clipped variable by variable.
    """

    input_size: int
    num_classes: int

    @classmethod
    @abstractmethod
    def from_flags(cls, flags: ModelFlags) -> Self:
        """Build the model that these flags describe, its weights not yet drawn."""

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give the probability of every class, float32 (B, C)."""
        return self.pool(*self.logits(x_BD))

    @abstractmethod
    def logits(self, x_BD: Tensor) -> tuple[Tensor, ...]:
        """Do the matrix products: everything whose weights are learned."""

    @abstractmethod
    def pool(self, *logits: Tensor) -> Tensor:
        """Make probabilities of the logits, element by element; may overwrite them."""

    @abstractmethod
    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Do as `pool`, overwriting nothing, and give the map from dL/dp to dL/dlogits, for `fuse`."""

    @abstractmethod
    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew: Glorot-uniform times ``scale``; biases 0."""

    @abstractmethod
    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the biases so that a zero input is given ``rates_C``, the share of videos of each class."""

    @abstractmethod
    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the parameters under an L2 penalty, with the penalty (weights, never biases)."""

    @abstractmethod
    def explain(self, x_BD: Tensor) -> Explanation:
        """Say who decided; a ValueError where the model has no experts."""


def l2_normalize(x_BD: Tensor) -> Tensor:
    """Divide each row by its length: x / sqrt(max(sum x^2, 1e-12)), as tf.nn.l2_normalize.

    >>> l2_normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return x_BD * torch.rsqrt(x_BD.square().sum(dim=-1, keepdim=True).clamp_min(1e-12))


def glorot_uniform_(weight: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
    """Fill with U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)."""
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-limit, limit, generator=generator)
