"""fit_chunks and partial_fit: data that do not fit in memory, and data that keep coming."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import validate_data

from expertise._progress import progress
from expertise.core._checks import check_fit_weight
from expertise.mixture import _checking, em, showing
from expertise.mixture._threads import one_blas_thread
from expertise.mixture.fitting import EMFitting
from expertise.mixture.parts import resolve_experts, resolve_gate
from expertise.mixture.preparing import Table, canonical
from expertise.mixture.problem import Problem
from expertise.mixture.streaming import ChunkSource, Stepwise, fit_stream, scaled


class ChunkFitting(EMFitting):
    """Fitting of more rows than memory holds."""

    def fit_chunks(self, source: ChunkSource, *, classes: Any = None) -> Self:
        """Fit a source that is read chunk by chunk, again and again; memory does not grow with its length.

        The starts are tried on a random sample of the rows; then EM passes over all of them.

        Parameters
        ----------
        source : re-iterable: each ``iter(source)`` starts again and gives (X, y) or (X, y, sample_weight).
            `ParquetChunks` is one.
        classes : (V,) all labels; classifiers need them, because a chunk may not hold all.

        Raises
        ------
        ValueError : a source that is used up after one pass, experts or a gate that no sums describe (any
            scikit-learn estimator), or arguments that need all rows at once (partition, n_experts="auto").
        """
        begun = time.perf_counter()
        _checking.check_arguments(self.get_params(deep=False))
        if iter(source) is source:
            raise ValueError(
                "source is an iterator, which ends after one pass; give a list, or an object whose iter "
                "starts again"
            )
        with self._whole_or_not(), one_blas_thread(), ExitStack() as stack:
            first = next(iter(source), None)
            if first is None:
                raise ValueError("source gave no chunk; there is nothing to fit")
            problem = self._chunk_problem(first, classes, reset=True)
            meter = stack.enter_context(progress("fit", None, "rows")) if self.verbose else None
            solution, measured = fit_stream(lambda: self._tables(source, problem), problem, meter)
            self._show(solution, canonical(measured.sample))
        self.selection_ = None
        self._total_weight_ = measured.total_weight
        self.fit_seconds_ = time.perf_counter() - begun
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, *, classes: Any = None) -> Self:
        """Learn from one more batch, by a step of stepwise EM (Cappe & Moulines 2009).

        The first batch is fitted by EM, and should show all regimes; scales stay those of the first batch.
        The result need not be that of `fit` on all rows.

        Parameters
        ----------
        X, y, sample_weight : a batch, as for `fit`.
        classes : (V,) all labels; classifiers need them at the first call.

        Raises
        ------
        ValueError : experts or a gate that no sums describe.
        """
        chunk = (X, y) if sample_weight is None else (X, y, sample_weight)
        with self._whole_or_not(), one_blas_thread():
            state: Stepwise | None = getattr(self, "_stepwise_", None)
            if state is None:
                self._first_batch(chunk, classes)
            else:
                self._further_batch(chunk, state)
        return self

    def _first_batch(self, chunk: Any, classes: Any) -> None:
        begun = time.perf_counter()
        _checking.check_arguments(self.get_params(deep=False))
        problem = self._chunk_problem(chunk, classes, reset=True)
        table = canonical(self._table(chunk, problem, reset=False))
        _checking.check_sizes(table, len(problem.experts))
        solution = problem.fit(table)
        self._show(solution, table)
        self.selection_ = None
        self.fit_seconds_ = time.perf_counter() - begun
        sums = solution.found.fit.sums
        assert sums is not None
        weight = float(table.weight.sum())
        self._stepwise_ = Stepwise(
            solution.problem, solution.scales, solution.found.fit.model, scaled(sums, 1 / weight), weight
        )

    def _further_batch(self, chunk: Any, state: Stepwise) -> None:
        table = self._table(chunk, state.problem, reset=False)
        if not len(table):  # no row with weight: nothing is learned
            return
        state = replace(state)  # the old one stays whole if this fails
        rows, scales = state.problem.rows(table, state.scales), state.scales
        found = showing.log_likelihoods(state.model, em.InMemory(rows), scales)  # of a batch not yet seen
        value = state.step(rows)
        gate, experts = state.model.gate, state.model.experts
        self._set_model(
            em.Model(gate.unscaled(scales.gate), tuple(e.unscaled(scales.expert, scales.y) for e in experts))
        )
        self.weights_ = np.asarray(state.past.count / state.past.count.sum())
        self.objective_history_ = np.append(self.objective_history_, value * state.seen)
        # as far as the last batch tells
        self.joint_loglik_, self.loglik_ = (one * state.seen / float(table.weight.sum()) for one in found)
        self.cases_ = self.weights_ * state.seen
        self._total_weight_ = state.seen
        self._stepwise_ = state

    # -- chunks to tables

    def _chunk_problem(self, chunk: Any, classes: Any, *, reset: bool) -> Problem:
        """Say what is to be fitted, from the first chunk."""
        gate = resolve_gate(self.gate)
        if self.partition != "mapping" or self.n_experts == "auto":
            raise ValueError(
                f'chunks need partition="mapping" and a number of experts; got partition={self.partition!r}, '
                f"n_experts={self.n_experts!r}; choose on a sample with fit"
            )
        if getattr(gate, "grow", False):
            raise ValueError(
                "a growing tree needs all rows at once; let it grow on a sample with fit, and give the gate_ "
                "that it found here"
            )
        X, y = self._checked(chunk, reset=reset)
        columns = self._columns(X.shape[1], gate, getattr(self, "feature_names_in_", None))
        experts = resolve_experts(
            self.expert if self.expert is not None else self._default_expert, self._wanted(gate), self._task
        )
        for name, additive in ((gate.name, gate.additive), *((e.name, e.additive) for e in experts)):
            if not additive:
                raise ValueError(
                    f"{name!r} keeps all rows, which chunks are there to avoid; use fit, or a built-in family"
                )
        self._learn_classes(y, classes)
        y = self._codes(y)
        _checking.check_parts(gate, experts, Table(X, y, np.ones(len(y))))
        return self._settle(gate, experts, columns, self._n_outputs(y))

    def _checked(self, chunk: Any, *, reset: bool) -> tuple[Any, npt.NDArray[Any]]:
        X, y = validate_data(
            self,
            chunk[0],
            chunk[1],
            reset=reset,
            dtype=np.float64,
            ensure_all_finite=False,
            multi_output=True,
        )
        if np.isnan(X).any():
            raise ValueError("Input X contains NaN, which chunks and batches do not take; impute it")
        _checking.check_finite(X, None, resolve_gate(self.gate).name)
        return X, np.asarray(y)

    def _table(self, chunk: Any, problem: Problem, *, reset: bool) -> Table:
        X, y = self._checked(chunk, reset=reset)
        weight = check_fit_weight(chunk[2] if len(chunk) > 2 else None, len(X), some=False)
        y = self._codes(y)
        for expert in set(problem.experts):
            expert.check_y(y)
        table = Table(X, y, weight)
        return table.take(weight > 0) if (weight == 0).any() else table

    def _tables(self, source: ChunkSource, problem: Problem) -> Iterator[Table]:
        for chunk in source:
            if len(chunk[0]) and len(table := self._table(chunk, problem, reset=False)):
                yield table

    def _learn_classes(self, y: npt.NDArray[Any], classes: Any) -> None:
        """Take the labels that there are; regressors have none."""
        if self._task == "classification":
            if classes is None and hasattr(self, "classes_"):
                return  # those of an earlier fit
            if classes is None:
                raise ValueError("classes must name all labels, because a chunk may not hold all of them")
            self.classes_ = np.unique(np.asarray(classes))

    def _codes(self, y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give y as the families take it."""
        if self._task == "regression":
            return self._learn_y(y, None)
        return np.asarray(self._check_y(y, len(y)))
