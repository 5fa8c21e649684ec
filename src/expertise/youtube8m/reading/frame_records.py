"""tf.train.SequenceExamples of frame-level videos: all of a shard at once, and their frames not copied.

What frame_lockstep.py finds is listed here; the records that are not of the usual form, or wrong, are read
one by one. The result is always the one that `parse_sequence_example` would give.

Letters: n records, L frames of a video.
"""

from typing import Any

import numpy as np

from expertise.youtube8m.examples import Value, parse_example, parse_sequence_example
from expertise.youtube8m.reading.columns import (
    FRAME_FEATURES,
    read_id,
    read_labels,
    walked_ids,
    walked_integers,
    what_it_is,
)
from expertise.youtube8m.reading.frame_lockstep import FrameLists
from expertise.youtube8m.reading.frame_videos import (
    UNRATED,
    Bytes,
    FrameVideos,
    Ints,
    Ratings,
    Views,
    join_frames,
)
from expertise.youtube8m.reading.lockstep import Walk, walk_contexts
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
    lists = FrameLists(shard, spec)
    walk = walk_contexts(lists.contexts)
    views = [lists.views(row) for row in range(len(lists.odd))]
    lengths = np.array([-1 if found is None else len(found[0]) for found in views], dtype=np.int64)
    walk.give_up(lengths < 0)
    rows, usual = _usual(walk, views, lengths, num_classes)
    if len(rows) == len(views):
        return usual
    parts, order = [usual], rows.tolist()
    for row in np.flatnonzero(walk.odd).tolist():
        own = views[row]
        start, size = int(shard.starts[row]), int((shard if own is None else lists.contexts).sizes[row])
        data = shard.buffer[start : start + size].tobytes()
        try:
            parts.append(_one_video(data, own, spec, num_classes))
            order.append(row)
        except ValueError as error:
            fault = shard.error(row, str(error))
            if skipped is None:
                raise fault from None
            skipped.append(fault)
    return join_frames(parts).take(np.argsort(order))


def _one_video(data: bytes, views: Views | None, spec: FeatureSpec, num_classes: int) -> FrameVideos:
    """Read a record, or its context alone where its frames are found. Raises ValueError where it is wrong."""
    if views is None:
        context, views = parse_frame_video(data, spec)
    else:
        context = parse_example(data)  # the context is the same field in both
    labels = _checked(read_labels(context), num_classes)
    ptr, kept = unique_labels(np.array([0, len(labels)]), labels.astype(np.int32))
    ratings = _read_ratings(context, len(views[0]), num_classes)
    video = read_id(context, f"the context has {', '.join(sorted(context)) or 'no features'}")
    return FrameVideos([video], [views], np.array([len(views[0])]), ptr, kept, ratings)


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
        return (
            "these are video-level records (tf.train.Example); give frame-level ones, or train without "
            "--frame_features"
        )
    if not lists:
        return "the record has no feature lists; check that these are frame-level records"
    names = FRAME_FEATURES if lists.keys() >= set(FRAME_FEATURES) else sorted(lists)
    return f"the record has {', '.join(sorted(lists))}; train with --feature_names={','.join(names)}"


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
    walk: Walk, views: list[Views | None], lengths: Ints, num_classes: int
) -> tuple[Ints, FrameVideos]:
    """Which records are of the usual form and right, int64 (n,), and their videos; the others get odd."""
    while True:
        odd = int(walk.odd.sum())
        ids = walked_ids(walk)
        sizes, labels = walked_integers(walk, "labels")
        start_sizes, starts = walked_integers(walk, "segment_start_times")
        class_sizes, classes = walked_integers(walk, "segment_labels")
        data, ptr = walk.values("segment_scores")
        scores = data.view("<f4").astype(np.float32)
        wrong = (start_sizes != class_sizes) | (start_sizes != np.diff(ptr) // 4)
        for own, values, limit in (
            (sizes, labels, num_classes),
            (class_sizes, classes, num_classes),
            (start_sizes, starts, np.repeat(lengths, start_sizes)),
        ):
            entries = np.flatnonzero((values < 0) | (values >= limit))
            wrong[np.searchsorted(np.cumsum(own), entries, side="right")] = True
        wrong[np.searchsorted(ptr[1:], 4 * np.flatnonzero(np.isnan(scores)), side="right")] = True
        walk.give_up(wrong)
        if int(walk.odd.sum()) == odd:
            break
    rows = np.flatnonzero(~walk.odd)
    label_ptr, kept = unique_labels(pointers(sizes[rows]), labels.astype(np.int32))
    ratings = Ratings(
        pointers(start_sizes[rows]), starts.astype(np.int32), classes.astype(np.int32), scores >= POSITIVE
    )
    frames = [found for row in rows.tolist() if (found := views[row]) is not None]
    return rows, FrameVideos([ids[row] for row in rows], frames, lengths[rows], label_ptr, kept, ratings)
