"""Losses that keep the experts in use. In the making."""

from torch import Tensor

from expertise.nn.routing import Routing


def load_balance_loss(routing: Routing) -> Tensor:
    """E sum f_i P_i."""
    load_E = routing.load_E
    f_E = load_E / load_E.sum().clamp(min=1)
    return routing.num_experts * (f_E * routing.probs_TE.sum(0) / routing.num_tokens).sum()
