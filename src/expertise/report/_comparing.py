"""Sections that set runs beside one another: who wins, how they learned, class by class."""

from collections.abc import Mapping, Sequence

import numpy as np

from expertise.report import figures
from expertise.report._colours import series_colour
from expertise.report.page import Block, Cell, LegendEntry, Prose, Table, format_value
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
        f"On {format_value(videos, 0)} videos of the evaluation. Bold: the best of a column.",
    )
    return (*blocks, table, Prose((), tuple(_comparisons(runs))), Prose((METRIC_WORDS,)))


# ---- how they learned


def learning(runs: Sequence[Run]) -> tuple[Block, ...]:
    """Loss and metrics over the steps of training."""
    evaluated = [run for run in runs if run.series("eval", "loss")[0]]
    kind, curves = ("eval", evaluated) if evaluated else ("train", runs)
    blocks: list[Block] = []
    for metric, word in {"loss": "loss", "gap": "GAP", "map": "mAP", "hit_at_1": "Hit@1"}.items():
        shown = [run for run in curves if run.series(kind, metric)[0]]
        if not shown:
            continue
        lines = [_curve(runs, run, kind, metric) for run in shown]
        legend = [LegendEntry(line.name, line.colour, line.mark) for line in lines]
        if evaluated and metric == "loss":
            lines += [_curve(runs, run, "train", metric) for run in runs if run.series("train", metric)[0]]
            legend.append(LegendEntry("the batches in training", "muted", "dotted"))
        unit = "nats per video" if metric == "loss" else "1 is perfect"
        blocks.append(
            figures.lines(
                _end_title(shown, kind, metric, word),
                lines,
                x_label="training steps",
                y_label=f"{word} ({unit})",
                legend=legend,
            )
        )
    if evaluated and blocks:
        blocks.insert(0, Prose(("Measured while training went on, on videos held back from it.",)))
    return tuple(blocks)


def _curve(runs: Sequence[Run], run: Run, kind: str, metric: str) -> figures.Line:
    held_back = kind == "eval" or not run.series("eval", metric)[0]
    name, mark = (run.name, "line") if held_back else (f"{run.name}, in training", "dotted")
    return figures.Line(name, *run.series(kind, metric), series_colour(runs.index(run)), mark)


def _end_title(runs: Sequence[Run], kind: str, metric: str, word: str) -> str:
    ends = {run.name: run.series(kind, metric)[1][-1] for run in runs}
    ranked = sorted(ends, key=lambda name: ends[name] if metric == "loss" else -ends[name])
    shown = {name: format_value(ends[name], 3) for name in ranked}
    best, others = ranked[0], ranked[1:]
    if not others:
        return f"{best} ends with {word} {shown[best]}"
    if shown[best] == shown[others[0]]:
        also = "; ".join(f"{name} {shown[name]}" for name in others[1:])
        return f"{best} and {others[0]} end level, with {word} {shown[best]}{'; ' + also if also else ''}"
    rest = ", ".join(f"{name} {shown[name]}" for name in others)
    return f"{best} ends with the {'lowest' if metric == 'loss' else 'highest'} {word}, {shown[best]}; {rest}"


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
    first = f"{runs[order[0]]} is best in {wins[order[0]]} of {len(names)} classes"
    rest = ", ".join(f"{runs[i]} in {wins[i] or 'none'}" for i in order[1:])
    return f"{first}; {rest}{' (ties count for both)' if wins.sum() > len(names) else ''}"
