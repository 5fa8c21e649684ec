"""The Gaussian gate: each expert has its own place among the inputs (the localised gate)."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from expertise.mixture.gates._abstract import AbstractGate, GateSettings
from expertise.mixture.gates._centres import log_centres
from expertise.mixture.gates._patterns import expected_grams, log_normals
from expertise.mixture.rows import Array, Design, Scaling
from expertise.mixture.sums import Statistics, Sums

COVARIANCES = ("full", "diag", "tied")
SMALLEST = 1e-300  # a prior of 0 would have no logarithm


@dataclass(frozen=True, eq=False)
class GaussianGate(AbstractGate):
    """A normal distribution of the inputs for each expert, g_k(x) = a_k N(x; m_k, S_k) / sum over experts.

    EM maximises the joint likelihood of inputs and target, so every M-step is in closed form (Xu, Jordan &
    Hinton 1995). It never lets that likelihood fall; the conditional one it may. Missing inputs (NaN) are
    integrated out, in the prior and in the sums. With one covariance for all ("tied") the log odds are linear
    in x, as those of a softmax gate; else borders between experts are quadratic.

    With ``trainable=False`` the gate is no model of the inputs: its log_joint is log g itself. Given centres
    with a given width then span the way from the nearest neighbour (width to 0) to the mean (to infinity).

    Parameters
    ----------
    means : (K, d) centres: where to start, or, with trainable=False, to stay. None starts all experts alike.
    scale : width of the normals, > 0, in units of the columns: a number, (K,) or (K, d). None is the columns'
        own standard deviation.
    covariance : "full", "diag" (columns independent given the expert), or "tied" (one full matrix for all).
    floor : smallest variance in any direction of the standardised columns, > 0.
    prior : (K,) the a_k, summing to 1.
    covariances : (K, d, d) the S_k; None where ``scale`` describes them.
    """

    # named only, so that the own options come first
    means: Array | None = None
    scale: Array | float | None = None
    covariance: str = "full"
    floor: float = 1e-6
    prior: Array | None = None
    covariances: Array | None = None

    name = "gaussian"
    integrates_nan = True
    takes_sparse = False

    @property
    def models_inputs(self) -> bool:  # type: ignore[override]
        """Whether log_joint holds the density of x: while the gate learns."""
        return self.trainable

    def wanted_experts(self) -> int | None:
        """Give the number of given centres, or None."""
        return None if self.means is None else len(self.means)

    @property
    def says_where(self) -> bool:
        """Whether the centres are given, and stay."""
        return self.means is not None and not self.trainable

    def started(self, n_experts: int, design: Design, settings: GateSettings) -> Self:
        """Give the gate with its given centres, or with all experts alike: mean 0 and variance 1.

        The first M-step then fills what is missing with mean 0 and variance 1 of the standardised columns.
        """
        columns = design.shape[1] - 1
        self._check(columns)
        here = replace(self, settings=settings)
        if self.means is None:
            if not self.trainable:
                raise ValueError(
                    "GaussianGate(trainable=False) has no centres; give means= and scale=, or let it learn"
                )
            here = replace(here, means=np.zeros((n_experts, columns)))
        here = here._with_arrays(columns)
        if here.n_experts != n_experts:
            raise ValueError(
                f"means has {here.n_experts} rows for n_experts={n_experts}; give one centre for each expert"
            )
        if here.trainable and here.covariances is None:
            here = replace(here, covariances=here._bounded(here._squares()), scale=None)
        return here

    @property
    def n_experts(self) -> int:
        """Experts of a started gate."""
        return len(self._means)

    @property
    def n_parameters(self) -> int:
        """Count priors but one, centres, and what is free in the covariances."""
        if not self.trainable:
            return 0
        n_experts, d = len(self._means), int(self._means.shape[1])
        matrix = d * (d + 1) // 2
        spread = {"full": n_experts * matrix, "diag": n_experts * d, "tied": matrix}[self.covariance]
        return n_experts - 1 + n_experts * d + spread

    def log_joint(self, design: Design) -> Array:
        """Compute log a_k N(x; m_k, S_k) of the columns without NaN; not trainable: log g_k(x). (n, K)."""
        x, log_prior = design.x[:, 1:], np.log(np.maximum(self._prior, SMALLEST))
        if self.covariances is None:
            assert not self.trainable
            return log_centres(x, self._means, self._widths, log_prior)
        joint: Array = log_normals(x, self._means, self.covariances) + log_prior
        if not self.trainable:
            joint -= joint.max(axis=1, keepdims=True)
            joint -= np.log(np.exp(joint).sum(axis=1, keepdims=True))
        return joint

    def formula(self) -> dict[str, Any] | None:
        """Give log priors (K,), centres (K, d), precisions (K, d, d) and log determinants (K,)."""
        spread = self._squares() if self.covariances is None else self.covariances
        precisions = np.linalg.inv(spread)
        return {
            "kind": "gaussian",
            "log_prior": np.log(np.maximum(self._prior, SMALLEST)).tolist(),
            "means": self._means.tolist(),
            "precisions": (0.5 * (precisions + precisions.swapaxes(1, 2))).tolist(),
            "log_dets": np.linalg.slogdet(spread)[1].tolist(),
        }

    def statistics(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Statistics:
        """Sum h (1, x) (1, x)', as expected where x is missing."""
        if not self.trainable:
            return Sums(gram=np.zeros((resp.shape[1], 1, 1)))  # nobody reads it
        return Sums(gram=expected_grams(design, resp, self._means, self._covariances))

    def update(self, statistics: Statistics) -> Self:
        """Make priors, means and covariances those of the rows, weighted by responsibility.

        No variance falls below the floor: eigenvalues are cut there, which is the maximum under this bound.
        """
        if not self.trainable:
            return self
        assert isinstance(statistics, Sums)
        gram = statistics["gram"]
        count = gram[:, 0, 0]
        here = count > 1e-100  # where nobody is, what there was stays
        safe = np.where(here, count, 1.0)
        means = np.where(here[:, None], gram[:, 0, 1:] / safe[:, None], self._means)
        scatter = gram[:, 1:, 1:] / safe[:, None, None] - means[:, :, None] * means[:, None, :]
        scatter = np.where(here[:, None, None], scatter, self._covariances)
        prior = count / count.sum() if here.any() else self._prior
        if self.covariance == "tied":
            scatter = np.repeat(np.einsum("k,kij->ij", prior, scatter)[None], len(prior), axis=0)
        return replace(self, prior=prior, means=means, covariances=self._bounded(scatter))

    def scaled(self, x: Scaling) -> Self:
        """Turn centres and covariances for original columns into those for standardised ones."""
        if self.means is None:
            return self
        self._check(len(x.scale))
        here = self._with_arrays(len(x.scale), x.scale)
        return here._moved((here._means - x.mean) / x.scale, 1 / x.scale)

    def unscaled(self, x: Scaling) -> Self:
        """Turn centres and covariances for standardised columns into those for original ones."""
        return self._moved(self._means * x.scale + x.mean, x.scale)

    def with_expert(self, like: int | None, share: float) -> Self:
        """Add an expert, the last: a copy of ``like`` with ``share`` of its prior.

        With like=None it has mean and covariance of all rows, and ``share`` of the whole prior.
        """
        prior = self._prior.copy()
        if like is None:
            mean, spread = self._pooled()
            prior, taken = prior * (1 - share), share
        else:
            mean = self._means[like]
            spread = self._widths[like] if self.covariances is None else self.covariances[like]
            taken = share * prior[like]
            prior[like] *= 1 - share
        here = replace(self, prior=np.append(prior, taken), means=np.vstack([self._means, mean]))
        if self.covariances is None:
            return replace(here, scale=np.vstack([self._widths, spread]))
        if self.covariance == "tied":
            spread = self.covariances[0]
        return replace(here, covariances=np.concatenate([self.covariances, spread[None]]))

    def without_expert(self, k: int) -> Self:
        """Remove expert k."""
        rest = np.delete(self._prior, k)
        here = replace(self, prior=rest / rest.sum(), means=np.delete(self._means, k, axis=0))
        if self.covariances is None:
            return replace(here, scale=np.delete(self._widths, k, axis=0))
        return replace(here, covariances=np.delete(self.covariances, k, axis=0))

    # -- inside

    def _check(self, columns: int) -> None:
        """Raise a ValueError about the first option that is not allowed."""
        if self.covariance not in COVARIANCES:
            raise ValueError(f"covariance={self.covariance!r} is unknown; known are {', '.join(COVARIANCES)}")
        if not self.floor > 0:
            raise ValueError(f"floor={self.floor!r} must be > 0: a variance of 0 has no density; use 1e-6")
        if self.means is None:
            if self.scale is not None:
                raise ValueError(f"scale={self.scale!r} needs the centres it belongs to; give means= as well")
            return
        means = np.asarray(self.means, float)
        if means.ndim != 2 or means.shape[1] != columns or not len(means):
            raise ValueError(
                f"means has the shape {means.shape}; allowed is (n_experts, {columns}), "
                f"a row for each expert and a column for each of the {columns} inputs of the gate"
            )
        if not np.isfinite(means).all():
            raise ValueError("means holds NaN or inf; centres must be finite, fill or drop such rows")
        if self.scale is not None:
            _check_scale(self.scale, means.shape)
        prior = None if self.prior is None else np.asarray(self.prior, float)
        if prior is not None and not (
            prior.shape == means.shape[:1] and (prior >= 0).all() and np.isclose(prior.sum(), 1)
        ):
            raise ValueError(
                f"prior must hold {len(means)} numbers of at least 0 that sum to 1; got {prior.tolist()}"
            )

    def _with_arrays(self, columns: int, unit: Array | None = None) -> Self:
        """Write the options as arrays; a width that is not given is ``unit``, (d,) or 1."""
        means = np.asarray(self.means, float)
        prior = np.full(len(means), 1 / len(means)) if self.prior is None else np.asarray(self.prior, float)
        here = replace(self, means=means, prior=prior)
        if here.covariances is not None:
            return here
        widths = np.ones(columns) if unit is None else unit
        if self.scale is not None:
            widths = np.asarray(self.scale, float)
            widths = widths[:, None] if widths.ndim == 1 else widths
        return replace(here, scale=np.broadcast_to(widths, means.shape).copy())

    def _moved(self, means: Array, factor: Array) -> Self:
        """Set the means, and multiply the widths of the columns by ``factor``."""
        here = replace(self, means=means)
        if self.covariances is None:
            return replace(here, scale=self._widths * factor)
        return replace(here, covariances=self.covariances * np.outer(factor, factor))

    def _squares(self) -> Array:
        """Give the covariances (K, d, d) of the widths; tied: their mean."""
        square = self._widths**2
        if self.covariance == "tied":
            square = np.broadcast_to(self._prior @ square, square.shape)
        return square[:, :, None] * np.eye(square.shape[1])

    def _bounded(self, scatter: Array) -> Array:
        """Lift variances to the floor, in every direction of the (standardised) columns."""
        if self.covariance == "diag":
            variances = np.maximum(np.einsum("kii->ki", scatter), self.floor)
            return np.asarray(variances[:, :, None] * np.eye(scatter.shape[1]))
        values, vectors = np.linalg.eigh(scatter)
        low = values[:, 0] < self.floor if values.shape[1] else np.zeros(len(values), bool)
        values, vectors = np.maximum(values[low], self.floor), vectors[low]
        bounded = 0.5 * (scatter + scatter.swapaxes(1, 2))
        bounded[low] = (vectors * values[:, None, :]) @ vectors.swapaxes(1, 2)
        return bounded

    def _pooled(self) -> tuple[Array, Any]:
        """Give mean (d,) and covariance (d, d) of the whole mixture; widths (d,) for a gate of widths."""
        mean = self._prior @ self._means
        apart = self._means - mean
        if self.covariances is None:
            return mean, np.sqrt(self._prior @ (self._widths**2 + apart**2))
        spread = np.einsum("k,kij->ij", self._prior, self.covariances + apart[:, :, None] * apart[:, None, :])
        return mean, np.diag(np.diag(spread)) if self.covariance == "diag" else spread

    @property
    def _means(self) -> Array:
        assert self.means is not None
        return self.means

    @property
    def _prior(self) -> Array:
        assert self.prior is not None
        return self.prior

    @property
    def _covariances(self) -> Array:
        assert self.covariances is not None
        return self.covariances

    @property
    def _widths(self) -> Array:
        assert isinstance(self.scale, np.ndarray)
        return self.scale


def _check_scale(scale: Any, shape: tuple[int, ...]) -> None:
    widths = np.asarray(scale, float)
    if widths.shape not in ((), shape[:1], shape):
        raise ValueError(
            f"scale has the shape {widths.shape}; allowed are a number, {shape[:1]} (a width an expert) "
            f"or {shape} (an expert and column)"
        )
    if not (np.isfinite(widths) & (widths > 0)).all():
        raise ValueError(f"scale={scale!r} must be finite and > 0; use a small number for the nearest centre")
