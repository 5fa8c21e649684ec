"""Binomial regression with logit link: successes out of successes + failures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, gammaln, log_expit

from expertise.mixture.experts._glm import AbstractLinkExpert, check_counts
from expertise.mixture.rows import Array, Design


@dataclass(frozen=True, eq=False)
class BinomialExpert(AbstractLinkExpert):
    """Counts of successes and failures, y (n, 2): the log odds of a success are linear.

    log p = log C(s + f, s) + s log expit(eta) + f log expit(-eta) with s successes and f failures; score
    s - (s + f) p, information (s + f) p (1 - p) (McCullagh & Nelder 1989, chapter 4). Trials are not sample
    weights: all trials of a row have the same expert.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    beta : (q, 1) intercept first, then a coefficient a column.
    """

    name = "binomial"
    link = "logistic"
    task = "regression"
    discrete = True

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept successes and failures, counts of shape (n, 2)."""
        if np.ndim(y) != 2 or np.shape(y)[1] != 2:
            raise ValueError(
                f"expert='binomial' takes y of shape (n, 2), successes and failures; got {np.shape(y)}. "
                "Stack them with numpy.column_stack([successes, trials - successes]); for single trials with "
                'two classes use MixtureOfExpertsClassifier with expert="logistic".'
            )
        check_counts(cls.name, y)

    @staticmethod
    def _start(y: Array) -> tuple[Array, Array]:
        successes, failures = y[:, 0] + 0.5, y[:, 1] + 0.5
        return np.log(successes / failures), successes * failures / (successes + failures)

    @classmethod
    def _log_density(cls, experts: Sequence[Self], y: Array, eta: Array) -> Array:
        successes, failures = y[:, [0]], y[:, [1]]
        ways = gammaln(successes + failures + 1) - gammaln(successes + 1) - gammaln(failures + 1)
        return ways + successes * log_expit(eta) + failures * log_expit(-eta)  # type: ignore[no-any-return]

    def _score(self, y: Array, eta: Array) -> tuple[Array, Array]:
        success, failure = expit(eta), expit(-eta)
        return y[:, 0] * failure - y[:, 1] * success, (y[:, 0] + y[:, 1]) * success * failure

    @staticmethod
    def _mean(eta: Array) -> Array:
        return expit(eta)  # type: ignore[no-any-return]

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the distribution of one trial of every row: 1 for a success, 0 for a failure.

        The number of trials of a case to come is not known; its share of successes has this mean.
        """
        from scipy import stats

        return stats.bernoulli(self.predict(design, offset))
