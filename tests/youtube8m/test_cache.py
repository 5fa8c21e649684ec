"""The cache holds what the files hold; nothing half-done is ever taken for it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertise.youtube8m import cache as cache_module
from expertise.youtube8m.cache import Cache, cache_folder, open_cache
from expertise.youtube8m.formats import format_of
from expertise.youtube8m.reading import shards as _shards
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos, concatenate, ragged_rows
from youtube8m.making import NUM_CLASSES, SPEC, make_videos, write_files
from youtube8m.several import wait_for

MIXED = [".tfrecord", ".npz", ".parquet", ".tfrecord.gz"]


def open_quietly(files: list[Path], folder: Path, **options: Any) -> Cache:
    return open_cache(files, SPEC, NUM_CLASSES, folder, stream=io.StringIO(), **options)


def content(cache: Cache) -> Videos:
    everything = np.arange(len(cache))
    rows = everything if cache.rows is None else cache.rows
    where, ptr = ragged_rows(cache.label_ptr, everything)
    return Videos(cache.ids(everything), np.asarray(cache.features)[rows], ptr, cache.labels[where])


def parsed(files: list[Path]) -> Videos:
    chunks = (chunk for path in files for chunk in format_of(path).read(path, SPEC, NUM_CLASSES))
    return concatenate(chunks, SPEC)


def check_same(cache: Cache, files: list[Path]) -> None:
    found, expected = content(cache), parsed(files)
    assert found.ids == expected.ids
    for name in ("features", "label_ptr", "labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def folders(root: Path) -> tuple[int, int]:
    """How many caches there are, and how many unfinished ones."""
    names = [path.name for path in root.iterdir()]
    return sum(not name.startswith(".") for name in names), sum(name.endswith(".part") for name in names)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Files of all formats, one of them empty; none as large as the first."""
    paths = []
    for number, (suffix, size) in enumerate(zip([*MIXED, ".tfrecord"], [40, 7, 12, 9, 0], strict=True)):
        path = tmp_path / f"part{number}{suffix}"
        format_of(path).write(path, [make_videos(size, seed=number)], SPEC)
        paths.append(path)
    return paths


@pytest.fixture(params=["here", "processes"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "processes":
        monkeypatch.setattr(cache_module, "PROCESS_BYTES", 0)
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
    return str(request.param)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_holds_what_the_files_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[Path], lanes: str, num_workers: int
) -> None:
    monkeypatch.setattr(_shards, "SCRATCH_BYTES", 7 * 4 * SPEC.total)  # several pieces in a file
    cache = open_quietly(files, tmp_path / "cache", num_workers=num_workers)
    check_same(cache, files)
    assert cache.skipped == 0
    assert len(cache) == 68


def test_chunks_that_come_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[Path]
) -> None:
    """Rows lie where there was room, and are still found in the order of the files."""
    monkeypatch.setattr("expertise.youtube8m.formats._abstract.MOST_ROWS", 5)  # not in the worker
    monkeypatch.setattr(cache_module, "PROCESS_BYTES", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    format_class = type(format_of(files[0]))
    read, root = format_class.read, tmp_path / "cache"

    def until_another_has_written(*arguments: Any) -> Iterator[Videos]:
        for number, chunk in enumerate(read(*arguments)):
            yield chunk
            if number == 0:
                wait_for(lambda: any(p.stat().st_size > 160 for p in root.glob(".*.part/features.f32")))

    monkeypatch.setattr(format_class, "read", until_another_has_written)
    cache = open_quietly(files, root, num_workers=2)
    monkeypatch.undo()
    assert cache.rows is not None
    check_same(cache, files)


def test_is_built_once(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_quietly(files, tmp_path / "cache")
    monkeypatch.setattr(cache_module, "convert_shards", None)  # would fail if it were called
    again = open_quietly(files, tmp_path / "cache")
    assert content(again).ids == content(first).ids
    assert folders(tmp_path / "cache") == (1, 0)


def test_what_it_depends_on_makes_another(tmp_path: Path, files: list[Path]) -> None:
    root = tmp_path / "cache"
    open_quietly(files, root)
    open_quietly(files[:2], root)
    open_quietly(files, root, skip_corrupt=True)
    open_cache(files, SPEC, NUM_CLASSES + 1, root, stream=io.StringIO())
    open_cache(files, FeatureSpec.parse("mean_audio", "2"), NUM_CLASSES, root, stream=io.StringIO())
    assert folders(root) == (5, 0)
    stat = files[0].stat()
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    open_quietly(files, root)
    assert folders(root) == (6, 0)
    format_of(files[0]).write(files[0], [make_videos(3, seed=99)], SPEC)
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # another size, the same time
    check_same(open_quietly(files, root), files)
    assert folders(root) == (7, 0)


@pytest.mark.parametrize("damage", ["meta.json", "labels.npy", "features.f32"])
def test_a_damaged_one_is_built_anew(tmp_path: Path, files: list[Path], damage: str) -> None:
    root = tmp_path / "cache"
    open_quietly(files, root)
    (folder,) = root.iterdir()
    broken = folder / damage
    broken.write_bytes(broken.read_bytes()[:-8])
    check_same(open_quietly(files, root), files)
    assert folders(root) == (1, 0)


def test_one_that_was_not_on_the_disk_when_the_machine_stopped(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cache"
    monkeypatch.setattr(cache_module, "settle", lambda folder: None)
    open_quietly(files, root)
    (folder,) = root.iterdir()
    assert not (folder / "settled").exists()
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"boot": "another"}))
    (folder / "mark").touch()
    check_same(open_quietly(files, root), files)
    assert not (folder / "mark").exists()
    monkeypatch.undo()
    open_quietly(files, root)
    wait_for(lambda: (folder / "settled").exists())


