"""The section on who decides where: the map of the gate, and its weights along each input."""

import numpy as np
import numpy.typing as npt

from expertise.report import figures
from expertise.report._colours import expert_colour, expert_line
from expertise.report._mixture_drawing import legend_of, map_drawing
from expertise.report._mixture_words import (
    SURE,
    Scale,
    capital,
    experts,
    gate_is_constant,
    leading,
    levels_note,
    listing,
    most_frequent,
    percent,
    rows,
    value_text,
)
from expertise.report.page import Block, Cell, Figure, LegendEntry, Prose, Row, Table, format_value
from expertise.report.record import Column, GateMap, MixtureRecord, Profile

Floats = npt.NDArray[np.float64]
MAX_PROFILES = 6
MAX_NAMES = 12  # of inputs in a sentence
MAX_SPOTS = 250  # rows on the map
MAX_CELLS = 10  # of the map's table, each way
WORTH = 1e-9  # an input of less effect is one that the gate does not see
VISIBLE = 0.005  # change of a mean weight that can be seen in a figure
FAINT = 0.05  # change below which a passing lead is a tie that falls now here, now there


def section(record: MixtureRecord) -> tuple[Block, ...]:
    """The map, then a figure for each input that moves the gate."""
    if record.n_experts == 1:
        return (Prose(("There is one expert: it decides everywhere, with weight 1.",)),)
    if gate_is_constant(record):
        said = "The gate sees nothing: it trusts each expert the same for every row"
        return (Prose((f"{said} ({_weights(record)}).",)),)
    blocks: list[Block] = [Prose((_about(record),))]
    if record.gate_map is not None:
        blocks.append(gate_map(record, record.gate_map))
    along = profiles(record)
    blocks += along
    left = [p for p in record.profiles if record.axis(p).gate_effect > WORTH]
    if len(left) > len(along):
        left.sort(key=lambda p: -record.axis(p).gate_effect)
        names = [record.axis(p).name for p in left[len(along) :]]
        some = listing(names[:MAX_NAMES]) if len(names) <= MAX_NAMES else ", ".join(names[:MAX_NAMES]) + ", …"
        which = "move the gate, less than these" if along else f"move no mean weight by {VISIBLE}"
        subject = f"{len(names)} inputs"
        if len(names) == 1:
            subject, which = "1 input", which.replace("move", "moves", 1)
        subject = subject.replace(" ", " more ", 1) if along else subject
        blocks.append(Prose((f"{subject} {which}: {some}.",)))
    return tuple(blocks)


def _about(record: MixtureRecord) -> str:
    seen = [c for c in record.columns if c.gate_effect > WORTH]
    most = max(seen, key=lambda c: c.gate_effect) if seen else None
    text = f"Mean gate weights {_weights(record)}. A gate weight is how far the gate trusts an expert; "
    text += "the weights of a row sum to 1, and the expert with the largest weight leads."
    if most is None:
        return text
    unseen = len(record.columns) - len(seen)
    text += (
        f" The input that moves the gate most is {most.name}: with its typical value, "
        f"{value_text(most, most.typical)}, in place of its own, the weight of a row's leading expert "
        f"changes by {'less than 0.01' if most.gate_effect < 0.01 else f'{most.gate_effect:.2f}'} on average."
    )
    return text + (f" {unseen} of {len(record.columns)} inputs do not move it." if unseen else "")


def _weights(record: MixtureRecord) -> str:
    mean = record.gate.mean(0)
    each = ", ".join(f"expert {k} {weight:.2f}" for k, weight in enumerate(mean))
    return f"over {rows(len(record.gate))}: {each}"


# ---- the map


