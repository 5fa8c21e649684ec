"""What the constructors of the neural mixtures accept: a table, and how to say what is wrong."""

import difflib
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from expertise.nn.objectives import BASELINES, OBJECTIVES

ROUTINGS = ("dense", "top_k")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Constraint(NamedTuple):
    """What an argument may be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    words: str


def _is_real(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and bool(np.isfinite(float(value)))


def _is_whole(value: Any, low: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and int(value) >= low


def _number(low: float, *, strictly: bool = False) -> Constraint:
    def holds(value: Any) -> bool:
        return _is_real(value) and bool(value > low if strictly else value >= low)

    return Constraint(holds, f"a number {'above' if strictly else 'of at least'} {low:g}")


def _whole(low: int, *, none: bool = False) -> Constraint:
    words = f"a whole number of at least {low}{' or None' if none else ''}"
    return Constraint(lambda value: (none and value is None) or _is_whole(value, low), words)


def _flag() -> Constraint:
    return Constraint(lambda value: isinstance(value, bool | np.bool_), "True or False")


def _sizes(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(_is_whole(v, 1) for v in value)


SIZES = Constraint(_sizes, "a tuple of whole numbers of at least 1, one for each hidden layer, such as (32,)")
CONSTRAINTS: dict[str, Constraint] = {
    "n_experts": _whole(1, none=True),
    "expert_hidden": SIZES,
    "gate_hidden": SIZES,
    "gate": Constraint(
        lambda value: value is None or isinstance(value, nn.Module),
        "a torch.nn.Module that gives logits, or None",
    ),
    "loss": Constraint(
        lambda value: value is None or callable(value),
        "a function of (y, prediction), a loss per case, or None",
    ),
    "k": _whole(1),
    "balance": _number(0),
    "standardize": _flag(),
    "freeze_gate": _flag(),
    "variance_floor": _number(0),
    "epochs": _whole(1),
    "batch_size": _whole(1, none=True),
    "learning_rate": _number(0, strictly=True),
    "weight_decay": _number(0),
    "early_stopping": Constraint(
        lambda value: isinstance(value, bool | np.bool_) or (isinstance(value, str) and value == "auto"),
        'True, False or "auto"',
    ),
    "validation_fraction": Constraint(
        lambda value: _is_real(value) and 0 < value < 1, "a number above 0 and below 1"
    ),
    "patience": _whole(1),
    "verbose": _flag(),
}
CHOICES: dict[str, Iterable[str]] = {
    "objective": OBJECTIVES,
    "baseline": BASELINES,
    "router": ROUTINGS,
    "dtype": DTYPES,
}


def unknown(argument: str, value: object, known: Iterable[str]) -> ValueError:
    """Make the error for a name that no table has: the known ones, and the nearest."""
    known = list(known)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{argument}={value!r} is unknown; known are {', '.join(known)}{hint}")


def check_arguments(values: dict[str, Any]) -> None:
    """Check the constructor's arguments against the tables, and against each other.

    Raises
    ------
    ValueError : the argument, the value got, and what is allowed.
    """
    for name, constraint in CONSTRAINTS.items():
        if not constraint.holds(values[name]):
            raise ValueError(f"{name} must be {constraint.words}; got {values[name]!r}")
    for name, choices in CHOICES.items():
        if not isinstance(values[name], str) or values[name] not in choices:
            raise unknown(name, values[name], choices)
    if values["loss"] is not None and values["objective"] == "likelihood":
        raise ValueError(
            'loss was given, but objective="likelihood" takes none: it is minus a log density; use '
            'objective="expected", "cooperative" or "reinforce"'
        )
    count = count_experts(values["n_experts"], values["experts"])
    if values["router"] == "top_k" and values["k"] > count:
        raise ValueError(f"k={values['k']} is more than the {count} experts; use k from 1 to {count}")
    for k in frozen_experts(values["freeze_experts"], count):
        if values["experts"] is None or values["experts"][k] is None:
            raise ValueError(
                f"freeze_experts={values['freeze_experts']!r}, but expert {k} is a new network, which has "
                "learned nothing to keep; give trained ones in experts=[...]"
            )


def count_experts(n_experts: int | None, experts: Any) -> int:
    """Say how many experts there shall be; 4 where nothing says.

    Raises
    ------
    ValueError : ``experts`` is no list of experts, or has another length than ``n_experts``.
    """
    if experts is None:
        return 4 if n_experts is None else int(n_experts)
    if isinstance(experts, str) or not isinstance(experts, Sequence | nn.ModuleList) or not len(experts):
        raise ValueError(
            "experts must be a list of torch.nn.Modules and fitted scikit-learn estimators, or None; got "
            f"{experts!r:.80}"
        )
    if n_experts is not None and n_experts != len(experts):
        raise ValueError(
            f"n_experts={n_experts}, but experts lists {len(experts)}; leave n_experts out, or make both "
            "agree"
        )
    return len(experts)


def frozen_experts(value: Any, count: int) -> list[int]:
    """Give the numbers of the experts that shall not learn.

    Raises
    ------
    ValueError : neither True, False, nor a list of numbers of experts.
    """
    if isinstance(value, bool | np.bool_):
        return list(range(count)) if value else []
    good = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    if not good or not all(_is_whole(k, 0) and k < count for k in value):
        raise ValueError(
            f"freeze_experts must be True, False, or a list of numbers of experts from 0 to {count - 1}; "
            f"got {value!r}"
        )
    return sorted({int(k) for k in value})


def resolve_device(value: Any) -> torch.device:
    """Make the device: "auto" is the first GPU where there is one.

    Raises
    ------
    ValueError : no such device, or none here.
    """
    if isinstance(value, str) and value == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        raise ValueError(f'device must be "auto", "cpu", "cuda" or "cuda:1"; got {value!r}') from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device={value!r}, but torch sees no GPU here; use device="auto" or "cpu"')
    return device


def resolve_columns(wanted: Any, n_columns: int, names: Any) -> npt.NDArray[np.intp]:
    """Turn gate_features, indices, names or a slice, into column numbers; None means all.

    Raises
    ------
    ValueError : a column that is not there, none at all, or one twice.
    """
    if wanted is None:
        return np.arange(n_columns)
    if isinstance(wanted, slice):
        items: list[Any] = list(range(n_columns))[wanted]
    else:
        items = [wanted] if isinstance(wanted, str | numbers.Integral) else list(wanted)
    if len(items) == n_columns and all(isinstance(item, bool | np.bool_) for item in items):
        items = np.flatnonzero(items).tolist()
    columns = [_column(item, n_columns, names) for item in items]
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(f"gate_features must name at least one column, and each once; got {wanted!r}")
    return np.array(columns, dtype=np.intp)


def _column(item: Any, n_columns: int, names: Any) -> int:
    if isinstance(item, str):
        if names is None:
            raise ValueError(
                f"gate_features names the column {item!r}, but X has no column names; give indices"
            )
        if item not in list(names):
            raise unknown("gate_features", item, list(names))
        return list(names).index(item)
    if _is_whole(item, -n_columns) and int(item) < n_columns:
        return int(item) % n_columns
    raise ValueError(f"gate_features must hold names or columns from 0 to {n_columns - 1}; got {item!r}")


def check_numbers(X: Any, error: ValueError) -> None:
    """Say which column of X holds text, where scikit-learn has only said that some value is no number.

    Raises
    ------
    ValueError : the column, a value, and what to do.
    """
    if "could not convert string to float" not in str(error):
        return
    table = np.asarray(X, dtype=object)
    for name, column in zip(getattr(X, "columns", range(table.shape[1])), table.T, strict=True):
        text = [value for value in column if isinstance(value, str) and not _reads_as_number(value)]
        if text:
            raise ValueError(
                f"X must hold numbers; column {name!r} holds {text[0]!r}; make columns of 0 and 1 of the "
                "categories, for instance with sklearn.preprocessing.OneHotEncoder in a pipeline"
            ) from None


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
