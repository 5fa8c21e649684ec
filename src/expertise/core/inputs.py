"""The validated inputs of a prediction."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped,unused-ignore]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class Inputs(NamedTuple):
    """Validated inputs of a prediction.

    ``X`` is (n, d), an array of float64 or a sparse CSR matrix. ``offset`` is (n,) or None: a known term
    that experts with a linear predictor add to it.
    """

    X: Any
    offset: Floats | None = None

    def take(self, rows: Rows) -> "Inputs":
        """Give some rows."""
        return Inputs(self.X[rows], None if self.offset is None else self.offset[rows])

    def dense(self, most: int) -> "Inputs":
        """Give the same with a dense X.

        Raises
        ------
        ValueError : X is sparse and has more than ``most`` columns.
        """
        if not sparse.issparse(self.X):
            return self
        if self.X.shape[1] > most:
            raise ValueError(
                f"explain looks at each column in turn, up to {most} of a sparse X; got {self.X.shape[1]} "
                "columns; give the rows of interest as a dense array, X.toarray()"
            )
        return Inputs(np.asarray(self.X.toarray(), dtype=np.float64), self.offset)
