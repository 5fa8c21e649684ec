"""What is to be said of new rows: what was filled in, and what lies outside all that the fit had."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from expertise.table.columns import Column, Encoder
from expertise.table.values import Floats


def outside(columns: Iterable[Column], found: Floats) -> npt.NDArray[np.bool_]:
    """Say which values (n, columns) are numbers or dates that the table of the fit did not reach.

    There every model extrapolates, and a gate with it: far out, one expert gets all the weight.
    """
    far = [
        ((x < column.low) | (x > column.high)) & (column.kind in ("number", "date"))
        for column, x in zip(columns, found.T, strict=True)
    ]
    return np.stack(far, axis=1)


class Remarks:
    """Looks at the values of rows, batch by batch, and gives what is to be said of all of them."""

    def __init__(self, encoder: Encoder) -> None:
        self._columns = encoder.columns
        self._filled = np.zeros(len(encoder.columns), int)
        self._far = np.zeros(len(encoder.columns), int)
        self._first: dict[int, tuple[int, float]] = {}  # of a column: the first row outside, and its value
        self._rows = 0

    def see(self, found: Floats) -> None:
        """Look at the values of the next rows (n, columns)."""
        self._filled += np.isnan(found).sum(axis=0)
        far = outside(self._columns, found)
        self._far += far.sum(axis=0)
        for j in np.flatnonzero(far.any(axis=0)):
            row = int(far[:, j].argmax())
            self._first.setdefault(int(j), (self._rows + row, float(found[row, j])))
        self._rows += len(found)

    def lines(self) -> list[str]:
        """Give a line for each column with something to say."""
        said = []
        for j, column in enumerate(self._columns):
            if self._filled[j] and not column.marks_missing:
                said.append(
                    f"{column.name} is missing in {self._filled[j]:,} of {self._rows:,} rows, and never was "
                    f"at the fit: {column.text(column.fill)}, the usual value, stands for it"
                )
            if self._far[j]:
                row, value = self._first[j]
                said.append(
                    f"{column.name} is outside {reach(column)}, all that the fit had, in {self._far[j]:,} of "
                    f"{self._rows:,} rows, first in row {row} ({column.text(value)}): predictions are "
                    "extrapolated there"
                )
        return said


def reach(column: Column) -> str:
    """Write the range of a column in the table of the fit."""
    return f"{column.text(column.low)} to {column.text(column.high)}"
