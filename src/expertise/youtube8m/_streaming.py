"""Shards read anew in every epoch, several at a time; what comes out does not depend on how many."""

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Full, Queue
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from expertise._progress import progress
from expertise.youtube8m._source import (
    Batch,
    Pool,
    Shuffle,
    VideoSource,
    check_stream,
    part_of,
    scatter_labels,
)
from expertise.youtube8m.cache import report_skipped
from expertise.youtube8m.formats import format_of
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos, check_num_classes, concatenate, ragged_rows

WINDOW_BYTES = 128 << 20  # features that are shuffled together
CHUNKS_AHEAD = 2  # of each file that is being read
STOP_SECONDS = 0.1  # a reader with a full queue looks that often whether it is still wanted
Read = Callable[[Path], Iterator[Videos]]
Part = tuple[Videos, NDArray[np.int64]]  # rows of some videos, in their order


class StreamedVideos(VideoSource):
    """Videos that are read from the files anew in every epoch."""

    def __init__(
        self,
        files: Sequence[Path],
        spec: FeatureSpec,
        num_classes: int,
        *,
        num_readers: int = 8,
        skip_corrupt: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        check_num_classes(num_classes)
        self.spec, self.num_classes = spec, num_classes
        self._files, self._num_readers, self._skip = list(files), num_readers, skip_corrupt
        self._stream = stream
        self._errors: dict[Path, list[RecordError]] = {}
        self._told = False
        self._counts: tuple[int, NDArray[np.int64]] | None = None

    @property
    def num_videos(self) -> int:
        """How many videos an epoch has; the first time, all files are read to count them."""
        return self._count()[0]

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """How many videos have each label, int64 (C,); the first time, all files are read to count them."""
        return self._count()[1]

    @property
    def skipped(self) -> int:
        """How many corrupt records were left out, of the files that were read so far."""
        return sum(map(len, self._errors.values()))

    def default_shuffle(self) -> Shuffle:
        """ "blocks": files in another order in each epoch, and videos shuffled in a window."""
        return "blocks"

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
        """Yield batches; see VideoSource.batches.

        There is no "global". What is before ``start``, and not of this ``part``, is read and left out.
        """
        check_stream(batch_size, num_epochs, shuffle, seed, start)
        if shuffle == "global":
            raise ValueError(
                "shuffle='global' needs a cache, but --cache_dir=none streams; use 'blocks', or a cache"
            )
        window = max(1, WINDOW_BYTES // (4 * self.spec.total))

        def stream() -> Iterator[Batch]:
            epoch, skip = divmod(start, self.num_videos) if start else (0, 0)
            epochs = itertools.count(epoch) if num_epochs is None else range(epoch, num_epochs)
            windows = (
                part for number in epochs for part in self._epoch(number, shuffle == "blocks", seed, window)
            )
            rooms = (
                Pool((batch_size, self.spec.total), np.float32),
                Pool((batch_size, self.num_classes), np.bool_),
            )
            for parts in rebatch(windows, batch_size, skip):
                yield self._batch(cut(parts, part), *rooms)

        return stream()

    def _batch(self, parts: list[Part], feature_room: Pool, label_room: Pool) -> Batch:
        ids: list[str] = []
        n = sum(len(rows) for _, rows in parts)
        features, labels = feature_room.rows(n), label_room.rows(n)
        for videos, rows in parts:
            here = slice(len(ids), len(ids) + len(rows))
            np.take(videos.features, rows, axis=0, out=features[here], mode="clip")
            where, ptr = ragged_rows(videos.label_ptr, rows)
            scatter_labels(ptr, videos.labels[where], labels[here])
            ids += [videos.ids[row] for row in rows.tolist()]
        return Batch(ids, torch.from_numpy(features), torch.from_numpy(labels))

    def _epoch(self, epoch: int, shuffle: bool, seed: int, window: int) -> Iterator[Part]:
        rng = np.random.default_rng([seed, epoch]) if shuffle else None
        order = np.arange(len(self._files)) if rng is None else rng.permutation(len(self._files))
        chunks = read_chunks([self._files[i] for i in order], self._read, self._num_readers)
        count = 0
        for videos, rows in shuffled(chunks, self.spec, window, rng):
            count += len(rows)
            yield videos, rows
        self._tell()
        if count == 0:
            raise ValueError(f"there is no video in {self._files[0]} and {len(self._files) - 1} more files")

    def _read(self, path: Path) -> Iterator[Videos]:
        errors: list[RecordError] = []
        yield from format_of(path).read(path, self.spec, self.num_classes, errors if self._skip else None)
        self._errors[path] = errors

    def _tell(self) -> None:
        """After the first epoch, say what was left out."""
        if not self._told:
            self._told = True
            errors = [error for path in self._files for error in self._errors.get(path, [])]
            report_skipped(
                len(errors), list(map(str, errors)), lambda text: print(text, file=self._stream or sys.stderr)
            )

    def _count(self) -> tuple[int, NDArray[np.int64]]:
        if self._counts is None:
            n, counts = 0, np.zeros(self.num_classes, dtype=np.int64)
            with progress("counting videos", None, "videos", stream=self._stream) as meter:
                for videos, _ in self._epoch(0, False, 0, 1):
                    n += len(videos)
                    counts += np.bincount(videos.labels, minlength=self.num_classes)
                    meter.advance(len(videos))
            self._counts = n, counts
        return self._counts


def read_chunks(files: Sequence[Path], read: Read, num_readers: int) -> Iterator[Videos]:
    """Yield the chunks of all files, in the order of the files; ``num_readers`` files are read at once.

    Threads do it: most of the work, reading and copying, leaves Python's lock to the others.
    """
    stop = threading.Event()

    def put(queue: "Queue[Videos | BaseException | None]", item: Videos | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=STOP_SECONDS)
            except Full:
                continue
            return True
        return False

    def pump(path: Path, queue: "Queue[Videos | BaseException | None]") -> None:
        try:
            for chunk in read(path):
                if not put(queue, chunk):
                    return
            put(queue, None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the chunks are used
            put(queue, error)

    with ThreadPoolExecutor(num_readers) as pool:

        def begin(path: Path) -> "Queue[Videos | BaseException | None]":
            queue: Queue[Videos | BaseException | None] = Queue(CHUNKS_AHEAD)
            pool.submit(pump, path, queue)
            return queue

        todo = iter(files)
        ahead = deque(begin(path) for path in itertools.islice(todo, num_readers))
        try:
            while ahead:
                queue = ahead.popleft()
                while (item := queue.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    yield item
                ahead.extend(begin(path) for path in itertools.islice(todo, 1))
        finally:
            stop.set()


def shuffled(
    chunks: Iterable[Videos], spec: FeatureSpec, window: int, rng: np.random.Generator | None
) -> Iterator[Part]:
    """Join chunks to windows of ``window`` videos or more, and shuffle each; not without ``rng``."""
    held: list[Videos] = []
    for chunk in chunks:
        if rng is None:
            yield chunk, np.arange(len(chunk))
            continue
        held.append(chunk)
        if sum(map(len, held)) >= window:
            videos, held = concatenate(held, spec), []
            yield videos, rng.permutation(len(videos))
    if rng is not None:
        videos = concatenate(held, spec)
        yield videos, rng.permutation(len(videos))


def rebatch(windows: Iterable[Part], batch_size: int, skip: int) -> Iterator[list[Part]]:
    """Cut a stream of videos, without its first ``skip``, into parts of batches; the last may be small."""
    held: list[Part] = []
    missing = batch_size
    for videos, order in windows:
        first = min(skip, len(order))
        skip -= first
        while first < len(order):
            rows = order[first : first + missing]
            held.append((videos, rows))
            first += len(rows)
            missing -= len(rows)
            if not missing:
                yield held
                held, missing = [], batch_size
    if held:
        yield held


def cut(parts: list[Part], part: tuple[int, int]) -> list[Part]:
    """Give the rows of a batch that are of one part of it."""
    own = part_of(sum(len(rows) for _, rows in parts), part)
    kept, first = [], 0
    for videos, rows in parts:
        kept.append((videos, rows[max(0, own.start - first) : max(0, own.stop - first)]))
        first += len(rows)
    return kept
