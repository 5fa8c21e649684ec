"""SharedExpertMoeModel: a linear gate over experts that share one hidden network, and a memory.

After MoNN, the best single video-level model of the 2017 challenge (Skalic, Pekalski & Pan 2017,
arXiv:1706.04572): mixtures whose experts look at the features through hidden layers.
"""

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractVideoModel, Explanation, Projection, Pullback
from expertise.youtube8m.models._memory import Memory
from expertise.youtube8m.models._mixing import gate_and_votes, mix, mix_and_pullback
from expertise.youtube8m.models._mixture import Mixture
from expertise.youtube8m.models._trunk import Trunk

VALUE_SIZE = 0.3  # what the stable recipe's scale of weights is divided by: hidden values are larger than its


class SharedExpertMoeModel(AbstractVideoModel):
    """p_c = (1 - w) sum_{m < M} softmax(gate_c(u))_m sigmoid(expert_cm(u)) + w memory_c(u).

    Gate and dummy are `MoeModel`'s. Gates and experts are linear in U hidden values u that all classes share,
    so that an answer need not be linear in the features, and classes with many videos teach those with few.

    With a memory there is one more expert: the nearest of the videos that were trained on, by u, which say
    their own labels. It takes part in evaluation alone, with a fixed weight w: in training every video would
    find itself. The rest learns as without it.

    Letters of shapes: B batch, D features, C classes, M mixtures, G = M + 1 gates, R rank, U hidden values.

    Parameters
    ----------
    sizes : of the features side by side; D is their sum. The scale of the input does not matter.
    num_classes, num_mixtures : C and M.
    hidden_size, layers : U, and the layers of the shared network.
    rank : R of a projection before it that is not learned further; 0: none.
    input_dropout, dropout : shares of what the shared network sees, and of each layer's values, that are set
        to 0 in training.
    memory : the expert that remembers, and its weight w; None: there is none.
    l2 : penalty; the loss gains l2 times half the sum of the squared gate and expert weights.
    """

    low_rank = True

    def __init__(
        self,
        sizes: tuple[int, ...],
        num_classes: int,
        num_mixtures: int = 2,
        *,
        hidden_size: int = 1024,
        layers: int = 1,
        rank: int = 0,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        memory: tuple[Memory, float] | None = None,
        l2: float = 1e-8,
    ) -> None:
        super().__init__()
        self.input_size, self.num_classes, self.num_mixtures = sum(sizes), num_classes, num_mixtures
        self.trunk = Trunk(sizes, rank, hidden_size, layers, input_dropout=input_dropout, dropout=dropout)
        self.mixture = Mixture(hidden_size, hidden_size, num_classes, num_mixtures, l2)
        self.memory: Memory | None = memory[0] if memory else None
        self.memory_weight = memory[1] if memory else 0.0
        self.memory_size = len(memory[0].keys_NU) if memory else 0

    @classmethod
    def from_flags(cls, flags: ModelFlags, input_size: int, input_scale: float) -> Self:
        """Build the model that these flags describe."""
        options, C = flags.options, flags.num_classes
        memory = Memory(
            options.memory_videos,
            options.shared_expert_size,
            C,
            neighbours=options.memory_neighbours,
            temperature=options.memory_temperature,
        )
        return cls(
            flags.feature_sizes if sum(flags.feature_sizes) == input_size else (input_size,),
            C,
            options.moe_num_mixtures,
            hidden_size=options.shared_expert_size,
            layers=options.shared_expert_layers,
            rank=options.moe_rank,
            input_dropout=options.input_dropout,
            dropout=options.dropout,
            memory=(memory, options.memory_weight) if options.memory_videos else None,
            l2=options.moe_l2,
        )

    def projection(self) -> Projection | None:
        """The projection (R, D) of the features, where there is one."""
        weight_RD = self.trunk.projection_RD
        return None if weight_RD is None else Projection(weight_RD, 1.0, rotated=False)

    def projection_inputs(self, x_BD: Tensor) -> Tensor:
        """Give the features, each with a length of its own."""
        return self.trunk.lengths_one(x_BD)

    def logits(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Give the logits of the gate (B, M + 1, C) and of the experts (B, M, C), and the memory's answer."""
        (x_BD,) = inputs
        hidden_BU = self.trunk(x_BD)
        logits: tuple[Tensor, ...] = self.mixture(hidden_BU, hidden_BU)
        if self.memory is None or self.training:
            return logits
        return *logits, self.memory(hidden_BU)

    def pool(self, *logits: Tensor) -> Tensor:
        """Mix the experts' votes by the gate's weights, and the memory's; overwrites the logits."""
        gate_BGC, expert_BMC, *told = logits
        return self._with_memory(mix(gate_BGC, expert_BMC), told)

    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Do as `pool`, overwriting nothing, and give the map from dL/dp to dL/dlogits."""
        gate_BGC, expert_BMC, *told = logits
        p_BC, mixed_back = mix_and_pullback(gate_BGC, expert_BMC)
        if not told:
            return p_BC, mixed_back
        w = self.memory_weight
        return self._with_memory(p_BC, told), lambda r_BC: (*mixed_back((1.0 - w) * r_BC), w * r_BC)

    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew: the network's; gates and experts as `MoeModel`'s, ``scale`` for these."""
        self.trunk.reset(generator)
        U = self.mixture.gate_GCH.shape[2]
        self.mixture.reset(generator, U, U, scale * VALUE_SIZE)
        if self.memory is not None:
            self.memory.clear()

    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the experts' biases so that zeros, of which the hidden values are 0, are given ``rates_C``."""
        self.mixture.start_at_rates(rates_C)

    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the gate and expert weights with their L2 penalty."""
        return self.mixture.penalized()

    @torch.no_grad()
    def remember(self, videos: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Remember these videos, normalised features (B, D) and labels (B, C); dropout is off meanwhile."""
        assert self.memory is not None
        training = self.training
        self.eval()
        self.memory.fill((self.trunk(x_BD), labels_BC) for x_BD, labels_BC in videos)
        self.train(training)

    @torch.no_grad()
    def explain(self, *inputs: Tensor) -> Explanation:
        """Say who decided, for normalised features (B, D). The memory is the last expert before the dummy."""
        gate_BGC, expert_BMC, *told = self.logits(*inputs)
        gate_BGC, vote_BMC = gate_and_votes(gate_BGC, expert_BMC)
        if told:
            w = self.memory_weight
            gate_BGC = gate_BGC * (1.0 - w)
            own = torch.full_like(gate_BGC[:, :1], w)
            gate_BGC = torch.cat([gate_BGC[:, :-1], own, gate_BGC[:, -1:]], dim=1)
            vote_BMC = torch.cat([vote_BMC, told[0].unsqueeze(1)], dim=1)
        return Explanation(
            probabilities=(gate_BGC[:, :-1] * vote_BMC).sum(dim=1).cpu().numpy(),
            gate_weights=gate_BGC.transpose(1, 2).cpu().numpy(),
            expert_votes=vote_BMC.transpose(1, 2).cpu().numpy(),
        )

    def _with_memory(self, p_BC: Tensor, told: list[Tensor]) -> Tensor:
        return torch.lerp(p_BC, told[0], self.memory_weight) if told else p_BC
