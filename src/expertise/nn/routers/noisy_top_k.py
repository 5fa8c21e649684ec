"""The k largest after noise that the router learns: the first sparse layer of its kind.

Letters of shapes: T tokens, D model, E experts, K chosen.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from expertise.nn.routers._abstract import AbstractLinearRouter, check_whole
from expertise.nn.routers._noise import gates, noise_spread, prob_in_top_k, sum_of_real, was_chosen
from expertise.nn.routing import Routing


class NoisyTopKRouter(AbstractLinearRouter):
    """Each token takes the k experts of largest noisy logit (Shazeer et al. 2017, arXiv 1701.06538, eq. 3-5).

    H = x Wg + N(0, 1) softplus(x Wn), gates = softmax(KeepTopK(H, k)), so the weights of a token sum to 1.
    There is noise in training only. The noise makes the load smooth: ``smooth_load_E`` of the routing is the
    sum over the tokens of the probability that they choose the expert when its noise is drawn again
    (Appendix A, eq. 8-10), and `load_loss` keeps it even. In evaluation, without noise, that probability is
    0 or 1: ``smooth_load_E`` is then the plain count, without gradient.

    With k=1 the paper's gate is the constant 1, and the task teaches the router nothing. Here k=1 weighs by
    the softmax over all noisy logits instead, as Switch does, so the weight is at most 1.

    Parameters
    ----------
    dim, num_experts : D and E.
    k : experts a token takes.

    Attributes
    ----------
    weight_ED, noise_weight_ED : (E, D), Wg and Wn; both 0 at the start, so that at first the load is even
        (Appendix A). All logits are then equal: an untrained router in evaluation sends every token to the
        same k experts.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> routing = NoisyTopKRouter(dim=3, num_experts=4, k=2)(torch.randn(1000, 3))
    >>> bool((routing.smooth_load_E - 500).abs().max() < 50)  # 1000 tokens x 2 choices over 4 experts
    True
    """

    name: ClassVar[str] = "noisy_top_k"
    differentiable: ClassVar[bool] = True
    row_independent: ClassVar[bool] = True

    def __init__(self, dim: int, num_experts: int, k: int = 2) -> None:
        super().__init__(dim, num_experts)
        check_whole("k", k, 1, num_experts, hint="; a token cannot take more experts than there are")
        self.k = k
        self.noise_weight_ED = nn.Parameter(torch.zeros(num_experts, dim))

    def reset_parameters(self) -> None:
        """Set both maps to 0."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        clean_TE = self._logits(x_TD)
        if self.training:
            spread_TE = noise_spread(x_TD, self.noise_weight_ED)
            logits_TE = clean_TE + torch.randn_like(clean_TE) * spread_TE
            in_top_TE = prob_in_top_k(clean_TE, logits_TE, spread_TE, self.k)
            weights_TK, experts_TK = gates(logits_TE, self.k)
        else:
            logits_TE = clean_TE
            weights_TK, experts_TK = gates(logits_TE, self.k)
            in_top_TE = was_chosen(experts_TK, logits_TE)
        return Routing(
            self.num_experts,
            (),
            logits_TE.softmax(-1),
            experts_TK,
            weights_TK,
            logits_TE=logits_TE,
            smooth_load_E=sum_of_real(in_top_TE, mask_T),
        )

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"{super().extra_repr()}, k={self.k}"
