"""The section on how the mixture was found: all starts, the chosen run, and its iterations on a slider."""

from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.report import figures
from expertise.report._colours import EXPERT_MARKS, EXPERTS, expert_colour
from expertise.report._mixture_drawing import jitter, scatter
from expertise.report._mixture_words import Scale, digits, leading, percent, rows, target
from expertise.report.page import Block, Cell, Figure, Live, Prose, Row, Table, format_value
from expertise.report.record import Frame, MixtureRecord

Floats = npt.NDArray[np.float64]
Axis = tuple[str, Floats, Scale | None]  # label, places of the rows, how ticks are named
MAX_STARTS = 24  # of the figure
MAX_FRAMES = 40
MAX_POINTS = 400
NEAR = 1.0  # nats of the objective, a penalised log-likelihood: starts that end closer found the same mixture


def section(record: MixtureRecord) -> tuple[Block, ...]:
    """Starts, history, slider."""
    blocks: list[Block] = []
    if record.starts:
        blocks.append(_starts(record))
    if len(record.history) > 1:
        blocks.append(_history(record.history))
    if record.frames:
        slider = _slider(record)
        blocks.append(slider or Prose(("No row of the sample has both inputs of the drawing.",)))
    else:
        blocks.append(Prose(("The iterations were not recorded, so there is nothing to play.",)))
    return tuple(blocks)


# ---- starts


def _kind(start: dict[str, Any]) -> str:
    if start.get("degenerate"):
        return "degenerate"
    return "continued" if start.get("continued") else "screened only"


def starts_title(starts: tuple[dict[str, Any], ...]) -> str:
    """Say how many of the starts that went on found what the best found."""
    if len(starts) == 1:
        return "One start was tried"
    best = float(starts[0]["objective"])
    on = [start for start in starts if start.get("continued") and not start.get("degenerate")]
    near = sum(abs(float(start["objective"]) - best) <= NEAR for start in on)
    bad = sum(bool(start.get("degenerate")) for start in starts)
    text = f"{near} of {len(on)} continued starts reach the best objective within {NEAR:.0f} nat"
    return text + (f"; {bad} of {len(starts)} starts are degenerate" if bad else "")


