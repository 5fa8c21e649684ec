"""Grow a hierarchical mixture: split the expert whose split helps the criterion most, prune and merge back.

Waterhouse & Robinson 1996: one expert first; copies of it, parted a little, below a new gate; and so on. Each
candidate is a short run of EM from the model at hand, so all others begin where they were.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from expertise._progress import Meter
from expertise.mixture import starts
from expertise.mixture.em import Fit, Model, maximise
from expertise.mixture.gates import TreeGate
from expertise.mixture.judging import troubles_of
from expertise.mixture.preparing import Table
from expertise.mixture.problem import Problem, Solution
from expertise.mixture.search import Found, Search, Start
from expertise.mixture.selection import criterion_value, parameters_of, too_few_rows


class _Growth:
    """The model at hand, and what its neighbours are worth."""

    def __init__(self, search: Search, criterion: str) -> None:
        self.search, self.criterion = search, criterion
        self.rng = np.random.default_rng(search.settings.seed)
        self.steps: list[dict[str, Any]] = []

    def run(self, model: Model, max_iter: int) -> Fit:
        settings = self.search.settings
        source = self.search.source
        return maximise(model, source, max_iter=max_iter, tol=settings.tol, hard=settings.hard)

    def value(self, fit: Fit) -> float:
        few = self.search.few
        if len(fit.model.experts) > 1 and (troubles_of(fit, few) or too_few_rows(fit.model, few)):
            return np.inf
        return criterion_value(fit.model, few, self.criterion)

    def best(self, candidates: list[Model]) -> Fit | None:
        """Run all candidates shortly, and the best of them to the end."""
        short = [self.run(model, self.search.settings.screening_iter) for model in candidates]
        if not short:
            return None
        chosen = min(short, key=self.value)
        return self.run(chosen.model, self.search.settings.max_iter)

    def note(self, what: str, fit: Fit, value: float) -> None:
        leaves = len(fit.model.experts)
        self.steps.append(
            {
                "step": what,
                "n_experts": leaves,
                "loglik": fit.loglik,
                "n_parameters": parameters_of(fit.model),
                self.criterion: value,
            }
        )


def grow(
    problem: Problem, table: Table, criterion: str, max_leaves: int, meter: Meter | None = None
) -> tuple[Solution, list[dict[str, Any]]]:
    """Grow, then prune back; the steps that were taken are the table of the selection.

    Raises
    ------
    ValueError : criterion="cv", or groups or fixed responsibilities.
    """
    if criterion == "cv":
        raise ValueError('a growing tree needs criterion="bic", "aic" or "icl"; got criterion=\'cv\'')
    one = problem.with_experts(1)
    table, scales, rows = one.prepare(table)
    search = one.search_over(rows, scales, meter)
    growth = _Growth(search, criterion)
    fit = growth.run(search.first("random"), search.settings.max_iter)
    value = growth.value(fit)
    growth.note("one expert", fit, value)
    while len(fit.model.experts) < max_leaves:
        leaves = range(len(fit.model.experts))
        split = [s for k in leaves for s in starts.splits(fit.model, search.few, k, growth.rng)]
        fit, value, went = _step(growth, split, "split", fit, value, meter)
        if not went:
            break
    while len(fit.model.experts) > 1:
        fewer = [_without(fit.model, k) for k in range(len(fit.model.experts))]
        fit, value, went = _step(growth, fewer, "prune", fit, value, meter)
        if not went:
            break
    if search.few is not rows:
        fit = search.polish(fit)
    gate = fit.model.gate
    if isinstance(gate, TreeGate):  # it has grown: as another mixture's gate it is a start of this shape
        fit = replace(fit, model=replace(fit.model, gate=replace(gate, grow=False)))
    start = Start("grown", fit.objective, fit.n_iter, True, fit.converged, troubles_of(fit, rows))
    found = Found(fit, [start], troubles_of(fit, rows))
    grown = one.with_experts(len(fit.model.experts))
    return Solution(grown, found, scales, rows), growth.steps


def _step(
    growth: _Growth, candidates: list[Model], what: str, fit: Fit, value: float, meter: Meter | None
) -> tuple[Fit, float, bool]:
    """Take the best candidate if it is better than what there is."""
    tried = growth.best(candidates)
    if tried is None or not growth.value(tried) < value:
        return fit, value, False
    better = growth.value(tried)
    growth.note(what, tried, better)
    if meter is not None:
        meter.advance(note=f"{len(tried.model.experts)} leaves: {growth.criterion} {better:.6g}")
    return tried, better, True


def _without(model: Model, k: int) -> Model:
    """Merge a leaf back: its sibling takes its rows."""
    experts = tuple(expert for j, expert in enumerate(model.experts) if j != k)
    return Model(model.gate.without_expert(k), experts)
