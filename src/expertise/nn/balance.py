"""Losses that keep the experts in use: functions of a `Routing`, to be added to the loss of the task.

Each takes one routing, or those of several layers, and then gives the mean of the layers' losses. (Means of f
and P over layers, taken before their product, would find nothing wrong with two layers that collapsed onto
different experts.) Each gives 0 where no token is real.

Letters of shapes: T tokens, E experts, K experts a token may choose, B sequences, L tokens of a sequence.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from expertise.nn._ranks import Group, sum_over_ranks
from expertise.nn.routing import Routing, count

__all__ = [
    "entropy_loss",
    "importance_loss",
    "load_balance_loss",
    "load_loss",
    "router_z_loss",
    "sequence_balance_loss",
]

Routings = Routing | Sequence[Routing]


def load_balance_loss(routing: Routings, group: Group = None) -> Tensor:
    """Give E sum_i f_i P_i: 1 where load and probability are spread evenly (Fedus et al. 2021, eq. 4-6).

    f_i is expert i's part of all choices and has no gradient. P_i is the mean of its probability over all
    real tokens, chosen or not; scores of sigmoid are first divided by their sum (DeepSeek-V3, arXiv
    2412.19437, eq. 19-20). 1 is not the least possible value: f = (.6, .4) and P = (.31, .69) give .924.

    Parameters
    ----------
    routing : of one layer, or of several.
    group : process group of torch.distributed, or True for the default one. The choices are then counted over
        all its ranks, since ranks that each use other experts are in balance together (Qiu et al. 2025,
        arXiv 2501.11873). P stays local, so the mean of the ranks' losses, and of their gradients as
        DistributedDataParallel takes it, is that of the whole batch.

    Returns
    -------
    number of no dimension, with gradient through P.

    Raises
    ------
    ValueError : no routing, or a group without torch.distributed.

    Examples
    --------
    Both tokens choose expert 0: f = (1, 0), P = (.75, .25), and 2 (1 x .75 + 0 x .25) = 1.5.

    >>> probs_TE = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    >>> routing = Routing(2, (2,), probs_TE, torch.tensor([[0], [0]]), probs_TE[:, :1])
    >>> round(load_balance_loss(routing).item(), 6)
    1.5
    """
    routings = _several(routing)
    here = [torch.cat([one.load_E, one.num_tokens[None]]) for one in routings]
    counts, ranks = sum_over_ranks(here, group)
    losses = []
    for one, total in zip(routings, counts, strict=True):
        # the mean over ranks of these sums is the mean over all real tokens, however padding is spread
        P_E = shares(one).sum(0) * ranks / total[-1].clamp(min=1)
        f_E = total[:-1].to(P_E.dtype) / total[:-1].sum().clamp(min=1)
        losses.append(one.num_experts * (f_E * P_E).sum())
    return _mean(losses)


def importance_loss(routing: Routings) -> Tensor:
    """Give the squared coefficient of variation of the experts' importance (Shazeer et al. 2017, eq. 6-7).

    Importance is the sum of an expert's weights over the tokens. Variation is population variance over
    squared mean: 0 at balance, E - 1 where one expert has all.

    Parameters
    ----------
    routing : of one layer, or of several.

    Returns
    -------
    number of no dimension.

    Raises
    ------
    ValueError : no routing.

    Examples
    --------
    Importance is (3, 1): mean 2, variance 1, and 1 / 2^2 = .25.

    >>> weights_TK = torch.tensor([[1.0], [2.0], [1.0]])
    >>> routing = Routing(2, (3,), torch.full((3, 2), 0.5), torch.tensor([[0], [0], [1]]), weights_TK)
    >>> importance_loss(routing).item()
    0.25
    """
    return _mean([_squared_variation(one.importance_E) for one in _several(routing)])


def load_loss(routing: Routings) -> Tensor:
    """Give the squared coefficient of variation of the smooth load (Shazeer et al. 2017, eq. 11).

    The load itself is a count and has no gradient. Its smooth estimate sums over the tokens the probability
    that the expert is chosen, were the noise on its logit drawn again.

    Parameters
    ----------
    routing : of one layer with noisy_top_k, or with hierarchical and its noise, or of several.

    Returns
    -------
    number of no dimension.

    Raises
    ------
    ValueError : no routing, or one without ``smooth_load_E``.

    Examples
    --------
    >>> probs_TE = torch.tensor([[0.9, 0.1]])
    >>> routing = Routing(2, (1,), probs_TE, torch.tensor([[0]]), probs_TE[:, :1],
    ...                   smooth_load_E=torch.tensor([0.75, 0.25]))
    >>> load_loss(routing).item()  # mean .5, variance .0625
    0.25
    """
    losses = []
    for one in _several(routing):
        if one.smooth_load_E is None:
            raise ValueError(
                "load_loss(routing) needs smooth_load_E, which the router noisy_top_k gives (hierarchical "
                "too, with noisy=True); got None; use load_balance_loss or importance_loss with this router"
            )
        losses.append(_squared_variation(one.smooth_load_E))
    return _mean(losses)


def router_z_loss(routing: Routings) -> Tensor:
    """Give the mean over real tokens of logsumexp(logits)^2 (Zoph et al. 2022, ST-MoE, eq. 5).

    It keeps the logits small, where float32 is fine; 1e-3 is the usual factor.

    Parameters
    ----------
    routing : of one layer, or of several.

    Returns
    -------
    number of no dimension.

    Raises
    ------
    ValueError : no routing, or one without logits, as hash gives it.

    Examples
    --------
    >>> logits_TE = torch.tensor([[1.0, 3.0], [2.0, 6.0]]).log()  # logsumexp: log 4 and log 8
    >>> probs_TE = logits_TE.softmax(-1)
    >>> routing = Routing(2, (2,), probs_TE, torch.tensor([[1], [1]]), probs_TE[:, 1:], logits_TE=logits_TE)
    >>> round(router_z_loss(routing).item(), 4)  # (1.3863^2 + 2.0794^2) / 2
    3.1229
    """
    losses = []
    for one in _several(routing):
        logits_TE = one.logits_TE
        if logits_TE is None:
            raise ValueError(
                "router_z_loss(routing) needs logits_TE; got None: this router (hash, for example) has no "
                "logits to keep small; leave the loss out for its layers"
            )
        if one.mask_T is not None:
            logits_TE = torch.where(one.mask_T[:, None], logits_TE, logits_TE.new_zeros(()))
        z_T = logits_TE.logsumexp(-1).square()
        losses.append((z_T if one.mask_T is None else z_T * one.mask_T).sum() / one.num_tokens.clamp(min=1))
    return _mean(losses)


def entropy_loss(routing: Routings) -> Tensor:
    """Give the mean over real tokens of the entropy of the probabilities, in nats.

    With the router top_p a small entropy means few experts a token (Huang et al. 2024, arXiv 2403.07652).

    Parameters
    ----------
    routing : of one layer, or of several.

    Returns
    -------
    number of no dimension, from 0 to log E.

    Raises
    ------
    ValueError : no routing.

    Examples
    --------
    >>> probs_TE = torch.tensor([[0.5, 0.5], [1.0, 0.0]])  # log 2 and 0
    >>> routing = Routing(2, (2,), probs_TE, torch.tensor([[0], [0]]), probs_TE[:, :1])
    >>> round(entropy_loss(routing).item(), 4)
    0.3466
    """
    return _mean([entropies(one).sum() / one.num_tokens.clamp(min=1) for one in _several(routing)])


def sequence_balance_loss(routing: Routings) -> Tensor:
    """Give the mean over sequences of sum_i f_i P_i within each (DeepSeek-V3, arXiv 2412.19437, eq. 17-20).

    f_i = E / (K L) x tokens of the sequence that have expert i among their K best scores, P_i the mean of
    its score over the sequence, after division by the token's sum. As in eq. 18 the best are those by score
    alone, without selection bias, groups or noise: for a plain top-k router the chosen ones.

    Parameters
    ----------
    routing : of one layer whose x was (..., L, D), or of several. A sequence is one row of L tokens; x of
        shape (T, D) is one sequence. Padding, and sequences of nothing else, are left out.

    Returns
    -------
    number of no dimension, with gradient through P.

    Raises
    ------
    ValueError : no routing.

    Examples
    --------
    In the first sequence both tokens choose expert 0, 2 (1 x .75 + 0 x .25) = 1.5; in the second one each,
    2 (.5 x .5 + .5 x .5) = 1; the whole batch would be 2 (.75 x .625 + .25 x .375) = 1.125.

    >>> probs_TE = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.2, 0.8]])
    >>> routing = Routing(2, (2, 2), probs_TE, torch.tensor([[0], [0], [0], [1]]), torch.ones(4, 1))
    >>> round(sequence_balance_loss(routing).item(), 6)  # (1.5 + 1) / 2
    1.25
    """
    return _mean([_sequence_balance(one) for one in _several(routing)])


def _sequence_balance(routing: Routing) -> Tensor:
    T, K = routing.experts_TK.shape
    E = routing.num_experts
    if T == 0:
        return routing.probs_TE.sum()
    L = routing.shape[-1] if routing.shape else 1
    B = T // L
    choices_T = routing.chosen_TK.sum(-1)
    best_TK = routing.probs_TE.detach().topk(K, -1).indices
    best_TK = torch.where(torch.arange(K, device=best_TK.device) < choices_T[:, None], best_TK, E)
    # one count of all pairs of a sequence and an expert; E + 1 bins a sequence, the last for nobody
    sequence_T = torch.arange(T, device=best_TK.device) // L
    load_BE = count(best_TK + (E + 1) * sequence_T[:, None], B * (E + 1)).view(B, E + 1)[:, :-1]
    if routing.mask_T is None:
        real_B = torch.full((B,), L, device=best_TK.device)
    else:
        real_B = routing.mask_T.view(B, L).sum(-1)
    P_BE = shares(routing).view(B, L, E).sum(1) / real_B[:, None].clamp(min=1)
    f_BE = E * load_BE.to(P_BE.dtype) / choices_T.view(B, L).sum(-1, keepdim=True).clamp(min=1)
    return (f_BE * P_BE).sum() / (real_B > 0).sum().clamp(min=1)


def shares(routing: Routing) -> Tensor:
    """Give the probabilities so that each real token's sum to 1, (T, E): softmax as it is."""
    probs_TE = routing.probs_TE
    return probs_TE / probs_TE.sum(-1, keepdim=True).clamp(min=torch.finfo(probs_TE.dtype).tiny)


def entropies(routing: Routing) -> Tensor:
    """Give each token's entropy over the experts, in nats: (T,); 0 for padding."""
    p_TE = shares(routing)
    # the floor keeps the gradient finite where a probability has become 0
    return -(p_TE * p_TE.clamp(min=torch.finfo(p_TE.dtype).tiny).log()).sum(-1)


def _squared_variation(values_E: Tensor) -> Tensor:
    mean = values_E.mean().clamp(min=torch.finfo(values_E.dtype).tiny)
    # divided first: the square of a small mean could be 0
    return (values_E / mean).var(correction=0)


def _several(routing: Routings) -> Sequence[Routing]:
    if not isinstance(routing, Sequence):  # one Routing; the check below names anything else
        routing = [routing]
    if len(routing) == 0:
        raise ValueError(
            "routing must be a Routing or a sequence of them; got an empty one: no layer ran, or the model "
            "ran outside the block of record_routing"
        )
    for one in routing:
        if not isinstance(one, Routing):
            raise ValueError(
                f"routing must be a Routing or a sequence of them; got a {type(one).__name__} among "
                "them; leave out soft layers, and of the pair y, routing give the routing alone"
            )
    return routing


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack([loss.to(losses[0].device) for loss in losses]).mean()
