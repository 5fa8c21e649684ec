"""Sections that set runs beside one another: who wins, how they learned, class by class."""

from collections.abc import Mapping, Sequence

import numpy as np

from expertise.report import figures
from expertise.report._colours import series_colour
from expertise.report.page import Block, Cell, Prose, Table, format_value
from expertise.report.runs import Run

METRICS = {"gap": "GAP", "map": "mAP", "perr": "PERR", "hit_at_1": "Hit@1"}
METRIC_WORDS = (
    "GAP: the average precision of all answers of all videos, pooled and sorted by score. mAP: the mean of "
    "the classes' average precisions. PERR: the precision among as many answers as a video has labels. "
    "Hit@1: the share of videos whose best answer is right. In all of them 1 is perfect; of the loss, less "
    "is better."
)
MAX_CLASSES = 24  # rows of a figure; the most frequent classes
EQUAL = 0.02  # numbers of parameters that differ by less count as equal
_SERIES_MARKS = ("square", "circle", "diamond", "triangle")


# ---- who wins


def _ranked(runs: Sequence[Run], metric: str = "gap") -> list[Run]:
    known = [run for run in runs if not np.isnan(run.metric(metric))]
    return sorted(known, key=lambda run: -run.metric(metric))


def _level(a: float, b: float) -> bool:
    return format_value(a, 3) == format_value(b, 3)


def lead(runs: Sequence[Run]) -> str:
    ranked = _ranked(runs)
    if not ranked:
        return "Training has begun; nothing is evaluated yet."
    best, others = ranked[0], ranked[1:]
    videos = (best.evaluation or {}).get("num_videos")
    where = f" on {videos:,} videos" if videos else ""
    score = format_value(best.metric("gap"), 3)
    if not others:
        return f"{best.name} reaches GAP {score}{where}."
    rest = ", ".join(f"{run.name} {format_value(run.metric('gap'), 3)}" for run in others)
    if _level(best.metric("gap"), others[0].metric("gap")):
        return f"No winner: {best.name} and {others[0].name} both reach GAP {score}{where} ({rest})."
    return f"{best.name} wins with GAP {score}{where}; {rest}."


def _comparisons(runs: Sequence[Run]) -> list[str]:
    """A sentence for every pair: how far apart, with as many parameters and steps as which."""
    ranked = _ranked(runs)
    sentences = []
    for place, better in enumerate(ranked):
        for worse in ranked[place + 1 :]:
            a, b = better.metric("gap"), worse.metric("gap")
            figures_of = f"GAP {format_value(a, 3)} against {format_value(b, 3)}"
            verb = "and {} are level" if _level(a, b) else "beats {}"
            sentences.append(
                f"{_same(better, worse)}, {better.name} {verb.format(worse.name)}: {figures_of}."
            )
    return sentences


def _same(a: Run, b: Run) -> str:
    steps = (
        "With the same steps" if a.steps == b.steps else f"After {a.steps or 0:,} and {b.steps or 0:,} steps"
    )
    if not a.parameters or not b.parameters:
        return steps
    ratio = a.parameters / b.parameters
    if abs(ratio - 1) < EQUAL:
        return f"{steps} and {'exactly' if ratio == 1 else 'nearly'} as many parameters"
    more = f"{max(ratio, 1 / ratio):.1f} times {'as many' if ratio > 1 else 'fewer'} parameters"
    return f"{steps} and {more}"


def result(runs: Sequence[Run], about: Sequence[str]) -> tuple[Block, ...]:
    evaluated = [run for run in runs if run.evaluation]
    blocks: list[Block] = [Prose(tuple(about))] if about else []
    if not evaluated:
        return tuple(blocks)
    columns = {**METRICS, "loss": "Loss"}
    best = {
        metric: (min if metric == "loss" else max)(round(run.metric(metric), 3) for run in evaluated)
        for metric in columns
    }
    rows = tuple(
        (
            Cell(run.name, colour=series_colour(runs.index(run))),
            run.parameters,
            run.steps,
            *(
                Cell(
                    run.metric(metric),
                    3,
                    strong=len(evaluated) > 1 and round(run.metric(metric), 3) == best[metric],
                )
                for metric in columns
            ),
        )
        for run in evaluated
    )
    videos = evaluated[0].metric("num_videos")
    table = Table(
        ("model", "parameters", "steps", *columns.values()),
        rows,
        f"Evaluated on {format_value(videos, 0)} videos that were not trained on.",
    )
    return (*blocks, table, Prose((" ".join(_comparisons(runs)), METRIC_WORDS)))


