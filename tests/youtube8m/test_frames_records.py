"""The parser of whole frame-level shards gives what one of single records gives, whatever they are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.youtube8m.reading.columns import parse_videos
from expertise.youtube8m.reading.frame_lockstep import FrameLists
from expertise.youtube8m.reading.frame_records import parse_frames
from expertise.youtube8m.reading.frame_videos import FrameVideos, copy_frames
from expertise.youtube8m.reading.lockstep import walk_contexts
from expertise.youtube8m.records import (
    RecordError,
    encode_example,
    encode_sequence_example,
    parse_sequence_example,
)
from expertise.youtube8m.videos import FeatureSpec
from youtube8m.example_schema import sequence_of
from youtube8m.wire import entry, floats, integers, message, shard_of, text

SPEC = FeatureSpec.parse("rgb,audio", "3,2")
NUM_CLASSES = 300
Video = tuple[str, bytes, list[int], list[tuple[int, int, bool]]]


def values(context: dict[str, Any], name: str, kind: Any) -> list[Any]:
    """The values of a feature of one kind, or an error."""
    found = context.get(name, np.empty(0, kind))
    if isinstance(found, list) or (len(found) and found.dtype != kind):
        if len(found):
            raise ValueError(name)
        return []
    return list(found.tolist())


def one_video(parsed: tuple[dict[str, Any], dict[str, Any]]) -> Video:
    """The slow twin: id, frames, labels and ratings of one parsed record. Raises ValueError or KeyError."""
    context, lists = parsed
    (video,) = context["id"]
    frames = b""
    if len({len(lists[name]) for name in SPEC.names}) != 1:
        raise ValueError("numbers of frames")
    for i in range(len(lists["rgb"])):
        for name, size in zip(SPEC.names, SPEC.sizes, strict=True):
            (frame,) = lists[name][i]
            if not isinstance(frame, bytes) or len(frame) != size:
                raise ValueError(name)
            frames += frame
    labels = values(context, "labels", np.int64)
    starts = values(context, "segment_start_times", np.int64)
    classes = values(context, "segment_labels", np.int64)
    scores = values(context, "segment_scores", np.float32)
    if not classes and not scores:
        ratings = [(start, -1, False) for start in starts]
    else:
        ratings = [(s, c, score >= 0.5) for s, c, score in zip(starts, classes, scores, strict=True)]
        labels_in_range(classes)
    labels_in_range(labels)
    if any(not 0 <= start < len(lists["rgb"]) for start in starts) or any(np.isnan(scores)):
        raise ValueError("ratings")
    return video.decode(), frames, list(dict.fromkeys(labels)), ratings


def labels_in_range(labels: list[int]) -> None:
    if any(not 0 <= label < NUM_CLASSES for label in labels):
        raise ValueError("labels")


def listed(videos: FrameVideos) -> list[Video]:
    """The videos that the parser found, in the form of the twin."""
    found = []
    ends, rated = videos.label_ptr.tolist(), videos.ratings.ptr.tolist()
    for i, video in enumerate(videos.ids):
        frames = np.full((videos.lengths[i], SPEC.total), 255, dtype=np.uint8)
        copy_frames(videos.frames[i], 0, frames)
        own = slice(rated[i], rated[i + 1])
        ratings = videos.ratings
        entries = zip(
            ratings.starts[own].tolist(),
            ratings.labels[own].tolist(),
            ratings.hits[own].tolist(),
            strict=True,
        )
        labels = videos.labels[ends[i] : ends[i + 1]].tolist()
        found.append((video, frames.tobytes(), labels, list(entries)))
    return found


def check_equal(records: list[bytes]) -> None:
    shard = shard_of(records)
    expected, wrong = [], []
    for number, one in enumerate(records):
        try:
            expected.append(one_video(parse_sequence_example(one)))
        except (ValueError, KeyError, TypeError):
            wrong.append(number)
    skipped: list[RecordError] = []
    assert listed(parse_frames(shard, SPEC, NUM_CLASSES, skipped)) == expected
    assert [error.offset for error in skipped] == [int(shard.starts[i]) - 12 for i in wrong]
    if skipped:
        with pytest.raises(RecordError) as caught:
            parse_frames(shard, SPEC, NUM_CLASSES)
        assert str(caught.value) == str(skipped[0])


# ---- records of the usual form


def rating_lists(n: int) -> dict[str, Any]:
    return {
        "segment_start_times": np.arange(n) % 2,
        "segment_labels": np.arange(n),
        "segment_scores": np.arange(n, dtype=np.float32) / 2,
        "segment_end_times": np.arange(n) % 2 + 5,
    }


def usual(frames: int = 2, sizes: tuple[int, int] = (3, 2), ratings: int = 0, **context: Any) -> bytes:
    lists = {
        name: [[bytes(range(10 * i, 10 * i + size))] for i in range(frames)]
        for name, size in zip(("rgb", "audio"), sizes, strict=True)
    }
    given_lists = rating_lists(ratings) if ratings else {}
    return encode_sequence_example({"id": [b"abcd"], "labels": [3, 200], **given_lists, **context}, lists)


def test_usual_records_are_read_in_lockstep() -> None:
    lists = {"rgb": [[b"abc"]] * 2, "audio": [[b"de"]] * 2}
    more = {"title": [["a title"]], "flow": [[b"xxxx"]] * 3}
    records = [
        usual(),
        usual(frames=0),
        usual(frames=9, ratings=5),
        usual(extra=[b"text"], labels=np.empty(0, int)),
        encode_sequence_example({"id": ["a"]}, lists),
        encode_sequence_example({"labels": [1, 1, 5], "id": ["é"]}, dict(reversed(lists.items()))),
        encode_sequence_example({"id": ["a"]}, {**more, **lists}),
        encode_sequence_example({"id": ["a"]}, {"audio": [[b"de"]], **more, "rgb": [[b"abc"]]}),
    ]
    shard = shard_of(records)
    lists_found = FrameLists(shard, SPEC)
    assert not lists_found.odd.any()
    assert all(lists_found.views(row) is not None for row in range(len(records)))
    assert not walk_contexts(lists_found.contexts).odd.any()
    check_equal(records)


def test_frames_are_not_copied() -> None:
    shard = shard_of([usual(frames=7)])
    videos = parse_frames(shard, SPEC, NUM_CLASSES)
    assert all(np.shares_memory(view, shard.buffer) for view in videos.frames[0])


def test_a_shard_without_records() -> None:
    videos = parse_frames(shard_of([]), SPEC, NUM_CLASSES)
    assert (len(videos), videos.num_rows) == (0, 0)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A record as the writer makes it, of any numbers of frames, labels and ratings, in any order."""
    frames, n = draw(st.integers(0, 6)), draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    lists = {
        name: [[rng.bytes(size)] for _ in range(frames)]
        for name, size in (("rgb", 3), ("audio", 2), ("flow", draw(st.integers(0, 300))))
    }
    context: dict[str, Any] = {
        "id": [draw(st.text(max_size=8))],
        "labels": rng.integers(0, NUM_CLASSES, draw(st.integers(0, 60))),
        "more": draw(st.sampled_from([[b"x"], [1.5], [7], [b"x"] * 3])),
    }
    if frames and n:
        context["segment_start_times"] = rng.integers(0, frames, n)
        context["segment_labels"] = rng.integers(0, NUM_CLASSES, n)
        context["segment_scores"] = rng.choice([0, 0.25, 0.5, 1], n).astype(np.float32)
    names = draw(st.permutations(["rgb", "audio", "flow"][: draw(st.integers(2, 3))]))
    keys = draw(st.permutations(sorted(context)))
    return encode_sequence_example({key: context[key] for key in keys}, {name: lists[name] for name in names})


