"""The estimator gate: any scikit-learn classifier decides which expert to trust."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from expertise.mixture.gates import _weighing
from expertise.mixture.gates._abstract import AbstractGate, GateSettings
from expertise.mixture.rows import Array, Design
from expertise.mixture.sums import Stack, Statistics

SMALLEST = 1e-10  # a prior of 0 would exclude an expert for ever


@dataclass(frozen=True, eq=False)
class EstimatorGate(AbstractGate):
    """A scikit-learn classifier with ``predict_proba``, fitted on the responsibilities as soft targets.

    Every row stands in its data once for each expert, weighted by its responsibility; a classifier without
    ``sample_weight`` gets rows drawn by weight instead. It sees the inputs as they came, not standardised.

    A classifier that repeats its targets (a tree, a forest, nearest neighbours) would make the prior a copy
    of the responsibilities, and EM would only grow surer of its start. ``out_of_fold`` prevents this: rows
    are dealt into folds by their values, and a row that was fitted on is answered by the classifier that saw
    no row of its fold (so no equal row either). Other rows are answered by the one that saw all.

    Such a gate is no maximiser of its part of the likelihood, so EM may fall, and keeps the best.

    Parameters
    ----------
    estimator : the classifier; it is cloned, never fitted itself.
    out_of_fold : None decides by the kind of classifier: True for trees, ensembles, neighbours and Gaussian
        processes.
    folds : 2 or more.
    fitted : the classifier fitted on all rows, then those of the folds.
    seen : sorted codes of the rows that were fitted on, for out_of_fold.
    moves : (labels, K) share of each label of the classifiers that each expert gets. It is the identity after
        a fit, and changes as experts are added and removed; without a fit it has one row, the prior.
    """

    # named only, so that the own options come first
    estimator: Any = None
    out_of_fold: bool | None = None
    folds: int = 5
    fitted: tuple[Any, ...] = ()
    seen: Any = None
    moves: Array | None = None

    name = "estimator"
    additive = False

    def started(self, n_experts: int, design: Design, settings: GateSettings) -> Self:
        """Give equal priors, or the classifier as it was fitted before."""
        self._check()
        if self.moves is not None:
            return replace(self, settings=settings)
        return replace(self, moves=np.full((1, n_experts), 1 / n_experts), settings=settings)

    @property
    def n_experts(self) -> int:
        """Experts of a started gate."""
        return int(self._moves.shape[1])

    @property
    def n_parameters(self) -> None:
        """A classifier of any kind has no number of parameters that could be counted."""
        return

    def log_joint(self, design: Design) -> Array:
        """Compute log g_k(x): (n, K); no prior is below 1e-10."""
        labels = len(self._moves)
        prior = self._probabilities(design.raw, labels) if self.fitted else np.ones((design.shape[0], 1))
        prior = np.maximum(prior @ self._moves, SMALLEST)
        return np.asarray(np.log(prior / prior.sum(axis=1, keepdims=True)))

    def statistics(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Statistics:
        """Keep the rows with their responsibilities."""
        return Stack(x=design.raw, resp=resp, weight=weight)

    def update(self, statistics: Statistics) -> Self:
        """Fit the classifier, and those of the folds."""
        assert isinstance(statistics, Stack)
        assert self.settings is not None
        x, resp, seed = statistics.column("x"), statistics.column("resp"), self.settings.random_state
        fitted = [_weighing.fit_soft(self.estimator, x, resp, seed)]
        seen = None
        if self._is_out_of_fold:
            codes = _weighing.row_codes(x)
            seen = np.unique(codes)
            for fold in range(self.folds):
                others = np.flatnonzero(self._fold(codes) != fold)
                others = others if len(others) else np.arange(len(codes))  # a single row has no others
                fitted.append(_weighing.fit_soft(self.estimator, x[others], resp[others], seed))
        return replace(self, fitted=tuple(fitted), seen=seen, moves=np.eye(resp.shape[1]))

    def with_expert(self, like: int | None, share: float) -> Self:
        """Add an expert, the last, with ``share`` of the prior of expert ``like``, or of all."""
        taken = np.zeros(self.n_experts)
        taken[like if like is not None else slice(None)] = share
        return replace(self, moves=np.column_stack([self._moves * (1 - taken), self._moves @ taken]))

    def without_expert(self, k: int) -> Self:
        """Remove expert k: `log_joint` normalises what is left."""
        return replace(self, moves=np.delete(self._moves, k, axis=1))

    def to_dict(self) -> dict[str, Any]:
        """Raise a ValueError: a classifier has no form in JSON."""
        raise ValueError(
            f"gate={type(self.estimator).__name__} is a scikit-learn estimator, which JSON cannot hold; "
            "save the mixture as a skops file"
        )

    def _probabilities(self, x: Any, labels: int) -> Array:
        found = _weighing.probabilities(self.fitted[0], x, labels)
        if self.seen is not None:
            codes = _weighing.row_codes(x)
            fold = np.where(np.isin(codes, self.seen), self._fold(codes), -1)
            for number, model in enumerate(self.fitted[1:]):
                rows = np.flatnonzero(fold == number)
                found[rows] = _weighing.probabilities(model, x[rows], labels)
        return found

    def _fold(self, codes: _weighing.Codes) -> Any:
        """Give the fold of each row by its values."""
        return (codes % np.uint64(self.folds)).astype(np.intp)

    def _check(self) -> None:
        """Raise a ValueError about the first option that is not allowed."""
        if not callable(getattr(self.estimator, "fit", None)) or isinstance(self.estimator, type):
            raise ValueError(
                f"EstimatorGate needs a scikit-learn classifier; got estimator={self.estimator!r}; "
                "give an object such as LogisticRegression()"
            )
        if not hasattr(self.estimator, "predict_proba"):
            raise ValueError(
                f"estimator={self.estimator!r} has no predict_proba, which a gate needs; use a classifier "
                "with probabilities, or wrap it in CalibratedClassifierCV"
            )
        if self.folds < 2:
            raise ValueError(f"folds={self.folds!r} must be 2 or more; out_of_fold=False turns folds off")
        if not self.trainable and not self.fitted:
            raise ValueError(
                "EstimatorGate(trainable=False) has learned nothing yet; fit a mixture with it first, "
                "then freeze it"
            )

    @property
    def _is_out_of_fold(self) -> bool:
        return _weighing.copies_targets(self.estimator) if self.out_of_fold is None else self.out_of_fold

    @property
    def _moves(self) -> Array:
        assert self.moves is not None
        return self.moves
