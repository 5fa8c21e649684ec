"""Parquet files larger than memory: the fit passes over them batch by batch.

A first pass draws a random sample of the rows to fit, and one of the rows held out. Kinds, categories and
what stands for missing values are found on the sample, the number of experts is chosen on it, and ridge
regression and boosting are fitted to it. The mixture, and the one expert beside it, see every row.
"""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise._optional import require
from expertise._progress import progress
from expertise.table import saying
from expertise.table.columns import Encoder
from expertise.table.fitting import KEPT, Part, Say, fit_mixture, judge, single
from expertise.table.kinds import find
from expertise.table.model import KeptRows, Mixture, TableModel
from expertise.table.reading import check_table, format_of, parquet_batches, parquet_size
from expertise.table.request import Request
from expertise.table.sampling import Reservoir, sample
from expertise.table.targets import (
    MOST_CLASSES,
    check_classes,
    check_weights,
    read_target,
    read_weights,
    task_of,
)
from expertise.table.values import Floats, decoded

SAMPLE = 50_000  # rows of the sample to fit
HELD = 20_000  # rows of the sample held out
COPIES = 6  # of the numbers of a table that a fit in memory may need at once
SHARE = 0.5  # of the free memory that a fit may take


def must_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a Parquet file has more numbers than a fit can hold in memory."""
    if format_of(path) != "parquet" or Path(path).suffix.lower() == ".gz":
        return False
    rows, names = parquet_size(path)
    return rows * len(names) * 8 * COPIES > SHARE * free_memory()


def free_memory() -> float:
    """Give how many bytes are free or only hold files; all that there are where no more is known."""
    try:
        told = Path("/proc/meminfo").read_text(encoding="ascii")
        return 1024.0 * int(told.split("MemAvailable:")[1].split()[0])
    except (OSError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return float("inf")


def fit_streamed(path: str | os.PathLike[str], request: Request, *, say: Say = print) -> TableModel:
    """Fit a mixture to a Parquet file that need not fit in memory; else as `fit_table`.

    Raises
    ------
    ValueError : another kind of file, groups or a growing tree (which need all rows at once), or what
        `fit_table` complains of.
    """
    source = Path(path).name
    if format_of(path) != "parquet" or Path(path).suffix.lower() == ".gz":
        raise ValueError(f"--stream reads Parquet; {source} is none")
    rows, names = parquet_size(path)
    check_table(path, rows, names)
    request.check(names, source)
    if request.groups:
        raise ValueError(f"--groups={request.groups} needs all rows at once, and --stream reads them in turn")
    if request.order:
        raise ValueError(f"--order={request.order} needs all rows at once, and --stream reads them in turn")
    if request.gate == "tree" and request.experts == "auto":
        raise ValueError("--gate=tree needs --experts=N with --stream: a tree grows on all rows at once")

    survey = Survey.of(path, names, rows, request, source)
    task = survey.task
    request.check_task(task)
    missing = request.wishes.missing
    asked, there = read_target(request.target, survey.fitted[request.target], task, missing, source=source)
    inputs = [name for name in names if name not in (request.target, request.weights)]
    encoder, found = find(survey.fitted, inputs, request.wishes, source=f"a sample of {source}")
    encoder = encoder.refilled(found)
    say(saying.of_table(source, rows, encoder, found, request, task, survey.without_target))
    if task == "regression" and (hint := saying.of_few_values(request, asked[there])):
        say(hint)
    say(
        f"streamed: kinds, missing values and baselines are of a sample of {survey.fitted.num_rows:,} rows, "
        f"scores of {survey.held.num_rows:,} held-out ones"
    )
    say(saying.of_split(survey.n_fitted, survey.n_held, request))
    sampled, y, weight, _ = _arrays(survey.fitted, encoder, request, survey.task, source)
    X = encoder.encode(sampled)
    check_weights(request.weights, weight, "row to fit")
    first, said = fit_mixture(request, task, encoder, X, y, weight)
    chunks = Chunks(path, names, encoder, request, task, source)
    labels = survey.classes if task == "classification" else None
    model = _passes(first, chunks, labels, said, verbose=True)
    result = TableModel(task, request.target, chunks.encoder, model, source, warnings=said)
    result.facts = saying.facts(result, request, survey.n_fitted, survey.n_held)
    if survey.held.num_rows:
        _compare(result, request, survey, chunks, X, y, weight)
    say(saying.of_fit(result))
    return result


@dataclass
class Survey:
    """What the first pass found: samples of the rows to fit and of those held out, counts, classes."""

    task: Any
    fitted: Any
    held: Any
    held_rows: npt.NDArray[np.intp]
    n_fitted: int = 0
    n_held: int = 0
    without_target: int = 0
    classes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, path: str | os.PathLike[str], names: list[str], rows: int, request: Request, source: str
    ) -> "Survey":
        """Pass over the file once."""
        fitted, held = Reservoir(SAMPLE), Reservoir(HELD)
        labels: set[str] = set()
        task = _task(path, request)
        first, without = 0, 0
        with progress("survey", rows, "rows") as meter:
            for number, batch in enumerate(parquet_batches(path, names)):
                y, there, _ = _answers(batch, request, task, source, first)
                if task == "classification":
                    labels |= set(y[there])
                    check_classes(request.target, len(labels))
                key, is_held = _draw(request, number, batch.num_rows)
                at = np.arange(first, first + batch.num_rows)
                fitted.offer(batch, key, at, there & ~is_held)
                held.offer(batch, key, at, there & is_held)
                without += int((~there).sum())
                first += batch.num_rows
                meter.advance(batch.num_rows)
        if not fitted.offered:
            raise ValueError(
                f"{source} has no row to fit: {request.target} is missing in all of them, or all others are "
                "held out"
            )
        table, _ = fitted.taken()
        held_table, held_rows = held.taken()
        return cls(task, table, held_table, held_rows, fitted.offered, held.offered, without, sorted(labels))


def _task(path: str | os.PathLike[str], request: Request) -> Any:
    """Say what is predicted, by the different values of the target: two numbers need not be all."""
    arrow, seen = require("pyarrow", "table"), None
    for batch in parquet_batches(path, [request.target]):
        column = decoded(batch[request.target])
        seen = (column if seen is None else arrow.chunked_array([seen, *column.chunks])).unique()
        if request.task != "auto" or len(seen) > MOST_CLASSES:
            break  # more of them would change nothing
    return task_of(seen, request.task, request.wishes.missing)


def _answers(
    table: Any, request: Request, task: str, source: str, first: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Floats]:
    """Give the target of rows, where there is one, and their weights."""
    missing, array = request.wishes.missing, table[request.target]
    y, there = read_target(request.target, array, task, missing, source=source, fitted=True, first=first)
    weight = np.ones(len(y))
    if request.weights:
        weight = read_weights(request.weights, table[request.weights], missing, source=source, first=first)
    return y, there, weight


def _draw(request: Request, number: int, n: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Draw for each row of a batch a key, and whether it is held out; the same in every pass."""
    rng = np.random.default_rng([request.seed, number])
    return rng.random(n), rng.random(n) < request.test


