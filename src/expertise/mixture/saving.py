"""Models on disk: skops files for every mixture, JSON for the built-in families. Reading never runs code."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from expertise._files import atomic_file
from expertise._optional import require
from expertise.mixture.experts import (
    CLASSIFICATION_EXPERTS,
    EXPERTS,
    REGRESSION_EXPERTS,
    AbstractExpert,
    ExpertSettings,
)
from expertise.mixture.gates import GATES, AbstractGate, GateSettings
from expertise.mixture.preparing import Columns

if TYPE_CHECKING:
    from expertise.mixture.editing import EditableMixture

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


def save(model: "EditableMixture", path: str | os.PathLike[str]) -> None:
    """Write a skops file, whole or not at all."""
    skops = require("skops.io", "table")
    state = model.__dict__.pop("_stepwise_", None)  # of partial_fit: begun anew after loading
    try:
        with atomic_file(path) as file:
            file.write_bytes(skops.dumps(model))
    finally:
        if state is not None:
            model._stepwise_ = state


def load(path: str | os.PathLike[str], *, trusted: list[str] | None = None) -> Any:
    """Read a mixture from a skops file or, where the name ends in .json, from JSON.

    Parameters
    ----------
    trusted : names of further types that may be made, those of an estimator that is not scikit-learn's.

    Raises
    ------
    ValueError : the file holds types that are neither scikit-learn's, nor ours, nor trusted; or no mixture.
    """
    if Path(path).suffix == ".json":
        from expertise.mixture import estimators

        return estimators.from_json(Path(path).read_text(encoding="utf-8"))
    skops = require("skops.io", "table")
    unknown = skops.get_untrusted_types(file=path)
    allowed = _own_types() | set(trusted or [])
    refused = sorted(name for name in unknown if name not in allowed)
    if refused:
        raise ValueError(
            f"{path} holds types that are not known to be safe: {', '.join(refused)}; if you know where the "
            "file comes from, name them in trusted="
        )
    return skops.load(path, trusted=unknown)


def _own_types() -> set[str]:
    """Name the classes of this package that a file may hold: data with known constructors."""
    from expertise.mixture.estimators import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor

    kinds: tuple[type, ...] = (MixtureOfExpertsClassifier, MixtureOfExpertsRegressor)
    kinds += (Columns, ExpertSettings, GateSettings, *EXPERTS, *GATES.values())
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}


# -- JSON


def to_json(model: "EditableMixture") -> str:
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


def from_dict(found: Any, kinds: dict[str, type["EditableMixture"]]) -> "EditableMixture":
    """Make a fitted mixture from what `to_json` wrote.

    Raises
    ------
    ValueError : another format, or a newer version of it.
    """
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("estimator") not in kinds:
        raise ValueError(f"this is no JSON of {FORMAT}; to_json writes it")
    if found["version"] > VERSION:
        raise ValueError(
            f"this JSON has version {found['version']}, known are up to {VERSION}; use a newer expertise"
        )
    kind = kinds[found["estimator"]]
    task = kind._task
    model = kind(**{name: _made(value, task) for name, value in found["arguments"].items()})
    model._columns_ = Columns(*(np.array(found["columns"][side], np.intp) for side in ("gate", "expert")))
    for name in ARRAYS:
        setattr(model, name, np.array(found["learned"][name], float))
    for name in NUMBERS:
        setattr(model, name, found["learned"][name])
    model.selection_ = found["selection"]
    model.starts_ = [start | {"degenerate": dict(start["degenerate"])} for start in found["starts"]]
    if found["feature_names"] is not None:
        model.feature_names_in_ = np.array(found["feature_names"], dtype=object)
    if "classes" in found:
        model.classes_ = np.array(found["classes"]["values"], dtype=found["classes"]["dtype"])
    experts = [_made({"part": one}, task) for one in found["experts"]]
    model._set_parts(_made({"part": found["gate"]}, task), experts)
    return model


def _made(value: Any, task: str) -> Any:
    """Make an argument again: a part, a slice, a list, or the plain value that it is."""
    if isinstance(value, list):
        return [_made(item, task) for item in value]
    if not isinstance(value, dict):
        return value
    if "slice" in value:
        return slice(*value["slice"])
    part = value["part"]
    settings: Any = part["settings"]
    if part["kind"] == "gate":
        gate = GATES[part["name"]].from_dict(part["values"])
        return dataclasses.replace(gate, settings=settings and GateSettings(**settings))
    expert = _experts(task)[part["name"]].from_dict(part["values"])
    return dataclasses.replace(expert, settings=settings and ExpertSettings(**settings))


def _experts(task: str) -> dict[str, type[AbstractExpert]]:
    return REGRESSION_EXPERTS if task == "regression" else CLASSIFICATION_EXPERTS
