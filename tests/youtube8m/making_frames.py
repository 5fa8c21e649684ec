"""Small sets of frame-level videos for the tests of this folder, and a slow reader of them: double loops."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.records import encode_sequence_example, write_records
from expertise.youtube8m.videos import FeatureSpec

SPEC = FeatureSpec.parse("rgb,audio", "6,2")
NUM_CLASSES = 20


@dataclass(frozen=True)
class Clip:
    """One video: frames uint8 (L, 8), and for each rating first frame, class and score."""

    id: str
    frames: NDArray[np.uint8]
    labels: list[int]
    ratings: list[tuple[int, int, float]]


@dataclass(frozen=True)
class Example:
    """What is to be read: frames uint8 (l, 8), the classes, and those that were rated (None: all count)."""

    frames: NDArray[np.uint8]
    labels: set[int]
    rated: set[int] | None


def make_clips(n: int, seed: int = 0, longest: int = 23) -> list[Clip]:
    """n videos of 0 to ``longest`` frames; about half of them have ratings."""
    rng = np.random.default_rng(seed)
    clips = []
    for i in range(n):
        length = int(rng.integers(0, longest + 1))
        count = int(rng.integers(0, 7)) if length else 0
        starts = rng.choice(np.arange(0, length, 2), count) if count else []
        ratings = [(int(start), int(rng.integers(0, 5)), float(rng.choice([0, 0.5, 1]))) for start in starts]
        labels = np.sort(rng.permutation(NUM_CLASSES)[: rng.integers(0, 5)])
        frames = rng.integers(0, 256, (length, SPEC.total), dtype=np.uint8)
        clips.append(Clip(f"f{seed}-{i}", frames, labels.tolist(), ratings))
    return clips


def encode(clip: Clip) -> bytes:
    """Its tf.train.SequenceExample."""
    starts, classes, scores = zip(*clip.ratings, strict=True) if clip.ratings else ((), (), ())
    ratings = {
        "segment_start_times": starts,
        "segment_end_times": [start + 5 for start in starts],
        "segment_labels": classes,
        "segment_scores": np.array(scores, dtype=np.float32),
    }
    context = {"id": [clip.id], "labels": np.array(clip.labels, dtype=np.int64)}
    return encode_sequence_example(
        context | (ratings if clip.ratings else {}),
        {
            name: [[frame[part].tobytes()] for frame in clip.frames]
            for name, part in SPEC.slices.items()
        },
    )  # fmt: skip


def write_clips(folder: Path, sizes: list[int], suffix: str = ".tfrecord") -> tuple[list[Path], list[Clip]]:
    """One file for each size, with that many videos; and all of these."""
    paths, clips = [], []
    for number, size in enumerate(sizes):
        own = make_clips(size, seed=number)
        paths.append(folder / f"part{number:02d}{suffix}")
        write_records(paths[-1], map(encode, own))
        clips += own
    return paths, clips


def expected(clips: list[Clip], reading: FrameReading) -> dict[str, Example]:
    """What a reading gives, by its id and in its order."""
    found = {}
    for clip in clips:
        if not reading.segments:
            found[clip.id] = Example(clip.frames[: reading.max_frames], set(clip.labels), None)
            continue
        starts = sorted({start for start, _, _ in clip.ratings})
        if not starts and reading.segments == "all":
            starts = list(range(0, len(clip.frames), 5))
        for start in starts:
            scores = {label: score for first, label, score in clip.ratings if first == start}
            found[f"{clip.id}:{start}"] = Example(
                clip.frames[start : start + 5],
                {label for label, score in scores.items() if score >= 0.5},
                set(scores),
            )
    return found
