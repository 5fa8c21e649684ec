"""Tables of examples, wherever they lie: in a cache, or in a chunk of a file. Batches are made of their rows.

Letters: B batch, L frames, D features, C classes, n examples of a table.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.reading.frame_examples import Examples
from expertise.youtube8m.reading.frame_videos import Ints, Views, copy_frames
from expertise.youtube8m.reading.source import Batch, Pool, scatter_labels
from expertise.youtube8m.videos import FeatureSpec, ragged_rows


@dataclass(frozen=True)
class Room:
    """The arrays of a batch, to be filled: features, labels, lengths and rated as in `Batch`."""

    features: NDArray[Any]
    labels: NDArray[np.bool_]
    lengths: Ints | None
    rated: NDArray[np.bool_] | None


class Table(ABC):
    """Examples by number, 0 to n - 1."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the features that lie behind all examples."""

    @abstractmethod
    def label_counts(self, num_classes: int) -> Ints:
        """How many examples have each label, int64 (C,)."""

    @abstractmethod
    def rated_counts(self, num_classes: int) -> Ints:
        """How many examples have a rating of each label, int64 (C,)."""

    @abstractmethod
    def ids(self, rows: Ints) -> list[str]:
        """The ids of some examples."""

    @abstractmethod
    def longest(self, rows: Ints) -> int:
        """Frames of the longest of some examples; 0 at video level."""

    @abstractmethod
    def write(self, rows: Ints, room: Room, at: slice) -> None:
        """Write some examples to the rows ``at`` of a batch."""


@dataclass(frozen=True)
class VideoTable(Table):
    """Videos with one row of features each.

    features : float32 (rows, D). rows : int64 (n,), the row of each video; None where video i is row i.
    id_of : gives the ids of some videos.
    """

    features: NDArray[np.float32]
    rows: Ints | None
    label_ptr: Ints
    labels: NDArray[np.int32]
    id_of: Callable[[Ints], list[str]]

    def __len__(self) -> int:
        return len(self.label_ptr) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the features of all videos."""
        return len(self) * int(self.features[:1].nbytes)

    def label_counts(self, num_classes: int) -> Ints:
        """How many videos have each label, int64 (C,)."""
        return np.bincount(self.labels, minlength=num_classes)

    def rated_counts(self, num_classes: int) -> Ints:
        """All videos, for every label, int64 (C,)."""
        return np.full(num_classes, len(self))

    def ids(self, rows: Ints) -> list[str]:
        """The ids of some videos."""
        return self.id_of(rows)

    def longest(self, rows: Ints) -> int:
        """No frames: 0."""
        return 0

    def write(self, rows: Ints, room: Room, at: slice) -> None:
        """Copy features and labels of some videos to the rows ``at`` of a batch."""
        places = rows if self.rows is None else self.rows[rows]
        # clip (all rows are there) lets take write to its place without a copy in between
        np.take(self.features, places, axis=0, out=room.features[at], mode="clip")
        _write_labels(self.label_ptr, self.labels, rows, room.labels[at])


@dataclass(frozen=True)
class FrameTable(Table):
    """Frame-level videos, or segments of them.

    examples : which frames of which video. frames_of : gives the frames of a video. id_of : the ids of some.
    nbytes : of the frames of all videos.
    """

    examples: Examples
    frames_of: Callable[[int], Views]
    id_of: Callable[[Ints], list[str]]
    frame_bytes: int

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def nbytes(self) -> int:
        """Bytes of the frames of all videos."""
        return self.frame_bytes

    def label_counts(self, num_classes: int) -> Ints:
        """How many examples have each label, int64 (C,)."""
        return np.bincount(self.examples.labels, minlength=num_classes)

    def rated_counts(self, num_classes: int) -> Ints:
        """How many examples have a rating of each label, int64 (C,); all, where they are whole videos."""
        if self.examples.rated is None:
            return np.full(num_classes, len(self))
        return np.bincount(self.examples.rated, minlength=num_classes)

    def ids(self, rows: Ints) -> list[str]:
        """The ids of some examples; of a segment "video:start"."""
        ids = self.id_of(self.examples.videos[rows])
        if self.examples.rated is None:
            return ids
        starts = self.examples.starts[rows].tolist()
        return [f"{video}:{start}" for video, start in zip(ids, starts, strict=True)]

    def longest(self, rows: Ints) -> int:
        """Frames of the longest of some examples, 1 at least."""
        return int(self.examples.lengths[rows].max(initial=1))

    def write(self, rows: Ints, room: Room, at: slice) -> None:
        """Copy frames, lengths and labels of some examples to the rows ``at`` of a batch."""
        found = self.examples
        lengths = found.lengths[rows]
        videos, starts = found.videos[rows].tolist(), found.starts[rows].tolist()
        for out, video, start, length in zip(
            room.features[at], videos, starts, lengths.tolist(), strict=True
        ):
            copy_frames(self.frames_of(video), start, out[:length])
            out[length:] = 0
        _write_labels(found.label_ptr, found.labels, rows, room.labels[at])
        assert room.lengths is not None
        room.lengths[at] = lengths
        if found.rated_ptr is not None and found.rated is not None:
            assert room.rated is not None
            _write_labels(found.rated_ptr, found.rated, rows, room.rated[at])


def _write_labels(ptr: Ints, labels: NDArray[np.int32], rows: Ints, dense: NDArray[np.bool_]) -> None:
    where, new_ptr = ragged_rows(ptr, rows)
    scatter_labels(new_ptr, labels[where], dense)


class Batches:
    """Makes batches of rows of tables, in memory that is used again."""

    def __init__(self, spec: FeatureSpec, num_classes: int, reading: FrameReading | None) -> None:
        self._spec, self._num_classes, self._reading = spec, num_classes, reading
        self._features, self._labels, self._rated = Pool(), Pool(), Pool()

    def make(self, parts: Sequence[tuple[Table, Ints]]) -> Batch:
        """The batch of some rows of tables, one after the other."""
        n = sum(len(rows) for _, rows in parts)
        room = self._room(n, max((table.longest(rows) for table, rows in parts), default=1))
        ids: list[str] = []
        for table, rows in parts:
            table.write(rows, room, slice(len(ids), len(ids) + len(rows)))
            ids += table.ids(rows)
        features, labels = torch.from_numpy(room.features), torch.from_numpy(room.labels)
        if room.lengths is None:
            return Batch(ids, features, labels)
        rated = None if room.rated is None else torch.from_numpy(room.rated)
        return Batch(ids, features, labels, torch.from_numpy(room.lengths), rated)

    def _room(self, n: int, longest: int) -> Room:
        labels = self._labels.array((n, self._num_classes), np.bool_)
        if self._reading is None:
            return Room(self._features.array((n, self._spec.total), np.float32), labels, None, None)
        features = self._features.array((n, longest, self._spec.total), np.uint8)
        rated = self._rated.array((n, self._num_classes), np.bool_) if self._reading.segments else None
        return Room(features, labels, np.empty(n, dtype=np.int64), rated)
