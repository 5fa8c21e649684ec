"""A column of inputs as the fit saw it, and the features that it becomes: what `predict` must find again.

Letters: n rows, f features of a column. Values are floats throughout: a number; the code of a category's
level; 0 or 1 of a boolean; seconds since 1970-01-01 UTC of a date; NaN where missing.
"""

from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from expertise.table import values
from expertise.table.values import Floats, Wrong

Kind = Literal["number", "category", "boolean", "date"]
KINDS: tuple[Kind, ...] = ("number", "category", "boolean", "date")
YEAR, WEEK, DAY = 31_556_952.0, 604_800.0, 86_400.0  # seconds; the mean year of the Gregorian calendar
MISSING, OTHER = "(missing)", "(other)"  # levels of a category that no value has


@dataclass(frozen=True)
class Column:
    """What was learned of one column of inputs.

    Parameters
    ----------
    name, kind : of the column.
    fill : what stands for a missing value: median, most frequent level or boolean.
    low, high : smallest and largest value seen.
    whole : all numbers were whole; all dates were days, without a time.
    levels : of a category, most frequent first; `MISSING` and `OTHER` are levels where the fit needed them.
    marks_missing : the fit saw missing values, so a feature says where.
    waves : of a date, the periods in seconds in which it can vary.
    form : how text is written: of a date its form; of a number "," where commas are decimal; or "".
    """

    name: str
    kind: Kind
    fill: float
    low: float
    high: float
    whole: bool = False
    levels: tuple[str, ...] = ()
    marks_missing: bool = False
    waves: tuple[float, ...] = ()
    form: str = ""

    # -- from a table to values

    def read(self, array: Any, missing: tuple[str, ...] = ()) -> tuple[Floats, Wrong | None]:
        """Give the values of a column of a table, and the first one that is not of this kind: (n,)."""
        if self.kind == "number":
            return values.numbers(array, missing, commas=self.form == ",")
        if self.kind == "boolean":
            return values.booleans(array, missing)
        if self.kind == "date":
            return values.dates(array, self.form, missing)
        text = values.texts(array, missing)
        code = {level: float(i) for i, level in enumerate(self.levels)}
        other = code.get(OTHER, np.inf)
        code_of_missing = code.get(MISSING, np.nan)
        found = np.array([code_of_missing if one is None else code.get(one, other) for one in text], float)
        bad = np.flatnonzero(np.isinf(found))
        return found, Wrong(int(bad[0]), str(text[bad[0]])) if len(bad) else None

    def text(self, value: float) -> str:
        """Write a value as people do."""
        if np.isnan(value):
            return "missing"
        if self.kind == "category":
            return self.levels[int(value)]
        if self.kind == "boolean":
            return "yes" if value else "no"
        if self.kind == "date":
            stamp = np.datetime64(round(value), "s")
            return str(stamp.astype("datetime64[D]") if self.whole else stamp)
        # six digits of a whole number (a day as 20240131, a count) may not be all of it
        large = 1e6 <= abs(value) < 1e15
        return f"{value:.0f}" if large or (value == round(value) and abs(value) < 1e15) else f"{value:.6g}"

    def refilled(self, x: Floats) -> "Column":
        """Learn anew, from values (n,), what stands for a missing one."""
        there = x[~np.isnan(x)]
        if self.kind == "category" or not len(there):
            return self
        return replace(self, fill=self.usual(there))

    def usual(self, there: Floats) -> float:
        """Give what stands for a missing value, from those that are there (n,); of whole days a whole day."""
        if self.kind == "boolean":
            return float(np.round(there.mean()))
        middle = float(np.median(there))
        return middle // DAY * DAY if self.kind == "date" and self.whole else middle

    def widened(self, x: Floats) -> "Column":
        """Let the range reach over further values (n,)."""
        if np.isnan(x).all():
            return self
        return replace(self, low=min(self.low, float(np.nanmin(x))), high=max(self.high, float(np.nanmax(x))))

    def narrowed(self, x: Floats) -> "Column":
        """Let the range be that of values (n,) alone."""
        if np.isnan(x).all():
            return self
        return replace(self, low=float(np.nanmin(x)), high=float(np.nanmax(x)))

    # -- from values to features

    def features(self) -> list[dict[str, Any]]:
        """Describe the features of this column, in order; the page computes with the same descriptions."""
        if self.kind == "category":  # the most frequent level is the reference
            return [{"kind": "level", "level": code} for code in range(1, len(self.levels))]
        if self.kind == "date":
            found: list[dict[str, Any]] = [{"kind": "year", "fill": self.fill}]
            for period in self.waves:
                for phase in ("sin", "cos"):
                    found.append({"kind": "wave", "period": period, "phase": phase, "fill": self.fill})
        else:
            found = [{"kind": "value", "fill": self.fill}]
        return [*found, {"kind": "missing"}] if self.marks_missing else found

    def names(self) -> list[str]:
        """Name the features."""
        periods = {YEAR: "year", WEEK: "week", DAY: "day"}
        found = []
        for feature in self.features():
            kind = feature["kind"]
            if kind == "level":
                found.append(f"{self.name}={self.levels[feature['level']]}")
            elif kind == "wave":
                found.append(f"{self.name}: {feature['phase']} of the {periods[feature['period']]}")
            else:
                found.append(
                    {"value": self.name, "missing": f"{self.name} missing"}.get(kind, f"{self.name}: year")
                )
        return found

    def encode(self, x: Floats) -> Floats:
        """Give the features of values (n,): (n, f)."""
        columns = [np.asarray(_feature(one, x), dtype=float) for one in self.features()]
        return np.stack(columns, axis=1) if columns else np.empty((len(x), 0))

    # -- as plain data

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Column":
        """Make a column again from `as_dict`."""
        return cls(**{**fields, "levels": tuple(fields["levels"]), "waves": tuple(fields["waves"])})


