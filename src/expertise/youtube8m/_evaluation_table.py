"""What an evaluation prints: a row of figures for each model, and the most frequent classes."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expertise.youtube8m.measure import Evaluation
from expertise.youtube8m.segment_metrics import SegmentsPerClass

_SHOWN_CLASSES = 10
_FIGURES = {
    "videos": {"loss": "loss", "hit_at_1": "Hit@1", "perr": "PERR", "map": "mAP", "gap": "GAP"},
    "segments": {"loss": "segment loss", "map": "segment mAP"},
}
_TITLES = {"videos": "the most frequent classes", "segments": "the most frequent classes in segments"}


def show(title: str, names: Sequence[str], rows: Sequence[Sequence[Evaluation]]) -> None:
    """Print the figures, those of the first row class by class.

    Parameters
    ----------
    names : of the rows; empty where there is only one.
    rows : for each model its evaluations, of videos, of segments, or of both.
    """
    console = Console()
    first = rows[0]
    table = Table(title=f"{title}, {', '.join(map(_size, first))}", title_justify="left")
    if names:
        table.add_column("model", overflow="fold")
    for evaluation in first:
        for heading in _FIGURES[evaluation.unit].values():
            table.add_column(heading, justify="right")
    for number, row in enumerate(rows):
        figures = [f"{one.metrics[name]:.4f}" for one in row for name in _FIGURES[one.unit]]
        table.add_row(*([Text(names[number])] if names else []), *figures)
    console.print(table)
    for evaluation in first:
        console.print(_frequent_classes(evaluation))
    for evaluation in first:
        print(_about_map(evaluation))


def _size(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    if evaluation.unit == "videos":
        return f"{metrics['num_videos']:,} videos"
    return f"{metrics['num_segments']:,} segments with {metrics['num_ratings']:,} ratings"


def _about_map(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    counted = f"{metrics['num_classes_in_map']:,} classes"
    if evaluation.unit == "videos":
        return f"mAP is over {counted} that have a video"
    return (
        f"segment mAP@{evaluation.top_k:,} is over {counted} with a positive rating; "
        f"{metrics['num_classes_without_positive']:,} rated classes have none"
    )


def _frequent_classes(evaluation: Evaluation) -> Table:
    found = evaluation.per_class
    frequent = np.argsort(-found.positives, kind="stable")[:_SHOWN_CLASSES]
    table = Table(title=_TITLES[evaluation.unit], title_justify="left")
    table.add_column("class")
    table.add_column(evaluation.unit, justify="right")
    if isinstance(found, SegmentsPerClass):
        table.add_column("ratings", justify="right")
    table.add_column("AP", justify="right")
    for index in frequent[found.positives[frequent] > 0]:
        cells = [f"{found.positives[index]:,}", f"{found.average_precision[index]:.4f}"]
        if isinstance(found, SegmentsPerClass):
            cells.insert(1, f"{found.ratings[index]:,}")
        # a name may look like rich's markup
        table.add_row(Text(evaluation.class_names[index]), *cells)
    return table
