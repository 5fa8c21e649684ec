"""What a cache is made of: its large array, and the arrays that tell of the videos what that one does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.videos import FeatureSpec

REASONS = 10  # errors that are told one by one; of more only the number


@dataclass(frozen=True)
class Layout:
    """What a cache's array holds: rows of float32, one a video; with ``frames`` of uint8, one a frame."""

    spec: FeatureSpec
    frames: bool = False

    @property
    def file(self) -> str:
        """Name of the array's file."""
        return "frames.u8" if self.frames else "features.f32"

    @property
    def dtype(self) -> type[np.float32] | type[np.uint8]:
        """Type of its values."""
        return np.uint8 if self.frames else np.float32

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.spec.total * np.dtype(self.dtype).itemsize

    @property
    def columns(self) -> dict[str, type[np.generic]]:
        """Names and types of the arrays that tell of the videos what the large one does not.

        ids : the UTF-8 ids one after the other. labels, rating_... : the entries of all videos one after the
        other (see `Ratings`). ..._sizes : how many of these, or frames, each video has.
        """
        return _VIDEO_COLUMNS | (_FRAME_COLUMNS if self.frames else {})


_VIDEO_COLUMNS: dict[str, type[np.generic]] = {
    "id_sizes": np.int64,
    "ids": np.uint8,
    "label_sizes": np.int64,
    "labels": np.int32,
}
_FRAME_COLUMNS: dict[str, type[np.generic]] = {
    "frame_sizes": np.int64,
    "rating_sizes": np.int64,
    "rating_starts": np.int32,
    "rating_labels": np.int32,
    "rating_hits": np.bool_,
}


@dataclass(frozen=True)
class Job:
    """What is the same for all files of one conversion. ``features`` is the array's file."""

    layout: Layout
    num_classes: int
    skip_corrupt: bool
    features: Path


@dataclass(frozen=True)
class ShardIndex:
    """All of a file's videos but their features, and where those were written.

    spans : int64 (chunks, 2), first row and number of rows. columns : see Layout. skipped : how many corrupt
    records were left out. reasons : the first of their errors.
    """

    spans: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    skipped: int = 0
    reasons: tuple[str, ...] = ()


def join(parts: Sequence[ShardIndex], layout: Layout) -> ShardIndex:
    """The index of several files, one after the other."""
    spans = np.concatenate([np.empty((0, 2), np.int64), *(part.spans for part in parts)])
    columns = {
        name: np.concatenate([np.empty(0, kind), *(part.columns[name] for part in parts)])
        for name, kind in layout.columns.items()
    }
    reasons = [reason for part in parts for reason in part.reasons]
    return ShardIndex(spans, columns, sum(part.skipped for part in parts), tuple(reasons[:REASONS]))
