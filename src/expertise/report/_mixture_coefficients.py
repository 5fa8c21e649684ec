"""The section on coefficients, side by side, with their standard errors."""

import numpy as np
import numpy.typing as npt

from expertise.report._colours import expert_colour
from expertise.report._mixture_drawing import error_dots
from expertise.report._mixture_words import capital, experts, listing
from expertise.report.page import Block, Cell, Figure, Prose, Row, Table, format_value
from expertise.report.record import Coefficients, MixtureRecord

Floats = npt.NDArray[np.float64]
MAX_ROWS = 14  # of a figure: the inputs on which the experts differ most
CLEAR = 2.0  # standard errors from 0 that count as clear


def section(record: MixtureRecord) -> tuple[Block, ...]:
    """A figure and a table for each part."""
    if not record.coefficients:
        return (Prose(("The parts of this mixture have no coefficients (trees, constants, or the like).",)),)
    blocks: list[Block] = []
    for one in record.coefficients:
        slopes = np.flatnonzero([name != "intercept" for name in one.names])
        if np.nanmax(np.abs(one.values[slopes]), initial=0) > 0:
            blocks.append(_figure(one, slopes))
        blocks.append(_table(one))
        if (missing := _missing(one)) is not None:
            blocks.append(Prose((missing,)))
    return tuple(blocks)


def estimated(one: Coefficients) -> npt.NDArray[np.intp]:
    """Experts that have coefficients: the one that a gate compares the others with has only zeros."""
    return np.flatnonzero(np.nan_to_num(one.values).any(axis=0))


def clear(one: Coefficients) -> npt.NDArray[np.bool_]:
    """Whether a coefficient is more than `CLEAR` standard errors from 0; never without a standard error."""
    return np.asarray(np.abs(one.values) > CLEAR * np.where(np.isfinite(one.errors), one.errors, np.inf))


def title(one: Coefficients, rows: npt.NDArray[np.intp]) -> str:
    """Say on how many inputs the experts clearly contradict one another, or what is clear at all."""
    there = np.ix_(rows, estimated(one))
    sure, values = clear(one)[there], one.values[there]
    what = capital(one.what)
    if not np.isfinite(one.errors[there]).any():
        return f"{what}: {_signs(values)} (no standard errors)"
    up, down = (sure & (values > 0)).any(1), (sure & (values < 0)).any(1)
    against = [one.names[row] for row in rows[up & down]]
    if against:
        named = listing(against) if len(against) <= 3 else f"{len(against)} of {len(rows)} inputs"
        return f"{what}: coefficients of clearly opposite sign for {named}"
    return f"{what}: {int(sure.sum())} of {sure.size} coefficients are clearly not 0"


def _signs(values: Floats) -> str:
    if values.shape[1] == 1:
        return f"{int((values > 0).sum())} of {len(values)} coefficients are positive"
    differ = int(((values > 0).any(1) & (values < 0).any(1)).sum())
    return f"signs differ for {differ} of {len(values)} inputs"


def _figure(one: Coefficients, rows: npt.NDArray[np.intp]) -> Figure:
    scale = np.maximum(np.abs(one.values[rows]).max(1), 1e-300)
    shown = rows[np.sort(np.argsort(-np.ptp(one.values[rows], axis=1) / scale, kind="stable")[:MAX_ROWS])]
    shown = shown if one.values.shape[1] > 1 else rows[:MAX_ROWS]
    names = [one.names[row] for row in shown]
    said = title(one, rows)
    left = f" The {len(shown)} of {len(rows)} inputs that differ most." if len(shown) < len(rows) else ""
    body: tuple[Row, ...] = tuple(
        (name, *(Cell(_with_error(v, e)) for v, e in zip(one.values[row], one.errors[row], strict=True)))
        for name, row in zip(names, shown, strict=True)
    )
    head = ("input", *(f"expert {k}" for k in range(one.values.shape[1])))
    return error_dots(
        said,
        names,
        one.values[shown],
        one.errors[shown],
        x_label="coefficient, over the largest reach of its row",
        alt=f"{said}. A dot for each expert in {len(names)} rows (inputs), with bars of two standard errors.",
        table=Table(head, body, f"Coefficients (standard error), {one.what}"),
        note="Bars: two standard errors to each side. Each row has a scale of its own: compare within "
        f"rows. Clear means more than {CLEAR:.0f} standard errors from 0.{left}",
    )


def _with_error(value: float, error: float) -> str:
    spread = f" ({format_value(float(error))})" if np.isfinite(error) else ""
    return f"{format_value(float(value))}{spread}"


def _table(one: Coefficients) -> Table:
    k = one.values.shape[1]
    head = ("input", *(name for e in range(k) for name in (f"expert {e}", "std. error")))
    sure = clear(one)
    body: tuple[Row, ...] = tuple(
        (
            name,
            *(
                cell
                for e in range(k)
                for cell in (
                    Cell(_starred(value[e], sure[row, e]), colour=expert_colour(e)),
                    Cell(float(error[e])),
                )
            ),
        )
        for row, (name, value, error) in enumerate(zip(one.names, one.values, one.errors, strict=True))
    )
    caption = f"Coefficients, {one.what}. * clearly not 0."
    return Table(head, body, f"{caption} {capital(one.note)}".strip())


def _starred(value: float, is_clear: bool) -> str:
    return format_value(float(value)) + (" *" if is_clear else "")


def _missing(one: Coefficients) -> str | None:
    none = [int(k) for k in estimated(one) if not np.isfinite(one.errors[:, k]).any()]
    if len(none) == len(estimated(one)):
        return f"There are no standard errors for this part ({one.what}): the dots have no bars."
    some = int((~np.isfinite(one.errors)).sum())
    if none:
        return f"There are no standard errors for {experts(none)} ({one.what}); a dash stands in their place."
    if some:
        return f"{some} of {one.errors.size} coefficients have no standard error ({one.what}): see dashes."
    return None
