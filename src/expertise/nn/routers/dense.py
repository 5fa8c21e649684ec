"""All experts, for every token: the mixture of 1991 as a layer.

Letters of shapes: T tokens, D model, E experts, K = E.
"""

from typing import ClassVar

import torch
from torch import Tensor

from expertise.nn.routers._abstract import AbstractLinearRouter, check_one_of
from expertise.nn.routing import Routing

ACTIVATIONS = ("softmax", "sigmoid")


class DenseRouter(AbstractLinearRouter):
    """Each token takes every expert, weighted by softmax(x W) (Jacobs et al. 1991) or sigmoid(x W).

    Every expert runs on every token, so it costs E times one expert. Use it for few experts, or as the
    thing that a sparse router is compared with. With softmax the weights of a token sum to 1; with sigmoid
    each lies between 0 and 1.

    Parameters
    ----------
    dim, num_experts : D and E.
    activation : "softmax" or "sigmoid".
    bias : the linear map has a bias.
    jitter : in training, x is multiplied by U(1 - jitter, 1 + jitter).

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> routing = DenseRouter(dim=3, num_experts=4)(torch.randn(5, 3))
    >>> routing.experts_TK[0].tolist(), routing.load_E.tolist()
    ([0, 1, 2, 3], [5, 5, 5, 5])
    """

    name: ClassVar[str] = "dense"
    differentiable: ClassVar[bool] = True
    row_independent: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_experts: int,
        *,
        activation: str = "softmax",
        bias: bool = False,
        jitter: float = 0.0,
    ) -> None:
        super().__init__(dim, num_experts, bias=bias, jitter=jitter)
        check_one_of("activation", activation, ACTIVATIONS)
        self.activation = activation

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        logits_TE = self._logits(x_TD)
        probs_TE = logits_TE.softmax(-1) if self.activation == "softmax" else logits_TE.sigmoid()
        experts_TK = torch.arange(self.num_experts, device=x_TD.device).repeat(x_TD.shape[0], 1)
        return Routing(self.num_experts, (), probs_TE, experts_TK, probs_TE, logits_TE=logits_TE)

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"{super().extra_repr()}, activation={self.activation!r}"