def gate_map(record: MixtureRecord, found: GateMap) -> Figure:
    """The regimes over the two inputs that move the gate most."""
    across, up = record.columns[found.x_column], record.columns[found.y_column]
    x_scale, y_scale = Scale.of(across, found.x), Scale.of(up, found.y)
    x, y = x_scale.place(found.x), y_scale.place(found.y)
    spots = np.column_stack([x_scale.place(across.values), y_scale.place(up.values)])
    spots = spots[np.isfinite(spots).all(1)]
    spots = spots[np.unique(np.linspace(0, len(spots) - 1, min(len(spots), MAX_SPOTS)).astype(int))]
    spots = _apart(spots, x_scale, y_scale)
    axes_of, over = map_drawing(found.gate, x, y, spots)
    held: list[object] = []

    def draw(figure: object) -> None:
        axes = axes_of(figure)
        axes.set_xlabel(across.name)
        axes.set_ylabel(up.name)
        x_scale.dress(axes, "x")
        y_scale.dress(axes, "y")
        held.append(axes)

    title = map_title(found, across, up)
    alt = f"{title}. Map of the leading expert: {across.name} across, {up.name} up, with {len(spots)} rows."
    note = (
        "Colour: the expert with the largest mean gate weight; the paler, the less sure. Contested: no "
        f"weight reaches {SURE}. Lines: where the lead passes. Dots: {len(spots)} of the rows; where there "
        "are none, the map is a guess. The other inputs are those of the rows."
    )
    return figures.figure_of(
        title,
        draw,
        height=330,
        alt=alt,
        table=_map_table(found, x_scale, y_scale),
        legend=(*legend_of(record.n_experts, "box"), LegendEntry("a row", "ink", "circle")),
        over=lambda: over(held[0]),
        note=note,
    )


def _apart(spots: Floats, x_scale: Scale, y_scale: Scale) -> Floats:
    """Put rows of one level a little apart."""
    turn = (np.arange(len(spots)) * 0.618034) % 1 - 0.5
    moved = spots.copy()
    for column, scale in enumerate((x_scale, y_scale)):
        if scale.levels and len(spots):
            moved[:, column] += 0.7 * (turn if column == 0 else (turn * 7.3) % 1 - 0.5)
    return moved


def map_title(found: GateMap, across: Column, up: Column) -> str:
    """Say who leads in how much of the map, and how much of it is contested."""
    lead = leading(found.gate)
    share = np.bincount(lead.ravel(), minlength=found.gate.shape[-1]) / lead.size
    order = [int(k) for k in np.argsort(-share, kind="stable") if share[k] > 0]
    contested = float((found.gate.max(-1) < SURE).mean())
    place = f"the map of {across.name} and {up.name}"
    if len(order) == 1:
        return f"Expert {order[0]} leads in all of {place}; {percent(contested)} is contested"
    first, *others = (f"expert {k} in {percent(float(share[k]))}" for k in order[:4])
    others += [f"{len(order) - 4} more elsewhere"] if len(order) > 4 else []
    named = first.replace(" in ", " leads in ", 1)
    return f"{capital(named)} of {place}, {listing(others)}; {percent(contested)} is contested"


def _map_table(found: GateMap, x_scale: Scale, y_scale: Scale) -> Table:
    at_x = np.unique(np.linspace(0, len(found.x) - 1, min(len(found.x), MAX_CELLS)).astype(int))
    at_y = np.unique(np.linspace(0, len(found.y) - 1, min(len(found.y), MAX_CELLS)).astype(int))[::-1]
    lead, weight = leading(found.gate), found.gate.max(-1)
    head = (f"{y_scale.column.name} \\ {x_scale.column.name}", *(x_scale.text(found.x[j]) for j in at_x))

    def cell(i: int, j: int) -> Cell:
        return Cell(f"{lead[i, j]} ({weight[i, j]:.2f})", colour=expert_colour(int(lead[i, j])))

    body: tuple[Row, ...] = tuple((y_scale.text(found.y[i]), *(cell(i, j) for j in at_x)) for i in at_y)
    return Table(head, body, "Leading expert and its mean gate weight, at some of the map's places")


# ---- along each input


def profiles(record: MixtureRecord) -> list[Figure]:
    """Gate weights along the inputs that move the gate, the strongest first."""
    moving = [p for p in record.profiles if record.axis(p).gate_effect > WORTH and len(p.at) and _visible(p)]
    moving.sort(key=lambda p: -record.axis(p).gate_effect)
    return [profile(record.axis(p), p) for p in moving[:MAX_PROFILES]]


def _visible(found: Profile) -> bool:
    return bool(np.ptp(found.gate, axis=0).max() >= VISIBLE)


