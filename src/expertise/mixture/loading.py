"""Reading models from skops files and JSON. Reading never runs code: no pickle, and only known types."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from expertise._optional import require
from expertise.mixture.estimators import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture.experts import (
    CLASSIFICATION_EXPERTS,
    EXPERTS,
    REGRESSION_EXPERTS,
    AbstractExpert,
    ExpertSettings,
)
from expertise.mixture.gates import GATES, GateSettings
from expertise.mixture.preparing import Columns
from expertise.mixture.saving import ARRAYS, FORMAT, NUMBERS, VERSION

Mixture = MixtureOfExpertsRegressor | MixtureOfExpertsClassifier
KINDS: dict[str, type[Mixture]] = {
    kind.__name__: kind for kind in (MixtureOfExpertsRegressor, MixtureOfExpertsClassifier)
}


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
        return from_json(Path(path).read_text(encoding="utf-8"))
    return load_trusted(path, trusted)


def load_trusted(path: str | os.PathLike[str], trusted: list[str] | None = None) -> Any:
    """Read a skops file of scikit-learn's types, ours and those in ``trusted``; see `load`."""
    skops = require("skops.io", "table")
    if not Path(path).is_file():
        raise ValueError(f"{path} is not there; give the file of a fitted model")
    try:
        unknown = skops.get_untrusted_types(file=path)
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no skops file ({error}); save, or expertise fit, writes one") from None
    allowed = _known_types() | set(trusted or [])
    refused = sorted(name for name in unknown if name not in allowed)
    if refused:
        raise ValueError(
            f"{path} holds types that are not known to be safe: {', '.join(refused)}; if you know where the "
            "file comes from, name them in trusted="
        )
    return skops.load(path, trusted=unknown)


def _known_types() -> set[str]:
    """Name the classes that a file may hold beyond what skops trusts: data with known constructors."""
    # compiled parts of scikit-learn that only hold numbers
    safe = {
        "sklearn.tree._tree.Tree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.Interval",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
    }
    kinds: tuple[type, ...] = tuple(KINDS.values())
    kinds += (Columns, ExpertSettings, GateSettings, *EXPERTS, *GATES.values())
    return safe | {f"{kind.__module__}.{kind.__qualname__}" for kind in kinds}


def from_json(text: str) -> Mixture:
    """Make a fitted mixture from the text that its ``to_json`` gave.

    Raises
    ------
    ValueError : no JSON of a mixture, or one of a newer version.
    """
    return _from_dict(json.loads(text))


def _from_dict(found: Any) -> Mixture:
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("estimator") not in KINDS:
        raise ValueError(f"this is no JSON of {FORMAT}; to_json writes it")
    if found["version"] > VERSION:
        raise ValueError(
            f"this JSON has version {found['version']}, known are up to {VERSION}; use a newer expertise"
        )
    kind = KINDS[found["estimator"]]
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
    model._uses_ = found["uses"]
    model.path_ = []  # JSON holds what was fitted, not how
    if "subtasks" in found:
        model.subtasks_ = np.array(found["subtasks"]["values"], dtype=found["subtasks"]["dtype"])
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
