"""Figures of a page: each draws plain arrays as SVG, and brings its legend, its words and its data.

Colours are names of `expertise.report._colours`: the drawing refers to them as CSS variables, so that one
drawing serves light and dark. Drawings are narrow (`WIDTH`), so that their text is readable on a phone.
The same data give the same bytes.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.report import _colours
from expertise.report._svg import stand_in, svg_of
from expertise.report.page import MARKS, Cell, Figure, LegendEntry, Row, Table, format_value

MAX_POINTS = 200  # of one line: what is drawn is also listed
MAX_NAME = 18  # letters of a name beside an axis; the table has the whole

SYMBOL = {
    "circle": "o", "square": "s", "diamond": "D", "triangle": "^", "down": "v", "plus": "P", "cross": "X",
    "star": "*", "tick": "|",
}  # fmt: skip
_DASH: dict[str, Any] = {"line": "-", "dashed": (0, (5, 2.4)), "dotted": (0, (1.4, 1.8))}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One line of `lines`: ``x`` and ``y`` (n,), drawn in ``colour`` as "line", "dashed" or "dotted"."""

    name: str
    x: Sequence[float] | Floats
    y: Sequence[float] | Floats
    colour: str
    mark: str = "line"


@dataclass(frozen=True)
class Dots:
    """One series of `dots`: a value per row, drawn in ``colour`` as "circle", "square", ... or "tick"."""

    name: str
    values: Sequence[float] | Floats
    colour: str
    mark: str = "circle"


def lines(
    title: str,
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    legend: Sequence[LegendEntry] = (),
    note: str = "",
    wide: bool = False,
    dress: Callable[[Any], None] | None = None,
    x_text: Callable[[float], str] = format_value,
) -> Figure:
    """Lines over a common axis.

    Parameters
    ----------
    title : the finding, a sentence.
    series : the lines; points that are not finite are left out, and long lines are thinned to `MAX_POINTS`.
    x_label, y_label : what the axes show, with their units.
    legend : unless given, an entry for each line.
    dress : sets limits and ticks of the axes at the end.
    x_text : how a value of x is written in words and in the table.
    """
    thinned = [_thinned(line) for line in series]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for line, (x, y) in zip(series, thinned, strict=True):
            dense = len(x) > 25
            axes.plot(
                x,
                y,
                color=stand_in(line.colour),
                linestyle=_DASH[line.mark],
                linewidth=1.8,
                marker=None if dense else "o",
                markersize=3.6,
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0.02)
        if dress is not None:
            dress(axes)

    ends = [
        f"{line.name} from {format_value(y[0], 3)} at {x_text(x[0])} to {format_value(y[-1], 3)} "
        f"at {x_text(x[-1])}"
        for line, (x, y) in zip(series, thinned, strict=True)
        if len(y)
    ]
    return figure_of(
        title,
        draw,
        height=235,
        alt=f"{title}. Lines of {y_label} over {x_label}: {'; '.join(ends) or 'no points'}.",
        table=_table_of_lines(series, thinned, x_label, y_label, x_text),
        legend=tuple(legend) or tuple(LegendEntry(line.name, line.colour, line.mark) for line in series),
        note=note,
        wide=wide,
    )


def dots(
    title: str,
    rows: Sequence[str],
    series: Sequence[Dots],
    *,
    row_label: str,
    x_label: str,
    x_limits: tuple[float, float] = (0.0, 1.0),
    row_height: float = 20.0,
    note: str = "",
    wide: bool = False,
) -> Figure:
    """For every row a dot per series, on one axis: compares series row by row.

    Parameters
    ----------
    title : the finding, a sentence.
    rows : names of the rows, from the top.
    series : values (rows,) each; one that is not finite is left out.
    row_label, x_label : what the rows are and what the axis shows, with its unit.
    x_limits : both ends of the axis.
    row_height : more where a row has many series.
    """
    values = np.array([np.asarray(one.values, dtype=np.float64) for one in series]).reshape(-1, len(rows))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for row, at_row in enumerate(values.T):
            finite = at_row[np.isfinite(at_row)]
            if len(finite):
                axes.hlines(row, finite.min(), finite.max(), color=stand_in("rule"), linewidth=3, zorder=1)
        reach = 0.16 if row_height < 30 else 0.3
        apart = iter(np.linspace(-reach, reach, sum(one.mark != "tick" for one in series)))
        for place, (one, at) in enumerate(zip(series, values, strict=True)):
            axes.scatter(
                at,
                np.arange(len(rows)) + (0 if one.mark == "tick" else next(apart)),
                marker=SYMBOL[one.mark],
                s=64 if one.mark == "tick" else 28,
                color=stand_in(one.colour),
                edgecolors=None if one.mark == "tick" else stand_in("page"),
                linewidths=2 if one.mark == "tick" else 0.7,
                zorder=3 + place,
                clip_on=False,
            )
        axes.set_xlim(*x_limits)
        _name_rows(axes, rows)
        axes.set_xlabel(x_label)

    means = ", ".join(f"{one.name} {_mean(at)}" for one, at in zip(series, values, strict=True))
    table: tuple[Row, ...] = tuple(
        (name, *(Cell(float(value), digits=3) for value in at_row))
        for name, at_row in zip(rows, values.T, strict=True)
    )
    return figure_of(
        title,
        draw,
        height=58 + row_height * len(rows),
        alt=f"{title}. Dots of {x_label} for {len(rows)} rows ({row_label}); means: {means}.",
        table=Table((row_label, *(one.name for one in series)), table, f"{x_label}, by {row_label}"),
        legend=tuple(LegendEntry(one.name, one.colour, one.mark) for one in series),
        note=note,
        wide=wide,
    )


