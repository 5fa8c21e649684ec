"""From many starts to one fit: short runs are screened, the best are continued, all are reported."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from expertise._progress import Meter
from expertise.mixture import em, starts
from expertise.mixture.em import Fit, InMemory, Model
from expertise.mixture.experts import AbstractExpert, GaussianExpert, StudentTExpert
from expertise.mixture.gates import AbstractGate, ConstantGate, GateSettings, TreeGate
from expertise.mixture.judging import troubles_of, worth
from expertise.mixture.rows import Rows

START_ROWS = 8192  # starts are tried on so many rows at most; the best goes on with all
CONTINUED = 0.34  # share of the starts that are continued after the screening
SPIKE = 1e-3  # an expert whose variance is so small a share of another's is a spike (Hathaway 1985)
SPIKE_GAIN = 0.05  # nats a row by which a fit with a spike must be better: a few rows in line gain less
AS_GOOD = 1e-5  # nats a row: runs that differ by less have found the same optimum
EXTRA = 5  # further random starts when all were degenerate


@dataclass(frozen=True)
class SearchSettings:
    """How to search: see `MixtureOfExpertsRegressor`, whose arguments these are."""

    starts: tuple[str, ...]
    n_init: int
    screening_iter: int
    max_iter: int
    tol: float
    hard: bool
    n_jobs: int
    seed: int
    gate_settings: GateSettings
    keep_path: bool = False


@dataclass(frozen=True, eq=False)
class Start:
    """One start and what became of it.

    kind : where it came from.
    objective : penalised log-likelihood at the end of its run, on the rows of the starts: `worth`.
    continued : whether it went on after the screening.
    degenerate : what is wrong with its experts, by number.
    """

    kind: str
    objective: float
    n_iter: int
    continued: bool
    converged: bool
    degenerate: dict[int, str]

    def as_dict(self) -> dict[str, Any]:
        """Give the start as plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class Found:
    """The best fit, and all starts; ``troubles`` of the best."""

    fit: Fit
    starts: list[Start]
    troubles: dict[int, str]


@dataclass(eq=False)
class _Run:
    """A start on its way."""

    kind: str
    fit: Fit
    worth: float
    troubles: dict[int, str]
    total_weight: float
    continued: bool = False

    @property
    def rank(self) -> tuple[bool, float]:
        """Degenerate ones come last, whatever their likelihood; spikes must gain more than others."""
        margin = SPIKE_GAIN * self.total_weight if _has_spike(self.fit.model) else 0.0
        return not self.troubles, self.worth - margin

    def report(self) -> Start:
        fit = self.fit
        return Start(self.kind, self.worth, fit.n_iter, self.continued, fit.converged, self.troubles)