def _arrays(
    table: Any, encoder: Encoder, request: Request, task: str, source: str, first: int = 0
) -> tuple[Floats, npt.NDArray[Any], Floats, npt.NDArray[np.bool_]]:
    """Give values, y and weights of rows, and which of them have a target."""
    y, there, weight = _answers(table, request, task, source, first)
    values = encoder.read(table, source=source, missing=request.wishes.missing, new="missing", first=first)
    return values, y if task == "regression" else y.astype(str), weight, there


@dataclass
class Chunks:
    """The rows to fit, as a source for ``fit_chunks``: each pass reads the file again.

    A pass widens the ranges of ``encoder``, which has seen a sample, to those of all rows of the file.
    """

    path: str | os.PathLike[str]
    names: list[str]
    encoder: Encoder
    request: Request
    task: str
    source: str

    def __iter__(self) -> Iterator[tuple[Floats, npt.NDArray[Any], Floats]]:
        first, request = 0, self.request
        for number, batch in enumerate(parquet_batches(self.path, self.names)):
            found, y, weight, there = _arrays(batch, self.encoder, request, self.task, self.source, first)
            self.encoder = self.encoder.widened(found)
            wanted = there & (weight > 0) & ~_draw(request, number, batch.num_rows)[1]
            if wanted.any():
                yield self.encoder.encode(found[wanted]), y[wanted], weight[wanted]
            first += batch.num_rows


def _passes(
    first: Mixture, chunks: Chunks, labels: list[str] | None, said: list[str], *, verbose: bool = False
) -> Mixture:
    """Fit all rows with as many experts as the sample had."""
    arguments = first.get_params(deep=False)
    if len(chunks.request.expert) < 2:
        arguments["n_experts"] = first.n_experts_
    model = type(first)(**{**arguments, "verbose": verbose})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit_chunks(chunks, classes=labels)
    said += [text for one in caught if (text := str(one.message)) not in said]
    model.set_params(verbose=False)
    return model


def _compare(
    result: TableModel,
    request: Request,
    survey: Survey,
    chunks: Chunks,
    X: Floats,
    y: npt.NDArray[Any],
    weight: Floats,
) -> None:
    """Score all models on the sample of held-out rows, and judge."""
    found, truth, new_weight, _ = _arrays(survey.held, result.encoder, request, result.task, result.source)
    check_weights(request.weights, new_weight, "held-out row")
    codes, fitted = truth, y
    if result.task == "classification":
        codes = np.searchsorted(np.array(result.classes), truth)
        fitted = np.searchsorted(np.array(result.classes), y)
    one = _passes(single(request, result, X, y, weight), chunks, list(result.classes) or None, [])
    new = result.encoder.encode(found)
    judge(result, request, one, Part(X, fitted, weight), Part(new, codes, new_weight))
    if request.keep_rows:
        kept = sample(len(found), KEPT, request.seed)
        result.kept = KeptRows(found[kept], codes[kept], survey.held_rows[kept], survey.n_held)
