"""Balance without a loss: a bias that moves the choice of experts, and nothing else.

Letters of shapes: E experts.
"""

import torch
from torch import Tensor, nn

from expertise.nn._ranks import Group, sum_over_ranks
from expertise.nn.routers._abstract import AbstractRouter, check_number

__all__ = ["LossFreeBias"]


class LossFreeBias:
    """Raises the selection bias of experts with little load and lowers that of busy ones, after every step.

    b_i += rate x sign(mean(c) - c_i), c the tokens that chose each expert since the last step (Wang et al.
    2024, arXiv 2408.15664, Algorithm 1; DeepSeek-V3, arXiv 2412.19437, section 2.1.2). The bias takes part in
    the choice alone, not in the weights, so the task's gradient stays as it is.

    The routers count in training only, and not when activation checkpointing repeats them. The counts
    move with the model and stay out of its buffers and its state_dict; the bias is in both.

    Parameters
    ----------
    model : its routers with ``selection_bias=True`` are balanced; others are left alone.
    rate : how far a bias moves in a step.
    group : process group of torch.distributed, or True for the default one: the counts are added over its
        ranks, and every rank makes the same step. Needed in data-parallel training.

    Raises
    ------
    ValueError : no router of the model has a selection bias, or the rate is negative.

    Examples
    --------
    >>> from expertise.nn import Experts, MoE, TopKRouter
    >>> layer = MoE(TopKRouter(1, 2, k=1, selection_bias=True), Experts(2, 1, 4))
    >>> with torch.no_grad():
    ...     _ = layer.router.weight_ED.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> bias = LossFreeBias(layer, rate=0.001)
    >>> y = layer(torch.ones(6, 1))  # every token chooses expert 0
    >>> bias.step()  # after optimizer.step()
    >>> [round(b, 6) for b in layer.router.selection_bias_E.tolist()]
    [-0.001, 0.001]
    """

    def __init__(self, model: nn.Module, rate: float = 1e-3, group: Group = None) -> None:
        check_number("rate", rate, 0)
        self.rate = rate
        self.group = group
        self.routers = [
            one for one in model.modules() if isinstance(one, AbstractRouter) and _bias(one) is not None
        ]
        if not self.routers:
            raise ValueError(
                f"LossFreeBias(model): {type(model).__name__} has no router with a selection bias; make them "
                "as TopKRouter(..., selection_bias=True)"
            )
        for router in self.routers:
            router.load_E = torch.zeros(router.num_experts, dtype=torch.int64, device=_bias_of(router).device)

    @torch.no_grad()
    def step(self) -> None:
        """Move every bias by one step and start counting anew. Call it after optimizer.step().

        A router that saw no token since the last step keeps its bias.
        """
        counts, _ = sum_over_ranks([_counts(router) for router in self.routers], self.group)
        for router, load_E in zip(self.routers, counts, strict=True):
            # whole numbers: an expert that is exactly at the mean does not move
            direction_E = (load_E.sum() - router.num_experts * load_E).sign()
            bias_E = _bias_of(router)
            bias_E.add_(self.rate * direction_E.to(bias_E.dtype))
            _counts(router).zero_()


def _bias(router: AbstractRouter) -> Tensor | None:
    return dict(router.named_buffers(recurse=False)).get("selection_bias_E")


def _bias_of(router: AbstractRouter) -> Tensor:
    bias_E = _bias(router)
    assert bias_E is not None
    return bias_E


def _counts(router: AbstractRouter) -> Tensor:
    assert router.load_E is not None
    return router.load_E
