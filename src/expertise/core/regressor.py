"""Mixtures of experts that predict numbers, and the distribution of them."""

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin

from expertise.core import _checks
from expertise.core.distribution import MixtureDistribution, log_density
from expertise.core.estimator import AbstractMixture
from expertise.core.inputs import Inputs

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class AbstractMixtureRegressor(RegressorMixin, AbstractMixture):  # type: ignore[misc]
    """A fitted mixture whose experts are conditional distributions of a number, or of several numbers.

    A subclass supplies `_gate_proba`, `_predict_expert` and `_expert_distribution`.
    """

    @abstractmethod
    def _expert_distribution(self, k: int, inputs: Inputs) -> Any:
        """Give p_k(y | x) of each row, a frozen distribution of shape (n,) or (n, m).

        One of scipy.stats, or anything with logpdf (logpmf of a discrete one), cdf, ppf, mean, var and
        rvs(random_state=).
        """

    def expert_distributions(self, X: Any, offset: Any = None) -> list[Any]:
        """Give the distribution of y that each expert alone predicts: K frozen distributions."""
        return self._expert_distributions(self._validate(X, offset))

    def _expert_distributions(self, inputs: Inputs) -> list[Any]:
        return [self._expert_distribution(k, inputs) for k in range(self.n_experts_)]

    def _check_y(self, y: Any, n: int) -> Any:
        """Pass (n,) or (n, m) finite numbers; a single column becomes (n,)."""
        array = _checks.as_floats("y", y)
        if array.ndim not in (1, 2):
            raise ValueError(f"y must have the shape ({n},) or ({n}, outputs); got the shape {array.shape}")
        _checks.check_length("y", len(array), n)
        return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array

    def _expert_log_density(self, inputs: Inputs, y: Any) -> Floats:
        """Give log p_k(y | x), (n, K); the outputs of one expert are independent, so their logs add."""
        return np.stack([log_density(expert, y) for expert in self._expert_distributions(inputs)], axis=1)

    def _explained(self, pooled: Floats) -> tuple[npt.NDArray[Any], Rows | None]:
        return pooled, None

    def predict(self, X: Any, *, pooling: str = "weighted_sum", k: int = 2, offset: Any = None) -> Floats:
        """Predict y.

        Parameters
        ----------
        X : (n, d) inputs.
        pooling : "weighted_sum", the mean of the mixture; "argmax", the expert with the largest gate
            probability alone; "top_k", the ``k`` experts with the largest, reweighted. Experts that do not
            count for a row are not asked about it.
        k : how many experts "top_k" keeps.
        offset : (n,) a known term of the linear predictors, or None.

        Returns
        -------
        (n,), or (n, m) of several outputs.

        Raises
        ------
        ValueError : an unknown pooling, or a ``k`` that "top_k" cannot use.
        """
        return self._pool(self._validate(X, offset), pooling, k)

    def predict_distribution(self, X: Any, offset: Any = None) -> MixtureDistribution:
        """Predict the whole distribution of y, p(y | x) = sum_k g_k(x) p_k(y | x), for each row."""
        inputs = self._validate(X, offset)
        return MixtureDistribution(self._gate_proba(inputs), self._expert_distributions(inputs))

    def predict_interval(self, X: Any, coverage: float = 0.9, offset: Any = None) -> Floats:
        """Predict the central interval that holds y with probability ``coverage``.

        Returns
        -------
        (n, 2), or (n, m, 2) of several outputs: lower and upper end.

        Raises
        ------
        ValueError : a coverage that is not over 0 and up to 1.
        """
        _checks.check_coverage(coverage)
        return np.stack(self.predict_distribution(X, offset).interval(coverage), axis=-1)

    def predict_quantile(self, X: Any, q: npt.ArrayLike, offset: Any = None) -> Floats:
        """Predict quantiles of y.

        Parameters
        ----------
        X : (n, d) inputs.
        q : a probability from 0 to 1, or Q of them.
        offset : (n,) or None.

        Returns
        -------
        (n,), or (n, m) of several outputs; of Q probabilities (n, Q) or (n, m, Q).

        Raises
        ------
        ValueError : a q outside 0 to 1, or of more than one dimension.
        """
        wanted = _checks.check_probability("q", q)
        if wanted.ndim > 1:
            raise ValueError(f"q must be one number or a list of them; got the shape {wanted.shape}")
        distribution = self.predict_distribution(X, offset)
        if wanted.ndim == 0:
            return distribution.ppf(float(wanted))
        if not wanted.size:
            return np.empty((*distribution.shape, 0))
        return np.stack([distribution.ppf(float(one)) for one in wanted], axis=-1)

    def sample(self, X: Any, random_state: Any = None, offset: Any = None) -> Floats:
        """Draw one y for each row: an expert by the gate, then y of this expert; (n,) or (n, m)."""
        return self.predict_distribution(X, offset).rvs(random_state=random_state)