def _starts(record: MixtureRecord) -> Figure:
    starts = record.starts
    shown = starts[:MAX_STARTS]
    marks = {"continued": "circle", "screened only": "square", "degenerate": "cross"}
    colours = {"continued": "series-1", "screened only": "series-3", "degenerate": "series-2"}
    found = np.array([float(start["objective"]) for start in shown])
    finite = found[np.isfinite(found)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    room = 0.05 * (high - low) or 1.0
    kinds = [_kind(start) for start in shown]
    body: tuple[Row, ...] = tuple(
        (
            f"{i} {start['kind']}",
            Cell(float(start["objective"]), 3),
            Cell(int(start["n_iter"])),
            _kind(start),
            "yes" if start["converged"] else "no",
            _troubles(start.get("degenerate")),
        )
        for i, start in enumerate(starts)
    )
    title = starts_title(starts)
    figure = figures.dots(
        title,
        [f"{i} {start['kind']}" for i, start in enumerate(shown)],
        [
            figures.Dots(kind, np.where(np.array(kinds) == kind, found, np.nan), colours[kind], marks[kind])
            for kind in marks
            if kind in kinds
        ],
        row_label="start",
        x_label="objective (nats)",
        x_limits=(low - room, high + room),
        note="Objective: the penalised log-likelihood at the end of a start, more is better. Starts are "
        "screened by short runs; the best go on. The first was chosen."
        + (f" The best {len(shown)} of {len(starts)}." if len(shown) < len(starts) else ""),
    )
    head = ("start", "objective", "iterations", "what became of it", "converged", "troubles")
    return Figure(
        figure.title, figure.svg, figure.key, figure.alt, Table(head, body, "All starts"), figure.legend,
        figure.note,
    )  # fmt: skip


def _troubles(found: Any) -> str:
    return "; ".join(f"expert {k}: {what}" for k, what in found.items()) if isinstance(found, dict) else ""


def _history(history: Floats) -> Figure:
    gain = float(history[-1] - history[0])
    reached = np.flatnonzero(history >= history[0] + 0.99 * gain)
    title = f"{len(history) - 1} iterations gain {format_value(gain)} nats"
    title += f", 99 % of it in the first {int(reached[0])}" if gain > 0 and len(reached) else ""
    return figures.lines(
        title,
        [figures.Line("chosen run", np.arange(len(history), dtype=np.float64), history, "series-1")],
        x_label="iteration",
        y_label="objective (nats)",
        dress=lambda axes: axes.xaxis.get_major_locator().set_params(integer=True),
    )


# ---- the slider


def _axes_of(record: MixtureRecord) -> tuple[Axis, Axis]:
    """Name, values and scale across and up: the inputs of the map, or the first input and the target."""
    order = sorted(range(len(record.columns)), key=lambda j: -record.columns[j].gate_effect)
    both = (
        (record.gate_map.x_column, record.gate_map.y_column)
        if record.gate_map is not None
        else tuple(order[:1])
    )
    found: list[Axis] = []
    for j in both:
        column = record.columns[j]
        scale = Scale.of(column, np.unique(column.values[np.isfinite(column.values)]))
        found.append((column.name, jitter(scale.place(column.values), scale), scale))
    n = len(record.gate)
    if not found:
        found.append(("row", np.arange(n, dtype=np.float64), None))
    if len(found) == 1:
        if record.y is not None:
            found.append((target(record), record.y, None))
        elif record.classes:
            found.append((f"P({record.classes[-1]})", record.prediction[:, -1], None))
        else:
            found.append((f"predicted {target(record)}", record.prediction, None))
    return found[0], found[1]


def _chosen(frames: tuple[Frame, ...]) -> list[Frame]:
    """At most `MAX_FRAMES`, the first and the last among them, closer at the beginning where more happens."""
    count = min(len(frames), MAX_FRAMES)
    spread = np.linspace(0, 1, count) ** (1 if count == len(frames) else 2)
    return [frames[i] for i in np.unique(np.round(spread * (len(frames) - 1)).astype(int))]


def frames_title(frames: list[Frame], there: npt.NDArray[np.intp]) -> str:
    """Say how the log-likelihood and the leading experts change from the first frame to the last."""
    first, last = frames[0], frames[-1]
    moved = float((leading(first.weights[there]) != leading(last.weights[there])).mean())
    text = f"From iteration {first.iteration} to {last.iteration}, {percent(moved)} of the rows change their "
    text += "leading expert"
    if not np.isfinite([first.log_likelihood, last.log_likelihood]).all():
        return text
    ends = f"from {first.log_likelihood:.3f} to {last.log_likelihood:.3f} nats a row"
    return f"{text}; the log-likelihood goes {ends}"


def _slider(record: MixtureRecord) -> Live | None:
    across, up = _axes_of(record)
    there = np.flatnonzero(np.isfinite(across[1][record.shown]) & np.isfinite(up[1][record.shown]))
    if not len(there):
        return None
    there = there[np.unique(np.linspace(0, len(there) - 1, min(len(there), MAX_POINTS)).astype(int))]
    frames = _chosen(record.frames)
    at = record.shown[there]
    x, y = across[1][at], up[1][at]
    last = frames[-1]
    weights = last.weights[there]
    title = frames_title(frames, there)
    left_out = len(record.shown) - len(there)
    body: tuple[Row, ...] = tuple(
        (Cell(f.iteration), Cell(f.log_likelihood, 4), *(Cell(float(e), 4) for e in f.errors)) for f in frames
    )
    error = "wrong answers" if record.classes else "RMSE"
    head = ("iteration", "log-likelihood", *(f"expert {k}: {error}" for k in range(record.n_experts)))
    figure = scatter(
        title,
        x,
        y,
        leading(weights),
        weights.max(1),
        labels=(across[0], up[0]),
        scales=(across[2], up[2]),
        n_experts=record.n_experts,
        table=Table(head, body, f"Log-likelihood (nats a row) and {error} of each expert, by iteration"),
        alt=f"{title}. Points of {rows(len(there))} at the last iteration: {up[0]} over {across[0]}, by the "
        "expert that is trusted most.",
        note=f"{rows(len(there))}; mark and colour: the expert trusted most, paler where its weight is less. "
        f"Error of an expert: {error} on the rows for which it is responsible."
        + (f" Not drawn: {rows(left_out)} that lack a value or are beyond {MAX_POINTS}." if left_out else ""),
    )
    return _live(figure, frames, there, error)


def _live(figure: Figure, frames: list[Frame], there: npt.NDArray[np.intp], error: str) -> Live:
    """Give the script what it moves: weights of the drawn rows, errors and log-likelihoods of every frame."""
    last = frames[-1]
    largest = max((float(np.nanmax(f.errors)) for f in frames if np.isfinite(f.errors).any()), default=0.0)
    bars = [
        (k, expert_colour(k), format_value(float(e), digits(float(e))), _share(float(e), largest))
        for k, e in enumerate(last.errors)
    ]
    return Live(
        figure.title,
        "slider.html.jinja",
        "slider.js",
        {
            "iterations": [f.iteration for f in frames],
            # ten thousandths: no eye sees less
            "weights": [np.round(1e4 * f.weights[there]).astype(int).ravel() for f in frames],
            "errors": [f.errors for f in frames],
            "logLikelihoods": [f.log_likelihood for f in frames],
            "largest": largest,
            "experts": len(last.errors),
            "colours": [f"var(--{name})" for name in EXPERTS],
            "marks": list(EXPERT_MARKS),
        },
        {
            "last": len(frames) - 1,
            "iteration": last.iteration,
            "log_likelihood": format_value(last.log_likelihood, 3),
            "error": error,
            "bars": bars,
        },
        figure,
    )


def _share(error: float, largest: float) -> float:
    return round(100 * error / largest, 2) if largest > 0 and np.isfinite(error) else 0.0
