"""A model's figures on a source of videos or of segments, gathered in one pass.

Letters: B videos of a batch, C classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from expertise.youtube8m.ensemble import Ensemble, Predictor
from expertise.youtube8m.loading import VideoModel
from expertise.youtube8m.losses import LOSSES, LabelLoss
from expertise.youtube8m.metrics import PerClass, VideoMetrics
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.readers import Batch, VideoSource
from expertise.youtube8m.segment_metrics import SegmentMetrics, SegmentsPerClass

Metrics: TypeAlias = VideoMetrics | SegmentMetrics
Unit = Literal["videos", "segments"]


@dataclass(frozen=True)
class Evaluation:
    """What one model gave on one source.

    metrics : of videos loss, hit_at_1, perr, map, gap, num_classes_in_map and num_videos; of segments loss,
        map, num_classes_in_map, num_classes_without_positive, num_segments and num_ratings.
    top_k : how many of the best entries of each video, or of the best segments of each class, count.
    """

    unit: Unit
    step: int
    metrics: dict[str, float | int]
    per_class: PerClass | SegmentsPerClass
    class_names: tuple[str, ...]
    top_k: int

    def values(self) -> dict[str, Any]:
        """Give all as JSON takes it. A class without a positive has the average precision null.

        Of videos all classes are listed; of segments, which stand under "segments", those with a rating.
        """
        columns = {name: column.tolist() for name, column in self.per_class._asdict().items()}
        precisions = columns.pop("average_precision")
        listed: Iterable[int] = range(len(self.class_names))
        if isinstance(self.per_class, SegmentsPerClass):
            listed = np.flatnonzero(self.per_class.ratings).tolist()
        classes = [
            {
                "index": index,
                "name": self.class_names[index],
                **{key: column[index] for key, column in columns.items()},
                "average_precision": None if np.isnan(precisions[index]) else precisions[index],
            }
            for index in listed
        ]
        found = {"top_k": self.top_k, **self.metrics, "classes": classes}
        return {"segments": found} if self.unit == "segments" else found


@dataclass
class _Figures:
    """What one process has gathered for one answer; the sum of the label losses and the metrics."""

    metrics: Metrics
    loss: float = 0.0

    def update(self, predictions_BC: Tensor, batch: Batch, label_loss: LabelLoss) -> None:
        self.loss += label_loss(predictions_BC, batch.labels, batch.rated, rows=1.0).item()
        if isinstance(self.metrics, SegmentMetrics):
            assert batch.rated is not None
            self.metrics.update(predictions_BC, batch.labels, batch.rated)
        else:
            self.metrics.update(predictions_BC, batch.labels)


def measure(
    model: Predictor,
    source: VideoSource,
    batch_size: int,
    top_k: int = 20,
    *,
    advance: Callable[[int], None] | None = None,
    processes: Processes | None = None,
) -> list[Evaluation]:
    """Evaluate a model on all videos, or rated segments, of a source: whichever its batches hold.

    Returns
    -------
    The evaluation of the model; of an `Ensemble` that of the average, and behind it one of each member.

    Raises
    ------
    NoLabelError : no video has a label, or no segment a positive rating.
    ValueError : there is no video, or a prediction is NaN.
    """
    together = processes or Processes.one(model.device)
    members = model.members if isinstance(model, Ensemble) else (model,)
    label_loss = LOSSES[model.flags.label_loss]
    gathered: list[_Figures] = []
    with _evaluating(members):
        for batch in source.batches(batch_size * together.world, part=together.part):
            answers = _answers(model, batch)
            gathered = gathered or [_Figures(_empty(model, batch, top_k)) for _ in answers]
            for figures, predictions_BC in zip(gathered, answers, strict=True):
                figures.update(predictions_BC, batch, label_loss)
            if advance is not None:
                advance(len(batch.ids))
    if not gathered:
        raise ValueError("there is no video, or no segment with a rating, to evaluate on")
    steps = [model.step] if len(members) == 1 else [model.step, *(member.step for member in members)]
    whole = _whole(gathered, together)
    return [_evaluation(model, step, figures) for step, figures in zip(steps, whole, strict=True)]


def _answers(model: Predictor, batch: Batch) -> list[Tensor]:
    """Give what the model says, and behind an average what each member says."""
    if isinstance(model, Ensemble):
        return model.answers(batch.features, batch.lengths)
    return [model.predict(batch.features, batch.lengths)]


@contextmanager
def _evaluating(models: Sequence[VideoModel]) -> Iterator[None]:
    """Switch dropout and the like off meanwhile."""
    training = [model.module.training for model in models]
    try:
        for model in models:
            model.module.eval()
        yield
    finally:
        for model, before in zip(models, training, strict=True):
            model.module.train(before)


def _empty(model: Predictor, batch: Batch, top_k: int) -> Metrics:
    C = model.flags.num_classes
    return VideoMetrics(C, top_k) if batch.rated is None else SegmentMetrics(C)


def _whole(gathered: list[_Figures], processes: Processes) -> list[_Figures]:
    """Join the figures of all processes."""
    first, *others = processes.collect(gathered)
    for other in others:
        for figures, more in zip(first, other, strict=True):
            figures.loss += more.loss
            figures.metrics.merge(more.metrics)
    whole: list[_Figures] = first
    return whole


def _evaluation(model: Predictor, step: int, figures: _Figures) -> Evaluation:
    metrics = figures.metrics
    segments = isinstance(metrics, SegmentMetrics)
    result = metrics.compute()
    loss = figures.loss / result["num_segments" if segments else "num_videos"]
    return Evaluation(
        "segments" if segments else "videos",
        step,
        {"loss": loss, **result},
        metrics.per_class(),
        model.class_names,
        metrics.depth if isinstance(metrics, SegmentMetrics) else metrics.top_k,
    )
