"""tf.train.SequenceExamples of frame-level videos: found where they lie, and not copied.

The frames of a feature follow each other at equal distances where all have the same size, and the same few
bytes stand before each of them. One comparison of these bytes, for all frames at once, shows that they are of
this usual form; a view with strides then is the frames. Other records go to `parse_sequence_example`, and the
result is always the one that it would give.

Letters: n videos, L frames of a video.
"""

from typing import Any

import numpy as np

from expertise.youtube8m._frame_videos import UNRATED, Bytes, FrameVideos, Ints, Ratings, Views
from expertise.youtube8m._lockstep import frame_head
from expertise.youtube8m.columns import FRAME_FEATURES, HEADER, read_id, read_labels, what_it_is
from expertise.youtube8m.examples import BYTES, Value, fields, parse_example, parse_sequence_example
from expertise.youtube8m.records import RecordError, Shard
from expertise.youtube8m.videos import FeatureSpec, label_faults, pointers, unique_labels

SEGMENT_LISTS = {"segment_start_times": np.int64, "segment_labels": np.int64, "segment_scores": np.float32}
POSITIVE = 0.5  # a score from here on says that the segment shows the class
Context = dict[str, Value]
NONE = np.empty(0, dtype=np.int64)


def parse_frames(
    shard: Shard, spec: FeatureSpec, num_classes: int, skipped: list[RecordError] | None = None
) -> FrameVideos:
    """Read all records of a shard, whose checksums are verified. The frames stay in the shard's buffer.

    Raises
    ------
    RecordError : the first record that is wrong. With a list ``skipped``, wrong records are left out instead,
        and their errors are appended to it.
    """
    data = shard.buffer.data
    ids, frames, labels, ratings = list[str](), list[Views](), list[Ints](), list[Ratings]()
    for start, size in zip(shard.starts.tolist(), shard.sizes.tolist(), strict=True):
        try:
            context, views = _usual(shard.buffer, data, start, start + size, spec) or parse_frame_video(
                data[start : start + size].tobytes(), spec
            )
            own_labels = _checked(read_labels(context), num_classes)
            own_ratings = _read_ratings(context, len(views[0]), num_classes)
            ids.append(read_id(context, ", ".join(sorted(context))))
        except ValueError as error:
            fault = RecordError(shard.path, start - HEADER, str(error))
            if skipped is None:
                raise fault from None
            skipped.append(fault)
            continue
        frames.append(views)
        labels.append(own_labels)
        ratings.append(own_ratings)
    ptr, label_list = unique_labels(
        pointers([len(own) for own in labels]), np.concatenate([NONE, *labels]).astype(np.int32)
    )
    lengths = np.array([len(views[0]) for views in frames], dtype=np.int64)
    return FrameVideos(ids, frames, lengths, ptr, label_list, Ratings.join(ratings))


def parse_frame_video(data: bytes, spec: FeatureSpec) -> tuple[Context, Views]:
    """The context of one record, and its frames: for each feature uint8 (L, size).

    Raises ValueError where a feature is missing, or its frames are of another form, size or number.
    """
    context, lists = parse_sequence_example(data)
    views = []
    for name, size in zip(spec.names, spec.sizes, strict=True):
        if name not in lists:
            raise ValueError(f"no feature list {name!r}; {_which(context, lists)}")
        views.append(_frames(name, size, lists[name]))
    counts = {name: len(view) for name, view in zip(spec.names, views, strict=True)}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"its features have different numbers of frames: {told}")
    return context, tuple(views)


def _frames(name: str, size: int, steps: list[Value]) -> Bytes:
    for number, step in enumerate(steps):
        if not isinstance(step, list) or len(step) != 1:
            raise ValueError(
                f"frame {number} of feature {name!r} must be one value of bytes, but it is {what_it_is(step)}"
            )
        if len(step[0]) != size:
            raise ValueError(
                f"frame {number} of feature {name!r} has {len(step[0])} bytes, expected {size}; "
                "check --feature_sizes"
            )
    joined = b"".join(step[0] for step in steps if isinstance(step, list))
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(steps), size)


def _which(context: Context, lists: dict[str, list[Value]]) -> str:
    """What a record holds instead; a video-level one is recognised."""
    floats = {name for name, value in context.items() if getattr(value, "dtype", None) == np.float32}
    if not lists and floats - {"segment_scores"}:
        return "these are video-level records (tf.train.Example); leave out --frame_features"
    if not lists:
        return "the record has no feature lists; check that these are frame-level records"
    names = FRAME_FEATURES if lists.keys() >= set(FRAME_FEATURES) else sorted(lists)
    return f"the record has {', '.join(sorted(lists))}; give --feature_names={','.join(names)}"


