"""The last sections: the panel that answers "what if", and the rows of which the gate is least sure."""

from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.report._colours import expert_colour
from expertise.report._mixture_words import (
    experts,
    leading,
    rows,
    target,
    value_text,
)
from expertise.report.figures import short
from expertise.report.page import Block, Cell, Live, Prose, Row, Table, format_value
from expertise.report.record import Column, MixtureRecord

Floats = npt.NDArray[np.float64]
MAX_STARTS = 20  # rows that the panel can start from
MAX_OPEN = 12  # inputs of the panel that are seen at once: those that matter most
MAX_INPUTS = 5  # of the table of rows
MAX_LETTERS = 40  # of a level there
MAX_CLASSES = 4  # whose probabilities the table of rows lists


def importance(record: MixtureRecord) -> list[int]:
    """Columns in order of what they do to the gate and to the experts, each as a share of the largest."""
    gate = np.array([column.gate_effect for column in record.columns])
    expert = np.array([column.expert_effect for column in record.columns])
    total = sum(np.nan_to_num(one) / max(float(np.nanmax(one, initial=0)), 1e-300) for one in (gate, expert))
    return [int(j) for j in np.argsort(-np.asarray(total), kind="stable")]


# ---- the panel


def panel(record: MixtureRecord) -> tuple[Block, ...]:
    """The panel, or why there is none."""
    formula = record.formula
    if formula is None:
        why = (
            "There is no panel for this mixture: a part of it (a scikit-learn estimator or the like) has no "
            "formula that a page could compute. Ask the fitted model itself."
        )
        return (Prose((why,)),)
    names = [column["name"] for column in formula["columns"]]
    if names != [column.name for column in record.columns]:
        raise ValueError(
            f"columns of formula must be the columns of the record, in order; got {names}, not "
            f"{[column.name for column in record.columns]}"
        )
    k = record.n_experts
    starts = [("the typical row", [column.typical for column in record.columns])]
    starts += [
        (_start_name(record, i), [float(column.values[i]) for column in record.columns])
        for i in record.uncertain[:MAX_STARTS].tolist()
    ]
    order = importance(record)
    fields = [_field(record.columns[j], formula["columns"][j], j) for j in order]
    live = Live(
        "Change an input and see who decides",
        "whatif.html.jinja",
        "whatif.js",
        {
            "formula": formula,
            "starts": [values for _, values in starts],
            "classes": list(record.classes),
            "target": target(record),
        },
        {
            "starts": [name for name, _ in starts],
            "open": fields[:MAX_OPEN],
            "more": fields[MAX_OPEN:],
            "experts": [(e, expert_colour(e)) for e in range(k)],
            "outputs": [f"P({name})" for name in record.classes] or [record.target],
        },
    )
    return (live,)


def _start_name(record: MixtureRecord, i: int) -> str:
    k = int(record.gate[i].argmax())
    return f"{record.row_names[i]} (expert {k} with {record.gate[i, k]:.2f})"


def _field(column: Column, described: dict[str, Any], j: int) -> dict[str, Any]:
    """What the template needs to draw the controls of one input."""
    low, high = float(described["low"]), float(described["high"])
    return {
        "column": j,
        "name": column.name,
        "kind": column.kind,
        "levels": list(described["levels"]),
        "low": low,
        "high": high,
        "step": "1" if described["whole"] else "any",
        "range": f"seen: {value_text(column, low)} to {value_text(column, high)}",
        "may_miss": bool(described["may_miss"]),
    }


# ---- the rows


def uncertain(record: MixtureRecord) -> tuple[Block, ...]:
    """The table of the rows of which the gate is least sure."""
    if not len(record.uncertain):
        return (Prose(("No rows were listed as uncertain.",)),)
    order = importance(record)[:MAX_INPUTS]
    body = tuple(_row(record, int(i), order) for i in record.uncertain)
    head = ["row", "leads"]
    head += [f"weight {k}" for k in range(record.n_experts)]
    head += _prediction_names(record)
    head += [] if record.y is None else [f"observed {record.target}"]
    head += [record.columns[j].name for j in order]
    return (
        Prose((_entropy_words(record),)),
        Table(tuple(head), body, f"The most uncertain first, {rows(len(body))}", tall=True),
    )


def _entropy_words(record: MixtureRecord) -> str:
    if record.n_experts == 1:
        return "There is one expert, so the gate is never unsure: these rows have the least sure answers."
    largest = record.gate.max(1)
    split = int((largest < 0.6).sum())
    first = int(record.uncertain[0])
    lead = leading(record.gate[record.uncertain])
    often = int(np.bincount(lead, minlength=record.n_experts).argmax())
    return (
        f"In {split:,} of {rows(len(largest))} no expert has a weight of 0.6. The least sure is "
        f"{record.row_names[first]}, where the largest weight is {largest[first]:.2f}. The rows are in order "
        f"of the gate's entropy; among them {experts([often])} leads most often."
    )


def _prediction_names(record: MixtureRecord) -> list[str]:
    if record.classes:
        return ["predicted", *(f"P({name})" for name in record.classes[:MAX_CLASSES])]
    return [f"predicted {target(record)}", *(["90 % interval"] if record.intervals is not None else [])]


def _row(record: MixtureRecord, i: int, order: list[int]) -> Row:
    k = int(record.gate[i].argmax())
    cells: list[Cell] = [
        Cell(record.row_names[i]),
        Cell(f"expert {k}", colour=expert_colour(k)),
        *(Cell(float(weight), 2, bar=expert_colour(e)) for e, weight in enumerate(record.gate[i])),
    ]
    if record.classes:
        chosen = int(record.prediction[i].argmax())
        cells.append(Cell(record.classes[chosen]))
        cells += [Cell(float(p), 2) for p in record.prediction[i][:MAX_CLASSES]]
    else:
        cells.append(Cell(float(record.prediction[i])))
        if record.intervals is not None:
            low, high = record.intervals[i]
            cells.append(Cell(f"{format_value(float(low))} to {format_value(float(high))}"))
    if record.y is not None:
        y = float(record.y[i])
        cells.append(Cell(record.classes[int(y)]) if record.classes else Cell(y))
    texts = [value_text(record.columns[j], float(record.columns[j].values[i])) for j in order]
    cells += [Cell(short(text, MAX_LETTERS)) for text in texts]
    return tuple(cells)
