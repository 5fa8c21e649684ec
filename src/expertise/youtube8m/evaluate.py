"""Evaluation: a model's loss and metrics on labelled videos, once or following a run that trains."""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import Any

from expertise._progress import progress
from expertise.youtube8m import checkpoint
from expertise.youtube8m._evaluation_table import show
from expertise.youtube8m.checkpoint import CheckpointError
from expertise.youtube8m.ensemble import Ensemble, Predictor, load_models, split_paths
from expertise.youtube8m.flag_rules import check
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.loading import check_segments, find_export, load_model
from expertise.youtube8m.measure import Evaluation, Unit, measure
from expertise.youtube8m.metrics import NoLabelError
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.readers import VideoSource, open_videos
from expertise.youtube8m.videos import FeatureSpec

POLL_SECONDS = 5.0  # between two looks for a new export


def evaluate_source(
    model: Predictor,
    source: VideoSource,
    batch_size: int,
    top_k: int = 20,
    *,
    advance: Callable[[int], None] | None = None,
    processes: Processes | None = None,
) -> Evaluation:
    """Evaluate a model on all videos of a source, or on all rated segments where it has those.

    Dropout and the like are off meanwhile.

    Parameters
    ----------
    model : one, or an `Ensemble`; see `measure` for each of its members beside it.
    top_k : how many of the best classes of each video count for GAP and mAP.
    advance : called with the number of videos after each batch.
    processes : those that evaluate together, each a part of every batch; all get the whole result.

    Raises
    ------
    NoLabelError : no video has a label, or no segment a positive rating.
    ValueError : there is no video, or a prediction is NaN.
    """
    return measure(model, source, batch_size, top_k, advance=advance, processes=processes)[0]


def write_evaluation(
    train_dir: str | Path, evaluation: Evaluation, data_pattern: str = "", more: Sequence[Evaluation] = ()
) -> Path:
    """Write train_dir/evaluation/step_N.json, whole or not at all: the metrics, and every class.

    Those of segments stand under "segments". ``more``: of the same model, on other units of the same data.
    """
    file = Path(train_dir) / "evaluation" / f"step_{evaluation.step}.json"
    values: dict[str, Any] = {"step": evaluation.step, "data_pattern": data_pattern}
    for one in (evaluation, *more):
        values |= one.values()
    checkpoint.write_json(file, values)
    return file


