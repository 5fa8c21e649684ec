"""Why a row got its prediction, in the table's own columns: who decided, and what moved gate and expert."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.core.explanation import effects
from expertise.mixture import MixtureOfExpertsClassifier
from expertise.table.model import TableModel
from expertise.table.reading import open_batches
from expertise.table.remarks import outside, reach
from expertise.table.values import Floats

MOVERS = 5  # inputs that are named


def explain_rows(
    model: TableModel,
    path: str | os.PathLike[str],
    rows: Sequence[int],
    *,
    new: str = "error",
    missing: tuple[str, ...] = (),
    encoding: str = "utf8",
) -> str:
    """Explain rows of a table (numbers from 0) in plain words.

    Raises
    ------
    ValueError : a row that is not there, or what `TableModel.predict` complains of.
    """
    source = Path(path).name
    total, _, batches = open_batches(path, encoding)
    gone = [row for row in rows if not 0 <= row < total]
    if gone:
        raise ValueError(f"--row={gone[0]}: {source} has the rows 0 to {total - 1}; rows count from 0")
    texts, first = {}, 0
    for batch in batches:
        for row in {row for row in rows if first <= row < first + batch.num_rows}:
            # read one by one: a wrong value elsewhere is no reason not to explain this row
            one = batch.slice(row - first, 1)
            values = model.encoder.read(one, source=source, missing=missing, new=new, first=row)
            texts[row] = explanation(model, values, row)
        first += batch.num_rows
        if first > max(rows):
            break
    return "\n\n".join(texts[row] for row in rows)


def moved(model: TableModel, values: Floats) -> tuple[Floats, Floats]:
    """Measure how far each column of the table alone moves the gate and the chosen expert.

    Parameters
    ----------
    values : (n, columns).

    Returns
    -------
    (n, columns) weight of the expert with the largest weight, minus that with the column at its typical
    value; and the same of this expert's prediction (of a classifier, of its probability of the predicted
    class).
    """
    X = model.encoder.encode(values)
    usual = model.encoder.encode(typical(model)[None])[0]
    chosen = model.mixture.gate_proba(X).argmax(axis=1)
    column = _predicted(model, X)
    rows = np.arange(len(X))

    def weight(at: Floats) -> Floats:
        return np.asarray(model.mixture.gate_proba(at)[rows, chosen])

    def said(at: Floats) -> Floats:
        experts = model.mixture.predict_experts(at)[rows, chosen]
        return np.asarray(experts if column is None else experts[rows, column])

    blocks = model.encoder.blocks
    return effects(X, usual, weight, blocks), effects(X, usual, said, blocks)


def typical(model: TableModel) -> Floats:
    """Give the values of an ordinary row, (columns,): medians, most frequent levels."""
    return np.array([column.fill for column in model.encoder.columns])


def _predicted(model: TableModel, X: Floats) -> npt.NDArray[np.intp] | None:
    if isinstance(model.mixture, MixtureOfExpertsClassifier):
        return np.asarray(model.mixture.predict_proba(X).argmax(axis=1))
    return None


def explanation(model: TableModel, values: Floats, row: int) -> str:
    """Explain one row, values (1, columns), in words."""
    X = model.encoder.encode(values)
    answer = {name: found[0] for name, found in model.answer(X).items()}
    of_gate, of_expert = moved(model, values)
    experts = model.mixture.predict_experts(X)[0]
    column, about = _predicted(model, X), ""
    if column is not None:
        experts, about = experts[:, column[0]], f" for {answer['prediction']}"
    k = int(answer["expert"])
    interval = f", 90 % between {answer['lower']:.6g} and {answer['upper']:.6g}" if "lower" in answer else ""
    sure = answer[f"weight of expert {k}"]
    lines = [
        f"row {row}: {model.target} is predicted as {_show(answer['prediction'])}{interval}",
        f"who decided: expert {k}, with a weight of {sure:.2f}"
        + ("" if sure >= 0.8 else "; the gate is not sure"),
    ]
    far = np.flatnonzero(outside(model.encoder.columns, values)[0])
    if len(far):
        columns = [model.encoder.columns[j] for j in far]
        named = (
            f"{column.name} is {column.text(values[0, j])} (the fit had {reach(column)})"
            for column, j in zip(columns, far, strict=True)
        )
        lines.append(f"extrapolated: {'; '.join(named)}")
    for j, said in enumerate(experts):
        lines.append(f"  expert {j}: weight {answer[f'weight of expert {j}']:.2f}, says {_show(said)}{about}")
    lines.append(f"what moved the gate to expert {k} (weight, against the usual value of the input):")
    lines += _movers(model, values[0], of_gate[0], 0.0005)
    lines.append(f"what moved expert {k}{about}:")
    return "\n".join([*lines, *_movers(model, values[0], of_expert[0], 0.0)])


def _movers(model: TableModel, values: Floats, effect: Floats, least: float) -> list[str]:
    order = [j for j in np.argsort(-np.abs(effect), kind="stable")[:MOVERS] if abs(effect[j]) > least]
    if not order:
        return ["  nothing: no input alone makes a difference"]
    usual = typical(model)
    names = [model.encoder.columns[j] for j in order]
    width = max(len(column.name) for column in names)
    return [
        f"  {column.name:{width}}  {effect[j]:+.4g}  because it is {column.text(values[j])}, usual is "
        f"{column.text(usual[j])}"
        for column, j in zip(names, order, strict=True)
    ]


def _show(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
