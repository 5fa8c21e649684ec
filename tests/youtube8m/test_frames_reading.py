"""Batches of frames: every video or segment once an epoch, padded with 0, from a cache or a stream."""

import gc
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.youtube8m.formats import format_of
from expertise.youtube8m.frames import FrameReading, dequantize, frame_mask
from expertise.youtube8m.readers import Batch, VideoSource, open_videos, read_batches
from expertise.youtube8m.reading import cached as _cached
from expertise.youtube8m.reading import streaming as _streaming
from expertise.youtube8m.reading.frame_examples import segments_of
from expertise.youtube8m.reading.frame_videos import UNRATED, Ratings
from expertise.youtube8m.records import RecordError, write_records
from expertise.youtube8m.sample import CLASSES, write_sample
from expertise.youtube8m.videos import FeatureSpec
from youtube8m import making
from youtube8m.making_frames import (
    NUM_CLASSES,
    SPEC,
    Clip,
    Example,
    encode,
    expected,
    make_clips,
    write_clips,
)

SIZES = [13, 0, 5, 9, 1]
READINGS = {
    "whole": FrameReading(),
    "cut": FrameReading(max_frames=7),
    "rated": FrameReading(max_frames=3, segments="rated"),
    "all": FrameReading(segments="all"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    write_clips(path, SIZES)
    return path


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [clip for number, size in enumerate(SIZES) for clip in make_clips(size, seed=number)]


def open_quietly(folder: Path, where: str, reading: FrameReading | None, **options: Any) -> VideoSource:
    """``where`` is "cached" or "streamed"."""
    cache_dir = "none" if where == "streamed" else str(folder / "cache")
    options = {"cache_dir": cache_dir, "stream": io.StringIO(), "num_readers": 2} | options
    pattern = options.pop("pattern", f"{folder}/*.tfrecord")
    return open_videos(pattern, options.pop("spec", SPEC), NUM_CLASSES, frames=reading, **options)


@pytest.fixture(scope="module")
def sources(folder: Path) -> dict[tuple[str, str], VideoSource]:
    return {
        (where, name): open_quietly(folder, where, reading)
        for where in ("cached", "streamed")
        for name, reading in READINGS.items()
    }


def check(batches: list[Batch], truth: dict[str, Example]) -> list[str]:
    """See that all rows are right; return the ids in their order."""
    ids = []
    for batch in batches:
        assert batch.lengths is not None
        assert (batch.features.dtype, batch.labels.dtype, batch.lengths.dtype) == (
            torch.uint8,
            torch.bool,
            torch.int64,
        )
        longest = max([1, *batch.lengths.tolist()])
        assert batch.features.shape == (len(batch), longest, SPEC.total)
        assert batch.features.is_contiguous()
        assert batch.labels.shape == (len(batch), NUM_CLASSES)
        for row, name in enumerate(batch.ids):
            length = int(batch.lengths[row])
            np.testing.assert_array_equal(batch.features[row, :length].numpy(), truth[name].frames)
            assert not batch.features[row, length:].any()
            assert set(batch.labels[row].nonzero().ravel().tolist()) == truth[name].labels
            rated = None if batch.rated is None else set(batch.rated[row].nonzero().ravel().tolist())
            assert rated == truth[name].rated
        ids += batch.ids
    return ids


SHUFFLES = [
    ("cached", "none"),
    ("cached", "global"),
    ("cached", "blocks"),
    ("streamed", "none"),
    ("streamed", "blocks"),
]


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize(("where", "shuffle"), SHUFFLES)
def test_every_example_once_an_epoch(
    sources: Any, clips: list[Clip], where: str, shuffle: Any, name: str
) -> None:
    source, truth = sources[where, name], expected(clips, READINGS[name])
    n = len(truth)
    for batch_size in (1, 6, 100):
        batches = list(source.batches(batch_size, num_epochs=2, shuffle=shuffle, seed=5))
        ids = check(batches, truth)
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert sorted(ids[:n]) == sorted(ids[n:]) == sorted(truth)
        assert (ids == list(truth) * 2) == (shuffle == "none")


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("where", ["cached", "streamed"])
def test_counts(sources: Any, clips: list[Clip], where: str, name: str) -> None:
    truth = expected(clips, READINGS[name])
    counts = np.zeros(NUM_CLASSES, dtype=np.int64)
    for example in truth.values():
        counts[list(example.labels)] += 1
    source = sources[where, name]
    assert (source.num_videos, source.skipped, source.spec) == (len(truth), 0, SPEC)
    np.testing.assert_array_equal(source.label_counts, counts)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SHUFFLES), st.sampled_from(sorted(READINGS)), st.integers(1, 40), st.integers(0, 60))