@settings(max_examples=60, deadline=None)
@given(st.lists(written(), min_size=1, max_size=4))
def test_what_is_written_is_read(records: list[bytes]) -> None:
    expected = [one_video(sequence_of(one)) for one in records]  # by protobuf
    assert listed(parse_frames(shard_of(records), SPEC, NUM_CLASSES)) == expected
    check_equal(records)


# ---- and of others


def steps(*frames: bytes) -> bytes:
    return b"".join(message(1, text(frame)) for frame in frames)


ID, LABELS = entry("id", text(b"abcd")), entry("labels", integers((3,)))
RGB, AUDIO = entry("rgb", steps(b"abc", b"def")), entry("audio", steps(b"12", b"34"))
GOOD = message(1, ID + LABELS) + message(2, RGB + AUDIO)


@st.composite
def example(draw: st.DrawFn) -> bytes:
    """A record that is usual in most respects, and unusual in some."""
    odd = lambda: draw(st.integers(0, 14)) == 0  # noqa: E731
    count = draw(st.integers(0, 3))
    context = [ID, entry("labels", integers(draw(st.lists(st.integers(0, 299), max_size=3)), not odd()))]
    if draw(st.booleans()) or count == 0:
        starts = [draw(st.integers(0, max(0, count - 1))) for _ in range(2 * bool(count) + 3 * odd())]
        context += [
            entry("segment_start_times", integers(starts, not odd())),
            entry("segment_labels", integers(starts + [1] * odd())),
            entry("segment_scores", floats([np.nan if odd() else 1.0 for _ in starts], not odd())),
        ]
    lists = [
        entry(
            name,
            steps(*(draw(st.binary(min_size=size + odd(), max_size=size + odd() + 1))[: size + odd()]
                    for _ in range(count + odd()))),
        )
        for name, size in zip(SPEC.names, SPEC.sizes, strict=True)
    ]  # fmt: skip
    for _ in range(odd()):
        lists.append(
            draw(st.sampled_from([RGB, AUDIO, entry("flow", steps(b"abcd")), entry("flow", b"\x0a\x00")]))
        )
    for _ in range(odd()):
        context.append(draw(st.sampled_from([ID, LABELS, entry("x", b""), entry("é" * 70, floats((1,)))])))
    if odd():
        del context[draw(st.integers(0, len(context) - 1))]
    if odd():
        del lists[draw(st.integers(0, len(lists) - 1))]
    parts = [
        message(1, b"".join(draw(st.permutations(context)))),
        message(2, b"".join(draw(st.permutations(lists)))),
    ]
    if odd():
        parts.append(
            draw(st.sampled_from([message(1, ID), message(2, RGB), b"\x18\x01", b"\x12\x00", b"\x0a"]))
        )
    if odd():
        parts = draw(st.permutations(parts))
    whole = b"".join(parts)
    return whole[: draw(st.integers(0, len(whole)))] if odd() else whole


