"""MoeModel: a mixture of logistic experts for every class. The reference's video_level_models.MoeModel."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractVideoModel, Explanation, Projection, Pullback
from expertise.youtube8m.models._mixing import mix, mix_and_pullback
from expertise.youtube8m.models._mixture import Mixture, explanation
from expertise.youtube8m.models._seen import Seen


class MoeModel(AbstractVideoModel):
    """p_c = sum_{m < M} softmax(gate_c)_m sigmoid(expert_cm), the gate over M + 1 experts.

    The last expert is a dummy that always says 0, so p_c <= 1 - g_dummy: the gate can veto a class. The gate
    has no bias (Abu-El-Haija et al. 2016, arXiv:1609.08675, section 5.2, and the published code).

    Letters of shapes: B batch, D features, C classes, M mixtures, G = M + 1 gates, R rank, H what gates and
    experts look at: D, or R.

    Parameters
    ----------
    input_size, num_classes, num_mixtures : D, C and M.
    rank : where it is not 0, gates and experts look at R values that one learned projection makes of the
        features. The function is that of a full model whose weights have rank R (`merged` gives it); fewer
        numbers are learned, and classes with many videos help those with few.
    input_scale : factor on the features; the weights of a full model would be larger by it.
    dropout : share of what gates and experts look at that is set to 0 in training.
    l2 : penalty; the loss gains l2 times half the sum of the squared gate and expert weights.

    Weights lie class-contiguous, (M, C, H), so that the M + 1 logits of a class are C apart in memory and
    every operation over classes runs over neighbours. `load_reference_weights` takes the other layout.
    """

    low_rank = True

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        num_mixtures: int = 2,
        *,
        rank: int = 0,
        input_scale: float = 1.0,
        dropout: float = 0.0,
        l2: float = 1e-8,
    ) -> None:
        super().__init__()
        self.input_size, self.num_classes, self.num_mixtures = input_size, num_classes, num_mixtures
        self.rank, self.input_scale, self.dropout, self.l2 = rank, input_scale, dropout, l2
        self.seen = Seen(input_size, rank, input_scale)
        self.mixture = Mixture(self.seen.size, self.seen.size, num_classes, num_mixtures, l2)

    @classmethod
    def from_flags(cls, flags: ModelFlags, input_size: int, input_scale: float) -> Self:
        """Build the model that these flags describe."""
        options = flags.options
        return cls(
            input_size,
            flags.num_classes,
            options.moe_num_mixtures,
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
        """Give the logits of the gate (B, M + 1, C) and of the experts (B, M, C)."""
        (x_BD,) = inputs
        seen_BH = F.dropout(self.seen(x_BD), self.dropout, self.training)
        logits: tuple[Tensor, ...] = self.mixture(seen_BH, seen_BH)
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
        """Draw the weights anew: Glorot-uniform times ``scale``, as for D inputs at any rank; biases 0.

        A projection is drawn orthogonal to itself, which keeps the length of what it passes on.
        """
        self.seen.reset(generator)
        self.mixture.reset(generator, self.input_size, self.input_size, scale)

    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the experts' biases so that a zero input is given ``rates_C`` (C,)."""
        self.mixture.start_at_rates(rates_C)

    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the weights with their L2 penalty."""
        return self.mixture.penalized()

    @torch.no_grad()
    def explain(self, *inputs: Tensor) -> Explanation:
        """Say who decided, for normalised features (B, D)."""
        gate_BGC, expert_BMC = self.logits(*inputs)
        return explanation(gate_BGC, expert_BMC)

    @torch.no_grad()
    def merged(self) -> "MoeModel":
        """Give the same function as a full model of input scale 1, such as the reference's."""
        full = MoeModel(self.input_size, self.num_classes, self.num_mixtures, l2=self.l2)
        mine, its = self.mixture, full.mixture
        full.to(mine.gate_GCH.device)
        projection = self.seen.projection_RD
        for weight, of_full in ((mine.gate_GCH, its.gate_GCH), (mine.expert_MCU, its.expert_MCU)):
            merged = weight if projection is None else weight @ projection
            of_full.copy_(merged * self.input_scale)
        its.expert_bias_MC.copy_(mine.expert_bias_MC)
        return full

    def load_reference_weights(self, gates: Tensor, experts: Tensor, biases: Tensor) -> None:
        """Take the weights of the reference, which lie class-major.

        Parameters
        ----------
        gates : (D, C (M + 1)); column c (M + 1) + m is gate m of class c, m = M the dummy.
        experts : (D, C M); column c M + m is expert m of class c.
        biases : (C M,).

        Raises
        ------
        ValueError : a shape differs from these, or this model is not a full one.
        """
        if self.rank or self.input_scale != 1.0:
            raise ValueError(
                f"the reference's weights fit a full model; this one has rank={self.rank} and "
                f"input_scale={self.input_scale:g}: build it without these two"
            )
        D, C, M = self.input_size, self.num_classes, self.num_mixtures
        given = {"gates": gates, "experts": experts, "biases": biases}
        wanted = {"gates": (D, C * (M + 1)), "experts": (D, C * M), "biases": (C * M,)}
        for name, value in given.items():
            if tuple(value.shape) != wanted[name]:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}; this model (D={D}, C={C}, M={M}) "
                    f"takes {wanted[name]}"
                )
        with torch.no_grad():
            self.mixture.gate_GCH.copy_(gates.reshape(D, C, M + 1).permute(2, 1, 0))
            self.mixture.expert_MCU.copy_(experts.reshape(D, C, M).permute(2, 1, 0))
            self.mixture.expert_bias_MC.copy_(biases.reshape(C, M).T)
