"""What do reading and shuffling cost over the work that they can't do without?

Run: python benchmarks/records.py [--data FOLDER] [--quick]

1. Conversion of shards to the cache, over reading the same bytes and checking both checksums of each record
   in one plain Python loop over google_crc32c, in one process. Target: at most 2.5 times. Shards have
   1,000 videos (as those of the train partition) or 289 (validate). As with any file, the cache is complete
   when the system has its bytes; the disk gets them behind the scenes, and this is waited for outside.
   So few shards are converted in one process; from 1 GiB on, others help, which then counts in our favour.
2. A cached, shuffled epoch of batches of 1,024 with labels and ids, over copying the same memory-mapped array
   in batches to memory that is there already. Target: at most 3 times.

All sides run in turn in one process; a ratio is the median of the ratios of the repeats. The shards are made
from the real videos in FOLDER/youtube8m/*.npz, in a temporary folder; their bytes are in the system's memory.
"""

import argparse
import io
import os
import shutil
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from expertise.youtube8m.cache import open_cache
from expertise.youtube8m.formats import FORMATS
from expertise.youtube8m.readers import Batch, CachedVideos, StreamedVideos
from expertise.youtube8m.videos import FeatureSpec, Videos, concatenate

SPEC = FeatureSpec.parse("mean_rgb,mean_audio", "1024,128")
NUM_CLASSES, BATCH = 3862, 1024
CONVERT_TARGET, EPOCH_TARGET = 2.5, 3.0


@dataclass
class Row:
    """One line of the table: how long both sides took in each repeat, for so many videos."""

    name: str
    videos: int
    target: float | None
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ratio = statistics.median(a / b for a, b in zip(self.ours, self.floor, strict=True))
        micro = [statistics.median(times) / self.videos * 1e6 for times in (self.ours, self.floor)]
        target = f"{self.target:>8.1f}" if self.target else f"{'-':>8}"
        return f"{self.name:<44}{micro[0]:>10.2f}{micro[1]:>10.2f}{ratio:>8.2f}{target}"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def make_shards(parts: list[Path], folder: Path, size: int) -> list[Path]:
    """TFRecord shards of ``size`` videos each."""
    folder.mkdir()
    videos: Videos = concatenate(
        (chunk for part in parts for chunk in FORMATS["npz"].read(part, SPEC, NUM_CLASSES)), SPEC
    )
    shards: list[Path] = []
    for first in range(0, len(videos), size):
        rows = np.arange(first, min(first + size, len(videos)))
        shards.append(folder / f"train{len(shards):04d}.tfrecord")
        FORMATS["tfrecord"].write(shards[-1], [videos.take(rows)], SPEC)
    return shards


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_and_check(shards: list[Path]) -> int:
    """The floor of conversion: every byte read, every checksum computed and compared."""
    records, checksum = 0, google_crc32c.value
    length_at, crc_at = struct.Struct("<Q").unpack_from, struct.Struct("<I").unpack_from
    for path in shards:
        data = path.read_bytes()
        place = 0
        while place < len(data):
            (length,) = length_at(data, place)
            begin, end = place + 12, place + 12 + length
            if masked(checksum(data[place : place + 8])) != crc_at(data, place + 8)[0]:
                raise ValueError(path)
            if masked(checksum(data[begin:end])) != crc_at(data, end)[0]:
                raise ValueError(path)
            place, records = end + 4, records + 1
    return records


def settled(folder: Path) -> None:
    """Wait until the disk has the cache, so that its writing is not part of what is measured next."""
    while not list(folder.glob("*/settled")):
        time.sleep(0.01)


def convert_row(shards: list[Path], folder: Path, repeats: int, what: str) -> Row:
    row = Row(f"convert, {what}", read_and_check(shards), CONVERT_TARGET)
    for repeat in range(repeats + 1):
        floor = seconds(lambda: read_and_check(shards))
        shutil.rmtree(folder, ignore_errors=True)
        ours = seconds(lambda: open_cache(shards, SPEC, NUM_CLASSES, folder, stream=io.StringIO()))
        settled(folder)
        if repeat:  # the first one warms up
            row.floor.append(floor)
            row.ours.append(ours)
    return row


def epoch_rows(shards: list[Path], folder: Path, repeats: int) -> Iterator[Row]:
    cache = open_cache(shards, SPEC, NUM_CLASSES, folder, stream=io.StringIO())
    source = CachedVideos(cache, SPEC, NUM_CLASSES)
    streamed = StreamedVideos(shards, SPEC, NUM_CLASSES, stream=io.StringIO())
    room = np.empty((BATCH, SPEC.total), dtype=np.float32)
    array = np.asarray(cache.features)

    def copy() -> None:
        for first in range(0, len(array), BATCH):
            part = array[first : first + BATCH]
            np.copyto(room[: len(part)], part)

    def run(batches: Iterator[Batch]) -> None:
        for batch in batches:
            assert len(batch.ids) == len(batch.features) == len(batch.labels)

    sides: dict[str, tuple[Row, Callable[[int], Iterator[Batch]]]] = {}
    for mode in ("global", "blocks"):
        row = Row(f"cached epoch, shuffle={mode}", len(cache), EPOCH_TARGET)
        sides[mode] = row, lambda seed, mode=mode: source.batches(BATCH, shuffle=mode, seed=seed)  # type: ignore
    row = Row("streamed epoch (cache_dir=none)", len(cache), None)
    sides["streamed"] = row, lambda seed: streamed.batches(BATCH, shuffle="blocks", seed=seed)
    for repeat in range(repeats + 1):
        for row, stream in sides.values():
            floor = seconds(copy)
            ours = seconds(lambda stream=stream, seed=repeat: run(stream(seed)))  # type: ignore[misc]
            if repeat:
                row.floor.append(floor)
                row.ours.append(ours)
    yield from (row for row, _ in sides.values())


def main() -> None:
    data = os.environ.get("EXPERTISE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(data), help="folder that has youtube8m/*.npz")
    parser.add_argument("--quick", action="store_true", help="one part and fewer repeats")
    options = parser.parse_args()
    parts = sorted((options.data / "youtube8m").glob("yt8m_video_u8_part*.npz"))
    if not parts:
        parser.error(f"no youtube8m/yt8m_video_u8_part*.npz in {options.data}; name the folder with --data")
    parts, repeats = (parts[:1], 3) if options.quick else (parts, 9)
    with tempfile.TemporaryDirectory(prefix="expertise-") as name:
        folder = Path(name)
        train = make_shards(parts, folder / "train", 1000)
        validate = make_shards(parts, folder / "validate", 289)
        print(f"{len(train)} shards of 1,000 videos, {len(validate)} of 289; {os.cpu_count()} cores")
        print(f"{'microseconds a video':<44}{'ours':>10}{'floor':>10}{'ratio':>8}{'target':>8}")
        for what, shards in (("1,000 a shard", train), ("289 a shard", validate)):
            print(convert_row(shards, folder / "cache", repeats, what), flush=True)
        for row in epoch_rows(train, folder / "cache", repeats):
            print(row, flush=True)


if __name__ == "__main__":
    main()
