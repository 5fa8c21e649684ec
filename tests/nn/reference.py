"""Slow, obvious twins of the routers and of the sparse layer: loops over tokens and experts.

A choice is, for each token, a dictionary from the experts that it takes to their weights. Letters: T tokens,
D model, E experts, K experts a token may choose.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from expertise.nn.dispatch import Capacity
from expertise.nn.layer import MoE
from expertise.nn.routers import AbstractRouter
from expertise.nn.routing import Routing

Choice = list[dict[int, float]]


def logits_of(x_TD: Tensor, weight_ED: Tensor) -> list[list[float]]:
    rows, weights = x_TD.double().tolist(), weight_ED.detach().double().tolist()
    return [[sum(a * b for a, b in zip(row, weight, strict=True)) for weight in weights] for row in rows]


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def best(values: list[float], k: int) -> list[int]:
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def score(router: AbstractRouter, row: list[float]) -> list[float]:
    return [sigmoid(value) for value in row] if router.activation == "sigmoid" else softmax(row)  # type: ignore[attr-defined]


def over_sum(weights: dict[int, float]) -> dict[int, float]:
    return {e: weight / sum(weights.values()) for e, weight in weights.items()}


# ---- the routers, each as its paper defines it


def dense(router, x_TD, ids_T):
    return [dict(enumerate(score(router, row))) for row in logits_of(x_TD, router.weight_ED)]


def top_k(router, x_TD, ids_T):
    choice = []
    for row in logits_of(x_TD, router.weight_ED):
        scores = score(router, row)
        bias = [0.0] * len(row) if router.selection_bias_E is None else router.selection_bias_E.tolist()
        wish = [a + b for a, b in zip(scores, bias, strict=True)]
        if router.groups is not None:
            size = len(row) // router.groups
            of_group = [sum(sorted(wish[g * size :][:size])[-2:]) for g in range(router.groups)]
            kept = best(of_group, router.groups_kept)
            wish = [value if e // size in kept else -math.inf for e, value in enumerate(wish)]
        weights = {e: scores[e] for e in best(wish, router.k)}
        if router.renormalize:
            weights = over_sum(weights)
        choice.append({e: router.scale * weight for e, weight in weights.items()})
    return choice


def gates(row: list[float], k: int) -> dict[int, float]:
    """Shazeer et al. 2017, eq. 3 and 5; with k=1 the softmax is over all."""
    weights = {e: softmax(row)[e] for e in best(row, k)}
    return weights if k == 1 else over_sum(weights)


def noisy_top_k(router, x_TD, ids_T):
    return [gates(row, router.k) for row in logits_of(x_TD, router.weight_ED)]


def expert_choice(router, x_TD, ids_T):
    probs = [softmax(row) for row in logits_of(x_TD, router.weight_ED)]
    choice: Choice = [{} for _ in probs]
    C = min(len(probs), math.ceil(len(probs) * router.capacity_factor / router.num_experts - 1e-9))
    for e in range(router.num_experts):
        column = [row[e] for row in probs]
        if router.inference == "thresholds" and not router.training:
            takes = [t for t, value in enumerate(column) if value > router.threshold_E[e].item()]
        else:
            takes = best(column, C)
        for t in takes:
            choice[t][e] = column[t]
    return choice


def hash_(router, x_TD, ids_T):
    choice = []
    for number in ids_T.tolist():
        numbers = [hashed(number, e, router.seed) * router.num_experts + e for e in range(router.num_experts)]
        choice.append(dict.fromkeys(best(numbers, router.k), 1 / router.k))
    return choice


def hashed(number: int, expert: int, seed: int) -> int:
    low, high = number % 2**32, (number >> 32) % 2**32
    return mix(mix(low ^ mix(high ^ mix(seed))) ^ mix(expert + 1))


def mix(h: int) -> int:
    h ^= h >> 16
    h = h * 0x2C1B3C6D % 2**32
    h ^= h >> 12
    h = h * 0x297A2D39 % 2**32
    return h ^ h >> 15


def sinkhorn(router, x_TD, ids_T):
    rows = logits_of(x_TD, router.weight_ED)
    plan = [[math.exp(value - max(row)) for value in row] for row in rows]
    for _ in range(router.iterations if router.training else 0):
        plan = [[value / sum(row) for value in row] for row in plan]
        totals = [sum(column) for column in zip(*plan, strict=True)]
        plan = [[value / total for value, total in zip(row, totals, strict=True)] for row in plan]
    return [
        {e: score(router, row)[e] for e in best(chosen, router.k)}
        for row, chosen in zip(rows, plan, strict=True)
    ]


def base(router, x_TD, ids_T):
    rows = logits_of(x_TD, router.weight_ED)
    experts = balanced(rows) if router.training else [best(row, 1)[0] for row in rows]
    return [{e: sigmoid(row[e])} for e, row in zip(experts, rows, strict=True)]


def balanced(rows: list[list[float]]) -> tuple[int, ...]:
    """Try every assignment."""
    T, E = len(rows), len(rows[0]) if rows else 1

    def total(experts: tuple[int, ...]) -> float:
        return sum(row[e] for row, e in zip(rows, experts, strict=True))

    even = (
        experts
        for experts in itertools.product(range(E), repeat=T)
        if all(T // E <= experts.count(e) <= -(-T // E) for e in range(E))
    )
    return max(even, key=total)


def top_p(router, x_TD, ids_T):
    choice = []
    for row in logits_of(x_TD, router.weight_ED):
        probs = softmax(row)
        weights: dict[int, float] = {}
        for e in best(probs, router.max_experts or len(probs)):
            if sum(weights.values()) < router.p:
                weights[e] = probs[e]
        choice.append(over_sum(weights) if router.renormalize else weights)
    return choice


def hierarchical(router, x_TD, ids_T):
    choice = []
    size = router.num_experts // router.groups
    within = logits_of(x_TD, router.weight_ED)
    for group_row, row in zip(logits_of(x_TD, router.group_weight_GD), within, strict=True):
        weights = {}
        for g, group_weight in gates(group_row, router.groups_kept).items():
            for j, weight in gates(row[g * size :][:size], router.k).items():
                weights[g * size + j] = group_weight * weight
        choice.append(weights)
    return choice


def sampled(router, x_TD, ids_T):
    return [{best(row, 1)[0]: 1.0} for row in logits_of(x_TD, router.weight_ED)]


ROUTES: dict[str, Callable[..., Choice]] = {
    "dense": dense,
    "top_k": top_k,
    "noisy_top_k": noisy_top_k,
    "expert_choice": expert_choice,
    "hash": hash_,
    "sinkhorn": sinkhorn,
    "base": base,
    "top_p": top_p,
    "hierarchical": hierarchical,
    "sampled": sampled,
}


def choice_of(routing: Routing) -> Choice:
    """Read the same out of a routing; asserts that no token names an expert twice."""
    choice: Choice = []
    for experts, weights in zip(routing.experts_TK.tolist(), routing.weights_TK.tolist(), strict=True):
        named = [e for e in experts if e < routing.num_experts]
        assert len(set(named)) == len(named)
        choice.append({e: w for e, w in zip(experts, weights, strict=True) if e < routing.num_experts})
    return choice


# ---- the layer


def kept(routing: Routing, capacity: Capacity) -> list[list[bool]]:
    """Let the pairs claim their places one after the other."""
    T, K = routing.experts_TK.shape
    E = routing.num_experts
    length = routing.shape[-1] if capacity.per_sequence else T
    experts, real = routing.experts_TK.tolist(), [True] * T
    if routing.mask_T is not None:
        real = routing.mask_T.tolist()
    tokens = list(range(T))
    if capacity.order == "priority":
        tokens.sort(key=lambda t: -routing.weights_TK[t].max().item())
    taken: dict[tuple[int, int], int] = {}
    result = [[False] * K for _ in range(T)]
    for k in range(K):
        for t in tokens:
            place = (t // length, experts[t][k])
            n_real = sum(real[place[0] * length :][:length])
            limit = capacity.tokens
            if limit is None:
                limit = math.ceil(capacity.factor * n_real * K / E - 1e-9)
            if experts[t][k] < E and taken.get(place, 0) < limit:
                taken[place] = taken.get(place, 0) + 1
                result[t][k] = True
    return result


def layer(moe: MoE, x: Tensor, routing: Routing, capacity: Capacity | None = None) -> Tensor:
    """Sum weight x expert(token) over the experts of each token that were not full: (..., D)."""
    x_TD = x.reshape(-1, x.shape[-1])
    stays = None if capacity is None else kept(routing, capacity)
    rows = []
    for t in range(len(x_TD)):
        row = torch.zeros_like(x_TD[t])
        for k, e in enumerate(routing.experts_TK[t].tolist()):
            if e < routing.num_experts and (stays is None or stays[t][k]):
                row = row + routing.weights_TK[t, k] * moe.experts.one(e, x_TD[t])
        rows.append(row)
    return torch.stack(rows).reshape(x.shape) if rows else x.new_zeros(x.shape)