def shares(
    title: str,
    rows: Sequence[str],
    panels: Sequence[str],
    parts: Sequence[tuple[str, str]],
    values: Floats,
    *,
    row_label: str,
    x_label: str,
    note: str = "",
    wide: bool = False,
) -> Figure:
    """How a whole divides into parts: a stacked bar per row, side by side for every panel.

    Parameters
    ----------
    title : the finding, a sentence.
    rows : names of the rows, from the top.
    panels : names of the panels, from the left; few.
    parts : name and colour of every part, from the left.
    values : (rows, panels, parts), shares of 1.
    row_label, x_label : what the rows are and what the axes show, with its unit.
    """
    if values.shape != (len(rows), len(panels), len(parts)):
        raise ValueError(
            f"values must have the shape (rows, panels, parts) = "
            f"{(len(rows), len(panels), len(parts))}, not {values.shape}"
        )

    def draw(figure: Any) -> None:
        for panel, axes in enumerate(np.atleast_1d(figure.subplots(1, len(panels), sharey=True))):
            left = np.zeros(len(rows))
            for part, (_, colour) in enumerate(parts):
                width = np.nan_to_num(values[:, panel, part])
                axes.barh(
                    np.arange(len(rows)),
                    width,
                    left=left,
                    height=0.74,
                    color=stand_in(colour),
                    edgecolor=stand_in("page"),
                    linewidth=0.8,
                )
                left = left + width
            axes.set_xlim(0, 1)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            _name_rows(axes, rows)
            axes.set_title(short(panels[panel], 40), loc="left")
        figure.supxlabel(x_label, color=stand_in("muted"))

    means = "; ".join(
        f"{panel}: "
        + ", ".join(f"{name} {_mean(values[:, at, part])}" for part, (name, _) in enumerate(parts))
        for at, panel in enumerate(panels)
    )
    table: tuple[Row, ...] = tuple(
        (row, panel, *(Cell(float(value), digits=3) for value in values[i, j]))
        for i, row in enumerate(rows)
        for j, panel in enumerate(panels)
    )
    columns = (row_label, "", *(name for name, _ in parts))
    return figure_of(
        title,
        draw,
        height=80 + 19 * len(rows),
        alt=f"{title}. Stacked bars of {x_label} for {len(rows)} rows ({row_label}); means: {means}.",
        table=Table(columns, table, x_label),
        legend=tuple(LegendEntry(name, colour, "box") for name, colour in parts),
        note=note,
        wide=wide,
    )


def figure_of(
    title: str,
    draw: Callable[[Any], None],
    *,
    height: float,
    alt: str,
    table: Table,
    legend: Any = (),
    over: Callable[[], str] | None = None,
    **rest: Any,
) -> Figure:
    """Draw, and put the words and data beside it; ``over`` as in `svg_of`."""
    for entry in legend:
        assert entry.colour in _colours.LIGHT, entry
        assert entry.mark in MARKS, entry
    svg = svg_of(draw, height, over)
    key = "k" + hashlib.sha256((title + svg).encode()).hexdigest()[:12]
    return Figure(title, svg.replace("_KEY_", key), key, alt, table, legend, **rest)


def _name_rows(axes: Any, rows: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(rows)), brief(rows, MAX_NAME))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=stand_in("ink"))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def short(name: str, letters: int) -> str:
    """Give a name in so many letters, all of them printable."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return clean if len(clean) <= letters else clean[: letters - 1] + "…"


def brief(names: Sequence[str], letters: int) -> list[str]:
    """Give names in so many letters that stay apart: a beginning that all share is left out if it hides them.

    Where that is not enough, the middle is left out.

    >>> brief(["north side", "south side"], 5), brief(["district 1", "district 2"], 5)
    (['nort…', 'sout…'], ['…1', '…2'])
    >>> brief(["sine of the year", "sine of the week", "size"], 9)
    ['sine…year', 'sine…week', 'size']
    """
    cut = [short(name, letters) for name in names]
    if len(set(cut)) == len(set(names)):
        return cut
    first, last = min(names), max(names)  # what these two have in common at their start, all have
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    ends = [short(f"…{name[same:]}", letters) for name in names]
    if same and len(set(ends)) == len(set(names)):
        return ends
    left = (letters - 1) // 2
    whole = (short(name, len(name)) for name in names)  # as it is, all of it printable
    return [name if len(name) <= letters else f"{name[:left]}…{name[left + 1 - letters :]}" for name in whole]


def _mean(values: Floats) -> str:
    finite = values[np.isfinite(values)]
    return format_value(float(finite.mean()) if len(finite) else math.nan, 3)


def _thinned(line: Line) -> tuple[Floats, Floats]:
    x, y = np.asarray(line.x, dtype=np.float64), np.asarray(line.y, dtype=np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int))
    return x[keep], y[keep]


def _table_of_lines(
    series: Sequence[Line],
    thinned: Sequence[tuple[Floats, Floats]],
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str],
) -> Table:
    at: dict[float, list[float]] = {}
    for place, (xs, ys) in enumerate(thinned):
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            at.setdefault(x, [math.nan] * len(series))[place] = y
    rows = tuple((_x_cell(x, x_text), *(Cell(value, digits=4) for value in at[x])) for x in sorted(at))
    return Table((x_label, *(line.name for line in series)), rows, f"{y_label}, by {x_label}")


def _x_cell(x: float, x_text: Callable[[float], str]) -> Cell | int | float:
    if x_text is not format_value:
        return Cell(x_text(x))
    return int(x) if x.is_integer() else x
