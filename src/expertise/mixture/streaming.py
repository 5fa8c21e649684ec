"""Data that do not fit in memory: chunks passed over again and again, or batch after batch.

`fit_chunks` reads a source three times or more: once for means and scales, with a sample of rows on which
the starts are tried; then one pass an iteration. `partial_fit` sees each batch once (stepwise EM: Cappe &
Moulines 2009), keeps sums that forget slowly, and need not end where `fit` does.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from expertise._optional import require
from expertise._progress import Meter
from expertise.mixture import em
from expertise.mixture.em import Model, Pass
from expertise.mixture.judging import troubles_of
from expertise.mixture.preparing import Scales, Table, make_rows
from expertise.mixture.problem import Problem, Solution
from expertise.mixture.rows import CHUNK, Rows, Scaling
from expertise.mixture.search import START_ROWS, Found
from expertise.mixture.sums import Sums

FORGETTING = 0.7  # exponent of the steps of stepwise EM, between 1/2 and 1
SAMPLE = 2 * START_ROWS


class ChunkSource(Protocol):
    """A re-iterable source: every ``iter`` starts again, and gives (X, y) or (X, y, sample_weight)."""

    def __iter__(self) -> Iterator[Any]: ...


class ParquetChunks:
    """Rows of a Parquet file, as a source for `fit_chunks`; memory does not grow with the file.

    Parameters
    ----------
    path : the file.
    target : name of the column of y, or a list of several.
    features : names of the columns of X; all but target and weight if None.
    weight : name of the column of sample weights, or None.
    chunk_rows : rows read at once.

    Raises
    ------
    ValueError : a column that is not there.
    """

    def __init__(
        self,
        path: Any,
        target: str | list[str],
        features: list[str] | None = None,
        weight: str | None = None,
        chunk_rows: int = 4 * CHUNK,
    ) -> None:
        self._parquet = require("pyarrow.parquet", "table")
        self._arrow = require("pyarrow", "table")
        self._path, self._weight, self._rows = path, weight, chunk_rows
        self._targets = [target] if isinstance(target, str) else list(target)
        with self._parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
        other = {*self._targets, weight}
        self.features = features if features is not None else [name for name in names if name not in other]
        for name in (*self._targets, *self.features, *([weight] if weight else [])):
            if name not in names:
                raise ValueError(f"{path} has no column {name!r}; it has {', '.join(names)}")

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        columns = [*self.features, *self._targets, *([self._weight] if self._weight else [])]
        with self._parquet.ParquetFile(self._path, buffer_size=2**20, pre_buffer=False) as file:
            for group in range(file.num_row_groups):  # one by one: asked for all, Arrow reads the file ahead
                for batch in file.iter_batches(self._rows, [group], columns, use_threads=False):
                    yield self._arrays(batch, len(columns))

    def _arrays(self, batch: Any, n_columns: int) -> tuple[Any, ...]:
        values = np.empty((batch.num_rows, n_columns))
        for j in range(n_columns):
            values[:, j] = batch.column(j).to_numpy(zero_copy_only=False)
        p, m = len(self.features), len(self._targets)
        y = values[:, p] if m == 1 else values[:, p : p + m]
        return (values[:, :p], y, values[:, -1]) if self._weight else (values[:, :p], y)


@dataclass(frozen=True, eq=False)
class Measured:
    """What the first pass found: scales, a random sample of rows, and how many there are."""

    scales: Scales
    sample: Table
    total_weight: float
    n_rows: int


def measure(tables: Iterable[Table], problem: Problem) -> Measured:
    """Read all chunks once: weighted means and scales of all columns, and a uniform sample of rows."""
    rng = np.random.default_rng(problem.search.seed)
    moments: Sums | None = None
    first: dict[str, Any] = {}
    kept: list[Table] = []
    keys: list[Any] = []
    n_rows = 0
    for table in tables:
        y = np.asarray(table.y, float).reshape(len(table), -1)
        both = np.column_stack([table.X, y])
        if not first:
            first["row"] = both[0]
        moved = both - first["row"]
        one = Sums(
            weight=np.asarray(table.weight.sum()), sum=table.weight @ moved, square=table.weight @ moved**2
        )
        moments = one if moments is None else moments + one
        n_rows += len(table)
        keys.append(rng.random(len(table)))
        kept.append(table)
        kept, keys = _smallest(kept, keys)
    if moments is None:
        raise ValueError("the source gave no chunk; it must be re-iterable, not an iterator that is used up")
    total = float(moments["weight"])
    mean = moments["sum"] / total
    scale = np.sqrt(np.maximum(moments["square"] / total - mean**2, 0.0))
    size = np.sqrt(moments["square"] / total)
    scale = np.where(scale > 1e-7 * np.maximum(size, 1e-6 * np.abs(first["row"])), scale, 1.0)
    mean = mean + first["row"]
    sample = kept[0]
    d = sample.X.shape[1]
    columns = problem.columns

    def of(which: Any) -> Scaling:
        return Scaling(mean[which], scale[which])

    y_scaling = of(np.arange(d, len(mean))) if problem.numbers else Scaling.identity(1)
    return Measured(Scales(of(columns.gate), of(columns.expert), y_scaling), sample, total, n_rows)


def _smallest(tables: list[Table], keys: list[Any]) -> tuple[list[Table], list[Any]]:
    """Keep the rows with the smallest random keys: a uniform sample of all rows read so far."""
    names = ("X", "y", "weight")
    joined = Table(**{name: np.concatenate([getattr(t, name) for t in tables]) for name in names})
    key = np.concatenate(keys)
    if len(key) <= SAMPLE:
        return [joined], [key]
    keep = np.argpartition(key, SAMPLE)[:SAMPLE]
    return [joined.take(keep)], [key[keep]]


class Stream:
    """Standardised rows of a source, chunk by chunk."""

    def __init__(
        self, tables: Callable[[], Iterable[Table]], problem: Problem, measured: Measured, meter: Meter | None
    ) -> None:
        self.total_weight = measured.total_weight
        self._tables, self._problem, self._scales, self._meter = tables, problem, measured.scales, meter

    def __iter__(self) -> Iterator[Rows]:
        for table in self._tables():
            if self._meter is not None:
                self._meter.advance(len(table))
            yield from self._problem.rows(table, self._scales).chunks(CHUNK)


def fit_stream(
    tables: Callable[[], Iterable[Table]], problem: Problem, meter: Meter | None = None
) -> tuple[Solution, Measured]:
    """Fit a source that is passed over: starts on a sample, then EM on all rows."""
    measured = measure(tables(), problem)
    scales = measured.scales
    sample = make_rows(measured.sample, problem.columns, scales, numbers=problem.numbers, raw=False)
    found = problem.search_over(sample, scales).run()
    gate = found.fit.model.gate
    assert gate.settings is not None
    gate = replace(gate, settings=replace(gate.settings, total_weight=measured.total_weight))
    search = problem.search
    stream = Stream(tables, problem, measured, meter)
    fit = em.maximise(
        Model(gate, found.fit.model.experts),
        stream,
        max_iter=search.max_iter,
        tol=search.tol,
        hard=search.hard,
        n_jobs=search.n_jobs,
        keep_path=search.keep_path,
    )
    fit = replace(fit, path=found.fit.path + fit.path[1:])
    troubles = troubles_of(fit, sample, measured.n_rows)
    solution = Solution(problem, Found(fit, found.starts, troubles), scales, sample, stream)
    return solution, measured


@dataclass(eq=False)
class Stepwise:
    """The state of stepwise EM between batches.

    Sums of the past are kept per unit of weight, and each batch moves them by a step that shrinks as
    (batches + 2) ** -FORGETTING. A part that makes Newton steps moves by the gradient of the batch alone,
    with the curvature of the past: gradients of older parameters say nothing of these.
    """

    problem: Problem
    scales: Scales
    model: Model
    past: Pass
    seen: float
    batches: int = 0

    def step(self, rows: Rows) -> float:
        """Learn from a batch; give its mean log-likelihood before."""
        weight = float(rows.gate_weight.sum())
        found = em.expectation(self.model, rows, hard=self.problem.search.hard)
        now = scaled(em.statistics(self.model, rows, found), 1 / weight)
        self.past = _mixed(self.past, now, float((self.batches + 2) ** -FORGETTING))
        self.batches += 1
        self.seen += weight
        # ridges count against all rows seen, as in a fit of them
        gate = self.model.gate
        assert gate.settings is not None
        gate = replace(gate, settings=replace(gate.settings, total_weight=self.seen))
        here = Model(gate, self.model.experts)
        self.model = self._not_too_far(
            here, em.maximisation(here, scaled(self.past, self.seen)), rows, found.value
        )
        return found.value / weight

    def _not_too_far(self, here: Model, there: Model, rows: Rows, value: float) -> Model:
        """Shorten Newton steps while the batch itself finds them worse than none."""
        hard = self.problem.search.hard
        target = there
        for halvings in range(1, em.HALVINGS + 1):
            if not there.can_be_shortened or em.expectation(there, rows, hard=hard).value >= value:
                break
            there = em.between(here, target, 0.5**halvings)
        return there


def scaled(sums: Pass, factor: float) -> Pass:
    """Multiply all sums."""
    gate, experts = _as_sums(sums)
    each = [one.scaled(factor) for one in experts]
    return Pass(sums.value * factor, gate.scaled(factor), each, sums.count * factor)


def _mixed(past: Pass, now: Pass, share: float) -> Pass:
    gate_past, experts_past = _as_sums(past)
    gate_now, experts_now = _as_sums(now)
    return Pass(
        now.value,
        _blend(gate_past, gate_now, share),
        [_blend(a, b, share) for a, b in zip(experts_past, experts_now, strict=True)],
        (1 - share) * past.count + share * now.count,
    )


def _blend(past: Sums, now: Sums, share: float) -> Sums:
    blended = past.scaled(1 - share) + now.scaled(share)
    for name in now:
        if name.endswith("gradient"):
            blended[name] = share * now[name]
    return blended


def _as_sums(sums: Pass) -> tuple[Sums, list[Sums]]:
    assert isinstance(sums.gate, Sums)
    experts = [one for one in sums.experts if isinstance(one, Sums)]
    assert len(experts) == len(sums.experts)
    return sums.gate, experts
