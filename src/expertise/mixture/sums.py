"""Sums over rows: what an M-step needs of the data, and nothing else of it.

Every M-step reads its rows only through such sums. So the same code serves one array, chunks in threads, a
stream, and could serve many machines: the sum of the shards' sums is the sum over the whole.
"""

from typing import Any

import numpy as np

from expertise.mixture.rows import Array


class Sums(dict[str, Array]):
    """Named arrays that add: float64 sums over rows.

    >>> (Sums(count=np.array(2.0)) + Sums(count=np.array(3.0)))["count"]
    np.float64(5.0)
    """

    def __add__(self, other: "Sums") -> "Sums":
        return Sums({name: value + other[name] for name, value in self.items()})

    def scaled(self, factor: float) -> "Sums":
        """Multiply every sum, as stepwise EM does with those of the past."""
        return Sums({name: factor * value for name, value in self.items()})


class Stack:
    """Rows themselves, for parts that no sum describes (any scikit-learn estimator); adding appends.

    columns : what is kept of each row, arrays of equal length by name.
    """

    def __init__(self, **columns: Any) -> None:
        self.parts = [columns]

    def __add__(self, other: "Stack") -> "Stack":
        joined = Stack()
        joined.parts = self.parts + other.parts
        return joined

    def column(self, name: str) -> Any:
        """Give one column of all rows."""
        from scipy import sparse

        parts = [part[name] for part in self.parts]
        if parts[0] is None:
            return None
        return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


Statistics = Sums | Stack
