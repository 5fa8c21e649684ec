"""Bags of frames, slowly and obviously: what DbofModel, NetVladModel and NeXtVladModel must equal.

A video is an array (frames, D) of real frames, without padding. ``w`` holds a model's weights and running
moments by their names. In training the moments of a batch normalisation are those of the rows given.
"""

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]


def batch_norm(rows: Array, w: Weights, name: str, training: bool) -> Array:
    result = np.zeros(rows.shape)
    for f in range(rows.shape[1]):
        mean, variance = w[f"{name}.running_mean"][f], w[f"{name}.running_variance"][f]
        if training and len(rows):
            mean = sum(rows[:, f]) / len(rows)
            variance = sum((rows[:, f] - mean) ** 2) / len(rows)
        normal = (rows[:, f] - mean) / np.sqrt(variance + 1e-3)
        result[:, f] = normal * w[f"{name}.weight"][f] + w[f"{name}.bias"][f]
    return result


def of_each_video(of_rows: Callable[[Array], Array], videos: list[Array]) -> list[Array]:
    """Apply what looks at all frames of all videos, and divide its result into the videos again."""
    rows = of_rows(np.concatenate(videos))
    ends = np.cumsum([len(video) for video in videos])
    return np.split(rows, ends[:-1])


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x: Array) -> Array:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def unit(x: Array) -> Array:
    return x / np.sqrt(max((x**2).sum(), 1e-12))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0.0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0.0), 6.0),
    "tanh": np.tanh,
}


def even_frames(length: int, count: int) -> list[int]:
    """The frame in the middle of each of ``count`` equal parts of a video."""
    return [int((i + 0.5) * length / count) for i in range(count)] if length else []


def dbof(videos: list[Array], w: Weights, training: bool, pooling: str, activation: str) -> Array:
    f = ACTIVATIONS[activation]
    normalized = "norms.input.weight" in w
    if normalized:
        videos = of_each_video(lambda x: batch_norm(x, w, "norms.input", training), videos)
    clusters = [video @ w["cluster_KD"].T for video in videos]
    if normalized:
        clusters = of_each_video(lambda x: batch_norm(x, w, "norms.cluster", training), clusters)
    else:
        clusters = [cluster + w["biases.cluster_K"] for cluster in clusters]
    pooled = np.zeros((len(videos), len(w["cluster_KD"])))
    for row, cluster in zip(pooled, clusters, strict=True):
        if len(cluster):
            row[:] = f(cluster).max(axis=0) if pooling == "max" else f(cluster).mean(axis=0)
    hidden = pooled @ w["hidden_HK"].T
    if normalized:
        return f(batch_norm(hidden, w, "norms.hidden", training))
    return f(hidden + w["biases.hidden_H"])


def netvlad(videos: list[Array], w: Weights, training: bool) -> Array:
    videos = of_each_video(lambda x: batch_norm(x, w, "input_norm", training), videos)
    logits = of_each_video(lambda x: batch_norm(x @ w["assign_KD"].T, w, "assign_norm", training), videos)
    K, D = w["center_KD"].shape
    rows = np.zeros((len(videos), K * D))
    for row, video, logit in zip(rows, videos, logits, strict=True):
        vlad = np.zeros((K, D))
        for frame, values in zip(video, logit, strict=True):
            for k, share in enumerate(softmax(values)):
                vlad[k] += share * (frame - w["center_KD"][k])
        row[:] = unit(np.concatenate([unit(part) for part in vlad]))
    hidden = batch_norm(rows @ w["hidden_HV"].T, w, "hidden_norm", training)
    return hidden * sigmoid(batch_norm(hidden @ w["gate_HH"].T, w, "gate_norm", training))


def nextvlad(videos: list[Array], w: Weights, training: bool) -> Array:
    wide = [video @ w["widen_ED"].T + w["widen_bias_E"] for video in videos]
    logits = of_each_video(lambda y: batch_norm(y @ w["assign_AE"].T, w, "assign_norm", training), wide)
    K, N = w["center_KN"].shape
    G = len(w["attention_GE"])
    rows = np.zeros((len(videos), K * N))
    for row, video, logit in zip(rows, wide, logits, strict=True):
        vlad = np.zeros((K, N))
        for frame, values in zip(video, logit, strict=True):
            attention = sigmoid(w["attention_GE"] @ frame + w["attention_bias_G"])
            for g in range(G):
                group = frame[g * N : (g + 1) * N]
                for k, share in enumerate(softmax(values[g * K : (g + 1) * K])):
                    vlad[k] += attention[g] * share * (group - w["center_KN"][k])
        row[:] = np.concatenate([unit(part) for part in vlad])
    hidden = batch_norm(rows, w, "vlad_norm", training) @ w["hidden_HV"].T
    hidden = batch_norm(hidden, w, "hidden_norm", training)
    inside = np.maximum(batch_norm(hidden @ w["narrow_RH"].T, w, "narrow_norm", training), 0.0)
    return hidden * sigmoid(inside @ w["gate_HR"].T)
