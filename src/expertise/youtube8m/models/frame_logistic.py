"""FrameLevelLogisticModel: logistic regression on the mean frame. The reference's model of this name."""

import math
from typing import Self

import torch
from torch import Tensor

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractFrameModel, AbstractVideoModel, ClassifierOf


class FrameLevelLogisticModel(AbstractFrameModel):
    """p = sigmoid(m W + b), m the mean of a video's frames, with L2 1e-8 on W.

    Letters of shapes: B batch, L frames, D features.

    Parameters
    ----------
    classifier : a LogisticModel of D features. It is one whatever ``video_level_classifier_model`` says: the
        reference's model does not read that flag.
    """

    def __init__(self, classifier: AbstractVideoModel) -> None:
        super().__init__()
        self.classifier = classifier
        self.num_classes = classifier.num_classes

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe.

        Frames have length 1, so a value of their mean is about 1 / sqrt(D).
        """
        size = flags.input_size
        return cls(classifier_of(size, 1.0 / math.sqrt(size), "LogisticModel"))

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give the mean frame of each video (B, D): the sum over the number; 0 where there is none."""
        counts_B1 = lengths_B.clamp_min(1).unsqueeze(1)
        sums_BD = x_BLD.sum(dim=1, dtype=torch.promote_types(x_BLD.dtype, torch.float32))
        return sums_BD / counts_B1

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw nothing: a mean has no weights."""
