"""Experts choose tokens: every expert takes the same number of them.

Letters of shapes: T tokens, D model, E experts, K = E, C tokens an expert takes.
"""

import math
import warnings
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor, nn

from expertise.nn.routers._abstract import AbstractLinearRouter, check_number, check_one_of
from expertise.nn.routing import Routing

INFERENCE = ("batch", "thresholds")


class ExpertChoiceRouter(AbstractLinearRouter):
    """Each expert takes its C best tokens, C = ceil(real tokens x capacity_factor / E) (Zhou et al. 2022).

    S = softmax(x W) over the experts (arXiv 2202.09368, eq. 1); an expert takes the tokens of its largest S
    and weighs them by S as it is, so the weights of a token sum to at most 1, and to 0 for a token that
    nobody took. The load is even by construction: no balance loss. But whether a token is taken depends on
    all the others, later ones and other sequences too: it is not for causal models.

    ``inference="batch"``, the default, does the same in evaluation, and so the answer for a row depends on
    what it is evaluated with; alone, every expert takes it. ``inference="thresholds"`` makes evaluation a
    matter of the token alone: expert e takes it if S_e > ``threshold_E[e]``. Thresholds are learned by adding
    `threshold_loss` to the loss of training (Shazeer et al. 2017, Appendix F). ``row_independent`` stays
    False, for it says what the default does, and training looks at all tokens in any case.

    Parameters
    ----------
    dim, num_experts : D and E.
    capacity_factor : experts that a token gets on average.
    inference : "batch" or "thresholds".
    bias : the linear map has a bias.
    jitter : in training, x is multiplied by U(1 - jitter, 1 + jitter).

    Attributes
    ----------
    threshold_E : (E,), only with inference="thresholds". It starts where the threshold would be if logits
        were standard normal: of that order, and no better.

    Warns
    -----
    UserWarning : the first evaluation with thresholds that were never trained or loaded (not when compiled).

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> routing = ExpertChoiceRouter(dim=3, num_experts=4, capacity_factor=2.0)(torch.randn(10, 3))
    >>> routing.load_E.tolist()  # 10 x 2 / 4
    [5, 5, 5, 5]
    """

    name: ClassVar[str] = "expert_choice"
    differentiable: ClassVar[bool] = True
    row_independent: ClassVar[bool] = False

    def __init__(
        self,
        dim: int,
        num_experts: int,
        *,
        capacity_factor: float = 2.0,
        inference: str = "batch",
        bias: bool = False,
        jitter: float = 0.0,
    ) -> None:
        super().__init__(dim, num_experts, bias=bias, jitter=jitter)
        check_number("capacity_factor", capacity_factor, 0)
        check_one_of("inference", inference, INFERENCE)
        self.capacity_factor = capacity_factor
        self.inference = inference
        self._looked_at_thresholds = False
        learned = inference == "thresholds"
        start_E = torch.full((num_experts,), _first_threshold(num_experts, capacity_factor))
        self.threshold_E = nn.Parameter(start_E) if learned else None

    def reset_parameters(self) -> None:
        """Draw the weights from N(0, 1/D); biases 0; thresholds where they started."""
        super().reset_parameters()
        # none yet when the parent's constructor calls this
        threshold_E = dict(self.named_parameters()).get("threshold_E")
        if threshold_E is not None:
            nn.init.constant_(threshold_E, _first_threshold(self.num_experts, self.capacity_factor))

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        logits_TE = self._logits(x_TD)
        probs_TE = logits_TE.softmax(-1)
        if self.threshold_E is not None and not self.training:
            self._warn_if_untrained(self.threshold_E)
            chosen_TE = probs_TE > self.threshold_E
            if mask_T is not None:
                chosen_TE = chosen_TE & mask_T[:, None]
            max_pairs = None if torch.compiler.is_compiling() else int(chosen_TE.sum())
        else:
            chosen_TE, max_pairs = self._take(probs_TE.detach(), mask_T)
        experts_TK = torch.where(
            chosen_TE, torch.arange(self.num_experts, device=x_TD.device), self.num_experts
        )
        weights_TK = torch.where(chosen_TE, probs_TE, probs_TE.new_zeros(()))
        return Routing(
            self.num_experts, (), probs_TE, experts_TK, weights_TK, logits_TE=logits_TE, max_pairs=max_pairs
        )

    def _take(self, probs_TE: Tensor, mask_T: Tensor | None) -> tuple[Tensor, int]:
        """Give which tokens each expert takes, (T, E) bool, and how many pairs that are at most."""
        T, E = probs_TE.shape
        share = self.capacity_factor / E
        most = min(T, math.ceil(T * share - 1e-9))
        if mask_T is None:
            picked_CE = probs_TE.topk(most, 0).indices
            return torch.zeros_like(probs_TE, dtype=torch.bool).scatter(0, picked_CE, True), E * most
        picked_CE = probs_TE.masked_fill(~mask_T[:, None], -1.0).topk(most, 0).indices
        # how many are real is known on the device only: take as many as there can be, keep the best of them
        real = mask_T.sum()
        C = torch.minimum((real.double() * share - 1e-9).ceil().long(), real)
        kept_CE = (torch.arange(most, device=C.device) < C)[:, None].expand(-1, E)
        return torch.zeros_like(probs_TE, dtype=torch.bool).scatter(0, picked_CE, kept_CE), E * most

    def threshold_loss(self, routing: Routing) -> Tensor:
        """Give the loss that moves each threshold to between the tokens that its expert took and the others.

        Sum over tokens and experts of (1[S > t] - taken)(S - t) (Shazeer et al. 2017, Appendix F, eq. 20). It
        is 0 where thresholds and training agree, its slope is the number taken minus the number above the
        threshold, and only the thresholds get it.

        Parameters
        ----------
        routing : of this router, in training.

        Raises
        ------
        ValueError : the router has no thresholds, or the routing is none of expert choice.
        """
        if self.threshold_E is None:
            raise ValueError(
                "threshold_loss needs thresholds; got inference='batch'; make the router with "
                "inference='thresholds'"
            )
        if routing.experts_TK.shape != routing.probs_TE.shape or routing.num_experts != self.num_experts:
            raise ValueError(
                f"threshold_loss(routing) takes a routing of this router, with experts_TK of shape (T, "
                f"{self.num_experts}); got {tuple(routing.experts_TK.shape)}"
            )
        probs_TE = routing.probs_TE.detach()
        off_TE = (probs_TE > self.threshold_E).to(probs_TE.dtype) - routing.chosen_TK.to(probs_TE.dtype)
        loss_TE = off_TE * (probs_TE - self.threshold_E)
        if routing.mask_T is not None:
            loss_TE = torch.where(routing.mask_T[:, None], loss_TE, loss_TE.new_zeros(()))
        return loss_TE.sum()

    def _warn_if_untrained(self, threshold_E: Tensor) -> None:
        if self._looked_at_thresholds or torch.compiler.is_compiling():
            return
        self._looked_at_thresholds = True
        start_E = torch.full_like(threshold_E, _first_threshold(self.num_experts, self.capacity_factor))
        if torch.allclose(threshold_E, start_E, rtol=1e-6, atol=0.0):  # not equal after .double()
            warnings.warn(
                "the thresholds of expert choice are untrained, so experts take more or fewer tokens than in "
                "training; add router.threshold_loss(routing) to the training loss, or use inference='batch'",
                UserWarning,
                stacklevel=2,
            )

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"{super().extra_repr()}, capacity_factor={self.capacity_factor}, inference={self.inference!r}"


def _first_threshold(num_experts: int, capacity_factor: float) -> float:
    """Give the quantile of S at which the share C/T lies above, for standard normal logits.

    S is about exp(z) / (E exp(1/2)), for the mean of exp(z) is exp(1/2).
    """
    share = capacity_factor / num_experts
    if share <= 0 or share >= 1:
        return 1.0 if share <= 0 else 0.0
    return math.exp(NormalDist().inv_cdf(1 - share) - 0.5) / num_experts
