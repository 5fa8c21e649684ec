"""Batches: every video exactly once an epoch, and any stream can be taken up where it was left."""

import gc
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.youtube8m.readers import (
    Batch,
    CachedVideos,
    StreamedVideos,
    VideoSource,
    open_videos,
    read_batches,
)
from expertise.youtube8m.reading import cached as _cached
from expertise.youtube8m.reading import streaming as _streaming
from expertise.youtube8m.reading.cached import available_memory, epoch_order
from expertise.youtube8m.records import RecordError
from youtube8m.making import NUM_CLASSES, SPEC, as_dict, make_videos, write_files

SIZES = [13, 0, 5, 9, 1]
N = sum(SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    write_files(path, SIZES)
    return path


def open_quietly(folder: Path, cache_dir: str, **options: Any) -> VideoSource:
    return open_videos(
        f"{folder}/*.tfrecord", SPEC, NUM_CLASSES, cache_dir=cache_dir, stream=io.StringIO(), **options
    )


@pytest.fixture(scope="module")
def cached(folder: Path) -> VideoSource:
    return open_quietly(folder, str(folder / "cache"))


@pytest.fixture(scope="module")
def streamed(folder: Path) -> VideoSource:
    return open_quietly(folder, "none", num_readers=2)


@pytest.fixture(scope="module")
def truth() -> dict[str, tuple[bytes, list[int]]]:
    found: dict[str, tuple[bytes, list[int]]] = {}
    for number, size in enumerate(SIZES):
        found |= as_dict(make_videos(size, seed=number))
    return found


def check(batches: list[Batch], truth: dict[str, tuple[bytes, list[int]]]) -> list[str]:
    """See that all rows are right; return the ids in their order."""
    ids = []
    for batch in batches:
        assert batch.features.dtype == torch.float32
        assert batch.labels.dtype == torch.bool
        assert batch.features.shape == (len(batch.ids), SPEC.total)
        assert batch.labels.shape == (len(batch.ids), NUM_CLASSES)
        for row, video in enumerate(batch.ids):
            features, labels = truth[video]
            assert batch.features[row].numpy().tobytes() == features
            assert batch.labels[row].nonzero().ravel().tolist() == sorted(labels)
        ids += batch.ids
    return ids


KINDS = [
    ("cached", "none"),
    ("cached", "global"),
    ("cached", "blocks"),
    ("streamed", "none"),
    ("streamed", "blocks"),
]


@pytest.fixture(params=KINDS, ids="-".join)
def kind(
    request: pytest.FixtureRequest, cached: VideoSource, streamed: VideoSource
) -> tuple[VideoSource, Any]:
    source, shuffle = request.param
    return (cached if source == "cached" else streamed), shuffle


@pytest.mark.parametrize("batch_size", [1, 4, 28, 100])
def test_every_video_once_an_epoch(kind: Any, truth: Any, batch_size: int) -> None:
    source, shuffle = kind
    batches = list(source.batches(batch_size, num_epochs=3, shuffle=shuffle, seed=5))
    ids = check(batches, truth)
    for epoch in range(3):
        assert sorted(ids[epoch * N : (epoch + 1) * N]) == sorted(truth)
    assert [len(batch.ids) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    if shuffle == "none":
        assert ids == list(truth) * 3
    else:
        assert ids[:N] != ids[N : 2 * N] != list(truth)


def test_order_follows_from_the_seed_alone(kind: Any) -> None:
    source, shuffle = kind

    def ids(seed: int, batch_size: int) -> list[str]:
        stream = source.batches(batch_size, num_epochs=2, shuffle=shuffle, seed=seed)
        return [video for batch in stream for video in batch.ids]

    assert ids(1, 4) == ids(1, 9)
    assert (ids(1, 4) != ids(2, 4)) == (shuffle != "none")


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 3), st.integers(0, 3 * N + 2))
def test_resumes_anywhere(
    cached: VideoSource, streamed: VideoSource, kind: Any, batch_size: int, num_epochs: int, start: int
) -> None:
    source = cached if kind[0] == "cached" else streamed
    options = {"num_epochs": num_epochs, "shuffle": kind[1], "seed": 3}
    whole = list(source.batches(1, **options))
    rest = list(source.batches(batch_size, start=start, **options))
    expected = whole[start:]
    assert [video for batch in rest for video in batch.ids] == [
        video for one in expected for video in one.ids
    ]
    if expected:
        features = torch.cat([batch.features for batch in rest])
        labels = torch.cat([batch.labels for batch in rest])
        assert torch.equal(features, torch.cat([one.features for one in expected]))
        assert torch.equal(labels, torch.cat([one.labels for one in expected]))


