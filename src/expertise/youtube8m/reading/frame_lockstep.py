"""The lockstep behind _frame_records.py: where the context and the frames lie, in all records at once.

A tf.train.SequenceExample of the usual form is its context, then its feature lists, each of them once. The
frames of a list follow each other at equal distances where all have the same size, and the same few bytes
stand before each of them. One comparison of these bytes, for all frames at once, shows that it is so; then a
view with strides is the frames.

Letters: n records, L frames of a video.
"""

import numpy as np

from expertise.youtube8m.reading.frame_videos import Bytes, Ints, Views
from expertise.youtube8m.reading.lockstep import (
    FIELD,
    TRIES,
    VALUE,
    Mask,
    frame_head,
    lengths_at,
    list_head,
    read_varint,
)
from expertise.youtube8m.records import Shard
from expertise.youtube8m.videos import FeatureSpec

NAME_BYTES = 200  # of a feature list that is read, at most


class FrameLists:
    """Where the frames of each feature list begin and end in each record, int64 (n,).

    odd : the records that are not of the usual form. contexts : as if they were records of their own.
    """

    def __init__(self, shard: Shard, spec: FeatureSpec) -> None:
        self._buffer, self._spec = shard.buffer, spec
        self._end: Ints = shard.starts + shard.sizes
        length, behind = lengths_at(self._buffer, shard.starts + 1)
        behind = behind + length
        length, self._place = lengths_at(self._buffer, behind + 1)
        opens = (self._byte(shard.starts) == FIELD) & (self._byte(behind) == VALUE)
        self.odd: Mask = ~(opens & (length >= 0) & (behind < self._end) & (self._place + length == self._end))
        sizes = np.where(self.odd, 0, behind - shard.starts)
        self.contexts = Shard(shard.path, shard.buffer, shard.starts, sizes)
        self._found: dict[str, tuple[Ints, Ints]] = {name: self._nowhere() for name in spec.names}
        self._walk()

    def views(self, row: int) -> Views | None:
        """The frames of a record, (L, size) for each feature; None for one that is not of the usual form."""
        if self.odd[row]:
            return None
        sizes = dict(zip(self._spec.names, self._spec.sizes, strict=True))
        views: dict[str, Bytes] = {}
        for name, (firsts, lasts) in self._found.items():
            if firsts[row] >= 0:
                view = _strided(self._buffer, int(firsts[row]), int(lasts[row]), sizes.get(name))
                if view is None:
                    return None
                views[name] = view
        own = tuple(views[name] for name in self._spec.names)
        return own if len({len(view) for view in own}) == 1 else None

    def _nowhere(self) -> tuple[Ints, Ints]:
        return np.full(len(self._end), -1), np.full(len(self._end), -1)

    def _byte(self, places: Ints) -> Bytes:
        byte: Bytes = self._buffer[np.clip(places, 0, len(self._buffer) - 1)]
        return byte

    def _walk(self) -> None:
        """Step through the entries of all records together; the last step is one of none."""
        self._give_up(self.odd)
        for _ in range(TRIES):
            left = self._place != self._end
            if not left.any():
                break
            size, inner = lengths_at(self._buffer, self._place + 1)
            left &= (self._byte(self._place) == FIELD) & (size >= 0)
            moved = [self._accept(name, left, inner, inner + size) for name in self._found]
            if not any(moved):
                self._unknown(int(np.argmax(self._place != self._end)))
        self._give_up(self._place != self._end)
        for name in self._spec.names:
            self._give_up(self._found[name][0] < 0)

    def _accept(self, name: str, left: Mask, inner: Ints, stop: Ints) -> bool:
        """Note where the frames of a list are in the records that come to it, and move behind it."""
        head = list_head(name)
        last = len(self._buffer) - len(head)
        if last < 0:
            return False
        texts = np.ndarray((last + 1,), f"V{len(head)}", self._buffer, strides=(1,))
        hit = left & (texts[np.clip(inner, 0, last)] == np.void(head)) & (inner <= last)
        length, first = lengths_at(self._buffer, inner + len(head))
        hit &= (length >= 0) & (first + length == stop) & (stop <= self._end)
        firsts, lasts = self._found[name]
        self._give_up(hit & (firsts >= 0))  # a list that stands twice
        hit &= ~self.odd
        firsts[hit], lasts[hit], self._place[hit] = first[hit], stop[hit], stop[hit]
        return bool(hit.any())

    def _unknown(self, row: int) -> None:
        """Get to know the list that comes next in the record; give the record up where there is none."""
        at = int(self._place[row])
        data = self._buffer[at : min(at + NAME_BYTES, int(self._end[row]))].tobytes()
        try:
            _, place = read_varint(data, 1)
            size, place = read_varint(data, place + 1)
            name = data[place : place + size].decode()
        except (IndexError, UnicodeDecodeError):
            name = self._spec.names[0]
        if name in self._found:  # it should have been met
            self._give_up(np.arange(len(self.odd)) == row)
        else:
            self._found[name] = self._nowhere()

    def _give_up(self, rows: Mask) -> None:
        self.odd |= rows
        np.copyto(self._place, self._end, where=rows)


def _strided(buffer: Bytes, at: int, end: int, size: int | None) -> Bytes | None:
    """The frames of a feature list as a view (L, size); None where they are not all of one size.

    A list that nobody asked for has the ``size`` of its first frame.
    """
    if at == end:
        return np.empty((0, size or 0), dtype=np.uint8)
    if size is None and (size := _first_size(buffer[at : min(at + NAME_BYTES, end)].tobytes())) is None:
        return None
    head = frame_head(size)
    stride = len(head) + size
    count, rest = divmod(end - at, stride)
    if rest:
        return None
    heads = np.ndarray((count,), f"V{len(head)}", buffer, at, (stride,))
    if not (heads == np.void(head)).all():
        return None
    return np.ndarray((count, size), np.uint8, buffer, at + len(head), (stride, 1))


def _first_size(data: bytes) -> int | None:
    """Bytes of the first frame of a list that begins with ``data``."""
    try:
        _, place = read_varint(data, 1)
        _, place = read_varint(data, place + 1)
        return read_varint(data, place + 1)[0]
    except IndexError:
        return None
