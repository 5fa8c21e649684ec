"""Drawings that only the page of a mixture has: points by expert, the map of the gate, histograms."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.report._colours import EXPERT_MARKS, MARKS, expert_colour, expert_mark
from expertise.report._mixture_words import Scale
from expertise.report._svg import at, stand_in
from expertise.report.figures import MAX_NAME, SYMBOL, brief, figure_of
from expertise.report.page import Cell, Figure, LegendEntry, Row, Table

Floats = npt.NDArray[np.float64]
SHADES = 6  # of a colour on the map, from "no lead" to "sure"
PALEST = 0.16  # opacity where all experts have the same weight
MARK_SIZE = 0.62  # of a point, over its mark in the legend


def legend_of(n_experts: int, mark: str = "") -> tuple[LegendEntry, ...]:
    """Give an entry for every expert, with one mark for all, or each with its own."""
    return tuple(
        LegendEntry(f"expert {k}", expert_colour(k), mark or expert_mark(k)) for k in range(n_experts)
    )


# ---- points


def points(axes: Any, x: Floats, y: Floats, lead: npt.NDArray[np.intp], opacity: Floats) -> str:
    """Points with the mark and colour of an expert each, as SVG: in order, for a script to find them."""
    used = sorted(set(EXPERT_MARKS))
    shapes = "".join(
        f'<g id="_KEY_{name}" transform="translate({-13 * MARK_SIZE} {-6 * MARK_SIZE}) scale({MARK_SIZE})">'
        + MARKS[name].replace(' fill="{c}"', "")
        + "</g>"
        for name in used
    )
    drawn = "".join(
        f'<use href="#_KEY_{expert_mark(int(k))}" x="{px:.1f}" y="{py:.1f}" '
        f'style="fill:var(--{expert_colour(int(k))});fill-opacity:{o:.2f}"/>'
        for (px, py), k, o in zip(at(axes, x, y), lead, opacity, strict=True)
    )
    return f'<defs>{shapes}</defs><g class="points">{drawn}</g>'


def opacity_of(weight: Floats) -> Floats:
    """How opaque a point is for the weight of its leading expert; the script of the slider does the same."""
    return np.asarray(0.2 + 0.8 * weight)


def scatter(
    title: str,
    x: Floats,
    y: Floats,
    lead: npt.NDArray[np.intp],
    weight: Floats,
    *,
    labels: tuple[str, str],
    scales: tuple[Scale | None, Scale | None] = (None, None),
    n_experts: int,
    table: Table,
    alt: str,
    diagonal: bool = False,
    note: str = "",
    wide: bool = False,
) -> Figure:
    """Points of rows: mark and colour of the leading expert, paler where its weight is less."""
    held: list[Any] = []

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        held.append(axes)
        axes.scatter(x, y, s=0)  # only for the limits: the points are our own
        axes.margins(0.05)
        if diagonal and len(x):
            low, high = min(x.min(), y.min()), max(x.max(), y.max())
            axes.plot([low, high], [low, high], color=stand_in("ink"), linewidth=1, linestyle=(0, (5, 2.4)))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        for scale, which in zip(scales, "xy", strict=True):
            if scale is not None:
                scale.dress(axes, which)

    legend = legend_of(n_experts)
    if diagonal:
        legend += (LegendEntry("predicted = observed", "ink", "dashed"),)
    return figure_of(
        title,
        draw,
        height=300,
        alt=alt,
        table=table,
        legend=legend,
        over=lambda: points(held[0], x, y, lead, opacity_of(weight)),
        note=note,
        wide=wide,
    )


def jitter(values: Floats, scale: Scale | None) -> Floats:
    """Put points of one level a little apart, always in the same way."""
    if scale is None or not scale.levels:
        return values
    turn = (np.arange(len(values)) * 0.618034) % 1
    return np.asarray(values + 0.5 * (turn - 0.5))


# ---- the map


def edges(places: Floats) -> Floats:
    """Borders of the cells around places that ascend: half way between them."""
    if len(places) == 1:
        return np.array([places[0] - 0.5, places[0] + 0.5])
    half = (places[1:] + places[:-1]) / 2
    return np.concatenate([[2 * places[0] - half[0]], half, [2 * places[-1] - half[-1]]])


def map_drawing(
    gate: Floats, x: Floats, y: Floats, spots: Floats
) -> tuple[Callable[[Any], Any], Callable[[Any], str]]:
    """Give what draws the axes of a map, and what draws its cells, borders, numbers and rows over them.

    Parameters
    ----------
    gate : (my, mx, K). x, y : (mx,), (my,) places that ascend. spots : (s, 2) places of rows.
    """
    x_edges, y_edges = edges(x), edges(y)

    def draw(figure: Any) -> Any:
        axes = figure.add_subplot()
        axes.set_xlim(x_edges[0], x_edges[-1])
        axes.set_ylim(y_edges[0], y_edges[-1])
        axes.grid(visible=False)
        return axes

    def over(axes: Any) -> str:
        px = at(axes, x_edges, np.full(len(x_edges), y_edges[0]))[:, 0]
        py = at(axes, np.full(len(y_edges), x_edges[0]), y_edges)[:, 1]
        lead = gate.argmax(-1)
        inside = [
            (spot_x, spot_y)
            for spot_x, spot_y in spots
            if x_edges[0] <= spot_x <= x_edges[-1] and y_edges[0] <= spot_y <= y_edges[-1]
        ]
        dots = "".join(
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="1.7"/>'
            for cx, cy in (at(axes, *np.array(inside).T) if inside else ())
        )
        return (
            _cells(gate, lead, px, py)
            + _borders(lead, px, py)
            + f'<g style="fill:var(--ink);fill-opacity:.55">{dots}</g>'
            + _numbers(gate, lead, px, py)
        )

    return draw, over


def _cells(gate: Floats, lead: npt.NDArray[np.intp], px: Floats, py: Floats) -> str:
    """One path for every expert and shade: cells of the same kind side by side are one piece."""
    k = gate.shape[-1]
    sure = (gate.max(-1) - 1 / k) / (1 - 1 / k) if k > 1 else np.ones(lead.shape)
    shade = np.clip((sure * SHADES).astype(int), 0, SHADES - 1)
    pieces: dict[tuple[int, int], list[str]] = {}
    for row in range(len(lead)):
        start = 0
        for column in range(1, lead.shape[1] + 1):
            here = (int(lead[row, start]), int(shade[row, start]))
            if column < lead.shape[1] and (lead[row, column], shade[row, column]) == here:
                continue
            piece = f"M{px[start]:.1f} {py[row]:.1f}H{px[column]:.1f}V{py[row + 1]:.1f}H{px[start]:.1f}z"
            pieces.setdefault(here, []).append(piece)
            start = column
    joined = [(e, s, "".join(found)) for (e, s), found in sorted(pieces.items())]
    paths = (
        f'<path style="fill:var(--{expert_colour(e)});fill-opacity:{_opacity(s):.2f}" d="{path}"/>'
        for e, s, path in joined
    )
    return f'<g shape-rendering="crispEdges">{"".join(paths)}</g>'


def _opacity(shade: int) -> float:
    return PALEST + (0.92 - PALEST) * shade / (SHADES - 1)


def _borders(lead: npt.NDArray[np.intp], px: Floats, py: Floats) -> str:
    """Lines where the lead passes from one expert to another."""
    parts = [
        f"M{px[j + 1]:.1f} {py[i]:.1f}V{py[i + 1]:.1f}"
        for i, j in np.argwhere(lead[:, 1:] != lead[:, :-1]).tolist()
    ]
    parts += [
        f"M{px[j]:.1f} {py[i + 1]:.1f}H{px[j + 1]:.1f}"
        for i, j in np.argwhere(lead[1:] != lead[:-1]).tolist()
    ]
    line = "".join(parts)
    return f'<path style="fill:none;stroke:var(--ink);stroke-width:1.4" d="{line}"/>' if parts else ""


def _numbers(gate: Floats, lead: npt.NDArray[np.intp], px: Floats, py: Floats) -> str:
    """The number of every expert that leads somewhere, in the cell of its own that is deepest inside."""
    drawn = ""
    for k in np.unique(lead).tolist():
        own = np.argwhere(lead == k)
        others = np.argwhere(lead != k)
        size = np.array(lead.shape)
        room = np.minimum(own + 0.5, size - own - 0.5).min(1) * 1.5  # borders of the map count less
        if len(others):
            room = np.minimum(room, np.abs(own[:, None] - others[None]).max(-1).min(1))
        i, j = own[int(room.argmax())].tolist()
        cx, cy = (px[j] + px[j + 1]) / 2, (py[i] + py[i + 1]) / 2
        drawn += (
            f'<text x="{cx:.1f}" y="{cy + 4.5:.1f}" style="font-size:13px;font-weight:700;'
            'text-anchor:middle;fill:var(--ink);stroke:var(--page);stroke-width:3.5px;paint-order:stroke">'
            f"{k}</text>"
        )
    return drawn


# ---- intervals and histograms


def error_dots(
    title: str, names: Sequence[str], values: Floats, errors: Floats, *, x_label: str, alt: str, table: Table,
    note: str = "",
) -> Figure:  # fmt: skip
    """For every row a dot per expert with two standard errors to both sides; rows are scaled each by itself.

    ``values`` and ``errors`` are (rows, K); errors that are not finite are left out.
    """
    reach = np.abs(values) + 2 * np.nan_to_num(errors)
    scale = np.nanmax(np.where(np.isfinite(reach), reach, np.nan), axis=1, keepdims=True)
    relative, wide_by = values / np.where(scale > 0, scale, 1), errors / np.where(scale > 0, scale, 1)
    k = values.shape[1]
    apart = np.linspace(-0.3, 0.3, k) if k > 1 else np.zeros(1)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=stand_in("ink"), linewidth=1)
        for e in range(k):
            place = np.arange(len(names)) + apart[e]
            spread = np.where(np.isfinite(wide_by[:, e]), 2 * wide_by[:, e], 0)
            low, high = relative[:, e] - spread, relative[:, e] + spread
            axes.hlines(place, low, high, color=stand_in(expert_colour(e)), linewidth=1.6)
            axes.scatter(
                relative[:, e], place, marker=SYMBOL[expert_mark(e)], s=24,
                color=stand_in(expert_colour(e)), zorder=3,
            )  # fmt: skip
        axes.set_xlim(-1.05, 1.05)
        axes.set_xticks([-1, -0.5, 0, 0.5, 1])
        axes.set_yticks(np.arange(len(names)), brief(names, MAX_NAME))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=stand_in("ink"))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)

    height = 62 + len(names) * max(20, 7 * k)
    return figure_of(title, draw, height=height, alt=alt, table=table, legend=legend_of(k), note=note)


def histogram(title: str, counts: Floats, *, expected: float, x_label: str, alt: str, note: str) -> Figure:
    """Bars of counts in equal bins from 0 to 1, beside the count that each should have."""
    borders = np.linspace(0, 1, len(counts) + 1)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.bar(
            borders[:-1], counts, width=np.diff(borders) * 0.92, align="edge", color=stand_in("series-1")
        )
        axes.axhline(expected, color=stand_in("ink"), linewidth=1.2, linestyle=(0, (5, 2.4)))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.12 * max(float(counts.max()), expected))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(x_label)
        axes.set_ylabel("rows")

    table: tuple[Row, ...] = tuple(
        (f"{low:.1f} to {high:.1f}", Cell(int(count)), Cell(expected, 1))
        for low, high, count in zip(borders[:-1], borders[1:], counts, strict=True)
    )
    return figure_of(
        title,
        draw,
        height=220,
        alt=alt,
        table=Table((x_label, "rows", "rows wanted"), table, f"rows, by {x_label}"),
        legend=(LegendEntry("rows", "series-1", "box"), LegendEntry("wanted", "ink", "dashed")),
        note=note,
    )


def finite_range(values: Floats) -> tuple[float, float]:
    """Smallest and largest finite value, a little wider; 0 to 1 where there is none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    return (low - room, high + room) if math.isfinite(room) else (low, high)
