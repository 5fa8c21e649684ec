"""What the gates and experts of a video-level model look at: features, scaled, through a projection or not.

Letters of shapes: B batch, D features, R rank, H what gates and experts look at: D, or R.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.models._abstract import Projection

KAPPA = 0.2  # size of what gates and experts look at; chosen on part 5 of the data, among .1, .2 and .3


class Seen(nn.Module):
    """H values of D features: the features times a factor, or R values that one projection makes of these.

    Parameters
    ----------
    input_size : D.
    rank : R; 0: the features themselves.
    input_scale : the factor.
    """

    def __init__(self, input_size: int, rank: int, input_scale: float) -> None:
        super().__init__()
        self.size, self.input_scale = rank or input_size, input_scale
        self.projection_RD = nn.Parameter(torch.zeros(rank, input_size)) if rank else None

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give the values (B, H)."""
        scaled_BD = x_BD * self.input_scale
        return scaled_BD if self.projection_RD is None else F.linear(scaled_BD, self.projection_RD)

    def projection(self) -> Projection | None:
        """The projection, where there is one; what it gives is as large as it is, see the recipe."""
        return None if self.projection_RD is None else Projection(self.projection_RD, KAPPA, rotated=True)

    def reset(self, generator: torch.Generator) -> None:
        """Draw a projection orthogonal to itself, which keeps the length of what it passes on."""
        if self.projection_RD is not None:
            drawn_DR = torch.empty_like(self.projection_RD.T).normal_(generator=generator)
            with torch.no_grad():
                self.projection_RD.copy_(torch.linalg.qr(drawn_DR)[0].T)
