"""The section on trust: coverage of intervals, calibration, predicted against observed."""

import math

import numpy as np
import numpy.typing as npt

from expertise.report import figures
from expertise.report._colours import expert_colour
from expertise.report._mixture_drawing import histogram, scatter
from expertise.report._mixture_words import leading, percent, rows, target, unit
from expertise.report._svg import stand_in
from expertise.report.page import Block, Cell, Figure, LegendEntry, Prose, Row, Table, format_value
from expertise.report.record import MixtureRecord

Floats = npt.NDArray[np.float64]
BINS = 10
MAX_POINTS = 400
NOMINAL = 0.9  # of the intervals of a record


def section(record: MixtureRecord) -> tuple[Block, ...]:
    """Everything that compares what was said with what came."""
    if record.y is None:
        return (Prose(("The rows have no target: nothing can be compared with what came.",)),)
    blocks: list[Block] = [Prose((record.caution,))] if record.caution else []
    if record.classes:
        return (*blocks, reliability(record, record.y), _confusion(record, record.y))
    if record.coverage is not None and len(record.coverage):
        blocks.append(coverage(record, record.coverage))
    if record.cdf is not None:
        blocks.append(pit(record.cdf))
    else:
        blocks.append(Prose(("There is no histogram of probabilities: the target is not continuous.",)))
    if record.intervals is not None:
        blocks.append(_by_expert(record, record.y, record.intervals))
    blocks.append(observed(record, record.y))
    return tuple(blocks)


# ---- numbers


def noise(share: float, n: int) -> float:
    """Two standard errors of a share among n rows."""
    return 2 * math.sqrt(max(share * (1 - share), 0.0) / max(n, 1))


def coverage(record: MixtureRecord, found: Floats) -> Figure:
    """Wanted and found shares of rows inside central intervals."""
    wanted, got = found[:, 0], found[:, 1]
    i = int(np.abs(wanted - NOMINAL).argmin())
    n = len(record.gate)
    off = got[i] - wanted[i]
    verdict = "as they should" if abs(off) <= noise(wanted[i], n) else "too many" if off > 0 else "too few"
    title = f"Intervals of {percent(wanted[i])} hold {percent(got[i])} of {rows(n)}: {verdict}"
    return figures.lines(
        title,
        [
            figures.Line("found", wanted, got, "series-1"),
            figures.Line("as wanted", [0, 1], [0, 1], "muted", "dashed"),
        ],
        x_label="wanted share of rows inside",
        y_label="found share of rows",
        note="As they should: within two standard errors of a share among so many rows.",
    )


def pit_title(cdf: Floats) -> str:
    """Say whether the predictive distribution is shifted, too narrow, too wide (the clearest), or right.

    A right one gives uniform values: mean 1/2 with variance 1/(12 n); variance 1/12, whose own variance is
    (1/80 - 1/144) / n.
    """
    n = len(cdf)
    shift = float(cdf.mean() - 0.5) / math.sqrt(1 / (12 * n))
    spread = float(((cdf - 0.5) ** 2).mean() - 1 / 12) / math.sqrt((1 / 80 - 1 / 144) / n)
    if abs(shift) > 2 and abs(shift) >= abs(spread):
        way = "higher" if shift > 0 else "lower"
        return f"Observed values are {way} than foretold: their mean probability is {cdf.mean():.2f}, not 0.5"
    if abs(spread) > 2:
        return (
            "The distribution is too narrow: too many rows in its tails"
            if spread > 0
            else "The distribution is too wide: too few rows in its tails"
        )
    return f"The distribution shows no fault: {rows(n)} are spread evenly over it"


def pit(cdf: Floats) -> Figure:
    """Histogram of the probability integral transform."""
    finite = cdf[np.isfinite(cdf)]
    counts = np.histogram(finite, BINS, (0.0, 1.0))[0].astype(np.float64)
    title = pit_title(finite) if len(finite) else "No row has a probability"
    heights = ", ".join(f"{count:.0f}" for count in counts)
    return histogram(
        title,
        counts,
        expected=len(finite) / BINS,
        x_label="P(Y ≤ observed) of the predictive distribution",
        alt=f"{title}. Bars of rows in {BINS} bins of P(Y ≤ observed): {heights}.",
        note="Even bars: right. Full at both ends: too narrow. Full in the middle: too wide. A fault is "
        "named from two standard errors on.",
    )


def _by_expert(record: MixtureRecord, y: Floats, intervals: Floats) -> Table:
    lead = leading(record.gate)
    inside = (intervals[:, 0] <= y) & (y <= intervals[:, 1])
    width = intervals[:, 1] - intervals[:, 0]
    body: list[Row] = []
    for k in range(record.n_experts):
        own = lead == k
        if own.any():
            body.append(
                (
                    Cell(f"expert {k}", colour=expert_colour(k)),
                    Cell(int(own.sum())),
                    Cell(float(inside[own].mean()), 2, bar=expert_colour(k)),
                    Cell(noise(NOMINAL, int(own.sum())), 2),
                    Cell(float(np.median(width[own]))),
                )
            )
    head = ("regime of", "rows", "inside", "± by chance", f"median width ({unit(record)})")
    return Table(head, tuple(body), "Intervals of 90 % in the rows that each expert leads")


