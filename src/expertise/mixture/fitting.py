"""The way from fit(X, y) to a fitted mixture: check, prepare, search, show on the original scale."""

import os
import time
import warnings
from abc import abstractmethod
from contextlib import ExitStack
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_random_state, validate_data

from expertise._progress import progress
from expertise.core._checks import check_fit_weight
from expertise.mixture import _checking, selection, showing
from expertise.mixture._threads import one_blas_thread
from expertise.mixture._warnings import ObjectiveFellWarning
from expertise.mixture.em import InMemory
from expertise.mixture.experts import AbstractExpert, ExpertSettings
from expertise.mixture.fitted import FittedMixture
from expertise.mixture.gates import AbstractGate, ConstantGate, GateSettings, TreeGate
from expertise.mixture.growing import grow
from expertise.mixture.parts import Task, resolve_experts, resolve_gate
from expertise.mixture.preparing import Columns, Table
from expertise.mixture.problem import Problem, Solution
from expertise.mixture.search import SearchSettings

N_INIT = 10  # starts where a pass is a few products
N_INIT_ESTIMATORS = 3  # and where it fits scikit-learn estimators anew
PATH = 60  # iterations that are kept at most
Experts = tuple[AbstractExpert, ...]


class EMFitting(FittedMixture):
    """Fitting by EM, for regressors and classifiers alike; the arguments are described there."""

    _task: ClassVar[Task]
    classes_: npt.NDArray[Any]
    selection_: list[dict[str, Any]] | None
    _default_expert: ClassVar[str]

    def __init__(
        self,
        n_experts: Any = None,
        *,
        expert: Any = None,
        gate: Any = "softmax",
        partition: str = "mapping",
        gate_features: Any = None,
        expert_features: Any = None,
        algorithm: str = "em",
        alpha: float = 0.0,
        gate_alpha: float = 1e-10,
        variance_floor: float = 1e-6,
        starts: Any = None,
        n_init: int | None = None,
        screening_iter: int = 10,
        max_iter: int = 1000,
        tol: float = 1e-6,
        criterion: str = "bic",
        max_experts: int = 6,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
        keep_path: bool = False,
    ) -> None:
        self.n_experts = n_experts
        self.expert = expert
        self.gate = gate
        self.partition = partition
        self.gate_features = gate_features
        self.expert_features = expert_features
        self.algorithm = algorithm
        self.alpha = alpha
        self.gate_alpha = gate_alpha
        self.variance_floor = variance_floor
        self.starts = starts
        self.n_init = n_init
        self.screening_iter = screening_iter
        self.max_iter = max_iter
        self.tol = tol
        self.criterion = criterion
        self.max_experts = max_experts
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.keep_path = keep_path

    # -- what regressors and classifiers do differently

    @abstractmethod
    def _learn_y(self, y: Any, experts: Any) -> npt.NDArray[Any]:
        """Check y at the fit, and give it as the families take it."""

    # -- the fit

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        offset: Any = None,
        groups: Any = None,
        subtask: Any = None,
    ) -> Self:
        """Fit gate and experts.

        Parameters
        ----------
        X : (n, d) inputs: array, data frame, or sparse matrix.
        y : (n,) targets; (n, m) several outputs (gaussian, student_t); (n, 2) successes and failures
            (binomial).
        sample_weight : (n,) weights >= 0: a row of weight 2 is the row twice.
        offset : (n,) added to the linear predictor of every expert.
        groups : (n,) labels: rows of a group come from the same expert. The gate's inputs must be constant
            in a group.
        subtask : (n,) labels for partition="given".

        Returns
        -------
        self

        Raises
        ------
        ValueError : an argument or data that cannot be fitted; says which, what was got, what to do.
        """
        begun = time.perf_counter()
        _checking.check_arguments(self.get_params(deep=False))
        with self._whole_or_not(), one_blas_thread():
            self._fit(X, y, sample_weight, offset, groups, subtask)
        self.fit_seconds_ = time.perf_counter() - begun
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, offset: Any, groups: Any, subtask: Any) -> None:
        table, problem = self._problem(X, y, sample_weight, offset, groups, subtask)
        with ExitStack() as stack:
            meter = None
            if self.verbose:
                meter = stack.enter_context(progress("fit", self._starts_in_all(problem), "starts"))
            if self.n_experts == "auto":
                chosen = selection.choose(problem, table, self.criterion, self.max_experts, meter)
                solution, self.selection_ = chosen.solution, chosen.table
            elif isinstance(problem.gate, TreeGate) and problem.gate.grow:
                solution, self.selection_ = grow(
                    problem, table, self.criterion, problem.gate.max_leaves, meter
                )
            else:
                solution, self.selection_ = problem.fit(table, meter), None
        self._show(solution, table)

    def _starts_in_all(self, problem: Problem) -> int | None:
        """Say how many starts there will be, as far as that is known."""
        if isinstance(problem.gate, TreeGate) and problem.gate.grow:
            return None
        if self.n_experts == "auto":  # one expert has one start
            return problem.search.n_init * (self.max_experts - 1) + 1
        return problem.search.n_init if len(problem.experts) > 1 else 1

    def _problem(
        self, X: Any, y: Any, sample_weight: Any, offset: Any, groups: Any, subtask: Any
    ) -> tuple[Table, Problem]:
        """Check all that was given, and say what is to be fitted."""
        gate = resolve_gate(self.gate)
        family = self.expert if self.expert is not None else self._default_expert
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=np.float64, ensure_all_finite=False, multi_output=True
        )
        names = getattr(self, "feature_names_in_", None)
        columns = self._columns(X.shape[1], gate, names)
        hidden = np.setdiff1d(columns.gate, columns.expert) if gate.integrates_nan else None
        _checking.check_finite(X, hidden, gate.name)
        n = X.shape[0]
        weight = check_fit_weight(sample_weight, n)
        code, count = None, self._wanted(gate)
        if self.partition == "given":
            labels, codes = _checking.check_subtask(subtask, n, weight)
            count, code = self._as_many(len(labels), count), codes
            self.subtasks_ = labels
        elif subtask is not None:
            raise ValueError(f'subtask was given, but partition={self.partition!r}; use partition="given"')
        experts = resolve_experts(family, count, self._task)
        y = self._learn_y(y, experts)
        table = Table(
            X,
            y,
            weight,
            _checking.check_offset(offset, n, experts),
            _checking.check_groups(groups, X, columns.gate, weight),
            None if code is None else (code[:, None] == np.arange(len(experts))).astype(float),
        )
        if self.partition != "mapping" and groups is not None:
            raise ValueError(f'groups need partition="mapping"; got partition={self.partition!r}')
        table = table.take(weight > 0) if (weight == 0).any() else table
        _checking.check_sizes(table, len(experts))
        _checking.check_parts(gate, experts, table)
        return table, self._settle(gate, experts, columns, self._n_outputs(y))

    def _settle(self, gate: AbstractGate, experts: Experts, columns: Columns, n_outputs: int) -> Problem:
        seed = _seed(self.random_state)
        additive = gate.additive and all(expert.additive for expert in experts)
        return Problem(
            gate=gate,
            experts=experts,
            columns=columns,
            numbers=self._task == "regression" and not experts[0].discrete,
            partition=self.partition,
            expert_settings=ExpertSettings(self.alpha, self.variance_floor, n_outputs, seed, self._labels()),
            search=SearchSettings(
                starts=tuple(self.starts or _checking.DEFAULT_STARTS),
                n_init=self.n_init or (N_INIT if additive else N_INIT_ESTIMATORS),
                screening_iter=self.screening_iter,
                max_iter=self.max_iter,
                tol=self.tol,
                hard=self.algorithm == "hard",
                n_jobs=_jobs(self.n_jobs),
                seed=seed,
                gate_settings=GateSettings(self.gate_alpha, 1.0, seed),
                keep_path=self.keep_path and additive,
            ),
        )

    def _labels(self) -> tuple[Any, ...] | None:
        return None if self._task == "regression" else tuple(self.classes_.tolist())

    def _columns(self, n_columns: int, gate: Any, names: Any) -> Columns:
        wanted = [] if isinstance(gate, ConstantGate) else self.gate_features
        return Columns(
            _checking.resolve_columns("gate_features", wanted, n_columns, names),
            _checking.resolve_columns("expert_features", self._expert_inputs(), n_columns, names),
        )

    def _expert_inputs(self) -> Any:
        """Give expert_features; none where all experts are constants, which read nothing."""
        kinds = self.expert if isinstance(self.expert, list | tuple) else [self.expert]
        constant = all(getattr(kind, "name", kind) == "constant" for kind in kinds)
        return [] if constant else self.expert_features

    def _wanted(self, gate: Any) -> int | None:
        """Say how many experts there shall be, as far as n_experts and the gate say so."""
        asked = None if self.n_experts in (None, "auto") else int(self.n_experts)
        of_gate = gate.wanted_experts()
        if isinstance(gate, TreeGate) and gate.grow and self.n_experts != "auto":
            _checking.check_growing(self.expert, self.n_experts, self.partition)
        if self.n_experts == "auto":
            _checking.check_auto(gate, self.expert, self.partition)
            return 1
        if of_gate is None:
            return asked
        return self._as_many(of_gate, asked)

    @staticmethod
    def _as_many(found: int, asked: int | None) -> int:
        if asked is not None and asked != found:
            raise ValueError(
                f"n_experts={asked}, but the gate or the sub-tasks say {found}; leave n_experts out, or make "
                "them agree"
            )
        return found

    def _n_outputs(self, y: npt.NDArray[Any]) -> int:
        if self._task == "classification":
            return len(self.classes_)
        return 1 if y.ndim == 1 else int(y.shape[1])

    # -- what the fit shows

    def _show(self, solution: Solution, table: Table) -> None:
        """Set the learned attributes."""
        fit = solution.found.fit
        self.__dict__.pop("_stepwise_", None)  # partial_fit begins anew
        self._columns_ = solution.problem.columns
        self._uses_ = [name for name in ("offset", "groups") if getattr(table, name) is not None]
        self._set_model(solution.model())
        self.path_ = []
        for iteration in thinned(len(fit.path), PATH):
            model = solution.outside(fit.path[iteration])
            self.path_.append((iteration, model.gate, list(model.experts)))
        self._typical_row_ = showing.typical_row(table)
        source = solution.source or InMemory(solution.rows)
        self.objective_history_ = np.array(fit.history)
        self.n_iter_ = max(fit.n_iter, 1)
        self.converged_ = fit.converged
        self.starts_ = [start.as_dict() for start in solution.found.starts]
        self.weights_ = showing.mean_prior(fit.model, source)
        known = fit.model.is_additive and not fit.model.gate.models_inputs and self.partition == "mapping"
        both = (fit.loglik, fit.loglik) if known and self.algorithm == "em" else None
        self.joint_loglik_, self.loglik_ = both or showing.log_likelihoods(fit.model, source, solution.scales)
        self.cases_ = fit.count
        self._total_weight_ = float(table.weight.sum())
        self._warn(solution, table)

    def _warn(self, solution: Solution, table: Table) -> None:
        found = solution.found
        if not found.fit.converged:
            warnings.warn(
                f"EM did not converge in max_iter={self.max_iter} iterations; raise max_iter or "
                f"tol={self.tol}",
                ConvergenceWarning,
                stacklevel=5,
            )
        if found.fit.fell:
            warnings.warn(
                "an expert or gate that does not maximise its likelihood made the objective fall; the best "
                "iteration was kept",
                ObjectiveFellWarning,
                stacklevel=5,
            )
        showing.warn_degenerate(found, stacklevel=6)
        showing.warn_few_cases(solution, range(self.n_experts_), stacklevel=6)


def thinned(n: int, most: int) -> list[int]:
    """Give up to ``most`` of n iterations: the first, where much happens, then ever fewer, and the last."""
    if n <= most:
        return list(range(n))
    steps: list[int] = []
    for points in range(most, n):  # many of the first ones round to the same iteration
        finer = np.unique(np.geomspace(1, n, points).round().astype(int)) - 1
        if len(finer) > most:
            break
        steps = finer.tolist()
    return steps


def _seed(random_state: Any) -> int:
    """Draw the seed of a fit: the same for the same whole number."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    return int(check_random_state(random_state).randint(2**31 - 1))


def _jobs(n_jobs: int | None) -> int:
    """Turn n_jobs into a number of threads; negative counts from all processors, as scikit-learn does."""
    if n_jobs is None:
        return 1
    return n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs)
