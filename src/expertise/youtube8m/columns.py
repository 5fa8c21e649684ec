"""Many tf.train.Examples of one shard, parsed at once: one NumPy operation for all of them, not one each.

All records step through the wire format in lockstep: the bytes at the place that each has reached are
compared with those that a feature must begin with, and where they match the record moves on behind the
feature's values. A record that is not of the usual form (values not packed, a feature twice, a list longer
than usual) goes to `parse_example`, which decides: the result is always the one that it would give.

Letters: n records, D values of a video.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.records import RecordError, Shard, parse_example
from expertise.youtube8m.videos import FeatureSpec, Videos, faults, pointers, ragged_rows, unique_labels

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Field 1 of every message here has the tag 0x0a; in Feature: bytes 0x0a, floats 0x12, integers 0x1a.
FIELD, VALUE = 0x0A, 0x12
BYTES, FLOATS, INTEGERS = 0x0A, 0x12, 0x1A
SHORT = 100  # bytes of a list that, with all that surrounds it, has lengths of one byte
TRIES = 32  # so many features that nobody asked for are stepped over before a shard is taken one by one
GATHER = 64  # records whose values are copied at once: they stay in the processor's cache
FRAME_FEATURES = ("rgb", "audio")


def parse_videos(
    shard: Shard,
    spec: FeatureSpec,
    num_classes: int,
    out: NDArray[np.float32] | None = None,
    skipped: list[RecordError] | None = None,
) -> Videos:
    """Read all records of a shard. Raises RecordError at the first one that is wrong.

    Parameters
    ----------
    shard : records whose checksums are verified (`scan_records`).
    out : float32 (n, D) that the features are written to; made where it is not given.
    skipped : where given, wrong records are left out, and their errors are appended to it.
    """
    n = len(shard.starts)
    features = np.empty((n, spec.total), dtype=np.float32) if out is None else out[:n]
    walk = _walk(shard, spec)
    counts, values = _plain_labels(walk)
    plain = np.flatnonzero(~walk.odd)
    ids, ids_are_text = _plain_ids(walk, plain)
    if not ids_are_text:  # let the other parser say which
        walk.odd[:] = True
        plain, counts, values = plain[:0], counts[:0], values[:0]
    _copy_floats(walk, plain, spec, features)

    bad: dict[int, str] = {}
    sizes = np.zeros(n, dtype=np.int64)
    sizes[plain] = counts
    odd_ids, odd_labels = dict[int, str](), dict[int, Ints]()
    for row in np.flatnonzero(walk.odd).tolist():
        start = int(shard.starts[row])
        try:
            odd_ids[row], features[row], odd_labels[row] = parse_video(
                shard.buffer[start : start + int(shard.sizes[row])].tobytes(), spec
            )
            sizes[row] = len(odd_labels[row])
        except ValueError as error:
            bad[row] = error.reason if isinstance(error, RecordError) else str(error)
            features[row] = 0.0
    ptr = pointers(sizes)
    labels = values
    if len(plain) < n:
        ids = _merge_ids(n, plain, ids, odd_ids)
        labels = np.empty(ptr[-1], dtype=np.int64)
        labels[ragged_rows(ptr, plain)[0]] = values
        for row, own in odd_labels.items():
            labels[ptr[row] : ptr[row + 1]] = own
    bad |= faults(features, ptr, labels, spec, num_classes)
    for row in sorted(bad):
        error = RecordError(shard.path, int(shard.starts[row]), bad[row])
        if skipped is None:
            raise error
        skipped.append(error)
    if not bad:
        return Videos(ids, features, *unique_labels(ptr, labels.astype(np.int32)))
    good = np.setdiff1d(np.arange(n), list(bad))
    features[: len(good)] = features[good]
    where, ptr = ragged_rows(ptr, good)
    return Videos(
        [ids[row] for row in good.tolist()],
        features[: len(good)],
        *unique_labels(ptr, labels[where].astype(np.int32)),
    )


def parse_video(data: bytes, spec: FeatureSpec) -> tuple[str, NDArray[np.float32], Ints]:
    """Id, features (D,) and labels of one record, one feature after the other.

    Raises ValueError where one of them is missing or is of another type or size.
    """
    example = parse_example(data)
    video = example.get("id")
    if not isinstance(video, list) or len(video) != 1:
        raise ValueError(f"feature 'id' must be one text, but it is {_what(video)}; {_which(example)}")
    parts = []
    for name, size in zip(spec.names, spec.sizes, strict=True):
        value = example.get(name)
        if value is None:
            raise ValueError(f"no feature {name!r}; {_which(example)}")
        if not isinstance(value, np.ndarray) or value.dtype != np.float32:
            raise ValueError(f"feature {name!r} must be floats, but it is {_what(value)}")
        if len(value) != size:
            raise ValueError(
                f"feature {name!r} has {len(value)} values, expected {size}; check --feature_sizes"
            )
        parts.append(value)
    labels = example.get("labels", np.empty(0, dtype=np.int64))  # the test shards have none
    if not isinstance(labels, np.ndarray) or (labels.dtype != np.int64 and len(labels)):
        raise ValueError(f"feature 'labels' must be integers, but it is {_what(labels)}")
    try:
        return video[0].decode(), np.concatenate(parts), labels.astype(np.int64)
    except UnicodeDecodeError:
        raise ValueError(f"the id {video[0]!r} is not UTF-8 text") from None


def _what(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, list):
        return f"{len(value)} texts"
    return f"{len(value)} {'floats' if value.dtype == np.float32 else 'integers'}"


def _which(example: dict[str, Any]) -> str:
    """What a record holds instead; a frame-level one is recognised."""
    if not set(FRAME_FEATURES).isdisjoint(example) or "segment_labels" in example or (
        "id" in example and not any(isinstance(v, np.ndarray) and v.dtype == np.float32 for v in example.values())
    ):
        return "these are frame-level records (tf.train.SequenceExample); read them with --frame_features"
    return f"the record has {', '.join(sorted(example)) or 'no features'}; check --feature_names"


class _Walk:
    """How far each record of a shard is read, and where the values of each feature were found.

    place, end : where each record is to be read on, and where it ends. odd : the records that are not of
    the usual form. found : for each feature the place of its values in each record (-1: not met), and
    their size in bytes.
    """

    def __init__(self, shard: Shard) -> None:
        self.buffer = shard.buffer
        self.end: Ints = shard.starts + shard.sizes
        length, self.place = _lengths(shard.buffer, shard.starts + 1)
        opens = shard.buffer[np.minimum(shard.starts, len(shard.buffer) - 1)] == FIELD
        self.odd: Mask = ~(opens & (self.place + length == self.end))
        self.place[self.odd] = self.end[self.odd]
        self.found: dict[str, tuple[Ints, Ints]] = {}

    def left(self) -> Mask:
        return self.place != self.end

    def give_up(self, rows: Mask) -> None:
        """Leave these records to the other parser."""
        self.odd |= rows
        np.copyto(self.place, self.end, where=rows)

    def begins(self, heads: NDArray[np.bytes_] | bytes, width: int) -> Mask:
        """Whether the next bytes of each record are ``heads``, which are ``width`` bytes long."""
        last = len(self.buffer) - width
        if last < 0:
            return np.zeros(len(self.place), dtype=bool)
        # every place of the buffer seen as the start of a text; a place too near the end shows another
        # text, which does no harm: `accept` refuses what would end behind its record
        texts = np.ndarray((last + 1,), f"S{width}", self.buffer, strides=(1,))
        same: Mask = texts[np.minimum(self.place, last)] == heads
        return same

    def accept(self, key: str, hit: Mask, width: int, sizes: Ints | int) -> bool:
        """Note the values of the records ``hit``, and move behind them. False where there were none."""
        n = len(self.place)
        places, counts = self.found.setdefault(key, (np.full(n, -1), np.zeros(n, dtype=np.int64)))
        values = self.place + width
        behind = values + sizes
        # of a feature that stands twice the last one counts: not the usual form
        hit = hit & (behind <= self.end) & (places < 0)
        np.copyto(places, values, where=hit)
        np.copyto(counts, sizes, where=hit)
        np.copyto(self.place, behind, where=hit)
        return bool(hit.any())

    def fixed(self, key: str, kind: int, size: int) -> bool:
        """Step over feature ``key`` where it comes next, with ``size`` bytes of values."""
        head = _head(key, kind, size)
        return self.accept(key, self.begins(head, len(head)), len(head), size)

    def short(self, key: str, kind: int) -> bool:
        """Step over feature ``key`` where it comes next, with up to SHORT bytes of text or packed integers."""
        heads = _short_heads(key, kind)
        width = heads.dtype.itemsize
        sizes = self.buffer[np.minimum(self.place + width - 1, len(self.buffer) - 1)].astype(np.int64)
        hit = self.begins(heads[np.minimum(sizes, SHORT)], width) & (sizes <= SHORT)
        return self.accept(key, hit, width, sizes)

    def unknown(self, known: set[str]) -> None:
        """Step over the feature that comes next in the first record which is not read to its end.

        Where that is a feature that should be known, or not of the usual form, give that record up.
        """
        row = int(np.argmax(self.left()))
        usual = _usual(self.buffer[self.place[row] : self.end[row]].tobytes())
        moved = False
        if usual is not None and usual[0] not in known:
            key, kind, size = usual
            moved = self.short(key, kind) if kind == BYTES and size <= SHORT else self.fixed(key, kind, size)
        if not moved:
            self.give_up(np.arange(len(self.place)) == row)


def _walk(shard: Shard, spec: FeatureSpec) -> _Walk:
    """Find the values of all features in all records."""
    walk = _Walk(shard)
    known = {"id", "labels", *spec.names}
    for _ in range(TRIES):
        moved = walk.short("id", BYTES)
        moved |= walk.short("labels", INTEGERS)
        for name, size in zip(spec.names, spec.sizes, strict=True):
            moved |= walk.fixed(name, FLOATS, 4 * size)
        if not walk.left().any():
            break
        if not moved:
            walk.unknown(known)
    walk.give_up(walk.left())
    for name in ("id", *spec.names):
        walk.give_up(walk.found[name][0] < 0)
    return walk


def _lengths(buffer: NDArray[np.uint8], places: Ints) -> tuple[Ints, Ints]:
    """The varint at each place, and the place behind it; -1 where it has more than five bytes."""
    values = np.zeros(len(places), dtype=np.int64)
    behind = places.copy()
    more = np.ones(len(places), dtype=bool)
    for shift in range(0, 35, 7):
        byte = buffer[np.minimum(behind, len(buffer) - 1)].astype(np.int64)
        values |= np.where(more, (byte & 0x7F) << shift, 0)
        behind += more
        more &= byte >= 0x80
        if not more.any():
            return values, behind
    values[more] = -1
    return values, behind


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while data[place] >= 0x80:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return value | data[place] << shift, place + 1


def _field(tag: int, content: bytes, more: int) -> bytes:
    """A field that holds ``content`` and then ``more`` bytes, without those."""
    return bytes([tag]) + _varint(len(content) + more) + content


def _head(key: str, kind: int, size: int) -> bytes:
    """All that stands before the ``size`` bytes of values of the feature ``key``."""
    feature = _field(kind, _field(FIELD, b"", size), size)
    name = key.encode()
    return _field(FIELD, _field(FIELD, name, 0) + _field(VALUE, feature, size), size)


@lru_cache(maxsize=256)
def _short_heads(key: str, kind: int) -> NDArray[np.bytes_]:
    """`_head` for each size up to SHORT, those of another width (long keys) left empty."""
    heads = [_head(key, kind, size) for size in range(SHORT + 1)]
    return np.array([head if len(head) == len(heads[0]) else b"" for head in heads])


def _usual(data: bytes) -> tuple[str, int, int] | None:
    """Key, kind and size of the values of the first entry of ``data``; None where it is of another form."""
    try:
        _, place = _read_varint(data, 1)
        size, place = _read_varint(data, place + 1)
        name = data[place : place + size].decode()
        _, place = _read_varint(data, place + size + 1)
        kind = data[place]
        _, place = _read_varint(data, place + 1)
        size, place = _read_varint(data, place + 1)
    except (IndexError, UnicodeDecodeError):
        return None
    sound = kind == BYTES or (kind == FLOATS and size % 4 == 0)
    return (name, kind, size) if sound and data[:place] == _head(name, kind, size) else None


def _plain_labels(walk: _Walk) -> tuple[Ints, Ints]:
    """How many labels each plain record has, and all of them; records with odd ones are given up."""
    starts, sizes = walk.found["labels"]
    lasts = walk.buffer[np.maximum(starts + sizes - 1, 0)]
    walk.give_up((sizes > 0) & (lasts >= 0x80))  # cut off within a number
    while True:
        plain = np.flatnonzero(~walk.odd)
        ptr = pointers(sizes[plain])
        data = walk.buffer[np.arange(ptr[-1]) + np.repeat(starts[plain] - ptr[:-1], sizes[plain])]
        ends = np.flatnonzero(data < 0x80)
        firsts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        widths = ends - firsts + 1
        if widths.max(initial=0) <= 8:
            break
        rows = plain[np.searchsorted(ptr, firsts[widths > 8], side="right") - 1]
        walk.give_up(np.isin(np.arange(len(walk.odd)), rows))
    values = np.zeros(len(ends), dtype=np.int64)
    for i in range(int(widths.max(initial=0))):
        byte = data[np.minimum(firsts + i, ends)].astype(np.int64)
        values |= np.where(i < widths, (byte & 0x7F) << (7 * i), 0)
    return np.diff(np.searchsorted(ends, ptr)), values


def _plain_ids(walk: _Walk, plain: Ints) -> tuple[list[str], bool]:
    """The ids of the plain records, and whether all of them are text."""
    starts, sizes = (part[plain] for part in walk.found["id"])
    ptr = pointers(sizes)
    data = walk.buffer[np.arange(ptr[-1]) + np.repeat(starts - ptr[:-1], sizes)].tobytes()
    ends = ptr.tolist()
    pairs = zip(ends[:-1], ends[1:], strict=True)
    if data.isascii():
        text = data.decode("ascii")
        return [text[start:end] for start, end in pairs], True
    try:
        return [data[start:end].decode() for start, end in pairs], True
    except UnicodeDecodeError:
        return [], False


def _copy_floats(walk: _Walk, plain: Ints, spec: FeatureSpec, out: NDArray[np.float32]) -> None:
    """Copy the values of all features of the plain records to their rows of ``out``."""
    whole = len(plain) == len(out)
    target = out if whole else np.empty((len(plain), out.shape[1]), dtype=np.float32)
    for name, part in spec.slices.items():
        # a feature of one record is one item here, so that copying it is one copy of memory
        size = 4 * (part.stop - part.start)
        items = np.ndarray((max(len(walk.buffer) - size + 1, 0),), f"V{size}", walk.buffer, strides=(1,))
        rows = np.ndarray((len(plain),), f"V{size}", target, 4 * part.start, strides=target.strides[:1])
        starts = walk.found[name][0][plain]
        for i in range(0, len(plain), GATHER):
            rows[i : i + GATHER] = items[starts[i : i + GATHER]]
    if not whole:
        out[plain] = target


def _merge_ids(n: int, plain: Ints, ids: list[str], odd: dict[int, str]) -> list[str]:
    merged = [""] * n
    for row, video in zip(plain.tolist(), ids, strict=True):
        merged[row] = video
    for row, video in odd.items():
        merged[row] = video
    return merged
