"""What does reading frame-level records cost over the work that it can't do without?

Run: python benchmarks/reading_frames.py [--quick]

The floor is reading the bytes of the shards and checking both checksums of each record, in one plain Python
loop over google_crc32c. Against it, padded batches of 128 videos as bytes (B, L, 1152), with ids and labels:

1. parsed in one thread. Target: at most 2 times.
2. streamed with one reader (--cache_dir=none --num_readers=1), which reads ahead of who uses the batches.
3. from a cache that is there already, in the order of the files and shuffled. Target: at most 2 times.
4. the rated segments of that cache, 5 frames each, over the same floor.
5. conversion to the cache, in one process.

All sides run in turn in one process; a ratio is the median of the ratios of the repeats. The shards are made
of random bytes in a temporary folder, 200 to 300 frames of 1,024 + 128 bytes a video; their bytes are in the
system's memory.
"""

import argparse
import io
import itertools
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.records import Row, read_and_check, seconds, settled

from expertise.youtube8m.cache import open_cache
from expertise.youtube8m.frames import SEGMENT_FRAMES, FrameReading
from expertise.youtube8m.readers import Batch, CachedVideos, StreamedVideos
from expertise.youtube8m.reading.levels import level_of
from expertise.youtube8m.reading.streaming import rebatch, shuffled
from expertise.youtube8m.reading.tables import Batches
from expertise.youtube8m.records import encode_sequence_example, write_records
from expertise.youtube8m.videos import FeatureSpec

SPEC = FeatureSpec.parse("rgb,audio", "1024,128")
NUM_CLASSES, BATCH = 3862, 128
SHARD = 600  # videos
TARGET = 2.0
WHOLE, SEGMENTS = FrameReading(), FrameReading(segments="rated")


def make_record(rng: np.random.Generator, number: int) -> bytes:
    """A video of random bytes, five of whose segments are rated."""
    frames = int(rng.integers(200, 301))
    starts = np.sort(rng.choice(frames // SEGMENT_FRAMES, 5, replace=False)) * SEGMENT_FRAMES
    classes = rng.choice(NUM_CLASSES, 5)
    rgb, audio = (rng.bytes(frames * size) for size in SPEC.sizes)
    return encode_sequence_example(
        {
            "id": [f"v{number:05d}"],
            "labels": np.sort(rng.choice(NUM_CLASSES, 3, replace=False)),
            "segment_labels": classes,
            "segment_start_times": starts,
            "segment_scores": rng.integers(0, 2, 5).astype(np.float32),
        },
        {
            "rgb": [[rgb[i * 1024 : i * 1024 + 1024]] for i in range(frames)],
            "audio": [[audio[i * 128 : i * 128 + 128]] for i in range(frames)],
        },
    )


def make_shards(folder: Path, shards: int) -> list[Path]:
    rng = np.random.default_rng(0)
    numbers = itertools.count()
    paths = [folder / f"train{shard:04d}.tfrecord" for shard in range(shards)]
    for path in paths:
        write_records(path, (make_record(rng, number) for number in itertools.islice(numbers, SHARD)))
    return paths


def run(batches: Iterator[Batch]) -> int:
    """Take every batch; return how many examples there were."""
    count = 0
    for batch in batches:
        assert batch.lengths is not None
        assert len(batch.ids) == len(batch.features) == len(batch.labels) == len(batch.lengths)
        count += len(batch)
    return count


def parse(shards: list[Path], batches: Batches) -> Iterator[Batch]:
    """Read, parse and pad in this thread alone, to memory that is used again."""
    level = level_of(SPEC, WHOLE)
    chunks = (chunk for path in shards for chunk in level.read(path, NUM_CLASSES, None))
    for parts in rebatch(shuffled(chunks, level, None), BATCH, 0):
        yield batches.make(parts)


def rows_of(shards: list[Path], folder: Path, repeats: int) -> list[Row]:
    videos, batches = read_and_check(shards), Batches(SPEC, NUM_CLASSES, WHOLE)
    cache = open_cache(shards, SPEC, NUM_CLASSES, folder / "cache", frames=True, stream=io.StringIO())
    whole = CachedVideos(cache, SPEC, NUM_CLASSES, WHOLE)
    segments = CachedVideos(cache, SPEC, NUM_CLASSES, SEGMENTS)
    streamed = StreamedVideos(shards, SPEC, NUM_CLASSES, frames=WHOLE, num_readers=1, stream=io.StringIO())

    def convert() -> None:
        open_cache(
            shards, SPEC, NUM_CLASSES, folder / "anew", frames=True, num_workers=1, stream=io.StringIO()
        )

    sides: dict[str, tuple[float | None, Callable[[], object]]] = {
        "parsed in one thread": (TARGET, lambda: run(parse(shards, batches))),
        "streamed, one reader": (None, lambda: run(streamed.batches(BATCH))),
        "cached, in order": (TARGET, lambda: run(whole.batches(BATCH))),
        "cached, shuffle=global": (TARGET, lambda: run(whole.batches(BATCH, shuffle="global"))),
        "cached, rated segments": (None, lambda: run(segments.batches(BATCH, shuffle="global"))),
        "converted": (None, convert),
    }
    table = [Row(name, videos, target) for name, (target, _) in sides.items()]
    for repeat in range(repeats + 1):
        for row, (_, work) in zip(table, sides.values(), strict=True):
            floor, ours = seconds(lambda: read_and_check(shards)), seconds(work)
            if row.name == "converted":
                settled(folder / "anew")
                shutil.rmtree(folder / "anew")
            if repeat:  # the first one warms up
                row.floor.append(floor)
                row.ours.append(ours)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shard and fewer repeats")
    shards, repeats = (1, 3) if parser.parse_args().quick else (3, 7)
    with tempfile.TemporaryDirectory(prefix="expertise-") as name:
        paths = make_shards(Path(name), shards)
        size = sum(path.stat().st_size for path in paths)
        table = rows_of(paths, Path(name), repeats)
    floor = statistics.median(time for row in table for time in row.floor)
    print(
        f"{shards} shards of {SHARD} videos, {size / 1e6:.0f} MB, floor {size / floor / 1e9:.1f} GB/s; ",
        end="",
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'microseconds a video':<44}{'ours':>10}{'floor':>10}{'ratio':>8}{'target':>8}")
    print(*table, sep="\n", flush=True)


if __name__ == "__main__":
    main()
