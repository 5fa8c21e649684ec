"""Words of a mixture's page: names, units, lists, shares, and how the values of an input stand on an axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise import _optional
from expertise.report.figures import MAX_NAME, brief
from expertise.report.page import format_value
from expertise.report.record import Column, MixtureRecord

Floats = npt.NDArray[np.float64]
DAY = 86400.0
MAX_LEVELS = 24  # rows of a figure
MAX_TICKS = 12  # names of levels beside an axis
SURE = 0.8  # the gate is sure where its largest weight is at least so large


def listing(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    >>> listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def experts(numbers: Sequence[int]) -> str:
    """Name some experts: "expert 2", "experts 0 and 2"."""
    many = "s" if len(numbers) > 1 else ""
    return f"expert{many} {listing([str(int(one)) for one in numbers])}"


def percent(share: float) -> str:
    """Give a share as a reader wants it; a small one is not called nothing.

    >>> percent(0.4561), percent(0.002), percent(0.0), percent(0.998)
    ('46 %', 'under 1 %', '0 %', 'over 99 %')
    """
    if 0 < share < 0.005:
        return "under 1 %"
    return "over 99 %" if 0.995 < share < 1 else f"{100 * share:.0f} %"


def capital(text: str) -> str:
    """Give the text with its first letter large, the rest as it is."""
    return text[:1].upper() + text[1:]


def target(record: MixtureRecord) -> str:
    """Name the target with its unit."""
    return f"{record.target} ({record.target_unit})" if record.target_unit else record.target


def three(value: float) -> str:
    """Give three digits of a number, as a title wants it.

    >>> three(1234567.0), three(0.12345), three(25.68), three(-4.0)
    ('1,230,000', '0.123', '25.7', '-4')
    """
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


def digits(value: float) -> int | None:
    """Decimals of an error in a table: three of a small one, as many as needed of a large one."""
    return 3 if abs(value) < 100 else None


def most_frequent(column: Column, at: Floats) -> npt.NDArray[np.intp]:
    """Places of the levels that most rows have, at most `MAX_LEVELS`, in their order."""
    counts = np.array([(column.values == level).sum() for level in at])
    return np.sort(np.argsort(-counts, kind="stable")[:MAX_LEVELS])


def levels_note(column: Column, at: Floats) -> str:
    """Say how the means were taken, and that levels were left out."""
    few = f" The {MAX_LEVELS} most frequent of {len(at)} levels." if len(at) > MAX_LEVELS else ""
    return f"Mean over rows in which {column.name} alone is set to each value.{few}"


def unit(record: MixtureRecord) -> str:
    """Say in what the target is measured: its unit, or else its name."""
    return record.target_unit or record.target


def rows(count: int) -> str:
    """Count rows: "1 row", "1,200 rows"."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def leading(gate: Floats) -> npt.NDArray[np.intp]:
    """Give the expert with the largest weight; of equal ones the first."""
    return np.asarray(gate.argmax(axis=-1), dtype=np.intp)


def gate_is_constant(record: MixtureRecord) -> bool:
    """Whether the gate trusts every expert the same for every row."""
    return bool(np.ptp(record.gate, axis=0).max() < 1e-12)


@dataclass(frozen=True)
class Scale:
    """How the values of an input stand on an axis and in words; ``levels`` are the codes that it shows."""

    column: Column
    levels: tuple[float, ...] = ()

    @classmethod
    def of(cls, column: Column, at: Floats) -> "Scale":
        """Give the scale that shows these values of the column."""
        named = column.kind in ("category", "boolean")
        return cls(column, tuple(at.tolist()) if named else ())

    def place(self, values: Floats) -> Floats:
        """Where values are on the axis: dates in days, levels by their turn, NaN where they have no place."""
        if self.levels:
            turn = {level: float(place) for place, level in enumerate(self.levels)}
            return np.array([turn.get(value, np.nan) for value in values.tolist()])
        return values / DAY if self.column.kind == "date" else np.asarray(values, dtype=np.float64)

    def text(self, value: float) -> str:
        """Say a value in words."""
        return value_text(self.column, value)

    def dress(self, axes: Any, which: str) -> None:
        """Put names of levels or dates on the ticks of the axis "x" or "y"."""
        axis = axes.xaxis if which == "x" else axes.yaxis
        if self.levels:
            step = -(-len(self.levels) // MAX_TICKS)
            names = brief([self.text(level) for level in self.levels], MAX_NAME)[::step]
            crowded = which == "x" and sum(map(len, names)) > 40
            axis.set_ticks(np.arange(len(self.levels))[::step], names, **_slanted(crowded))
            axis.grid(visible=False)
        elif self.column.kind == "date":
            dates = _optional.require("matplotlib.dates", "report")
            locator = dates.AutoDateLocator(minticks=3, maxticks=6)
            axis.set_major_locator(locator)
            axis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _slanted(crowded: bool) -> dict[str, Any]:
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if crowded else {}


def value_text(column: Column, value: float) -> str:
    """Say a value of a column in words: a level by its name, a date as such."""
    if np.isnan(value):
        return "missing"
    if column.kind == "category":
        code = int(value)
        return column.levels[code] if 0 <= code < len(column.levels) else f"level {code}"
    if column.kind == "boolean":
        return "yes" if value else "no"
    if column.kind == "date":
        return date_text(value)
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1e4 else format_value(float(value))


def date_text(seconds: float) -> str:
    """Give a time as a date, with the time of day where it is not midnight.

    >>> date_text(0.0), date_text(90061.0)
    ('1970-01-01', '1970-01-02 01:01')
    """
    moment = np.datetime64(round(seconds), "s")
    return str(moment)[:10] if seconds % DAY == 0 else str(moment)[:16].replace("T", " ")


def own_error(record: MixtureRecord) -> tuple[str, float] | None:
    """Name and value of the mixture's error on the page's rows; None without y."""
    if record.y is None:
        return None
    if record.classes:
        return "share of wrong answers", float((record.prediction.argmax(1) != record.y).mean())
    return "RMSE", float(np.sqrt(np.mean((record.prediction - record.y) ** 2)))
