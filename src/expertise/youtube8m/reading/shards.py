"""Shards into one array: this process converts, and worker processes help where there is much to do.

A row of the array is a video, or a frame of one. Every chunk of videos asks where its rows go (`Allot`), and
is written there: the rows of a file lie
wherever there was room, and its index says where. Workers are started as `python -c`, and talk in lines of
JSON: nothing is pickled, the caller's main module is not run again, and torch is not loaded. (Threads gain
nothing here: between short operations of NumPy they wait for each other.)
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from expertise._optional import MissingExtraError
from expertise.youtube8m.formats import format_of
from expertise.youtube8m.reading.frame_videos import FrameVideos
from expertise.youtube8m.reading.layout import REASONS, Job, Layout, ShardIndex, join
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos

Allot = Callable[[int], int]  # number of rows -> the first of the rows that are now theirs
SCRATCH_BYTES = 1 << 18  # features that are held at once: copied and written while the cache has them
ASKED_ROWS = 2048  # that a worker asks for at once


def convert_shards(
    files: Sequence[Path], job: Job, num_workers: int, tick: Callable[[int, int], None]
) -> ShardIndex:
    """Write the features of all videos to ``job.features``; return the index of all, in the files' order.

    Raises RecordError at a corrupt record unless ``job.skip_corrupt``. ``tick(i, rows)`` is told of each
    chunk of file i before it is written, and ``tick(i, 0)`` of the file's end, from several threads.
    """
    indices: dict[int, ShardIndex] = {}
    todo = iter(range(len(files)))
    lock = threading.Lock()
    stop = threading.Event()
    workers: list[subprocess.Popen[bytes]] = []
    rows_given = 0

    def allot(i: int, rows: int) -> int:
        nonlocal rows_given
        if stop.is_set():
            raise _StoppedError
        tick(i, rows)
        with lock:
            rows_given += rows
            return rows_given - rows

    def lane(place: AbstractContextManager[Convert]) -> None:
        try:
            with place as convert:
                while not stop.is_set():
                    with lock:
                        i = next(todo, None)
                    if i is None:
                        return
                    indices[i] = convert(files[i], partial(allot, i))
                    tick(i, 0)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        futures = [pool.submit(lane, _worker(job, workers)) for _ in range(num_workers)]
        try:
            with suppress(_StoppedError):
                lane(_here(job))
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also after Ctrl-C; where all went well, nobody is left to stop
            stop.set()
            for worker in workers:
                worker.kill()
    for future in futures:
        if not isinstance(future.exception(), _StoppedError):
            future.result()
    return join([indices[i] for i in range(len(files))], job.layout)


class _StoppedError(Exception):
    """Another lane failed, or the user stopped the work."""


Convert = Callable[[Path, Allot], ShardIndex]


@contextmanager
def _here(job: Job) -> Iterator[Convert]:
    """Convert in this thread."""
    rows = max(1, SCRATCH_BYTES // job.layout.row_bytes)
    scratch = np.empty((rows, job.layout.spec.total), dtype=job.layout.dtype)
    file = os.open(job.features, os.O_WRONLY)
    try:
        yield lambda path, allot: _convert(path, job, scratch, file, allot)
    finally:
        os.close(file)


def _convert(path: Path, job: Job, scratch: NDArray[Any], file: int, allot: Allot) -> ShardIndex:
    skipped: list[RecordError] | None = [] if job.skip_corrupt else None
    parts: dict[str, list[NDArray[Any]]] = {
        name: [np.empty(0, kind)] for name, kind in job.layout.columns.items()
    }
    spans, ids = list[list[int]](), list[str]()
    for videos in _read(path, job, skipped, scratch):
        ids += videos.ids
        for name, array in videos.index().items():
            parts[name].append(array)
        if not videos.num_rows:
            continue
        first = allot(videos.num_rows)
        offset = first * job.layout.row_bytes
        for piece in videos.pieces(scratch):
            offset = _write(file, piece, offset)
        if spans and sum(spans[-1]) == first:
            spans[-1][1] += videos.num_rows
        else:
            spans.append([first, videos.num_rows])
    text, id_sizes = _texts(ids)
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    columns |= {"ids": text, "id_sizes": id_sizes}
    reasons = tuple(str(error) for error in (skipped or [])[:REASONS])
    return ShardIndex(np.array(spans, dtype=np.int64).reshape(-1, 2), columns, len(skipped or []), reasons)


def _read(
    path: Path, job: Job, skipped: list[RecordError] | None, scratch: NDArray[Any]
) -> Iterator[Videos] | Iterator[FrameVideos]:
    spec = job.layout.spec
    if job.layout.frames:
        return format_of(path).read_frames(path, spec, job.num_classes, skipped)
    return format_of(path).read(path, spec, job.num_classes, skipped, scratch)


def _write(file: int, features: NDArray[Any], offset: int) -> int:
    """Write the rows from byte ``offset`` on; return the byte behind them."""
    left = features.reshape(-1).view(np.uint8).data
    while len(left):  # the system may take a part only
        count = os.pwrite(file, left, offset)
        left, offset = left[count:], offset + count
    return offset


def _texts(ids: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The UTF-8 bytes of all ids, and how many each of them has."""
    text = "".join(ids).encode()
    sizes = np.fromiter(map(len, ids), np.int64, len(ids))
    if sizes.sum() < len(text):  # letters of several bytes
        sizes = np.array([len(video.encode()) for video in ids])
    return np.frombuffer(text, dtype=np.uint8), sizes


