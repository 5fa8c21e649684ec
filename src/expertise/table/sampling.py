"""Samples of rows: of a table in memory, and of one that goes by in batches."""

from typing import Any

import numpy as np
import numpy.typing as npt

from expertise._optional import require
from expertise.table.values import Floats


def sample(n: int, most: int, seed: int) -> npt.NDArray[np.intp]:
    """Give up to ``most`` of n rows, drawn at random, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


class Reservoir:
    """A uniform sample of the rows that were offered: those with the smallest random keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._tables: list[Any] = []
        self._keys: list[Floats] = []
        self._rows: list[npt.NDArray[np.intp]] = []
        self.offered = 0  # rows so far, those included that are not in the sample

    def offer(
        self, batch: Any, key: Floats, rows: npt.NDArray[np.intp], wanted: npt.NDArray[np.bool_]
    ) -> None:
        """Offer rows of a batch: their keys, their numbers in the file, and which of them are meant."""
        chosen = np.flatnonzero(wanted)
        self.offered += len(chosen)
        self._tables.append(batch.take(chosen))
        self._keys.append(key[chosen])
        self._rows.append(rows[chosen])
        if sum(len(keys) for keys in self._keys) > 2 * self._size:
            self._shrink()

    def _shrink(self) -> None:
        arrow = require("pyarrow", "table")
        table = arrow.concat_tables(self._tables)
        key, rows = np.concatenate(self._keys), np.concatenate(self._rows)
        if len(key) > self._size:
            keep = np.sort(np.argpartition(key, self._size)[: self._size])
            table, key, rows = table.take(keep), key[keep], rows[keep]
        self._tables, self._keys, self._rows = [table], [key], [rows]

    def taken(self) -> tuple[Any, npt.NDArray[np.intp]]:
        """Give the sample, and the numbers of its rows."""
        self._shrink()
        return self._tables[0].combine_chunks(), self._rows[0]
