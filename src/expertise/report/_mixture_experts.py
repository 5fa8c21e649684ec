"""The section on the experts: their size, what each answers, and whether each is good where it leads."""

import math

import numpy as np
import numpy.typing as npt

from expertise.report import figures
from expertise.report._colours import expert_colour, expert_line, expert_mark
from expertise.report._mixture_drawing import finite_range
from expertise.report._mixture_words import (
    Scale,
    digits,
    leading,
    levels_note,
    listing,
    most_frequent,
    rows,
    target,
    three,
    unit,
    value_text,
)
from expertise.report.page import Block, Cell, Figure, Prose, Row, Table
from expertise.report.record import Column, MixtureRecord, Profile

Floats = npt.NDArray[np.float64]
MAX_PROFILES = 3
LEAST = 1e-15  # probability at which a logarithm is cut


def section(record: MixtureRecord) -> tuple[Block, ...]:
    """Size and answers, the matrix of specialisation, answers along the inputs."""
    blocks: list[Block] = [_sizes(record)]
    if record.y is not None:
        blocks += _specialisation(record, record.y)
    else:
        blocks.append(Prose(("The rows have no target, so the page cannot say how good each expert is.",)))
    if record.classes:
        blocks.append(_classes(record))
    return (*blocks, *responses(record))


# ---- size


def row_errors(record: MixtureRecord, y: Floats) -> Floats:
    """Error of each expert on each row (n, K): squared error, or 1 where the answer is wrong."""
    if record.classes:
        return np.asarray(record.experts.argmax(2) != y[:, None], dtype=np.float64)
    return np.asarray((record.experts - y[:, None]) ** 2)


def pooled(record: MixtureRecord, errors: Floats) -> float:
    """Errors of rows as one number: RMSE, or the share of wrong answers."""
    if not len(errors):
        return math.nan
    return float(errors.mean() if record.classes else np.sqrt(errors.mean()))


def _error_name(record: MixtureRecord) -> str:
    return "wrong answers" if record.classes else "RMSE"


def _sizes(record: MixtureRecord) -> Table:
    lead = leading(record.gate)
    error = None if record.y is None else row_errors(record, record.y)
    columns = ["expert", "rows it leads", "share of rows", "mean weight"]
    columns += [] if record.classes else ["mean answer, own rows"]
    columns += [] if error is None else [f"{_error_name(record)}, {which} rows" for which in ("own", "all")]
    body: list[Row] = []
    for k in range(record.n_experts):
        own = lead == k
        colour = expert_colour(k)
        cells = [
            Cell(f"expert {k}", colour=colour),
            Cell(int(own.sum())),
            Cell(float(own.mean()), 2, bar=colour),
            Cell(float(record.gate[:, k].mean()), 2, bar=colour),
        ]
        if not record.classes:
            cells.append(Cell(float(record.experts[own, k].mean()) if own.any() else math.nan))
        if error is not None:
            both = (pooled(record, error[own, k]), pooled(record, error[:, k]))
            cells += [Cell(value, digits(value)) for value in both]
        body.append(tuple(cells))
    return Table(tuple(columns), tuple(body), "The experts; own rows are those that an expert leads")


# ---- specialisation


def matrix(values: Floats, lead: npt.NDArray[np.intp]) -> Floats:
    """Mean of values (n, K) of each expert over the rows of each regime, (K, K); NaN where it has no rows."""
    k = values.shape[1]
    found = np.full((k, k), np.nan)
    for regime in range(k):
        if (lead == regime).any():
            found[:, regime] = values[lead == regime].mean(0)
    return found


def ratio(found: Floats, lead: npt.NDArray[np.intp]) -> float:
    """Error of experts at home over the mean of the others there, under 1 where they are specialists.

    ``found`` is the `matrix` of errors. A regime counts by its rows, so that one of a few rows cannot decide.
    """
    k = len(found)
    count = np.bincount(lead, minlength=k)
    home = np.diag(np.nan_to_num(found))
    away = (np.nan_to_num(found).sum(0) - home) / (k - 1)
    return float(count @ home / (count @ away)) if count @ away > 0 else math.nan


def _specialisation(record: MixtureRecord, y: Floats) -> list[Block]:
    if record.n_experts == 1:
        return []
    lead = leading(record.gate)
    errors = matrix(row_errors(record, y), lead)
    errors = errors if record.classes else np.sqrt(errors)
    blocks: list[Block] = [Prose((_ratio_words(errors, lead),))]
    name = "Share of wrong answers" if record.classes else f"RMSE ({unit(record)})"
    blocks.append(_matrix_table(record, errors, lead, name))
    if record.classes:
        chosen = record.experts[np.arange(len(y)), :, y.astype(int)]
        loss = matrix(-np.log(np.clip(chosen, LEAST, None)), lead)
        blocks.append(_matrix_table(record, loss, lead, "Log loss (nats a row)"))
    return blocks


def _ratio_words(errors: Floats, lead: npt.NDArray[np.intp]) -> str:
    best = [k for k in range(len(errors)) if np.isfinite(errors[k, k]) and errors[k, k] <= errors[:, k].min()]
    used = int(np.isfinite(errors[0]).sum())
    found = ratio(errors, lead)
    text = "The regime of an expert is the rows that it leads. "
    if used == 1:
        alone = int(np.isfinite(errors[0]).argmax())
        return text + f"Expert {alone} leads every row here: with one regime, no specialist can be seen."
    if math.isnan(found):
        return text + "The experts cannot be told apart by their errors."
    text += (
        f"At home the experts' error is {found:.2f} times that of the others in the same rows (the diagonal "
        "over the rest of its column, columns weighted by their rows). "
    )
    if not best:
        text += "No expert is the best of its own regime"
    else:
        verb = "is" if len(best) == 1 else "are"
        own = "its own regime" if len(best) == 1 else "their own regimes"
        text += f"{len(best)} of {used} experts that lead somewhere {verb} the best of {own}"
    if found < 0.5:
        return text + ": they are specialists."
    return text + (
        ": they specialise a little." if found < 0.9 else ": by their errors they are not specialists."
    )