def evaluate(flags: Flags) -> dict[str, Any]:
    """Evaluate the newest export of ``flags.train_dir``; without ``run_once`` also each that follows.

    Prints a table and writes train_dir/evaluation/step_N.json for each. Following ends when the run has
    finished and its last export is evaluated, or on Ctrl-C. With ``segment_labels`` the rated segments of the
    records are evaluated too. Where ``train_dir`` is several with commas, their newest exports are averaged
    and evaluated once, each of them beside the average; the file is FIRST/evaluation/average_HASH.json, one
    for each set of exports.

    Returns
    -------
    The step and the metrics of the last evaluation, with those of segments under "segments"; empty where
    Ctrl-C came before the first. Of several models: "average", the metrics, and "members", a list of theirs.

    Raises
    ------
    FlagError : a flag is wrong, or there is nothing to evaluate.
    RecordError : a record is corrupt.
    CheckpointError : the weights can't be read.
    ValueError : no video has a label, or a prediction is NaN.
    """
    check(flags, "eval")
    folders = split_paths(flags.train_dir)
    if len(folders) > 1:
        return _evaluate_average(flags, folders)
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
    """The videos to evaluate on, and their segments; opened once for models that take the same features."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._opened: dict[tuple[FeatureSpec, int, FrameReading | None], VideoSource] = {}

    def of(self, model: ModelFlags) -> dict[Unit, VideoSource]:
        """Open the videos as the model takes them; with --segment_labels their rated segments too."""
        spec = FeatureSpec(model.feature_names, model.feature_sizes)
        readings: dict[Unit, FrameReading | None] = {"videos": model.reading()}
        if self._flags.segment_labels:
            readings["segments"] = model.reading("rated")
        keys = {unit: (spec, model.num_classes, reading) for unit, reading in readings.items()}
        self._opened = {
            key: self._opened[key] if key in self._opened else self._open(*key) for key in keys.values()
        }
        return {unit: self._opened[key] for unit, key in keys.items()}

    def _open(self, spec: FeatureSpec, num_classes: int, reading: FrameReading | None) -> VideoSource:
        return open_videos(
            self._flags.eval_data_pattern,
            spec,
            num_classes,
            frames=reading,
            cache_dir=self._flags.cache_dir,
            num_readers=self._flags.num_readers,
            skip_corrupt=self._flags.skip_corrupt_records,
            flag="eval_data_pattern",
        )


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
    title = f"step {model.step}"
    [found] = _evaluate(flags, model, str(folder), title, data)
    show(title, (), [found])  # first: in a folder that may only be read, the file can't be written
    file = write_evaluation(flags.train_dir, found[0], flags.eval_data_pattern, found[1:])
    print(f"all classes are in {file}")
    return {"step": model.step, **_flat(found)}


def _evaluate_average(flags: Flags, folders: Sequence[str]) -> dict[str, Any]:
    """Evaluate the average of several runs and each of them, tell what came out, and write it down."""
    if not flags.run_once:
        print("several models are evaluated once, as with --run_once", file=sys.stderr)
    model = load_models(flags.train_dir, device=flags.device, precision=flags.precision)
    assert isinstance(model, Ensemble)
    title = f"average of {len(folders)} models ({model.average})"
    rows = _evaluate(flags, model, folders[0], title, _Data(flags))
    members = [
        {"train_dir": folder, "step": member.step, **_flat(row)}
        for folder, member, row in zip(folders, model.members, rows[1:], strict=True)
    ]
    resolved = [Path(folder).resolve() for folder in folders]
    exports = [f"{path} {member.step}" for path, member in zip(resolved, model.members, strict=True)]
    digest = hashlib.sha256("\n".join([model.average, *exports]).encode())
    file = Path(folders[0]) / "evaluation" / f"average_{digest.hexdigest()[:8]}.json"
    values: dict[str, Any] = {"average": model.average, "data_pattern": flags.eval_data_pattern}
    for one in rows[0]:
        values |= one.values()
    above = os.path.commonpath(resolved)
    show(title, ["average", *(str(path.relative_to(above)) for path in resolved)], rows)
    checkpoint.write_json(file, {**values, "members": members})
    print(f"all classes are in {file}")
    return {"average": model.average, **_flat(rows[0]), "members": members}


def _evaluate(flags: Flags, model: Predictor, where: str, title: str, data: _Data) -> list[list[Evaluation]]:
    """Evaluate on videos, and on segments with --segment_labels.

    Returns
    -------
    The evaluations of the model; of an `Ensemble` those of the average, then those of each member.
    """
    if flags.segment_labels:
        check_segments(model.flags, where)
    found: list[list[Evaluation]] = []
    for unit, source in data.of(model.flags).items():
        # without a cache all files would be read only to count their videos
        total = None if flags.cache_dir == "none" else source.num_videos
        try:
            if total is not None and not source.label_counts.any():
                raise NoLabelError(_no_label(flags, unit, total))
            with progress(f"evaluate {title}", total, unit) as meter:
                found.append(measure(model, source, flags.batch_size, flags.top_k, advance=meter.advance))
        except NoLabelError:
            if unit == "segments" or not flags.segment_labels:
                raise
            print("no video has a label: only segments are evaluated", file=sys.stderr)
    return [list(row) for row in zip(*found, strict=True)]


def _no_label(flags: Flags, unit: Unit, total: int) -> str:
    what, which = (
        ("videos has a label", "evaluate on the train or validate partition, the test one has none")
        if unit == "videos"
        else ("segments has a positive rating", "of the 2019 data, the validate partition is rated")
    )
    return (
        f"--eval_data_pattern={flags.eval_data_pattern}: none of the {total:,} {what}, so there is nothing "
        f"to measure; {which}"
    )


def _flat(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Give the figures of one model, those of segments under "segments"."""
    found: dict[str, Any] = {}
    for one in evaluations:
        found |= {"segments": one.metrics} if one.unit == "segments" else one.metrics
    return found
