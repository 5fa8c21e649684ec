"""The rows that EM passes over: designs with their weighted sums, targets, weights, groups.

Inside EM every column is standardised, so that a year and a share are equally well conditioned. Fitted
experts and gates are kept on the original scale (`Scaling` goes both ways).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from threading import local
from typing import Any
from weakref import ref

import numpy as np
import numpy.typing as npt
from scipy import sparse

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

CHUNK = 8192  # rows that are worked on at once: their products stay in the processor's cache
WIDE = 32  # columns from which one product per weight is faster than forming all column products


@dataclass(frozen=True, eq=False)
class Scaling:
    """How columns were standardised: (column - mean) / scale.

    mean, scale : (p,); the scale of a constant column is 1.
    """

    mean: Array
    scale: Array

    @classmethod
    def identity(cls, columns: int) -> "Scaling":
        """Leave the columns as they are."""
        return cls(np.zeros(columns), np.ones(columns))

    @classmethod
    def of(cls, x: Any, weight: Array) -> "Scaling":
        """Measure the columns of x (n, p); NaN count as not there; sparse columns are scaled, not moved."""
        if sparse.issparse(x):
            total = weight.sum()
            mean = np.asarray(x.T @ weight).ravel() / total
            square = np.asarray(x.multiply(x).T @ weight).ravel() / total
            spread = np.sqrt(np.maximum(square - mean**2, 0.0))
            return cls(np.zeros(x.shape[1]), _positive(spread, np.sqrt(square), np.abs(mean)))
        total, moved, square = np.zeros((3, x.shape[1]))
        # around the first row: the mean of a constant column is then exact, and no digits are lost
        first = np.where(np.isnan(x[0]), 0.0, x[0]) if len(x) else np.zeros(x.shape[1])
        for start in range(0, len(x), CHUNK):
            part, w = x[start : start + CHUNK] - first, weight[start : start + CHUNK]
            missing = np.isnan(part)
            if missing.any():
                part[missing] = 0.0
                total += w @ ~missing
            else:
                total += w.sum()
            moved += w @ part
            square += w @ np.square(part, out=part)
        total = np.maximum(total, np.finfo(float).tiny)
        mean = first + moved / total
        variance = np.maximum(square / total - (moved / total) ** 2, 0.0)
        return cls(mean, _positive(np.sqrt(variance), np.sqrt(square / total), np.abs(first)))

    def coefficients_in(self, beta: Array) -> Array:
        """Turn coefficients for original columns, intercept first, (p + 1, m), into those for scaled ones."""
        inside = beta.copy()
        inside[1:] *= self.scale[:, None]
        inside[0] += self.mean @ beta[1:]
        return inside

    def coefficients_out(self, beta: Array) -> Array:
        """Turn coefficients for scaled columns, intercept first, (p + 1, m), into those for original ones."""
        outside = beta.copy()
        outside[1:] /= self.scale[:, None]
        outside[0] -= self.mean @ outside[1:]
        return outside


def _positive(scale: Array, size: Array, level: Array) -> Array:
    """Put 1 where a column is constant up to rounding."""
    return np.where(scale > np.maximum(1e-7 * size, 1e-13 * level), scale, 1.0)


class Design:
    """A matrix of inputs with its column of ones, and the sums over rows that M-steps are made of.

    Parameters
    ----------
    x : (n, q) with ones in the first column; dense, or scipy's csr.
    raw : (n, q - 1) the inputs as they came, for parts that are not linear; None where nobody needs them.
    """

    def __init__(self, x: Any, raw: Any = None) -> None:
        self.x = x
        self.raw = raw
        self.is_sparse = sparse.issparse(x)

    @classmethod
    def of(cls, raw: Any, scaling: Scaling | None = None, *, keep_raw: bool = True) -> "Design":
        """Make the design of inputs (n, p), standardised if a scaling is given."""
        n, p = raw.shape
        if sparse.issparse(raw):
            scaled = raw if scaling is None else raw @ sparse.diags_array(1 / scaling.scale)
            x: Any = sparse.hstack([np.ones((n, 1)), scaled], format="csr")
        else:
            x = np.empty((n, p + 1))
            x[:, 0] = 1
            if scaling is None:
                x[:, 1:] = raw
            else:
                np.subtract(raw, scaling.mean, out=x[:, 1:])
                x[:, 1:] /= scaling.scale
        return cls(x, raw if keep_raw else None)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, the column of ones counted."""
        return self.x.shape  # type: ignore[no-any-return]

    def take(self, rows: Any) -> "Design":
        """Give some of the rows."""
        return Design(self.x[rows], None if self.raw is None else self.raw[rows])

    def times(self, beta: Array) -> Array:
        """Multiply by coefficients (q, m): (n, m), each column contiguous in memory."""
        if self.is_sparse:
            return np.asfortranarray(self.x @ beta)
        return (beta.T @ self.x.T).T  # type: ignore[no-any-return]

    def cross(self, values: Array) -> Array:
        """Sum x_i v_i' over rows: values (n, m) give (q, m)."""
        return np.asarray(self.x.T @ values)

    def gram(self, weights: Array) -> Array:
        """Sum w_ir x_i x_i' over rows: weights (n, r) give (r, q, q)."""
        q, r = self.shape[1], weights.shape[1]
        if self.is_sparse:
            each = (self.x.T @ self.x.multiply(weights[:, [k]]) for k in range(r))
            return np.array([product.toarray() for product in each]).reshape(r, q, q)
        if q > WIDE:
            return np.array([(self.x * weights[:, [k]]).T @ self.x for k in range(r)]).reshape(r, q, q)
        packed = weights.T @ self._products().T
        full = np.empty((r, q, q))
        row, column = _lower(q)
        full[:, row, column] = packed
        full[:, column, row] = packed
        return full

    def _products(self) -> Array:
        """Products of every two columns, (q (q + 1) / 2, n): weighted Gram matrices are weights times it.

        They stand in memory that the thread keeps and the next call overwrites: fresh memory costs more than
        forming them anew.
        """
        n, q = self.x.shape
        last = getattr(_MEMORY, "last", None)
        if last is not None and last() is self:  # the gate and the experts ask one after the other
            return _workspace("products", q * (q + 1) // 2, n)
        columns = _workspace("columns", q, n)
        columns[:] = self.x.T
        products = _workspace("products", q * (q + 1) // 2, n)
        at = 0
        for i in range(q):  # in the order of tril_indices
            np.multiply(columns[: i + 1], columns[i], out=products[at : at + i + 1])
            at += i + 1
        _MEMORY.last = ref(self)
        return products


@cache
def _lower(q: int) -> tuple[IntArray, IntArray]:
    return np.tril_indices(q)


_MEMORY = local()


def _workspace(name: str, rows: int, columns: int) -> Array:
    """Give a (rows, columns) array in this thread's memory of that name; it holds anything."""
    memory: Array | None = getattr(_MEMORY, name, None)
    if memory is None or memory.size < rows * columns:
        memory = np.empty(rows * columns)
        setattr(_MEMORY, name, memory)
    return memory[: rows * columns].reshape(rows, columns)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a data set, or a chunk of them.

    gate : the gate's design, a row for each row of the data; with groups, for each group.
    expert : the experts' design, (n, q). The same object as gate where both see the same inputs.
    y : (n,), (n, m), counts (n, 2), or class codes (n,).
    z : (n, m) for families of location and scale: y less its offset, standardised.
    log_scale : sum of the logs of y's scales: log p(y) = log p(z) - log_scale.
    weight : (n,) weights, all positive.
    offset : (n,) or None.
    group_start : where each group begins in the rows, or None. Rows of a group stand together.
    index : (n,) which rows of the fit these are; -1 for rows that were not fitted.
    resp : (n, K) responsibilities that are given, or None.
    """

    gate: Design
    expert: Design
    y: npt.NDArray[Any]
    z: Array
    log_scale: float
    weight: Array
    offset: Array | None = None
    group_start: IntArray | None = None
    index: IntArray | None = None
    resp: Array | None = None

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def gate_weight(self) -> Array:
        """Weight of each row of the gate's design: with groups, 1 for each group."""
        return self.weight if self.group_start is None else np.ones(len(self.group_start))

    def take(self, rows: IntArray | slice) -> "Rows":
        """Give some rows; not for grouped rows, whose groups stay whole (`pick`)."""
        assert self.group_start is None
        expert = self.expert.take(rows)
        return replace(
            self,
            gate=expert if self.gate is self.expert else self.gate.take(rows),
            expert=expert,
            **self._per_row(rows),
        )

    def pick(self, *, gate: IntArray | slice, rows: IntArray | slice, group_start: IntArray) -> "Rows":
        """Give some groups: which rows of the gate's design, which rows, and where the groups then begin."""
        return replace(
            self,
            gate=self.gate.take(gate),
            expert=self.expert.take(rows),
            group_start=group_start,
            **self._per_row(rows),
        )

    def _per_row(self, rows: IntArray | slice) -> dict[str, Any]:
        names = ("y", "z", "weight", "offset", "index", "resp")
        values = {name: getattr(self, name) for name in names}
        return {name: None if value is None else value[rows] for name, value in values.items()}

    def chunks(self, size: int = CHUNK) -> Iterator["Rows"]:
        """Cut into chunks of about ``size`` rows; groups are not cut."""
        if self.group_start is None:
            for start in range(0, len(self), size):
                yield self.take(slice(start, start + size))
            return
        bounds = np.append(self.group_start, len(self))
        first = 0
        while first < len(self.group_start):
            last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + size, side="right")) - 1)
            rows = slice(int(bounds[first]), int(bounds[last]))
            begin = self.group_start[first:last] - bounds[first]
            yield self.pick(gate=slice(first, last), rows=rows, group_start=begin)
            first = last
