"""ContextGatedMoeModel: MoeModel between two context gates (Miech, Laptev & Sivic 2017, arXiv:1706.06905)."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractVideoModel, Explanation, Projection, Pullback
from expertise.youtube8m.models._batch_norm import BatchNorm
from expertise.youtube8m.models._mixture import Mixture, explanation, pooled
from expertise.youtube8m.models._seen import Seen

OPEN = 3.0  # shift of an open gate: sigmoid(3) = .95


class ContextGatedMoeModel(AbstractVideoModel):
    """p = q * sigmoid(BN(q V)), q = MoE(x * sigmoid(BN(x W))): what else is there opens or closes a value.

    Both gates, on the features and on the probabilities q, are the paper's context gating (section 3.3), with
    batch normalisation in the place of the bias, as in its authors' code. Between them is a mixture as
    `MoeModel`'s.

    Letters of shapes: B batch, D features, C classes, M mixtures, R rank of the mixture, K rank of the gates.

    Parameters
    ----------
    input_size, num_classes, num_mixtures : D, C and M.
    gating_rank : K, the rank of W and V; 0: full weights (V alone then has C C numbers).
    rank, input_scale, dropout, l2 : as in `MoeModel`.
    """

    low_rank = True

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        num_mixtures: int = 2,
        *,
        gating_rank: int = 128,
        rank: int = 0,
        input_scale: float = 1.0,
        dropout: float = 0.0,
        l2: float = 1e-8,
    ) -> None:
        super().__init__()
        self.input_size, self.num_classes, self.num_mixtures = input_size, num_classes, num_mixtures
        self.dropout = dropout
        self.input_gate = _ContextGate(input_size, gating_rank)
        self.seen = Seen(input_size, rank, input_scale)
        self.mixture = Mixture(self.seen.size, self.seen.size, num_classes, num_mixtures, l2)
        self.output_gate = _ContextGate(num_classes, gating_rank)

    @classmethod
    def from_flags(cls, flags: ModelFlags, input_size: int, input_scale: float) -> Self:
        """Build the model that these flags describe."""
        options = flags.options
        return cls(
            input_size,
            flags.num_classes,
            options.moe_num_mixtures,
            gating_rank=options.context_gating_rank,
            rank=options.moe_rank,
            input_scale=input_scale,
            dropout=options.dropout,
            l2=options.moe_l2,
        )

    def projection(self) -> Projection | None:
        """The projection (R, D) of the features, where there is one."""
        return self.seen.projection()

    def projection_inputs(self, x_BD: Tensor) -> Tensor:
        """Give the features, scaled."""
        return x_BD * self.seen.input_scale

    def logits(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Give the mixture's probabilities (B, C) and the logits of the gate on them (B, C)."""
        mixed_BC = pooled(*self._mixture_logits(*inputs))
        return mixed_BC, self.output_gate(mixed_BC)

    def pool(self, *logits: Tensor) -> Tensor:
        """Multiply the mixture's probabilities by their gate."""
        mixed_BC, gate_BC = logits
        return mixed_BC * torch.sigmoid(gate_BC)

    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Do as `pool`, and give its derivatives s and q s (1 - s), s = sigmoid(gate)."""
        mixed_BC, gate_BC = logits
        s_BC = torch.sigmoid(gate_BC)
        p_BC = mixed_BC * s_BC
        return p_BC, lambda r_BC: (r_BC * s_BC, r_BC * p_BC * (1.0 - s_BC))

    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew: the mixture's as `MoeModel`'s, the gates' as they are at any ``scale``."""
        self.input_gate.reset(generator)
        self.seen.reset(generator)
        self.mixture.reset(generator, self.input_size, self.input_size, scale)
        self.output_gate.reset(generator)

    def start_at_rates(self, rates_C: Tensor) -> None:
        """Open both gates, so that training starts from a MoeModel, which gives zeros ``rates_C``.

        The mixture says a little more, because the gate on it is open by .95 and not 1. The gate's running
        mean is what it would be if every video were given the rates.
        """
        mixed_C = rates_C / torch.sigmoid(torch.tensor(OPEN))
        self.mixture.start_at_rates(mixed_C)
        self.input_gate.open_at(torch.zeros(self.input_size))
        self.output_gate.open_at(mixed_C)

    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the mixture's weights with their L2 penalty.

        The gates' have none: batch normalisation undoes their size.
        """
        return self.mixture.penalized()

    @torch.no_grad()
    def explain(self, *inputs: Tensor) -> Explanation:
        """Say who decided, for normalised features (B, D).

        A vote is what the expert says times the gate on the class: what is left of its word in the answer.
        """
        gate_BGC, expert_BMC = self._mixture_logits(*inputs)
        opening_BC = self.output_gate(pooled(gate_BGC.clone(), expert_BMC.clone()))
        return explanation(gate_BGC, expert_BMC, torch.sigmoid(opening_BC))

    def _mixture_logits(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        gated_BD = x_BD * torch.sigmoid(self.input_gate(x_BD * self.seen.input_scale))
        seen_BH = F.dropout(self.seen(gated_BD), self.dropout, self.training)
        logits: tuple[Tensor, Tensor] = self.mixture(seen_BH, seen_BH)
        return logits


class _ContextGate(nn.Module):
    """The logits BN(x W) of a gate on x (B, N), W (N, N) of rank K: first to K values, then to N."""

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        narrow = 0 < rank < size
        self.first_KN = nn.Parameter(torch.zeros(rank, size)) if narrow else None
        self.second_NK = nn.Parameter(torch.zeros(size, rank if narrow else size))
        self.norm = BatchNorm(size)

    def forward(self, x_BN: Tensor) -> Tensor:
        """Give the logits, float32 (B, N)."""
        logits_BN: Tensor = self.norm(self._product(x_BN))
        return logits_BN

    def reset(self, generator: torch.Generator) -> None:
        """Draw the weights anew, normal, so that x of length 1 gives about unit values at either matrix."""
        self.norm.reset()
        with torch.no_grad():
            if self.first_KN is not None:
                self.first_KN.normal_(generator=generator)
            inputs = 1 if self.first_KN is None else len(self.first_KN)
            self.second_NK.normal_(0.0, inputs**-0.5, generator=generator)

    @torch.no_grad()
    def open_at(self, x_N: Tensor) -> None:
        """Open the gate, and take ``x_N`` for the mean of what comes."""
        self.norm.bias.fill_(OPEN)
        self.norm.running_mean.copy_(self._product(x_N.unsqueeze(0))[0])

    def _product(self, x_BN: Tensor) -> Tensor:
        # what the videos have in common is taken out behind it, and bfloat16 would round the rest away
        with torch.autocast(x_BN.device.type, enabled=False):
            inner_BK = x_BN if self.first_KN is None else F.linear(x_BN, self.first_KN)
            return F.linear(inner_BK, self.second_NK)