def _checked(labels: Ints, num_classes: int) -> Ints:
    if len(labels) and (fault := label_faults(np.array([0, len(labels)]), labels, num_classes)):
        raise ValueError(fault[0])
    return labels


# ---- ratings of segments


_NO_RATINGS = Ratings(
    np.zeros(2, dtype=np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.bool_)
)


def _read_ratings(context: Context, frames: int, num_classes: int) -> Ratings:
    """The ratings of one video. Raises ValueError where they are wrong."""
    if SEGMENT_LISTS.keys().isdisjoint(context):
        return _NO_RATINGS
    starts, labels, scores = (_segment_list(context, name) for name in SEGMENT_LISTS)
    if not len(labels) and not len(scores):  # starts alone name segments that nobody rated
        labels, scores = np.full(len(starts), UNRATED), np.zeros(len(starts))
    else:
        _checked(labels, num_classes)
    if not len(starts) == len(labels) == len(scores):
        raise ValueError(
            f"it has {len(starts)} segment_start_times, {len(labels)} segment_labels and {len(scores)} "
            "segment_scores; each rating needs one of each"
        )
    wrong = starts[(starts < 0) | (starts >= frames)]
    if len(wrong):
        raise ValueError(f"a segment starts at frame {wrong[0]}, but the video has {frames} frames")
    if np.isnan(scores).any():
        raise ValueError("a segment has the score nan")
    return Ratings(
        np.array([0, len(starts)]), starts.astype(np.int32), labels.astype(np.int32), scores >= POSITIVE
    )


def _segment_list(context: Context, name: str) -> Any:
    value = context.get(name, NONE)
    if len(value) == 0:
        return NONE
    kind = SEGMENT_LISTS[name]
    if isinstance(value, list) or value.dtype != kind:
        wanted = "floats" if kind == np.float32 else "integers"
        raise ValueError(f"feature {name!r} must be {wanted}, but it is {what_it_is(value)}")
    return value


# ---- the usual form


def _usual(
    buffer: Bytes, data: memoryview, start: int, end: int, spec: FeatureSpec
) -> tuple[Context, Views] | None:
    """The context and the frames of a record of the usual form; None for another one, or a wrong one."""
    context: Context | None = None
    found: dict[str, Bytes] = {}
    sizes = dict(zip(spec.names, spec.sizes, strict=True))
    before = start
    try:
        for number, wire, at, stop in fields(data, start, end):
            if number == 1 and wire == BYTES and context is None:
                context = parse_example(data[before:stop].tobytes())  # of an Example the same field
            elif number == 2 and wire == BYTES and not found:
                for key, first, last in _entries(data, at, stop):
                    view = _strided(buffer, data, first, last, sizes.get(key))
                    if view is None or key in found:
                        return None
                    found[key] = view
            else:
                return None
            before = stop
    except ValueError:
        return None
    views = tuple(found[name] for name in spec.names if name in found)
    if context is None or len(views) < len(sizes) or len({len(view) for view in views}) > 1:
        return None
    return context, views


def _entries(data: memoryview, at: int, end: int) -> list[tuple[str, int, int]]:
    """Name, first byte and end of each feature list. Raises ValueError where an entry is not as usual."""
    entries = []
    for number, wire, start, stop in fields(data, at, end):
        parts = list(fields(data, start, stop))
        if (number, wire) != (1, BYTES) or [part[:2] for part in parts] != [(1, BYTES), (2, BYTES)]:
            raise ValueError(start)
        (_, _, first, last), (_, _, begin, until) = parts
        entries.append((str(data[first:last], "utf-8"), begin, until))
    return entries


def _strided(buffer: Bytes, data: memoryview, at: int, end: int, size: int | None) -> Bytes | None:
    """The frames of a feature list as a view (L, size); None where they are not all of one size.

    A list that nobody asked for has the ``size`` of its first frame.
    """
    if size is None:
        first, last = at, end
        for _ in range(3):  # Feature, BytesList, value
            _, _, first, last = next(fields(data, first, last), (0, 0, at, at))
        size = last - first
        if size == 0:
            return None
    head = frame_head(size)
    stride = len(head) + size
    count, rest = divmod(end - at, stride)
    if rest:
        return None
    if count == 0:
        return np.empty((0, size), dtype=np.uint8)
    heads = np.ndarray((count,), f"S{len(head)}", buffer, at, (stride,))
    if not (heads == head).all():
        return None
    return np.ndarray((count, size), np.uint8, buffer, at + len(head), (stride, 1))