def _matrix_table(record: MixtureRecord, found: Floats, lead: npt.NDArray[np.intp], name: str) -> Table:
    largest = float(np.nanmax(found)) if np.isfinite(found).any() else 0.0
    best = np.nanmin(np.where(np.isfinite(found), found, np.inf), axis=0)
    counts = np.bincount(lead, minlength=record.n_experts)
    body: list[Row] = []
    for k in range(record.n_experts):
        cells = [
            Cell(
                float(value),
                digits(value),
                bar=expert_colour(k),
                strong=bool(value == best[regime]),
                length=float(value / largest) if largest > 0 else 0.0,
            )
            for regime, value in enumerate(found[k])
        ]
        body.append((Cell(f"expert {k}", colour=expert_colour(k)), *cells))
    head = ("", *(f"regime {r} ({rows(int(count))})" for r, count in enumerate(counts)))
    caption = f"{name} of each expert (down) in each regime (across). Bold: the best there."
    return Table(head, tuple(body), caption)


def _classes(record: MixtureRecord) -> Table:
    """What each expert answers: mean probability of the classes, rows counted as far as it is trusted."""
    weight = record.gate / np.maximum(record.gate.sum(0), LEAST)
    mean = np.einsum("nk,nkv->kv", weight, record.experts)
    body: tuple[Row, ...] = tuple(
        (
            Cell(f"expert {k}", colour=expert_colour(k)),
            *(Cell(float(share), 2, bar=expert_colour(k)) for share in mean[k]),
        )
        for k in range(record.n_experts)
    )
    caption = "Mean probability of each class, by expert; a row counts as far as the gate trusts the expert"
    return Table(("", *record.classes), body, caption)


# ---- answers along the inputs


def responses(record: MixtureRecord) -> list[Figure]:
    """The experts' answers along the inputs that move them most."""
    known = [p for p in record.profiles if record.axis(p).expert_effect > 0 and len(p.at)]
    known.sort(key=lambda p: -record.axis(p).expert_effect)
    return [_response(record, p) for p in known[:MAX_PROFILES]]


def _response(record: MixtureRecord, found: Profile) -> Figure:
    column = record.axis(found)
    experts, mixture, label = found.experts, found.prediction, f"mean {target(record)}"
    if record.classes:
        v = 1 if len(record.classes) == 2 else int(np.ptp(found.experts, axis=0).max(0).argmax())
        experts, mixture = experts[:, :, v], mixture[:, v]
        label = f"mean P({record.classes[v]})"
    note = levels_note(column, found.at if column.kind in ("category", "boolean") else found.at[:0])
    if record.classes and len(record.classes) > 2:
        note += " The class is the one whose probability changes most."
    title = response_title(column, found.at, experts, label if record.classes else unit(record))
    if column.kind in ("category", "boolean"):
        kept = most_frequent(column, found.at)
        series = [
            figures.Dots(f"expert {k}", experts[kept, k], expert_colour(k), expert_mark(k))
            for k in range(record.n_experts)
        ]
        return figures.dots(
            title,
            [value_text(column, value) for value in found.at[kept].tolist()],
            [*series, figures.Dots("mixture", mixture[kept], "ink", "tick")],
            row_label=column.name,
            x_label=label,
            x_limits=finite_range(np.concatenate([experts[kept].ravel(), mixture[kept]])),
            row_height=max(20.0, 6.0 * record.n_experts),
            note=note,
        )
    scale = Scale.of(column, found.at)
    there = np.isfinite(found.at)
    places = scale.place(found.at[there])
    words = dict(zip(places.tolist(), found.at[there].tolist(), strict=True))
    drawn = [
        figures.Line(f"expert {k}", places, experts[there, k], expert_colour(k), expert_line(k))
        for k in range(record.n_experts)
    ]
    return figures.lines(
        title,
        [*drawn, figures.Line("mixture", places, mixture[there], "ink", "dotted")],
        x_label=column.name,
        y_label=label,
        note=note,
        dress=lambda axes: scale.dress(axes, "x"),
        x_text=lambda place: value_text(column, words[float(place)]),
    )


def response_title(column: Column, at: Floats, experts: Floats, what: str) -> str:
    """Say where the experts' answers are furthest apart, and what they are there; ``what`` names them."""
    spread = np.ptp(experts, axis=1)
    i = int(spread.argmax())
    where = f"{column.name} {value_text(column, float(at[i]))}"
    if experts.shape[1] == 1:
        ends = f"from {three(float(experts.min()))} to {three(float(experts.max()))}"
        return f"Along {column.name} the answer goes {ends} ({what})"
    if spread[i] < 1e-12:
        return f"Along {column.name} all experts give the same answers ({what})"
    k = [int(experts[i].argmax()), int(experts[i].argmin())]
    said = listing([f"expert {e} says {three(float(experts[i, e]))}" for e in k])
    return f"The experts differ most at {where}: {said} ({what})"