# ---- worker processes: first line the job, then a line for each file


@contextmanager
def _worker(job: Job, workers: list[subprocess.Popen[bytes]]) -> Iterator[Convert]:
    """Convert in a process of its own, which ends with the block, or when this process dies."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
    )
    workers.append(worker)
    assert worker.stdin is not None
    assert worker.stdout is not None
    to, source = worker.stdin, worker.stdout
    try:
        with to, source, suppress(BrokenPipeError):  # of a dead worker, `_follow` says more
            layout = {"frames": job.layout.frames, **vars(job.layout.spec)}
            _send(to, {**vars(job), "layout": layout, "features": str(job.features)})
            yield lambda path, allot: _follow(worker, to, source, path, allot, job.layout)
    finally:
        worker.kill()  # it may still be starting, and has nothing left to do
        worker.wait()


def _send(to: IO[bytes], message: Any) -> None:
    to.write(json.dumps(message).encode() + b"\n")
    to.flush()


def _follow(
    worker: subprocess.Popen[bytes],
    to: IO[bytes],
    source: IO[bytes],
    path: Path,
    allot: Allot,
    layout: Layout,
) -> ShardIndex:
    """Have one file converted: answer what the worker asks until it is done or has failed."""
    with suppress(BrokenPipeError):
        _send(to, str(path))
        while line := source.readline():
            message = json.loads(line)
            if "rows" in message:
                _send(to, allot(message["rows"]))
            elif "error" in message:
                raise _ERRORS[message["error"]](*message["details"])
            else:
                spans = np.array(message["spans"], dtype=np.int64).reshape(-1, 2)
                columns = {
                    name: np.frombuffer(source.read(size), dtype=kind)
                    for (name, kind), size in zip(layout.columns.items(), message["sizes"], strict=True)
                }
                return ShardIndex(spans, columns, message["skipped"], tuple(message["reasons"]))
    raise RuntimeError(
        f"the worker process that converted {path} ended with status {worker.wait()} before it was done; "
        "if memory ran out, try --num_readers=1"
    )


_ERRORS: dict[str, Callable[..., Exception]] = {
    kind.__name__: kind for kind in (RecordError, MissingExtraError, OSError, ValueError)
}


def serve() -> None:
    """Be a worker process: read what to convert from standard input, answer on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library may print must not get between the answers
    source = sys.stdin.buffer
    given = json.loads(source.readline())
    layout = given["layout"]
    spec = FeatureSpec(tuple(layout["names"]), tuple(layout["sizes"]))
    job = Job(
        Layout(spec, layout["frames"]), given["num_classes"], given["skip_corrupt"], Path(given["features"])
    )

    next_row = end = 0

    def allot(rows: int) -> int:
        """Ask for many rows at once, unless these are many; what is left stays a hole in the file."""
        nonlocal next_row, end
        if next_row + rows > end:
            asked = rows if rows > ASKED_ROWS // 8 else ASKED_ROWS
            _send(to, {"rows": asked})
            answer = source.readline()
            if not answer:
                os._exit(1)  # the parent is gone
            next_row, end = int(answer), int(answer) + asked
        next_row += rows
        return next_row - rows

    with _here(job) as convert:
        while line := source.readline():
            try:
                index = convert(Path(json.loads(line)), allot)
            except RecordError as error:
                _send(to, {"error": "RecordError", "details": [str(error.path), error.offset, error.reason]})
            except OSError as error:
                _send(to, {"error": "OSError", "details": [error.errno, error.strerror, error.filename]})
            except (MissingExtraError, ValueError) as error:
                _send(to, {"error": type(error).__name__, "details": [str(error)]})
            else:
                columns = job.layout.columns.items()
                arrays = [index.columns[name].astype(kind).tobytes() for name, kind in columns]
                answer = {"sizes": list(map(len, arrays)), "spans": index.spans.tolist()}
                _send(to, {**answer, "skipped": index.skipped, "reasons": index.reasons})
                to.write(b"".join(arrays))
                to.flush()
