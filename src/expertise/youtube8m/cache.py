"""Shards converted once to memory-mapped arrays, which every later epoch and run reads at memory speed.

A cache is a folder: features.f32 (rows of D float32, one a video) or frames.u8 (rows of D bytes, one a
frame), its index in .npy files, and meta.json. Its name is a hash of all that its content depends on, so a
changed file, feature or class number makes another cache. It is built in a folder beside and renamed when it
is whole.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from expertise._progress import Meter, progress
from expertise.youtube8m.formats import format_of
from expertise.youtube8m.reading.cache_folder import boot, part_folder, settle, sweep, sync
from expertise.youtube8m.reading.frame_videos import Ratings
from expertise.youtube8m.reading.layout import Job, Layout, ShardIndex
from expertise.youtube8m.reading.shards import convert_shards
from expertise.youtube8m.videos import (
    FeatureSpec,
    check_num_classes,
    nothing_in,
    pointers,
    ragged_rows,
    split_text,
)

VERSION = 2  # of the layout; a change makes new caches
PROCESS_BYTES = 1 << 30  # from so many features on, it pays to start worker processes
INDEX_BYTES = 64  # of a row, beside its features: more than usual


@dataclass(frozen=True)
class Cache:
    """Converted videos; the order is that of the files and of the videos in them.

    features : float32 (rows, D), memory-mapped; of frame-level videos uint8. rows : int64 (n,), the row of
    each video, or of its first frame; None where video i is row i. label_ptr, labels : the labels of video i
    are ``labels[label_ptr[i]:label_ptr[i + 1]]``. id_ptr, id_bytes : likewise the ids, as UTF-8. skipped :
    how many corrupt records were left out; reasons : the first of their errors. lengths : int64 (n,), frames
    of each video, and ratings of their segments; None at video level.
    """

    features: NDArray[np.float32] | NDArray[np.uint8]
    rows: NDArray[np.int64] | None
    label_ptr: NDArray[np.int64]
    labels: NDArray[np.int32]
    id_ptr: NDArray[np.int64]
    id_bytes: NDArray[np.uint8]
    skipped: int
    reasons: tuple[str, ...]
    lengths: NDArray[np.int64] | None = None
    ratings: Ratings | None = None

    def __len__(self) -> int:
        return len(self.label_ptr) - 1

    def ids(self, videos: NDArray[np.int64]) -> list[str]:
        """The ids of some videos."""
        where, ptr = ragged_rows(self.id_ptr, videos)
        return split_text(self.id_bytes[where].tobytes(), ptr)


def cache_folder(cache_dir: str | os.PathLike[str]) -> Path | None:
    """The folder that the flag --cache_dir means: "auto" the user's own cache, "none" no folder (None)."""
    name = os.fspath(cache_dir)
    if name == "none":
        return None
    if name == "auto":
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(root) / "expertise" / "youtube8m"
    if not name:
        raise ValueError("--cache_dir is empty; give a folder, auto or none")
    return Path(name).expanduser()


def open_cache(
    files: Sequence[Path],
    spec: FeatureSpec,
    num_classes: int,
    cache_dir: str | os.PathLike[str],
    *,
    frames: bool = False,
    num_workers: int = 8,
    skip_corrupt: bool = False,
    stream: TextIO | None = None,
) -> Cache:
    """Open the cache of the files, with ``frames`` of frame-level ones; build it first where there is none.

    Raises RecordError at a corrupt record (unless ``skip_corrupt``), and ValueError where the disk is too
    small or the files hold no video. What happens is shown on ``stream`` (standard error).
    """
    check_num_classes(num_classes)
    root = cache_folder(cache_dir)
    if root is None:
        raise ValueError("--cache_dir=none makes no cache; give a folder or auto")
    layout = Layout(spec, frames)
    key = _key(files, layout, num_classes, skip_corrupt)
    folder = root / key
    cache = _load(folder, layout)
    if cache is None:
        rows = [_estimate_rows(path, layout) for path in files]
        _prepare(root, sum(rows), layout)
        with part_folder(root, key) as part:
            job = Job(layout, num_classes, skip_corrupt, part / layout.file)
            _build(part, files, rows, job, num_workers, stream)
            if _key(files, layout, num_classes, skip_corrupt) != key:
                raise ValueError("the data files changed while they were converted; run the command again")
            _publish(part, folder, layout)
        cache = _load(folder, layout)
        assert cache is not None
    else:
        report_skipped(cache.skipped, cache.reasons, lambda text: print(text, file=stream or sys.stderr))
    if len(cache) == 0:
        why = f"; {cache.skipped} corrupt records, the first: {cache.reasons[0]}" if cache.skipped else ""
        raise nothing_in(files, why=why)
    settle(folder)
    return cache


