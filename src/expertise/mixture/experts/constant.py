"""Experts that ignore x: one mean with Gaussian noise, or one set of class frequencies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from expertise.mixture.experts._abstract import AbstractExpert, ExpertSettings
from expertise.mixture.rows import Array, Design, Rows, Scaling
from expertise.mixture.sums import Statistics, Sums

LOG_2PI = float(np.log(2 * np.pi))
SMALLEST_VARIANCE = 1e-30  # of a standardised target, where the floor is 0
SMOOTH = 1e-10  # cases that are added to every class: a frequency of 0 would have no logarithm


@dataclass(frozen=True, eq=False)
class ConstantExpert(AbstractExpert):
    """The same normal distribution everywhere: y ~ N(c, sigma^2), one of each an output.

    c and sigma^2 are the weighted mean and variance.

    Parameters
    ----------
    variance_floor : smallest variance, as a share of y's; the mixture's if None.
    location : (m,) the means c.
    sigma : (m,) noise widths.
    """

    variance_floor: float | None = None
    location: Array | None = None
    sigma: Array | None = None

    name = "constant"
    task = "regression"
    multioutput = True
    takes_offset = True

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept any finite numbers."""

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings where the expert has none of its own."""
        floor = settings.variance_floor if self.variance_floor is None else self.variance_floor
        return replace(self, settings=settings, variance_floor=floor)

    @property
    def is_fitted(self) -> bool:
        """Whether there are parameters."""
        return self.location is not None and self.sigma is not None

    @property
    def n_parameters(self) -> int:
        """Means and noise widths."""
        return int(self._location.size + self._sigma.size)

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log p_k(y_i): (n, len(experts))."""
        location = np.stack([expert._location for expert in experts], axis=1)  # (m, K)
        sigma = np.stack([expert._sigma for expert in experts], axis=1)
        total = np.zeros((len(rows), len(experts)))
        for j in range(len(location)):
            total += ((rows.z[:, [j]] - location[j]) / sigma[j]) ** 2
        total *= -0.5
        total -= np.log(sigma).sum(axis=0) + 0.5 * LOG_2PI * len(sigma) + rows.log_scale
        return total

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Sum h, h y and h y^2."""
        first, second, count = resp.T @ rows.z, resp.T @ rows.z**2, resp.sum(axis=0)
        return [Sums(count=count[k], sum=first[k], square=second[k]) for k in range(len(experts))]

    def update(self, statistics: Statistics) -> Self:
        """Take the weighted mean and variance."""
        assert isinstance(statistics, Sums)
        count, total = float(statistics["count"]), statistics["sum"]
        if count <= 1e-100:  # nobody: keep what there was
            return (
                self
                if self.is_fitted
                else replace(self, location=np.zeros(len(total)), sigma=np.ones(len(total)))
            )
        location = total / count
        variance = np.maximum(statistics["square"] / count - location**2, self._floor)
        return replace(self, location=location, sigma=np.sqrt(variance))

    def degenerate(self) -> str | None:
        """Say when a noise width stands at its floor: the likelihood is then no measure of fit."""
        if (self._sigma**2 <= self._floor * (1 + 1e-9)).any():
            return "its variance is at the floor"
        return None

    def scaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the parameters for the original target into those for the standardised one."""
        if self.location is None or self.sigma is None:
            return self
        return replace(self, location=(self.location - y.mean) / y.scale, sigma=self.sigma / y.scale)

    def unscaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the parameters for the standardised target into those for the original one."""
        return replace(self, location=self._location * y.scale + y.mean, sigma=self._sigma * y.scale)

    def formula(self) -> dict[str, Any] | None:
        """Give the mean of one output."""
        return {"link": "constant", "values": float(self._location[0])} if len(self._location) == 1 else None

    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the mean: (n,), or (n, m) for several outputs."""
        mean = np.tile(self._location, (design.shape[0], 1))
        if offset is not None:
            mean += offset[:, None]
        return mean[:, 0] if mean.shape[1] == 1 else mean

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the normal distribution of every row."""
        from scipy import stats

        scale = self._sigma[0] if len(self._sigma) == 1 else self._sigma
        return stats.norm(loc=self.predict(design, offset), scale=scale)

    @property
    def parameters(self) -> Array:
        """Means, then logs of the noise widths."""
        return np.concatenate([self._location, np.log(self._sigma)])

    def with_parameters(self, vector: Array) -> Self:
        """Set means and noise widths."""
        size = len(self._location)
        return replace(self, location=vector[:size], sigma=np.exp(vector[size:]))

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate: r / sigma^2 for means, r^2 / sigma^2 - 1 for log sigma."""
        residual = (rows.z - self._location) / self._sigma
        return np.concatenate([resp @ residual / self._sigma, resp @ (residual**2 - 1)])

    @property
    def _location(self) -> Array:
        assert self.location is not None
        return self.location

    @property
    def _sigma(self) -> Array:
        assert self.sigma is not None
        return self.sigma

    @property
    def _floor(self) -> float:
        return max(self.variance_floor or 0.0, SMALLEST_VARIANCE)


