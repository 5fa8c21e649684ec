"""The lockstep behind columns.py: where the values of each feature lie, in all records of a shard at once.

All records step through the wire format of tf.train.Example together: the bytes at the place that each has
reached are compared with those that a feature must begin with and, where they match, the record moves on
behind the feature's values. A record that is not of the usual form (values not packed, a feature twice, a
list longer than usual) is marked as odd, and left to `parse_example`.
"""

from collections.abc import Set
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.records import Shard
from expertise.youtube8m.videos import FeatureSpec, pointers

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

# Field 1 of every message here has the tag 0x0a; in Feature: bytes 0x0a, floats 0x12, integers 0x1a.
FIELD, VALUE = 0x0A, 0x12
BYTES, FLOATS, INTEGERS = 0x0A, 0x12, 0x1A
SHORT = 100  # bytes of a list that, with all that surrounds it, has lengths of one byte
TRIES = 32  # so many features that nobody asked for are stepped over before a shard is taken one by one


class Walk:
    """How far each record of a shard is read, and where the values of each feature were found.

    place, end : where each record is to be read on, and where it ends. odd : the records that are not of
    the usual form. found : for each feature the place of its values in each record (-1: not met), and
    their size in bytes.
    """

    def __init__(self, shard: Shard) -> None:
        self.buffer = shard.buffer
        self.end: Ints = shard.starts + shard.sizes
        length, self.place = lengths_at(shard.buffer, shard.starts + 1)
        opens = shard.buffer[np.minimum(shard.starts, len(shard.buffer) - 1)] == FIELD
        # the official shards end each record with an empty field 2, as if it were a SequenceExample
        lasts = shard.buffer[np.maximum(self.end - 2, 0)], shard.buffer[np.maximum(self.end - 1, 0)]
        behind = self.place + length
        self.end -= 2 * ((behind + 2 == self.end) & (lasts[0] == VALUE) & (lasts[1] == 0))
        self.odd: Mask = ~(opens & (behind == self.end))
        self.place[self.odd] = self.end[self.odd]
        self.found: dict[str, tuple[Ints, Ints]] = {}

    def left(self) -> Mask:
        """The records that are not read to their end."""
        left: Mask = self.place != self.end
        return left

    def give_up(self, rows: Mask) -> None:
        """Leave these records to the other parser."""
        self.odd |= rows
        np.copyto(self.place, self.end, where=rows)

    def values(self, key: str) -> tuple[Bytes, Ints]:
        """The bytes of the values of a feature, one record after the other, and where those of each begin.

        Odd records have none.
        """
        starts, sizes = self.found[key]
        if self.odd.any():
            sizes = np.where(self.odd, 0, sizes)
        ptr = pointers(sizes)
        return self.buffer[np.arange(ptr[-1]) + np.repeat(starts - ptr[:-1], sizes)], ptr

    def begins(self, heads: NDArray[np.bytes_] | bytes, width: int) -> Mask:
        """Whether the next bytes of each record are ``heads``, which are ``width`` bytes long."""
        last = len(self.buffer) - width
        if last < 0:
            return np.zeros(len(self.place), dtype=bool)
        # every place of the buffer seen as the start of a text; a place too near the buffer's end shows
        # another text, which does no harm: what is taken for a feature there ends behind its record
        texts = np.ndarray((last + 1,), f"S{width}", self.buffer, strides=(1,))
        same: Mask = texts[np.minimum(self.place, last)] == heads
        return same

    def accept(self, key: str, hit: Mask, width: int, sizes: Ints | Bytes | int) -> bool:
        """Note the values of the records ``hit``, and move behind them. False where there were none."""
        values = self.place + width
        if key in self.found:  # of a feature that stands twice the last one counts
            places, counts = self.found[key]
            np.copyto(places, values, where=hit)
            np.copyto(counts, sizes, where=hit)
        else:
            self.found[key] = np.where(hit, values, -1), np.where(hit, sizes, 0)
        # a record may thus get behind its end, which it then never meets
        np.copyto(self.place, values + sizes, where=hit)
        return bool(hit.any())

    def fixed(self, key: str, kind: int, size: int) -> bool:
        """Step over feature ``key`` where it comes next, with ``size`` bytes of values."""
        head = _head(key, kind, size)
        return self.accept(key, self.begins(head, len(head)), len(head), size)

    def short(self, key: str, kind: int) -> bool:
        """Step over feature ``key`` where it comes next, with up to SHORT bytes of text or integers."""
        heads = _short_heads(key, kind)
        width = heads.dtype.itemsize
        sizes = self.buffer[np.minimum(self.place + (width - 1), len(self.buffer) - 1)]
        return self.accept(key, self.begins(heads[sizes], width), width, sizes)

    def empty(self, key: str, kind: int) -> bool:
        """Step over feature ``key`` where it comes next, with a list that has no field for its values."""
        head = _entry(key, bytes([kind, 0]), 0)
        return self.accept(key, self.begins(head, len(head)), len(head), 0)

    def unknown(self, known: Set[str]) -> None:
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