def _feature(feature: dict[str, Any], x: Floats) -> Any:
    kind = feature["kind"]
    if kind == "missing":
        return np.isnan(x)
    if kind == "level":
        return x == feature["level"]
    filled = np.where(np.isnan(x), feature["fill"], x)
    if kind == "year":
        return 1970 + filled / YEAR
    if kind == "wave":
        turn = 2 * np.pi * filled / feature["period"]
        return np.sin(turn) if feature["phase"] == "sin" else np.cos(turn)
    return filled


@dataclass(frozen=True)
class Encoder:
    """All columns of inputs: from a table to values (n, columns), and from values to X (n, d).

    left_out : columns that the fit did not take, each with the reason.
    """

    columns: tuple[Column, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the columns of X."""
        return [name for column in self.columns for name in column.names()]

    @property
    def blocks(self) -> list[list[int]]:
        """Which columns of X belong to each column of the table."""
        ends = np.cumsum([0, *(len(column.features()) for column in self.columns)])
        return [list(range(a, b)) for a, b in pairwise(ends)]

    def number(self, name: str) -> int:
        """Give the number of a column by its name."""
        return [column.name for column in self.columns].index(name)

    def refilled(self, found: Floats) -> "Encoder":
        """Learn anew, from the values of fitted rows alone, what stands for a missing value."""
        columns = tuple(column.refilled(found[:, j]) for j, column in enumerate(self.columns))
        return Encoder(columns, self.left_out)

    def widened(self, found: Floats) -> "Encoder":
        """Let the ranges reach over further values (n, columns)."""
        columns = tuple(column.widened(found[:, j]) for j, column in enumerate(self.columns))
        return Encoder(columns, self.left_out)

    def narrowed(self, found: Floats) -> "Encoder":
        """Let the ranges be those of values (n, columns) alone; categories keep all their levels."""
        pairs = zip(self.columns, found.T, strict=True)
        columns = (column if column.kind == "category" else column.narrowed(x) for column, x in pairs)
        return Encoder(tuple(columns), self.left_out)

    def encode(self, found: Floats) -> Floats:
        """Give X (n, d) of values (n, columns)."""
        return np.hstack([column.encode(found[:, j]) for j, column in enumerate(self.columns)])

    def read(
        self, table: Any, *, source: str, missing: tuple[str, ...] = (), new: str = "error", first: int = 0
    ) -> Floats:
        """Read the values of a table (n, columns), checking names and kinds.

        Parameters
        ----------
        source : what to call the table in an error; ``first`` is the number of its first row.
        new : what to do with a category that the fit never saw: "error", or "missing".

        Raises
        ------
        ValueError : a column that is not there; a value of another kind, with row and column; a new category.
        """
        lacking = [column.name for column in self.columns if column.name not in table.column_names]
        if lacking:
            raise ValueError(
                f"{source} lacks the column {', '.join(map(repr, lacking))}, which the fit had; "
                f"it has {', '.join(map(repr, table.column_names))}"
            )
        found = np.empty((table.num_rows, len(self.columns)))
        for j, column in enumerate(self.columns):
            array = table[column.name]
            if not values.can_hold(array, column.kind):
                raise ValueError(
                    f"{source}, column {column.name!r} holds {array.type}, but a {column.kind} at the fit; "
                    "convert it"
                )
            found[:, j], wrong = column.read(array, missing)
            if wrong is not None and column.kind == "category" and new == "missing":
                code = column.levels.index(MISSING) if MISSING in column.levels else np.nan
                found[np.isinf(found[:, j]), j] = code
            elif wrong is not None:
                raise ValueError(_complaint(source, column, wrong, first))
        return found


def _complaint(source: str, column: Column, wrong: Wrong, first: int) -> str:
    where = f"{source}, row {first + wrong.row}, column {column.name!r}: {wrong.value!r}"
    if column.kind == "category":
        known = ", ".join(map(repr, column.levels[:12])) + (", ..." if len(column.levels) > 12 else "")
        return (
            f"{where} is a category that the fit never saw; known are {known}; correct it, or use "
            "--new-categories=missing to take such values as missing"
        )
    what = {"number": "a finite number", "boolean": "true or false", "date": "a date"}[column.kind]
    written = f" written as {column.form}" if column.form and column.kind == "date" else ""
    return (
        f"{where} is not {what}{written}, as this column was at the fit; rows count from 0; correct it, or "
        f"use --missing={wrong.value} so that it counts as missing"
    )
