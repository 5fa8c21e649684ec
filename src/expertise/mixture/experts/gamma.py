"""Gamma regression with log link: y > 0 with mean exp(b + w'x + offset), and a shape of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import digamma, gammaln

from expertise.mixture.experts._glm import AbstractLinkExpert
from expertise.mixture.rows import Array, Design, Rows
from expertise.mixture.sums import Statistics, Sums

LARGEST_SHAPE = 1e6
SMALLEST_SHAPE = 1e-3


@dataclass(frozen=True, eq=False)
class GammaExpert(AbstractLinkExpert):
    """Positive targets whose log mean mu is linear and whose variance is mu^2 / shape.

    log p = a log(a y / mu) - a y / mu - log y - log Gamma(a) with shape a: score a (y / mu - 1), expected
    information a (McCullagh & Nelder 1989, chapter 8). The shape solves
    log a - digamma(a) = sum h (y / mu - log(y / mu) - 1) / sum h, at the mu before the step.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    beta : (q, 1) intercept first, then a coefficient a column.
    shape : the shape a; 1 / a is the squared coefficient of variation.
    """

    shape: float | None = None

    name = "gamma"
    link = "exp"
    task = "regression"

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept numbers above 0."""
        y = np.asarray(y)
        if len(y) and y.min() <= 0:
            row = int(np.argmin(y))
            raise ValueError(
                f"expert='gamma' takes numbers above 0; the smallest value of y is {y[row]:g}, in row {row}. "
                'Use expert="gaussian" or "student_t", or "poisson" for counts.'
            )

    @property
    def n_parameters(self) -> int:
        """Coefficients and the shape."""
        return int(self._beta.size) + 1

    @staticmethod
    def _start(y: Array) -> tuple[Array, Array]:
        return np.log(y), np.ones_like(y)

    @classmethod
    def _log_density(cls, experts: Sequence[Self], y: Array, eta: Array) -> Array:
        shape = np.array([expert._shape for expert in experts])
        log_y = np.log(y)[:, None]
        log_ratio = log_y - eta
        # log a - log Gamma(a) / a in one place: for large shapes the terms are large and cancel
        constant = shape * np.log(shape) - gammaln(shape) - shape
        deviance = np.expm1(log_ratio) - log_ratio  # y / mu - 1 - log(y / mu), never negative
        return constant - shape * deviance - log_y  # type: ignore[no-any-return]

    def _score(self, y: Array, eta: Array) -> tuple[Array, Array]:
        return self._shape * np.expm1(np.log(y) - eta), np.full_like(y, self._shape)

    def _more(self, rows: Rows, y: Array, resp: Array) -> dict[str, Array]:
        """Sum the deviance's halves; at the start, the squared log target."""
        log_y = np.log(y)
        if self.beta is None:
            target = log_y if rows.offset is None else log_y - rows.offset
            return {"spread": np.asarray(resp @ target**2)}
        log_ratio = log_y - self._eta(rows)
        return {"spread": np.asarray(resp @ (np.expm1(log_ratio) - log_ratio))}

    def update(self, statistics: Statistics) -> Self:
        """Make one Newton step for the mean, and solve for the shape."""
        assert isinstance(statistics, Sums)
        count, beta = float(statistics["count"]), self._newton(statistics)
        if count <= 1e-100:  # nobody
            return replace(self, beta=beta, shape=self.shape or 1.0)
        spread = float(statistics["spread"])
        if self.beta is None:
            # the variance of log y around the least squares is trigamma(a), about 1 / a
            gram, cross = statistics["hessian"], statistics["gradient"]
            rest = spread - float((2 * beta * cross - beta * (gram @ beta)).sum())
            return replace(
                self, beta=beta, shape=float(np.clip(count / max(rest, 1e-300), 1e-2, LARGEST_SHAPE))
            )
        return replace(self, beta=beta, shape=_shape_of(spread / count))

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``: coefficients, and the log of the shape."""
        beta = self._beta + share * (other._beta - self._beta)
        return replace(other, beta=beta, shape=self._shape ** (1 - share) * other._shape**share)

    def degenerate(self) -> str | None:
        """Say when the shape stands at its ceiling: the likelihood is then no measure of fit."""
        return "its shape is at the ceiling" if self._shape >= LARGEST_SHAPE * (1 - 1e-9) else None

    @staticmethod
    def _mean(eta: Array) -> Array:
        return np.exp(eta)

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the gamma distribution of every row."""
        from scipy import stats

        return stats.gamma(self._shape, scale=self.predict(design, offset) / self._shape)

    @property
    def parameters(self) -> Array:
        """Coefficients, then the log of the shape."""
        return np.append(self._beta.ravel(), np.log(self._shape))

    def with_parameters(self, vector: Array) -> Self:
        """Set coefficients and shape."""
        return replace(self, beta=vector[:-1].reshape(-1, 1), shape=float(np.exp(vector[-1])))

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate: h x a (y / mu - 1); for log a, h a (log a - digamma(a) - y/mu + log(y/mu) + 1)."""
        y, eta, shape = np.asarray(rows.y, float), self._eta(rows), self._shape
        log_ratio = np.log(y) - eta
        ratio_less_1 = np.expm1(log_ratio)
        by_beta = rows.expert.cross((resp * shape * ratio_less_1)[:, None])[:, 0]
        by_shape = shape * (np.log(shape) - digamma(shape) - (ratio_less_1 - log_ratio))
        return np.append(by_beta, resp @ by_shape)

    @property
    def _shape(self) -> float:
        assert self.shape is not None
        return self.shape


def _shape_of(spread: float) -> float:
    """Solve log a - digamma(a) = spread, which falls in a.

    >>> round(_shape_of(float(np.log(2.5) - digamma(2.5))), 6)
    2.5
    """

    def excess(log_a: float) -> float:
        a = np.exp(log_a)
        # log a - digamma(a) loses its digits for large a; its series does not
        left = 0.5 / a + 1 / (12 * a**2) - 1 / (120 * a**4) if a > 1e3 else log_a - digamma(a)
        return float(left - spread)

    low, high = float(np.log(SMALLEST_SHAPE)), float(np.log(LARGEST_SHAPE))
    if excess(high) >= 0:
        return LARGEST_SHAPE
    if excess(low) <= 0:
        return SMALLEST_SHAPE
    return float(np.exp(brentq(excess, low, high, xtol=1e-14)))