def test_resumes_anywhere(
    sources: Any, clips: Any, kind: Any, name: str, batch_size: int, start: int
) -> None:
    options = {"num_epochs": 2, "shuffle": kind[1], "seed": 3}
    source = sources[kind[0], name]
    whole = [video for batch in source.batches(7, **options) for video in batch.ids]
    rest = list(source.batches(batch_size, start=start, **options))
    assert check(rest, expected(clips, READINGS[name])) == whole[start:]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(SHUFFLES), st.sampled_from(sorted(READINGS)), st.integers(1, 20), st.integers(1, 5))
def test_all_parts_are_the_batch(
    sources: Any, clips: Any, kind: Any, name: str, batch_size: int, of: int
) -> None:
    source, truth = sources[kind[0], name], expected(clips, READINGS[name])
    whole = [batch.ids for batch in source.batches(batch_size, shuffle=kind[1])]
    streams = [list(source.batches(batch_size, shuffle=kind[1], part=(i, of))) for i in range(of)]
    for stream in streams:
        check(stream, truth)
    assert [[video for part in parts for video in part.ids] for parts in zip(*streams, strict=True)] == whole


def test_cached_equals_streamed(sources: Any) -> None:
    for name in READINGS:
        cached, streamed = (sources[where, name].batches(6) for where in ("cached", "streamed"))
        for one, other in zip(cached, streamed, strict=True):
            assert one.ids == other.ids
            for field in ("features", "labels", "lengths", "rated"):
                tensors = getattr(one, field), getattr(other, field)
                assert tensors == (None, None) or torch.equal(*tensors)


def test_number_of_readers_changes_nothing(folder: Path) -> None:
    def ids(num_readers: int) -> list[str]:
        source = open_quietly(folder, "streamed", READINGS["all"], num_readers=num_readers)
        return [video for b in source.batches(4, num_epochs=2, shuffle="blocks") for video in b.ids]

    assert ids(1) == ids(2) == ids(9)


def test_one_cache_serves_videos_and_segments(folder: Path, sources: Any) -> None:
    caches = [path for path in (folder / "cache").iterdir() if not path.name.startswith(".")]
    assert len(caches) == 1
    assert (caches[0] / "frames.u8").stat().st_size == sum(
        clip.frames.nbytes for number, size in enumerate(SIZES) for clip in make_clips(size, seed=number)
    )


