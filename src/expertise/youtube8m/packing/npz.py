"""Own frames in an .npz file: arrays of one length, one row a frame."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.formats.npz import UNREADABLE
from expertise.youtube8m.packing.rows import (
    ONE_KIND,
    RESERVED,
    AbstractTable,
    Feature,
    Rows,
    as_features,
    checked_ids,
)

CONVERTED = {"video_id", "label_ptr"}  # what `convert --output_format=npz` writes
Head = tuple[tuple[int, ...], np.dtype[Any]]


class NpzTable(AbstractTable):
    """Arrays id (text), frame, labels, partition, and a 2-D array of numbers for each feature.

    Numbers and texts of one file are held in memory while it is read.
    """

    def __init__(self, path: Path) -> None:
        """Read the heads of the arrays.

        Raises
        ------
        ValueError : no .npz file, no id, or an array of objects, or of another length, type or shape than it
            must have.
        """
        self.path = path
        heads = _heads(path)
        if "id" not in heads:
            hint = "; this file is packed already: give it to train" if heads.keys() >= CONVERTED else ""
            raise ValueError(f"{path}: no array 'id'; there are {', '.join(heads) or 'none'}{hint}")
        for name, (shape, dtype) in heads.items():
            if dtype.hasobject:
                raise ValueError(
                    f"{path}: array {name!r} holds Python objects, which are not read; make text of them by "
                    "np.array(values, dtype=str), and of lists of labels one text with ';' between"
                )
            _check(path, name, shape, dtype)
        self.num_rows = heads["id"][0][0]
        used = {name: head for name, head in heads.items() if name in RESERVED or _is_feature(*head)}
        for name, (shape, _) in used.items():
            if shape[0] != self.num_rows:
                raise ValueError(
                    f"{path}: array {name!r} has {shape[0]} rows, but 'id' has {self.num_rows}; every array "
                    "has one row a frame"
                )
        self.features = {
            name: Feature(shape[1], dtype == np.uint8)
            for name, (shape, dtype) in used.items()
            if name not in RESERVED
        }
        self.left_out = tuple(name for name in heads if name not in used)
        self.label_kind = "" if "labels" not in used else _kind(used["labels"][1])
        self._keys = tuple(name for name in used if name in RESERVED)
        self._arrays: dict[str, NDArray[Any]] = {}

    def read(self, names: tuple[str, ...], first: int = 0) -> Iterator[Rows]:
        """See AbstractTable.read."""
        arrays = self._load((*self._keys, *names))
        step = self.step(names)
        for start in range(first, self.num_rows, step):
            part = slice(start, start + step)
            ids = checked_ids(self.path, start, _texts(self.path, "id", arrays["id"][part]))
            frames = arrays["frame"][part].astype(np.int64) if "frame" in arrays else None
            yield Rows(
                self.path,
                start,
                ids,
                frames,
                _texts(self.path, "labels", arrays["labels"][part]) if "labels" in arrays else None,
                _texts(self.path, "partition", arrays["partition"][part]) if "partition" in arrays else None,
                {name: as_features(arrays[name][part]) for name in names},
            )

    def close(self) -> None:
        """See AbstractTable.close."""
        self._arrays = {}

    def _load(self, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        if self._arrays.keys() != set(names):
            try:
                with np.load(self.path, allow_pickle=False) as file:
                    self._arrays = {name: file[name] for name in names}
            except UNREADABLE as error:
                raise _unreadable(self.path, error) from error
        return self._arrays


def _heads(path: Path) -> dict[str, Head]:
    """Shape and type of each array; the arrays themselves are not read."""
    heads: dict[str, Head] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as file:
                    old = np.lib.format.read_magic(file) == (1, 0)
                    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(file)
                heads[entry.removesuffix(".npy")] = shape, dtype
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return heads


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not a readable .npz file: {error}")


def _is_feature(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return len(shape) == 2 and dtype.kind in "fiu"


def _kind(dtype: np.dtype[Any]) -> str:
    return "number" if dtype.kind in "iu" else "text"


def _check(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ValueError where one of the reserved arrays is not what it must be."""
    kinds = {
        "id": ("SU", "text; make it so by .astype(str)"),
        "frame": ("iu", "whole numbers"),
        "labels": ("SUiu", ONE_KIND),
        "partition": ("SU", "text"),
    }
    if name in kinds and (len(shape) != 1 or dtype.kind not in kinds[name][0]):
        raise ValueError(
            f"{path}: array {name!r} is {dtype} {shape}, but must have one axis, and hold {kinds[name][1]}"
        )


def _texts(path: Path, name: str, values: NDArray[Any]) -> list[Any]:
    """The values as a list; bytes are read as UTF-8."""
    if values.dtype.kind != "S":
        return list(values.tolist())
    try:
        return [value.decode() for value in values.tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: array {name!r} holds bytes that are not UTF-8 text: {error}") from error
