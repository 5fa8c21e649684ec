"""Who goes where: one sort of all pairs of token and expert, used on the way in and on the way out.

Letters of shapes: T tokens, D model, E experts, K experts a token may choose, P pairs of a token and an
expert that it chose, sorted by expert.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from expertise.nn.routing import Routing, count

ORDERS = ("position", "priority")


class Dispatch(NamedTuple):
    """Three integer arrays: who goes where, and where its result is found.

    ``tokens_P`` (P,) int64 is the token of each pair; pairs are sorted by expert, and those that go nowhere
    stand at the end. ``offsets_E`` (E,) int32 is where each expert's pairs end. ``places_TK`` (T, K) int64 is
    the row of each token's pairs in that order. ``kept_TK`` (T, K) bool is False where the expert was full;
    None without a capacity.
    """

    tokens_P: Tensor
    offsets_E: Tensor
    places_TK: Tensor
    kept_TK: Tensor | None


class Capacity(NamedTuple):
    """How many tokens an expert takes at most, and who comes first.

    ``tokens`` is a fixed number; or None, and it is ceil(``factor`` x real tokens x K / E). ``order`` is
    "position": all first choices in the order of the tokens, then all second ones (GShard, Algorithm 1); or
    "priority": tokens with the largest weight first (Riquelme et al. 2021, arXiv 2106.05974, section 4.1).
    With ``per_sequence`` each sequence, the last but one dimension of x, has its own.
    """

    factor: float
    tokens: int | None = None
    order: str = "position"
    per_sequence: bool = False


def dispatch(routing: Routing, capacity: Capacity | None = None) -> Dispatch:
    """Sort the pairs by expert, and leave out those over the capacity.

    >>> experts_TK = torch.tensor([[1], [0], [1], [2]])  # 2 is nobody: there are two experts
    >>> weights = torch.tensor([[0.9], [0.8], [0.7], [0.0]])
    >>> routing = Routing(2, (4,), torch.full((4, 2), 0.5), experts_TK, weights)
    >>> plan = dispatch(routing)
    >>> plan.tokens_P.tolist(), plan.offsets_E.tolist(), plan.places_TK.flatten().tolist()
    ([1, 0, 2, 3], [1, 3], [1, 0, 2, 3])
    """
    T, K = routing.experts_TK.shape
    E = routing.num_experts
    # pairs in the order of their claim: all first choices before all second ones
    by_claim_KT = routing.experts_TK.T
    token_of_claim = None
    if capacity is not None and capacity.order == "priority":
        token_of_claim = routing.weights_TK.detach().amax(-1).argsort(descending=True, stable=True)
        by_claim_KT = by_claim_KT[:, token_of_claim]
    key_P = by_claim_KT.flatten()
    if capacity is None:
        order_P = key_P.argsort(stable=True)
        load_E = count(key_P, E)
        kept_P = None
    else:
        order_P, kept_P = _within_capacity(routing, capacity, key_P, token_of_claim)
        load_E = count(torch.where(kept_P, key_P, E), E)
    places_P = torch.empty_like(order_P).scatter_(0, order_P, _arange(T * K, order_P))
    tokens_P = order_P if K == 1 else order_P % T
    if token_of_claim is not None:
        claim_of_token = torch.empty_like(token_of_claim).scatter_(0, token_of_claim, _arange(T, tokens_P))
        tokens_P = token_of_claim[tokens_P]
        places_TK = places_P.view(K, T)[:, claim_of_token].T.contiguous()
        kept_TK = None if kept_P is None else kept_P.view(K, T)[:, claim_of_token].T
    else:
        places_TK = places_P.view(K, T).T.contiguous()
        kept_TK = None if kept_P is None else kept_P.view(K, T).T
    most = T * K if routing.max_pairs is None else routing.max_pairs
    if most < T * K:
        # one more row than can be needed: it names nobody, and all that were cut away point to it
        tokens_P = tokens_P[: most + 1]
        places_TK = places_TK.clamp(max=most)
    return Dispatch(tokens_P, load_E.cumsum(0).to(torch.int32), places_TK, kept_TK)


def _within_capacity(
    routing: Routing, capacity: Capacity, key_P: Tensor, token_of_claim: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sort; find each pair's rank within its expert; move those over the capacity to the end."""
    T, K = routing.experts_TK.shape
    E = routing.num_experts
    length = routing.shape[-1] if capacity.per_sequence and routing.shape else T
    sequences = T // length if length else 1
    if sequences > 1:  # each pair of an expert and a sequence fills up by itself
        token_P = _arange(T * K, key_P) % T
        sequence_P = (token_P if token_of_claim is None else token_of_claim[token_P]) // length
        key_P = key_P * sequences + sequence_P
    order_P = key_P.argsort(stable=True)
    sorted_P = key_P[order_P]
    load = count(key_P.clamp(max=E * sequences), E * sequences)
    start = F.pad(load.cumsum(0), (1, 0))
    bin_P = sorted_P.clamp(max=E * sequences)
    rank_P = _arange(T * K, key_P) - start[bin_P]
    limit_P = _limit(routing, capacity, sequences, length)[sorted_P % sequences]
    kept_sorted_P = (rank_P < limit_P) & (sorted_P < E * sequences)
    place = kept_sorted_P.cumsum(0)
    rest = place[-1] + (~kept_sorted_P).cumsum(0) if T * K else place
    compact_P = torch.where(kept_sorted_P, place, rest) - 1
    order_kept_P = torch.empty_like(order_P).scatter_(0, compact_P, order_P)
    kept_P = torch.empty_like(kept_sorted_P).scatter_(0, order_P, kept_sorted_P)
    return order_kept_P, kept_P


def _limit(routing: Routing, capacity: Capacity, sequences: int, length: int) -> Tensor:
    """Give how many tokens of each sequence an expert takes, (sequences,) int64."""
    device = routing.experts_TK.device
    if capacity.tokens is not None:
        return torch.full((sequences,), capacity.tokens, device=device)
    if routing.mask_T is None:
        real = torch.full((sequences,), length, device=device)
    else:
        real = routing.mask_T.view(sequences, -1).sum(-1)
    share = capacity.factor * routing.experts_TK.shape[1] / routing.num_experts
    # 50 x 1.5 / 5 is 15 in float64; in float32 it is a little more
    return (real.double() * share - 1e-9).ceil().to(torch.int64)


def _arange(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, device=like.device)


def combine(y_PD: Tensor, places_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Bring the experts' outputs back to their tokens: sum_k w_k y_k, (T, D).

    Parameters
    ----------
    y_PD : (P, D), sorted by expert; rows of pairs that went nowhere are 0.
    places_TK, weights_TK : (T, K).
    """
    weights_TK = weights_TK.to(y_PD.dtype)
    if places_TK.shape[1] == 1:
        return y_PD.index_select(0, places_TK[:, 0]) * weights_TK
    return F.embedding_bag(places_TK, y_PD, mode="sum", per_sample_weights=weights_TK)
