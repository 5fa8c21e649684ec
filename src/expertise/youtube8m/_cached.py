"""Batches from a memory-mapped cache, at the speed of copying its rows.

Letters: B batch, D features, C classes, n videos of an epoch.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from expertise.youtube8m._source import (
    Batch,
    Pool,
    Shuffle,
    VideoSource,
    check_stream,
    part_of,
    scatter_labels,
)
from expertise.youtube8m.cache import Cache
from expertise.youtube8m.videos import FeatureSpec, pointers, ragged_rows

BLOCK = 1024  # neighbouring videos that are read from the disk together
WINDOW_BYTES = 256 << 20  # features that are shuffled together where not all fit into memory
MEMORY_SHARE = 0.6  # of the free memory that a cache may take to be shuffled as a whole


class CachedVideos(VideoSource):
    """Videos of a memory-mapped cache."""

    def __init__(self, cache: Cache, spec: FeatureSpec, num_classes: int) -> None:
        self.spec, self.num_classes = spec, num_classes
        self._cache = cache
        self._pools: dict[int, tuple[Pool, Pool]] = {}
        self._features = np.asarray(cache.features)  # without the overhead of np.memmap at every access

    @property
    def num_videos(self) -> int:
        """How many videos an epoch has."""
        return len(self._cache)

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """How many videos have each label, int64 (C,)."""
        return np.bincount(self._cache.labels, minlength=self.num_classes)

    @property
    def skipped(self) -> int:
        """How many corrupt records were left out when the cache was made."""
        return self._cache.skipped

    def default_shuffle(self) -> Shuffle:
        """ "global" where the features fit in the free memory, else "blocks"."""
        return "global" if self._features.nbytes <= MEMORY_SHARE * available_memory() else "blocks"

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
        window = max(1, WINDOW_BYTES // (BLOCK * 4 * self.spec.total))  # blocks
        total = sys.maxsize if num_epochs is None else num_epochs * n
        if batch_size not in self._pools:
            features, labels = (batch_size, self.spec.total), (batch_size, self.num_classes)
            self._pools[batch_size] = Pool(features, np.float32), Pool(labels, np.bool_)
        rooms = self._pools[batch_size]

        def stream() -> Iterator[Batch]:
            position, epoch = start, -1
            while position < total:
                stop = min(position + batch_size, total)
                parts = []
                while position < stop:
                    if position // n != epoch:
                        epoch = position // n
                        order = epoch_order(n, shuffle, seed, epoch, window)
                    first = position - epoch * n
                    parts.append(order[first : first + stop - position])
                    position += len(parts[-1])
                videos = np.concatenate(parts)
                yield self._batch(videos[part_of(len(videos), part)], *rooms)

        return stream()

    def _batch(self, videos: NDArray[np.int64], feature_room: Pool, label_room: Pool) -> Batch:
        cache = self._cache
        rows = videos if cache.rows is None else cache.rows[videos]
        # clip (all rows are there) lets take write to its place without a copy in between
        features = feature_room.rows(len(videos))
        np.take(self._features, rows, axis=0, out=features, mode="clip")
        where, ptr = ragged_rows(cache.label_ptr, videos)
        labels = label_room.rows(len(videos))
        scatter_labels(ptr, cache.labels[where], labels)
        return Batch(cache.ids(videos), torch.from_numpy(features), torch.from_numpy(labels))


def epoch_order(n: int, shuffle: Shuffle, seed: int, epoch: int, window: int) -> NDArray[np.int64]:
    """The order of n videos in one epoch; a function of its arguments alone.

    "blocks" shuffles blocks of BLOCK neighbours, and then the videos of every ``window`` blocks.
    """
    if shuffle == "none":
        return np.arange(n)
    rng = np.random.default_rng([seed, epoch])
    if shuffle == "global":
        return rng.permutation(n)
    starts = rng.permutation(np.arange(0, n, BLOCK))
    sizes = np.minimum(starts + BLOCK, n) - starts
    order = np.arange(n) + np.repeat(starts - pointers(sizes)[:-1], sizes)
    for first in range(0, n, window * BLOCK):
        rng.shuffle(order[first : first + window * BLOCK])
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