def observed(record: MixtureRecord, y: Floats) -> Figure:
    """Predicted against observed."""
    error = float(np.sqrt(np.mean((record.prediction - y) ** 2)))
    total = float(((y - y.mean()) ** 2).sum())
    title = f"Predictions miss by {format_value(error)} (RMSE)"
    if total > 0:
        r2 = 1 - float(((record.prediction - y) ** 2).sum()) / total
        title = f"{title}; R2 is {r2:.2f}" + (": worse than the mean" if r2 < 0 else "")
    shown = np.unique(np.linspace(0, len(y) - 1, min(len(y), MAX_POINTS)).astype(int))
    lead = leading(record.gate)[shown]
    body: tuple[Row, ...] = tuple(
        (record.row_names[i], Cell(float(record.prediction[i])), Cell(float(y[i])), Cell(f"expert {k}"))
        for i, k in zip(shown.tolist(), lead.tolist(), strict=True)
    )
    label = target(record)
    return scatter(
        title,
        record.prediction[shown],
        y[shown],
        lead,
        record.gate[shown].max(1),
        labels=(f"predicted {label}", f"observed {label}"),
        n_experts=record.n_experts,
        table=Table(("row", "predicted", "observed", "leads"), body, f"{label}, predicted and observed"),
        alt=f"{title}. Points of {rows(len(shown))}: observed over predicted {label}, by leading expert.",
        diagonal=True,
        note=f"{rows(len(shown))} of {len(y):,}. Paler: the gate is less sure.",
    )


# ---- classes


def bins(record: MixtureRecord, y: Floats) -> tuple[Floats, Floats, npt.NDArray[np.intp], str]:
    """Stated probability, found share and count in each bin, and what the probability is of."""
    if len(record.classes) == 2:
        stated, right, what = record.prediction[:, 1], y == 1, f"P({record.classes[1]})"
    else:
        stated, right = record.prediction.max(1), record.prediction.argmax(1) == y
        what = "probability of the predicted class"
    place = np.minimum((stated * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    some = np.maximum(count, 1)
    said = np.bincount(place, stated, BINS) / some
    found = np.bincount(place, right.astype(np.float64), BINS) / some
    return said[count > 0], found[count > 0], count[count > 0], what


def reliability(record: MixtureRecord, y: Floats) -> Figure:
    """Stated probabilities against found shares, with the expected calibration error."""
    stated, found, count, what = bins(record, y)
    gap = float((count * np.abs(stated - found)).sum() / count.sum())
    lean = float((count * (stated - found)).sum() / count.sum())
    way = "too high" if lean > 0 else "too low"
    title = f"Stated probabilities are off by {100 * gap:.1f} points on average"
    title += f", and {way} by {abs(100 * lean):.1f}" if abs(lean) > 0.01 else ""

    def draw(figure: object) -> None:
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])  # type: ignore[attr-defined]
        top.plot([0, 1], [0, 1], color=stand_in("muted"), linestyle=(0, (5, 2.4)), linewidth=1.2)
        top.plot(stated, found, color=stand_in("series-1"), marker="o", markersize=5, linewidth=1.8)
        top.set_ylim(-0.03, 1.03)
        top.set_xlim(-0.02, 1.02)
        top.set_ylabel("found share")
        low.bar(stated, count, width=0.05, color=stand_in("series-1"))
        low.set_ylabel("rows")
        low.set_xlabel(f"stated {what}")

    body: tuple[Row, ...] = tuple(
        (Cell(float(s), 3), Cell(float(f), 3), Cell(int(c)))
        for s, f, c in zip(stated, found, count, strict=True)
    )
    return figures.figure_of(
        title,
        draw,
        height=300,
        alt=f"{title}. Found share over stated {what} in {len(count)} bins, and the rows in each.",
        table=Table(("stated (mean of the bin)", "found share", "rows"), body, f"Reliability of {what}"),
        legend=(LegendEntry("found", "series-1", "circle"), LegendEntry("as stated", "muted", "dashed")),
        note=f"Expected calibration error {gap:.3f}: the gap of {BINS} equal bins, weighted by their rows. "
        "With few rows it is above 0 by chance alone.",
    )


def _confusion(record: MixtureRecord, y: Floats) -> Table:
    v = len(record.classes)
    counts = np.zeros((v, v), dtype=int)
    np.add.at(counts, (y.astype(int), record.prediction.argmax(1)), 1)
    body: tuple[Row, ...] = tuple(
        (
            name,
            *(
                Cell(
                    int(count),
                    bar="series-1" if i == j else "series-2",
                    length=float(count / max(counts[i].sum(), 1)),
                    strong=False,
                )
                for j, count in enumerate(counts[i])
            ),
            Cell(int(counts[i].sum())),
        )
        for i, name in enumerate(record.classes)
    )
    right = float(np.trace(counts) / max(counts.sum(), 1))
    head = ("observed", *(f"predicted {name}" for name in record.classes), "rows")
    return Table(head, body, f"{percent(right)} of the answers are right; bars: share of the observed class")
