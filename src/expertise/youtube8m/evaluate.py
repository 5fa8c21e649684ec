"""Evaluation: a model's loss and metrics on labelled videos, once or following a run that trains."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expertise._progress import progress
from expertise.youtube8m import checkpoint
from expertise.youtube8m.checkpoint import CheckpointError
from expertise.youtube8m.flag_rules import check
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import VideoModel, find_export, load_model
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.metrics import PerClass, VideoMetrics
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.readers import VideoSource, open_videos
from expertise.youtube8m.videos import FeatureSpec

POLL_SECONDS = 5.0  # between two looks for a new export
_SHOWN_CLASSES = 10


@dataclass(frozen=True)
class Evaluation:
    """What one model gave on one set of videos.

    metrics : loss, hit_at_1, perr, map, gap, num_classes_in_map and num_videos.
    """

    step: int
    metrics: dict[str, float | int]
    per_class: PerClass
    class_names: tuple[str, ...]
    top_k: int


def evaluate_source(
    model: VideoModel,
    source: VideoSource,
    batch_size: int,
    top_k: int = 20,
    *,
    advance: Callable[[int], None] | None = None,
    processes: Processes | None = None,
) -> Evaluation:
    """Evaluate a model on all videos of a source; dropout and the like are off meanwhile.

    Parameters
    ----------
    advance : called with the number of videos after each batch.
    processes : those that evaluate together, each a part of every batch; all get the whole result.

    Raises
    ------
    ValueError : there is no video, none has a label, or a prediction is NaN.
    """
    together = processes or Processes.one(model.device)
    label_loss = LOSSES[model.flags.label_loss]
    metrics = VideoMetrics(model.flags.num_classes, top_k)
    loss = 0.0
    training = model.module.training
    model.module.eval()
    try:
        for batch in source.batches(batch_size * together.world, part=together.part):
            predictions_BC = model.predict(batch.features, batch.lengths)
            loss += label_loss(predictions_BC, batch.labels, rows=1.0).item()
            metrics.update(predictions_BC, batch.labels)
            if advance is not None:
                advance(len(batch.ids))
    finally:
        model.module.train(training)
    metrics, loss = _whole(metrics, loss, together)
    result = metrics.compute()
    return Evaluation(
        model.step,
        {"loss": loss / result["num_videos"], **result},
        metrics.per_class(),
        model.class_names,
        top_k,
    )


def _whole(metrics: VideoMetrics, loss: float, processes: Processes) -> tuple[VideoMetrics, float]:
    """Join the figures of all processes."""
    if processes.world == 1:
        return metrics, loss
    whole, total = VideoMetrics(metrics.num_classes, metrics.top_k), 0.0
    for part, part_loss in processes.collect((metrics, loss)):
        whole.merge(part)
        total += part_loss
    return whole, total


def write_evaluation(train_dir: str | Path, evaluation: Evaluation, data_pattern: str = "") -> Path:
    """Write train_dir/evaluation/step_N.json, whole or not at all: the metrics, and every class.

    A class without a positive has the average precision null.
    """
    file = Path(train_dir) / "evaluation" / f"step_{evaluation.step}.json"
    average_precision, positives = evaluation.per_class
    values = {
        "step": evaluation.step,
        "data_pattern": data_pattern,
        "top_k": evaluation.top_k,
        **evaluation.metrics,
        "classes": [
            {
                "index": index,
                "name": name,
                "positives": int(positives[index]),
                "average_precision": None if np.isnan(ap := float(average_precision[index])) else ap,
            }
            for index, name in enumerate(evaluation.class_names)
        ],
    }
    checkpoint.write_json(file, values)
    return file


def evaluate(flags: Flags) -> dict[str, Any]:
    """Evaluate the newest export of ``flags.train_dir``; without ``run_once`` also each that follows.

    Prints a table and writes train_dir/evaluation/step_N.json for each. Following ends when the run has
    finished and its last export is evaluated, or on Ctrl-C.

    Returns
    -------
    The step and the metrics of the last evaluation; empty where Ctrl-C came before the first.

    Raises
    ------
    FlagError : a flag is wrong, or there is nothing to evaluate.
    RecordError : a record is corrupt.
    CheckpointError : the weights can't be read.
    ValueError : no video has a label, or a prediction is NaN.
    """
    check(flags, "eval")
    if flags.run_once or (Path(flags.train_dir) / "model.safetensors").is_file():
        folder, _ = find_export(flags.train_dir)
        return _evaluate_export(flags, folder, _Data(flags))
    result: dict[str, Any] = {}
    try:
        _follow(flags, result)
    except KeyboardInterrupt:
        seen = f"the last step evaluated is {result['step']}" if result else "no step was evaluated"
        print(f"stopped; {seen}", file=sys.stderr)
    return result


class _Data:
    """The videos to evaluate on, opened once for all models that take the same features."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._opened: tuple[tuple[FeatureSpec, int], VideoSource] | None = None

    def of(self, model: VideoModel) -> VideoSource:
        """Open the videos as the model takes them."""
        spec = FeatureSpec(model.flags.feature_names, model.flags.feature_sizes)
        key = spec, model.flags.num_classes
        if self._opened is None or self._opened[0] != key:
            source = open_videos(
                self._flags.eval_data_pattern,
                *key,
                frames=model.flags.reading(),
                cache_dir=self._flags.cache_dir,
                num_readers=self._flags.num_readers,
                skip_corrupt=self._flags.skip_corrupt_records,
                flag="eval_data_pattern",
            )
            self._opened = key, source
        return self._opened[1]


