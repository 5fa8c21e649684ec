"""Slow, obvious versions of the video-level models: float64, loops over videos and classes.

Every twin takes the weights by the names that the model gives them, the features (B, D) and the factor on
them. It returns the probabilities (B, C), and those of earlier stages.
"""

from collections.abc import Callable
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]
Answer = tuple[Array, list[Array]]
Twin = Callable[[Weights, Array, float, bool], Answer]


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + np.exp(-value))


def look(weights: Weights, x: Array, scale: float) -> Array:
    """Features times the scale, through the projection where there is one."""
    projection = weights.get("seen.projection_RD")
    rows = [scale * row for row in x]
    return np.stack(rows if projection is None else [projection @ row for row in rows])


def mixture(weights: Weights, name: str, by_gate: Array, by_expert: Array) -> Array:
    """p_bc = sum_m g_m sigmoid(e_m), the gate a softmax over one logit more than there are experts."""
    gate, expert = weights[f"{name}.gate_GCH"], weights[f"{name}.expert_MCU"]
    bias = weights[f"{name}.expert_bias_MC"]
    p = np.zeros((len(by_gate), gate.shape[1]))
    for b in range(len(p)):
        for c in range(p.shape[1]):
            powers = [np.exp(gate[g, c] @ by_gate[b]) for g in range(len(gate))]
            for m in range(len(expert)):
                vote = sigmoid(expert[m, c] @ by_expert[b] + bias[m, c])
                p[b, c] += powers[m] / sum(powers) * vote
    return p


def context_gate(weights: Weights, name: str, x: Array, training: bool) -> Array:
    """sigmoid(BN(x W)): by the moments of the batch in training, else by the running ones."""
    first, second = weights.get(f"{name}.first_KN"), weights[f"{name}.second_NK"]
    scale, shift = weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"]
    logits = np.stack([second @ (row if first is None else first @ row) for row in x])
    opened = np.zeros_like(logits)
    for n in range(logits.shape[1]):
        mean, variance = weights[f"{name}.norm.running_mean"][n], weights[f"{name}.norm.running_variance"][n]
        if training:
            mean = sum(logits[:, n]) / len(x)
            variance = sum((value - mean) ** 2 for value in logits[:, n]) / len(x)
        for b in range(len(x)):
            opened[b, n] = sigmoid(scale[n] * (logits[b, n] - mean) / sqrt(variance + 1e-3) + shift[n])
    return opened


def context_gated(weights: Weights, x: Array, scale: float, training: bool) -> Answer:
    gated = x * context_gate(weights, "input_gate", scale * x, training)
    seen = look(weights, gated, scale)
    mixed = mixture(weights, "mixture", seen, seen)
    return mixed * context_gate(weights, "output_gate", mixed, training), []


def chain(weights: Weights, x: Array, scale: float, training: bool) -> Answer:
    features = look(weights, x, scale)
    stages = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("stages."))
    answers: list[Array] = []
    for stage in range(stages):
        rows = []
        for b in range(len(x)):
            row = list(features[b])
            for before in range(stage):
                root = 0.2 * np.sqrt(answers[before][b] + 1e-6)
                row += list(weights[f"told.{before}.weight_SC"] @ root + weights[f"told.{before}.bias_S"])
            rows.append(row)
        answers.append(mixture(weights, f"stages.{stage}", np.array(rows), np.array(rows)))
    return answers[-1], answers[:-1]


def shared_expert(weights: Weights, x: Array, scale: float, training: bool) -> Answer:
    """One feature of D values; the scale does not matter. Two layers at most."""
    projection = weights.get("trunk.projection_RD")
    hidden = []
    for row in x:
        row = row / sqrt(max(sum(row**2), 1e-12)) * sqrt(len(row))
        hidden.append(row if projection is None else projection @ row)
    layers = sum(name.startswith("trunk.weights.") for name in weights)
    for layer in range(layers):
        name = f"trunk.norms.{layer}"
        before = np.stack([weights[f"trunk.weights.{layer}"] @ row for row in hidden])
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_variance"]
        if training:
            mean, variance = before.mean(0), ((before - before.mean(0)) ** 2).mean(0)
        given = (before - mean) / np.sqrt(variance + 1e-3) * weights[f"{name}.weight"] + weights[
            f"{name}.bias"
        ]
        given = np.vectorize(lambda value: value * (1 + erf(value / sqrt(2))) / 2)(given)
        hidden = list(given + np.stack(hidden) if layer else given)
    u = np.stack(hidden)
    return mixture(weights, "mixture", u, u), []


def neighbours(
    keys: Array, labels: list[list[int]], u: Array, num_classes: int, asked: int, temperature: float
) -> Array:
    """What the nearest remembered videos say, video by video."""
    said = np.zeros((len(u), num_classes))
    for b, row in enumerate(u):
        cosines = [float(key @ row / np.linalg.norm(row)) for key in keys]
        nearest = sorted(range(len(keys)), key=lambda n: -cosines[n])[:asked]
        powers = [np.exp(cosines[n] / temperature) for n in nearest]
        for n, power in zip(nearest, powers, strict=True):
            for label in labels[n]:
                said[b, label] += power / sum(powers)
    return said


TWINS: dict[str, Twin] = {
    "ContextGatedMoeModel": context_gated,
    "ChainMoeModel": chain,
    "SharedExpertMoeModel": shared_expert,
}


def cross_entropy(p: Array, labels: Array) -> float:
    """Mean over the videos of -sum_c [y log(p + 1e-5) + (1 - y) log(1 - p + 1e-5)]."""
    total = 0.0
    for row, truth in zip(p, labels, strict=True):
        for q, y in zip(row, truth, strict=True):
            total -= y * np.log(q + 1e-5) + (1 - y) * np.log(1 - q + 1e-5)
    return total / len(p)


def slopes(function: Callable[[], float], values: Array, step: float = 1e-5) -> Array:
    """The derivative of a function of an array by each of its values: central differences, in place."""
    result = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        kept = values[index]
        values[index] = kept + step
        above = function()
        values[index] = kept - step
        below = function()
        values[index] = kept
        result[index] = (above - below) / (2 * step)
    return result
