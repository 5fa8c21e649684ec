"""Hidden values of a video that all classes share.

Letters of shapes: B batch, D features, R rank, H what the first layer looks at: D, or R; U hidden values.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.models._abstract import l2_normalize
from expertise.youtube8m.models._batch_norm import BatchNorm


class Trunk(nn.Module):
    """U values of D features: each feature by itself has one length, then a projection, then hidden layers.

    A layer is dropout(GELU(BN(W h))); from the second on it adds to what it looks at (He et al. 2016). The
    projection is not learned with the rest: where it starts, it stays, and what a layer looks at is about 1.

    Parameters
    ----------
    sizes : of the features that stand side by side, such as (1024, 128); D is their sum. Each gets the length
        sqrt(size), so that a long one does not drown a short one, whatever their values.
    rank : R; 0: the features themselves.
    hidden_size, layers : U, and how many layers.
    input_dropout, dropout : shares of what the first layer looks at, and of what each layer gives, that are
        set to 0 in training.
    """

    projection_RD: Tensor | None

    def __init__(
        self,
        sizes: Sequence[int],
        rank: int,
        hidden_size: int,
        layers: int,
        *,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.sizes, self.input_dropout, self.dropout = tuple(sizes), input_dropout, dropout
        D = sum(sizes)
        self.register_buffer("projection_RD", torch.zeros(rank, D) if rank else None)
        looks_at = [rank or D] + [hidden_size] * (layers - 1)
        self.weights = nn.ParameterList(torch.zeros(hidden_size, size) for size in looks_at)
        self.norms = nn.ModuleList(BatchNorm(hidden_size) for _ in looks_at)

    def lengths_one(self, x_BD: Tensor) -> Tensor:
        """Give each feature its own length, so that a value is about 1, float32 (B, D)."""
        parts = x_BD.float().split(self.sizes, dim=1)
        return torch.cat([l2_normalize(part) * math.sqrt(part.shape[1]) for part in parts], dim=1)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give the hidden values (B, U)."""
        seen_BH = self.lengths_one(x_BD)
        if self.projection_RD is not None:
            seen_BH = F.linear(seen_BH, self.projection_RD)
        hidden = F.dropout(seen_BH, self.input_dropout, self.training)
        for layer, (weight, norm) in enumerate(zip(self.weights, self.norms, strict=True)):
            given_BU = F.dropout(F.gelu(norm(F.linear(hidden, weight))), self.dropout, self.training)
            hidden = hidden + given_BU if layer else given_BU
        return hidden

    def reset(self, generator: torch.Generator) -> None:
        """Draw the weights anew, N(0, 2 / fan-in) (He et al. 2015), the projection orthogonal to itself."""
        with torch.no_grad():
            if self.projection_RD is not None:
                drawn_DR = torch.empty_like(self.projection_RD.T).normal_(generator=generator)
                self.projection_RD.copy_(torch.linalg.qr(drawn_DR)[0].T)
            for weight in self.weights:
                weight.normal_(0.0, math.sqrt(2.0 / weight.shape[1]), generator=generator)
        for norm in self.norms:
            assert isinstance(norm, BatchNorm)
            norm.reset()
