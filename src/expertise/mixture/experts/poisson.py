"""Poisson regression with log link: y ~ Poisson(exp(b + w'x + offset))."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from expertise.mixture.experts._glm import AbstractLinkExpert, check_counts
from expertise.mixture.rows import Array, Design


@dataclass(frozen=True, eq=False)
class PoissonExpert(AbstractLinkExpert):
    """Counts whose log mean is linear; an offset is the log of the exposure.

    log p = y eta - exp(eta) - log y!, with score y - mu and information mu (McCullagh & Nelder 1989,
    chapter 6). The first least squares is on log(y + 1/2), weighted by y + 1/2.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    beta : (q, 1) intercept first, then a coefficient a column.
    """

    name = "poisson"
    link = "exp"
    task = "regression"
    discrete = True

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept counts: 0, 1, 2, ..."""
        check_counts(cls.name, y)

    @staticmethod
    def _start(y: Array) -> tuple[Array, Array]:
        return np.log(y + 0.5), y + 0.5

    @classmethod
    def _log_density(cls, experts: Sequence[Self], y: Array, eta: Array) -> Array:
        return y[:, None] * eta - np.exp(eta) - gammaln(y + 1)[:, None]  # type: ignore[no-any-return]

    def _score(self, y: Array, eta: Array) -> tuple[Array, Array]:
        mean = np.exp(eta)
        return y - mean, mean

    @staticmethod
    def _mean(eta: Array) -> Array:
        return np.exp(eta)

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the Poisson distribution of every row."""
        from scipy import stats

        return stats.poisson(self.predict(design, offset))
