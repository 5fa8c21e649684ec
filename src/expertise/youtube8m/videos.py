"""What every file of labelled videos holds, whatever its format: ids, features and labels.

Letters: n videos, D = all features side by side, C classes.
"""

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOST_COMMAS = 8  # in the name of a file or of its folders
MAX_FEATURE_SIZE = 1 << 20  # a larger one is a mistake, and would make every buffer absurd


@dataclass(frozen=True)
class FeatureSpec:
    """Names and sizes of the features of a video, in the order in which they stand side by side."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def parse(cls, names: str, sizes: str) -> "FeatureSpec":
        """Read the flags --feature_names and --feature_sizes, both comma-separated.

        Raises ValueError where they do not fit each other or are not names and positive whole numbers.

        >>> FeatureSpec.parse("mean_rgb, mean_audio", "1024,128").total
        1152
        """
        name_list = [name.strip() for name in names.split(",")]
        size_list = [size.strip() for size in sizes.split(",")]
        if not all(name_list):
            raise ValueError(
                f"--feature_names={names!r} has an empty name; give names such as mean_rgb,mean_audio"
            )
        if len(set(name_list)) < len(name_list):
            twice = sorted({name for name in name_list if name_list.count(name) > 1})
            raise ValueError(f"--feature_names={names!r} names {', '.join(twice)} more than once")
        if len(name_list) != len(size_list):
            raise ValueError(
                f"--feature_names={names!r} has {len(name_list)} names, but --feature_sizes={sizes!r} has "
                f"{len(size_list)} sizes; give one size for each name, such as 1024,128"
            )
        if reserved := {"id", "labels"} & set(name_list):
            raise ValueError(f"--feature_names={names!r}: {', '.join(sorted(reserved))} is read anyway")
        numbers = []
        for size in size_list:
            if not size.isdecimal() or not 1 <= int(size) <= MAX_FEATURE_SIZE:
                raise ValueError(
                    f"--feature_sizes={sizes!r}: {size!r} is not a whole number from 1 to {MAX_FEATURE_SIZE}"
                )
            numbers.append(int(size))
        return cls(tuple(name_list), tuple(numbers))

    @property
    def total(self) -> int:
        """D, the number of values of one video."""
        return sum(self.sizes)

    @property
    def slices(self) -> dict[str, slice]:
        """The columns of each feature."""
        ends = np.cumsum(self.sizes).tolist()
        return {
            name: slice(end - size, end) for name, size, end in zip(self.names, self.sizes, ends, strict=True)
        }


@dataclass(frozen=True)
class Videos:
    """Some videos. The labels of video i are ``labels[label_ptr[i]:label_ptr[i + 1]]``, each of them once.

    ids : n strings; features : float32 (n, D); label_ptr : int64 (n + 1,); labels : int32.
    """

    ids: list[str]
    features: NDArray[np.float32]
    label_ptr: NDArray[np.int64]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_rows(self) -> int:
        """How many rows of a cache the videos take: one each."""
        return len(self)

    def pieces(self, scratch: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """The features in one piece; ``scratch`` is for videos whose rows must be put together."""
        yield self.features

    def index(self) -> dict[str, NDArray[np.generic]]:
        """All that a cache keeps of the videos but ids and features."""
        return {"label_sizes": np.diff(self.label_ptr), "labels": self.labels}

    def take(self, rows: NDArray[np.int64]) -> "Videos":
        """Only the videos ``rows``, in that order."""
        where, ptr = ragged_rows(self.label_ptr, rows)
        return Videos([self.ids[row] for row in rows], self.features[rows], ptr, self.labels[where])

    def without(self, rows: Sequence[int]) -> "Videos":
        """All but the videos ``rows``; the features stay in their memory, and move up there."""
        if not rows:
            return self
        kept = self.take(np.setdiff1d(np.arange(len(self)), rows))
        self.features[: len(kept)] = kept.features
        return Videos(kept.ids, self.features[: len(kept)], kept.label_ptr, kept.labels)


def ragged_rows(
    ptr: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the entries of some rows of a ragged array lie, and the ``ptr`` of the rows thus taken.

    >>> where, new_ptr = ragged_rows(np.array([0, 2, 3, 6]), np.array([2, 0]))
    >>> where.tolist(), new_ptr.tolist()
    ([3, 4, 5, 0, 1], [0, 3, 5])
    """
    starts = ptr[rows]
    sizes = ptr[rows + 1] - starts
    new_ptr = pointers(sizes)
    where = np.arange(new_ptr[-1]) + np.repeat(starts - new_ptr[:-1], sizes)
    return where, new_ptr


def pointers(sizes: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
    """Where each row of a ragged array starts, and the end of the last one, from the sizes of the rows."""
    ptr = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=ptr[1:])
    return ptr


def split_text(data: bytes, ptr: NDArray[np.int64]) -> list[str]:
    """The texts whose UTF-8 bytes lie one after the other, each from its ``ptr`` to the next.

    Raises UnicodeDecodeError where one of them is not UTF-8.
    """
    pairs = itertools.pairwise(ptr.tolist())
    if data.isascii():  # then bytes are letters, and one decoding serves all
        text = data.decode("ascii")
        return [text[start:end] for start, end in pairs]
    return [data[start:end].decode() for start, end in pairs]