# ---- how they learned


def learning(runs: Sequence[Run]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    evaluated = [run for run in runs if run.series("eval", "loss")[0]]
    loss = [
        figures.Line(f"{run.name}{suffix}", *run.series(kind, "loss"), series_colour(runs.index(run)), mark)
        for kind, suffix, mark in (("eval", "", "line"), ("train", ", in training", "dotted"))
        for run in runs
        if run.series(kind, "loss")[0]
    ]
    if loss:
        title = _end_title(evaluated or runs, "eval" if evaluated else "train", "loss", "Loss", lowest=True)
        blocks.append(figures.lines(title, loss, x_label="training steps", y_label="loss (nats per video)"))
    for metric, word in METRICS.items():
        kind = "eval" if evaluated else "train"
        shown = [run for run in runs if run.series(kind, metric)[0]]
        if not shown or metric == "perr":  # four figures fill the page; PERR stands in the table
            continue
        lines = [
            figures.Line(run.name, *run.series(kind, metric), series_colour(runs.index(run))) for run in shown
        ]
        title = _end_title(shown, kind, metric, word)
        blocks.append(figures.lines(title, lines, x_label="training steps", y_label=f"{word} (1 is perfect)"))
    if evaluated and blocks:
        what = "Solid lines: videos that were held back from training, evaluated as training went on."
        blocks.insert(0, Prose((f"{what} Dotted lines: the batches that were just trained on.",)))
    return tuple(blocks)


def _end_title(runs: Sequence[Run], kind: str, metric: str, word: str, *, lowest: bool = False) -> str:
    ends = {run.name: run.series(kind, metric)[1][-1] for run in runs if run.series(kind, metric)[1]}
    ranked = sorted(ends, key=lambda name: ends[name] if lowest else -ends[name])
    words = [f"{name} {format_value(ends[name], 3)}" for name in ranked]
    if len(words) == 1:
        return f"{word} of {ranked[0]} ends at {format_value(ends[ranked[0]], 3)}"
    if _level(ends[ranked[0]], ends[ranked[1]]):
        return f"{word}: {ranked[0]} and {ranked[1]} end level ({', '.join(words)})"
    return f"{word}: {ranked[0]} ends {'lowest' if lowest else 'highest'} ({', '.join(words)})"


# ---- class by class


def by_class(runs: Sequence[Run]) -> tuple[Block, ...]:
    by_run = {
        run.name: {one["name"]: _number(one["average_precision"]) for one in run.classes}
        for run in runs
        if run.classes
    }
    if not by_run:
        return ()
    first = next(run for run in runs if run.classes)
    found = [one for one in first.classes if one["positives"]]
    found.sort(key=lambda one: (-one["positives"], one["name"]))
    shown = found[:MAX_CLASSES]
    names = [one["name"] for one in shown]
    dots = [
        figures.Dots(
            run.name,
            [by_run[run.name].get(name, np.nan) for name in names],
            series_colour(place),
            _SERIES_MARKS[place % len(_SERIES_MARKS)],
        )
        for place, run in enumerate(runs)
        if run.name in by_run
    ]
    videos = first.metric("num_videos")
    if videos > 0:
        dots.append(figures.Dots("by chance", [one["positives"] / videos for one in shown], "nobody", "tick"))
    few = f"The {len(shown)} most frequent of {len(found)} classes. " if len(shown) < len(found) else ""
    return (
        figures.dots(
            _class_title(by_run, [one["name"] for one in found]),
            names,
            dots,
            row_label="class",
            x_label="average precision (1 is perfect)",
            note=f"{few}Most frequent class first. By chance: the share of videos that have the class.",
            wide=True,
        ),
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _class_title(by_run: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> str:
    if len(by_run) == 1:
        run, scores = next(iter(by_run.items()))
        best, worst = (pick(names, key=lambda name: scores[name]) for pick in (max, min))
        return f"{run} is best at {best} ({scores[best]:.3f}) and worst at {worst} ({scores[worst]:.3f})"
    values = np.array([[scores.get(name, np.nan) for name in names] for scores in by_run.values()])
    wins = (np.round(values, 3) == np.nanmax(np.round(values, 3), axis=0)).sum(axis=1)
    order = np.argsort(-wins, kind="stable")
    runs = list(by_run)
    parts = [f"{runs[i]} in {wins[i]}" for i in order]
    shared = " (equal ones count for both)" if wins.sum() > len(names) else ""
    return f"Best average precision, of {len(names)} classes: {', '.join(parts)}{shared}"
