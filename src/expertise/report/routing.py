"""Figures of sparse layers: how much each expert had to do, and how even that was while training went on.

Letters of shapes: E experts of a layer, S steps.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.report._colours import SERIES, series_colour
from expertise.report._svg import stand_in, svg_of
from expertise.report.figures import Line, lines
from expertise.report.page import Cell, Figure, LegendEntry, Row, Table, format_value

MOST_LINES = 8  # layers drawn one by one; of more, the range is drawn

Values = Sequence[float] | npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def expert_loads(
    title: str, layers: Sequence[str], loads: Sequence[Values], *, note: str = "", wide: bool = False
) -> Figure:
    """For every layer a bar for each expert: its load over the layer's mean, 1 at balance.

    Parameters
    ----------
    title : the finding, a sentence.
    layers : names of the layers, from the top.
    loads : (E,) for each layer, tokens that chose each expert; E may differ between layers.
    note, wide : as every `Figure` has them.

    Raises
    ------
    ValueError : no layer, or not as many names as loads, or a load that is no row of numbers of at least 0.
    """
    counts = _checked("loads", layers, loads)
    relative = [_over_mean(one) for one in counts]
    largest = max((float(np.nanmax(one, initial=1)) for one in relative), default=1.0)

    def draw(figure: Any) -> None:
        panels = np.atleast_1d(figure.subplots(len(layers), 1, sharey=True))
        for name, load_E, axes in zip(layers, relative, panels, strict=True):
            at_E = np.arange(len(load_E))
            axes.bar(at_E, np.nan_to_num(load_E), width=0.8, color=stand_in("series-1"))
            axes.axhline(1, color=stand_in("ink"), linewidth=1.1, linestyle=(0, (5, 2.4)))
            axes.set_xlim(-0.7, len(load_E) - 0.3)
            axes.set_ylim(0, 1.08 * largest)
            step = math.ceil(len(load_E) / 16)
            axes.set_xticks(at_E[::step])
            axes.grid(visible=False, axis="x")
            axes.tick_params(length=0)
            axes.set_title(name if len(name) <= 50 else f"…{name[-49:]}", loc="left")
        figure.supxlabel("expert", color=stand_in("muted"))
        figure.supylabel("load / mean", color=stand_in("muted"))

    words = "; ".join(
        f"{name}: most {format_value(_largest(one), 2)} (expert {int(load.argmax())}), "
        f"{int((load == 0).sum())} of {len(load)} without any"
        for name, load, one in zip(layers, counts, relative, strict=True)
    )
    rows: tuple[Row, ...] = tuple(
        (name, str(e), Cell(float(count), digits=0), Cell(float(share), digits=2))
        for name, load, one in zip(layers, counts, relative, strict=True)
        for e, (count, share) in enumerate(zip(load, one, strict=True))
    )
    svg = svg_of(draw, 62 + 78 * len(layers))
    key = "k" + hashlib.sha256((title + svg).encode()).hexdigest()[:12]
    return Figure(
        title,
        svg.replace("_KEY_", key),
        key,
        f"{title}. Bars of the load of each expert over the mean of its layer: {words}.",
        Table(("layer", "expert", "tokens", "load / mean"), rows, "load of each expert, by layer"),
        (LegendEntry("expert", "series-1", "box"), LegendEntry("balance", "ink", "dashed")),
        note,
        wide,
    )


def balance_over_steps(
    title: str,
    layers: Sequence[str],
    max_over_mean: Sequence[Values],
    *,
    steps: Values | None = None,
    note: str = "",
    wide: bool = False,
) -> Figure:
    """For every layer a line over the steps: load of its busiest expert over the mean, 1 at balance.

    Of more than `MOST_LINES` layers the largest, the median and the smallest at each step are drawn.

    Parameters
    ----------
    title : the finding, a sentence.
    layers : names of the layers.
    max_over_mean : (S,) for each layer, the same S; NaN where there is none.
    steps : (S,) numbers of the steps; unless given 1, 2, ...
    note, wide : as every `Figure` has them.

    Raises
    ------
    ValueError : no layer, or lengths that do not fit.
    """
    values = _checked("max_over_mean", layers, max_over_mean)
    lengths = sorted({len(one) for one in values})
    x = np.asarray(np.arange(1, lengths[0] + 1) if steps is None else steps, dtype=np.float64)
    if lengths != [len(x)]:
        raise ValueError(
            f"max_over_mean must have a value for each of the {len(x)} steps in every layer; got {lengths}"
        )
    if len(layers) <= MOST_LINES:
        marks = ("line", "dashed")
        series = [
            Line(name, x, one, series_colour(i), marks[i // len(SERIES)])
            for i, (name, one) in enumerate(zip(layers, values, strict=True))
        ]
    else:
        ordered = np.sort(np.array(values), axis=0)  # NaN at the end
        seen = np.isfinite(ordered).sum(0)
        column = np.arange(len(x))
        series = [
            Line("largest of all layers", x, ordered[np.maximum(seen - 1, 0), column], "series-2", "dashed"),
            Line("median", x, ordered[np.maximum(seen - 1, 0) // 2, column], "series-1"),
            Line("smallest", x, ordered[0], "series-3", "dotted"),
        ]
    return lines(title, series, x_label="step", y_label="busiest expert, load / mean", note=note, wide=wide)


def _checked(name: str, layers: Sequence[str], values: Sequence[Values]) -> list[Floats]:
    if not len(layers) or len(layers) != len(values):
        raise ValueError(
            f"{name} must have a row for each name in layers, at least one; got {len(values)} rows and "
            f"{len(layers)} names"
        )
    rows = [np.asarray(one, dtype=np.float64) for one in values]
    for layer, row in zip(layers, rows, strict=True):
        if row.ndim != 1 or not len(row) or (row < 0).any():
            raise ValueError(
                f"{name} must be rows of numbers of at least 0; that of {layer!r} has the shape {row.shape}"
                + (f" and the least value {np.nanmin(row):g}" if row.size else "")
            )
    return rows


def _over_mean(load_E: Floats) -> Floats:
    mean = load_E.mean()
    return load_E / mean if mean else np.full(len(load_E), math.nan)


def _largest(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else math.nan
