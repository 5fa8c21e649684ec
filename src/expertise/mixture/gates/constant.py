"""The constant gate: the same prior for every case, which makes a plain mixture of regressions."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from expertise.mixture.gates._abstract import AbstractGate, GateSettings
from expertise.mixture.rows import Array, Design
from expertise.mixture.sums import Statistics, Sums

SMALLEST = 1e-300  # a prior of 0 would have no logarithm


@dataclass(frozen=True, eq=False)
class ConstantGate(AbstractGate):
    """One prior for each expert, whatever the input: g_k = mean of the responsibilities.

    Parameters
    ----------
    prior : (K,) summing to 1.
    """

    prior: Array | None = None

    name = "constant"

    def started(self, n_experts: int, design: Design, settings: GateSettings) -> Self:
        """Give equal priors, or the given ones."""
        prior = np.full(n_experts, 1 / n_experts) if self.prior is None else np.asarray(self.prior, float)
        if prior.shape != (n_experts,) or not (prior >= 0).all() or not np.isclose(prior.sum(), 1):
            raise ValueError(
                f"ConstantGate(prior=...) must hold {n_experts} numbers of at least 0 that sum to 1; "
                f"got {prior.tolist()}"
            )
        return replace(self, prior=prior, settings=settings)

    @property
    def n_experts(self) -> int:
        """Experts of a started gate."""
        return len(self._prior)

    @property
    def n_parameters(self) -> int:
        """Priors sum to 1, so one fewer than experts."""
        return len(self._prior) - 1

    def log_joint(self, design: Design) -> Array:
        """Give the logs of the priors, the same in each row: (n, K)."""
        return np.broadcast_to(np.log(np.maximum(self._prior, SMALLEST)), (design.shape[0], len(self._prior)))

    def formula(self) -> dict[str, Any] | None:
        """Give the logs of the priors (K,)."""
        return {"kind": "constant", "log_prior": np.log(np.maximum(self._prior, SMALLEST)).tolist()}

    def statistics(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Statistics:
        """Sum the responsibilities."""
        return Sums(count=resp.sum(axis=0))

    def update(self, statistics: Statistics) -> Self:
        """Make the priors the mean responsibilities."""
        assert isinstance(statistics, Sums)
        return replace(self, prior=statistics["count"] / statistics["count"].sum())

    def with_expert(self, like: int | None, share: float) -> Self:
        """Add an expert, the last, with ``share`` of the prior of expert ``like``, or of all."""
        prior = self._prior.copy()
        taken = np.zeros_like(prior)
        taken[like if like is not None else slice(None)] = share
        return replace(self, prior=np.append(prior * (1 - taken), (prior * taken).sum()))

    def without_expert(self, k: int) -> Self:
        """Remove expert k."""
        rest = np.delete(self._prior, k)
        return replace(self, prior=rest / rest.sum())

    @property
    def parameters(self) -> Array:
        """Logs of the priors over the last one's."""
        return np.asarray(np.log(np.maximum(self._prior[:-1], SMALLEST) / max(self._prior[-1], SMALLEST)))

    def with_parameters(self, vector: Array) -> Self:
        """Set the priors from their log odds against the last."""
        odds = np.exp(np.append(vector, 0.0) - max(vector.max(initial=0.0), 0.0))
        return replace(self, prior=odds / odds.sum())

    def gradient(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Array:
        """Differentiate: sum of h - g."""
        return np.asarray((resp.sum(axis=0) - weight.sum() * self._prior)[:-1])

    @property
    def _prior(self) -> Array:
        assert self.prior is not None
        return self.prior
