"""As many experts as it takes to reach a probability: few for easy tokens, more for hard ones.

Letters of shapes: T tokens, D model, E experts, K = the most a token may take.
"""

from typing import ClassVar

import torch
from torch import Tensor

from expertise.nn.routers._abstract import AbstractLinearRouter, check_number, check_whole
from expertise.nn.routing import Routing


class TopPRouter(AbstractLinearRouter):
    """Each token takes the smallest set of experts whose probabilities sum to at least p (Huang et al. 2024).

    arXiv 2403.07652, section 3.2: experts sorted by softmax(x W), largest first, until the sum reaches p. The
    weights are these probabilities, so those of a token sum to at least p and at most 1 (to less than p where
    ``max_experts`` cuts the set). How many a token takes is known only when it runs: in eager mode the
    number of pairs is read back from the device. Compiled, the layer makes room for all K a token. Add
    `entropy_loss`, or the router learns to be unsure and to take everybody.

    Parameters
    ----------
    dim, num_experts : D and E.
    p : above 0 and at most 1.
    max_experts : K, the most a token may take; None: E.
    renormalize : divide the weights of the chosen by their sum. A token with a single expert then has the
        constant weight 1 and teaches the router nothing.
    bias : the linear map has a bias.
    jitter : in training, x is multiplied by U(1 - jitter, 1 + jitter).

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> router = TopPRouter(dim=2, num_experts=2, p=0.7)
    >>> _ = router.weight_ED.data.copy_(torch.eye(2))
    >>> routing = router(torch.tensor([[2.0, 0.0], [0.5, 0.0]]))  # probabilities .88, .12 and .62, .38
    >>> routing.experts_TK.tolist()  # 2 is nobody
    [[0, 2], [0, 1]]
    """

    name: ClassVar[str] = "top_p"
    differentiable: ClassVar[bool] = True
    row_independent: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_experts: int,
        p: float = 0.4,
        *,
        max_experts: int | None = None,
        renormalize: bool = False,
        bias: bool = False,
        jitter: float = 0.0,
    ) -> None:
        super().__init__(dim, num_experts, bias=bias, jitter=jitter)
        check_number("p", p, 0, 1)
        if p == 0:
            raise ValueError("p must be above 0 and at most 1; got 0, with which no token takes any expert")
        if max_experts is not None:
            check_whole("max_experts", max_experts, 1, num_experts)
        if renormalize and max_experts == 1:
            raise ValueError(
                "renormalize must be False with max_experts=1; got True, which makes every weight 1 and "
                "leaves the router without gradient"
            )
        self.p = p
        self.max_experts = max_experts
        self.renormalize = renormalize

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        logits_TE = self._logits(x_TD)
        probs_TE = logits_TE.softmax(-1)
        K = self.num_experts if self.max_experts is None else self.max_experts
        weights_TK, experts_TK = probs_TE.topk(K, -1)
        # an expert is taken unless those before it reach p; p=1 is all of them, however the sum is rounded
        before_TK = weights_TK.detach().cumsum(-1) - weights_TK.detach()
        chosen_TK = ~(before_TK >= self.p) if self.p < 1 else torch.ones_like(before_TK, dtype=torch.bool)
        if mask_T is not None:
            chosen_TK = chosen_TK & mask_T[:, None]
        weights_TK = torch.where(chosen_TK, weights_TK, weights_TK.new_zeros(()))
        if self.renormalize:
            # of padding the sum is 0
            weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True).clamp_min(1e-20)
        return Routing(
            self.num_experts,
            (),
            probs_TE,
            torch.where(chosen_TK, experts_TK, self.num_experts),
            weights_TK,
            logits_TE=logits_TE,
            max_pairs=None if torch.compiler.is_compiling() else int(chosen_TK.sum()),
        )

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"{super().extra_repr()}, p={self.p}, max_experts={self.max_experts}"
