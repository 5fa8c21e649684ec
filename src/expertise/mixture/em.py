"""The EM loop, the only one: expectation, maximisation, objective, stopping.

One pass over the rows computes the objective of a candidate and, at the same time, every sum that the next
M-step needs. A part in closed form is maximised; a part without (a softmax gate, a Poisson expert) makes one
Newton step, which is halved when the next pass shows that the objective fell. So an iteration costs one pass,
over an array, chunks in threads, or a stream, and the penalised objective never falls (Jordan & Jacobs 1994;
Dempster, Laird & Rubin 1977, for generalised EM).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import islice
from typing import Protocol

import numpy as np

from expertise.mixture.acceleration import Extrapolation
from expertise.mixture.experts import AbstractExpert
from expertise.mixture.gates import AbstractGate
from expertise.mixture.rows import CHUNK, Array, Rows
from expertise.mixture.sums import Statistics

ROUNDING = 1e-10  # relative: a fall of the objective by less is rounding
HALVINGS = 12
PERFECT = 1e-4  # nats a row: classes that are told apart so well are separable, and would be for ever
SLOWEST = 0.01  # of what is enough: a run that gains less in a step is stopped, however much may be to come
PATIENCE = 3  # falls in a row that parts which are no maximisers (a forest) are allowed


@dataclass(frozen=True, eq=False)
class Model:
    """A gate and its experts: what EM improves."""

    gate: AbstractGate
    experts: tuple[AbstractExpert, ...]

    def penalty(self) -> float:
        """Give what the penalised log-likelihood subtracts."""
        return self.gate.penalty() + sum(expert.penalty() for expert in self.experts)

    def families(self) -> Iterator[tuple[type[AbstractExpert], list[int]]]:
        """Give each family with the numbers of its experts: a family computes all of its experts at once."""
        for family in dict.fromkeys(type(expert) for expert in self.experts):
            yield family, [k for k, expert in enumerate(self.experts) if type(expert) is family]

    def log_densities(self, rows: Rows) -> Array:
        """Compute log p_k(y_i | x_i): (n, K)."""
        families = list(self.families())
        if len(families) == 1:
            return families[0][0].log_densities(self.experts, rows)
        densities = np.empty((len(rows), len(self.experts)), order="F")
        for family, members in families:
            densities[:, members] = family.log_densities([self.experts[k] for k in members], rows)
        return densities

    @property
    def is_additive(self) -> bool:
        """Whether every part is described by sums."""
        return self.gate.additive and all(expert.additive for expert in self.experts)

    @property
    def can_be_shortened(self) -> bool:
        """Whether a part makes Newton steps, which can be halved."""
        return not (self.gate.closed_form and all(expert.closed_form for expert in self.experts))


@dataclass(frozen=True, eq=False)
class Expectation:
    """What the E-step says of a chunk of rows.

    value : sum of w_i log sum_k g_k p_k (hard: the largest instead of the sum).
    gate_resp, row_resp : responsibilities times weights, by row of the gate's design and by row.
    log_joint : (n, K) of the gate.
    """

    value: float
    gate_resp: Array
    row_resp: Array
    log_joint: Array


@dataclass(eq=False)
class Pass:
    """The sums of one pass: the value of the candidate and all that its M-step needs."""

    value: float
    gate: Statistics
    experts: Sequence[Statistics]
    count: Array  # (K,) sum of weighted responsibilities

    def __add__(self, other: "Pass") -> "Pass":
        experts = [a + b for a, b in zip(self.experts, other.experts, strict=True)]  # type: ignore[operator]
        gate = self.gate + other.gate  # type: ignore[operator]
        return Pass(self.value + other.value, gate, experts, self.count + other.count)


class Source(Protocol):
    """Rows that can be passed over again and again, in chunks."""

    total_weight: float

    def __iter__(self) -> Iterator[Rows]: ...


class InMemory:
    """Rows of an array, in chunks."""

    def __init__(self, rows: Rows, size: int = CHUNK) -> None:
        self.rows = rows
        self.total_weight = float(rows.gate_weight.sum())
        self._size = size

    def __iter__(self) -> Iterator[Rows]:
        return self.rows.chunks(self._size)


@dataclass(frozen=True, eq=False)
class Fit:
    """What a run of EM found.

    objective : penalised log-likelihood of ``model`` on the rows of the run.
    history : objective of every iteration.
    count : (K,) sum of weighted responsibilities.
    fell : the objective fell, and the best was kept.
    path : the model of every iteration, where it was asked for; the last is ``model``.
    """

    model: Model
    objective: float
    loglik: float
    history: list[float]
    count: Array
    converged: bool
    fell: bool = False
    sums: Pass | None = field(default=None, repr=False)
    path: tuple[Model, ...] = field(default=(), repr=False)

    @property
    def n_iter(self) -> int:
        """M-steps made."""
        return len(self.history) - 1

    def troubles(self) -> dict[int, str]:
        """Say which experts are degenerate, and why."""
        found = {}
        for k, expert in enumerate(self.model.experts):
            trouble = None if expert.frozen else expert.degenerate()
            if trouble is None and self.count[k] <= 1e-8 * self.count.sum():
                trouble = "its weight is near 0"
            if trouble is not None:
                found[k] = trouble
        return found


def expectation(model: Model, rows: Rows, *, hard: bool = False) -> Expectation:
    """Make the E-step on a chunk: h_k proportional to g_k(x) p_k(y | x); over a group, to g_k prod p_k."""
    log_joint = model.gate.log_joint(rows.gate)
    joint = model.log_densities(rows)
    if rows.group_start is not None:
        joint = np.add.reduceat(joint * rows.weight[:, None], rows.group_start, axis=0)
    joint += log_joint
    weight = rows.gate_weight
    if rows.resp is not None:
        resp = rows.resp
        value = float(weight @ np.where(resp > 0, resp * joint, 0.0).sum(axis=1))
    elif hard:
        resp = (joint.argmax(axis=1)[:, None] == np.arange(joint.shape[1])).astype(float)
        value = float(weight @ joint.max(axis=1))
    else:
        top = joint.max(axis=1)
        joint -= top[:, None]
        resp = np.exp(joint, out=joint)
        total = resp.sum(axis=1)
        resp /= total[:, None]
        value = float(weight @ (top + np.log(total)))
    return _weighted(resp, value, log_joint, rows)


def _weighted(resp: Array, value: float, log_joint: Array, rows: Rows) -> Expectation:
    gate_resp = resp * rows.gate_weight[:, None]
    if rows.group_start is None:
        return Expectation(value, gate_resp, gate_resp, log_joint)
    sizes = np.diff(np.append(rows.group_start, len(rows)))
    return Expectation(value, gate_resp, np.repeat(resp, sizes, axis=0) * rows.weight[:, None], log_joint)


def statistics(model: Model, rows: Rows, found: Expectation) -> Pass:
    """Sum what the M-step needs of a chunk."""
    gate = model.gate.statistics(rows.gate, found.gate_resp, found.log_joint, rows.gate_weight)
    experts: list[Statistics | None] = [None] * len(model.experts)
    for family, members in model.families():
        resp = found.row_resp if len(members) == len(model.experts) else found.row_resp[:, members]
        sums = family.statistics([model.experts[k] for k in members], rows, resp)
        for k, one in zip(members, sums, strict=True):
            experts[k] = one
    done = [one for one in experts if one is not None]
    return Pass(found.value, gate, done, found.gate_resp.sum(axis=0))


def pass_over(source: Iterable[Rows], work: Callable[[Rows], Pass], *, n_jobs: int = 1) -> Pass:
    """Sum ``work`` over the chunks, in their order whatever finishes first, so that runs repeat exactly."""
    if n_jobs == 1:
        return reduce(lambda a, b: a + b, map(work, source))
    with ThreadPoolExecutor(n_jobs) as pool:
        chunks, total = iter(source), None
        while batch := list(islice(chunks, 2 * n_jobs)):  # a stream is not read ahead of the work
            for one in pool.map(work, batch):
                total = one if total is None else total + one
    assert total is not None
    return total


def maximisation(model: Model, sums: Pass) -> Model:
    """Make the M-step: every part that learns is updated from its own sums."""
    gate = model.gate.update(sums.gate) if model.gate.trainable else model.gate
    experts = (
        # a frozen estimator still learns its noise width, which it never had
        expert if expert.frozen and expert.additive else expert.update(one)
        for expert, one in zip(model.experts, sums.experts, strict=True)
    )
    return replace(model, gate=gate, experts=tuple(experts))


def between(here: Model, there: Model, share: float) -> Model:
    """Shorten the steps of the parts that make Newton steps; the others stay where they are best."""
    gate = there.gate if here.gate.closed_form else here.gate.between(there.gate, share)
    experts = (
        new if old.closed_form else old.between(new, share)
        for old, new in zip(here.experts, there.experts, strict=True)
    )
    return Model(gate, tuple(experts))


def first_model(model: Model, source: Source, resp: Callable[[Rows], Array], *, n_jobs: int = 1) -> Model:
    """Make the first M-step, from responsibilities alone: ``resp`` gives (n, K) for a chunk."""

    def work(rows: Rows) -> Pass:
        log_joint = model.gate.log_joint(rows.gate)
        return statistics(model, rows, _weighted(resp(rows), 0.0, log_joint, rows))

    return maximisation(model, pass_over(source, work, n_jobs=n_jobs))


def maximise(
    model: Model,
    source: Source,
    *,
    max_iter: int,
    tol: float,
    hard: bool = False,
    n_jobs: int = 1,
    watch: Callable[[int, float], None] | None = None,
    keep_path: bool = False,
) -> Fit:
    """Run EM from a model whose parts all have parameters.

    Parameters
    ----------
    source : the rows, in chunks.
    max_iter : M-steps at most.
    tol : stop when a step gained less per unit of weight, and all later ones together would, as far as the
        ratio of the last gains tells (Aitken).
    hard : every row belongs to its best expert alone (classification EM).
    watch : called with iteration and objective. keep_path : keep the model of every iteration.
    """

    def work(rows: Rows) -> Pass:
        return statistics(candidate, rows, expectation(candidate, rows, hard=hard))

    candidate = target = model
    best: tuple[Model, Pass, float] | None = None
    history: list[float] = []
    path: list[Model] = []
    plain: list[float] = []  # objectives of plain steps in a row: what the ratio of gains is read from
    jumps = Extrapolation()
    enough = tol * source.total_weight
    bounded = model.experts[0].task == "classification" and not model.gate.models_inputs  # by 0
    halvings = falls = 0
    converged = fell = jumped = False
    while True:
        sums = pass_over(source, work, n_jobs=n_jobs)
        value = sums.value - candidate.penalty()
        if best is not None and not value >= best[2] - (0 if jumped else ROUNDING * (1 + abs(best[2]))):
            if jumped:  # as if nothing had been tried
                jumped, candidate = False, target
                jumps.punish()
                continue
            if candidate.can_be_shortened and candidate.is_additive and halvings < HALVINGS:
                halvings += 1
                candidate = between(best[0], target, 0.5**halvings)
                continue
            fell = not candidate.is_additive
            falls += 1
            if candidate.is_additive or falls > PATIENCE or len(history) > max_iter:
                converged = candidate.is_additive or falls > PATIENCE
                break
        else:
            falls = 0
            best = (candidate, sums, value)
        history.append(value)
        if keep_path:
            path.append(candidate)
        plain.append(value)
        if jumped:
            plain = [value]
            jumps.restart()
            jumps.reward()
        if watch is not None:
            watch(len(history) - 1, value)
        perfect = bounded and value >= -PERFECT * source.total_weight
        converged = perfect or settled(plain, enough)
        if converged or len(history) > max_iter:
            break
        halvings = 0
        candidate = target = maximisation(candidate, sums)
        found = jumps.jump(best[0].gate, best[0].experts, _rate(plain)) if best is not None else None
        jumped = found is not None
        candidate = Model(*found) if found is not None else target
    model, sums, value = best if best is not None else (candidate, sums, value)
    if path and path[-1] is not model:  # parts that are no maximisers may end below their best
        path.append(model)
    return Fit(model, value, sums.value, history, sums.count, converged, fell, sums, tuple(path))


def _rate(values: Sequence[float]) -> float:
    """Give the last gain over the one before; 0 where there are none."""
    if len(values) < 3 or not values[-2] > values[-3]:
        return 0.0
    return (values[-1] - values[-2]) / (values[-2] - values[-3])


def settled(history: Sequence[float], enough: float) -> bool:
    """Say whether the last gain, and by Aitken's extrapolation all later ones, are within ``enough``.

    >>> settled([0.0, 1.0, 1.5, 1.75], 0.3)  # .25 more is to come
    True
    >>> settled([0.0, 1.0, 1.5, 1.75], 0.2)
    False
    """
    if len(history) < 3:
        return False
    before, gain = history[-2] - history[-3], history[-1] - history[-2]
    if gain > enough:
        return False
    if gain <= SLOWEST * enough or before <= 0:
        return True
    rate = gain / before
    return rate < 1 and gain * rate / (1 - rate) <= enough
