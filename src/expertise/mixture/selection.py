"""How many experts: candidates side by side, by AIC, BIC, ICL or cross-validation.

One expert is always among them, so a mixture is chosen only where it beats the plain regression, and never
loses to it by the criterion.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold

from expertise._progress import Meter
from expertise.mixture import showing
from expertise.mixture._warnings import DegenerateExpertWarning, FewCasesWarning
from expertise.mixture.em import InMemory, Model, expectation
from expertise.mixture.preparing import Scales, Table
from expertise.mixture.problem import Problem, Solution
from expertise.mixture.rows import Rows

FOLDS = 5
ENOUGH = 2  # numbers that are explained, for each parameter, from which a criterion of information is trusted
PATIENCE = 2  # numbers of experts in a row that may be worse than the one before them


@dataclass(frozen=True, eq=False)
class Chosen:
    """The candidate with the best criterion, and the table of all."""

    solution: Solution
    table: list[dict[str, Any]]


def choose(
    problem: Problem, table: Table, criterion: str, max_experts: int, meter: Meter | None = None
) -> Chosen:
    """Fit 1 to ``max_experts`` experts, and take the number with the smallest criterion.

    Candidates end where there are too few rows for a criterion of information; folds judge by themselves.

    Raises
    ------
    ValueError : a criterion of information for experts that have no number of parameters.
    """
    n = len(table) if table.groups is None else len(np.unique(table.groups))
    solutions, lines = [], []
    for n_experts in range(1, min(max_experts, n) + 1):
        candidate = problem.with_experts(n_experts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateExpertWarning)
            solution = candidate.fit(table, meter)
        if len(solution.problem.experts) != n_experts:
            break  # so many are degenerate, and more would be too
        if n_experts > 1 and criterion != "cv" and too_few_rows(solution.found.fit.model, solution.rows):
            break
        solutions.append(solution)
        value = cross_validated(candidate, table) if criterion == "cv" else criterion_of(solution, criterion)
        lines.append(_line(solution, criterion, value))
        if (
            len(lines) > PATIENCE
            and min(line[criterion] for line in lines[-PATIENCE:]) > lines[-PATIENCE - 1][criterion]
        ):
            break
    sound = [i for i, line in enumerate(lines) if not line["degenerate"]] or [0]
    best = min(sound, key=lambda i: lines[i][criterion])
    for i, line in enumerate(lines):
        line["chosen"] = i == best
    return Chosen(solutions[best], lines)


def _line(solution: Solution, criterion: str, value: float) -> dict[str, Any]:
    fit = solution.found.fit
    return {
        "n_experts": len(fit.model.experts),
        "loglik": fit.loglik,
        "n_parameters": parameters_of(fit.model),
        criterion: value,
        "degenerate": bool(solution.found.troubles),
    }


def parameters_of(model: Model) -> int | None:
    """Count the fitted numbers of a model; None where a part has no count."""
    counts = [model.gate.n_parameters, *(expert.n_parameters for expert in model.experts)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def too_few_rows(model: Model, rows: Rows) -> bool:
    """Say whether AIC, BIC and ICL would flatter the model: they hold for many rows a parameter.

    With hardly more rows than parameters, EM finds lines through a few rows each that no price by the
    parameter makes up for. Of 20 simulated sets of 10 rows on one noisy line, BIC alone chose two experts in
    10, of 6 rows in 14.
    """
    df = parameters_of(model)
    explained = rows.z.shape[1] + (rows.gate.shape[1] - 1 if model.gate.models_inputs else 0)
    return df is not None and float(rows.weight.sum()) * explained < ENOUGH * df


def criterion_of(solution: Solution, criterion: str) -> float:
    """Compute AIC, BIC or ICL of a solution on its own rows (Akaike 1974; Schwarz 1978; Biernacki 2000)."""
    value = criterion_value(solution.found.fit.model, solution.rows, criterion)
    if solution.found.fit.model.gate.models_inputs:  # the density of the inputs as they came
        value += 2 * float(solution.rows.gate_weight.sum() * np.log(solution.scales.gate.scale).sum())
    return value


def criterion_value(model: Model, rows: Rows, criterion: str) -> float:
    """Compute AIC, BIC or ICL of a model on standardised rows."""
    df = parameters_of(model)
    if df is None:
        raise ValueError(
            f"criterion={criterion!r} needs a number of parameters, which these experts or this gate do not "
            'have; use criterion="cv"'
        )
    source = InMemory(rows)
    loglik = entropy = 0.0
    for chunk in source:
        found = expectation(model, chunk)
        loglik += found.value
        resp = found.gate_resp / chunk.gate_weight[:, None]
        entropy -= float(chunk.gate_weight @ (resp * np.log(np.where(resp > 0, resp, 1.0))).sum(axis=1))
    price = 2.0 if criterion == "aic" else np.log(rows.weight.sum())
    return float(-2 * loglik + df * price + (2 * entropy if criterion == "icl" else 0.0))


def cross_validated(problem: Problem, table: Table) -> float:
    """Compute minus the mean log-likelihood of held-out rows, of y given x; groups stay whole."""
    folds: Any = KFold(min(FOLDS, len(table)), shuffle=True, random_state=problem.search.seed % 2**31)
    if table.groups is not None:
        if (table.groups == table.groups[0]).all():
            raise ValueError('criterion="cv" leaves out groups in turn, but there is one only; use "bic"')
        folds = GroupKFold(min(FOLDS, len(np.unique(table.groups))))
    total = 0.0
    for train, test in folds.split(table.weight, groups=table.groups):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateExpertWarning)
            warnings.simplefilter("ignore", FewCasesWarning)
            solution = problem.fit(table.take(train))
        if len(solution.problem.experts) != len(problem.experts):
            return float("inf")  # so many are degenerate on a part of the rows
        total += held_out(solution, table.take(np.sort(test)))
    return -total / float(table.weight.sum())


def held_out(solution: Solution, table: Table) -> float:
    """Sum log p(y | x) over rows that were not fitted."""
    from expertise.mixture.preparing import canonical, make_rows

    columns = solution.problem.columns
    table = canonical(table)
    scales = Scales.none(columns, solution.scales.y.mean.size)
    rows = make_rows(table, columns, scales, numbers=solution.problem.numbers, raw=True)
    return showing.log_likelihoods(solution.model(), InMemory(rows), scales)[1]
