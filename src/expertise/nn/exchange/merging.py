"""A smaller layer whose experts are means of the old ones, weighted by what they were used for.

Letters of shapes: E experts, D model.
"""

from collections.abc import Sequence

import torch

from expertise.nn.exchange._parts import demand_moe, routings_of
from expertise.nn.exchange._regrouping import regroup
from expertise.nn.layer import MoE
from expertise.nn.routers._abstract import check_whole
from expertise.nn.routing import Routing

MERGEABLE = ("top_k", "dense", "sinkhorn", "top_p")  # routers whose one linear map is all that chooses


def merge(
    layer: MoE,
    groups: Sequence[Sequence[int]] | int,
    routings: Routing | Sequence[Routing] | None = None,
) -> MoE:
    """Make a layer with one expert for each group of old ones: their mean, weighted by load.

    The means are taken number by number, so the experts of a group should have come from one ancestor
    (upcycling, a common start): two that compute the same with their hidden values in another order have no
    useful mean.

    The router's row of a group is the weighted mean of its members' rows, and so are their biases and
    selection biases. The probability of a group should be the sum of its members', whose logit is
    log sum_i exp(l_i), not linear in x. With shares w_i and their entropy H(w) = -sum_i w_i log w_i,

        log sum_i exp(l_i) >= sum_i w_i l_i + H(w),   equal where w is the members' softmax

    (the variational form of log-sum-exp). So softmax routers get a bias that holds H(w); without it a group
    of m equal members would seem m times less probable than it was. Sigmoid scores stand alone and get none.

    An expert that stays alone keeps its weights bit for bit. A token takes min(k, groups) experts. Capacity
    settings and the shared expert stay; the old layer is not changed.

    Parameters
    ----------
    layer : with a router of `MERGEABLE`, without groups of its own.
    groups : each expert in exactly one, [[0, 3], [1], [2]]; or how many: then that many experts of largest
        load lead a group each, and every other joins the leader whose router row has the most similar
        direction (after Li et al. 2023, arXiv 2310.01334, who compare the logits).
    routings : what `record_routing` gave on typical data, or this layer's routings; the shares are its loads.
        None: members of a group count the same, and the first experts lead.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> from expertise.nn import Experts, TopKRouter
    >>> layer = MoE(TopKRouter(4, 4, k=2), Experts(4, 4, 8))
    >>> smaller = merge(layer, [[0, 3], [1], [2]])
    >>> smaller.experts.num_experts, torch.equal(smaller.experts.up_weight[1], layer.experts.up_weight[1])
    (3, True)
    """
    demand_moe(layer)
    router, E = layer.router, layer.router.num_experts
    if router.name not in MERGEABLE:
        raise ValueError(
            f"layer: merge knows the routers {', '.join(MERGEABLE)}; the layer has {router.name!r}"
        )
    if vars(router).get("groups") is not None:
        raise ValueError(
            f"layer: its router chooses within groups={vars(router)['groups']}, which would not stay of "
            "equal size; use prune, or set router.groups and router.groups_kept to None"
        )
    load_E = [1.0] * E
    if routings is not None:
        mine = routings_of(layer, routings)
        load_E = torch.stack([one.load_E for one in mine]).sum(0).double().tolist()
    if isinstance(groups, int):
        check_whole("groups", groups, 1, E)
        members = _groups(layer, load_E, groups)
    else:
        members = [list(group) for group in groups]
        _check_groups(members, E)
    return regroup(layer, members, [_shares(group, load_E) for group in members])


def _shares(group: Sequence[int], load_E: list[float]) -> list[float]:
    """Give the parts of a group's load; equal ones where nobody chose any."""
    total = sum(load_E[e] for e in group)
    return [load_E[e] / total if total else 1 / len(group) for e in group]


def _groups(layer: MoE, load_E: list[float], n: int) -> list[list[int]]:
    rows_ED = layer.router._parameters["weight_ED"]
    assert rows_ED is not None
    directions_ED = torch.nn.functional.normalize(rows_ED.detach().double(), dim=1)
    alike_EE = directions_ED @ directions_ED.T
    leaders = sorted(sorted(range(len(load_E)), key=lambda e: (-load_E[e], e))[:n])
    found: dict[int, list[int]] = {leader: [] for leader in leaders}
    for e, nearest in enumerate(alike_EE[:, leaders].argmax(1).tolist()):
        found[e if e in found else leaders[nearest]].append(e)
    return list(found.values())


def _check_groups(groups: list[list[int]], E: int) -> None:
    named = [e for group in groups for e in group]
    if not all(groups) or sorted(named) != list(range(E)):
        raise ValueError(
            f"groups must name each expert from 0 to {E - 1} exactly once, in groups that are not empty; "
            f"got {groups}"
        )
