"""Any scikit-learn estimator as an expert: a regressor with Gaussian noise around it, or a classifier."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from expertise.mixture.experts._abstract import ExpertSettings
from expertise.mixture.experts._wrapped import AbstractEstimatorExpert
from expertise.mixture.rows import Array, Design, Rows
from expertise.mixture.sums import Stack, Statistics

LOG_2PI = float(np.log(2 * np.pi))
SMALLEST_PROBA = 1e-6  # a forest says 0 for a class that it did not see; that must not veto the expert


@dataclass(frozen=True, eq=False)
class RegressorExpert(AbstractEstimatorExpert):
    """Any scikit-learn regressor, with Gaussian noise: y ~ N(prediction, sigma^2).

    sigma^2 = sum h r^2 / sum h, over held-out residuals with ``out_of_fold``. Everything is in the units of
    y and of the inputs as they came.

    Parameters
    ----------
    estimator : the regressor; with ``frozen`` it must be fitted already, and is used as it is.
    out_of_fold : judge the rows of the fit by models that did not see them; None: where the regressor
        interpolates.
    folds : how many folds, at least 2.
    model : the fitted regressor.
    held_out : (N,) held-out predictions of the rows of the fit.
    variance_floor : smallest variance, as a share of y's; the mixture's if None.
    sigma : the noise width, in units of y.
    smallest_sigma : the floor of sigma, in units of y.
    """

    variance_floor: float | None = None
    sigma: float | None = None
    smallest_sigma: float = 0.0

    name = "estimator"
    task = "regression"

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept any finite numbers."""

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings where the expert has none of its own; check the options."""
        floor = settings.variance_floor if self.variance_floor is None else self.variance_floor
        return replace(super().bound(settings), variance_floor=floor)

    @property
    def is_fitted(self) -> bool:
        """Whether there is a fitted regressor and its noise width (see `with_noise_from`)."""
        return self._fitted is not None and self.sigma is not None

    def with_noise_from(self, rows: Rows) -> Self:
        """Measure the noise width of a regressor that was given fitted, on rows with their weights."""
        residual = np.asarray(rows.y, float) - self._answers_for(rows)
        return self._with_noise(residual, rows.weight, np.asarray(rows.y, float))

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log p_k(y_i | x_i): (n, len(experts))."""
        y = np.asarray(rows.y, float)
        return np.column_stack([expert._log_density(y, expert._answers_for(rows)) for expert in experts])

    def _log_density(self, y: Array, mean: Array) -> Array:
        density: Array = -0.5 * (((y - mean) / self._sigma) ** 2 + LOG_2PI) - np.log(self._sigma)
        return density

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Keep the rows."""
        return [cls._kept(rows, resp[:, k]) for k in range(len(experts))]

    def update(self, statistics: Statistics) -> Self:
        """Fit a clone by weight, then the noise width. A frozen one gets its noise width only."""
        assert isinstance(statistics, Stack)
        expert, answers = self._refitted(statistics)
        y = np.asarray(statistics.column("y"), float)
        return expert._with_noise(y - answers, statistics.column("resp"), y)

    def _with_noise(self, residual: Array, weight: Array, y: Array) -> Self:
        # without a floor a perfect fit would still need a width
        smallest = max(self.variance_floor or 0.0, 1e-30) ** 0.5 * (float(np.std(y)) or 1.0)
        if not weight.sum() > 0:
            return self if self.sigma is not None else replace(self, sigma=float(np.std(y)) or 1.0)
        sigma = float(np.average(residual**2, weights=weight)) ** 0.5
        return replace(self, sigma=max(sigma, smallest), smallest_sigma=smallest)

    def degenerate(self) -> str | None:
        """Say when the noise width stands at its floor: the likelihood is then no measure of fit."""
        if 0 < self._sigma <= self.smallest_sigma * (1 + 1e-9):
            return "its variance is at the floor"
        return None

    def _answers(self, model: Any, x: Any) -> Array:
        return np.asarray(model.predict(x), dtype=np.float64).reshape(x.shape[0])

    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the mean (n,)."""
        return self._predicted(design)

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the normal distribution of every row."""
        from scipy import stats

        return stats.norm(loc=self.predict(design, offset), scale=self._sigma)

    @property
    def _sigma(self) -> float:
        assert self.sigma is not None
        return self.sigma


@dataclass(frozen=True, eq=False)
class ClassifierExpert(AbstractEstimatorExpert):
    """Any scikit-learn classifier with ``predict_proba``.

    Its probabilities are kept above 1e-6 and made to sum to 1. Classes that it did not see have the smallest.

    Parameters
    ----------
    estimator : the classifier; with ``frozen`` it must be fitted already, on class codes 0 .. V - 1, and is
        used as it is.
    out_of_fold : judge the rows of the fit by models that did not see them; None: where the classifier
        interpolates.
    folds : how many folds, at least 2.
    model : the fitted classifier.
    held_out : (N, V) held-out probabilities of the rows of the fit.
    """

    name = "estimator"
    task = "classification"

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept any class codes."""

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings; check the options."""
        bound = super().bound(settings)
        if not hasattr(self.estimator, "predict_proba"):
            raise ValueError(
                f"estimator must have predict_proba, {self.estimator!r} has none; "
                "wrap it in sklearn.calibration.CalibratedClassifierCV"
            )
        return bound

    @property
    def is_fitted(self) -> bool:
        """Whether there is a fitted classifier."""
        return self._fitted is not None

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log P_k(y_i | x_i): (n, len(experts))."""
        at, codes = np.arange(len(rows)), np.asarray(rows.y, dtype=np.intp)
        return np.column_stack([np.log(expert._answers_for(rows)[at, codes]) for expert in experts])

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Keep the rows."""
        return [cls._kept(rows, resp[:, k]) for k in range(len(experts))]

    def update(self, statistics: Statistics) -> Self:
        """Fit a clone by weight."""
        assert isinstance(statistics, Stack)
        return self._refitted(statistics)[0]

    def _answers(self, model: Any, x: Any) -> Array:
        assert self.settings is not None
        seen = self._codes(model)
        proba = np.zeros((x.shape[0], max(self.settings.n_outputs, int(seen.max()) + 1)))
        proba[:, seen] = model.predict_proba(x)
        np.maximum(proba, SMALLEST_PROBA, out=proba)
        proba /= proba.sum(axis=1, keepdims=True)
        return proba

    def _codes(self, model: Any) -> npt.NDArray[np.intp]:
        """Give the codes of a model's classes; one that was given fitted knows labels, not codes."""
        labels = None if self.settings is None else self.settings.classes
        if model is not self.estimator or labels is None:
            return np.asarray(model.classes_, dtype=np.intp)
        seen = model.classes_.tolist()
        strange = [label for label in seen if label not in labels]
        if strange:
            raise ValueError(
                f"the given classifier knows the class {strange[0]!r}, but y has "
                f"{', '.join(map(repr, labels))}; fit it on the same labels"
            )
        return np.array([labels.index(label) for label in seen], dtype=np.intp)

    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the class probabilities (n, V)."""
        return self._predicted(design)