def test_without_end(kind: Any) -> None:
    source, shuffle = kind
    stream = source.batches(5, num_epochs=None, shuffle=shuffle, start=N)
    assert sum(len(batch.ids) for batch in islice(stream, 20)) == 100


def test_counts(cached: VideoSource, streamed: VideoSource) -> None:
    labels = [make_videos(size, seed=number).labels for number, size in enumerate(SIZES)]
    expected = np.bincount(np.concatenate(labels), minlength=NUM_CLASSES)
    for source in (cached, streamed):
        assert source.num_videos == N
        assert source.label_counts.dtype == np.int64
        np.testing.assert_array_equal(source.label_counts, expected)
        assert source.skipped == 0
        assert source.spec == SPEC


def test_batches_keep_their_memory(cached: VideoSource, truth: Any) -> None:
    """Memory is used again, but never while anything of it is held."""
    kept: list[tuple[torch.Tensor, bytes]] = []
    for number, batch in enumerate(cached.batches(4, num_epochs=30, shuffle="global")):
        if number % 3 == 0:
            view = (
                batch.features[1:3],
                batch.labels.view(torch.uint8),
                torch.from_numpy(batch.features.numpy()),
            )[number % 9 // 3]
            kept.append((view, view.numpy().tobytes()))
        del batch
    gc.collect()
    for view, data in kept:
        assert view.numpy().tobytes() == data


def test_memory_is_used_again(cached: VideoSource) -> None:
    seen = set()
    for batch in cached.batches(4, num_epochs=20, shuffle="global"):
        seen.add(batch.features.data_ptr())
    assert len(seen) <= 3


def test_a_batch_may_be_changed_by_who_has_it(cached: VideoSource, truth: Any) -> None:
    for batch in cached.batches(4, num_epochs=3):
        batch.features.zero_()
        batch.labels.fill_(True)
    check(list(cached.batches(4)), truth)


# ---- orders


@given(
    st.integers(0, 60), st.sampled_from(["none", "global", "blocks"]), st.integers(0, 9), st.integers(1, 4)
)
def test_orders_are_permutations(n: int, shuffle: Any, epoch: int, window: int) -> None:
    order = epoch_order(n, shuffle, 0, epoch, window, 7)
    assert sorted(order.tolist()) == list(range(n))


def test_blocks_stay_near_each_other() -> None:
    """Within a window only the neighbours of a few blocks occur, so that the disk is read in runs."""
    order = epoch_order(100, "blocks", 0, 0, 2, 10)
    windows = order.reshape(5, 20) // 10
    assert all(len(np.unique(window)) == 2 for window in windows)
    assert (np.sort(order.reshape(5, 20)) != order.reshape(5, 20)).any(axis=1).all()


def test_default_shuffle(cached: VideoSource, streamed: VideoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    assert streamed.default_shuffle() == "blocks"
    assert 2**20 < available_memory() < 2**60
    assert cached.default_shuffle() == "global"
    needed = N * SPEC.total * 4
    monkeypatch.setattr(_cached, "available_memory", lambda: int(needed / 0.6) - 2)
    assert cached.default_shuffle() == "blocks"


# ---- streaming


def test_number_of_readers_changes_nothing(folder: Path) -> None:
    def stream(num_readers: int) -> list[str]:
        source = open_quietly(folder, "none", num_readers=num_readers)
        return [video for b in source.batches(4, num_epochs=2, shuffle="blocks") for video in b.ids]

    assert stream(1) == stream(2) == stream(9)


def test_shuffles_across_files_in_windows(folder: Path, monkeypatch: pytest.MonkeyPatch, truth: Any) -> None:
    monkeypatch.setattr(_streaming, "WINDOW_BYTES", 10 * SPEC.total * 4)
    source = open_quietly(folder, "none")
    ids = check(list(source.batches(4, shuffle="blocks")), truth)
    assert sorted(ids) == sorted(truth)


def test_a_stream_that_is_left_ends_its_threads(folder: Path) -> None:
    import threading

    before = threading.active_count()
    stream: Iterator[Batch] = open_quietly(folder, "none").batches(2, num_epochs=None)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= before + 1  # + 1: a cache of another test may be settling


def corrupt(folder: Path) -> Path:
    paths = write_files(folder, [10, 10, 10])
    data = bytearray(paths[1].read_bytes())
    data[-30] ^= 1
    paths[1].write_bytes(data)
    return paths[1]


@pytest.mark.parametrize("cache_dir", ["none", "cache"])
def test_corrupt_records(tmp_path: Path, cache_dir: str) -> None:
    path = corrupt(tmp_path)
    where = cache_dir if cache_dir == "none" else str(tmp_path / cache_dir)
    with pytest.raises(RecordError, match=f"{path}, byte .*checksum of the record's data is wrong"):
        list(open_quietly(tmp_path, where).batches(4))
    told = io.StringIO()
    source = open_videos(
        f"{tmp_path}/*.tfrecord", SPEC, NUM_CLASSES, cache_dir=where, skip_corrupt=True, stream=told
    )
    assert sum(len(batch.ids) for batch in source.batches(4)) == 29
    assert source.skipped == 1
    assert source.num_videos == 29
    assert told.getvalue().count("skipped 1 corrupt record:") == 1
    assert f"{path}, byte" in told.getvalue()


# ---- the public function, and errors


def test_read_batches(folder: Path, truth: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"feature_sizes": "6,2", "num_classes": NUM_CLASSES, "batch_size": 8}
    plain = list(read_batches(f"{folder}/*.tfrecord", cache_dir=str(tmp_path), **options))
    assert check(plain, truth) == list(truth)
    for cache_dir in (str(tmp_path), "none"):
        shuffled = list(
            read_batches(
                f"{folder}/*.tfrecord", cache_dir=cache_dir, shuffle=True, num_epochs=2, seed=1, **options
            )
        )
        ids = check(shuffled, truth)
        assert sorted(ids) == sorted([*truth, *truth])
        assert ids != list(truth) * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"num_epochs": 0}, "num_epochs=0 is not allowed; .* None for no end"),
        ({"seed": -1}, "seed=-1 is not allowed"),
        ({"num_readers": 0}, "--num_readers=0 is not allowed"),
        ({"num_classes": 0}, "num_classes=0 is not allowed"),
        ({"feature_sizes": "6"}, "has 2 names"),
        ({"pattern": "/nowhere/*"}, "--pattern='/nowhere/.*no file matches"),
        ({"pattern": __file__}, r"not by '\.py'"),
    ],
)
def test_errors_come_before_the_first_batch(
    folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    values = {"feature_sizes": "6,2", "num_classes": NUM_CLASSES, "cache_dir": str(tmp_path / "cache")}
    options = dict(options)
    pattern = options.pop("pattern", f"{folder}/*.tfrecord")
    with pytest.raises(ValueError, match=message):
        read_batches(pattern, **values | options)
    assert not (tmp_path / "cache").exists()


def test_wrong_streams(cached: VideoSource, streamed: VideoSource) -> None:
    with pytest.raises(ValueError, match="shuffle='all' is not known; it is one of none, global, blocks"):
        cached.batches(4, shuffle="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start=-1 is not allowed"):
        streamed.batches(4, start=-1)
    with pytest.raises(ValueError, match="shuffle='global' needs a cache"):
        streamed.batches(4, shuffle="global")


def test_no_video(tmp_path: Path) -> None:
    write_files(tmp_path, [0, 0])
    with pytest.raises(ValueError, match="there is no video in"):
        list(open_quietly(tmp_path, "none").batches(4))
    with pytest.raises(ValueError, match="there is no video in"):
        open_quietly(tmp_path, str(tmp_path / "cache"))


def test_kinds_of_sources(cached: VideoSource, streamed: VideoSource) -> None:
    assert isinstance(cached, CachedVideos)
    assert isinstance(streamed, StreamedVideos)


def test_official_shards(data_dir: Path, tmp_path: Path) -> None:
    pattern = str(data_dir / "youtube8m" / "validate*.tfrecord")
    batches = list(read_batches(pattern, batch_size=512, cache_dir=str(tmp_path)))
    assert [len(batch.ids) for batch in batches] == [512, 77]
    assert batches[0].features.shape == (512, 1152)
    assert batches[0].labels.shape == (512, 3862)
    assert batches[0].ids[0] == "02aa"
    assert batches[0].labels[0].nonzero().ravel().tolist() == [3, 4, 9, 34]
    assert not torch.isnan(batches[1].features).any()
