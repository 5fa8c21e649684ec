"""A sparse layer from a dense block: every expert starts as a copy of it.

Komatsuzaki et al. 2022, "Sparse upcycling", arXiv 2212.05055, section 3.

Letters of shapes: E experts, D model, H hidden, F columns of the first product.
"""

import torch
from torch import Tensor, nn

from expertise.nn.exchange._parts import experts_of
from expertise.nn.exchange.feed_forward import DenseWeights, read_dense
from expertise.nn.layer import MoE
from expertise.nn.routers._abstract import AbstractRouter, check_number, check_whole
from expertise.nn.routers.top_k import TopKRouter


def upcycle(
    block: nn.Module,
    num_experts: int,
    k: int = 2,
    *,
    router: AbstractRouter | None = None,
    noise: float = 0.0,
) -> MoE:
    """Make a sparse layer of a dense feed-forward block, with the same output at the start.

    All experts are copies of the block, and the weights of a token's experts sum to 1, so that sum_k w_k f(x)
    is f(x) to rounding, whatever the router chooses. Then training makes the experts differ.

    Parameters
    ----------
    block : a `FeedForward`; Sequential(Linear, activation, Linear); or a module of transformers with
        gate_proj, up_proj and down_proj, or another of `feed_forward.PLAIN_FORMS`. It is copied.
    num_experts, k : E, and how many of them a token takes.
    router : None: a `TopKRouter`, renormalised, its weights drawn anew. With another, the output is the
        block's only as far as that router's weights sum to 1 and no capacity drops a token.
    noise : every expert's weights get noise of this share of their standard deviation, of each matrix by
        itself. 0 is the paper's way: the router and the data make the experts differ.

    Raises
    ------
    ValueError : a block that is not known or does more than its weights say, an argument that does not fit,
        or k=1 without a router.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> block = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    >>> layer = upcycle(block, num_experts=6, k=2)
    >>> x = torch.randn(3, 5, 4)
    >>> bool((layer(x) - block(x)).abs().max() < 1e-6)
    True
    """
    check_whole("num_experts", num_experts, 1)
    check_number("noise", noise, 0)
    dense = read_dense(block)
    if router is None:
        router = _router(dense, num_experts, k)
    elif router.num_experts != num_experts or router.dim != dense.dim:
        raise ValueError(
            f"router must have dim={dense.dim} and num_experts={num_experts}; got dim={router.dim} and "
            f"num_experts={router.num_experts}"
        )
    experts = experts_of(
        _copies(dense.up_weight, num_experts, noise),
        _copies(dense.down_weight, num_experts, noise),
        None if dense.up_bias is None else _copies(dense.up_bias, num_experts, noise),
        None if dense.down_bias is None else _copies(dense.down_bias, num_experts, noise),
        activation=dense.activation,
        dropout=dense.dropout,
    )
    experts.requires_grad_()
    return MoE(router, experts).train(block.training)


def _router(dense: DenseWeights, num_experts: int, k: int) -> TopKRouter:
    if k == 1 and num_experts > 1:
        raise ValueError(
            "k must be at least 2 for the output to be the block's; got 1: its weight is a probability below "
            f"1, so the output would be smaller; take k=2, or accept that and give "
            f"router=TopKRouter({dense.dim}, {num_experts}, k=1)"
        )
    router = TopKRouter(dense.dim, num_experts, k)
    return router.to(dense.up_weight.device, dense.up_weight.dtype)


def _copies(tensor: Tensor, num_experts: int, noise: float) -> Tensor:
    """Give (E, ...) copies, each with its own noise."""
    stacked = tensor.detach().expand(num_experts, *tensor.shape)
    if not noise or tensor.numel() < 2:
        return stacked
    return stacked + noise * tensor.detach().std() * torch.randn_like(stacked)
