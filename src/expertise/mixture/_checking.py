"""What the constructor and fit accept: the table of arguments, and checks of the data."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from expertise.mixture.experts import AbstractExpert
from expertise.mixture.gates import AbstractGate
from expertise.mixture.parts import unknown
from expertise.mixture.preparing import Table
from expertise.mixture.rows import Array, IntArray
from expertise.mixture.starts import START_KINDS

PARTITIONS = ("mapping", "inputs", "given")
ALGORITHMS = ("em", "hard")
CRITERIA = ("bic", "aic", "icl", "cv")
STARTS = (*START_KINDS, "nested")
LARGEST = 1e150  # the square of it is still a number
DEFAULT_STARTS = ("random", "residual", "kmeans_xy", "nested", "residual", "tree", "kmeans")


class Constraint(NamedTuple):
    """What an argument may be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    words: str


def _number(low: float, *, strictly: bool = False) -> Constraint:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        number = float(value)
        return bool(np.isfinite(number) and (number > low if strictly else number >= low))

    return Constraint(holds, f"a number {'above' if strictly else 'of at least'} {low:g}")


def _whole(low: int, *, none: bool = False) -> Constraint:
    def holds(value: Any) -> bool:
        if value is None:
            return none
        return not isinstance(value, bool) and isinstance(value, numbers.Integral) and int(value) >= low

    return Constraint(holds, f"a whole number of at least {low}{' or None' if none else ''}")


CONSTRAINTS: dict[str, Constraint] = {
    "n_experts": Constraint(
        lambda value: (isinstance(value, str) and value == "auto") or _whole(1, none=True).holds(value),
        'a whole number of at least 1, "auto" or None',
    ),
    "alpha": _number(0),
    "gate_alpha": _number(0),
    "variance_floor": _number(0),
    "n_init": _whole(1, none=True),
    "screening_iter": _whole(1),
    "max_iter": _whole(1),
    "tol": _number(0),
    "max_experts": _whole(1),
    "n_jobs": Constraint(
        lambda value: value is None or (_whole(-64).holds(value) and value != 0),
        "a whole number other than 0 (negative: all processors), or None for 1",
    ),
}
CHOICES = {"partition": PARTITIONS, "algorithm": ALGORITHMS, "criterion": CRITERIA}


def check_arguments(values: dict[str, Any]) -> None:
    """Check the constructor's arguments against the table.

    Raises
    ------
    ValueError : the argument, the value got, and what is allowed.
    """
    for name, constraint in CONSTRAINTS.items():
        if not constraint.holds(values[name]):
            raise ValueError(f"{name} must be {constraint.words}; got {values[name]!r}")
    for name, choices in CHOICES.items():
        if values[name] not in choices:
            raise unknown(name, values[name], choices)
    kinds = values["starts"]
    if kinds is not None:
        if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
            raise ValueError(f"starts must be a list of kinds ({', '.join(STARTS)}) or None; got {kinds!r}")
        for kind in kinds:
            if kind not in STARTS:
                raise unknown("starts", kind, STARTS)


def check_finite(X: Any, nan_columns: IntArray | None, gate: str) -> None:
    """Say where NaN or infinity stands in X, and which gate could take it.

    nan_columns : columns that may hold NaN (those that only a Gaussian gate reads); None where none may.
    """
    values = X.data if sparse.issparse(X) else X
    bad = ~np.isfinite(values)
    check_size("X", values if not bad.any() else values[~bad])
    if not bad.any():
        return
    if sparse.issparse(X):
        raise ValueError("Input X contains NaN or infinity; impute or drop such rows")
    allowed = np.zeros(X.shape[1], bool)
    if nan_columns is not None:
        allowed[nan_columns] = True
    wrong = np.argwhere(bad & ~(np.isnan(values) & allowed))
    if not len(wrong):
        return
    row, column = wrong[0]
    if np.isinf(values[row, column]):
        raise ValueError(f"Input X contains infinity in row {row}, column {column}; drop or mend it")
    raise ValueError(
        f"Input X contains NaN in row {row}, column {column}. gate={gate!r} cannot integrate it out here: "
        'gate="gaussian" can, in columns that no expert reads (expert_features); or impute it first'
    )


