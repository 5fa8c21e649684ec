"""AttentionModel: weighted means of the frames, whose weights a small network learns."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import (
    AbstractFrameModel,
    AbstractVideoModel,
    ClassifierOf,
    glorot_uniform_,
)
from expertise.youtube8m.models._batch_norm import BatchNorm


class AttentionModel(AbstractFrameModel):
    """Weighted means of a video's frames side by side, batch-normalised, and a video-level model on them.

    Head a gives frame l the weight

        softmax over the real frames of  w_a' (tanh(V x_l + b) * sigmoid(U x_l + c)),

    the gated attention of Ilse et al. 2018 (arXiv:1802.04712, eq. 9); the heads share V and U. A video
    without frames has weights 0, and means of 0.

    Letters of shapes: B batch, L frames, D features, A heads, S hidden units.

    Parameters
    ----------
    input_size : D. Features are scaled by sqrt(D), to about 1.
    heads, size : A and S.
    classifier : a video-level model of A D values, the heads' means one after the other.
    """

    def __init__(self, input_size: int, heads: int, size: int, classifier: AbstractVideoModel) -> None:
        super().__init__()
        self.num_classes, self.input_scale = classifier.num_classes, math.sqrt(input_size)
        self.hidden_SD = nn.Parameter(torch.zeros(size, input_size))
        self.hidden_bias_S = nn.Parameter(torch.zeros(size))
        self.gate_SD = nn.Parameter(torch.zeros(size, input_size))
        self.gate_bias_S = nn.Parameter(torch.zeros(size))
        self.heads_AS = nn.Parameter(torch.zeros(heads, size))
        self.norm = BatchNorm(heads * input_size)
        self.classifier = classifier

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe."""
        D, A = flags.input_size, flags.options.attention_heads
        return cls(D, A, flags.options.attention_size, classifier_of(A * D, 1.0))

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give the heads' means, normalised, (B, A D)."""
        mean_BAD = _weighted_sums(self.frame_weights(x_BLD, lengths_B), x_BLD) * self.input_scale
        normed_BF: Tensor = self.norm(mean_BAD.flatten(1))
        return normed_BF

    def frame_weights(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Say how far each head looks at each frame: (B, A, L) of the type of the frames, 0 for padding.

        A head's weights of a video sum to 1. The frames are normalised ones, see `prepare`.
        """
        # scaling the weights is scaling the features, which are more
        hidden_BLS = F.linear(x_BLD, self.hidden_SD * self.input_scale, self.hidden_bias_S).tanh()
        gate_BLS = F.linear(x_BLD, self.gate_SD * self.input_scale, self.gate_bias_S).sigmoid()
        logit_BAL = F.linear(hidden_BLS * gate_BLS, self.heads_AS).to(x_BLD.dtype).transpose(1, 2)
        mask_B1L = frame_mask(lengths_B, x_BLD.shape[1]).unsqueeze(1)
        # a finite number: a row of -inf alone would have no softmax
        lowest = torch.finfo(logit_BAL.dtype).min
        return logit_BAL.masked_fill(~mask_B1L, lowest).softmax(dim=2) * mask_B1L

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw the weights Glorot-uniform; biases 0, batch normalisation as new."""
        for weight in (self.hidden_SD, self.gate_SD, self.heads_AS):
            glorot_uniform_(weight, weight.shape[1], weight.shape[0], generator)
        with torch.no_grad():
            self.hidden_bias_S.zero_()
            self.gate_bias_S.zero_()
        self.norm.reset()


def _weighted_sums(weights_BAL: Tensor, x_BLD: Tensor) -> Tensor:
    """Sum the frames by their weights, (B, A, D), in the type of the frames also under autocast."""
    if not torch.is_autocast_enabled(x_BLD.device.type):
        return weights_BAL @ x_BLD
    with torch.autocast(x_BLD.device.type, enabled=False):
        return weights_BAL @ x_BLD
