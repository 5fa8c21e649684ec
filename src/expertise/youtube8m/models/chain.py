"""ChainMoeModel: mixtures in a row, each of which sees what those before have said.

Chaining: Wang, Zhang & Wu 2017, "The Monkeytyping Solution to the YouTube-8M Video Understanding Challenge"
(arXiv:1706.05150).
"""

from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import (
    AbstractVideoModel,
    Explanation,
    Outputs,
    Projection,
    Pullback,
)
from expertise.youtube8m.models._mixing import mix, mix_and_pullback
from expertise.youtube8m.models._mixture import Mixture, explanation, pooled
from expertise.youtube8m.models._seen import Seen


class ChainMoeModel(AbstractVideoModel):
    """p = stage S's answer; stage s sees the features and a projection of every earlier stage's answer.

    Each stage is a mixture as `MoeModel`'s. The last one's answer is the model's; the earlier ones learn the
    labels too, so that there is something to see. A stage is told sqrt(p), not p or its log-odds. p hides the
    rare classes; in the log-odds, guesses about thousands of absent classes outweigh the few present ones.
    The root is between: it gives rare and frequent classes noise of one size, as it does with counts.

    Letters of shapes: B batch, D features, C classes, M mixtures, R rank, S chain_size, H = D or R plus S for
    every stage before.

    Parameters
    ----------
    input_size, num_classes, num_mixtures : D, C and M.
    stages : number of mixtures, at least 2.
    chain_size : S, the values that a stage's answer is projected to.
    chain_loss : factor on the label loss of the earlier stages.
    rank, input_scale, dropout, l2 : as in `MoeModel`; all stages look through the same projection.
    """

    low_rank = True

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        num_mixtures: int = 2,
        *,
        stages: int = 2,
        chain_size: int = 256,
        chain_loss: float = 0.2,
        rank: int = 0,
        input_scale: float = 1.0,
        dropout: float = 0.0,
        l2: float = 1e-8,
    ) -> None:
        super().__init__()
        self.input_size, self.num_classes, self.num_mixtures = input_size, num_classes, num_mixtures
        self.dropout, self.early_weight = dropout, chain_loss
        self.seen = Seen(input_size, rank, input_scale)
        self.told = nn.ModuleList(_Told(num_classes, chain_size) for _ in range(stages - 1))
        sizes = [self.seen.size + chain_size * stage for stage in range(stages)]
        self.stages = nn.ModuleList(Mixture(size, size, num_classes, num_mixtures, l2) for size in sizes)

    @classmethod
    def from_flags(cls, flags: ModelFlags, input_size: int, input_scale: float) -> Self:
        """Build the model that these flags describe."""
        options = flags.options
        return cls(
            input_size,
            flags.num_classes,
            options.moe_num_mixtures,
            stages=options.chain_stages,
            chain_size=options.chain_size,
            chain_loss=options.chain_loss,
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

    def training_outputs(self, *inputs: Tensor) -> Outputs:
        """Give the last stage's logits, and the earlier stages' probabilities."""
        (x_BD,) = inputs
        seen_BH = F.dropout(self.seen(x_BD), self.dropout, self.training)
        early = []
        *stages, last = self._mixtures
        for stage, told in zip(stages, self._told, strict=True):
            p_BC = pooled(*stage(seen_BH, seen_BH))
            seen_BH = torch.cat([seen_BH, told(p_BC)], dim=1)
            early.append(p_BC)
        return Outputs(last(seen_BH, seen_BH), early=tuple(early))

    def logits(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Give the logits of the last stage: of its gate (B, M + 1, C) and of its experts (B, M, C)."""
        return self.training_outputs(*inputs).logits

    def pool(self, *logits: Tensor) -> Tensor:
        """Mix the last stage's votes by its gate's weights; overwrites the logits."""
        gate_BGC, expert_BMC = logits
        return mix(gate_BGC, expert_BMC)

    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Do as `pool`, overwriting nothing, and give the map from dL/dp to dL/dlogits."""
        gate_BGC, expert_BMC = logits
        return mix_and_pullback(gate_BGC, expert_BMC)

    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew, every stage's as `MoeModel`'s."""
        self.seen.reset(generator)
        for told in self._told:
            told.reset(generator)
        for stage in self._mixtures:
            stage.reset(generator, self.input_size, self.input_size, scale)

    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the biases so that every stage gives zeros ``rates_C``; what a stage is told then is 0."""
        for stage in self._mixtures:
            stage.start_at_rates(rates_C)
        for told in self._told:
            told.expect(rates_C)

    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the weights of all stages with their L2 penalty."""
        return [pair for stage in self._mixtures for pair in stage.penalized()]

    @torch.no_grad()
    def explain(self, *inputs: Tensor) -> Explanation:
        """Say which experts of the last stage decided, for normalised features (B, D)."""
        gate_BGC, expert_BMC = self.logits(*inputs)
        return explanation(gate_BGC, expert_BMC)

    @property
    def _mixtures(self) -> list[Mixture]:
        return cast(list[Mixture], list(self.stages))

    @property
    def _told(self) -> list["_Told"]:
        return cast(list[_Told], list(self.told))


class _Told(nn.Module):
    """What the next stages are told of an answer: S values, a linear map of sqrt(p)."""

    SIZE = 0.2  # of sqrt(p): Adam moves every weight alike, so the map of small values moves slowly
    TINY = 1e-6  # under the root, whose slope is infinite at 0

    def __init__(self, num_classes: int, chain_size: int) -> None:
        super().__init__()
        self.weight_SC = nn.Parameter(torch.zeros(chain_size, num_classes))
        self.bias_S = nn.Parameter(torch.zeros(chain_size))

    def forward(self, p_BC: Tensor) -> Tensor:
        """Give (B, S) values."""
        return F.linear(self._root(p_BC), self.weight_SC, self.bias_S)

    def reset(self, generator: torch.Generator) -> None:
        """Draw the weights anew, so that an answer of a few sure classes gives values of about .2."""
        with torch.no_grad():
            self.weight_SC.normal_(0.0, 0.5, generator=generator)
            self.bias_S.zero_()

    @torch.no_grad()
    def expect(self, rates_C: Tensor) -> None:
        """Set the bias so that ``rates_C`` gives zeros."""
        self.bias_S.copy_(-F.linear(self._root(rates_C), self.weight_SC))

    def _root(self, p: Tensor) -> Tensor:
        return self.SIZE * torch.sqrt(p + self.TINY)