# ---- errors


def corrupt(path: Path, place: int = -30) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


def test_a_corrupt_record_is_the_same_error_in_every_lane(tmp_path: Path, lanes: str) -> None:
    files = write_files(tmp_path, [30, 30, 30])
    corrupt(files[1])
    with pytest.raises(RecordError) as expected:
        parsed(files)
    with pytest.raises(RecordError) as caught:
        open_quietly(files, tmp_path / "cache", num_workers=2)
    assert str(caught.value) == str(expected.value)
    assert caught.value.path == files[1]
    assert folders(tmp_path / "cache") == (0, 0)


def test_skipped_records_are_counted_and_told_each_time(tmp_path: Path, lanes: str) -> None:
    files = write_files(tmp_path, [30, 30, 30])
    corrupt(files[1])
    corrupt(files[2])
    for _ in range(2):
        told = io.StringIO()
        cache = open_cache(
            files, SPEC, NUM_CLASSES, tmp_path / "cache", num_workers=2, skip_corrupt=True, stream=told
        )
        assert (len(cache), cache.skipped, len(cache.reasons)) == (88, 2, 2)
        assert "skipped 2 corrupt records:" in told.getvalue()
        assert f"{files[1]}, byte" in told.getvalue()


def test_progress_is_shown(tmp_path: Path) -> None:
    files = write_files(tmp_path, [30, 30])
    told = io.StringIO()
    path = tmp_path / "large.tfrecord"
    format_of(path).write(path, [make_videos(9000)], SPEC)
    size = path.stat().st_size // 10**6
    open_cache([*files, path], SPEC, NUM_CLASSES, tmp_path / "cache", stream=told)
    assert f"converting: {size}/{size} MB" in told.getvalue()


def test_no_video_is_an_error(tmp_path: Path) -> None:
    files = write_files(tmp_path, [0, 0])
    with pytest.raises(ValueError, match=r"there is no video in the 2 files .*part00"):
        open_quietly(files, tmp_path / "cache")
    one = write_files(tmp_path, [3])
    corrupt(one[0], 0)
    with pytest.raises(
        ValueError, match=r"there is no video in .*part00.tfrecord; 1 corrupt records, the first"
    ):
        open_quietly(one, tmp_path / "cache", skip_corrupt=True)


