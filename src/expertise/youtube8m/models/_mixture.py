"""A mixture of logistic experts for every class, as a part of a model: MoeModel's gates and experts.

Letters of shapes: B batch, C classes, M mixtures, G = M + 1 gates, H what the gates look at, U what the
experts look at.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.models._abstract import Explanation, glorot_uniform_
from expertise.youtube8m.models._mixing import gate_and_votes, mix, mix_and_pullback


class Mixture(nn.Module):
    """Gates without bias, the last of them the dummy's, and experts with one; see `MoeModel`.

    Parameters
    ----------
    gate_size, expert_size : H and U.
    num_classes, num_mixtures : C and M.
    l2 : penalty of the weights.
    """

    def __init__(
        self, gate_size: int, expert_size: int, num_classes: int, num_mixtures: int, l2: float
    ) -> None:
        super().__init__()
        self.l2 = l2
        self.gate_GCH = nn.Parameter(torch.zeros(num_mixtures + 1, num_classes, gate_size))
        self.expert_MCU = nn.Parameter(torch.zeros(num_mixtures, num_classes, expert_size))
        self.expert_bias_MC = nn.Parameter(torch.zeros(num_mixtures, num_classes))

    def forward(self, gate_BH: Tensor, expert_BU: Tensor) -> tuple[Tensor, Tensor]:
        """Give the logits of the gate (B, M + 1, C) and of the experts (B, M, C)."""
        gate = F.linear(gate_BH, self.gate_GCH.flatten(0, 1))
        expert = F.linear(expert_BU, self.expert_MCU.flatten(0, 1), self.expert_bias_MC.flatten())
        return gate.unflatten(1, self.gate_GCH.shape[:2]), expert.unflatten(1, self.expert_MCU.shape[:2])

    def reset(self, generator: torch.Generator, gate_inputs: int, expert_inputs: int, scale: float) -> None:
        """Draw the weights anew: Glorot-uniform, as for so many inputs, times ``scale``; biases 0."""
        with torch.no_grad():
            for weight, inputs in ((self.gate_GCH, gate_inputs), (self.expert_MCU, expert_inputs)):
                glorot_uniform_(weight, inputs, weight.shape[0] * weight.shape[1], generator)
                weight.mul_(scale)
            self.expert_bias_MC.zero_()

    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the experts' biases so that zeros are given ``rates_C``.

        There the gate gives each expert 1 / (M + 1), so an expert must say rate (M + 1) / M.
        """
        G, M = len(self.gate_GCH), len(self.expert_MCU)
        with torch.no_grad():
            self.expert_bias_MC.copy_(torch.logit((rates_C * G / M).clamp(max=0.99)))

    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the weights with their L2 penalty."""
        return [(self.gate_GCH, self.l2), (self.expert_MCU, self.l2)]


def pooled(gate_BGC: Tensor, expert_BMC: Tensor) -> Tensor:
    """Pool inside a model as `mix`, which overwrites the logits; an exporter gets a form without its loop."""
    if torch.compiler.is_exporting():
        return mix_and_pullback(gate_BGC, expert_BMC)[0]
    return mix(gate_BGC, expert_BMC)


def explanation(gate_BGC: Tensor, expert_BMC: Tensor, factor_BC: Tensor | None = None) -> Explanation:
    """Say who decided. ``factor_BC`` multiplies the votes, where the model multiplies its answer by it."""
    gate_BGC, vote_BMC = gate_and_votes(gate_BGC, expert_BMC)
    if factor_BC is not None:
        vote_BMC = vote_BMC * factor_BC.unsqueeze(1)
    return Explanation(
        probabilities=(gate_BGC[:, :-1] * vote_BMC).sum(dim=1).cpu().numpy(),
        gate_weights=gate_BGC.transpose(1, 2).cpu().numpy(),
        expert_votes=vote_BMC.transpose(1, 2).cpu().numpy(),
    )
