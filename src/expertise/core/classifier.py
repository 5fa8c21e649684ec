"""Mixtures of experts that predict classes."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin

from expertise.core import _checks
from expertise.core._drawing import as_generator, draw_columns
from expertise.core._logs import safe_log
from expertise.core.estimator import AbstractMixture
from expertise.core.inputs import Inputs

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class AbstractMixtureClassifier(ClassifierMixin, AbstractMixture):  # type: ignore[misc]
    """A fitted mixture whose experts give class probabilities.

    A subclass supplies `_gate_proba` and `_predict_expert`, (n, V) with rows that sum to 1.

    Attributes
    ----------
    classes_ : (V,) the labels, in the order of the columns of `predict_proba`.
    """

    classes_: npt.NDArray[Any]

    def _check_y(self, y: Any, n: int) -> Rows:
        """Turn labels into numbers of classes, (n,)."""
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise ValueError(f"y must have the shape ({n},), one label a row; got the shape {labels.shape}")
        _checks.check_length("y", len(labels), n)
        code = {label: v for v, label in enumerate(self.classes_.tolist())}
        codes = [code.get(label, -1) for label in labels.tolist()]
        if -1 in codes:
            known = ", ".join(repr(label) for label in self.classes_.tolist())
            raise ValueError(
                f"y holds the label {labels.tolist()[codes.index(-1)]!r}, which the fit never saw; "
                f"classes_ are {known}; leave such rows out or fit on data that have it"
            )
        return np.asarray(codes, dtype=np.intp)

    def _expert_log_density(self, inputs: Inputs, y: Any) -> Floats:
        """Give log p_k(y | x), (n, K): the logarithm of each expert's probability of the class y."""
        rows = np.arange(len(y))
        return np.stack(
            [safe_log(self._predict_expert(k, inputs)[rows, y]) for k in range(self.n_experts_)], axis=1
        )

    def _explained(self, pooled: Floats) -> tuple[npt.NDArray[Any], Rows | None]:
        column = np.argmax(pooled, axis=1)
        return self.classes_[column], column

    def predict_proba(
        self, X: Any, *, pooling: str = "weighted_sum", k: int = 2, offset: Any = None
    ) -> Floats:
        """Predict the probability of each class.

        Parameters
        ----------
        X : (n, d) inputs.
        pooling : "weighted_sum", the mixture sum_k g_k p_k; "argmax", the expert with the largest gate
            probability alone; "top_k", the ``k`` experts with the largest, reweighted. Experts that do not
            count for a row are not asked about it.
        k : how many experts "top_k" keeps.
        offset : (n,) a known term of the linear predictors, or None.

        Returns
        -------
        (n, V), rows that sum to 1, columns in the order of ``classes_``.

        Raises
        ------
        ValueError : an unknown pooling, or a ``k`` that "top_k" cannot use.
        """
        return self._pool(self._validate(X, offset), pooling, k)

    def predict_log_proba(
        self, X: Any, *, pooling: str = "weighted_sum", k: int = 2, offset: Any = None
    ) -> Floats:
        """Predict the logarithm of the probability of each class, as `predict_proba`."""
        return safe_log(self.predict_proba(X, pooling=pooling, k=k, offset=offset))

    def predict(
        self, X: Any, *, pooling: str = "weighted_sum", k: int = 2, offset: Any = None
    ) -> npt.NDArray[Any]:
        """Predict the label of the largest probability of `predict_proba`, (n,)."""
        proba = self.predict_proba(X, pooling=pooling, k=k, offset=offset)
        return np.asarray(self.classes_[np.argmax(proba, axis=1)])

    def sample(self, X: Any, random_state: Any = None, offset: Any = None) -> npt.NDArray[Any]:
        """Draw one label for each row by `predict_proba`, (n,)."""
        proba = self.predict_proba(X, offset=offset)
        return np.asarray(self.classes_[draw_columns(proba, as_generator(random_state))])