def test_the_disk_must_have_room(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"--cache_dir=.*needs about 0.00 GB, but 0.00 GB are free; .*=none"):
        open_quietly(files, tmp_path / "cache")
    assert folders(tmp_path / "cache") == (0, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_fills_up(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def full(path: Any, *arguments: Any, **options: Any) -> int:
        is_features = str(path).endswith("features.f32")
        return real_open("/dev/full" if is_features else path, *arguments, **options)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(ValueError, match=r"--cache_dir=.*filled the disk"):
        open_quietly(files, tmp_path / "cache")


def test_a_folder_that_cannot_be_made(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--cache_dir=.* cannot be made"):
        open_quietly(files, tmp_path / "file" / "cache")


def test_files_that_change_meanwhile(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = cache_module.convert_shards

    def and_touch(*arguments: Any, **options: Any) -> Any:
        os.utime(files[0])
        return convert(*arguments, **options)

    monkeypatch.setattr(cache_module, "convert_shards", and_touch)
    with pytest.raises(ValueError, match="the data files changed while they were converted"):
        open_quietly(files, tmp_path / "cache")
    assert folders(tmp_path / "cache") == (0, 0)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "expertise" / "youtube8m"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("auto") == Path.home() / ".cache" / "expertise" / "youtube8m"
    assert cache_folder("none") is None
    assert cache_folder("~/x") == Path.home() / "x"
    with pytest.raises(ValueError, match="--cache_dir is empty"):
        cache_folder("")


# ---- builders that are killed, stopped, or meet


SLOW = """
import os, sys, time
from pathlib import Path
os.cpu_count = lambda: 2
sys.path.insert(0, {tests!r})
from expertise.youtube8m import cache
from expertise.youtube8m.reading import shards as _shards
from youtube8m.making import NUM_CLASSES, SPEC
def slow(work):
    def slowly(*arguments):
        result = work(*arguments)
        time.sleep(60)
        return result
    return slowly
_shards._write = slow(_shards._write)
_shards._follow = slow(_shards._follow)
if {processes}:
    cache.PROCESS_BYTES = 0
cache.open_cache(sorted(Path({folder!r}).glob("*.tfrecord")), SPEC, NUM_CLASSES, {cache!r}, num_workers=2)
"""


@contextmanager
def half_done(tmp_path: Path, lanes: str) -> Iterator[subprocess.Popen[bytes]]:
    """A builder that has written some rows and will not go on; a script without a main guard."""
    root = tmp_path / "cache"
    code = SLOW.format(
        tests=str(Path(__file__).parent.parent),
        processes=lanes == "processes",
        folder=str(tmp_path),
        cache=str(root),
    )
    (tmp_path / "slow.py").write_text(code)
    builder = subprocess.Popen(
        [sys.executable, tmp_path / "slow.py"], stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        wait_for(lambda: any(path.stat().st_size > 0 for path in root.glob(".*.part/features.f32")))
        # the builder's own lane writes at once; a worker process may start after it
        wait_for(lambda: bool(children(builder.pid)) or lanes != "processes")
        yield builder
    finally:
        builder.kill()
        builder.communicate()


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def test_a_killed_builder_leaves_nothing_that_is_taken_for_a_cache(tmp_path: Path, lanes: str) -> None:
    files = write_files(tmp_path, [30, 30, 30])
    with half_done(tmp_path, lanes) as builder:
        workers = children(builder.pid)
        assert bool(workers) == (lanes == "processes")
        assert folders(tmp_path / "cache") == (0, 1)
        # another builder meets it: both are right, and the living one's folder stays
        check_same(open_quietly(files, tmp_path / "cache"), files)
        assert folders(tmp_path / "cache") == (1, 1)
        whole = next(path for path in (tmp_path / "cache").iterdir() if path.name[0] != ".")
        # what is still written behind the scenes is in the way of rmtree
        wait_for((whole / "settled").exists)
        shutil.rmtree(whole)
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert folders(tmp_path / "cache") == (0, 1)
    check_same(open_quietly(files, tmp_path / "cache"), files)
    assert folders(tmp_path / "cache") == (1, 0)


STUCK = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests behind it ignores it
os.cpu_count = lambda: 2
sys.path.insert(0, {tests!r})
from expertise.youtube8m import cache
from expertise.youtube8m.formats.tfrecord import TFRecordFormat
from youtube8m.making import NUM_CLASSES, SPEC
cache.PROCESS_BYTES = 0
TFRecordFormat.estimate_rows = lambda *arguments: 1
cache.open_cache(sorted(Path({folder!r}).glob("*.tfrecord")), SPEC, NUM_CLASSES, {cache!r}, num_workers=2)
"""


def test_ctrl_c_ends_a_builder_and_its_workers(tmp_path: Path) -> None:
    write_files(tmp_path, [30, 30])
    for name in ("part98.tfrecord", "part99.tfrecord"):
        os.mkfifo(tmp_path / name)  # nobody writes to it, so that who reads it waits for ever
    code = STUCK.format(
        tests=str(Path(__file__).parent.parent), folder=str(tmp_path), cache=str(tmp_path / "cache")
    )
    (tmp_path / "stuck.py").write_text(code)
    builder = subprocess.Popen(
        [sys.executable, tmp_path / "stuck.py"], stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        features = (tmp_path / "cache").glob
        wait_for(lambda: sum(path.stat().st_size for path in features(".*.part/features.f32")) == 60 * 32)
        wait_for(lambda: bool(children(builder.pid)))
        workers = children(builder.pid)
        time.sleep(3)  # until both wait: a signal just before a call that blocks does not end the call
        os.killpg(builder.pid, signal.SIGINT)
        _, said = builder.communicate(timeout=60)
        assert said.rstrip().endswith(b"KeyboardInterrupt")
        assert b"in serve" not in said  # the workers say nothing
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        assert folders(tmp_path / "cache") == (0, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(builder.pid, signal.SIGKILL)  # its workers too: they hold the pipe that is read here
        builder.communicate()
