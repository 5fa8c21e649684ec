"""FrameMomentsModel: mean and standard deviation of each feature over the frames."""

import math
from typing import Self

import torch
from torch import Tensor

from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractFrameModel, AbstractVideoModel, ClassifierOf
from expertise.youtube8m.models._batch_norm import BatchNorm


class FrameMomentsModel(AbstractFrameModel):
    """Mean and standard deviation of each feature over a video's frames, and a video-level model on them.

    They stand side by side, batch-normalised. The deviation is that of the frames there are (divided by n):
    one frame has 0, no frame has 0 for both. The best single video-level model of 2017 looked at these
    (Skalic, Pekalski & Pan 2017, arXiv:1706.04572).

    Letters of shapes: B batch, L frames, D features.

    Parameters
    ----------
    input_size : D. Features are scaled by sqrt(D), to about 1.
    classifier : a video-level model of 2 D values, the means first.
    """

    def __init__(self, input_size: int, classifier: AbstractVideoModel) -> None:
        super().__init__()
        self.num_classes, self.input_scale = classifier.num_classes, math.sqrt(input_size)
        self.norm = BatchNorm(2 * input_size)
        self.classifier = classifier

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe."""
        return cls(flags.input_size, classifier_of(2 * flags.input_size, 1.0))

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give means and deviations, normalised, (B, 2 D)."""
        moments_BF = torch.cat(frame_moments(x_BLD, lengths_B), dim=1)
        normed_BF: Tensor = self.norm(moments_BF * self.input_scale)
        return normed_BF

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Start batch normalisation anew; nothing is drawn."""
        self.norm.reset()


def frame_moments(x_BLD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and standard deviation over the real frames, (B, D) each; padding frames must be 0.

    Where a deviation is 0, so is its gradient.

    >>> mean_BD, deviation_BD = frame_moments(torch.tensor([[[1.0], [3.0], [0.0]]]), torch.tensor([2]))
    >>> mean_BD.tolist(), deviation_BD.tolist()
    ([[2.0]], [[1.0]])
    """
    count_B1 = lengths_B.clamp(min=1).unsqueeze(1).to(x_BLD.dtype)
    mean_BD = x_BLD.sum(dim=1) / count_B1
    mask_BL1 = frame_mask(lengths_B, x_BLD.shape[1]).unsqueeze(2)
    # a second pass: mean x^2 - mean^2 loses digits. At 0 the gradient of a norm is 0, that of sqrt is not
    centred_BLD = x_BLD - mean_BD.unsqueeze(1) * mask_BL1
    return mean_BD, torch.linalg.vector_norm(centred_BLD, dim=1) / count_B1.sqrt()
