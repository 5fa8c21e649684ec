"""The shards of own videos: each written at both levels, and noted down when it is whole.

Letters: L frames, D values of a feature.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from expertise._files import atomic_file
from expertise._progress import progress
from expertise.youtube8m.examples import Values
from expertise.youtube8m.formats.npz import VALUES, NpzFormat, quantise
from expertise.youtube8m.packing.inputs import Inputs, OwnVideo, frame_name, video_name
from expertise.youtube8m.packing.plan import Plan, PlannedFeature, PlannedShard, sha256
from expertise.youtube8m.packing.survey import indices
from expertise.youtube8m.records import encode_example, encode_sequence_example, write_records

LEVELS = ("frame", "video")


@dataclass(frozen=True)
class WrittenShard:
    """name : of both files. clipped : values of each feature that did not fit bytes. frame, video : the
    SHA-256 of the file of each level.
    """

    name: str
    clipped: dict[str, int]
    frame: str
    video: str


def write_shards(
    inputs: Inputs, plan: Plan, folder: Path, journal: Path, stream: TextIO | None = None
) -> list[WrittenShard]:
    """Write all shards of the plan that are not there yet, and give all in the plan's order.

    journal : a file with a line for each shard that is whole; it grows as they are written.
    """
    done = _whole_ones(folder, journal)
    total = sum(shard.videos for shard in plan.shards)
    before = sum(shard.videos for shard in plan.shards if shard.name in done)
    with (
        progress("packing", total, "videos", done=before, stream=stream) as meter,
        journal.open("a") as lines,
    ):
        for shard in plan.shards:
            if shard.name in done:
                continue
            try:
                done[shard.name] = written = _write(inputs, plan, shard, folder)
            except KeyboardInterrupt:
                meter.say(f"interrupted; the same command goes on with shard {shard.name}")
                raise
            lines.write(json.dumps(dataclasses.asdict(written)) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
            meter.advance(shard.videos)
    return [done[shard.name] for shard in plan.shards]


def shard_file(folder: Path, level: str, name: str) -> Path:
    """Where the file of a shard is."""
    return folder / level / f"{name}.tfrecord"


def _whole_ones(folder: Path, journal: Path) -> dict[str, WrittenShard]:
    """The shards that an earlier run has noted down and that are still as they were; the rest is removed."""
    done: dict[str, WrittenShard] = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            shard = WrittenShard(**json.loads(line))
        except ValueError:  # cut off by a crash
            break
        if all(_is(shard_file(folder, level, shard.name), getattr(shard, level)) for level in LEVELS):
            done[shard.name] = shard
    with atomic_file(journal) as temporary:
        temporary.write_text("".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in done.values()))
    for level in LEVELS:
        for path in (folder / level).glob("*"):
            if path.name.removesuffix(".tfrecord") not in done:
                path.unlink()
    return done


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _write(inputs: Inputs, plan: Plan, shard: PlannedShard, folder: Path) -> WrittenShard:
    """Write both files of a shard, each whole or not at all."""
    class_of = indices(plan.classes)
    clipped = dict.fromkeys((feature.name for feature in plan.features), 0)
    examples: list[bytes] = []

    def frame_records() -> Iterator[bytes]:
        for video in inputs.videos(shard.start, shard.end):
            if video.partition != shard.partition:
                continue
            frames: dict[str, NDArray[np.uint8]] = {}
            for feature in plan.features:
                frames[feature.name], over = to_bytes(video.features[feature.name], feature)
                clipped[feature.name] += over
            context = _context(video, class_of)
            examples.append(_example(context, frames))
            yield _sequence_example(context, frames)

    files = {level: shard_file(folder, level, shard.name) for level in LEVELS}
    written = write_records(files["frame"], frame_records())
    assert written == shard.videos, "the input is what it was when the plan was made"
    write_records(files["video"], examples)
    return WrittenShard(shard.name, clipped, **{level: sha256(path) for level, path in files.items()})


def to_bytes(values: NDArray[Any], feature: PlannedFeature) -> tuple[NDArray[np.uint8], int]:
    """Make bytes of a feature's values (L, D), and count those that are out of the range of bytes.

    >>> values = np.array([[0.5, -1.0, 4.0]], dtype=np.float32)
    >>> to_bytes(values, PlannedFeature("rgb", 3, 2.0))
    (array([[191,   0, 255]], dtype=uint8), 1)
    """
    if feature.factor is None:
        return values, 0
    scaled = (values.astype(np.float64) * feature.factor).astype(np.float32)
    return quantise(scaled), NpzFormat().clipped(scaled)


def _context(video: OwnVideo, class_of: Mapping[str, int]) -> dict[str, Values]:
    labels = sorted(label if isinstance(label, int) else class_of[label] for label in video.labels)
    return {"id": [video.id], "labels": np.array(labels, dtype=np.int64)}


def _sequence_example(context: Mapping[str, Values], frames: Mapping[str, NDArray[np.uint8]]) -> bytes:
    steps = {frame_name(name): [[frame.tobytes()] for frame in values] for name, values in frames.items()}
    return encode_sequence_example(context, steps)


def _example(context: Mapping[str, Values], frames: Mapping[str, NDArray[np.uint8]]) -> bytes:
    """The means are those of the dequantised frames, so that both levels agree."""
    means = {
        video_name(name): VALUES[values].mean(axis=0, dtype=np.float64) for name, values in frames.items()
    }
    return encode_example({**context, **means})
