"""What every fitted mixture answers, however it was trained: predictions, responsibilities, criteria.

A mixture of experts is p(y | x) = sum_k g_k(x) p_k(y | x): the gate g gives each expert k its prior weight
at x, and each expert is a conditional model of y (Jacobs, Jordan, Nowlan and Hinton 1991, "Adaptive
mixtures of local experts"). A subclass supplies the gate and the experts; everything else is derived here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from expertise.core import _checks, _summary
from expertise.core._logs import add_logs, logsumexp, posterior, safe_log
from expertise.core.explanation import Explanation, explain
from expertise.core.inputs import Inputs
from expertise.core.pooling import pool, pooling_weights

__all__ = ["AbstractMixture", "Inputs"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class _Joint(NamedTuple):
    """log g_k p_k(y) and log g_k, both (n, K), or (G, K) of groups; log p(x), (n,) or (G,)."""

    log_joint: Floats
    log_prior: Floats
    log_evidence: Floats
    weight: Floats | None
    groups: _checks.Groups | None


class AbstractMixture(BaseEstimator, ABC):  # type: ignore[misc]
    """A fitted mixture of experts: scikit-learn's face of one.

    A subclass supplies `_gate_proba`, `_predict_expert` and `_expert_log_density`, and what fitting learns.

    Attributes
    ----------
    n_experts_ : number of experts, K.
    n_features_in_ : number of columns of X, d.
    weights_ : (K,) mean gate probability of each expert over the training data.
    n_parameters_ : number of free parameters, or None where it has no meaning.
    loglik_ : log-likelihood of the training data.
    """

    n_experts_: int
    n_features_in_: int
    n_parameters_: int | None
    loglik_: float
    weights_: Floats
    # (d,) weighted mean of the training inputs, which `explain` puts a column back to
    _typical_row_: Floats

    # ---- what a subclass supplies

    @abstractmethod
    def _gate_proba(self, inputs: Inputs) -> Floats:
        """Give g_k(x), (n, K), rows that sum to 1."""

    @abstractmethod
    def _predict_expert(self, k: int, inputs: Inputs) -> Floats:
        """Give the output of expert k: (n,), (n, m) of several outputs, or (n, V) class probabilities."""

    @abstractmethod
    def _expert_log_density(self, inputs: Inputs, y: Any) -> Floats:
        """Give log p_k(y | x), (n, K), of a y that `_check_y` has passed."""

    @abstractmethod
    def _check_y(self, y: Any, n: int) -> Any:
        """Check y against the n rows of X, and bring it into the form that `_expert_log_density` takes."""

    @abstractmethod
    def _explained(self, pooled: Floats) -> tuple[npt.NDArray[Any], Rows | None]:
        """Give the prediction that `explain` reports, and the column of the experts' output it is about."""

    def _log_gate(self, inputs: Inputs) -> Floats:
        return safe_log(self._gate_proba(inputs))

    def _log_evidence(self, inputs: Inputs) -> Floats:
        """Give log p(x), (n,), where the gate models the inputs too; only the criteria use it."""
        return np.zeros(inputs.X.shape[0])

    def _parameter_counts(self) -> tuple[int | None, list[int | None]]:
        """Give the number of parameters of the gate and of each expert, None where unknown."""
        return None, [None] * self.n_experts_

    def _summary_lines(self) -> list[str]:
        """Give lines about the gate and the experts for `summary`."""
        return []

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """Leave the estimator as it was if the block fails or is interrupted: an earlier fit stays usable."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @property
    def _nan_allowed(self) -> bool:
        """Whether X may have missing values."""
        return False

    @property
    def _sparse_allowed(self) -> bool:
        """Whether X may be sparse."""
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._nan_allowed
        tags.input_tags.sparse = self._sparse_allowed
        return tags

    def _validate(self, X: Any, offset: Any = None) -> Inputs:
        """Check the inputs of a prediction against those of the fit."""
        check_is_fitted(self)
        X = validate_data(
            self,
            X,
            reset=False,
            dtype=np.float64,
            accept_sparse="csr" if self._sparse_allowed else False,
            ensure_all_finite="allow-nan" if self._nan_allowed else True,
        )
        return Inputs(X, None if offset is None else _checks.check_column("offset", offset, X.shape[0]))

    # ---- the gate and the experts

    def gate_proba(self, X: Any) -> Floats:
        """Give the prior weight of each expert, g_k(x).

        Parameters
        ----------
        X : (n, d) inputs.

        Returns
        -------
        (n, K), rows that sum to 1.
        """
        return self._gate_proba(self._validate(X))

    def apply(self, X: Any) -> Rows:
        """Give the expert with the largest gate probability for each row, (n,)."""
        return np.asarray(np.argmax(self.gate_proba(X), axis=1))

    def predict_experts(self, X: Any, offset: Any = None) -> Floats:
        """Give what each expert alone predicts: (n, K); several outputs (n, K, m); classes (n, K, V)."""
        return self._stack_experts(self._validate(X, offset))

    def _stack_experts(self, inputs: Inputs) -> Floats:
        return np.stack([self._predict_expert(k, inputs) for k in range(self.n_experts_)], axis=1)

    def _pool(self, inputs: Inputs, pooling: str, k: int) -> Floats:
        weights = pooling_weights(pooling, self._gate_proba(inputs), k)
        n = weights.shape[0]

        def predict_one(expert: int, rows: Rows) -> Floats:
            return self._predict_expert(expert, inputs if len(rows) == n else inputs.take(rows))

        return pool(weights, predict_one)

    # ---- y given: responsibilities, likelihood, criteria

    def _joint(self, X: Any, y: Any, sample_weight: Any, offset: Any, groups: Any) -> _Joint:
        """Compute log g_k p_k(y): of each row, or of each group, whose gate is that of its first row."""
        inputs = self._validate(X, offset)
        n = inputs.X.shape[0]
        y = self._check_y(y, n)
        weight = _checks.check_sample_weight(sample_weight, n)
        sets = _checks.check_groups(groups, n)
        log_density = self._expert_log_density(inputs, y)
        of_gate = inputs
        if sets is not None:
            log_density = sets.sums(_checks.weighted(log_density, weight))
            of_gate = inputs.take(sets.first)
        log_prior = self._log_gate(of_gate)
        return _Joint(
            log_joint=add_logs(log_prior, log_density),
            log_prior=log_prior,
            log_evidence=self._log_evidence(of_gate),
            weight=weight,
            groups=sets,
        )

    def responsibilities(
        self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, groups: Any = None
    ) -> Floats:
        """Give the posterior weight of each expert once y is known, h_k = g_k p_k(y | x) / p(y | x).

        Parameters
        ----------
        X : (n, d) inputs.
        y : (n,) or (n, m) what was observed.
        sample_weight : (n,) or None. Matters only with ``groups``.
        offset : (n,) or None.
        groups : (n,) labels or None. The rows of a group share their expert:
            h_k is proportional to g_k(first row) prod_i p_k(y_i | x_i) ** w_i, the same for all its rows.

        Returns
        -------
        (n, K), rows that sum to 1. The gate's own where no expert can have produced y.
        """
        joint = self._joint(X, y, sample_weight, offset, groups)
        h = posterior(joint.log_joint, joint.log_prior)
        return h if joint.groups is None else h[joint.groups.member]

    def score_samples(
        self, X: Any, y: Any = None, sample_weight: Any = None, offset: Any = None, groups: Any = None
    ) -> Floats:
        """Give the log-likelihood of each row, w_i log p(y_i | x_i), (n,); their sum is that of the data.

        With ``groups``, as in `responsibilities`, that of each group, in the order of np.unique(groups).
        Without ``y``, what the gate says of the inputs alone: log p(x) where it models them, else 0.
        """
        if y is None:
            return self._log_evidence(self._validate(X, offset))
        joint = self._joint(X, y, sample_weight, offset, groups)
        total = logsumexp(joint.log_joint)
        return total if joint.groups is not None else _checks.weighted(total, joint.weight)

    def _criterion(self, data: tuple[Any, ...], per_parameter: float | None, with_entropy: bool) -> float:
        """Compute -2 ll + (``per_parameter``, or ln n) df, and twice the entropy of h where wanted."""
        df = _summary.count_for_criteria(self.n_parameters_, self._parameter_counts())
        joint = self._joint(*data)
        rows = len(joint.log_joint if joint.groups is None else joint.groups.member)
        n = rows if joint.weight is None else float(joint.weight.sum())
        each = logsumexp(joint.log_joint) + joint.log_evidence
        h = posterior(joint.log_joint, joint.log_prior)
        entropy = -(h * safe_log(np.where(h > 0, h, 1.0))).sum(axis=1)
        if joint.groups is None:
            each, entropy = _checks.weighted(each, joint.weight), _checks.weighted(entropy, joint.weight)
        price = np.log(n) if per_parameter is None else per_parameter
        return float(-2 * each.sum() + df * price + (2 * entropy.sum() if with_entropy else 0.0))

    def aic(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, groups: Any = None) -> float:
        """Compute Akaike's criterion, -2 ll + 2 df (Akaike 1974); smaller is better.

        Raises
        ------
        ValueError : an expert has no number of parameters.
        """
        return self._criterion((X, y, sample_weight, offset, groups), 2.0, False)

    def bic(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, groups: Any = None) -> float:
        """Compute the Bayesian criterion, -2 ll + df ln n (Schwarz 1978); n is the sum of the weights.

        Raises
        ------
        ValueError : an expert has no number of parameters.
        """
        return self._criterion((X, y, sample_weight, offset, groups), None, False)

    def icl(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, groups: Any = None) -> float:
        """Compute the integrated completed likelihood, BIC + 2 entropy of h (Biernacki et al. 2000).

        The entropy is -sum_i w_i sum_k h_ik ln h_ik, of each group once where groups are given.

        Raises
        ------
        ValueError : an expert has no number of parameters.
        """
        return self._criterion((X, y, sample_weight, offset, groups), None, True)

    # ---- in words

    def explain(self, X: Any, offset: Any = None) -> Explanation:
        """Say for each row which expert decided, what each said, and which inputs moved the gate and it.

        Raises
        ------
        ValueError : a sparse X with more columns than can be made dense.
        """
        return explain(
            self._validate(X, offset).dense(most=200),
            typical=self._typical_row_,
            feature_names=self._feature_names(),
            gate_proba=self._gate_proba,
            predict_expert=self._predict_expert,
            explained=self._explained,
            n_experts=self.n_experts_,
        )

    def _feature_names(self) -> tuple[str, ...]:
        names = getattr(self, "feature_names_in_", None)
        return tuple(f"x{j}" for j in range(self.n_features_in_)) if names is None else tuple(names)

    def summary(self) -> str:
        """Say in plain text what was fitted: gate, experts, their weights and sizes, likelihood, time."""
        check_is_fitted(self)
        gate, experts = self._parameter_counts()
        return _summary.summary(
            name=type(self).__name__,
            lines=self._summary_lines(),
            weights=self.weights_,
            gate_count=gate,
            expert_counts=experts,
            total=self.n_parameters_,
            loglik=self.loglik_,
            seconds=getattr(self, "fit_seconds_", None),
        )