def profile(column: Column, found: Profile) -> Figure:
    """Lines of the gate weights for numbers and dates, stacked shares for levels."""
    k = found.gate.shape[1]
    if column.kind in ("category", "boolean"):
        kept = most_frequent(column, found.at)
        return figures.shares(
            levels_title(column, found),
            [value_text(column, value) for value in found.at[kept].tolist()],
            ["mean over all rows"],
            [(f"expert {e}", expert_colour(e)) for e in range(k)],
            found.gate[kept, None, :],
            row_label=column.name,
            x_label="mean gate weight (share of 1)",
            note=levels_note(column, found.at),
        )
    scale = Scale.of(column, found.at)
    there = np.isfinite(found.at)
    places = scale.place(found.at[there])
    words = dict(zip(places.tolist(), found.at[there].tolist(), strict=True))

    def dress(axes: object) -> None:
        scale.dress(axes, "x")
        axes.set_ylim(-0.02, 1.02)  # type: ignore[attr-defined]

    return figures.lines(
        line_title(column, found),
        [
            figures.Line(f"expert {e}", places, found.gate[there, e], expert_colour(e), expert_line(e))
            for e in range(k)
        ],
        x_label=column.name,
        y_label="mean gate weight (share of 1)",
        note=f"Mean over rows in which {column.name} alone is set to each value.",
        dress=dress,
        x_text=lambda place: value_text(column, words[float(place)]),
    )


def line_title(column: Column, found: Profile) -> str:
    """Say where along a number the lead passes, and to whom."""
    there = np.isfinite(found.at)
    lead, at = leading(found.gate[there]), found.at[there]
    turns = np.flatnonzero(np.diff(lead))
    if len(turns) and _is_faint(found):
        return _faintly(column)
    if not len(turns):
        weight = found.gate[there, lead[0]]
        ends = f"from {format_value(float(weight[0]), 2)} to {format_value(float(weight[-1]), 2)}"
        return f"Expert {lead[0]} leads whatever {column.name} is; its mean weight goes {ends}"
    if len(turns) == 1:
        i = int(turns[0])
        return f"Expert {lead[i + 1]} takes over from expert {lead[i]} {_near(column, at, i)}"
    order = [int(lead[0]), *(int(lead[i + 1]) for i in turns)]
    path = ", ".join(map(str, order)) if len(order) <= 6 else f"{order[0]}, …, {order[-1]}"
    return f"The lead changes {len(turns)} times along {column.name}: experts {path}"


def _is_faint(found: Profile) -> bool:
    there = np.isfinite(found.gate).all(axis=1)
    return bool(np.ptp(found.gate[there], axis=0).max() < FAINT)


def _faintly(column: Column) -> str:
    return f"{column.name} alone hardly moves the gate: no mean weight changes by {FAINT}"


def _near(column: Column, at: Floats, i: int) -> str:
    """Where the lead passes between two values of the grid: a number of three digits, or the later date."""
    if column.kind == "date":
        return f"by {column.name} {value_text(column, float(at[i + 1]))[:10]}"
    middle = float(at[i] + at[i + 1]) / 2
    return f"near {column.name} {value_text(column, float(f'{middle:.3g}'))}"


def levels_title(column: Column, found: Profile) -> str:
    """Say who leads at which levels."""
    lead = leading(found.gate)
    parts = []
    for k in np.argsort(-np.bincount(lead, minlength=found.gate.shape[1]), kind="stable").tolist():
        levels = [value_text(column, v) for v, e in zip(found.at.tolist(), lead, strict=True) if e == k]
        if levels:
            where = listing(levels) if len(levels) <= 3 else f"{len(levels)} of {len(lead)} levels"
            parts.append((k, where))
    if len(parts) == 1:
        weight = found.gate[:, parts[0][0]]
        return (
            f"Expert {parts[0][0]} leads whatever {column.name} is; its mean weight goes from "
            f"{weight.min():.2f} to {weight.max():.2f}"
        )
    if _is_faint(found):
        return _faintly(column)
    said = [f"{experts([k])} at {where}" for k, where in parts]
    return f"By {column.name}: {said[0].replace(' at ', ' leads at ', 1)}, {listing(said[1:])}"
