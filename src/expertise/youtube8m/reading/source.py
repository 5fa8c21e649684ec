"""What every source of videos answers, and what it gives: batches of torch tensors.

Letters: B batch, L frames, D features, C classes, n videos of an epoch.
"""

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from expertise.youtube8m.videos import FeatureSpec

Shuffle = Literal["none", "global", "blocks"]


@dataclass(frozen=True)
class Batch:
    """Some videos, or segments of videos.

    ids : B strings; of a segment "video:start".
    features : float32 (B, D); of frame-level records uint8 (B, L, D), L frames of the longest of them.
    labels : bool (B, C).
    lengths : int64 (B,), frames of each video; the frames behind them are padding. None: video level.
    rated : bool (B, C), which labels were rated, and count; None: all.
    """

    ids: list[str]
    features: torch.Tensor
    labels: torch.Tensor
    lengths: torch.Tensor | None = None
    rated: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)


class VideoSource(ABC):
    """All videos of a data set, in batches. ``spec`` says which features, ``num_classes`` is C."""

    spec: FeatureSpec
    num_classes: int

    @property
    @abstractmethod
    def num_videos(self) -> int:
        """How many videos an epoch has."""

    @property
    @abstractmethod
    def label_counts(self) -> NDArray[np.int64]:
        """How many videos have each label, int64 (C,)."""

    @property
    def rated_counts(self) -> NDArray[np.int64]:
        """How many videos, or segments, have a rating of each label, int64 (C,)."""
        return np.full(self.num_classes, self.num_videos)

    @property
    @abstractmethod
    def skipped(self) -> int:
        """How many corrupt records were left out."""

    @abstractmethod
    def default_shuffle(self) -> Shuffle:
        """The best way of shuffling that this source can do here."""

    @abstractmethod
    def batches(
        self,
        batch_size: int,
        *,
        num_epochs: int | None = 1,
        shuffle: Shuffle = "none",
        seed: int = 0,
        start: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Yield batches of the videos, which follow each other in a stream over all epochs.

        Every epoch has every video once, in an order that seed and epoch alone decide. Batches run over the
        ends of epochs, so only the last one may be smaller.

        Parameters
        ----------
        num_epochs : None for a stream without end.
        shuffle : "none" (order of the files), "global" (any video anywhere) or "blocks" (near in the files
            is near in the epoch). A cached epoch is the same on any machine, so it can be resumed anywhere.
        start : videos of the stream that are left out, because they were seen before: exact resume.
        part : (number, of): yield only this part of every batch, see `part_of`; all parts together are the
            batch. Each of several processes takes its own.
        """


def part_of(size: int, part: tuple[int, int]) -> slice:
    """Which rows of a batch of ``size`` are the part (number, of): neighbours, and as many in each as can be.

    A part may be empty, where a last batch has fewer rows than there are parts.

    >>> [part_of(5, (number, 2)) for number in range(2)]
    [slice(0, 3, None), slice(3, 5, None)]
    """
    number, of = part
    share, rest = divmod(size, of)
    first = number * share + min(number, rest)
    return slice(first, first + share + (number < rest))


def check_stream(batch_size: int, num_epochs: int | None, shuffle: str, seed: int, start: int) -> None:
    """Raise ValueError where an argument of `VideoSource.batches` can't be."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is not allowed; give 1 or more")
    if num_epochs is not None and num_epochs < 1:
        raise ValueError(f"num_epochs={num_epochs} is not allowed; give 1 or more, or None for no end")
    if shuffle not in get_args(Shuffle):
        raise ValueError(f"shuffle={shuffle!r} is not known; it is one of {', '.join(get_args(Shuffle))}")
    if seed < 0:
        raise ValueError(f"seed={seed} is not allowed; give 0 or more")
    if start < 0:
        raise ValueError(f"start={start} is not allowed; give 0 or more")


def scatter_labels(ptr: NDArray[np.int64], labels: NDArray[np.int32], dense: NDArray[np.bool_]) -> None:
    """Write ragged labels into a bool matrix (B, C), which must be contiguous."""
    size, num_classes = dense.shape
    dense[:] = False
    dense.reshape(-1)[np.repeat(np.arange(size) * num_classes, np.diff(ptr)) + labels] = True


class Pool:
    """Memory of batches that nobody holds any more, used again: new memory costs more than copying."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._largest = 0

    def array(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Room for an array, its own for as long as it or a tensor on it lives; what it holds is anything."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._largest = max(self._largest, size)
        room = self._free.pop() if self._free else np.empty(0, dtype=np.uint8)
        if len(room) < size:
            room = np.empty(self._largest, dtype=np.uint8)
        array = room[:size].view(dtype).reshape(shape)
        weakref.finalize(array, self._free.append, room).atexit = False
        return array