class Search:
    """A search over one set of rows.

    Parameters
    ----------
    rows : all rows, standardised.
    gate, experts : the parts without parameters (or with those that they keep).
    """

    def __init__(
        self,
        rows: Rows,
        gate: AbstractGate,
        experts: tuple[AbstractExpert, ...],
        settings: SearchSettings,
        meter: Meter | None = None,
    ) -> None:
        self.rows, self.gate, self.settings, self.meter = rows, gate, settings, meter
        self.rng = np.random.default_rng(settings.seed)
        additive = gate.additive and all(expert.additive for expert in experts)
        self.few = _some(rows, self.rng) if additive and len(rows) > 2 * START_ROWS else rows
        self.source = InMemory(self.few)
        self.blank = Model(self._started(len(experts)), experts)

    def _started(self, n_experts: int) -> AbstractGate:
        return self.gate.started(n_experts, self.few.gate, self._gate_settings(self.few))

    def _gate_settings(self, rows: Rows) -> GateSettings:
        """Give the gate's settings for these rows: its ridge grows with their weight."""
        return replace(self.settings.gate_settings, total_weight=float(rows.gate_weight.sum()))

    def run(self) -> Found:
        """Try the starts, continue the best, and polish the best of these on all rows."""
        runs = [self._screen(kind, model) for kind, model in self._models(self.settings.n_init)]
        self._continue(runs)
        best = max((run for run in runs if run.continued), key=lambda run: run.rank)
        free = self.blank.gate.trainable and self.few.resp is None
        if best.troubles and len(self.blank.experts) > 1 and free:
            more = [self._screen("random", self.first("random")) for _ in range(EXTRA)]
            self._continue(more)
            runs += more
            best = max((run for run in runs if run.continued), key=lambda run: run.rank)
        if self.settings.keep_path:
            best = self._most_to_show(runs, best)
        fit = best.fit if self.few is self.rows else self.polish(best.fit)
        runs.sort(key=lambda run: (run is best, run.continued, run.rank), reverse=True)
        return Found(fit, [run.report() for run in runs], troubles_of(fit, self.rows))

    def _most_to_show(self, runs: list[_Run], best: _Run) -> _Run:
        """Give the longest run that ends as well as the best: nested starts begin where others end."""
        least = best.worth - AS_GOOD * self.source.total_weight
        equal = (run for run in runs if run.continued and not run.troubles and run.worth >= least)
        return best if best.troubles else max(equal, key=lambda run: run.fit.n_iter)

    # -- starts

    def _models(self, n_init: int) -> Iterator[tuple[str, Model]]:
        """Give so many models to start from: the kinds in turn, those that repeat themselves once."""
        blank = self.blank
        if len(blank.experts) == 1:
            yield "one expert", self.first("random")
            return
        if self.few.resp is not None:
            yield "the given partition", self.first("given")
            return
        if self.gate.says_where:
            yield "the gate's prior", self.first("prior")
            return
        made = 0
        if self.gate.has_parameters and starts.tells_apart(self.blank.gate, self.few):
            yield "the gate's prior", self.first("prior")
            made = 1
        kinds = list(self.settings.starts)
        while made < n_init and kinds:
            for kind in list(kinds):
                if made >= n_init:
                    return
                if kind == "nested":
                    for name, model in self._nested():
                        yield name, model
                        made += 1
                else:
                    yield kind, self.first(kind)
                    made += 1
                if kind == "nested" or kind in starts.REPEATABLE:
                    kinds.remove(kind)

    def first(self, kind: str) -> Model:
        """Make the model of a start of this kind.

        Only the gate's own prior begins at given borders: where these are steep, a Newton step towards other
        responsibilities would go anywhere.
        """
        blank = self.blank
        if kind != "prior" and blank.gate.trainable and blank.gate.has_parameters:
            blank = replace(blank, gate=blank.gate.forgotten())
        return starts.first(kind, blank, self.few, self.rng)

    def _nested(self) -> Iterator[tuple[str, Model]]:
        """Give the solutions of smaller models, as starts of this one."""
        gate, experts = self.gate, self.blank.experts
        if any(expert.is_fitted or not expert.additive for expert in experts) or not gate.additive:
            return
        if not gate.trainable or gate.has_parameters:
            return  # a smaller model would need another gate
        if not isinstance(gate, ConstantGate):
            smaller = self._smaller(ConstantGate(), experts)
            yield "nested (constant gate)", starts.with_gate(self.blank.gate, smaller, self.few)
        if all(isinstance(expert, StudentTExpert) for expert in experts):
            normal = tuple(_normal(expert) for expert in experts)
            found = self._smaller(gate, normal)
            same = zip(experts, found.experts, strict=True)
            yield "nested (gaussian)", Model(found.gate, tuple(_heavy(t, g) for t, g in same))
        alike = len({id(type(expert)) for expert in experts}) == 1
        free = starts.can_grow(gate) and gate.wanted_experts() is None
        if alike and free and not isinstance(gate, TreeGate):
            yield f"nested ({len(experts) - 1} experts)", self._grown(len(experts))

    def _smaller(self, gate: AbstractGate, experts: tuple[AbstractExpert, ...]) -> Model:
        # as many starts as the larger model gets: a nested start is only as good as what it starts from
        settings = replace(self.settings, seed=int(self.rng.integers(2**31)))
        return Search(self.few, gate, experts, settings).run().fit.model

    def _grown(self, n_experts: int) -> Model:
        """Grow from one expert: split each in turn, keep the best, until one is missing; then split again."""
        one = self.blank.experts[:1]
        blank = Model(self._started(1), one)
        model = starts.first("random", blank, self.few, self.rng)
        model = self._em(model, self.settings.screening_iter).model
        for _ in range(1, n_experts):
            candidates = [
                self._em(split, self.settings.screening_iter)
                for k in range(len(model.experts))
                for split in starts.splits(model, self.few, k, self.rng)
            ]
            sound = [fit for fit in candidates if not troubles_of(fit, self.few)]
            best = max(sound or candidates, key=lambda fit: worth(fit, self.source))
            model = self._em(best.model, 5 * self.settings.screening_iter).model
        return model

    # -- runs

    def _em(self, model: Model, max_iter: int, watch: Callable[[int, float], None] | None = None) -> Fit:
        s = self.settings
        return em.maximise(
            model,
            self.source,
            max_iter=max_iter,
            tol=s.tol,
            hard=s.hard,
            n_jobs=s.n_jobs,
            watch=watch,
            keep_path=s.keep_path,
        )

    def _screen(self, kind: str, model: Model) -> _Run:
        fit = self._em(model, min(self.settings.screening_iter, self.settings.max_iter))
        if self.meter is not None:
            self.meter.advance(note=f"{kind}: {fit.objective:.6g}")
        return _Run(kind, fit, worth(fit, self.source), troubles_of(fit, self.few), self.source.total_weight)

    def _continue(self, runs: list[_Run]) -> None:
        """Run the best starts to the end."""
        ranked = sorted(runs, key=lambda run: run.rank, reverse=True)
        for run in ranked[: max(1, round(CONTINUED * len(ranked)))]:
            run.fit = self._finish(run.kind, run.fit)
            run.worth = worth(run.fit, self.source)
            run.troubles = troubles_of(run.fit, self.few)
            run.continued = True

    def _finish(self, kind: str, fit: Fit) -> Fit:
        left = self.settings.max_iter - fit.n_iter
        if fit.converged or left <= 0:
            return fit

        def watch(step: int, value: float) -> None:
            if self.meter is not None:
                self.meter.advance(0, note=f"{kind}, iteration {fit.n_iter + step}: {value:.6g}")

        longer = self._em(fit.model, left, watch)
        return replace(longer, history=fit.history + longer.history[1:], path=fit.path + longer.path[1:])

    def polish(self, best: Fit) -> Fit:
        """Go on with all rows, from the solution on some."""
        gate = replace(best.model.gate, settings=self._gate_settings(self.rows))
        s = self.settings
        source = InMemory(self.rows)
        fit = em.maximise(
            Model(gate, best.model.experts),
            source,
            max_iter=s.max_iter,
            tol=s.tol,
            hard=s.hard,
            n_jobs=s.n_jobs,
            keep_path=s.keep_path,
        )
        return replace(fit, path=best.path + fit.path[1:])


