"""Small mixtures with parameters by hand: a softmax gate, linear means."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from expertise.core import AbstractMixtureClassifier, AbstractMixtureRegressor, Inputs

Array = NDArray[Any]

GATE = np.array([[1.0, -0.5, 0.0], [0.3, 0.8, -1.0]])  # (d, K)
SLOPES = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
INTERCEPTS = np.array([0.0, 4.0, -3.0])
SCALES = np.array([0.5, 1.0, 2.0])


def softmax(logits: Array) -> Array:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def normal(mean: Array, k: int) -> Any:
    return stats.norm(mean, SCALES[k])


class TinyRegressor(AbstractMixtureRegressor):
    """Parameters that never learn; ``asked`` records each call of an expert: (k, number of rows)."""

    def __init__(
        self,
        n_experts: int = 3,
        n_outputs: int | None = None,
        family: Callable[[Array, int], Any] = normal,
        counted: bool = True,
        nan_allowed: bool = False,
    ) -> None:
        self.n_experts = n_experts
        self.n_outputs = n_outputs
        self.family = family
        self.counted = counted
        self.nan_allowed = nan_allowed

    def fit(self, X: Any, y: Any = None) -> "TinyRegressor":
        self.n_experts_ = self.n_experts
        self.n_features_in_ = 2
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.weights_ = np.full(self.n_experts, 1 / self.n_experts)
        self.n_parameters_ = 6 + 4 * self.n_experts if self.counted else None
        self.loglik_ = -1234.5
        self._typical_row_ = np.array([0.5, np.nan if self.nan_allowed else -0.25])
        self.asked: list[tuple[int, int]] = []
        return self

    @property
    def _nan_allowed(self) -> bool:
        return self.nan_allowed

    def _gate_proba(self, inputs: Inputs) -> Array:
        return softmax(np.asarray(np.nan_to_num(inputs.X) @ GATE[:, : self.n_experts]))

    def _mean(self, k: int, inputs: Inputs) -> Array:
        mean = np.asarray(np.nan_to_num(inputs.X) @ SLOPES[:, k]) + INTERCEPTS[k]
        if inputs.offset is not None:
            mean = mean + inputs.offset
        if self.n_outputs is None:
            return mean
        return np.stack([mean * (1 + output) for output in range(self.n_outputs)], axis=1)

    def _predict_expert(self, k: int, inputs: Inputs) -> Array:
        self.asked.append((k, inputs.X.shape[0]))
        return np.asarray(self._expert_distribution(k, inputs).mean())

    def _expert_distribution(self, k: int, inputs: Inputs) -> Any:
        return self.family(self._mean(k, inputs), k)

    def _parameter_counts(self) -> tuple[int | None, list[int | None]]:
        return 6, [4 if self.counted or k == 0 else None for k in range(self.n_experts_)]

    def _summary_lines(self) -> list[str]:
        return ["gate: softmax"]


class TinyClassifier(AbstractMixtureClassifier):
    """Two experts over three classes, by name."""

    def fit(self, X: Any, y: Any = None) -> "TinyClassifier":
        self.n_experts_ = 2
        self.n_features_in_ = 2
        self.classes_ = np.array(["ant", "bee", "cat"])
        self.weights_ = np.array([0.25, 0.75])
        self.n_parameters_ = 20
        self.loglik_ = -3.0
        self._typical_row_ = np.zeros(2)
        return self

    def _gate_proba(self, inputs: Inputs) -> Array:
        return softmax(np.asarray(inputs.X @ GATE[:, :2]))

    def _predict_expert(self, k: int, inputs: Inputs) -> Array:
        slopes = np.array([[[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]], [[0.0, 0.5, 3.0], [-1.0, 0.0, 1.0]]])[k]
        return softmax(np.asarray(inputs.X @ slopes))


def regressor(**options: Any) -> TinyRegressor:
    return TinyRegressor(**options).fit(None)


def classifier() -> TinyClassifier:
    return TinyClassifier().fit(None)


def inputs(n: int = 12, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, 2))
