"""The two estimators: mixtures of regressions and mixtures of classifiers, fitted by EM."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from expertise.core.classifier import AbstractMixtureClassifier
from expertise.core.estimator import Inputs
from expertise.core.regressor import AbstractMixtureRegressor
from expertise.mixture.editing import EditableMixture
from expertise.mixture.rows import Array, Rows


class MixtureOfExpertsRegressor(EditableMixture, AbstractMixtureRegressor):
    """Experts that are regressions, and a gate that depends on the input, fitted together by EM."""

    _task = "regression"
    _default_expert = "gaussian"

    def _learn_y(self, y: Any, experts: Any) -> npt.NDArray[np.float64]:
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        try:
            numbers: npt.NDArray[np.float64] = y.astype(float)
        except (TypeError, ValueError):
            raise ValueError(
                f"y must hold numbers; got {y.ravel()[:3]!r}; for labels use a classifier"
            ) from None
        if not np.isfinite(numbers).all():
            raise ValueError("Input y contains NaN or infinity; drop such rows, or give them sample_weight=0")
        return numbers

    def _check_y(self, y: Any, n: int) -> Any:
        y = super()._check_y(y, n)
        for expert in {type(expert): expert for expert in self.experts_}.values():
            expert.check_y(y)
        return y

    def _expert_distribution(self, k: int, inputs: Inputs) -> Any:
        return self.experts_[k].distribution(self._expert_design(inputs), inputs.offset)

    def _expert_log_density(self, inputs: Inputs, y: Any) -> Array:
        design = self._expert_design(inputs)
        z = y.reshape(len(y), -1) if inputs.offset is None else y.reshape(len(y), -1) - inputs.offset[:, None]
        rows = Rows(design, design, y, z, 0.0, np.ones(len(y)), inputs.offset)
        return self._model().log_densities(rows)


class MixtureOfExpertsClassifier(EditableMixture, AbstractMixtureClassifier):
    """Experts that are classifiers, and a gate that depends on the input, fitted together by EM."""

    _task = "classification"
    _default_expert = "multinomial"

    def _learn_y(self, y: Any, experts: Any) -> npt.NDArray[np.intp]:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return codes