def walk_shard(shard: Shard, spec: FeatureSpec) -> Walk:
    """Find the values of all features in all records of tf.train.Example."""
    sizes = {name: 4 * size for name, size in zip(spec.names, spec.sizes, strict=True)}
    walk = _walk(shard, {"id": BYTES, "labels": INTEGERS}, sizes)
    for name in ("id", *spec.names):
        walk.give_up(walk.found[name][0] < 0)
    return walk


def walk_contexts(shard: Shard) -> Walk:
    """Find the values in all contexts of tf.train.SequenceExample; each is given like a record of its own."""
    lists = {"id": BYTES, "labels": INTEGERS, "segment_start_times": INTEGERS, "segment_labels": INTEGERS}
    walk = _walk(shard, lists | {"segment_scores": FLOATS, "segment_end_times": INTEGERS}, {})
    walk.give_up((walk.found["id"][0] < 0) | (walk.found["segment_scores"][1] % 4 > 0))
    return walk


def _walk(shard: Shard, lists: dict[str, int], floats: dict[str, int]) -> Walk:
    """Step through all records: short ``lists`` of these kinds, and ``floats`` of these sizes in bytes."""
    walk = Walk(shard)
    numbers = {key: kind for key, kind in lists.items() if kind != BYTES}
    for _ in range(TRIES):
        moved = False
        for key, kind in lists.items():
            moved |= walk.short(key, kind)
        for key, size in floats.items():
            moved |= walk.fixed(key, FLOATS, size)
        if not walk.left().any():
            break
        if not moved and not any(walk.empty(key, kind) for key, kind in numbers.items()):
            walk.unknown(lists.keys() | floats.keys())
    walk.give_up(walk.left())
    return walk


def lengths_at(buffer: NDArray[np.uint8], places: Ints) -> tuple[Ints, Ints]:
    """The varint at each place, and the place behind it; -1 where it has more than five bytes."""
    values = np.zeros(len(places), dtype=np.int64)
    behind = places.copy()
    more = np.ones(len(places), dtype=bool)
    for shift in range(0, 35, 7):
        byte = buffer[np.minimum(behind, len(buffer) - 1)]
        values += np.where(more, (byte & 0x7F).astype(np.int64) << shift, 0)
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


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Give the number that begins at a place, and the place behind it."""
    value = shift = 0
    while data[place] >= 0x80:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return value | data[place] << shift, place + 1


def _field(tag: int, content: bytes, more: int) -> bytes:
    """A field that holds ``content`` and then ``more`` bytes, without those."""
    return bytes([tag]) + _varint(len(content) + more) + content


@lru_cache(maxsize=256)
def _head(key: str, kind: int, size: int) -> bytes:
    """All that stands before the ``size`` bytes of values of the feature ``key``."""
    return _entry(key, _field(kind, _field(FIELD, b"", size), size), size)


@lru_cache(maxsize=256)
def frame_head(size: int) -> bytes:
    """All that stands before the ``size`` bytes of a frame in a feature list."""
    return _field(FIELD, _field(BYTES, _field(FIELD, b"", size), size), size)


def list_head(key: str) -> bytes:
    """All that stands between the length of a feature list's entry and that of its frames."""
    return _field(FIELD, key.encode(), 0) + bytes([VALUE])


def _entry(key: str, feature: bytes, more: int) -> bytes:
    """The map entry of ``key`` as far as the end of ``feature``, which ``more`` bytes are to follow."""
    return _field(FIELD, _field(FIELD, key.encode(), 0) + _field(VALUE, feature, more), more)


@lru_cache(maxsize=256)
def _short_heads(key: str, kind: int) -> NDArray[np.bytes_]:
    """`_head` for each size that a byte can say; empty, which no record begins with, for those over SHORT."""
    heads = [_head(key, kind, size) for size in range(SHORT + 1)]
    usual = [head if len(head) == len(heads[0]) else b"" for head in heads]  # a long key has longer ones
    return np.array(usual + [b""] * (255 - SHORT))


def _usual(data: bytes) -> tuple[str, int, int] | None:
    """Key, kind and size of the values of the first entry of ``data``, if it is of the usual form."""
    try:
        _, place = read_varint(data, 1)
        size, place = read_varint(data, place + 1)
        name = data[place : place + size].decode()
        _, place = read_varint(data, place + size + 1)
        kind = data[place]
        _, place = read_varint(data, place + 1)
        size, _ = read_varint(data, place + 1)
    except (IndexError, UnicodeDecodeError):
        return None
    sound = kind == BYTES or (kind == FLOATS and size % 4 == 0)
    return (name, kind, size) if sound else None
