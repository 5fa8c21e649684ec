"""Finding out what the columns of a table hold: kinds, levels, dates; and which columns to leave out."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise._optional import require
from expertise.table import values
from expertise.table.columns import DAY, MISSING, OTHER, WEEK, YEAR, Column, Encoder
from expertise.table.values import Floats

MOST_LEVELS = 30  # of a category; rarer ones are taken together
FEWEST = 5  # rows that a level needs for a feature of its own, in a column with rarer levels
ID_LIKE = 0.5  # share of rows with a value of their own from which text is no category
ALMOST = 0.9  # share of numbers from which a text that is none is a mistake, not a category
_ID_NAME = re.compile(r"(^|[_ .-])(id|index|idx|key|uuid|rownames?|row)$|^unnamed", re.IGNORECASE)


@dataclass(frozen=True)
class Wishes:
    """What the user says of columns: names to take as categories, to keep although id-like, to drop.

    missing : further marks of a missing value. day_first : 3/4/2025 is in April.
    """

    categories: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    day_first: bool = False


def find(table: Any, names: Sequence[str], wishes: Wishes, *, source: str) -> tuple[Encoder, Floats]:
    """Learn the columns of inputs from a table, and give their values (n, columns).

    Raises
    ------
    ValueError : a column of a type that no kind fits, text among numbers, or no column that is of use.
    """
    columns: list[Column] = []
    found: list[Floats] = []
    left_out: dict[str, str] = dict.fromkeys(wishes.drop, "dropped, as --drop says")
    for name in names:
        if name in left_out:
            continue
        column = _find(name, table[name], wishes, source)
        if isinstance(column, str):
            left_out[name] = column
            continue
        columns.append(column)
        found.append(column.read(table[name], wishes.missing)[0])
    if not columns:
        why = "; ".join(f"{name} is {reason}" for name, reason in left_out.items()) or "there are none"
        raise ValueError(f"{source} has no column of inputs that is of use: {why}")
    return Encoder(tuple(columns), left_out), np.stack(found, axis=1)


def read_order(
    name: str, array: Any, wishes: Wishes, rows: npt.NDArray[np.intp], *, source: str
) -> tuple[Column, Floats]:
    """Give the moment of each row, a number or a date (n,), and the column that can write it.

    Raises
    ------
    ValueError : neither numbers nor dates; one of ``rows``, those that have a target, without one.
    """
    kind, form = _kind(name, array, wishes, source)
    if kind not in ("number", "date"):
        first = next((f", as {one!r}" for one in values.texts(array, wishes.missing) if one is not None), "")
        raise ValueError(
            f"--order={name} holds a {kind}{first}; rows are put in order by numbers or dates, and dates are "
            f"read as {', '.join(values.EXAMPLES)}"
        )
    column = Column(name, kind, 0.0, 0.0, 0.0, form=form)
    moments = column.read(array, wishes.missing)[0]
    gone = rows[np.isnan(moments[rows])]
    if len(gone):
        raise ValueError(
            f"{source}, row {gone[0]}, column {name!r}: it is missing, and so is the place of the row in the "
            "order; rows count from 0; give each row one, or leave --order out"
        )
    whole = bool((moments[rows] % (DAY if kind == "date" else 1) == 0).all())
    return replace(column, whole=whole), moments


def _find(name: str, array: Any, wishes: Wishes, source: str) -> Column | str:
    """Learn one column; or say why it is left out."""
    kind, form = _kind(name, array, wishes, source)
    if kind == "category":
        return _category(name, array, wishes)
    x = Column(name, kind, 0.0, 0.0, 0.0, form=form).read(array, wishes.missing)[0]
    there = x[~np.isnan(x)]
    if not len(there):
        return "empty"
    if len(there) == len(x) and (there == there[0]).all():
        return "constant"
    whole = bool((there % (DAY if kind == "date" else 1) == 0).all())
    if kind == "number" and (large := values.too_large(x)):
        raise ValueError(
            f"{source}, row {large.row}, column {name!r}: {large.value} is too large; numbers up to "
            f"{values.LARGEST:g} are fitted; rows count from 0; correct it, or use another unit"
        )
    if kind == "number" and name not in wishes.keep and _counts_rows(name, x, whole):
        return f"id-like (a different whole number in each row; --keep={name} takes it)"
    waves = _waves(there) if kind == "date" else ()
    missing = len(there) < len(x)
    low, high = float(there.min()), float(there.max())
    column = Column(name, kind, 0.0, low, high, whole, (), missing, waves, form=form)
    return replace(column, fill=column.usual(there))


def _kind(name: str, array: Any, wishes: Wishes, source: str) -> tuple[Any, str]:
    """Give the kind of a column, and how its dates are written."""
    types = require("pyarrow.types", "table")
    if name in wishes.categories:
        return "category", ""
    kind = array.type
    if values.is_text(array):
        return _kind_of_text(name, array, wishes, source)
    if types.is_dictionary(kind):
        return "category", ""  # who made it one has said so
    if types.is_boolean(kind):
        return "boolean", ""
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        wrong = values.numbers(array)[1]
        if wrong:
            raise ValueError(
                f"{source}, row {wrong.row}, column {name!r}: {wrong.value} is not finite; correct it"
            )
        return "number", ""
    if types.is_date(kind) or types.is_timestamp(kind):
        return "date", ""
    if types.is_null(kind):
        return "number", ""  # of which there are none
    raise ValueError(
        f"{source}, column {name!r} holds {kind}; known are numbers, text, booleans and dates; leave it out "
        f"with --drop={name}"
    )


def _kind_of_text(name: str, array: Any, wishes: Wishes, source: str) -> tuple[str, str]:
    found, wrong = values.numbers(array, wishes.missing)
    text = values.texts(array, wishes.missing)
    there = np.array([one is not None for one in text])
    if wrong is None or not there.any():
        return "number", "," if values.decimal_commas(array, wishes.missing) else ""
    if {one.lower() for one in text[there]} <= {*values.TRUE, *values.FALSE}:
        return "boolean", ""
    forms = values.DAY_FIRST if wishes.day_first else values.DATES
    for form in forms:
        if values.dates(array, form, wishes.missing)[1] is None:
            return "date", form
    good = int((~np.isnan(found)).sum())
    if good >= ALMOST * there.sum() and there.sum() - good <= good:
        raise ValueError(
            f"{source}, row {wrong.row}, column {name!r}: {wrong.value!r} is not a number, but {good:,} of "
            f"{int(there.sum()):,} values are; rows count from 0; correct it, or use --missing={wrong.value} "
            f"so that it counts as missing, or --categories={name} where numbers are names"
            f"{values.hint_of(wrong.value)}"
        )
    return "category", ""


def _category(name: str, array: Any, wishes: Wishes) -> Column | str:
    text = values.texts(array, wishes.missing)
    count = Counter(one for one in text if one is not None)
    missing = len(text) - sum(count.values())
    if not count:
        return "empty"
    if len(count) == 1 and not missing:
        return "constant"
    if len(count) > max(MOST_LEVELS, ID_LIKE * len(text)) and name not in wishes.keep:
        dressed = sum(bool(values.plain_number(level)) for level in count) >= ALMOST * len(count)
        hint = values.hint_of(next(filter(values.plain_number, count))) if dressed else ""
        return (
            f"id-like ({len(count):,} different values in {len(text):,} rows; --keep={name} takes it{hint})"
        )
    ranked = sorted(count, key=lambda level: (-count[level], level))
    levels = [level for level in ranked[:MOST_LEVELS] if count[level] >= FEWEST] or ranked[:MOST_LEVELS]
    if len(ranked) - len(levels) == 1 and len(ranked) <= MOST_LEVELS:
        levels = ranked  # one rare level needs no other name
    more = ([OTHER] if len(levels) < len(ranked) else []) + ([MISSING] if missing else [])
    every = (*levels, *more)
    return Column(name, "category", 0.0, 0.0, float(len(every) - 1), True, every, bool(missing))


def _counts_rows(name: str, x: Floats, whole: bool) -> bool:
    """Whether a column only numbers the rows: whole numbers, each once, without gaps or called an id."""
    if not whole or np.isnan(x).any() or len(x) < 20 or len(np.unique(x)) < len(x):
        return False
    return bool(x.max() - x.min() == len(x) - 1) or _ID_NAME.search(name) is not None


def _waves(x: Floats) -> tuple[float, ...]:
    """Give the periods in which dates can vary: a year, a week, a day, as far as the dates cover them."""
    span, days = float(np.ptp(x)), np.unique(x // DAY)
    found = [YEAR] if span > YEAR / 2 else []
    if span > 2 * WEEK and len(np.unique(days % 7)) >= 5:
        found.append(WEEK)
    if span > 2 * DAY and len(np.unique(x % DAY)) >= 5:
        found.append(DAY)
    return tuple(found)
