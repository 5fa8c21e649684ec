"""What every model is: a video-level one, and a frame-level one with a video-level one on top.

Letters of shapes: B batch, L frames, D features, F values of a video, C classes, M mixtures.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple, Protocol, Self, final

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


class Outputs(NamedTuple):
    """What a model gives in training."""

    logits: tuple[Tensor, ...]
    """What `AbstractModel.pool` makes probabilities of."""
    early: tuple[Tensor, ...] = ()
    """Probabilities (B, C) of earlier stages, which learn the labels too; see `early_weight`."""
    loss: Tensor | None = None
    """A loss of the model itself, a number: balance of experts."""


class Projection(NamedTuple):
    """What all classes look through, which the recipe starts from a ridge regression."""

    weight_RD: Tensor
    size: float
    """Root mean square of what it shall give for a video."""
    rotated: bool
    """Whether every row shall see all directions; otherwise each is one direction, the best one last."""


class AbstractModel(nn.Module, ABC):
    """From normalised inputs to probabilities (B, C).

    Video-level models take (x_BD,), frame-level models (x_BLD, lengths_B); see `l2_normalize`. Each parameter
    is one variable of the reference, so that a gradient is clipped variable by variable.
    """

    num_classes: int
    early_weight: float = 0.0
    """Factor on the label loss of `Outputs.early`."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Give the probability of every class, float32 (B, C)."""
        return self.pool(*self.logits(*inputs))

    def training_outputs(self, *inputs: Tensor) -> Outputs:
        """Give the logits, and what else is learned from."""
        return Outputs(self.logits(*inputs))

    @abstractmethod
    def logits(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Do the matrix products: everything whose weights are learned."""

    @abstractmethod
    def pool(self, *logits: Tensor) -> Tensor:
        """Make probabilities of the logits, element by element; may overwrite them."""

    @abstractmethod
    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Do as `pool`, overwriting nothing, and give the map from dL/dp to dL/dlogits, for `fuse`."""

    @abstractmethod
    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew. ``scale``: factor on those that give the class logits; biases 0."""

    @abstractmethod
    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the biases so that a zero input is given ``rates_C``, the share of videos of each class."""

    @abstractmethod
    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the parameters under an L2 penalty, with the penalty (weights, never biases)."""

    @abstractmethod
    def explain(self, *inputs: Tensor) -> Explanation:
        """Say who decided; a ValueError where the model has no experts."""


class AbstractVideoModel(AbstractModel):
    """From features (B, D) to probabilities (B, C)."""

    input_size: int
    low_rank: ClassVar[bool] = False
    """Whether the model may look at the features through a `projection` of --moe_rank values."""

    @classmethod
    @abstractmethod
    def from_flags(cls, flags: ModelFlags, input_size: int, input_scale: float) -> Self:
        """Build the model that these flags describe, its weights not yet drawn.

        ``input_size`` is D, ``input_scale`` a factor on the features. They are those of the flags, or of what
        a frame-level model gives.
        """

    def projection(self) -> Projection | None:
        """The projection that all classes look through, where there is one."""
        return None

    def projection_inputs(self, x_BD: Tensor) -> Tensor:
        """Give what the projection looks at, of normalised features."""
        return x_BD

    memory_size: int = 0
    """How many training videos the model remembers, beside what it learns; see `remember`."""

    def remember(self, videos: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Remember these videos, normalised features (B, D) and labels (B, C), for evaluation."""
        raise NotImplementedError(f"{type(self).__name__} remembers no videos")


class ClassifierOf(Protocol):
    """Builds the video-level model on top of a frame-level one."""

    def __call__(self, size: int, value_size: float, name: str = "") -> AbstractVideoModel:
        """Build it for ``size`` values whose root mean square is about ``value_size``.

        ``name`` is for a frame-level model that has a certain video-level one; "": that of the flags.
        """
        ...


class AbstractFrameModel(AbstractModel):
    """From frames (B, L, D) to values (B, F), and from these, by a video-level model, to answers (B, C).

    Frames are normalised one by one; padding frames are 0, and must not matter. A video may have no frame.
    """

    classifier: AbstractVideoModel

    @classmethod
    @abstractmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe, its weights not yet drawn.

        ``classifier_of(F, size)`` builds the video-level model for F values whose root mean square is about
        ``size``.
        """

    @abstractmethod
    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Make the values (B, F) of each video from its frames."""

    @abstractmethod
    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw the weights of `encode` anew."""

    @final
    def logits(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Encode the frames, and ask the video-level model."""
        x_BLD, lengths_B = inputs
        return self.classifier.logits(self.encode(x_BLD, lengths_B))

    def training_outputs(self, *inputs: Tensor) -> Outputs:
        """Give what the video-level model gives in training."""
        x_BLD, lengths_B = inputs
        return self.classifier.training_outputs(self.encode(x_BLD, lengths_B))

    @property
    def early_weight(self) -> float:  # type: ignore[override]
        """That of the video-level model."""
        return self.classifier.early_weight

    @final
    def pool(self, *logits: Tensor) -> Tensor:
        """Pool as the video-level model does."""
        return self.classifier.pool(*logits)

    @final
    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Pool as the video-level model does."""
        return self.classifier.pool_and_pullback(*logits)

    @final
    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew; ``scale`` is for the video-level model."""
        self.reset_encoder(generator)
        self.classifier.reset(generator, scale)

    @final
    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the biases of the video-level model."""
        self.classifier.start_at_rates(rates_C)

    @final
    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the penalised parameters of the video-level model; the reference penalises no others."""
        return self.classifier.penalized()

    @torch.no_grad()
    def explain(self, *inputs: Tensor) -> Explanation:
        """Say which experts of the video-level model decided."""
        x_BLD, lengths_B = inputs
        return self.classifier.explain(self.encode(x_BLD, lengths_B))


def l2_normalize(x: Tensor) -> Tensor:
    """Divide each row by its length: x / sqrt(max(sum x^2, 1e-12)), as tf.nn.l2_normalize.

    >>> l2_normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True).clamp_min(1e-12))


def glorot_uniform_(weight: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
    """Fill with U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)."""
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-limit, limit, generator=generator)
