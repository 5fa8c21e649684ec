"""Writing models: skops files for every mixture, JSON for the built-in families; `loading` reads both."""

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from expertise._files import atomic_file
from expertise._optional import require
from expertise.mixture.experts import (
    AbstractExpert,
)
from expertise.mixture.gates import AbstractGate

if TYPE_CHECKING:
    from expertise.mixture.fitted import FittedMixture

FORMAT = "expertise.mixture"
VERSION = 1
PLAIN = (bool, int, float, str, type(None))
# learned attributes that are numbers or arrays
ARRAYS = ("weights_", "objective_history_", "cases_", "_typical_row_")
NUMBERS = (
    "loglik_",
    "joint_loglik_",
    "n_iter_",
    "converged_",
    "n_features_in_",
    "_total_weight_",
    "fit_seconds_",
)


def save(model: "FittedMixture", path: str | os.PathLike[str]) -> None:
    """Write a skops file, whole or not at all."""
    skops = require("skops.io", "table")
    state = model.__dict__.pop("_stepwise_", None)  # of partial_fit: begun anew after loading
    try:
        with atomic_file(path) as file:
            file.write_bytes(skops.dumps(model))
    finally:
        if state is not None:
            model._stepwise_ = state


# -- JSON


def to_json(model: "FittedMixture") -> str:
    """Write a fitted mixture of built-in parts as JSON; floats keep all their digits.

    Raises
    ------
    ValueError : a part that is a scikit-learn estimator, which has no JSON.
    """
    columns = model._columns_
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "estimator": type(model).__name__,
        "arguments": {k: _argument(k, v) for k, v in model.get_params(deep=False).items()},
        "gate": _part(model.gate_),
        "experts": [_part(expert) for expert in model.experts_],
        "columns": {"gate": columns.gate.tolist(), "expert": columns.expert.tolist()},
        "learned": {name: np.asarray(getattr(model, name)).tolist() for name in (*ARRAYS, *NUMBERS)},
        "starts": [start | {"degenerate": list(start["degenerate"].items())} for start in model.starts_],
        "selection": model.selection_,
    }
    found["uses"] = list(model._uses_)
    if hasattr(model, "subtasks_"):
        found["subtasks"] = {"values": model.subtasks_.tolist(), "dtype": model.subtasks_.dtype.str}
    names = getattr(model, "feature_names_in_", None)
    found["feature_names"] = None if names is None else [str(name) for name in names]
    classes = getattr(model, "classes_", None)
    if classes is not None:
        found["classes"] = {"values": classes.tolist(), "dtype": classes.dtype.str}
    return json.dumps(found, default=_number)


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(f"{value!r} has no JSON; use save, which writes a skops file")


def _part(part: AbstractGate | AbstractExpert) -> dict[str, Any]:
    if not part.additive:
        raise ValueError(f"{part.name!r} holds a scikit-learn estimator, which has no JSON; use save (skops)")
    settings = None if part.settings is None else dataclasses.asdict(part.settings)
    kind = "gate" if isinstance(part, AbstractGate) else "expert"
    return {"kind": kind, "name": part.name, "values": part.to_dict(), "settings": settings}


def _argument(name: str, value: Any) -> Any:
    """Give a constructor argument as plain values; a seed that is a generator is not kept."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, AbstractGate | AbstractExpert):
        return {"part": _part(value)}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, list | tuple | np.ndarray):
        return [_argument(name, item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if name == "random_state":
        return None
    raise ValueError(f"{name}={value!r} has no JSON; use save, which writes a skops file")
