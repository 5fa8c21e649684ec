"""Own frames of all input files, put together to videos.

Rows of an id stand together in one file: so a file of any size is read in pieces, and a video is known to be
whole when the next one begins.

Letters: L frames, D values of a feature.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.flag_rules import choose
from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.packing.npz import NpzTable
from expertise.youtube8m.packing.parquet import ParquetTable
from expertise.youtube8m.packing.rows import RESERVED, AbstractTable, Feature, Rows, fault
from expertise.youtube8m.videos import MAX_FEATURE_SIZE

TABLES = {".npz": NpzTable, ".parquet": ParquetTable}
DEFAULT_PARTITION = "train"


class Place(NamedTuple):
    """A row of a file; both count from 0."""

    file: int
    row: int


@dataclass(frozen=True)
class OwnVideo:
    """A video with its frames in order.

    start, end : its first row, and the one behind its last. labels : texts or whole numbers, as the files
    have them. frames : the numbers of its frames (L,). features : by name (L, D), uint8 or float32.
    """

    id: str
    path: Path
    start: Place
    end: Place
    labels: frozenset[Any]
    partition: str
    frames: NDArray[np.int64]
    features: dict[str, NDArray[Any]]


class Inputs:
    """All input files.

    tables : one for each file. features : those that are packed, in their order. label_kind : "text",
    "number", or "" where no file has labels.
    """

    def __init__(self, paths: Sequence[Path], feature_names: str) -> None:
        """Look at the heads of the files. ``feature_names`` as the flag; empty for all features.

        Raises
        ------
        ValueError : a file of another kind, without rows, or with other features or labels than the first.
        """
        self.tables = [_open(path) for path in paths]
        self.num_rows = sum(table.num_rows for table in self.tables)
        filled = [table for table in self.tables if table.num_rows]
        if not filled:
            raise ValueError(f"there is no row in {paths[0]}{' and the others' if len(paths) > 1 else ''}")
        self.features = _common_features(filled, feature_names)
        kinds = {table.label_kind: table.path for table in filled if table.label_kind}
        if len(kinds) > 1:
            raise ValueError(
                f"labels are text in {kinds['text']}, but numbers in {kinds['number']}; give one kind "
                "in all files"
            )
        self.label_kind = next(iter(kinds), "")
        self._reading = 0

    def videos(self, start: Place = Place(0, 0), end: Place | None = None) -> Iterator[OwnVideo]:  # noqa: B008
        """Read the videos from a first row to before another one, in the order of files and rows."""
        last = end or Place(len(self.tables), 0)
        for number in range(start.file, min(len(self.tables), last.file + 1)):
            if number != self._reading:
                self.tables[self._reading].close()
                self._reading = number
            first = start.row if number == start.file else 0
            stop = last.row if number == last.file else self.tables[number].num_rows
            if first < stop:
                yield from _videos(self._rows(number, first, stop), number)

    def close(self) -> None:
        """Free what is kept of the file read last."""
        self.tables[self._reading].close()

    def _rows(self, number: int, first: int, stop: int) -> Iterator[Rows]:
        for rows in self.tables[number].read(tuple(self.features), first):
            yield rows.cut(0, stop - rows.first)
            if rows.first + len(rows) >= stop:
                return


def _open(path: Path) -> AbstractTable:
    if path.suffix not in TABLES:
        raise FlagError(
            f"--input_data_pattern: {path} is neither .npz nor .parquet; pack reads these two, with one row "
            "a frame and an id"
        )
    return TABLES[path.suffix](path)


# ---- features


def _common_features(tables: Sequence[AbstractTable], wanted: str) -> dict[str, Feature]:
    """The features that all files have; by name and in the order of the flag, or of the first file."""
    first = tables[0]
    names = [name.strip() for name in wanted.split(",")] if wanted else list(first.features)
    if not first.features:
        raise ValueError(
            f"{first.path}: no features; a feature is a 2-D array (.npz) or a column of lists (.parquet) of "
            f"numbers, under a name of its own ({', '.join(RESERVED)} mean something else)"
        )
    for name in names:
        choose("feature_names", name, first.features)
    _check_names(names)
    for table in tables:
        _check_features(table, first, names, everything=not wanted)
    return {name: first.features[name] for name in names}


def _check_names(names: Sequence[str]) -> None:
    """Raise FlagError where a name cannot be a flag's, or two become one in the records."""
    short = [frame_name(name) for name in names]
    for name, one in zip(names, short, strict=True):
        if not one or "," in name or any(letter.isspace() for letter in name) or one in RESERVED:
            raise FlagError(
                f"a feature is called {name!r}; give a name without commas and spaces that is none of "
                f"{', '.join(RESERVED)}, or choose others with --feature_names"
            )
        if short.count(one) > 1:
            raise FlagError(
                f"the features {', '.join(n for n in names if frame_name(n) == one)} would all be {one!r} in "
                "the records; choose one with --feature_names"
            )


