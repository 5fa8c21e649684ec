"""The two estimators: mixtures of regressions and mixtures of classifiers, fitted by EM."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from expertise.core.classifier import AbstractMixtureClassifier
from expertise.core.estimator import Inputs
from expertise.core.regressor import AbstractMixtureRegressor
from expertise.mixture import _checking
from expertise.mixture.editing import EditableMixture
from expertise.mixture.rows import Array, Rows


class MixtureOfExpertsRegressor(EditableMixture, AbstractMixtureRegressor):
    """Experts that are regressions, and a gate that depends on the input, fitted together by EM.

    Parameters
    ----------
    n_experts : how many; "auto" chooses by ``criterion``; None means 2, or what ``expert`` (a list) or the
        gate say.
    expert : "gaussian" (used if None), "student_t", "poisson", "gamma", "binomial" (successes and failures),
        "constant"; an expert with options; any scikit-learn regressor; or a list of different ones.
    gate : "softmax", "constant", "gaussian", "tree"; a gate with options; or any classifier with
        ``predict_proba``.
    partition : "mapping", by how inputs map to outputs (EM); "inputs", by clusters of the gate's inputs;
        "given", by the labels that fit(subtask=) gets.
    gate_features, expert_features : which columns the gate and the experts see: indices, names, or a slice.
    algorithm : "em", or "hard": each row belongs to its best expert alone.
    alpha : ridge on the experts' coefficients of standardised columns.
    gate_alpha : ridge a row on the gate's centred coefficients of standardised columns.
    variance_floor : smallest variance of an expert, as a share of y's.
    starts : kinds of starts, taken in turn: "random", "residual", "kmeans_xy", "kmeans", "tree", "nested"
        (the solutions of smaller models); all of them if None.
    n_init : how many starts; None means 10, or 3 where experts or gate are scikit-learn estimators.
    screening_iter : iterations of each start before the best are continued.
    max_iter : iterations at most.
    tol : stop when what is still to be gained is less than this a row, in nats.
    criterion : "bic", "aic", "icl" or "cv", for n_experts="auto" and trees that grow.
    max_experts : most experts that "auto" tries; one is always among the candidates.
    n_jobs : threads that share the chunks of rows.
    random_state : seed.
    verbose : show a progress bar.
    keep_path : keep the iterations of the chosen run in ``path_``, up to 60 (the first ones, and then ever
        fewer); of built-in gates and experts. Of runs that end equally well, the longest is chosen.

    Attributes
    ----------
    experts_, gate_ : the fitted parts, on the original scale.
    coef_, intercept_, sigma_ : of linear experts, (K, p), (K,), (K,), or (K, m, p), (K, m), (K, m).
    gate_coef_, gate_intercept_ : log odds against the last expert, (K, q) and (K,).
    weights_ : (K,) mean prior of each expert; cases_ : (K,) rows that each expert stands for.
    loglik_, joint_loglik_ : log p(y | x), and log p(y, x) where the gate models the inputs.
    objective_history_, n_iter_, converged_ : of the run that was chosen.
    starts_ : every start: kind, objective, and what became of it.
    path_ : (iteration, gate, experts), the last as fitted; `at_step` makes a mixture of an entry.
    n_parameters_ : None where an expert has no count.
    selection_ : the candidates of "auto", or the steps of a tree that grew.
    n_features_in_, feature_names_in_ : of X.

    Raises
    ------
    ValueError : at the fit: an argument, or data, that cannot be used; says which, and what to do.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 101)[:, None]
    >>> model = MixtureOfExpertsRegressor(2, random_state=0).fit(x, np.abs(x[:, 0]))
    >>> np.sort(model.coef_[:, 0]).round(6)
    array([-1.,  1.])
    >>> model.predict([[-0.5], [0.25]]).round(6)
    array([0.5 , 0.25])
    """

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
            raise ValueError("Input y contains NaN or infinity; drop such rows")
        _checking.check_size("y", numbers)
        return numbers

    def _check_y(self, y: Any, n: int) -> Any:
        y = super()._check_y(y, n)
        settings = self.experts_[0].settings
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if settings is not None and outputs != settings.n_outputs:
            raise ValueError(
                f"y must have {settings.n_outputs} columns, as at the fit; got {outputs} (shape {y.shape})"
            )
        for expert in {type(expert): expert for expert in self.experts_}.values():
            expert.check_y(y)
        return y

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Compute R^2 of `predict`; of counts (n, 2), that of the shares of successes, weighted by trials."""
        counts = np.asarray(y)
        if self.experts_[0].name != "binomial" or counts.ndim != 2:
            return float(super().score(X, y, sample_weight))
        trials = counts.sum(axis=1)
        weight = trials if sample_weight is None else trials * np.asarray(sample_weight)
        there = trials > 0
        share = counts[there, 0] / trials[there]
        return float(r2_score(share, self.predict(X)[there], sample_weight=weight[there]))

    def _expert_distribution(self, k: int, inputs: Inputs) -> Any:
        return self.experts_[k].distribution(self._expert_design(inputs), inputs.offset)

    def _expert_log_density(self, inputs: Inputs, y: Any) -> Array:
        design = self._expert_design(inputs)
        z = y.reshape(len(y), -1) if inputs.offset is None else y.reshape(len(y), -1) - inputs.offset[:, None]
        rows = Rows(design, design, y, z, 0.0, np.ones(len(y)), inputs.offset)
        return self._model().log_densities(rows)


class MixtureOfExpertsClassifier(EditableMixture, AbstractMixtureClassifier):
    """Experts that are classifiers, and a gate that depends on the input, fitted together by EM.

    The arguments and attributes are those of `MixtureOfExpertsRegressor`, but ``expert`` names "multinomial"
    (any number of classes, used if None), "logistic" (two classes), "constant" (class frequencies), or is a
    classifier with ``predict_proba``; and ``classes_`` holds the labels.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> y = np.where((X[:, 0] > 0) == (X[:, 1] > 0), "same", "other")
    >>> model = MixtureOfExpertsClassifier(2, alpha=0.01, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    """

    _task = "classification"
    _default_expert = "multinomial"

    def _learn_y(self, y: Any, experts: Any) -> npt.NDArray[np.intp]:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return codes
