"""A hard gate: one expert, drawn by the router's probabilities.

Letters of shapes: T tokens, D model, E experts, K = 1.
"""

from typing import ClassVar

import torch
from torch import Tensor

from expertise.nn.routers._abstract import AbstractLinearRouter
from expertise.nn.routing import Routing


class SampledRouter(AbstractLinearRouter):
    """Each token takes one expert z ~ softmax(x W) with weight 1; in evaluation the most probable.

    The output is that of the drawn expert alone, so the task's loss has no gradient to the router. In
    training ``log_prob_T`` of the routing, log p_z, carries it: add (L - b) log p_z of each token to the
    loss, with L - b, its loss less a baseline, detached (Williams 1992); `hard_gate` of
    `expertise.nn.objectives` does so. In evaluation nothing is drawn and ``log_prob_T`` is None.

    Parameters
    ----------
    dim, num_experts : D and E.
    bias : the linear map has a bias.
    jitter : in training, x is multiplied by U(1 - jitter, 1 + jitter).

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> router = SampledRouter(dim=3, num_experts=4)
    >>> routing = router(torch.randn(5, 3))
    >>> routing.weights_TK.flatten().tolist(), bool((routing.log_prob_T < 0).all())
    ([1.0, 1.0, 1.0, 1.0, 1.0], True)
    """

    name: ClassVar[str] = "sampled"
    differentiable: ClassVar[bool] = False
    row_independent: ClassVar[bool] = True

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        logits_TE = self._logits(x_TD)
        log_probs_TE = logits_TE.log_softmax(-1)
        log_prob_T = None
        if self.training:
            # the Gumbel-max trick: the largest of log p - log(Exp(1)) is a draw from p
            waits_TE = -torch.rand_like(log_probs_TE).log()
            experts_TK = (log_probs_TE.detach() - waits_TE.log()).argmax(-1, keepdim=True)
            log_prob_T = log_probs_TE.gather(-1, experts_TK)[:, 0]
        else:
            experts_TK = log_probs_TE.argmax(-1, keepdim=True)
        return Routing(
            self.num_experts,
            (),
            log_probs_TE.exp(),
            experts_TK,
            torch.ones(experts_TK.shape, dtype=logits_TE.dtype, device=logits_TE.device),
            logits_TE=logits_TE,
            log_prob_T=log_prob_T,
        )
