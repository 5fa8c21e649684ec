"""The k largest of each token: the router of most sparse models.

Letters of shapes: T tokens, D model, E experts, K chosen, G groups of experts.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from expertise.nn.routers._abstract import (
    AbstractLinearRouter,
    check_number,
    check_one_of,
    check_whole,
)
from expertise.nn.routing import Routing

ACTIVATIONS = ("softmax", "sigmoid")
SECOND = ("top", "random")


class TopKRouter(AbstractLinearRouter):
    """Each token takes the k experts of largest score.

    Switch (Fedus et al. 2021) is k=1: the softmax comes BEFORE the choice, so y = p_i E_i has a gradient to
    the router. Mixtral is k=2, renormalised. GShard (Lepikhin et al. 2020) is k=2 with ``second="random"``.
    DeepSeek-V3 is ``activation="sigmoid", selection_bias=True, renormalize=True, scale=2.5`` with groups.

    Parameters
    ----------
    dim, num_experts : D and E.
    k : experts a token takes.
    activation : "softmax", or "sigmoid" (every expert scored by itself).
    renormalize : divide the weights of the chosen by their sum; None: for k > 1. With k=1 this would make
        every weight 1, and leave the router without gradient, so it is an error there.
    scale : the weights are multiplied by it at the end (DeepSeek-V3, arXiv 2412.19437).
    groups, groups_kept : experts stand in that many groups of equal size, and a token chooses within its
        best ``groups_kept``; a group's score is the sum of its two best experts (the same paper).
    selection_bias : a buffer b (E,), float32 whatever the module's type: experts are chosen by score + b and
        weighted by score alone (Wang et al. 2024, arXiv 2408.15664). `LossFreeBias` moves it.
    second : "top", or "random": in training the second expert is kept with probability min(1, 2 w_2), w_2
        its weight (GShard, Algorithm 1); k=2 only. In evaluation it is always kept.
    bias : the linear map has a bias.
    jitter : in training, x is multiplied by U(1 - jitter, 1 + jitter).

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> router = TopKRouter(dim=3, num_experts=4, k=2)
    >>> routing = router(torch.randn(5, 3))
    >>> routing.load_E.sum().item(), bool(torch.allclose(routing.weights_TK.sum(1), torch.ones(5)))
    (10, True)
    """

    name: ClassVar[str] = "top_k"
    differentiable: ClassVar[bool] = True
    row_independent: ClassVar[bool] = True
    selection_bias_E: Tensor | None

    def __init__(
        self,
        dim: int,
        num_experts: int,
        k: int = 2,
        *,
        activation: str = "softmax",
        renormalize: bool | None = None,
        scale: float = 1.0,
        groups: int | None = None,
        groups_kept: int | None = None,
        selection_bias: bool = False,
        second: str = "top",
        bias: bool = False,
        jitter: float = 0.0,
    ) -> None:
        super().__init__(dim, num_experts, bias=bias, jitter=jitter)
        check_whole("k", k, 1, num_experts, hint="; a token cannot take more experts than there are")
        check_one_of("activation", activation, ACTIVATIONS)
        check_one_of("second", second, SECOND)
        check_number("scale", scale, 0)
        if k == 1 and renormalize:
            raise ValueError(
                "renormalize must be False or None with k=1; got True, which makes every weight 1 and leaves "
                "the router without gradient"
            )
        if second == "random" and k != 2:
            raise ValueError(f"second='random' is for k=2; got k={k}; use second='top'")
        _check_groups(num_experts, k, groups, groups_kept)
        self.k = k
        self.activation = activation
        self.renormalize = k > 1 if renormalize is None else renormalize
        self.scale = scale
        self.groups = groups
        self.groups_kept = groups_kept
        self.second = second
        zeros_E = torch.zeros(num_experts, dtype=torch.float32) if selection_bias else None
        self.register_buffer("selection_bias_E", zeros_E)

    def reset_parameters(self) -> None:
        """Draw the weights from N(0, 1/D); biases 0, the selection bias too."""
        super().reset_parameters()
        # none yet when the parent's constructor calls this
        bias_E = dict(self.named_buffers()).get("selection_bias_E")
        if bias_E is not None:
            nn.init.zeros_(bias_E)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the module, but keep the bias in float32: its steps of .001 are lost in bfloat16."""
        bias_E = self.selection_bias_E
        super()._apply(fn, recurse)
        moved_E = self.selection_bias_E
        if bias_E is not None and moved_E is not None and moved_E.dtype != bias_E.dtype:
            self.selection_bias_E = bias_E.to(moved_E.device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Load; the bias stays in float32 even where the tensors of a file are put in the place of ours."""
        super()._load_from_state_dict(*args, **kwargs)
        if self.selection_bias_E is not None:
            self.selection_bias_E = self.selection_bias_E.to(torch.float32)

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        logits_TE = self._logits(x_TD)
        probs_TE = logits_TE.softmax(-1) if self.activation == "softmax" else logits_TE.sigmoid()
        experts_TK, weights_TK = self._choose(probs_TE)
        if self.renormalize:
            total_T1 = weights_TK.sum(-1, keepdim=True)
            if self.activation == "sigmoid":
                total_T1 = total_T1 + 1e-20  # sigmoid scores may all be 0
            weights_TK = weights_TK / total_T1
        if self.second == "random" and self.training:
            # by the weight over both, so before any scale
            kept_T = torch.rand_like(weights_TK[:, 1]) < 2 * weights_TK[:, 1].detach()
            experts_TK = torch.stack(
                [experts_TK[:, 0], torch.where(kept_T, experts_TK[:, 1], self.num_experts)], 1
            )
            weights_TK = torch.stack([weights_TK[:, 0], weights_TK[:, 1] * kept_T], 1)
        if self.scale != 1.0:
            weights_TK = weights_TK * self.scale
        return Routing(self.num_experts, (), probs_TE, experts_TK, weights_TK, logits_TE=logits_TE)

    def _choose(self, probs_TE: Tensor) -> tuple[Tensor, Tensor]:
        if self.selection_bias_E is None and self.groups is None:
            weights_TK, experts_TK = probs_TE.topk(self.k, -1)
            return experts_TK, weights_TK
        choice_TE = probs_TE.detach()
        if self.selection_bias_E is not None:
            choice_TE = choice_TE + self.selection_bias_E
        if self.groups is not None:
            choice_TE = self._within_groups(choice_TE)
        experts_TK = choice_TE.topk(self.k, -1).indices
        return experts_TK, probs_TE.gather(-1, experts_TK)

    def _within_groups(self, choice_TE: Tensor) -> Tensor:
        """Leave only the experts of the best groups: -inf elsewhere."""
        assert self.groups is not None
        assert self.groups_kept is not None
        by_group = choice_TE.unflatten(-1, (self.groups, -1))
        score_TG = by_group.topk(min(2, by_group.shape[-1]), -1).values.sum(-1)
        best = score_TG.topk(self.groups_kept, -1).indices
        kept_TG = torch.zeros_like(score_TG, dtype=torch.bool).scatter(-1, best, True)
        kept: Tensor = by_group.masked_fill(~kept_TG[..., None], -math.inf)
        return kept.flatten(-2)

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"{super().extra_repr()}, k={self.k}, activation={self.activation!r}"


def _check_groups(num_experts: int, k: int, groups: Any, groups_kept: Any) -> None:
    if groups is None:
        if groups_kept is not None:
            raise ValueError(f"groups_kept={groups_kept!r} needs groups, the number of groups; got None")
        return
    check_whole("groups", groups, 1, num_experts)
    if num_experts % groups:
        raise ValueError(f"groups must divide num_experts={num_experts}; got {groups}")
    check_whole("groups_kept", groups_kept, 1, groups)
    if k > groups_kept * (num_experts // groups):
        raise ValueError(
            f"k={k} experts cannot be taken from {groups_kept} groups of {num_experts // groups}; "
            "keep more groups, or take fewer experts"
        )