def _check_features(table: AbstractTable, first: AbstractTable, names: list[str], everything: bool) -> None:
    for name in names:
        if name not in table.features:
            raise ValueError(
                f"{table.path} has no feature {name!r}, which {first.path} has; name those that all files "
                "have with --feature_names"
            )
        feature, expected = table.features[name], first.features[name]
        if not 1 <= feature.size <= MAX_FEATURE_SIZE:
            raise ValueError(
                f"{table.path}: feature {name!r} has {feature.size} values in its first row; 1 to "
                f"{MAX_FEATURE_SIZE} are allowed"
            )
        if feature != expected:
            raise ValueError(
                f"feature {name!r} is {_told(feature)} in {table.path}, but {_told(expected)} in "
                f"{first.path}; it must be the same in all files"
            )
    if everything and (more := sorted(table.features.keys() - names)):
        raise ValueError(
            f"{table.path} also has the feature {more[0]!r}, which {first.path} has not; name those to pack "
            "with --feature_names"
        )


def _told(feature: Feature) -> str:
    return f"{feature.size} {'bytes (uint8)' if feature.is_bytes else 'numbers'}"


def frame_name(name: str) -> str:
    """What a feature is called in frame-level records: without "mean_"."""
    return name.removeprefix("mean_")


def video_name(name: str) -> str:
    """What a feature is called in video-level records: with "mean_"."""
    return f"mean_{frame_name(name)}"


# ---- videos


def _videos(chunks: Iterator[Rows], number: int) -> Iterator[OwnVideo]:
    """Put rows of the same id, which follow each other, together."""
    held: list[Rows] = []
    for rows in chunks:
        ends = np.flatnonzero(rows.ids[1:] != rows.ids[:-1]) + 1
        start = 0
        for end in [*ends.tolist(), len(rows)]:
            if held and held[0].ids[0] != rows.ids[start]:
                yield _video(held, number)
                held = []
            held.append(rows.cut(start, end))
            start = end
    if held:
        yield _video(held, number)


def _video(pieces: list[Rows], number: int) -> OwnVideo:
    """One video of all its rows. Raises ValueError where they do not agree, or two have the same number."""
    first = pieces[0]
    rows = sum(len(piece) for piece in pieces)
    labels = _agreed(pieces, "labels", [piece.labels for piece in pieces], _labels)
    partition = _agreed(pieces, "partition", [piece.partitions for piece in pieces], _partition)
    frames = np.arange(rows)
    features = {name: _joined([piece.features[name] for piece in pieces]) for name in first.features}
    if first.frames is not None:
        given = _joined([piece.frames for piece in pieces if piece.frames is not None])
        order = np.argsort(given, kind="stable")
        frames = given[order]
        twice = np.flatnonzero(frames[1:] == frames[:-1])
        if len(twice):
            row = first.first + int(order[twice[0] + 1])
            raise fault(first.path, row, f"id {first.ids[0]!r} has frame {frames[twice[0]]} twice")
        if (np.diff(order) != 1).any():
            features = {name: values[order] for name, values in features.items()}
    start = Place(number, first.first)
    end = Place(number, first.first + rows)
    return OwnVideo(first.ids[0], first.path, start, end, labels, partition, frames, features)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _agreed(pieces: list[Rows], name: str, values: list[list[Any] | None], read: Any) -> Any:
    """What all rows of a video say. Raises ValueError at the first that says something else."""
    said: Any = read(None)
    before: Any = None
    for place, (piece, own) in enumerate(zip(pieces, values, strict=True)):
        for row, value in enumerate(own or ()):
            if place == row == 0:
                before, said = value, read(value)
            elif value != before and read(value) != said:
                where = "here" if piece.frames is None else f"at frame {piece.frames[row]}"
                raise fault(
                    piece.path,
                    piece.first + row,
                    f"column {name!r} of id {piece.ids[0]!r} says {value!r} {where}, but {before!r} before; "
                    "all frames of an id must say the same",
                )
    return said


def _labels(value: Any) -> frozenset[Any]:
    """The labels in one cell: text with ';' between, a number, or a list of either."""
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset(text for part in value.split(";") if (text := part.strip()))
    if isinstance(value, int):
        return frozenset([value])
    texts = (one.strip() if isinstance(one, str) else one for one in value)
    return frozenset(one for one in texts if one not in (None, ""))


def _partition(value: str | None) -> str:
    return value or DEFAULT_PARTITION
