"""Tables of own frames: one row a frame, with the id of its video; what every kind of file gives.

Letters: n rows, L frames of a video, D values of a feature.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESERVED = ("id", "frame", "labels", "partition")
MOST_ROWS, MOST_BYTES = 1 << 16, 32 << 20  # of a chunk
ONE_KIND = "text (several with ';' between), or whole numbers with --vocabulary"


@dataclass(frozen=True)
class Feature:
    """size : D. is_bytes : the values are bytes already, and are kept as they are."""

    size: int
    is_bytes: bool


@dataclass(frozen=True)
class Rows:
    """Some rows that follow each other in a file.

    first : the row of the file where they start. ids : text (n,). frames : int64 (n,); labels, partitions : n
    values as the file has them; each None where the file has none. features : (n, D) each, uint8 or float32.
    """

    path: Path
    first: int
    ids: NDArray[np.object_]
    frames: NDArray[np.int64] | None
    labels: list[Any] | None
    partitions: list[Any] | None
    features: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, end: int) -> "Rows":
        """The rows ``start`` to ``end`` of these; arrays are views."""
        return Rows(
            self.path,
            self.first + start,
            self.ids[start:end],
            None if self.frames is None else self.frames[start:end],
            None if self.labels is None else self.labels[start:end],
            None if self.partitions is None else self.partitions[start:end],
            {name: values[start:end] for name, values in self.features.items()},
        )


class AbstractTable(ABC):
    """A file of rows. What is in it is known from its head; rows are read when they are asked for.

    num_rows : n. features : all arrays or columns of numbers, by name. left_out : what is neither a feature
    nor one of `RESERVED`. label_kind : "text", "number", or "" for a file without labels.
    """

    path: Path
    num_rows: int
    features: Mapping[str, Feature]
    left_out: tuple[str, ...]
    label_kind: str

    @abstractmethod
    def read(self, names: tuple[str, ...], first: int = 0) -> Iterator[Rows]:
        """Read the rows from ``first`` on in chunks, with the features ``names``.

        Raises ValueError, which names the file, where it cannot be read, or an id or frame is missing.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what is kept between two reads."""

    def step(self, names: tuple[str, ...]) -> int:
        """How many rows a chunk has, at most."""
        return max(1, min(MOST_ROWS, MOST_BYTES // (4 * sum(self.features[name].size for name in names))))


def fault(path: Path, row: int, reason: str) -> ValueError:
    """Say what is wrong in a row of a file, which count from 0."""
    return ValueError(f"{path}, row {row}: {reason}")


def checked_ids(path: Path, first: int, ids: list[Any]) -> NDArray[np.object_]:
    """The ids as an array. Raises ValueError at one that is missing, empty, or holds a control character."""
    for row, video in enumerate(ids):
        if not video or not video.isprintable():
            printable = " in printable letters" if video else ""
            raise fault(
                path, first + row, f"its id is {video!r}; give every row the id of its video{printable}"
            )
    return np.array(ids, dtype=object)


def as_features(values: NDArray[Any]) -> NDArray[Any]:
    """Bytes as they are, other numbers as float32; one that is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return values if values.dtype == np.uint8 else values.astype(np.float32)
