"""Slow, obvious versions of what makes values of frames: NumPy, float64, loops over videos, frames and cells.

Every twin takes the weights by the names that the model gives them, the normalised frames (L, D) of each
video without padding, and whether the model is in training. It returns the values (B, F) of `encode`.
"""

from collections.abc import Callable
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]
Videos = list[Array]
Twin = Callable[[Weights, Videos, bool], Array]
EPSILON = 1e-3


def sigmoid(value: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-value))


def batch_norm(weights: Weights, rows: Array, training: bool) -> Array:
    """Normalise rows (N, F) by their own moments, or by the running ones."""
    mean, variance = weights["norm.running_mean"], weights["norm.running_variance"]
    if training:
        mean = sum(rows) / len(rows)
        variance = sum((row - mean) ** 2 for row in rows) / len(rows)
    result = np.zeros_like(rows)
    for i, row in enumerate(rows):
        result[i] = (row - mean) / np.sqrt(variance + EPSILON) * weights["norm.weight"] + weights["norm.bias"]
    return result


def tensorflow_lstm(kernels: list[Array], biases: list[Array], videos: Videos, cells: int) -> Array:
    """BasicLSTMCell as TensorFlow has it: kernels (I + H, 4 H), gates i, j, f, o; then state[-1].h."""
    result = np.zeros((len(videos), cells))
    for b, frames in enumerate(videos):
        states = [(np.zeros(cells), np.zeros(cells)) for _ in kernels]  # c and h of each layer
        for frame in frames:
            seen = frame
            for layer, (c, h) in enumerate(states):
                gates = np.concatenate([seen, h]) @ kernels[layer] + biases[layer]
                i, j, f, o = np.split(gates, 4)
                c = c * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
                h = np.tanh(c) * sigmoid(o)
                states[layer], seen = (c, h), h
        result[b] = states[-1][1]
    return result


def lstm(weights: Weights, videos: Videos, training: bool) -> Array:
    """The same by the model's weights, whose kernels are (4 H, I + H), gates i, f, j, o."""
    kernels, biases = [], []
    while f"kernels.{len(kernels)}" in weights:
        i, f, j, o = np.split(weights[f"kernels.{len(kernels)}"].T, 4, axis=1)
        kernels.append(np.concatenate([i, j, f, o], axis=1))
        i, f, j, o = np.split(weights[f"biases.{len(biases)}"], 4)
        biases.append(np.concatenate([i, j, f, o]))
    return tensorflow_lstm(kernels, biases, scaled(videos), len(biases[0]) // 4)


def gru(weights: Weights, videos: Videos, training: bool) -> Array:
    layers = sum(name.startswith("biases.") for name in weights)
    cells = len(weights["biases.0"]) // 3
    result = np.zeros((len(videos), cells))
    for b, frames in enumerate(scaled(videos)):
        states = [np.zeros(cells) for _ in range(layers)]
        for frame in frames:
            seen = frame
            for layer, h in enumerate(states):
                Wr, Wz, Wn = np.split(weights[f"input_kernels.{layer}"], 3)
                Ur, Uz, Un = np.split(weights[f"hidden_kernels.{layer}"], 3)
                br, bz, bn = np.split(weights[f"biases.{layer}"], 3)
                r = sigmoid(Wr @ seen + Ur @ h + br)
                z = sigmoid(Wz @ seen + Uz @ h + bz)
                n = np.tanh(Wn @ seen + r * (Un @ h) + bn)
                seen = states[layer] = (1.0 - z) * n + z * h
        result[b] = states[-1]
    return result


def attention_weights(weights: Weights, frames: Array) -> Array:
    """The weights (A, L) of one video's frames (L, D), scaled."""
    heads = weights["heads_AS"]
    result = np.zeros((len(heads), len(frames)))
    for a, head in enumerate(heads):
        for number, frame in enumerate(frames):
            hidden = np.tanh(weights["hidden_SD"] @ frame + weights["hidden_bias_S"])
            gate = sigmoid(weights["gate_SD"] @ frame + weights["gate_bias_S"])
            result[a, number] = np.exp(head @ (hidden * gate))
        result[a] /= max(result[a].sum(), 1e-300)
    return result


def attention(weights: Weights, videos: Videos, training: bool) -> Array:
    rows = []
    for frames in scaled(videos):
        means = [
            sum(
                (weight * frame for weight, frame in zip(of_head, frames, strict=True)),
                np.zeros(frames.shape[1]),
            )
            for of_head in attention_weights(weights, frames)
        ]
        rows.append(np.concatenate(means))
    return batch_norm(weights, np.stack(rows), training)


def moments(weights: Weights, videos: Videos, training: bool) -> Array:
    rows = []
    for frames in scaled(videos):
        none = np.zeros(frames.shape[1])
        mean = frames.mean(axis=0) if len(frames) else none
        deviation = frames.std(axis=0) if len(frames) else none
        rows.append(np.concatenate([mean, deviation]))
    return batch_norm(weights, np.stack(rows), training)


def gelu(value: float) -> float:
    return value * 0.5 * (1.0 + erf(value / sqrt(2.0)))


def router_probabilities(weights: Weights, frame: Array) -> Array:
    raised = np.exp(weights["layer.router.weight_ED"] @ frame)
    return raised / raised.sum()


def chosen(weights: Weights, frame: Array, k: int) -> list[int]:
    """The k experts of largest probability, the largest first."""
    probabilities = router_probabilities(weights, frame)
    return sorted(range(len(probabilities)), key=lambda e: -probabilities[e])[:k]


def frame_moe(weights: Weights, videos: Videos, training: bool, k: int = 2) -> Array:
    read = []
    for frames in scaled(videos):
        for frame in frames:
            experts, probabilities = chosen(weights, frame, k), router_probabilities(weights, frame)
            total = sum(probabilities[e] for e in experts)
            answer = frame.copy()
            for e in experts:
                hidden = [gelu(value) for value in weights["layer.experts.up_weight"][e] @ frame]
                answer += probabilities[e] / total * (weights["layer.experts.down_weight"][e] @ hidden)
            read.append(answer)
    normed = batch_norm(weights, np.stack(read), training)
    D, first = normed.shape[1], 0
    result = np.zeros((len(videos), 2 * D))
    for b, frames in enumerate(videos):
        mine = normed[first : first + len(frames)]
        first += len(frames)
        if len(mine):
            result[b] = np.concatenate([mine.mean(axis=0), mine.max(axis=0)])
    return result


def balance_loss(weights: Weights, videos: Videos, k: int) -> float:
    """E sum_e f_e P_e over all real frames: f the share of the choices, P the mean probability."""
    frames = [frame for video in scaled(videos) for frame in video]
    E = len(weights["layer.router.weight_ED"])
    choices, probability = np.zeros(E), np.zeros(E)
    for frame in frames:
        for e in chosen(weights, frame, k):
            choices[e] += 1.0 / (k * len(frames))
        probability += router_probabilities(weights, frame) / len(frames)
    return float(E * sum(choices[e] * probability[e] for e in range(E)))


def scaled(videos: Videos) -> Videos:
    """Frames of length 1, made of values of about 1."""
    return [frames * sqrt(frames.shape[1]) for frames in videos]


TWINS: dict[str, Twin] = {
    "LstmModel": lstm,
    "GruModel": gru,
    "AttentionModel": attention,
    "FrameMoeModel": frame_moe,
    "FrameMomentsModel": moments,
}
