"""Shards read anew in every epoch, several at a time; what comes out does not depend on how many."""

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Full, Queue
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from expertise._progress import progress
from expertise.youtube8m.cache import report_skipped
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.reading.levels import Level, level_of
from expertise.youtube8m.reading.source import Batch, Shuffle, VideoSource, check_stream, part_of
from expertise.youtube8m.reading.tables import Batches, Table
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, check_num_classes, nothing_in

WINDOW_BYTES = 128 << 20  # features that are shuffled together
CHUNKS_AHEAD = 2  # of each file that is being read
STOP_SECONDS = 0.1  # a reader with a full queue looks that often whether it is still wanted
Chunk = TypeVar("Chunk")
Part = tuple[Table, NDArray[np.int64]]  # rows of a table, in their order


class StreamedVideos(VideoSource):
    """Videos that are read from the files anew in every epoch; of frame-level ones what ``frames`` says."""

    def __init__(
        self,
        files: Sequence[Path],
        spec: FeatureSpec,
        num_classes: int,
        *,
        frames: FrameReading | None = None,
        num_readers: int = 8,
        skip_corrupt: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        check_num_classes(num_classes)
        self.spec, self.num_classes = spec, num_classes
        self._files, self._num_readers, self._skip = list(files), num_readers, skip_corrupt
        self._stream = stream
        self._level, self._batches = level_of(spec, frames), Batches(spec, num_classes, frames)
        self._errors: dict[Path, list[RecordError]] = {}
        self._told = False
        self._counts: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def num_videos(self) -> int:
        """How many videos an epoch has; the first time, all files are read to count them."""
        return self._count()[0]

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """How many videos have each label, int64 (C,); the first time, all files are read to count them."""
        return self._count()[1]

    @property
    def rated_counts(self) -> NDArray[np.int64]:
        """How many videos, or segments, have a rating of each label, int64 (C,); counted with them."""
        return self._count()[2]

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

        def stream() -> Iterator[Batch]:
            epoch, skip = divmod(start, self.num_videos) if start else (0, 0)
            epochs = itertools.count(epoch) if num_epochs is None else range(epoch, num_epochs)
            windows = (part for number in epochs for part in self._epoch(number, shuffle == "blocks", seed))
            for parts in rebatch(windows, batch_size, skip):
                yield self._batches.make(cut(parts, part))

        return stream()

    def _epoch(self, epoch: int, shuffle: bool, seed: int) -> Iterator[Part]:
        rng = np.random.default_rng([seed, epoch]) if shuffle else None
        order = np.arange(len(self._files)) if rng is None else rng.permutation(len(self._files))
        chunks = read_chunks([self._files[i] for i in order], self._read, self._num_readers)
        count = 0
        for part in shuffled(chunks, self._level, rng):
            count += len(part[1])
            yield part
        self._tell()
        if count == 0:
            errors = [error for path in self._files for error in self._errors.get(path, [])]
            why = f"; {len(errors)} corrupt records, the first: {errors[0]}" if errors else ""
            raise nothing_in(self._files, self._level.what, why or self._level.why_none)

    def _read(self, path: Path) -> Iterator[Any]:
        errors: list[RecordError] = []
        yield from self._level.read(path, self.num_classes, errors if self._skip else None)
        self._errors[path] = errors

    def _tell(self) -> None:
        """After the first epoch, say what was left out."""
        if not self._told:
            self._told = True
            errors = [error for path in self._files for error in self._errors.get(path, [])]
            report_skipped(
                len(errors), list(map(str, errors)), lambda text: print(text, file=self._stream or sys.stderr)
            )

    def _count(self) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        if self._counts is None:
            n, counts, rated = 0, *np.zeros((2, self.num_classes), dtype=np.int64)
            with progress("counting videos", None, "videos", stream=self._stream) as meter:
                for table, _ in self._epoch(0, False, 0):
                    n += len(table)
                    counts += table.label_counts(self.num_classes)
                    rated += table.rated_counts(self.num_classes)
                    meter.advance(len(table))
            self._counts = n, counts, rated
        return self._counts


def read_chunks(
    files: Sequence[Path], read: Callable[[Path], Iterator[Chunk]], num_readers: int
) -> Iterator[Chunk]:
    """Yield the chunks of all files, in the order of the files; ``num_readers`` files are read at once.

    Threads do it: most of the work, reading and copying, leaves Python's lock to the others.
    """
    stop = threading.Event()

    def put(queue: "Queue[Chunk | BaseException | None]", item: Chunk | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=STOP_SECONDS)
            except Full:
                continue
            return True
        return False

    def pump(path: Path, queue: "Queue[Chunk | BaseException | None]") -> None:
        try:
            for chunk in read(path):
                if not put(queue, chunk):
                    return
            put(queue, None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the chunks are used
            put(queue, error)

    with ThreadPoolExecutor(num_readers) as pool:

        def begin(path: Path) -> "Queue[Chunk | BaseException | None]":
            queue: Queue[Chunk | BaseException | None] = Queue(CHUNKS_AHEAD)
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


def shuffled(chunks: Iterable[Any], level: Level[Any], rng: np.random.Generator | None) -> Iterator[Part]:
    """Join chunks to windows of WINDOW_BYTES or more, and shuffle each; not without ``rng``."""
    held: list[Any] = []
    size = 0

    def window() -> Part:
        table = level.table(level.join(held))
        return table, np.arange(len(table)) if rng is None else rng.permutation(len(table))

    for chunk in chunks:
        held.append(chunk)
        size += level.nbytes(chunk)
        if rng is None or size >= WINDOW_BYTES:
            yield window()
            held, size = [], 0
    yield window()


def rebatch(windows: Iterable[Part], batch_size: int, skip: int) -> Iterator[list[Part]]:
    """Cut a stream of examples, without its first ``skip``, into parts of batches; the last may be small."""
    held: list[Part] = []
    missing = batch_size
    for table, order in windows:
        first = min(skip, len(order))
        skip -= first
        while first < len(order):
            rows = order[first : first + missing]
            held.append((table, rows))
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
    for table, rows in parts:
        kept.append((table, rows[max(0, own.start - first) : max(0, own.stop - first)]))
        first += len(rows)
    return kept
