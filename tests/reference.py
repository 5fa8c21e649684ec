"""Slow, obvious versions of what the package does fast: loops, one number at a time."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Rows = Sequence[Sequence[float]]


def _ranked(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda c: -scores[c])


def average_precision(scores: Sequence[float], hits: Sequence[bool], positives: int) -> float:
    """Precision at the place of each hit, summed, over the number of all positives."""
    total = 0.0
    seen = 0
    for place, entry in enumerate(_ranked(scores), start=1):
        if hits[entry]:
            seen += 1
            total += seen / place
    return total / positives


def gap(predictions: Rows, labels: Sequence[Sequence[bool]], top_k: int = 20) -> float:
    """Global average precision: the best entries of all videos in one list."""
    scores, hits, positives = [], [], 0
    for row, truth in zip(predictions, labels, strict=True):
        for c in _ranked(row)[:top_k]:
            scores.append(row[c])
            hits.append(bool(truth[c]))
        positives += sum(map(bool, truth))
    return average_precision(scores, hits, positives)


def class_average_precisions(
    predictions: Rows, labels: Sequence[Sequence[bool]], top_k: int = 20
) -> dict[int, float]:
    """Average precision of each class that has a positive, over its entries among the best of each video."""
    result = {}
    for c in range(len(predictions[0])):
        scores, hits, positives = [], [], 0
        for row, truth in zip(predictions, labels, strict=True):
            positives += bool(truth[c])
            if c in _ranked(row)[:top_k]:
                scores.append(row[c])
                hits.append(bool(truth[c]))
        if positives:
            result[c] = average_precision(scores, hits, positives)
    return result


def perr(predictions: Rows, labels: Sequence[Sequence[bool]]) -> float:
    """Precision at equal recall rate: the share of labels among the n best scores, n the number of labels."""
    total = 0.0
    for row, truth in zip(predictions, labels, strict=True):
        n = sum(map(bool, truth))
        right = sum(1 for c in _ranked(row)[:n] if truth[c] and row[c] > 0)
        total += right / n if n else 0.0
    return total / len(predictions)


def hit_at_1(predictions: Rows, labels: Sequence[Sequence[bool]]) -> float:
    """Share of the videos whose best score is one of their labels."""
    right = sum(bool(truth[_ranked(row)[0]]) for row, truth in zip(predictions, labels, strict=True))
    return right / len(predictions)


def moe_probabilities(x: Array, gate: Array, expert: Array, bias: Array) -> Array:
    """Give the mixture's probabilities (B, C) by loops over videos and classes.

    x (B, D); gate (M + 1, C, D); expert (M, C, D); bias (M, C).
    """
    p = np.zeros((len(x), gate.shape[1]))
    for b in range(len(x)):
        for c in range(gate.shape[1]):
            logits = [float(weights @ x[b]) for weights in gate[:, c]]
            largest = max(logits)
            total = sum(np.exp(logit - largest) for logit in logits)
            for m in range(len(expert)):
                vote = 1 / (1 + np.exp(-(expert[m, c] @ x[b] + bias[m, c])))
                p[b, c] += np.exp(logits[m] - largest) / total * vote
    return p


def moe_gradients(x: Array, labels: Array, gate: Array, expert: Array, bias: Array) -> list[Array]:
    """Give the gradients of the mean cross entropy by gate, expert and bias: the chain rule, term by term."""
    result = [np.zeros_like(gate), np.zeros_like(expert), np.zeros_like(bias)]
    p = moe_probabilities(x, gate, expert, bias)
    M = len(expert)
    for b in range(len(x)):
        for c in range(gate.shape[1]):
            y, q = bool(labels[b, c]), p[b, c]
            by_p = (-1 / (q + 1e-5) if y else 1 / (1 - q + 1e-5)) / len(x)
            logits = np.array([weights @ x[b] for weights in gate[:, c]])
            g = np.exp(logits - logits.max())
            g /= g.sum()
            votes = [1 / (1 + np.exp(-(expert[m, c] @ x[b] + bias[m, c]))) for m in range(M)]
            for m in range(M + 1):
                says = votes[m] if m < M else 0.0
                by_gate = sum(
                    (votes[j] if j < M else 0.0) * g[j] * ((1.0 if j == m else 0.0) - g[m])
                    for j in range(M + 1)
                )
                assert abs(by_gate - g[m] * (says - q)) < 1e-9
                result[0][m, c] += by_p * by_gate * x[b]
            for m in range(M):
                by_logit = by_p * g[m] * votes[m] * (1 - votes[m])
                result[1][m, c] += by_logit * x[b]
                result[2][m, c] += by_logit
    return result
