"""The rows that training passes over: in order, equal ones joined, some held out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

MERGED_ROWS = 20_000  # up to so many rows, equal ones are joined and their weights added


@dataclass(frozen=True, eq=False)
class Table:
    """A checked data set: X (n, d), y (n,) or (n, m), weights (n,)."""

    X: Floats
    y: npt.NDArray[Any]
    weight: Floats

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, rows: Index) -> "Table":
        """Give some rows."""
        return Table(self.X[rows], self.y[rows], self.weight[rows])

    def join(self, other: "Table") -> "Table":
        """Give the rows of both."""
        both = [np.concatenate(pair) for pair in ((self.X, other.X), (self.y, other.y))]
        return Table(both[0], both[1], np.concatenate([self.weight, other.weight]))


def canonical(table: Table) -> Table:
    """Drop rows of weight 0, sort, and join those that are equal, adding their weights.

    So a weight of 2 is the row twice and 0 the row left out, for every random step that follows. Long tables
    only lose the rows of weight 0.
    """
    table = table.take(np.flatnonzero(table.weight > 0))
    if len(table) > MERGED_ROWS:
        return table
    keys = np.column_stack([table.X, np.asarray(table.y, np.float64).reshape(len(table), -1)])
    order = np.lexsort(keys.T[::-1])
    keys = keys[order]
    first = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))
    joined = table.take(order[first])
    return Table(joined.X, joined.y, np.add.reduceat(table.weight[order], first))


def split(table: Table, share: float, rng: np.random.Generator, *, by_class: bool) -> tuple[Index, Index]:
    """Draw rows to hold out; give those to train on and those held out.

    ``by_class`` draws the same share of each class, and never the only row of one.
    """
    order = rng.permutation(len(table))
    if not by_class:
        held = max(1, round(share * len(table)))
        return np.sort(order[held:]), np.sort(order[:held])
    taken = []
    for code in np.unique(table.y):
        own = order[table.y[order] == code]
        taken.append(own[: min(round(share * len(own)), len(own) - 1)])
    held_out = np.concatenate(taken)
    if not len(held_out):  # every class is rare: one row of the commonest
        code = np.bincount(table.y).argmax()
        held_out = order[table.y[order] == code][:1]
    return np.setdiff1d(order, held_out), np.sort(held_out)
