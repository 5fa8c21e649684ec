"""The page of a model: gathers what `expertise.report` draws, from held-out rows or from a table.

Letters: n rows of the page, K experts, V classes, m points of a grid, s rows of a sample.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.mixture import MixtureOfExpertsClassifier
from expertise.report.mixtures import write_mixture_page
from expertise.report.record import Column as ShownColumn
from expertise.report.record import Explained, MixtureRecord, Score
from expertise.table import showing
from expertise.table.explaining import moved, typical
from expertise.table.fitting import KEPT
from expertise.table.model import KeptRows, TableModel
from expertise.table.reading import open_batches
from expertise.table.remarks import Remarks
from expertise.table.sampling import Reservoir, sample
from expertise.table.targets import read_target
from expertise.table.values import Floats

UNCERTAIN = 100  # rows that are listed
EXPLAINED = 4  # experts of which a row is explained
LEVELS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])  # of intervals


def write_page(
    model: TableModel,
    out: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    new: str = "error",
    missing: tuple[str, ...] = (),
    encoding: str = "utf8",
) -> Path:
    """Write the page of a model, one HTML file, whole or not at all.

    Parameters
    ----------
    data : a table to report on, with the target or without; the rows that the model keeps if None.
    new, missing, encoding : see `predict_file`.

    Raises
    ------
    ValueError : the model keeps no rows and no table is given; or what is wrong with the table.
    """
    if data is None:
        if model.kept is None:
            raise ValueError(
                "the model keeps no rows (it was fitted with --test=0 or --no-keep-rows); give a table to "
                "report on: expertise report model.skops data.csv"
            )
        remarks: list[str] = []
        rows, about = model.kept, f"held-out rows of {model.source}"
    else:
        rows, remarks = _rows_of(model, data, new, missing, encoding)
        about = f"rows of {Path(data).name}"
    count = f"{len(rows.values):,}"
    source = f"{count} {about}" if rows.of == len(rows.values) else f"{count} of {rows.of:,} {about}"
    caution = [f"Input {line}." for line in remarks]
    if data is not None and Path(data).name == model.source:
        caution.insert(
            0,
            f"{model.source} has the name of the table of the fit. Rows that the fit saw make errors and "
            "intervals look better than they are; a report without a table takes held-out rows alone.",
        )
    return write_mixture_page(out, record(model, rows, source, " ".join(caution)))


def _rows_of(
    model: TableModel, data: str | os.PathLike[str], new: str, missing: tuple[str, ...], encoding: str
) -> tuple[KeptRows, list[str]]:
    """Read the rows of a table, and what is to be said of them; where no row has a target y is empty."""
    source = Path(data).name
    total, names, batches = open_batches(data, encoding)
    remarks, key, first = Remarks(model.encoder), np.random.default_rng(0).random(total), 0
    every, known = Reservoir(KEPT), Reservoir(KEPT)  # of all rows, and of those with a target
    how: dict[str, Any] = {"source": source, "missing": missing}
    for batch in batches:
        rows = np.arange(first, first + batch.num_rows)
        remarks.see(model.encoder.read(batch, new=new, first=first, **how))
        every.offer(batch, key[rows], rows, np.ones(len(rows), bool))
        if model.target in names:
            array = batch[model.target]
            y, there = read_target(model.target, array, model.task, first=first, fitted=True, **how)
            if model.task == "classification":
                _codes(model, y, np.flatnonzero(there), source, first)
            known.offer(batch, key[rows], rows, there)
        first += batch.num_rows
    chosen = known if known.offered else every
    table, rows = chosen.taken()
    values = model.encoder.read(table, new=new, **how)
    y = np.empty(0)
    if known.offered:
        y, _ = read_target(model.target, table[model.target], model.task, fitted=True, **how)
        if model.task == "classification":
            y = _codes(model, y, np.arange(len(y)), source)
    return KeptRows(values, y, rows, chosen.offered), remarks.lines()


def _codes(
    model: TableModel,
    labels: npt.NDArray[Any],
    chosen: npt.NDArray[np.intp],
    source: str,
    first: int = 0,
) -> npt.NDArray[np.intp]:
    code = {label: number for number, label in enumerate(model.classes)}
    for row in chosen:
        if labels[row] not in code:
            raise ValueError(
                f"{source}, row {first + row}, column {model.target!r}: {labels[row]!r} is a class the fit "
                f"never saw; known are {', '.join(map(repr, model.classes))}"
            )
    return np.array([code[labels[row]] for row in chosen], dtype=np.intp)


def record(model: TableModel, rows: KeptRows, source: str, caution: str = "") -> MixtureRecord:
    """Gather what the page shows, from rows (n,) of a table; ``caution`` is what is to be said of them."""
    values = rows.values
    X, y = model.encoder.encode(values), rows.y if len(rows.y) else None
    mixture = model.mixture
    gate = mixture.gate_proba(X)
    is_classifier = isinstance(mixture, MixtureOfExpertsClassifier)
    prediction = mixture.predict_proba(X) if is_classifier else mixture.predict(X)
    columns = _columns(model, values)
    labels = y if y is None or not is_classifier else mixture.classes_[y]
    cdf, coverage = showing.trust(model, X, y, LEVELS)
    shown = sample(len(X), showing.SHOWN, 1)
    return MixtureRecord(
        target=model.target,
        task=model.task,
        classes=model.classes,
        source=source,
        facts=tuple(model.facts),
        scores=tuple(Score(name, found, i == 0) for i, (name, found) in enumerate(model.scores)),
        verdict=model.verdict,
        helps=model.helps,
        warnings=tuple(model.warnings),
        columns=columns,
        y=None if y is None else np.asarray(y, float),
        gate=gate,
        responsibilities=None if labels is None else mixture.responsibilities(X, labels),
        experts=mixture.predict_experts(X),
        prediction=prediction,
        intervals=None if is_classifier else mixture.predict_interval(X, 0.9),
        cdf=cdf,
        coverage=coverage,
        row_names=tuple(f"row {row}" for row in rows.row),
        uncertain=_uncertain(gate, prediction, X, model)[:UNCERTAIN],
        profiles=showing.profiles(model, values, columns),
        gate_map=showing.gate_map(model, values, columns),
        coefficients=showing.coefficients(model),
        starts=tuple(mixture.starts_),
        history=np.asarray(mixture.objective_history_),
        frames=showing.frames(model, X, y, labels, shown),
        shown=shown,
        formula=_formula(model),
        measured="" if rows is model.kept and rows.of == len(values) else f"held-out rows of {model.source}",
        caution=caution,
        explained=_explained(model, values, gate, prediction),
    )


def _explained(model: TableModel, values: Floats, gate: Floats, prediction: Floats) -> tuple[Explained, ...]:
    """Explain the row that each of the first experts decides most surely, and the one that is least sure."""
    chosen = gate.argmax(axis=1)
    led = [k for k in range(min(model.n_experts, EXPLAINED)) if (chosen == k).any()]
    rows = [int(np.argmax(np.where(chosen == k, gate[:, k], -1.0))) for k in led]
    rows.append(int(np.argmin(gate.max(axis=1))))
    rows = list(dict.fromkeys(rows))
    of_gate, of_expert = moved(model, values[rows])
    return tuple(
        Explained(
            row,
            int(chosen[row]),
            of_gate[i],
            of_expert[i],
            model.classes[int(prediction[row].argmax())] if model.classes else "",
        )
        for i, row in enumerate(rows)
    )


def _columns(model: TableModel, values: Floats) -> tuple[ShownColumn, ...]:
    part = values[sample(len(values), showing.SHOWN, 2)]
    of_gate, of_expert = (np.abs(effect).mean(axis=0) for effect in moved(model, part))
    usual = typical(model)
    return tuple(
        ShownColumn(
            column.name,
            column.kind,
            column.levels,
            values[:, j],
            float(usual[j]),
            float(of_gate[j]),
            float(of_expert[j]),
        )
        for j, column in enumerate(model.encoder.columns)
    )


def _uncertain(gate: Floats, prediction: Floats, X: Floats, model: TableModel) -> npt.NDArray[np.intp]:
    """Order the rows by the entropy of the gate; where there is but one expert, by that of the answer."""
    weights = gate
    if gate.shape[1] == 1:
        if prediction.ndim == 1:
            interval: Floats = model.mixture.predict_interval(X, 0.9)
            return np.asarray(np.argsort(-(interval[:, 1] - interval[:, 0]), kind="stable"))
        weights = prediction
    safe = np.where(weights > 0, weights, 1.0)
    return np.asarray(np.argsort((safe * np.log(safe)).sum(axis=1), kind="stable"))


def _formula(model: TableModel) -> dict[str, Any] | None:
    """Give what the what-if panel computes with: the columns with their features, gate and experts."""
    found: dict[str, Any] | None = model.mixture.formula()
    if found is None:
        return None
    columns = [
        {
            "name": column.name,
            "kind": column.kind,
            "levels": list(column.levels),
            "typical": column.fill,
            "low": column.low,
            "high": column.high,
            "whole": column.whole,
            "may_miss": column.marks_missing and column.kind != "category",
            "missing_level": None,
            "features": column.features(),
        }
        for column in model.encoder.columns
    ]
    return {"columns": columns, **found}
