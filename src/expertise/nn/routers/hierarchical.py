"""Two levels of gates: first groups of experts, then experts within a group.

Letters of shapes: T tokens, D model, G groups, J experts of a group, E = G J experts, A groups a token takes,
B experts it takes in each, K = A B.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from expertise.nn.routers._abstract import AbstractLinearRouter, check_whole
from expertise.nn.routers._noise import (
    gates,
    noise_spread,
    prob_in_top_k,
    sum_of_real,
    was_chosen,
    wide_linear,
)
from expertise.nn.routing import Routing


class HierarchicalRouter(AbstractLinearRouter):
    """Each token takes ``groups_kept`` groups, and k experts within each (Shazeer et al. 2017, Appendix B).

    Expert g J + j is the j-th of group g. The weight is the gate of the group times the gate of the expert
    within it (eq. 12), each a softmax over those that were taken; so the weights of a token sum to 1. A level
    that takes only one would be the constant 1, without gradient; there the softmax is over all of the
    level, and the weights sum to less than 1. ``probs_TE`` is the product of both full softmaxes.

    With ``noisy=True`` both levels are gates of `NoisyTopKRouter`, with noise in training only. Then
    ``smooth_load_E`` is the load of the group times the load of the expert among the tokens that came to
    the group, over the number of these (eq. 14); in evaluation it is the plain count.

    Parameters
    ----------
    dim, num_experts : D and E.
    k : experts a token takes in each of its groups.
    groups : G; divides num_experts.
    groups_kept : groups a token takes.
    noisy : as above; both levels then start at 0.

    Attributes
    ----------
    weight_ED : (E, D), the gates within groups.
    group_weight_GD : (G, D), the gate over groups.
    noise_weight_ED, group_noise_weight_GD : their noise; None without.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> router = HierarchicalRouter(dim=3, num_experts=6, k=1, groups=2, groups_kept=2)
    >>> routing = router(torch.randn(5, 3))
    >>> sorted(e // 3 for e in routing.experts_TK[0].tolist())  # one expert of each group
    [0, 1]
    """

    name: ClassVar[str] = "hierarchical"
    differentiable: ClassVar[bool] = True
    row_independent: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        num_experts: int,
        k: int = 2,
        *,
        groups: int,
        groups_kept: int = 2,
        noisy: bool = False,
    ) -> None:
        super().__init__(dim, num_experts)
        check_whole("groups", groups, 1, num_experts)
        if num_experts % groups:
            raise ValueError(f"groups must divide num_experts={num_experts}; got {groups}")
        check_whole("groups_kept", groups_kept, 1, groups, hint="; there are no more groups")
        check_whole("k", k, 1, num_experts // groups, hint="; a group has no more experts")
        self.k = k
        self.groups = groups
        self.groups_kept = groups_kept
        self.noisy = noisy
        self.group_weight_GD = nn.Parameter(torch.empty(groups, dim))
        self.noise_weight_ED = nn.Parameter(torch.empty(num_experts, dim)) if noisy else None
        self.group_noise_weight_GD = nn.Parameter(torch.empty(groups, dim)) if noisy else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights from N(0, 1/D); with noise all are 0."""
        parameters = dict(self.named_parameters())
        noisy = "noise_weight_ED" in parameters  # not yet when the parent's constructor calls this
        for parameter in parameters.values():
            nn.init.normal_(parameter, std=0.0 if noisy else 1 / math.sqrt(self.dim))

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        clean_TG = wide_linear(x_TD, self.group_weight_GD)
        clean_TGJ = self._logits(x_TD).unflatten(-1, (self.groups, -1))
        spread_TG, spread_TGJ = self._spreads(x_TD)
        logits_TG = clean_TG if spread_TG is None else clean_TG + torch.randn_like(clean_TG) * spread_TG
        logits_TGJ = clean_TGJ if spread_TGJ is None else clean_TGJ + torch.randn_like(clean_TGJ) * spread_TGJ
        group_weights_TA, groups_TA = gates(logits_TG, self.groups_kept)
        within_TGB, places_TGB = gates(logits_TGJ, self.k)
        first_G = torch.arange(self.groups, device=x_TD.device) * logits_TGJ.shape[-1]
        at_TAB = groups_TA[..., None].expand(-1, -1, self.k)
        experts_TAB = (places_TGB + first_G[:, None]).gather(1, at_TAB)
        weights_TAB = group_weights_TA[..., None] * within_TGB.gather(1, at_TAB)
        smooth_load_E = None
        if self.noisy:
            in_top_TG = _in_top(clean_TG, logits_TG, spread_TG, groups_TA)
            in_top_TGJ = _in_top(clean_TGJ, logits_TGJ, spread_TGJ, places_TGB)
            smooth_load_E = _load_of_both(in_top_TG, in_top_TGJ, was_chosen(groups_TA, logits_TG), mask_T)
        logits_TE, probs_TE = _of_both(logits_TG, logits_TGJ)
        return Routing(
            self.num_experts,
            (),
            probs_TE,
            experts_TAB.flatten(1),
            weights_TAB.flatten(1),
            logits_TE=logits_TE,
            smooth_load_E=smooth_load_E,
        )

    def _spreads(self, x_TD: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if not self.training or self.noise_weight_ED is None or self.group_noise_weight_GD is None:
            return None, None
        spread_TE = noise_spread(x_TD, self.noise_weight_ED)
        return noise_spread(x_TD, self.group_noise_weight_GD), spread_TE.unflatten(-1, (self.groups, -1))

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return (
            f"{super().extra_repr()}, k={self.k}, groups={self.groups}, groups_kept={self.groups_kept}, "
            f"noisy={self.noisy}"
        )


def _in_top(clean: Tensor, logits: Tensor, spread: Tensor | None, chosen: Tensor) -> Tensor:
    if spread is None:
        return was_chosen(chosen, logits)
    return prob_in_top_k(clean, logits, spread, chosen.shape[-1])


def _load_of_both(in_top_TG: Tensor, in_top_TGJ: Tensor, came_TG: Tensor, mask_T: Tensor | None) -> Tensor:
    """Load of the group x load of the expert among those that came to the group / how many came (eq. 14)."""
    group_load_G = sum_of_real(in_top_TG, mask_T)
    load_GJ = sum_of_real(in_top_TGJ * came_TG[..., None], mask_T)
    came_G = sum_of_real(came_TG, mask_T).clamp_min(1)
    return ((group_load_G / came_G)[:, None] * load_GJ).flatten()


def _of_both(logits_TG: Tensor, logits_TGJ: Tensor) -> tuple[Tensor, Tensor]:
    """Give logits and probabilities of all experts, (T, E): the softmax of the first is the second.

    The logits are shifted so that their logsumexp, which the z-loss keeps small, is that of the groups plus
    the mean one within groups.
    """
    log_group_TG = logits_TG.log_softmax(-1)
    log_probs_TE = (log_group_TG[..., None] + logits_TGJ.log_softmax(-1)).flatten(1)
    within_T1 = (log_group_TG.exp() * logits_TGJ.logsumexp(-1)).sum(-1, keepdim=True)
    return log_probs_TE + logits_TG.logsumexp(-1, keepdim=True) + within_T1, log_probs_TE.exp()
