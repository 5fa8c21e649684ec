"""The parser of whole shards gives what the parser of single records gives, whatever the records are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.youtube8m.reading.columns import parse_video, parse_videos
from expertise.youtube8m.reading.lockstep import walk_shard
from expertise.youtube8m.records import RecordError, Shard, encode_sequence_example, scan_records
from expertise.youtube8m.videos import FeatureSpec, Videos, concatenate
from youtube8m.wire import entry, floats, integers, message, shard_of, text

SPEC = FeatureSpec.parse("mean_rgb,mean_audio", "5,2")
NUM_CLASSES = 300


def record(*entries: bytes, tail: bytes = b"") -> bytes:
    return message(1, b"".join(entries)) + tail


def usual(video: str = "abcd", labels: Any = (3, 200), rgb: Any = (0, 1, 2, 3, 4)) -> bytes:
    return record(
        entry("id", text(video.encode())),
        entry("labels", integers(labels)),
        entry("mean_rgb", floats(rgb)),
        entry("mean_audio", floats((5, 6))),
    )


def parse(shard: Shard, skipped: list[RecordError] | None = None, spec: FeatureSpec = SPEC) -> Videos:
    return concatenate(parse_videos(shard, spec, 3862 if spec.total > 7 else NUM_CLASSES, skipped), spec)


def one_by_one(records: list[bytes], skipped: list[int]) -> list[tuple[str, bytes, list[int]]]:
    """The slow twin: every record by `parse_video`; the numbers of the wrong ones go to ``skipped``."""
    videos = []
    for number, one in enumerate(records):
        try:
            video, features, labels = parse_video(one, SPEC)
        except ValueError:
            skipped.append(number)
            continue
        if not np.isfinite(features).all() or ((labels < 0) | (labels >= NUM_CLASSES)).any():
            skipped.append(number)
        else:
            videos.append((video, features.tobytes(), list(dict.fromkeys(labels.tolist()))))
    return videos


def check_equal(records: list[bytes]) -> None:
    shard = shard_of(records)
    skipped: list[RecordError] = []
    expected_skipped: list[int] = []
    found = parse(shard, skipped)
    expected = one_by_one(records, expected_skipped)
    ends = found.label_ptr
    assert [
        (video, found.features[i].tobytes(), found.labels[ends[i] : ends[i + 1]].tolist())
        for i, video in enumerate(found.ids)
    ] == expected
    assert [error.offset for error in skipped] == [int(shard.starts[i]) - 12 for i in expected_skipped]
    if skipped:
        with pytest.raises(RecordError) as caught:
            parse(shard)
        assert str(caught.value) == str(skipped[0])
    # the same in pieces, in memory that is used again
    again: list[RecordError] = []
    scratch = np.empty((2, SPEC.total), dtype=np.float32)
    pieces = [
        (piece.ids, piece.features.tobytes(), np.diff(piece.label_ptr).tolist(), piece.labels.tolist())
        for piece in parse_videos(shard, SPEC, NUM_CLASSES, again, scratch)
    ]
    assert [str(error) for error in again] == [str(error) for error in skipped]
    assert [video for piece in pieces for video in piece[0]] == found.ids
    assert b"".join(piece[1] for piece in pieces) == found.features.tobytes()
    assert [size for piece in pieces for size in piece[2]] == np.diff(ends).tolist()
    assert [label for piece in pieces for label in piece[3]] == found.labels.tolist()


VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(
    st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1), st.integers(-5, 2**63 - 1)
)


@st.composite
def example(draw: st.DrawFn) -> bytes:
    """A record that is usual in most respects, and unusual in some."""
    odd = lambda: draw(st.integers(0, 19)) == 0  # noqa: E731
    labels = draw(st.lists(st.integers(0, NUM_CLASSES - 1), max_size=4))
    if odd():
        labels = draw(st.lists(NUMBERS, max_size=130))
    video = draw(st.text("abcXYZ019", min_size=0, max_size=6)).encode()
    if odd():
        video = draw(st.one_of(st.binary(max_size=8), st.text(max_size=130).map(str.encode)))
    rgb = draw(st.lists(VALUES, min_size=5, max_size=5))
    if odd():
        rgb = draw(st.lists(st.floats(width=32), max_size=6))
    entries = [
        entry("id", text(video)),
        entry("labels", message(3, b"") if not labels and odd() else integers(labels, packed=not odd())),
        entry("mean_rgb", floats(rgb, packed=not odd())),
        entry("mean_audio", floats(draw(st.lists(VALUES, min_size=2, max_size=2)))),
    ]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        key = draw(st.sampled_from(["extra", "title", "x" * 130, "mean_rgb", "labels", "", "é"]))
        feature = draw(
            st.sampled_from(
                [floats((1, 2)), text(b"t"), text(b"t" * 200), integers((7,)), floats((1,) * 5), b""]
            )
        )
        entries.append(entry(key, feature))
    if odd():
        del entries[draw(st.integers(0, len(entries) - 1))]
    if odd():
        entries.append(b"\x10\x05")  # a field that Features does not have
    entries = draw(st.permutations(entries))
    tail = draw(
        st.sampled_from([b"", b"", b"\x12\x00", b"\x12\x00", b"\x12\x00\x12\x00", b"\x18\x01", b"\x12"])
    )
    whole = record(*entries, tail=tail)
    return whole[: draw(st.integers(0, len(whole)))] if odd() else whole


@settings(max_examples=150, deadline=None)
@given(st.lists(example(), max_size=6))
def test_equals_the_parser_of_single_records(records: list[bytes]) -> None:
    check_equal(records)


@settings(max_examples=150, deadline=None)
@given(st.lists(example(), min_size=1, max_size=3), st.data())
def test_equals_it_after_any_bytes_are_changed(records: list[bytes], data: st.DataObject) -> None:
    changed = []
    for one in records:
        mutable = bytearray(one)
        for _ in range(data.draw(st.integers(0, 2))):
            if mutable:
                mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
        changed.append(bytes(mutable))
    check_equal(changed)


@pytest.mark.parametrize("tail", [b"", b"\x12\x00"])
@pytest.mark.parametrize("change", [0x01, 0x80, 0x08])
def test_equals_it_whichever_byte_is_changed(change: int, tail: bytes) -> None:
    one = record(
        entry("extra", floats((1, 2))),
        entry("title", text(b"t")),
        entry("id", text(b"abcd")),
        entry("labels", integers((3, 200))),
        entry("mean_rgb", floats(range(5))),
        entry("mean_audio", floats((5, 6))),
        tail=tail,
    )
    variants = [one[:i] + bytes([one[i] ^ change]) + one[i + 1 :] for i in range(len(one))]
    check_equal(variants)
    for variant in variants:
        check_equal([variant, usual()])


def test_more_odd_records_than_are_looked_at() -> None:
    good = [entry("extra", integers((i,))) for i in range(50)]
    bad = [entry("extra", message(3, message(1, b"\x80"))) for _ in range(50)]
    for extras in (good, bad):
        check_equal([record(ID, LABELS, RGB, AUDIO, extra) for extra in extras])


def test_the_usual_forms_are_read_in_lockstep() -> None:
    entries = [
        entry("id", text(b"abcd")),
        entry("labels", integers((3, 200, 3))),
        entry("mean_rgb", floats(range(5))),
        entry("mean_audio", floats((5, 6))),
        entry("title", text(b"a title")),
        entry("embedding", floats(range(50))),
    ]
    records = [
        record(*entries),
        record(*reversed(entries)),
        record(*entries[2:], *entries[:2], tail=b"\x12\x00"),
        record(*entries[:1], *entries[2:]),
        record(*entries[:1], entry("labels", message(3, b"")), *entries[2:]),
        record(*entries, *entries[:2], entry("mean_audio", floats((8, 9)))),
    ]
    assert not walk_shard(shard_of(records), SPEC).odd.any()
    check_equal(records)


def test_official_shards_are_read_in_lockstep(data_dir: Path) -> None:
    for number in (0, 1):
        [shard] = scan_records(data_dir / "youtube8m" / f"validate000{number}.tfrecord")
        assert len(shard.starts) == (284, 305)[number]
        for names, sizes in (
            ("mean_rgb,mean_audio", "1024,128"),
            ("mean_audio", "128"),
            ("mean_rgb", "1024"),
        ):
            spec = FeatureSpec.parse(names, sizes)
            assert not walk_shard(shard, spec).odd.any()
            videos = parse(shard, spec=spec)
            for row in range(0, len(videos), 40):
                start = int(shard.starts[row])
                data = shard.buffer[start : start + int(shard.sizes[row])].tobytes()
                video, features, labels = parse_video(data, spec)
                assert video == videos.ids[row]
                np.testing.assert_array_equal(features, videos.features[row])
                ends = videos.label_ptr
                assert labels.tolist() == videos.labels[ends[row] : ends[row + 1]].tolist()


def test_a_shard_without_records() -> None:
    videos = parse(shard_of([]))
    assert (len(videos), videos.features.shape) == (0, (0, 7))


def test_features_go_to_the_memory_that_is_given() -> None:
    scratch = np.full((4, 7), 9, dtype=np.float32)
    (videos,) = parse_videos(
        shard_of([usual(labels=[900]), usual(), usual()]), SPEC, NUM_CLASSES, [], scratch
    )
    assert np.shares_memory(videos.features, scratch)
    np.testing.assert_array_equal(scratch[:2], [range(7)] * 2)
    assert (scratch[3:] == 9).all()


def wrong(*entries: bytes) -> str:
    """The error of a record behind two that are right."""
    with pytest.raises(RecordError) as caught:
        parse(shard_of([usual(), usual(), record(*entries)]))
    place = 2 * (len(usual()) + 16)
    assert str(caught.value).startswith(f"some.tfrecord, byte {place}: ")
    return caught.value.reason


ID, LABELS = entry("id", text(b"abcd")), entry("labels", integers((3,)))
RGB, AUDIO = entry("mean_rgb", floats(range(5))), entry("mean_audio", floats(range(2)))


def test_errors_name_what_is_wrong_and_what_to_do() -> None:
    assert wrong(ID, LABELS, RGB) == (
        "no feature 'mean_audio'; the record has id, labels, mean_rgb; check --feature_names"
    )
    assert wrong(LABELS, RGB, AUDIO) == (
        "feature 'id' must be one text, but it is missing; "
        "the record has labels, mean_audio, mean_rgb; check --feature_names"
    )
    assert wrong(ID, LABELS, entry("mean_rgb", floats(range(4))), AUDIO) == (
        "feature 'mean_rgb' has 4 values, expected 5; check --feature_sizes"
    )
    assert wrong(ID, LABELS, entry("mean_rgb", integers(range(5))), AUDIO) == (
        "feature 'mean_rgb' must be floats, but it is 5 integers"
    )
    assert wrong(ID, entry("labels", floats((1,))), RGB, AUDIO) == (
        "feature 'labels' must be integers, but it is 1 floats"
    )
    assert wrong(entry("id", integers((1,))), LABELS, RGB, AUDIO).startswith(
        "feature 'id' must be one text, but it is 1 integers"
    )
    assert wrong(entry("id", text(b"\xff")), LABELS, RGB, AUDIO) == "the id b'\\xff' is not UTF-8 text"
    assert wrong(ID, LABELS, entry("mean_rgb", floats((0, 1, np.nan, 3, 4))), AUDIO) == (
        "value 2 of feature 'mean_rgb' is nan, not finite"
    )
    for label in (NUM_CLASSES, -1, 2**40):
        assert wrong(ID, entry("labels", integers((3, label))), RGB, AUDIO) == (
            f"label {label} is outside 0..299, the classes that "
            "--vocabulary or --num_classes gave (for eval and infer: in training)"
        )


def test_frame_level_records_are_recognised() -> None:
    frames = encode_sequence_example(
        {"id": [b"abcd"], "labels": np.array([1])}, {"rgb": [[b"x" * 8]] * 3, "audio": [[b"y" * 2]] * 3}
    )
    with pytest.raises(
        RecordError,
        match=r"these are frame-level records .*; give video-level ones, or train with --frame_features --f",
    ):
        parse(shard_of([frames]))