def unique_labels(
    label_ptr: NDArray[np.int64], labels: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Drop the second and later mention of a label of the same video; the order stays.

    >>> ptr, kept = unique_labels(np.array([0, 3, 4]), np.array([7, 2, 7, 7], dtype=np.int32))
    >>> ptr.tolist(), kept.tolist()
    ([0, 2, 3], [7, 2, 7])
    """
    rises = np.empty(len(labels) + 1, dtype=bool)
    np.greater(labels[1:], labels[:-1], out=rises[1:-1])
    rises[label_ptr] = True  # from one video to the next
    if rises.all():  # sorted and each once, as in the official shards
        return label_ptr, labels
    sizes = np.diff(label_ptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    keys = rows * (int(labels.max(initial=0)) + 1) + labels
    _, first = np.unique(keys, return_index=True)
    if len(first) == len(keys):
        return label_ptr, labels
    first.sort()
    return pointers(np.bincount(rows[first], minlength=len(sizes))), labels[first]


def label_faults(
    label_ptr: NDArray[np.int64], labels: NDArray[np.int64] | NDArray[np.int32], num_classes: int
) -> dict[int, str]:
    """Rows with a label outside the classes, and what to say of it."""
    found: dict[int, str] = {}
    if len(labels) == 0 or (labels.min() >= 0 and labels.max() < num_classes):
        return found
    for entry in np.flatnonzero((labels < 0) | (labels >= num_classes)).tolist():
        row = int(np.searchsorted(label_ptr, entry, side="right")) - 1
        found.setdefault(
            row,
            f"label {labels[entry]} is outside 0..{num_classes - 1}, the classes that "
            "--vocabulary or --num_classes gave (for eval and infer: in training)",
        )
    return found


def value_faults(features: NDArray[np.float32], spec: FeatureSpec) -> dict[int, str]:
    """Rows with a value that is not finite, and what to say of it."""
    found: dict[int, str] = {}
    finite = np.isfinite(features)
    if finite.all():
        return found
    for row in np.flatnonzero(~finite.all(axis=1)).tolist():
        column = int(np.argmin(finite[row]))
        name, part = next((n, s) for n, s in spec.slices.items() if s.start <= column < s.stop)
        value = features[row, column]
        found[row] = f"value {column - part.start} of feature {name!r} is {value}, not finite"
    return found


def match_files(pattern: str | os.PathLike[str], flag: str) -> list[Path]:
    """All files that a pattern (or several, comma-separated) matches, each once, sorted by name.

    Raises ValueError, which names ``flag``, where a pattern matches no file.
    """
    text = os.fspath(pattern)
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(
            f"--{flag} is empty; give the files to read, such as --{flag}='/data/train*.tfrecord'"
        )
    found: set[Path] = set()
    while parts:
        for taken in range(1, min(len(parts), 1 + MOST_COMMAS) + 1):  # a name may hold commas itself
            files = _matching(",".join(parts[:taken]).strip())
            if files:
                break
        else:
            first = parts[0].strip()
            folder = Path(first).expanduser()
            hint = (
                f"it is a folder; try '{folder}/*.tfrecord'"
                if folder.is_dir()
                else "check the path, and quote *"
            )
            raise ValueError(f"--{flag}={text!r}: no file matches {first!r}; {hint}")
        found |= files
        parts = parts[taken:]
    return sorted(found)


def _matching(pattern: str) -> set[Path]:
    """The files that one pattern matches, and the file of that very name, which may hold brackets."""
    path = Path(pattern).expanduser()
    paths = [path, *map(Path, glob.glob(str(path), recursive=True))]  # noqa: PTH207 - it may be absolute
    return {one for one in paths if one.is_file()}


def nothing_in(files: Sequence[Path], what: str = "video", why: str = "") -> ValueError:
    """What to say of files that hold nothing to read: ``what`` of it, and ``why``."""
    names = str(files[0]) if len(files) == 1 else f"the {len(files)} files {files[0]} .. {files[-1]}"
    return ValueError(f"there is no {what} in {names}{why}")


def check_num_classes(num_classes: int) -> None:
    """Raise ValueError unless there is at least one class, and labels fit 32 bits."""
    if not 1 <= num_classes < 2**31:
        raise ValueError(
            f"num_classes={num_classes!r} is not allowed; give a whole number from 1 to {2**31 - 1}"
        )


def concatenate(chunks: Iterable[Videos], spec: FeatureSpec) -> Videos:
    """Join chunks of videos into one."""
    parts = list(chunks)
    if not parts:
        empty = np.empty((0, spec.total), dtype=np.float32)
        return Videos([], empty, np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32))
    if len(parts) == 1:
        return parts[0]
    return Videos(
        [video for part in parts for video in part.ids],
        np.concatenate([part.features for part in parts]),
        pointers(np.concatenate([np.diff(part.label_ptr) for part in parts])),
        np.concatenate([part.labels for part in parts]),
    )
