"""Logistic regression: P(second class) = 1 / (1 + exp(-(b + w'x + offset)))."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit

from expertise.mixture.experts._glm import AbstractLinkExpert
from expertise.mixture.rows import Array


@dataclass(frozen=True, eq=False)
class LogisticExpert(AbstractLinkExpert):
    """Two classes: the log odds of the second against the first are linear.

    log p = log expit(eta) or log expit(-eta), with score y - p and information p (1 - p) (McCullagh & Nelder
    1989, chapter 4). With a ridge alpha, one expert is scikit-learn's ``LogisticRegression(C=1 / alpha)`` on
    standardised columns.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    beta : (q, 1) intercept first, then a coefficient a column.
    """

    name = "logistic"
    link = "logistic"
    task = "classification"

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept the class codes 0 and 1."""
        n_classes = int(np.max(y, initial=0)) + 1
        if n_classes > 2:
            raise ValueError(
                f'expert="logistic" takes two classes, y has {n_classes}; use expert="multinomial"'
            )

    @staticmethod
    def _start(y: Array) -> tuple[Array, Array]:
        # half a case is added to each class of a row: log((y + 1/2) / (3/2 - y)), information 3/16
        return np.where(y > 0, np.log(3.0), -np.log(3.0)), np.full_like(y, 3 / 16)

    @classmethod
    def _log_density(cls, experts: Sequence[Self], y: Array, eta: Array) -> Array:
        return log_expit(np.where(y > 0, 1.0, -1.0)[:, None] * eta)  # type: ignore[no-any-return]

    def _score(self, y: Array, eta: Array) -> tuple[Array, Array]:
        second = expit(eta)
        return y - second, second * expit(-eta)

    @staticmethod
    def _mean(eta: Array) -> Array:
        return np.column_stack([expit(-eta), expit(eta)])
