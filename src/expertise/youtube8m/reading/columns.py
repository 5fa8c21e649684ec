"""Many tf.train.Examples of one shard, parsed at once: one NumPy operation for all of them, not one each.

What lockstep.py finds is copied from here; the records that are not of the usual form go to
`parse_example` one by one. The result is always the one that it would give.

Letters: n records, D values of a video.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.reading.lockstep import Walk, walk_shard
from expertise.youtube8m.records import RecordError, Shard, Value, parse_example
from expertise.youtube8m.videos import (
    FeatureSpec,
    Videos,
    label_faults,
    pointers,
    ragged_rows,
    split_text,
    unique_labels,
    value_faults,
)

Ints = NDArray[np.int64]

FRAME_FEATURES = ("rgb", "audio")
PLAIN_WIDTH = 8  # bytes of a number that fits 63 bits for certain


def parse_videos(
    shard: Shard,
    spec: FeatureSpec,
    num_classes: int,
    skipped: list[RecordError] | None = None,
    scratch: NDArray[np.float32] | None = None,
) -> Iterator[Videos]:
    """Read all records of a shard. Raises RecordError at the first one that is wrong.

    Parameters
    ----------
    shard : records whose checksums are verified (`scan_records`).
    skipped : where given, wrong records are left out, and their errors are appended to it.
    scratch : float32 (k, D). Where given, the videos come in pieces of at most k, and the features of each
        are written here, over those of the piece before; else all come at once, in memory of their own.
    """
    walk = walk_shard(shard, spec)
    ids = walked_ids(walk)
    counts, labels = walked_integers(walk, "labels")
    odd: dict[int, NDArray[np.float32]] = {}
    bad: dict[int, str] = {}
    if walk.odd.any():
        counts, labels = _read_odd(shard, walk.odd, spec, ids, odd, counts, labels, bad)
    ptr = pointers(counts)
    bad = label_faults(ptr, labels, num_classes) | bad
    ptr, label_list = unique_labels(ptr, labels.astype(np.int32))
    floats = _Floats(walk, spec)
    n = len(ids)
    step = max(1, n) if scratch is None else len(scratch)
    for first in range(0, n, step):
        last = min(first + step, n)
        out = np.empty((last - first, spec.total), dtype=np.float32) if scratch is None else scratch
        features = floats.copy(first, out[: last - first])
        for row in range(first, last) if odd or bad else ():
            if row in odd:
                features[row - first] = odd[row]
            elif row in bad:
                features[row - first] = 0.0
        found = value_faults(features, spec)
        wrong = {first + row: reason for row, reason in found.items()}
        wrong |= {row: reason for row, reason in bad.items() if first <= row < last}
        for row in sorted(wrong):
            error = shard.error(row, wrong[row])
            if skipped is None:
                raise error
            skipped.append(error)
        here = ptr[first : last + 1]
        videos = Videos(ids[first:last], features, here - here[0], label_list[here[0] : here[-1]])
        yield videos.without([row - first for row in wrong])


def parse_video(data: bytes, spec: FeatureSpec) -> tuple[str, NDArray[np.float32], Ints]:
    """Id, features (D,) and labels of one record, one feature after the other.

    Raises ValueError where one of them is missing or is of another type or size.
    """
    example = parse_example(data)
    video = read_id(example, _which(example))
    parts = []
    for name, size in zip(spec.names, spec.sizes, strict=True):
        value = example.get(name)
        if value is None:
            raise ValueError(f"no feature {name!r}; {_which(example)}")
        if not isinstance(value, np.ndarray) or value.dtype != np.float32:
            raise ValueError(f"feature {name!r} must be floats, but it is {what_it_is(value)}")
        if len(value) != size:
            raise ValueError(
                f"feature {name!r} has {len(value)} values, expected {size}; check --feature_sizes"
            )
        parts.append(value)
    return video, np.concatenate(parts), read_labels(example)


def read_id(example: dict[str, Value], which: str) -> str:
    """The id of a record. Raises ValueError where it has none; ``which`` says what it has."""
    video = example.get("id")
    if not isinstance(video, list) or len(video) != 1:
        raise ValueError(f"feature 'id' must be one text, but it is {what_it_is(video)}; {which}")
    try:
        return video[0].decode()
    except UnicodeDecodeError:
        raise ValueError(f"the id {video[0]!r} is not UTF-8 text") from None


def read_labels(example: dict[str, Value]) -> Ints:
    """The labels of a record; the test shards have none. Raises ValueError where they are not integers."""
    labels = example.get("labels", np.empty(0, dtype=np.int64))
    if not isinstance(labels, np.ndarray) or (labels.dtype != np.int64 and len(labels)):
        raise ValueError(f"feature 'labels' must be integers, but it is {what_it_is(labels)}")
    return labels.astype(np.int64)


def what_it_is(value: Value | None) -> str:
    """Say of what kind and how many the values of a feature are."""
    if value is None:
        return "missing"
    if isinstance(value, list):
        return f"{len(value)} texts"
    return f"{len(value)} {'floats' if value.dtype == np.float32 else 'integers'}"


def _which(example: dict[str, Any]) -> str:
    """What a record holds instead; a frame-level one is recognised."""
    if (
        not set(FRAME_FEATURES).isdisjoint(example)
        or "segment_labels" in example
        or (
            "id" in example
            and not any(isinstance(v, np.ndarray) and v.dtype == np.float32 for v in example.values())
        )
    ):
        return (
            "these are frame-level records (tf.train.SequenceExample); give video-level ones, or train with "
            "--frame_features --feature_names=rgb,audio"
        )
    return f"the record has {', '.join(sorted(example)) or 'no features'}; check --feature_names"


def _read_odd(
    shard: Shard,
    rows: NDArray[np.bool_],
    spec: FeatureSpec,
    ids: list[str],
    features: dict[int, NDArray[np.float32]],
    counts: Ints,
    labels: Ints,
    bad: dict[int, str],
) -> tuple[Ints, Ints]:
    """Read the odd records, ``rows``, one by one, into ``ids`` and ``features``; wrong ones go to ``bad``.

    Returns the number of labels of all records, and the labels.
    """
    own = {}
    for row in np.flatnonzero(rows).tolist():
        start = int(shard.starts[row])
        try:
            ids[row], features[row], own[row] = parse_video(
                shard.buffer[start : start + int(shard.sizes[row])].tobytes(), spec
            )
        except ValueError as error:
            bad[row] = str(error)
    all_counts = counts.copy()
    for row, values in own.items():
        all_counts[row] = len(values)
    ptr = pointers(all_counts)
    all_labels = np.empty(ptr[-1], dtype=np.int64)
    all_labels[ragged_rows(ptr, np.flatnonzero(~rows))[0]] = labels
    for row, values in own.items():
        all_labels[ptr[row] : ptr[row + 1]] = values
    return all_counts, all_labels


def walked_ids(walk: Walk) -> list[str]:
    """The ids, empty for odd records; a record whose id is not text is given up."""
    data, ptr = walk.values("id")
    text = data.tobytes()
    try:
        return split_text(text, ptr)
    except UnicodeDecodeError:
        pass
    for row in range(len(walk.odd)):
        try:
            text[ptr[row] : ptr[row + 1]].decode()
        except UnicodeDecodeError:
            walk.give_up(np.arange(len(walk.odd)) == row)
    return walked_ids(walk)


def walked_integers(walk: Walk, key: str) -> tuple[Ints, Ints]:
    """How many values a feature has in each record, and all of them.

    Odd records have none, and odd numbers make a record odd.
    """
    starts, sizes = walk.found[key]
    lasts = walk.buffer[np.maximum(starts + sizes - 1, 0)]
    walk.give_up((sizes > 0) & (lasts >= 0x80))  # the list ends within a number
    while True:
        data, ptr = walk.values(key)
        ends = np.flatnonzero(data < 0x80)
        firsts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        widths = ends - firsts + 1
        widest = int(widths.max(initial=0))
        if widest <= PLAIN_WIDTH:
            break
        rows = np.searchsorted(ptr, firsts[widths > PLAIN_WIDTH], side="right") - 1
        walk.give_up(np.isin(np.arange(len(walk.odd)), rows))
    values = data[ends].astype(np.int64)  # the last byte of each number, above the others
    for _ in range(1, widest):
        wide = np.flatnonzero(widths > 1)
        widths[wide] -= 1
        values[wide] = values[wide] << 7 | data[firsts[wide] + widths[wide] - 1] & 0x7F
    firsts = np.searchsorted(ends, ptr)
    return firsts[1:] - firsts[:-1], values


class _Floats:
    """The values of all features of a walked shard. Those of odd records are anything."""

    def __init__(self, walk: Walk, spec: FeatureSpec) -> None:
        self._sources = []
        for name, part in spec.slices.items():
            # a feature of one record is one item here, so that copying it is one copy of memory
            size = 4 * (part.stop - part.start)
            if len(walk.buffer) < size:  # then no record is plain
                continue
            items = np.ndarray((len(walk.buffer) - size + 1,), f"V{size}", walk.buffer, strides=(1,))
            starts = walk.found[name][0]
            if walk.odd.any():
                starts = np.where(walk.odd, 0, starts)
            self._sources.append((items, starts, 4 * part.start))

    def copy(self, first: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Copy the values of the records from ``first`` on to the rows of ``out``, which is returned."""
        for items, starts, offset in self._sources:
            rows = np.ndarray((len(out),), items.dtype, out, offset, strides=out.strides[:1])
            rows[:] = items[starts[first : first + len(out)]]
        return out