def test_blocks_are_bounded_by_bytes(
    folder: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small blocks and windows of both kinds of source still give every video once, near its neighbours."""
    monkeypatch.setattr(_cached, "BLOCK_BYTES", 300)
    monkeypatch.setattr(_cached, "WINDOW_BYTES", 700)
    monkeypatch.setattr(_streaming, "WINDOW_BYTES", 500)
    truth = expected(clips, READINGS["whole"])
    for where in ("cached", "streamed"):
        source = open_quietly(folder, where, READINGS["whole"])
        ids = check(list(source.batches(4, shuffle="blocks", seed=1)), truth)
        assert sorted(ids) == sorted(truth)
        assert ids != list(truth)


def test_a_batch_is_its_holders_own(sources: Any, clips: list[Clip]) -> None:
    """Memory is used again, but never while anything of it is held; and what is changed in it stays there."""
    truth = expected(clips, READINGS["whole"])
    kept = []
    for number, batch in enumerate(sources["cached", "whole"].batches(4, num_epochs=12, shuffle="global")):
        view = (batch.features[1:], batch.labels.view(torch.uint8), batch.features.numpy())[number % 3]
        kept.append((view, bytes(np.asarray(view))))
        del batch
    gc.collect()
    assert all(bytes(np.asarray(view)) == data for view, data in kept)
    for batch in sources["cached", "whole"].batches(4):
        batch.features.fill_(9)
    check(list(sources["cached", "whole"].batches(4)), truth)


def test_memory_is_used_again(sources: Any) -> None:
    seen = {batch.features.data_ptr() for batch in sources["cached", "all"].batches(8, num_epochs=20)}
    assert len(seen) <= 4


def test_a_stream_that_is_left_ends_its_threads(folder: Path) -> None:
    before = threading.active_count()
    stream = open_quietly(folder, "streamed", READINGS["whole"]).batches(2, num_epochs=None)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= before + 1  # + 1: a cache of another test may be settling


# ---- segments


def test_segments_by_hand() -> None:
    #          video 0: 9 frames            video 1: 12, only named      video 2: 6, silent   video 3: none
    starts, labels, hits = [5, 5, 0, 5], [2, 1, 2, 2], [True, True, False, False]
    ratings = Ratings(
        np.array([0, 4, 6, 6, 6]),
        np.array([*starts, 7, 0], dtype=np.int32),
        np.array([*labels, UNRATED, UNRATED], dtype=np.int32),
        np.array([*hits, False, False]),
    )
    lengths = np.array([9, 12, 6, 0])
    rated = segments_of(lengths, ratings, unrated=False)
    assert (rated.videos.tolist(), rated.starts.tolist(), rated.lengths.tolist()) == ([0, 0], [0, 5], [5, 4])
    assert (rated.label_ptr.tolist(), rated.labels.tolist()) == ([0, 0, 1], [1])  # of 2 at 5 the last says no
    assert rated.rated_ptr is not None
    assert rated.rated is not None
    assert (rated.rated_ptr.tolist(), rated.rated.tolist()) == ([0, 1, 3], [2, 1, 2])
    every = segments_of(lengths, ratings, unrated=True)
    assert every.videos.tolist() == [0, 0, 1, 1, 2, 2]
    assert every.starts.tolist() == [0, 5, 0, 7, 0, 5]
    assert every.lengths.tolist() == [5, 4, 5, 5, 5, 1]
    assert every.rated_ptr is not None
    assert np.diff(every.rated_ptr).tolist() == [1, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("where", ["cached", "streamed"])
def test_no_rated_segment(tmp_path: Path, where: str) -> None:
    clips = [Clip("a", np.ones((7, 8), np.uint8), [1], [])]
    write_records(tmp_path / "a.tfrecord", map(encode, clips))
    with pytest.raises(ValueError, match=r"no rated segment.*; --segment_labels takes .* or leave it out$"):
        list(open_quietly(tmp_path, where, READINGS["rated"]).batches(4))
    found = list(open_quietly(tmp_path, where, READINGS["all"]).batches(4))
    assert check(found, expected(clips, READINGS["all"])) == ["a:0", "a:5"]


@pytest.mark.parametrize("where", ["cached", "streamed"])
def test_videos_without_frames(tmp_path: Path, where: str) -> None:
    clips = [Clip(name, np.empty((0, 8), np.uint8), [1], []) for name in "ab"]
    write_records(tmp_path / "a.tfrecord", map(encode, clips))
    (batch,) = open_quietly(tmp_path, where, READINGS["whole"]).batches(4)
    check([batch], expected(clips, READINGS["whole"]))
    assert batch.features.shape == (2, 1, 8)
    with pytest.raises(ValueError, match="no segment"):
        list(open_quietly(tmp_path, where, READINGS["all"]).batches(4))


# ---- errors


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_formats_without_frames(tmp_path: Path, suffix: str) -> None:
    (path,) = making.write_files(tmp_path, [3], suffix)
    message = rf"{path}: a {suffix} file has no frames; --frame_features reads TFRecord files"
    with pytest.raises(ValueError, match=message):
        open_quietly(tmp_path, "cached", READINGS["whole"], pattern=str(path))
    assert not (tmp_path / "cache").exists()
    for read in (format_of(path).read_frames, format_of(path).estimate_frames):
        with pytest.raises(ValueError, match=message):
            read(path, *((SPEC, NUM_CLASSES) if read.__name__ == "read_frames" else (SPEC,)))


@pytest.mark.parametrize("where", ["cached", "streamed"])
def test_the_wrong_kind_both_ways(tmp_path: Path, folder: Path, where: str) -> None:
    (path,) = making.write_files(tmp_path, [3])
    with pytest.raises(RecordError, match=r"video-level records .*; give frame-level ones, or train without"):
        list(open_quietly(tmp_path, where, READINGS["whole"]).batches(4))
    with pytest.raises(RecordError, match=r"train with --frame_features --feature_names=rgb,audio"):
        list(open_quietly(folder, where, None, spec=making.SPEC, cache_dir="none").batches(4))
    with pytest.raises(RecordError, match=r"'mean_rgb'; .*; train with --feature_names=rgb,audio"):
        list(open_quietly(folder, where, READINGS["whole"], spec=making.SPEC).batches(4))
    sizes = FeatureSpec.parse("rgb,audio", "6,3")
    with pytest.raises(RecordError, match="'audio' has 2 bytes, expected 3; check --feature_sizes"):
        list(open_quietly(folder, where, READINGS["whole"], spec=sizes).batches(4))
    assert path.exists()


@pytest.mark.parametrize("where", ["cached", "streamed"])
@pytest.mark.parametrize("suffix", [".tfrecord", ".tfrecord.gz"])
def test_corrupt_and_truncated(tmp_path: Path, where: str, suffix: str) -> None:
    paths, clips = write_clips(tmp_path, [6, 6, 6], suffix)
    bad = encode(clips[0]).replace(b"labels", b"labelz", 1)  # still right
    outside = encode(Clip("x", np.ones((3, 8), np.uint8), [NUM_CLASSES], []))
    write_records(paths[1], [bad, outside, *map(encode, clips[7:12])])
    if suffix == ".tfrecord":
        data = bytearray(paths[2].read_bytes())
        data[-30] ^= 1  # the last record's data
        paths[2].write_bytes(data)
    else:
        paths[2].write_bytes(paths[2].read_bytes()[:-40])
    pattern = f"{tmp_path}/*{suffix}"
    with pytest.raises(RecordError, match=f"{paths[1]}, byte {len(bad) + 16}: label 20 is outside 0..19"):
        list(open_quietly(tmp_path, where, READINGS["whole"], pattern=pattern).batches(4))
    told = io.StringIO()
    source = open_quietly(tmp_path, where, READINGS["whole"], pattern=pattern, skip_corrupt=True, stream=told)
    ids = [video for batch in source.batches(4) for video in batch.ids]
    assert ids[:12] == [*(clip.id for clip in clips[:6]), clips[0].id, *(clip.id for clip in clips[7:12])]
    assert source.skipped == 2
    assert "skipped 2 corrupt records:" in told.getvalue()
    assert f"{paths[2]}, byte" in told.getvalue()


def test_only_wrong_records_say_why(tmp_path: Path) -> None:
    making.write_files(tmp_path, [3])
    for where in ("cached", "streamed"):
        with pytest.raises(
            ValueError, match=r"there is no video in .*; 3 corrupt records, the first: .*train without"
        ):
            list(open_quietly(tmp_path, where, READINGS["whole"], skip_corrupt=True).batches(4))


def test_readings_that_are_not_allowed() -> None:
    with pytest.raises(ValueError, match="max_frames=0 is not allowed; give 1 or more"):
        FrameReading(max_frames=0)
    with pytest.raises(ValueError, match="segments='some' is not known; it is one of '', 'rated', 'all'"):
        FrameReading(segments="some")  # type: ignore[arg-type]


# ---- the public function, and the sample


def test_read_batches(folder: Path, clips: list[Clip], tmp_path: Path) -> None:
    options: dict[str, Any] = {"feature_sizes": "6,2", "num_classes": NUM_CLASSES, "batch_size": 8}
    options |= {"frame_features": True, "cache_dir": str(tmp_path)}
    pattern = f"{folder}/*.tfrecord"
    whole = list(read_batches(pattern, max_frames=7, **options))
    assert check(whole, expected(clips, READINGS["cut"])) == list(expected(clips, READINGS["cut"]))
    rated = list(read_batches(pattern, segment_labels=True, shuffle=True, **options))
    truth = expected(clips, READINGS["rated"])
    assert sorted(check(rated, truth)) == sorted(truth)
    with pytest.raises(
        ValueError, match="segment_labels=True reads frame-level records; give frame_features"
    ):
        read_batches(pattern, segment_labels=True, **options | {"frame_features": False})
    with pytest.raises(ValueError, match="max_frames=0 is not allowed"):
        read_batches(pattern, max_frames=0, **options)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "digits"
    write_sample(path, num_train=100, num_validate=10, num_test=10)
    return path


def batches_of(sample: Path, kind: str, reading: FrameReading | None, names: str) -> list[Batch]:
    source = open_videos(
        f"{sample}/{kind}/train*",
        FeatureSpec.parse(names, "64,16"),
        len(CLASSES),
        frames=reading,
        cache_dir="none",
        stream=io.StringIO(),
    )
    return list(source.batches(16))


def test_means_of_the_samples_frames_are_its_features(sample: Path) -> None:
    videos = {
        name: (features, labels)
        for batch in batches_of(sample, "video", None, "mean_rgb,mean_audio")
        for name, features, labels in zip(batch.ids, batch.features, batch.labels, strict=True)
    }
    count = 0
    for batch in batches_of(sample, "frame", FrameReading(), "rgb,audio"):
        assert batch.lengths is not None
        frames = dequantize(batch.features) * frame_mask(batch.lengths, batch.features.shape[1]).unsqueeze(2)
        means = frames.sum(1) / batch.lengths.unsqueeze(1)
        for name, mean, labels in zip(batch.ids, means, batch.labels, strict=True):
            torch.testing.assert_close(mean, videos[name][0], atol=1e-5, rtol=0)
            assert torch.equal(labels, videos[name][1])
            count += 1
    assert count == 20


def test_segments_of_the_sample_are_cut_from_its_videos(sample: Path) -> None:
    (whole,) = batches_of(sample, "frame", FrameReading(), "rgb,audio")[:1]
    of_video = dict(zip(whole.ids, whole.features, strict=True))
    seen = 0
    for batch in batches_of(sample, "segment", FrameReading(segments="rated"), "rgb,audio"):
        assert batch.rated is not None
        assert not (batch.labels & ~batch.rated).any()
        assert batch.rated.any(dim=1).all()
        for name, frames in zip(batch.ids, batch.features, strict=True):
            video, start = name.split(":")
            if video in of_video:
                assert torch.equal(frames, of_video[video][int(start) : int(start) + 5])
                seen += 1
    assert seen > 20
