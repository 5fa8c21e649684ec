"""Slow, obvious versions of the losses that keep experts in use: plain loops over tokens and experts."""

import math
from collections.abc import Sequence
from itertools import product

import torch

from expertise.nn.routing import Routing

Rows = list[list[float]]


def real_tokens(routing: Routing) -> list[int]:
    T = len(routing.experts_TK)
    return [t for t in range(T) if routing.mask_T is None or bool(routing.mask_T[t])]


def normalised(routing: Routing) -> Rows:
    """Each token's probabilities over their sum; all 0 where that is 0."""
    rows = []
    for row in routing.probs_TE.tolist():
        total = sum(row)
        rows.append([p / total if total else 0.0 for p in row])
    return rows


def load_balance(routing: Routing) -> float:
    E, probs, real = routing.num_experts, normalised(routing), real_tokens(routing)
    chosen = [e for row in routing.experts_TK.tolist() for e in row if e < E]
    if not chosen:
        return 0.0
    loss = 0.0
    for e in range(E):
        f = sum(one == e for one in chosen) / len(chosen)
        P = sum(probs[t][e] for t in real) / len(real)
        loss += E * f * P
    return loss


def squared_variation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    if mean == 0:
        return 0.0
    return sum((value - mean) ** 2 for value in values) / len(values) / mean**2


def importance(routing: Routing) -> float:
    total = [0.0] * routing.num_experts
    for row, weights in zip(routing.experts_TK.tolist(), routing.weights_TK.tolist(), strict=True):
        for e, weight in zip(row, weights, strict=True):
            if e < routing.num_experts:
                total[e] += weight
    return squared_variation(total)


def router_z(routing: Routing) -> float:
    assert routing.logits_TE is not None
    rows = [routing.logits_TE.tolist()[t] for t in real_tokens(routing)]
    squares = [math.log(sum(math.exp(logit) for logit in row)) ** 2 for row in rows]
    return sum(squares) / len(squares) if squares else 0.0


def entropy(routing: Routing) -> float:
    probs, real = normalised(routing), real_tokens(routing)
    total = 0.0
    for t, e in product(real, range(routing.num_experts)):
        if probs[t][e] > 0:
            total -= probs[t][e] * math.log(probs[t][e])
    return total / len(real) if real else 0.0


def sequence_balance(routing: Routing, k: int) -> float:
    """DeepSeek-V3, equations 17 to 20; every real token has k experts."""
    E, probs, real = routing.num_experts, normalised(routing), set(real_tokens(routing))
    length = routing.shape[-1] if routing.shape else 1
    losses = []
    for start in range(0, len(probs), max(length, 1)):
        tokens = [t for t in range(start, start + length) if t in real]
        if not tokens:
            continue
        loss = 0.0
        for e in range(E):
            f = P = 0.0
            for t in tokens:
                best = sorted(range(E), key=lambda j, t=t: -probs[t][j])[:k]
                f += E / (k * len(tokens)) * (e in best)
                P += probs[t][e] / len(tokens)
            loss += f * P
        losses.append(loss)
    return sum(losses) / len(losses) if losses else 0.0


def mean_of(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(sum(values) / len(values))
