"""NeXtVladModel: NetVLAD over groups of a widened frame (Lin, Xiao & Fan 2018, arXiv:1811.05014)."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import (
    AbstractFrameModel,
    AbstractVideoModel,
    ClassifierOf,
    l2_normalize,
)
from expertise.youtube8m.models._batch_norm import BatchNorm, at_least_float32
from expertise.youtube8m.models._frame_sums import variance_scaled_

VALUE_SIZE = 0.54  # root mean square of h sigmoid(g) for standard normal h and g


class NeXtVladModel(AbstractFrameModel):
    """V_k = sum over frames and groups of u_g a_gk (x_g - c_k); then a gated hidden layer.

    A frame is widened, y = x E + e, and divided into groups x_g of N values. Attention to a group is u =
    sigmoid(y U + b), its assignment a_g = softmax over the clusters of BN(y A)_g. V_k is divided by its
    length and normalised over the batch. The values are h sigmoid(ReLU(BN(h P)) Q), h = BN(V H): the SE
    context gate, narrow inside (the paper's sections 3.2 and 3.3, and its authors' code). They have one
    VLAD for rgb and one for audio, and dropout on V; here is one VLAD over all features, and ``dropout`` is
    the video-level model's.

    Letters of shapes: B batch, L frames, D features, E widened size, G groups, N = E / G values of a group,
    K clusters, H hidden units, R inside of the gate.

    Parameters
    ----------
    classifier : the video-level model of H values.
    input_size, cluster_size, hidden_size : D, K and H.
    expansion : E / D.
    groups : G, which must divide E.
    reduction : H / R, rounded up; at most H.
    """

    def __init__(
        self,
        classifier: AbstractVideoModel,
        input_size: int,
        *,
        cluster_size: int = 128,
        groups: int = 8,
        expansion: int = 2,
        hidden_size: int = 1024,
        reduction: int = 8,
    ) -> None:
        super().__init__()
        self.classifier, self.num_classes = classifier, classifier.num_classes
        self.groups, self.cluster_size = groups, cluster_size
        wide, narrow = expansion * input_size, hidden_size // reduction
        vlad_size = cluster_size * (wide // groups)
        self.widen_ED = nn.Parameter(torch.zeros(wide, input_size))
        self.widen_bias_E = nn.Parameter(torch.zeros(wide))
        self.attention_GE = nn.Parameter(torch.zeros(groups, wide))
        self.attention_bias_G = nn.Parameter(torch.zeros(groups))
        self.assign_AE = nn.Parameter(torch.zeros(groups * cluster_size, wide))  # A = G K
        self.assign_norm = BatchNorm(groups * cluster_size)
        self.center_KN = nn.Parameter(torch.zeros(cluster_size, wide // groups))
        self.vlad_norm = BatchNorm(vlad_size)
        self.hidden_HV = nn.Parameter(torch.zeros(hidden_size, vlad_size))
        self.hidden_norm = BatchNorm(hidden_size)
        self.narrow_RH = nn.Parameter(torch.zeros(narrow, hidden_size))
        self.narrow_norm = BatchNorm(narrow)
        self.gate_HR = nn.Parameter(torch.zeros(hidden_size, narrow))

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe.

        Raises
        ------
        FlagError : the groups do not divide the widened size, or the gate would have nothing inside.
        """
        options, wide = flags.options, flags.options.nextvlad_expansion * flags.input_size
        if wide % options.nextvlad_groups:
            raise FlagError(
                f"--nextvlad_groups={options.nextvlad_groups} does not divide the widened size {wide}, "
                f"--nextvlad_expansion={options.nextvlad_expansion} times {flags.input_size} features; "
                f"the nearest that do are {_nearest_divisors(wide, options.nextvlad_groups)}"
            )
        if options.nextvlad_reduction > options.nextvlad_hidden_size:
            raise FlagError(
                f"--nextvlad_reduction={options.nextvlad_reduction} leaves nothing of "
                f"--nextvlad_hidden_size={options.nextvlad_hidden_size}; it must not be larger"
            )
        return cls(
            classifier_of(options.nextvlad_hidden_size, VALUE_SIZE),
            flags.input_size,
            cluster_size=options.nextvlad_cluster_size,
            groups=options.nextvlad_groups,
            expansion=options.nextvlad_expansion,
            hidden_size=options.nextvlad_hidden_size,
            reduction=options.nextvlad_reduction,
        )

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give the gated hidden units (B, H)."""
        vlad_BV = self.vlad_norm(l2_normalize(self._vlad(x_BLD, lengths_B)).flatten(1))
        hidden_BH = self.hidden_norm(F.linear(vlad_BV, self.hidden_HV))
        inside_BR = F.relu(self.narrow_norm(F.linear(hidden_BH, self.narrow_RH)))
        gated_BH: Tensor = hidden_BH * torch.sigmoid(at_least_float32(F.linear(inside_BR, self.gate_HR)))
        return gated_BH

    def _vlad(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give V (B, K, N), not yet normalised; 0 for a video without a frame."""
        keep_BL = frame_mask(lengths_B, x_BLD.shape[1])
        y_BLE = F.linear(x_BLD, self.widen_ED, self.widen_bias_E)
        logits_BLA = self._from_widened(x_BLD, y_BLE)
        # u a, a row for each frame and group
        a_BLGK = torch.softmax(
            self.assign_norm(logits_BLA, keep_BL).unflatten(-1, (self.groups, self.cluster_size)), dim=-1
        )
        a_BMK = (a_BLGK * self._attention(x_BLD, keep_BL).unsqueeze(-1)).flatten(1, 2)
        groups_BMN = y_BLE.unflatten(-1, (self.groups, -1)).flatten(1, 2)
        sums_BK1 = a_BMK.sum(dim=1).unsqueeze(-1)
        return torch.bmm(a_BMK.transpose(1, 2), groups_BMN) - sums_BK1 * self.center_KN

    def _attention(self, x_BLD: Tensor, keep_BL: Tensor) -> Tensor:
        """Give u, 0 for padding (B, L, G)."""
        weight_GD = self.attention_GE @ self.widen_ED
        bias_G = self.attention_GE @ self.widen_bias_E + self.attention_bias_G
        u_BLG = torch.sigmoid(at_least_float32(F.linear(x_BLD, weight_GD, bias_G)))
        return u_BLG * keep_BL.unsqueeze(-1)

    def _from_widened(self, x_BLD: Tensor, y_BLE: Tensor) -> Tensor:
        """Give y A (B, L, A); for many frames in training as x (E A) + e A, which is cheaper.

        Both are the same map. The first takes, forward and backward, 3 E multiplications for each frame and
        number of the result, the second 2 D, and 3 E D for the product of the weights.
        """
        B, L, D = x_BLD.shape
        E = y_BLE.shape[2]
        if not self.training or B * L * (3 * E - 2 * D) <= 3 * E * D:
            return F.linear(y_BLE, self.assign_AE)
        return F.linear(x_BLD, self.assign_AE @ self.widen_ED, self.assign_AE @ self.widen_bias_E)

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw the weights anew, of variance 2 / inputs as the authors do; biases 0."""
        weights = (
            self.widen_ED,
            self.attention_GE,
            self.assign_AE,
            self.hidden_HV,
            self.narrow_RH,
            self.gate_HR,
        )
        for weight in weights:
            variance_scaled_(weight, weight.shape[1], generator)
        variance_scaled_(self.center_KN, self.center_KN.shape[1], generator)
        for norm in (self.assign_norm, self.vlad_norm, self.hidden_norm, self.narrow_norm):
            norm.reset()
        with torch.no_grad():
            self.widen_bias_E.zero_()
            self.attention_bias_G.zero_()


def _nearest_divisors(number: int, near: int) -> str:
    """List the divisors of a number just under and just over another.

    >>> _nearest_divisors(16, 3), _nearest_divisors(16, 20)
    ('2 and 4', '16')
    """
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    under = [d for d in divisors if d < near][-1:]
    over = [d for d in divisors if d > near][:1]
    return " and ".join(map(str, under + over))