def _key(files: Sequence[Path], layout: Layout, num_classes: int, skip_corrupt: bool) -> str:
    stats = [(path, path.stat()) for path in files]
    names = [(os.path.abspath(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]  # noqa: PTH100
    spec = layout.spec
    content = [VERSION, sys.byteorder, names, layout.file, spec.names, spec.sizes, num_classes, skip_corrupt]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _estimate_rows(path: Path, layout: Layout) -> int:
    file_format = format_of(path)
    estimate = file_format.estimate_frames if layout.frames else file_format.estimate_rows
    return estimate(path, layout.spec)


# ---- building


def _prepare(root: Path, rows: int, layout: Layout) -> None:
    """Make the folder, remove what dead builders left, and see that the disk has room."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--cache_dir={root} cannot be made ({error.strerror}); give another, or none"
        ) from error
    sweep(root)
    needed, free = rows * (layout.row_bytes + INDEX_BYTES), shutil.disk_usage(root).free
    if needed > free:
        raise ValueError(
            _too_small(root, f"needs about {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free")
        )


def _too_small(root: Path, why: str) -> str:
    return (
        f"--cache_dir={root}: converting the data {why}; "
        "name a folder on another disk with --cache_dir, or stream without one by --cache_dir=none"
    )


def _build(
    part: Path,
    files: Sequence[Path],
    rows: Sequence[int],
    job: Job,
    num_workers: int,
    stream: TextIO | None,
) -> None:
    """Convert all files into the folder ``part``."""
    job.features.touch()
    sizes = [path.stat().st_size for path in files]
    much = sum(rows) * job.layout.row_bytes >= PROCESS_BYTES
    helpers = min(num_workers, len(files), os.cpu_count() or 1) - 1 if much and sys.executable else 0
    with progress("converting", sum(sizes) // 10**6, "MB", stream=stream) as meter:
        tick = _ticker(meter, sizes, rows)
        try:
            index = convert_shards(files, job, max(0, helpers), tick)
            _save(part, index)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(_too_small(part.parent, "filled the disk")) from error
        report_skipped(index.skipped, index.reasons, meter.say)


def _ticker(meter: Meter, sizes: Sequence[int], rows: Sequence[int]) -> Callable[[int, int], None]:
    """Turn rows of a file that are done into megabytes of all files for the meter; ``rows`` are estimates."""
    left = [float(size) for size in sizes]
    done, shown = 0.0, 0
    lock = threading.Lock()

    def tick(i: int, count: int) -> None:
        nonlocal done, shown
        with lock:
            step = min(left[i], count * sizes[i] / max(1, rows[i])) if count else left[i]
            left[i] -= step
            done += step
            now = round(done) // 10**6
            if now > shown:
                meter.advance(now - shown)
                shown = now

    return tick


def report_skipped(skipped: int, reasons: Sequence[str], say: Callable[[str], None]) -> None:
    """Say how many records are left out, and why the first ones are."""
    if skipped:
        say(f"skipped {skipped:,} corrupt record{'s' if skipped > 1 else ''}:")
        for reason in reasons:
            say(f"  {reason}")
        if skipped > len(reasons):
            say(f"  and {skipped - len(reasons):,} more")


def _save(part: Path, index: ShardIndex) -> None:
    np.save(part / "spans.npy", index.spans)
    for name, column in index.columns.items():
        np.save(part / f"{name}.npy", column)
    meta = {"version": VERSION, "skipped": index.skipped, "reasons": index.reasons, "boot": boot()}
    (part / "meta.json").write_text(json.dumps(meta, indent=1))


def _publish(part: Path, folder: Path, layout: Layout) -> None:
    """Give the finished folder its name. Where another builder was quicker, its folder is as good."""
    if not boot():  # no way to tell later whether the machine went down before the bytes were on the disk
        sync(part)
    for _ in range(3):
        try:
            part.rename(folder)
        except OSError:
            if _load(folder, layout) is not None:
                return
            damaged = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
            folder.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        else:
            (folder / "lock").unlink()
            return
    raise OSError(f"the cache {folder} cannot be put in its place")


# ---- opening


def _load(folder: Path, layout: Layout) -> Cache | None:
    """The cache in the folder; None where there is none, or one that cannot be whole."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        if not (folder / "settled").exists() and meta["boot"] != boot():
            return None
        spans = np.load(folder / "spans.npy")
        columns = {name: np.load(folder / f"{name}.npy") for name in layout.columns}
        size = (folder / layout.file).stat().st_size
    except (OSError, ValueError, KeyError, EOFError):
        return None
    n = len(columns["label_sizes"])
    lengths = columns.get("frame_sizes", np.ones(n, dtype=np.int64))
    rows_written = int(spans.sum(axis=1).max(initial=0))
    if (size, spans[:, 1].sum()) != (rows_written * layout.row_bytes, lengths.sum()):
        return None
    if any(
        (len(columns[f"{of}_sizes"]), columns[f"{of}_sizes"].sum()) != (n, len(columns[entries]))
        for of, entries in _RAGGED.items()
        if entries in columns
    ):
        return None
    return _cache(folder / layout.file, layout, spans, rows_written, columns, meta)


_RAGGED = {"id": "ids", "label": "labels", "rating": "rating_starts"}


def _cache(
    file: Path,
    layout: Layout,
    spans: NDArray[np.int64],
    rows_written: int,
    columns: dict[str, NDArray[Any]],
    meta: dict[str, Any],
) -> Cache:
    features: NDArray[Any] = np.empty((0, layout.spec.total), dtype=layout.dtype)
    if rows_written:
        features = np.memmap(file, layout.dtype, "r", shape=(rows_written, layout.spec.total))
    index = (
        pointers(columns["label_sizes"]),
        columns["labels"],
        pointers(columns["id_sizes"]),
        columns["ids"],
    )
    told = int(meta["skipped"]), tuple(meta["reasons"])
    if not layout.frames:
        firsts = np.arange(len(columns["label_sizes"]))
        rows = _places(spans, firsts) if spans[:, 0].any() else None
        return Cache(features, rows, *index, *told)
    ratings = Ratings(
        pointers(columns["rating_sizes"]),
        *(columns[name] for name in ("rating_starts", "rating_labels", "rating_hits")),
    )
    lengths = columns["frame_sizes"]
    return Cache(features, _places(spans, pointers(lengths)[:-1]), *index, *told, lengths, ratings)


def _places(spans: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows are in the file; ``firsts`` are their numbers in the order of the spans."""
    if not len(spans):
        return firsts
    begins = pointers(spans[:, 1])[:-1]
    span = np.searchsorted(begins, firsts, side="right") - 1
    return firsts + (spans[:, 0] - begins)[span]