@settings(max_examples=150, deadline=None)
@given(st.lists(example(), max_size=5))
def test_equals_the_parser_of_single_records(records: list[bytes]) -> None:
    check_equal(records)


@settings(max_examples=150, deadline=None)
@given(st.lists(example(), min_size=1, max_size=3), st.data())
def test_equals_it_after_any_bytes_are_changed(records: list[bytes], data: st.DataObject) -> None:
    changed = []
    for one in records:
        mutable = bytearray(one)
        for _ in range(data.draw(st.integers(0, 2)) if mutable else 0):
            mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
        changed.append(bytes(mutable))
    check_equal(changed)


@pytest.mark.parametrize("change", [0x01, 0x80, 0x08])
def test_equals_it_whichever_byte_is_changed(change: int) -> None:
    flow = entry("flow", steps(b"xyz"))
    ratings = b"".join(
        (
            entry("segment_start_times", integers((0, 1))),
            entry("segment_labels", integers((2, 200))),
            entry("segment_scores", floats((0, 1))),
        )
    )
    one = message(1, ratings + ID + LABELS) + message(2, flow + RGB + AUDIO)
    variants = [one[:i] + bytes([one[i] ^ change]) + one[i + 1 :] for i in range(len(one))]
    check_equal(variants)
    for variant in variants:
        check_equal([variant, GOOD])


# ---- errors


def wrong(one: bytes, spec: FeatureSpec = SPEC) -> str:
    """The error of a record behind one that is right for SPEC."""
    with pytest.raises(RecordError) as caught:
        parse_frames(shard_of([GOOD, one] if spec is SPEC else [one]), spec, NUM_CLASSES)
    place = len(GOOD) + 16 if spec is SPEC else 0
    assert str(caught.value).startswith(f"some.tfrecord, byte {place}: ")
    return caught.value.reason


