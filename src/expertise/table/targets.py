"""The target of a table: numbers or labels, which of the two, and the rows that have none."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from expertise._optional import require
from expertise.table import values
from expertise.table.values import Floats

MOST_CLASSES = 50


def task_of(array: Any, task: str, missing: tuple[str, ...]) -> Literal["regression", "classification"]:
    """Say whether the target is to be predicted as a number or as a label.

    Labels and booleans are classes; so are numbers of which there are only two.

    Raises
    ------
    ValueError : a type that neither can have.
    """
    if not values.can_hold(array, "category"):
        raise ValueError(f"the target holds {array.type}; known are numbers, text and booleans")
    if task != "auto":
        return "regression" if task == "regression" else "classification"
    types = require("pyarrow.types", "table")
    if types.is_boolean(array.type):
        return "classification"
    if types.is_date(array.type) or types.is_timestamp(array.type):
        return "regression"
    found, wrong = values.numbers(array, missing)
    if wrong is not None:
        return "classification"
    return "classification" if len(np.unique(found[~np.isnan(found)])) == 2 else "regression"


def read_target(
    name: str,
    array: Any,
    task: str,
    missing: tuple[str, ...],
    *,
    source: str,
    fitted: bool = False,
    first: int = 0,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Give the target, numbers or labels as text, and where there is one: (n,), (n,).

    ``fitted`` says that nothing is to be learned, so that one value, or none, is enough. ``first`` is the
    number of the first row.

    Raises
    ------
    ValueError : text among numbers, with the row; nothing to learn (one value, or none); very many classes.
    """
    y: npt.NDArray[Any]
    if task == "regression":
        types = require("pyarrow.types", "table")
        if types.is_boolean(array.type) or types.is_date(array.type) or types.is_timestamp(array.type):
            raise ValueError(f"--target={name} holds {array.type}, and no numbers; use --task=classification")
        y, wrong = values.numbers(array, missing)
        if wrong is not None:
            raise ValueError(
                f"{source}, row {first + wrong.row}, column {name!r}: {wrong.value!r} is not a finite "
                "number; rows count from 0; correct it, or use --task=classification where the target is a "
                f"label{values.hint_of(wrong.value)}"
            )
        if (large := values.too_large(y)) and not fitted:
            raise ValueError(
                f"{source}, row {first + large.row}, column {name!r}: {large.value} is too large; numbers up "
                f"to {values.LARGEST:g} are fitted; rows count from 0; correct it, or use another unit"
            )
        there = ~np.isnan(y)
        if not fitted and there.sum() and (y[there] == y[there][0]).all():
            raise ValueError(f"--target={name} is {y[there][0]:g} in every row: nothing to predict")
    else:
        y = values.texts(array, missing)
        there = np.array([one is not None for one in y])
        classes = len(set(y[there]))
        if classes == 1 and not fitted:
            raise ValueError(f"--target={name} is {y[there][0]!r} in every row: nothing to predict")
        check_classes(name, classes, next(iter(y[there]), ""))
    if not there.any() and not fitted:
        raise ValueError(f"--target={name} is missing in every row of {source}")
    return y, there


def check_classes(name: str, count: int, example: str = "") -> None:
    """Say so where there are very many classes; ``example`` is one of them."""
    if count > MOST_CLASSES:
        hint = values.hint_of(example) or "; if it is a number, use --task=regression"
        raise ValueError(f"--target={name} has {count:,} classes, at most {MOST_CLASSES} are fitted{hint}")


def read_weights(name: str, array: Any, missing: tuple[str, ...], *, source: str, first: int = 0) -> Floats:
    """Give weights (n,), finite and not negative; ``first`` is the number of the first row."""
    if not values.can_hold(array, "number"):
        raise ValueError(f"--weights={name} holds {array.type}, and no numbers")
    weight, wrong = values.numbers(array, missing)
    bad = np.flatnonzero(np.isnan(weight) | (weight < 0))
    if wrong is not None or len(bad):
        row = wrong.row if wrong is not None else int(bad[0])
        value = wrong.value if wrong is not None else f"{weight[row]:g}"
        raise ValueError(
            f"{source}, row {first + row}, column {name!r}: {value!r} is no weight: a number of at least 0; "
            "rows count from 0"
        )
    return weight


def check_weights(name: str, weight: Floats, rows: str) -> None:
    """Say so where no row counts; ``rows`` is what to call one of them."""
    if len(weight) and not weight.sum() > 0:
        raise ValueError(f"--weights={name} is 0 in every {rows}; use other weights or another --seed")


def read_groups(name: str, array: Any, missing: tuple[str, ...], source: str) -> npt.NDArray[Any]:
    """Give the group of each row as text (n,); every row must have one."""
    if not values.can_hold(array, "category"):
        raise ValueError(f"--groups={name} holds {array.type}; known are numbers, text, booleans and dates")
    group = values.texts(array, missing)
    gone = [row for row, one in enumerate(group) if one is None]
    if gone:
        raise ValueError(
            f"{source}, row {gone[0]}, column {name!r}: the group is missing; rows count from 0; give each "
            "row one, or leave --groups out"
        )
    return group.astype(str)
