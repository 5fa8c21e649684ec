"""The assignment of largest total score in which every expert gets the same number of tokens.

Letters of shapes: T tokens, D model, E experts, K = 1.
"""

from typing import ClassVar

import torch
from torch import Tensor

from expertise.nn.routers._abstract import AbstractLinearRouter
from expertise.nn.routers._assignment import balanced_assignment
from expertise.nn.routing import Routing


class BaseRouter(AbstractLinearRouter):
    """Each token takes one expert; in training by the best balanced assignment (Lewis et al. 2021).

    BASE (arXiv 2103.16716, section 2.1): in training the sum of logits over tokens and their experts is as
    large as it can be when every expert takes floor(T/E) or ceil(T/E) real tokens, so no balance loss is
    needed. The weight is sigmoid(logit) of the chosen expert, so the router learns. In evaluation each token
    takes its largest logit, which no other token changes.

    The assignment is exact and made on the CPU, where a GPU waits for it: .03 s for 4,096 tokens and 8
    experts, .15 s for 64 experts. `SinkhornRouter` stays on the device and is balanced only nearly.

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
    >>> routing = BaseRouter(dim=3, num_experts=4)(torch.randn(12, 3) + 2)
    >>> routing.load_E.tolist()
    [3, 3, 3, 3]
    """

    name: ClassVar[str] = "base"
    differentiable: ClassVar[bool] = True
    row_independent: ClassVar[bool] = True

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        logits_TE = self._logits(x_TD)
        probs_TE = logits_TE.sigmoid()
        if self.training:
            experts_TK = _assign(logits_TE.detach(), mask_T)[:, None]
        else:
            experts_TK = logits_TE.argmax(-1, keepdim=True)
        weights_TK = probs_TE.gather(-1, experts_TK)
        return Routing(self.num_experts, (), probs_TE, experts_TK, weights_TK, logits_TE=logits_TE)


# one operation, so that torch.compile takes it as it is
@torch.library.custom_op("expertise::balanced_assignment", mutates_args=())
def _assign(logits_TE: Tensor, mask_T: Tensor | None) -> Tensor:
    """Assign the real tokens, (T,) int64; padding is given to expert 0, and the caller takes it out."""
    experts_T = torch.zeros(len(logits_TE), dtype=torch.int64)
    # NaN goes anywhere: the weights carry it to the loss
    score_TE = logits_TE.double().nan_to_num(0.0, 1e30, -1e30).cpu()
    if mask_T is None:
        experts_T[:] = torch.from_numpy(balanced_assignment(score_TE.numpy()))
    else:
        real_T = mask_T.cpu()
        experts_T[real_T] = torch.from_numpy(balanced_assignment(score_TE[real_T].numpy()))
    return experts_T.to(logits_TE.device)


@_assign.register_fake
def _(logits_TE: Tensor, mask_T: Tensor | None) -> Tensor:
    return logits_TE.new_empty(logits_TE.shape[0], dtype=torch.int64)
