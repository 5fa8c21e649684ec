"""The cache of frame-level videos holds what the files hold, by the machinery that test_cache.py tries."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.youtube8m import cache as cache_module
from expertise.youtube8m.cache import Cache, open_cache
from expertise.youtube8m.formats import format_of
from expertise.youtube8m.formats import tfrecord as tfrecord_module
from expertise.youtube8m.reading import shards as _shards
from expertise.youtube8m.reading.frame_videos import FrameVideos
from expertise.youtube8m.records import RecordError, write_records
from expertise.youtube8m.videos import FeatureSpec
from youtube8m.making_frames import NUM_CLASSES, SPEC, Clip, encode, make_clips, write_clips
from youtube8m.several import wait_for

SIZES = [30, 0, 7, 12]


def open_quietly(files: list[Path], folder: Path, **options: Any) -> Cache:
    return open_cache(files, SPEC, NUM_CLASSES, folder, frames=True, stream=io.StringIO(), **options)


def check_same(cache: Cache, clips: list[Clip]) -> None:
    assert cache.rows is not None
    assert cache.lengths is not None
    assert cache.ratings is not None
    assert cache.features.dtype == np.uint8
    assert cache.ids(np.arange(len(cache))) == [clip.id for clip in clips]
    for i, clip in enumerate(clips):
        assert cache.lengths[i] == len(clip.frames)
        own = cache.features[cache.rows[i] : cache.rows[i] + cache.lengths[i]]
        np.testing.assert_array_equal(own, clip.frames)
        assert cache.labels[cache.label_ptr[i] : cache.label_ptr[i + 1]].tolist() == clip.labels
        rated = slice(cache.ratings.ptr[i], cache.ratings.ptr[i + 1])
        columns = cache.ratings.starts[rated], cache.ratings.labels[rated], cache.ratings.hits[rated]
        entries = list(zip(*(column.tolist() for column in columns), strict=True))
        assert entries == [(start, label, score >= 0.5) for start, label, score in clip.ratings]


@pytest.fixture(params=["here", "processes"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "processes":
        monkeypatch.setattr(cache_module, "PROCESS_BYTES", 0)
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
    return str(request.param)


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("suffix", [".tfrecord", ".tfrecord.gz"])
def test_holds_what_the_files_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: str, num_workers: int, suffix: str
) -> None:
    monkeypatch.setattr(_shards, "SCRATCH_BYTES", 7 * SPEC.total)  # fewer frames than most videos have
    monkeypatch.setattr(tfrecord_module, "FRAME_BYTES", 1000)  # several chunks in a file
    files, clips = write_clips(tmp_path, SIZES, suffix)
    cache = open_quietly(files, tmp_path / "cache", num_workers=num_workers)
    check_same(cache, clips)
    assert cache.skipped == 0


def test_large_chunks_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More frames than a worker asks for in advance."""
    monkeypatch.setattr(cache_module, "PROCESS_BYTES", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    rng = np.random.default_rng(0)
    clips = [
        Clip(f"v{i}", rng.integers(0, 256, (300, SPEC.total), dtype=np.uint8), [i % 9], []) for i in range(24)
    ]
    files = [tmp_path / f"{part}.tfrecord" for part in range(3)]
    for part, file in enumerate(files):
        write_records(file, map(encode, clips[8 * part : 8 * part + 8]))
    check_same(open_quietly(files, tmp_path / "cache", num_workers=2), clips)


def test_chunks_that_come_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames lie where there was room, and are still found in the order of the files."""
    monkeypatch.setattr(tfrecord_module, "FRAME_BYTES", 1000)  # not in the worker
    monkeypatch.setattr(cache_module, "PROCESS_BYTES", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    files, clips = write_clips(tmp_path, [30, 20])
    format_class = type(format_of(files[0]))
    read, root = format_class.read_frames, tmp_path / "cache"

    def holds_more_than(size: int) -> bool:
        return next(root.glob(".*.part/frames.u8")).stat().st_size > size

    def until_another_has_written(*arguments: Any) -> Iterator[FrameVideos]:
        for number, chunk in enumerate(read(*arguments)):
            yield chunk
            if number == 0:
                own = int(chunk.lengths.sum()) * SPEC.total  # the other may have written before or after it
                wait_for(partial(holds_more_than, own))

    monkeypatch.setattr(format_class, "read_frames", until_another_has_written)
    cache = open_quietly(files, root, num_workers=2)
    monkeypatch.undo()
    assert cache.rows is not None
    assert (np.diff(cache.rows) < 0).any()
    check_same(cache, clips)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_any_numbers_of_videos(tmp_path_factory: Any, sizes: list[int], seed: int) -> None:
    folder = tmp_path_factory.mktemp("files")
    clips = make_clips(sum(sizes) + 1, seed, longest=4)
    files, first = [], 0
    for number, size in enumerate([*sizes, 1]):
        files.append(folder / f"{number}.tfrecord")
        write_records(files[-1], map(encode, clips[first : first + size]))
        first += size
    check_same(open_quietly(files, folder / "cache"), clips)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "damage", ["meta.json", "labels.npy", "frames.u8", "frame_sizes.npy", "rating_starts.npy", "ids.npy"]
)
def test_a_damaged_one_is_built_anew(tmp_path: Path, damage: str) -> None:
    files, clips = write_clips(tmp_path, SIZES)
    root = tmp_path / "cache"
    open_quietly(files, root)
    (folder,) = root.iterdir()
    broken = folder / damage
    broken.write_bytes(broken.read_bytes()[:-8])
    check_same(open_quietly(files, root), clips)
    assert [path.name for path in root.iterdir()] == [folder.name]


def test_is_built_once_and_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, clips = write_clips(tmp_path, SIZES)
    root = tmp_path / "cache"
    open_quietly(files, root)
    (folder,) = root.iterdir()
    wait_for((folder / "settled").exists)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"boot": "another"}))
    monkeypatch.setattr(cache_module, "convert_shards", None)  # would fail if it were called
    check_same(open_quietly(files, root), clips)


def test_other_features_and_changed_files_make_another(tmp_path: Path) -> None:
    files, _ = write_clips(tmp_path, SIZES)
    root = tmp_path / "cache"
    open_quietly(files, root)
    audio = FeatureSpec.parse("audio", "2")
    cache = open_cache(files, audio, NUM_CLASSES, root, frames=True, stream=io.StringIO())
    assert cache.features.shape[1] == 2
    clips = make_clips(9, seed=99)
    write_records(files[1], map(encode, clips))
    everything = [clip for i, n in enumerate(SIZES) for clip in (clips if i == 1 else make_clips(n, seed=i))]
    check_same(open_quietly(files, root), everything)
    assert sum(1 for path in root.iterdir() if not path.name.startswith(".")) == 3


# ---- errors


def test_a_wrong_record_is_the_same_error_in_every_lane(tmp_path: Path, lanes: str) -> None:
    files, clips = write_clips(tmp_path, [9, 9, 9])
    bad = Clip("x", np.ones((4, SPEC.total), np.uint8), [1], [(4, 1, 1.0)])
    write_records(files[1], map(encode, [clips[0], bad]))
    place = len(encode(clips[0])) + 16
    told = f"{files[1]}, byte {place}: a segment starts at frame 4, but the video has 4 frames"
    with pytest.raises(RecordError) as caught:
        open_quietly(files, tmp_path / "cache", num_workers=2)
    assert str(caught.value) == told
    assert list((tmp_path / "cache").iterdir()) == []
    for _ in range(2):
        stream = io.StringIO()
        cache = open_cache(
            files,
            SPEC,
            NUM_CLASSES,
            tmp_path / "cache",
            frames=True,
            num_workers=2,
            skip_corrupt=True,
            stream=stream,
        )
        check_same(cache, [*clips[:9], clips[0], *clips[18:]])
        assert (cache.skipped, cache.reasons) == (1, (told,))
        assert told in stream.getvalue()


def test_the_disk_must_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = write_clips(tmp_path, SIZES)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"--cache_dir=.*needs about 0.00 GB, but 0.00 GB are free; .*=none"):
        open_quietly(files, tmp_path / "cache")


def test_estimates(tmp_path: Path) -> None:
    """About the number of frames; of files that hold nothing that can be read, no more than they may hold."""
    rng = np.random.default_rng(0)
    clips = [
        Clip(f"v{i}", rng.integers(0, 256, (rng.integers(20, 30), SPEC.total), dtype=np.uint8), [1], [])
        for i in range(40)
    ]
    frames = sum(len(clip.frames) for clip in clips)
    for suffix, tolerance in ((".tfrecord", 0.1), (".tfrecord.gz", 0.3)):
        path = tmp_path / f"some{suffix}"
        write_records(path, map(encode, clips))
        for spec in (SPEC, FeatureSpec.parse("audio", "2")):
            assert format_of(path).estimate_frames(path, spec) == pytest.approx(frames, rel=tolerance)
    broken = tmp_path / "broken.tfrecord"
    for data in (b"", b"x", b"\xff" * 400, b"\x1f\x8b" + b"x" * 50, bytes(16)):
        broken.write_bytes(data)
        assert 0 <= format_of(broken).estimate_frames(broken, SPEC) <= 400 // SPEC.total
    assert format_of(broken).estimate_frames(tmp_path / "nowhere.tfrecord", SPEC) == 0
