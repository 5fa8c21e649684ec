"""Batches from a memory-mapped cache, at the speed of copying its rows.

Letters: B batch, D features, C classes, n videos of an epoch.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.cache import Cache
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.reading.levels import level_of
from expertise.youtube8m.reading.source import Batch, Shuffle, VideoSource, check_stream, part_of
from expertise.youtube8m.reading.tables import Batches
from expertise.youtube8m.videos import FeatureSpec, pointers

BLOCK, BLOCK_BYTES = 1024, 8 << 20  # neighbouring examples that are read from the disk together, at most
WINDOW_BYTES = 256 << 20  # features that are shuffled together where not all fit into memory
MEMORY_SHARE = 0.6  # of the free memory that a cache may take to be shuffled as a whole


class CachedVideos(VideoSource):
    """Videos of a memory-mapped cache; of frame-level ones what ``frames`` says.

    Raises ValueError where that is nothing.
    """

    def __init__(
        self, cache: Cache, spec: FeatureSpec, num_classes: int, frames: FrameReading | None = None
    ) -> None:
        self.spec, self.num_classes = spec, num_classes
        level = level_of(spec, frames)
        self._table = level.cached(cache)
        if not len(self._table):
            raise ValueError(f"the data have {len(cache)} videos, but no {level.what}{level.why_none}")
        self._batches = Batches(spec, num_classes, frames)
        self._skipped = cache.skipped

    @property
    def num_videos(self) -> int:
        """How many videos an epoch has."""
        return len(self._table)

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """How many videos have each label, int64 (C,)."""
        return self._table.label_counts(self.num_classes)

    @property
    def rated_counts(self) -> NDArray[np.int64]:
        """How many videos, or segments, have a rating of each label, int64 (C,)."""
        return self._table.rated_counts(self.num_classes)

    @property
    def skipped(self) -> int:
        """How many corrupt records were left out when the cache was made."""
        return self._skipped

    def default_shuffle(self) -> Shuffle:
        """ "global" where the features fit in the free memory, else "blocks"."""
        return "global" if self._table.nbytes <= MEMORY_SHARE * available_memory() else "blocks"

    def batches(
        self,
        batch_size: int,
        *,
        num_epochs: int | None = 1,
        shuffle: Shuffle = "none",
        seed: int = 0,
        start: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Yield batches; see VideoSource.batches."""
        check_stream(batch_size, num_epochs, shuffle, seed, start)
        n = self.num_videos
        example_bytes = max(1, self._table.nbytes // n)
        block = max(1, min(BLOCK, BLOCK_BYTES // example_bytes))
        window = max(1, WINDOW_BYTES // (block * example_bytes))  # blocks
        total = sys.maxsize if num_epochs is None else num_epochs * n

        def stream() -> Iterator[Batch]:
            position, epoch = start, -1
            while position < total:
                stop = min(position + batch_size, total)
                parts = []
                while position < stop:
                    if position // n != epoch:
                        epoch = position // n
                        order = epoch_order(n, shuffle, seed, epoch, window, block)
                    first = position - epoch * n
                    parts.append(order[first : first + stop - position])
                    position += len(parts[-1])
                videos = np.concatenate(parts)
                yield self._batches.make([(self._table, videos[part_of(len(videos), part)])])

        return stream()


def epoch_order(
    n: int, shuffle: Shuffle, seed: int, epoch: int, window: int, block: int
) -> NDArray[np.int64]:
    """The order of n videos in one epoch; a function of its arguments alone.

    "blocks" shuffles blocks of ``block`` neighbours, and then the videos of every ``window`` blocks.
    """
    if shuffle == "none":
        return np.arange(n)
    rng = np.random.default_rng([seed, epoch])
    if shuffle == "global":
        return rng.permutation(n)
    starts = rng.permutation(np.arange(0, n, block))
    sizes = np.minimum(starts + block, n) - starts
    order = np.arange(n) + np.repeat(starts - pointers(sizes)[:-1], sizes)
    for first in range(0, n, window * block):
        rng.shuffle(order[first : first + window * block])
    return order


def available_memory() -> int:
    """Bytes that this process may still take, by what the system and its control group say."""
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        limit = Path("/sys/fs/cgroup/memory.max").read_text()
        free.append(int(limit))
    except (OSError, ValueError):
        pass  # no such file, or no limit
    return min(free, default=4 << 30)
