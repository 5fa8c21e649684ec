"""NetVladModel: how frames differ from learned clusters (Arandjelovic et al. 2016, arXiv:1511.07247)."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractFrameModel, AbstractVideoModel, ClassifierOf
from expertise.youtube8m.models._batch_norm import BatchNorm
from expertise.youtube8m.models._frame_sums import normal_, normalize_clusters

VALUE_SIZE = 0.54  # root mean square of h sigmoid(g) for standard normal h and g


class NetVladModel(AbstractFrameModel):
    """V_k = sum over the frames of a_k (x - c_k), a = softmax(BN(x A)); then a gated hidden layer.

    x are the frames after batch normalisation. V_k is divided by its length, then all of V by its own; the
    values are h sigmoid(BN(h G)), h = BN(V H) (Arandjelovic et al. 2016, eqs. 3 and 4; the batch
    normalisations and the gate as in Miech, Laptev & Sivic 2017, arXiv:1706.06905, and their code). They
    have one VLAD for rgb and one for audio; here is one over all features, whatever these are.

    Letters of shapes: B batch, L frames, D features, K clusters, H hidden units.

    Parameters
    ----------
    classifier : the video-level model of H values.
    input_size, cluster_size, hidden_size : D, K and H.

    The batch normalisation x = z s + t of a frame is put into the weights: z A' with A' = s A, and
    V_k = s sum a_k z - (sum a_k) (c_k - t). So nothing is learned in front of the two products over the
    frames, and neither needs a gradient of (B, L, D).
    """

    def __init__(
        self,
        classifier: AbstractVideoModel,
        input_size: int,
        *,
        cluster_size: int = 256,
        hidden_size: int = 1024,
    ) -> None:
        super().__init__()
        self.classifier, self.num_classes = classifier, classifier.num_classes
        self.input_norm = BatchNorm(input_size)
        self.assign_KD = nn.Parameter(torch.zeros(cluster_size, input_size))
        self.assign_norm = BatchNorm(cluster_size)
        self.center_KD = nn.Parameter(torch.zeros(cluster_size, input_size))
        self.hidden_HV = nn.Parameter(torch.zeros(hidden_size, cluster_size * input_size))
        self.hidden_norm = BatchNorm(hidden_size)
        self.gate_HH = nn.Parameter(torch.zeros(hidden_size, hidden_size))
        self.gate_norm = BatchNorm(hidden_size)

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe."""
        options = flags.options
        return cls(
            classifier_of(options.netvlad_hidden_size, VALUE_SIZE),
            flags.input_size,
            cluster_size=options.netvlad_cluster_size,
            hidden_size=options.netvlad_hidden_size,
        )

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give the gated hidden units (B, H)."""
        vlad_BKD = normalize_clusters(self._vlad(x_BLD, lengths_B))
        hidden_BH = self.hidden_norm(F.linear(vlad_BKD.flatten(1), self.hidden_HV))
        gate_BH = torch.sigmoid(self.gate_norm(F.linear(hidden_BH, self.gate_HH)))
        gated_BH: Tensor = hidden_BH * gate_BH
        return gated_BH

    def _vlad(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give V (B, K, D), not yet normalised; 0 for a video without a frame."""
        keep_BL = frame_mask(lengths_B, x_BLD.shape[1])
        scale_D, shift_D = self.input_norm.scale_and_shift(*self.input_norm.moments(x_BLD, keep_BL))
        with torch.autocast(x_BLD.device.type, enabled=False):
            bias_K = self.assign_KD @ shift_D
        logits_BLK = F.linear(x_BLD, self.assign_KD * scale_D, bias_K)
        a_BLK = torch.softmax(self.assign_norm(logits_BLK, keep_BL), dim=-1) * keep_BL.unsqueeze(-1)
        products_BKD = torch.bmm(a_BLK.transpose(1, 2), x_BLD)
        residuals_BKD = a_BLK.sum(dim=1).unsqueeze(-1) * (shift_D - self.center_KD)
        return torch.addcmul(residuals_BKD, products_BKD, scale_D)

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw the weights anew: N(0, 1 / D) for the clusters, N(0, 1 / K) and N(0, 1 / H) behind them."""
        K, D = self.assign_KD.shape
        normal_(self.assign_KD, 1.0 / math.sqrt(D), generator)
        normal_(self.center_KD, 1.0 / math.sqrt(D), generator)
        normal_(self.hidden_HV, 1.0 / math.sqrt(K), generator)
        normal_(self.gate_HH, 1.0 / math.sqrt(len(self.gate_HH)), generator)
        for norm in (self.input_norm, self.assign_norm, self.hidden_norm, self.gate_norm):
            norm.reset()
