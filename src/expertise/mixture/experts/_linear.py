"""What linear regressions with a noise width share: scales, ridge, floor, the centre as prediction."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from expertise.mixture.experts._abstract import AbstractExpert, ExpertSettings
from expertise.mixture.rows import Array, Design, Scaling

SMALLEST_VARIANCE = 1e-30  # even without a floor, a perfect fit needs a width


@dataclass(frozen=True, eq=False)
class AbstractLinearExpert(AbstractExpert):
    """A family of location and scale: the location is linear in x, each output has its own noise width.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    variance_floor : smallest variance, as a share of y's; the mixture's if None.
    beta : (q, m) intercept first, then a coefficient a column.
    sigma : (m,) noise widths.
    """

    alpha: float | None = None
    variance_floor: float | None = None
    beta: Array | None = None
    sigma: Array | None = None

    task = "regression"
    multioutput = True
    takes_offset = True

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept any finite numbers."""

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings where the expert has none of its own."""
        alpha = settings.alpha if self.alpha is None else self.alpha
        floor = settings.variance_floor if self.variance_floor is None else self.variance_floor
        return replace(self, settings=settings, alpha=alpha, variance_floor=floor)

    @property
    def is_fitted(self) -> bool:
        """Whether there are parameters."""
        return self.beta is not None

    def penalty(self) -> float:
        """Give alpha |w|^2 / (2 sigma^2), summed over outputs."""
        ridge = self._ridge(len(self._beta))
        return float(0.5 * ((ridge[:, None] * self._beta**2).sum(axis=0) / self._sigma**2).sum())

    def degenerate(self) -> str | None:
        """Say when a noise width stands at its floor: the likelihood is then no measure of fit."""
        if (self._sigma**2 <= self._floor * (1 + 1e-9)).any():
            return "its variance is at the floor"
        return None

    def scaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the parameters for original columns into those for standardised ones."""
        if self.beta is None or self.sigma is None:
            return self
        beta = x.coefficients_in(self.beta)
        beta[0] -= y.mean
        return replace(self, beta=beta / y.scale, sigma=self.sigma / y.scale)

    def unscaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the parameters for standardised columns into those for original ones."""
        beta = x.coefficients_out(self._beta * y.scale)
        beta[0] += y.mean
        return replace(self, beta=beta, sigma=self._sigma * y.scale)

    def formula(self) -> dict[str, Any] | None:
        """Give the coefficients (q, 1) of one output."""
        return {"link": "identity", "beta": self._beta.tolist()} if self._beta.shape[1] == 1 else None

    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the centre of the noise: (n,), or (n, m) for several outputs."""
        centre = design.times(self._beta)
        if offset is not None:
            centre = centre + offset[:, None]
        return centre[:, 0] if centre.shape[1] == 1 else centre

    @property
    def _beta(self) -> Array:
        assert self.beta is not None
        return self.beta

    @property
    def _sigma(self) -> Array:
        assert self.sigma is not None
        return self.sigma

    @property
    def _floor(self) -> float:
        return max(self.variance_floor or 0.0, SMALLEST_VARIANCE)

    def _ridge(self, q: int) -> Array:
        ridge = np.full(q, self.alpha or 0.0)
        ridge[0] = 0.0  # the intercept is free
        return ridge