@dataclass(frozen=True, eq=False)
class ConstantClassExpert(AbstractExpert):
    """The same class probabilities everywhere: the weighted frequencies of the classes.

    Every class gets 1e-10 of a case beside its own, which the penalised log-likelihood accounts for.

    Parameters
    ----------
    proba : (V,) class probabilities.
    """

    proba: Array | None = None

    name = "constant"
    task = "classification"

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept any class codes."""

    @property
    def is_fitted(self) -> bool:
        """Whether there are parameters."""
        return self.proba is not None

    @property
    def n_parameters(self) -> int:
        """Probabilities sum to 1, so one fewer than classes."""
        return len(self._proba) - 1

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Give log P_k(y_i): (n, len(experts))."""
        log_proba = np.log(np.stack([expert._proba for expert in experts], axis=1))  # (V, K)
        return log_proba[np.asarray(rows.y, dtype=np.intp)]

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Sum h in each class."""
        codes = np.asarray(rows.y, dtype=np.intp)
        return [
            Sums(count=_per_class(codes, resp[:, k], expert._n_classes)) for k, expert in enumerate(experts)
        ]

    def update(self, statistics: Statistics) -> Self:
        """Take the frequencies."""
        assert isinstance(statistics, Sums)
        count = statistics["count"]
        if count.sum() <= 1e-100 and self.is_fitted:  # nobody: keep what there was
            return self
        count = count + SMOOTH
        return replace(self, proba=count / count.sum())

    def penalty(self) -> float:
        """Give minus the log-likelihood of the added cases."""
        return float(-SMOOTH * np.log(self._proba).sum())

    def formula(self) -> dict[str, Any] | None:
        """Give the class probabilities."""
        return {"link": "constant", "values": self._proba.tolist()}

    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the class probabilities (n, V)."""
        return np.tile(self._proba, (design.shape[0], 1))

    @property
    def parameters(self) -> Array:
        """Logs of the probabilities over the last one's."""
        odds: Array = np.log(self._proba[:-1]) - np.log(self._proba[-1])
        return odds

    def with_parameters(self, vector: Array) -> Self:
        """Set the probabilities from their log odds against the last."""
        odds = np.exp(np.append(vector, 0.0) - max(vector.max(initial=0.0), 0.0))
        return replace(self, proba=odds / odds.sum())

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate: sum of h (1[y = v] - P_v)."""
        hits = _per_class(np.asarray(rows.y, dtype=np.intp), resp, len(self._proba))
        gradient: Array = hits - resp.sum() * self._proba
        return gradient[:-1]

    @property
    def _n_classes(self) -> int:
        if self.proba is not None:
            return len(self.proba)
        assert self.settings is not None
        return self.settings.n_outputs

    @property
    def _proba(self) -> Array:
        assert self.proba is not None
        return self.proba


def _per_class(codes: npt.NDArray[np.intp], weight: Array, n_classes: int) -> Array:
    """Sum weights (n,) in each class: (V,)."""
    return np.bincount(codes, weights=weight, minlength=n_classes).astype(np.float64)
