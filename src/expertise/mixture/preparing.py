"""From what a user gives to the rows that EM passes over: columns chosen, rows in order, all standardised."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from expertise.mixture.rows import Array, Design, IntArray, Rows, Scaling

DENSE_KEYS = 5_000_000  # entries of a sparse matrix that are looked at for equal rows
MERGED_ROWS = 20_000  # up to so many rows, equal ones are joined and their weights added


@dataclass(frozen=True, eq=False)
class Table:
    """A checked data set: X (n, d), y, weights, and the rest or None; rows of weight 0 are gone.

    resp : (n, K) responsibilities that are given (partitions by inputs or by sub-task).
    groups : (n,) codes of groups.
    """

    X: Any
    y: npt.NDArray[Any]
    weight: Array
    offset: Array | None = None
    groups: IntArray | None = None
    resp: Array | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, rows: Any) -> "Table":
        """Give some rows."""
        names = ("X", "y", "weight", "offset", "groups", "resp")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        taken: dict[str, Any] = {k: None if v is None else v[rows] for k, v in values.items()}
        return Table(**taken)


@dataclass(frozen=True, eq=False)
class Columns:
    """Which columns of X the gate and the experts see, by number."""

    gate: IntArray
    expert: IntArray

    @property
    def are_same(self) -> bool:
        """Whether both see the same."""
        return np.array_equal(self.gate, self.expert)


@dataclass(frozen=True, eq=False)
class Scales:
    """How the gate's inputs, the experts' inputs and y were standardised."""

    gate: Scaling
    expert: Scaling
    y: Scaling

    @classmethod
    def of(cls, table: Table, columns: Columns, *, numbers: bool) -> "Scales":
        """Measure a table; ``numbers``: y has a location and a scale."""
        expert = Scaling.of(table.X[:, columns.expert], table.weight)
        gate = expert if columns.are_same else Scaling.of(table.X[:, columns.gate], table.weight)
        return cls(gate, expert, Scaling.of(_moved(table), table.weight) if numbers else Scaling.identity(1))

    @classmethod
    def none(cls, columns: Columns, outputs: int) -> "Scales":
        """Leave all as it is."""
        gate, expert = len(columns.gate), len(columns.expert)
        return cls(Scaling.identity(gate), Scaling.identity(expert), Scaling.identity(outputs))


def _moved(table: Table) -> Array:
    """Give y (n, m) less its offset."""
    y = np.asarray(table.y, float).reshape(len(table), -1)
    return y if table.offset is None else y - table.offset[:, None]


def canonical(table: Table) -> Table:
    """Sort the rows, and join those that are equal, adding their weights.

    So a weight of 2 is the row twice, and the order of rows does not matter, to the last bit. Tables with
    groups are sorted by group; long ones stay as they are.
    """
    if table.groups is not None:
        return table.take(np.argsort(table.groups, kind="stable"))
    if len(table) > MERGED_ROWS or (sparse.issparse(table.X) and np.prod(table.X.shape) > DENSE_KEYS):
        return table
    inputs = table.X.toarray() if sparse.issparse(table.X) else table.X
    parts = [inputs, np.asarray(table.y, float).reshape(len(table), -1)]
    parts += [part.reshape(len(table), -1) for part in (table.offset, table.resp) if part is not None]
    keys = np.column_stack(parts)
    order = np.lexsort(keys.T[::-1])
    keys = keys[order]
    new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
    weight = np.add.reduceat(table.weight[order], np.flatnonzero(new))
    return replace(table.take(order[new]), weight=weight)


def make_rows(
    table: Table, columns: Columns, scales: Scales, *, numbers: bool, raw: bool, first_index: int = 0
) -> Rows:
    """Make the rows of a table: designs standardised, targets too; ``raw`` keeps the inputs as they came.

    Rows of a group must stand together.
    """
    expert_inputs = table.X[:, columns.expert]
    expert = Design.of(expert_inputs, scales.expert, keep_raw=raw)
    start = None
    if table.groups is not None:
        start = np.flatnonzero(np.append(True, table.groups[1:] != table.groups[:-1]))
    if start is None and columns.are_same:
        gate = expert
    else:
        gate_inputs = table.X[:, columns.gate] if start is None else table.X[start][:, columns.gate]
        gate = Design.of(gate_inputs, scales.gate, keep_raw=raw)
    z = (_moved(table) - scales.y.mean) / scales.y.scale if numbers else np.zeros((len(table), 1))
    return Rows(
        gate=gate,
        expert=expert,
        y=table.y,
        z=z,
        log_scale=float(np.log(scales.y.scale).sum()) if numbers else 0.0,
        weight=table.weight,
        offset=table.offset,
        group_start=start,
        index=np.arange(first_index, first_index + len(table)),
        resp=table.resp,
    )
