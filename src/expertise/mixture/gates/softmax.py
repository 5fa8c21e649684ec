"""The softmax gate: g(x) = softmax(b_k + w_k'x), borders between experts are hyperplanes."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from expertise.mixture._logit import (
    between,
    gate_gradient,
    log_softmax,
    newton_sums,
    newton_update,
    ridge_penalty,
)
from expertise.mixture.gates._abstract import AbstractGate, GateSettings
from expertise.mixture.rows import Array, Design, Scaling
from expertise.mixture.sums import Statistics, Sums


@dataclass(frozen=True, eq=False)
class SoftmaxGate(AbstractGate):
    """Multinomial logit on the inputs (Jordan & Jacobs 1994), fitted by Newton with the full Hessian.

    The ridge acts on the coefficients centred over experts, so that no expert is special; the last expert is
    the reference, with coefficients 0.

    Parameters
    ----------
    beta : (q, K) intercept first; the last column is 0.
    """

    beta: Array | None = None

    name = "softmax"
    closed_form = False

    def started(self, n_experts: int, design: Design, settings: GateSettings) -> Self:
        """Give the gate with equal priors, or with the given coefficients."""
        shape = (design.shape[1], n_experts)
        beta = np.zeros(shape) if self.beta is None else np.asarray(self.beta, float)
        if beta.shape != shape:
            raise ValueError(
                f"SoftmaxGate(beta=...) must have the shape {shape}, a row for the intercept and each "
                f"input of the gate, a column for each expert; got {beta.shape}"
            )
        return replace(self, beta=beta, settings=settings)

    @property
    def n_experts(self) -> int:
        """Experts of a started gate."""
        return int(self._beta.shape[1])

    @property
    def n_parameters(self) -> int:
        """Coefficients of all experts but the last."""
        return int(self._beta[:, :-1].size)

    def log_joint(self, design: Design) -> Array:
        """Compute log g_k(x): (n, K)."""
        return log_softmax(design.times(self._beta))

    def formula(self) -> dict[str, Any] | None:
        """Give the coefficients (q, K)."""
        return {"kind": "softmax", "beta": self._beta.tolist()}

    def statistics(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Statistics:
        """Sum gradient and Hessian of sum h log g."""
        return newton_sums(design, resp, log_joint, weight)

    def update(self, statistics: Statistics) -> Self:
        """Make one Newton step."""
        assert isinstance(statistics, Sums)
        return replace(self, beta=newton_update(self._beta, statistics, self._ridge))

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``."""
        return replace(other, beta=between(self._beta, other._beta, share))

    def penalty(self) -> float:
        """Half the ridge times the squared centred coefficients."""
        return ridge_penalty(self._beta, self._ridge)

    def scaled(self, x: Scaling) -> Self:
        """Turn the coefficients for original columns into those for standardised ones."""
        if self.beta is None:
            return self
        if len(self.beta) != len(x.mean) + 1:
            raise ValueError(
                f"SoftmaxGate(beta=...) must have {len(x.mean) + 1} rows, for the intercept and each input; "
                f"got {len(self.beta)}"
            )
        return replace(self, beta=x.coefficients_in(np.asarray(self.beta, float)))

    def unscaled(self, x: Scaling) -> Self:
        """Turn the coefficients for standardised columns into those for original ones."""
        return replace(self, beta=x.coefficients_out(self._beta))

    def with_expert(self, like: int | None, share: float) -> Self:
        """Add an expert, the last: a copy of ``like``, which keeps 1 - share; or one with constant odds."""
        beta = self._beta
        if like is None:
            # odds against the largest of the others cannot be linear; against their reference they can
            column = np.zeros(len(beta))
            column[0] = np.log(share / (1 - share))
            both = np.column_stack([beta, column])
        else:
            column = beta[:, like].copy()
            column[0] += np.log(share)
            both = np.column_stack([beta, column])
            both[0, like] += np.log(1 - share)
        return replace(self, beta=both - both[:, [-1]])

    def without_expert(self, k: int) -> Self:
        """Remove expert k."""
        beta = np.delete(self._beta, k, axis=1)
        return replace(self, beta=beta - beta[:, [-1]])

    def forgotten(self) -> Self:
        """Give equal priors everywhere."""
        return replace(self, beta=np.zeros_like(self._beta))

    @property
    def parameters(self) -> Array:
        """Coefficients of all experts but the last."""
        return self._beta[:, :-1].ravel()

    def with_parameters(self, vector: Array) -> Self:
        """Set the coefficients of all experts but the last."""
        free = vector.reshape(len(self._beta), -1)
        return replace(self, beta=np.column_stack([free, np.zeros(len(free))]))

    def gradient(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Array:
        """Differentiate: (h - g) x."""
        return gate_gradient(design, resp, log_joint, weight)[:, :-1].ravel()

    @property
    def _beta(self) -> Array:
        assert self.beta is not None
        return self.beta

    @property
    def _ridge(self) -> float:
        assert self.settings is not None
        return self.settings.alpha * self.settings.total_weight