def test_errors_of_frames_name_what_is_wrong_and_what_to_do() -> None:
    assert wrong(message(1, ID) + message(2, RGB)) == (
        "no feature list 'audio'; the record has rgb; train with --feature_names=rgb"
    )
    assert wrong(GOOD, FeatureSpec.parse("mean_rgb,mean_audio", "3,2")) == (
        "no feature list 'mean_rgb'; the record has audio, rgb; train with --feature_names=rgb,audio"
    )
    assert wrong(message(1, ID)) == (
        "no feature list 'rgb'; the record has no feature lists; check that these are frame-level records"
    )
    assert wrong(GOOD, FeatureSpec.parse("rgb,audio", "4,2")) == (
        "frame 0 of feature 'rgb' has 3 bytes, expected 4; check --feature_sizes"
    )
    short = message(2, entry("rgb", steps(b"abc", b"de")) + AUDIO)
    assert wrong(message(1, ID) + short) == (
        "frame 1 of feature 'rgb' has 2 bytes, expected 3; check --feature_sizes"
    )
    two = entry("rgb", message(1, message(1, message(1, b"abc") + message(1, b"def"))))
    assert wrong(message(1, ID) + message(2, two + AUDIO)) == (
        "frame 0 of feature 'rgb' must be one value of bytes, but it is 2 texts"
    )
    numbers = entry("rgb", message(1, floats((1, 2, 3))))
    assert wrong(message(1, ID) + message(2, numbers + AUDIO)) == (
        "frame 0 of feature 'rgb' must be one value of bytes, but it is 3 floats"
    )
    assert wrong(message(1, ID) + message(2, RGB + entry("audio", steps(b"12")))) == (
        "its features have different numbers of frames: rgb 2, audio 1"
    )


def test_errors_of_contexts() -> None:
    lists = message(2, RGB + AUDIO)
    assert wrong(message(1, LABELS) + lists) == (
        "feature 'id' must be one text, but it is missing; the context has labels"
    )
    assert wrong(message(1, entry("id", text(b"\xff"))) + lists) == "the id b'\\xff' is not UTF-8 text"
    assert wrong(message(1, ID + entry("labels", integers((300,)))) + lists).startswith(
        "label 300 is outside 0..299, the classes that "
    )
    assert wrong(message(1, ID + entry("labels", floats((1,)))) + lists) == (
        "feature 'labels' must be integers, but it is 1 floats"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"segment_labels": [1]},
            "3 segment_start_times, 1 segment_labels and 3 segment_scores; each rating",
        ),
        ({"segment_scores": np.ones(2, np.float32)}, "3 segment_labels and 2 segment_scores"),
        ({"segment_start_times": np.empty(0, int)}, "0 segment_start_times, 3 segment_labels"),
        ({"segment_start_times": [0, 1, 2]}, "a segment starts at frame 2, but the video has 2 frames"),
        ({"segment_start_times": [0, -1, 0]}, "a segment starts at frame -1, but"),
        ({"segment_start_times": [0, 1, 2**40]}, f"a segment starts at frame {2**40}, but"),
        ({"segment_scores": np.array([0, np.nan, 1])}, "a segment has the score nan"),
        ({"segment_labels": [1, 2, 300]}, "label 300 is outside 0..299"),
        ({"segment_labels": [1, 2, -1]}, "label -1 is outside 0..299"),
        ({"segment_scores": [1, 0, 1]}, "'segment_scores' must be floats, but it is 3 integers"),
        ({"segment_labels": [b"a", b"b", b"c"]}, "'segment_labels' must be integers, but it is 3 texts"),
    ],
)
def test_errors_of_ratings(changes: dict[str, Any], message: str) -> None:
    assert message in wrong(usual(ratings=3, **changes))


def test_starts_without_ratings_are_kept() -> None:
    one = usual(frames=9, segment_start_times=[5, 0])
    assert listed(parse_frames(shard_of([one]), SPEC, NUM_CLASSES))[0][3] == [(5, -1, False), (0, -1, False)]


def test_the_wrong_kind_is_recognised_both_ways() -> None:
    video = encode_example({"id": ["a"], "labels": [1], "rgb": np.zeros(3), "audio": np.zeros(2)})
    assert wrong(video) == (
        "no feature list 'rgb'; these are video-level records (tf.train.Example); give frame-level ones, or "
        "train without --frame_features"
    )
    with pytest.raises(
        RecordError, match=r"frame-level .*; .* train with --frame_features --feature_names=rgb,audio$"
    ):
        list(parse_videos(shard_of([GOOD]), FeatureSpec.parse("mean_rgb", "3"), NUM_CLASSES))