def _follow(flags: Flags, result: dict[str, Any]) -> None:
    """Evaluate each new export until the run has finished; ``result`` always holds the newest evaluation."""
    train_dir = Path(flags.train_dir)
    data = _Data(flags)
    said = False
    while True:
        finished = (train_dir / "finished.json").is_file()  # asked first: the last export is there by then
        exports = checkpoint.steps_of(train_dir, "export")
        newest = max(exports, default=None)
        if newest is not None and newest != result.get("step"):
            try:
                result.update(_evaluate_export(flags, exports[newest], data))
            except (FlagError, CheckpointError):
                if newest == max(checkpoint.steps_of(train_dir, "export"), default=None):
                    raise
            continue  # newer exports may have come meanwhile, and this one may have been removed for them
        if finished:
            if newest is None:
                raise FlagError(f"--train_dir={train_dir}: the run has finished, but there is no export")
            return
        if not said:
            said = True
            what = "the first export" if newest is None else "the next export"
            print(f"waiting for {what} in {train_dir}; Ctrl-C ends", file=sys.stderr)
        sleep(POLL_SECONDS)


def _evaluate_export(flags: Flags, folder: Path, data: _Data) -> dict[str, Any]:
    """Evaluate one export, tell what came out, and write it down."""
    model = load_model(folder, device=flags.device, precision=flags.precision)
    source = data.of(model)
    # without a cache all files would be read only to count their videos
    total = None if flags.cache_dir == "none" else source.num_videos
    if total is not None and not source.label_counts.any():
        raise FlagError(
            f"--eval_data_pattern={flags.eval_data_pattern}: none of the {total:,} videos has a label, so "
            "there is nothing to measure; evaluate on the train or validate partition, the test one has none"
        )
    with progress(f"evaluate step {model.step}", total, "videos") as meter:
        evaluation = evaluate_source(model, source, flags.batch_size, flags.top_k, advance=meter.advance)
    file = write_evaluation(flags.train_dir, evaluation, flags.eval_data_pattern)
    _show(evaluation, file)
    return {"step": evaluation.step, **evaluation.metrics}


def _show(evaluation: Evaluation, file: Path) -> None:
    """Print the metrics, and the average precision of the most frequent classes."""
    console = Console()
    metrics = evaluation.metrics
    table = Table(title=f"step {evaluation.step}, {metrics['num_videos']:,} videos", title_justify="left")
    columns = {"loss": "loss", "hit_at_1": "Hit@1", "perr": "PERR", "map": "mAP", "gap": "GAP"}
    for title in columns.values():
        table.add_column(title, justify="right")
    table.add_row(*(f"{metrics[name]:.4f}" for name in columns))
    console.print(table)

    average_precision, positives = evaluation.per_class
    frequent = np.argsort(-positives, kind="stable")[:_SHOWN_CLASSES]
    table = Table(title="the most frequent classes", title_justify="left")
    table.add_column("class")
    table.add_column("videos", justify="right")
    table.add_column("AP", justify="right")
    for index in frequent[positives[frequent] > 0]:
        name = Text(evaluation.class_names[index])  # a name may look like rich's markup
        table.add_row(name, f"{positives[index]:,}", f"{average_precision[index]:.4f}")
    console.print(table)
    print(f"mAP is over {metrics['num_classes_in_map']:,} classes that have a video; all are in {file}")