def _normal(expert: AbstractExpert) -> AbstractExpert:
    assert isinstance(expert, StudentTExpert)
    assert expert.settings is not None
    normal = GaussianExpert(alpha=expert.alpha, variance_floor=expert.variance_floor)
    return normal.bound(expert.settings)


def _heavy(expert: AbstractExpert, normal: AbstractExpert) -> AbstractExpert:
    assert isinstance(expert, StudentTExpert)
    assert isinstance(normal, GaussianExpert)
    return replace(expert, beta=normal.beta, sigma=normal.sigma, nu=expert.max_nu)


def _has_spike(model: Model) -> bool:
    """Whether an expert is so narrow beside another that its likelihood may come from a few rows in line."""
    found = (getattr(expert, "sigma", None) for expert in model.experts)
    widths = [np.atleast_1d(sigma) for sigma in found if sigma is not None]
    if len(widths) < 2:
        return False
    variance = np.stack(widths) ** 2
    return bool((variance.min(axis=0) < SPIKE * variance.max(axis=0)).any())


def _some(rows: Rows, rng: np.random.Generator) -> Rows:
    """Draw rows for the starts; whole groups where there are groups."""
    if rows.group_start is None:
        return rows.take(np.sort(rng.choice(len(rows), START_ROWS, replace=False)))
    sizes = np.diff(np.append(rows.group_start, len(rows)))
    order = rng.permutation(len(sizes))
    wanted = np.sort(order[: max(2, int(np.searchsorted(sizes[order].cumsum(), START_ROWS)))])
    blocks = zip(rows.group_start[wanted], sizes[wanted], strict=True)
    return rows.pick(
        gate=wanted,
        rows=np.concatenate([np.arange(start, start + size) for start, size in blocks]),
        group_start=np.concatenate([[0], sizes[wanted].cumsum()[:-1]]),
    )
