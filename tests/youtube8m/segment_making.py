"""Frame-level records with rated segments, models for them, and the challenge's figures by loops."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expertise.youtube8m import checkpoint
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.loading import Classifier, VideoModel
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import build_model
from expertise.youtube8m.readers import Batch, open_videos
from expertise.youtube8m.records import encode_sequence_example, write_records
from expertise.youtube8m.videos import FeatureSpec

SPEC = FeatureSpec(("rgb", "audio"), (6, 2))
C = 5
NAMES = ("cats", "dogs", "[red]fish", "trees", "stones")


def record(rng: np.random.Generator, video: str, *, labelled: bool = True, rated: bool = True) -> bytes:
    """A video of 1 to 30 frames; up to three of its segments have ratings of some classes."""
    frames = int(rng.integers(1, 31))
    context: dict[str, Any] = {"id": [video]}
    if labelled:
        context["labels"] = np.flatnonzero(rng.random(C) < 0.4).tolist() or [0]
    if rated:
        starts = np.sort(rng.permutation(np.arange(0, frames, 5))[:3]).tolist()
        ratings = [
            (start, label) for start in starts for label in np.flatnonzero(rng.random(C) < 0.5).tolist()
        ]
        context["segment_start_times"] = [start for start, _ in ratings]
        context["segment_end_times"] = [start + 5 for start, _ in ratings]
        context["segment_labels"] = [label for _, label in ratings]
        context["segment_scores"] = rng.integers(0, 2, len(ratings)).astype(np.float32)
    lists = {
        name: [[rng.integers(0, 256, size).astype(np.uint8).tobytes()] for _ in range(frames)]
        for name, size in zip(SPEC.names, SPEC.sizes, strict=True)
    }
    return encode_sequence_example(context, lists)


def write_shards(folder: Path, name: str, videos: int = 40, seed: int = 0, **kind: bool) -> str:
    """Write two shards, and give the pattern that matches them."""
    rng = np.random.default_rng(seed)
    records = [record(rng, f"{name[:1]}{number:03d}", **kind) for number in range(videos)]
    write_records(folder / f"{name}0000.tfrecord", records[: videos // 2])
    write_records(folder / f"{name}0001.tfrecord", records[videos // 2 :])
    return str(folder / f"{name}*.tfrecord")


def write_frame_export(train_dir: Path, step: int, **changes: Any) -> VideoModel:
    """Put an untrained frame-level model where training puts its exports."""
    values: dict[str, Any] = {
        "model": "FrameLevelLogisticModel",
        "feature_names": SPEC.names,
        "feature_sizes": SPEC.sizes,
        "num_classes": C,
        "class_names": NAMES,
        "frame_features": True,
        "max_frames": 20,
    }
    flags = ModelFlags(**(values | changes))
    model = build_model(flags)
    model.reset(torch.Generator().manual_seed(step), scale=20.0)
    checkpoint.save(train_dir, step, model, torch.optim.SGD(model.parameters()), {}, flags)
    return VideoModel(Classifier(model).eval(), flags, step, torch.device("cpu"))


def run_flags(train_dir: Path | str, folder: Path, **changes: Any) -> Flags:
    """Flags of any command for these records, with a cache in ``folder``."""
    values: dict[str, Any] = {
        "train_dir": str(train_dir),
        "cache_dir": str(folder / "cache"),
        "num_readers": 1,
        "device": "cpu",
        "batch_size": 16,
    }
    return Flags(**(values | changes))


def one_batch(pattern: str, reading: FrameReading) -> Batch:
    """All that a reading makes of the files, as one batch."""
    source = open_videos(pattern, SPEC, C, frames=reading, cache_dir="none", num_readers=1)
    [batch] = source.batches(100_000)
    return batch


def segment_average_precisions(
    predictions: Sequence[Sequence[float]],
    labels: Sequence[Sequence[bool]],
    rated: Sequence[Sequence[bool]],
    depth: int = 100_000,
) -> dict[int, float]:
    """Sum_k P(k) rel(k) / N of each class with a positive; equal scores stay in the order they have."""
    result = {}
    for c in range(len(predictions[0])):
        of_class = [i for i in range(len(predictions)) if rated[i][c]]
        of_class.sort(key=lambda i, c=c: -predictions[i][c])
        positives = sum(bool(labels[i][c]) for i in of_class)
        total, hits = 0.0, 0
        for k, i in enumerate(of_class[:depth], start=1):
            if labels[i][c]:
                hits += 1
                total += hits / k
        if positives:
            result[c] = total / positives
    return result


def best_segments(
    ids: Sequence[str], scores: Sequence[Sequence[float]], classes: Sequence[int], limit: int
) -> dict[int, list[str]]:
    """The best segments of each class; of equal scores those first that came first."""
    return {
        c: [ids[i] for i in sorted(range(len(ids)), key=lambda i, c=c: (-scores[i][c], i))[:limit]]
        for c in classes
    }
