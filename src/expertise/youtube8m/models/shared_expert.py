"""SharedExpertMoeModel: a linear gate over experts that share one hidden network.

After MoNN, the best single video-level model of the 2017 challenge (Skalic, Pekalski & Pan 2017,
arXiv:1706.04572): mixtures whose experts look at the features through hidden layers.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractVideoModel, Explanation, Pullback
from expertise.youtube8m.models._mixing import mix, mix_and_pullback
from expertise.youtube8m.models._mixture import Mixture, explanation
from expertise.youtube8m.models._seen import Seen


class SharedExpertMoeModel(AbstractVideoModel):
    """p_c = sum_{m < M} softmax(gate_c(x))_m sigmoid(expert_cm(u)), u = GELU(W x + b) for all classes.

    Gate and dummy are `MoeModel`'s. The experts are linear in U hidden values that all classes share, so that
    an answer need not be linear in the features, and classes with many videos teach those with few.

    Letters of shapes: B batch, D features, C classes, M mixtures, R rank, H what the gate and the hidden
    network look at: D, or R; U hidden values.

    Parameters
    ----------
    input_size, num_classes, num_mixtures : D, C and M.
    hidden_size : U.
    dropout : share of the hidden values that is set to 0 in training.
    rank, input_scale, l2 : as in `MoeModel`; the hidden network looks through the projection, too.
    """

    low_rank = True

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        num_mixtures: int = 2,
        *,
        hidden_size: int = 1024,
        rank: int = 0,
        input_scale: float = 1.0,
        dropout: float = 0.0,
        l2: float = 1e-8,
    ) -> None:
        super().__init__()
        self.input_size, self.num_classes, self.num_mixtures = input_size, num_classes, num_mixtures
        self.dropout = dropout
        self.seen = Seen(input_size, rank, input_scale)
        self.hidden = _Hidden(self.seen.size, hidden_size)
        self.mixture = Mixture(self.seen.size, hidden_size, num_classes, num_mixtures, l2)

    @classmethod
    def from_flags(cls, flags: ModelFlags, input_size: int, input_scale: float) -> Self:
        """Build the model that these flags describe."""
        options = flags.options
        return cls(
            input_size,
            flags.num_classes,
            options.moe_num_mixtures,
            hidden_size=options.shared_expert_size,
            rank=options.moe_rank,
            input_scale=input_scale,
            dropout=options.dropout,
            l2=options.moe_l2,
        )

    def projection(self) -> nn.Parameter | None:
        """The projection (R, D) of the features, where there is one."""
        return self.seen.projection_RD

    def logits(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Give the logits of the gate (B, M + 1, C) and of the experts (B, M, C)."""
        (x_BD,) = inputs
        seen_BH = self.seen(x_BD)
        hidden_BU = F.dropout(self.hidden(seen_BH), self.dropout, self.training)
        logits: tuple[Tensor, ...] = self.mixture(seen_BH, hidden_BU)
        return logits

    def pool(self, *logits: Tensor) -> Tensor:
        """Mix the experts' votes by the gate's weights; overwrites the logits."""
        gate_BGC, expert_BMC = logits
        return mix(gate_BGC, expert_BMC)

    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Do as `pool`, overwriting nothing, and give the map from dL/dp to dL/dlogits."""
        gate_BGC, expert_BMC = logits
        return mix_and_pullback(gate_BGC, expert_BMC)

    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew: gates and experts as `MoeModel`'s; ``scale`` is for these alone."""
        self.seen.reset(generator)
        self.hidden.reset(generator)
        self.mixture.reset(generator, self.input_size, len(self.hidden.bias_U), scale)

    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the experts' biases so that zeros, of which the hidden values are 0, are given ``rates_C``."""
        self.mixture.start_at_rates(rates_C)

    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the gate and expert weights with their L2 penalty."""
        return self.mixture.penalized()

    @torch.no_grad()
    def explain(self, *inputs: Tensor) -> Explanation:
        """Say who decided, for normalised features (B, D)."""
        gate_BGC, expert_BMC = self.logits(*inputs)
        return explanation(gate_BGC, expert_BMC)


class _Hidden(nn.Module):
    """U values of H, of known size whatever the size of the H is: GELU(W s + b), s the H values normalised.

    s and the result have a root mean square of about .2, the size that the stable recipe gives to what gates
    and experts look at, because Adam's equal steps move a product by as much as its inputs are large.
    """

    SIZE = 0.2
    GELU = 0.65  # root mean square of GELU of a standard normal value

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.size = size
        self.weight_UH = nn.Parameter(torch.zeros(hidden_size, size))
        self.bias_U = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, seen_BH: Tensor) -> Tensor:
        """Give the hidden values (B, U)."""
        seen_BH = seen_BH.float()
        mean_square_B1 = seen_BH.square().mean(dim=1, keepdim=True)
        sized_BH = seen_BH * (self.SIZE * torch.rsqrt(mean_square_B1.clamp_min(1e-12)))
        return F.gelu(F.linear(sized_BH, self.weight_UH, self.bias_U)) * (self.SIZE / self.GELU)

    def reset(self, generator: torch.Generator) -> None:
        """Draw the weights anew, normal, so that before GELU values are about 1; biases 0."""
        with torch.no_grad():
            self.weight_UH.normal_(0.0, 1.0 / (self.SIZE * self.size**0.5), generator=generator)
            self.bias_U.zero_()