def check_size(name: str, values: Any) -> None:
    """Check that the values can be squared."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST:
        raise ValueError(
            f"{name} holds a number of size {largest:.3g}; allowed is up to {LARGEST:g}; "
            "give it in larger units, or drop such rows"
        )


def resolve_columns(argument: str, wanted: Any, n_columns: int, names: Any) -> IntArray:
    """Turn indices, names or a slice into column numbers; None means all.

    Raises
    ------
    ValueError : a column that is not there, or one twice.
    """
    if wanted is None:
        return np.arange(n_columns)
    if isinstance(wanted, slice):
        return np.arange(n_columns)[wanted]
    items: list[Any] = [wanted] if isinstance(wanted, str | numbers.Integral) else list(wanted)
    if items and all(isinstance(item, bool | np.bool_) for item in items) and len(items) == n_columns:
        return np.flatnonzero(np.array(items))
    numbers_ = [_column_number(argument, item, n_columns, names) for item in items]
    if len(set(numbers_)) != len(numbers_):
        raise ValueError(f"{argument}={wanted!r} names a column twice; name each once")
    return np.array(numbers_, dtype=np.intp)


def _column_number(argument: str, item: Any, n_columns: int, names: Any) -> int:
    if isinstance(item, str):
        if names is None:
            raise ValueError(f"{argument} names the column {item!r}, but X has no column names; give indices")
        if item not in list(names):
            raise unknown(argument, item, list(names))
        return list(names).index(item)
    if not isinstance(item, bool) and isinstance(item, numbers.Integral):
        if not -n_columns <= int(item) < n_columns:
            raise ValueError(f"{argument} holds {item}, but X has the columns 0 to {n_columns - 1}")
        return int(item) % n_columns
    raise ValueError(f"{argument} must hold column indices, names, or be a slice; got {item!r}")


def check_groups(groups: Any, X: Any, columns: IntArray, weight: Array) -> IntArray | None:
    """Turn labels of groups into codes, and check that the gate's inputs are constant in each."""
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.shape != (X.shape[0],):
        raise ValueError(f"groups must have the shape ({X.shape[0]},), one label a row; got {labels.shape}")
    codes: IntArray = np.unique(labels, return_inverse=True)[1].reshape(-1)
    inputs = X[:, columns]
    inputs = inputs.toarray() if sparse.issparse(inputs) else inputs
    first = np.unique(codes, return_index=True)[1][codes]
    same = (inputs == inputs[first]) | (np.isnan(inputs) & np.isnan(inputs[first]))
    if not same.all():
        row, column = np.argwhere(~same)[0]
        raise ValueError(
            f"the gate's inputs must be constant within a group, but in group {labels[row].tolist()!r} "
            f"column {columns[column]} is {inputs[first][row, column]:g} and {inputs[row, column]:g}; "
            'leave it out of gate_features, or use gate="constant"'
        )
    return codes


def check_subtask(subtask: Any, n: int, weight: Array) -> tuple[npt.NDArray[Any], IntArray]:
    """Turn labels of sub-tasks into codes: the labels of rows with weight, -1 for others."""
    if subtask is None:
        raise ValueError('partition="given" needs fit(X, y, subtask=...): the label of each row\'s sub-task')
    labels = np.asarray(subtask)
    if labels.shape != (n,):
        raise ValueError(f"subtask must have the shape ({n},), one label a row; got {labels.shape}")
    known, codes = np.unique(labels[weight > 0], return_inverse=True)
    code = np.full(n, -1, dtype=np.intp)
    code[weight > 0] = codes.reshape(-1)
    return known, code


def check_offset(offset: Any, n: int, experts: Sequence[AbstractExpert]) -> Array | None:
    """Check one finite number for each row, for experts that take it."""
    if offset is None:
        return None
    values = np.asarray(offset, dtype=float)
    if values.shape != (n,):
        raise ValueError(f"offset must have the shape ({n},), one number a row; got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("offset must be finite; got NaN or infinity (the logarithm of an exposure of 0?)")
    for expert in experts:
        if not expert.takes_offset:
            raise ValueError(f"offset was given, but expert={expert.name!r} takes none; leave it out")
    return values


def check_sizes(table: Table, n_experts: int) -> None:
    """Check that there are rows enough to speak of so many experts."""
    if len(table) < 2:
        raise ValueError(f"n_samples = {len(table)} (with weight) is too few to fit; give at least 2 rows")
    n = len(table) if table.groups is None else len(np.unique(table.groups))
    what = "rows" if table.groups is None else "groups"
    if n < n_experts:
        raise ValueError(f"n_experts={n_experts} is more than the {n} {what} with weight; use fewer experts")


def check_given(expert: AbstractExpert, n_columns: int) -> None:
    """Check an expert that is given with its parameters, or frozen."""
    if expert.frozen and expert.additive and not expert.is_fitted:
        raise ValueError(
            f"expert {expert.name!r} is frozen, but has no parameters to keep; give one that is fitted, "
            "such as another mixture's experts_[0], or frozen=False"
        )
    beta = getattr(expert, "beta", None)
    if beta is not None and len(beta) != n_columns + 1:
        raise ValueError(
            f"expert {expert.name!r} was fitted to {len(beta) - 1} columns, but the experts here see "
            f"{n_columns}; give expert_features as it was fitted"
        )


def check_parts(gate: AbstractGate, experts: Sequence[AbstractExpert], table: Table) -> None:
    """Check that gate and experts can take this table."""
    for expert in {id(expert): expert for expert in experts}.values():
        if table.y.ndim == 2 and not expert.multioutput and expert.name != "binomial":
            raise ValueError(f"y has {table.y.shape[1]} columns, but expert={expert.name!r} takes one output")
        expert.check_y(table.y)
        if sparse.issparse(table.X) and not expert.takes_sparse:
            raise ValueError(f"X is sparse, but expert={expert.name!r} takes dense inputs; use X.toarray()")
    if sparse.issparse(table.X) and not gate.takes_sparse:
        raise ValueError(f"X is sparse, but gate={gate.name!r} takes dense inputs; use X.toarray()")


def check_auto(gate: AbstractGate, expert: Any, partition: str) -> None:
    """Check that nothing beside n_experts="auto" says how many experts there are."""
    others = {
        'partition="given"': partition == "given",
        "a list of experts": isinstance(expert, list | tuple),
        f"gate={gate.name!r} with a number of experts of its own": gate.wanted_experts() is not None,
        "a tree that grows": getattr(gate, "grow", False),
    }
    for what, there in others.items():
        if there:
            raise ValueError(
                f'n_experts="auto" cannot be combined with {what}, which says how many; leave one out'
            )


def check_growing(expert: Any, n_experts: Any, partition: str) -> None:
    """Check that a growing tree is left to find its own size."""
    if isinstance(expert, list | tuple) or n_experts is not None or partition != "mapping":
        raise ValueError(
            "a growing tree finds its own number of experts of one kind: leave n_experts out, give one kind "
            'of expert, and partition="mapping"'
        )
