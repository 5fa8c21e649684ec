"""Neural mixtures on disk: safetensors, with JSON in its header; reading runs no code."""

import copy
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from expertise._files import atomic_file
from expertise.nn.neural import arguments
from expertise.nn.neural.networks import (
    AbstractExpert,
    CutGate,
    FittedExpert,
    GrownGate,
    Mixture,
    NetworkExpert,
    NetworkGate,
    Scaling,
    Shape,
    mlp,
)

if TYPE_CHECKING:
    from expertise.nn.neural.editing import NeuralEditing

FORMAT = "expertise.nn.mixture"
VERSION = 1
PLAIN = (bool, int, float, str, type(None))
OBJECTS = ("experts", "gate", "loss")  # arguments that are code
NUMBERS = ("n_iter_", "n_features_in_", "loglik_", "fit_seconds_", "_total_weight_", "_single_")
CURVES = ("loss_curve_", "validation_curve_")
Model = TypeVar("Model", bound="NeuralEditing")


def save(model: "NeuralEditing", path: str | os.PathLike[str]) -> None:
    """Write a fitted mixture."""
    arrays = {f"mixture.{name}": value.contiguous() for name, value in model._mixture_.state_dict().items()}
    shape = model._shape_
    learned = {
        "weights_": model.weights_,
        "_typical_row_": model._typical_row_,
        "x_mean": shape.x.mean,
        "x_scale": shape.x.scale,
        "y_mean": shape.y.mean,
        "y_scale": shape.y.scale,
        "gate_columns": shape.gate_columns,
    }
    for k, (mean, factor) in enumerate(model._regions_):
        learned |= {f"region.{k}.mean": mean, f"region.{k}.factor": factor}
    arrays |= {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in learned.items()}
    # clones: a parameter that two parts share must not be refused
    tensors = {name: value.detach().cpu().clone() for name, value in arrays.items()}
    found = to_bytes(tensors, metadata={FORMAT: json.dumps(_header(model))})
    with atomic_file(path) as file:
        file.write_bytes(found)


def _header(model: "NeuralEditing") -> dict[str, Any]:
    shape, classes = model._shape_, getattr(model, "classes_", None)
    names = getattr(model, "feature_names_in_", None)
    return {
        "version": VERSION,
        "estimator": type(model).__name__,
        "arguments": {
            name: _argument(name, value)
            for name, value in model.get_params(deep=False).items()
            if name not in OBJECTS
        },
        "loss_given": model.loss is not None,
        "gate": _describe_gate(model._mixture_.gate),
        "gate_frozen": model._mixture_.gate_frozen,
        "experts": [_describe_expert(k, e) for k, e in enumerate(model._mixture_.all_experts())],
        "shape": {"outputs": shape.outputs, "numbers": shape.numbers, "variance_floor": shape.variance_floor},
        "numbers": {name: getattr(model, name) for name in NUMBERS if hasattr(model, name)},
        "curves": {name: getattr(model, name) for name in CURVES},
        "feature_names": None if names is None else [str(name) for name in names],
        "classes": None if classes is None else {"values": classes.tolist(), "dtype": classes.dtype.str},
    }


def _argument(name: str, value: Any) -> Any:
    """Give a constructor argument as plain values; a seed that is a generator is not kept."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, list | tuple | np.ndarray):
        return [_argument(name, item) for item in value]
    return None


def _describe_expert(k: int, expert: AbstractExpert) -> dict[str, Any]:
    if isinstance(expert, FittedExpert):
        raise ValueError(
            f"expert {k} is a fitted {type(expert.estimator).__name__}, which a safetensors file cannot "
            "hold; keep the scikit-learn estimators with skops, and fit the gate anew with experts=[...]"
        )
    assert isinstance(expert, NetworkExpert)
    kept = {name: getattr(expert, name) for name in ("hidden", "raw", "frozen", "width_frozen")}
    return kept | {"class": type(expert.network).__name__}


def _describe_gate(gate: nn.Module) -> dict[str, Any]:
    if isinstance(gate, NetworkGate):
        kept = {name: getattr(gate, name) for name in ("hidden", "raw", "n_experts")}
        return kept | {"kind": "network", "class": type(gate.network).__name__}
    if isinstance(gate, GrownGate):
        return {"kind": "grown", "columns": gate.columns.tolist(), "inner": _describe_gate(gate.inner)}
    assert isinstance(gate, CutGate)
    return {"kind": "cut", "without": gate.without, "inner": _describe_gate(gate.inner)}


# -- reading


def load(cls: type[Model], path: str | os.PathLike[str], experts: Any, gate: Any, loss: Any) -> Model:
    """Read a mixture of this class; modules that were given must be given again."""
    header, tensors = _read(path)
    if header["estimator"] != cls.__name__:
        raise ValueError(f"{path} holds a {header['estimator']}; read it with {header['estimator']}.load")
    if header["loss_given"] and loss is None:
        raise ValueError(f"{path} was trained with a loss of its own, which no file holds; give it as loss=")
    given = _given_experts(path, header["experts"], experts)
    settings = {name: _made(value) for name, value in header["arguments"].items()}
    model = cls(**settings, experts=experts, gate=gate, loss=loss)
    model._shape_ = shape = _shape(header, tensors)
    parts = [_expert(one, module, shape) for one, module in zip(header["experts"], given, strict=True)]
    mixture = Mixture(_gate(path, header["gate"], gate, shape), parts)
    mixture.gate_frozen = header["gate_frozen"]
    mixture.to(arguments.DTYPES[model.dtype])
    state = {n.removeprefix("mixture."): t for n, t in tensors.items() if n.startswith("mixture.")}
    try:
        mixture.load_state_dict(state)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path}: the given modules are not of the make that was saved: {why}") from None
    wanted = arguments.resolve_device(model.device if torch.cuda.is_available() else "cpu")
    model._mixture_ = mixture.to(wanted).eval()
    _restore(model, header, tensors)
    return model


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(Path(path), framework="pt") as file:
            header = (file.metadata() or {}).get(FORMAT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None
    if header is None:
        raise ValueError(f"{path} is no file of {FORMAT}; save writes it")
    found: dict[str, Any] = json.loads(header)
    if found["version"] > VERSION:
        raise ValueError(
            f"{path} has version {found['version']}, known are up to {VERSION}; use a newer expertise"
        )
    return found, tensors


def _restore(model: "NeuralEditing", header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for name, value in (header["numbers"] | header["curves"]).items():
        setattr(model, name, value)
    for name in ("weights_", "_typical_row_"):
        setattr(model, name, tensors[name].numpy())
    model._regions_ = [
        (tensors[f"region.{k}.mean"].numpy(), tensors[f"region.{k}.factor"].numpy())
        for k in range(len(header["experts"]))
    ]
    if header["feature_names"] is not None:
        model.feature_names_in_ = np.array(header["feature_names"], dtype=object)
    if header["classes"] is not None:
        model.classes_ = np.array(header["classes"]["values"], dtype=header["classes"]["dtype"])
    model._count_parameters()


def _made(value: Any) -> Any:
    if isinstance(value, dict):
        return slice(*value["slice"])
    return tuple(value) if isinstance(value, list) else value


def _shape(header: dict[str, Any], tensors: dict[str, Tensor]) -> Shape:
    x, y = (Scaling(tensors[f"{side}_mean"].numpy(), tensors[f"{side}_scale"].numpy()) for side in "xy")
    return Shape(x=x, y=y, gate_columns=tensors["gate_columns"].numpy(), **header["shape"])


def _given_experts(path: Any, described: list[dict[str, Any]], experts: Any) -> list[Any]:
    given = [None] * len(described) if experts is None else list(experts)
    if len(given) != len(described):
        raise ValueError(f"{path} holds {len(described)} experts; experts lists {len(given)}")
    for k, (one, module) in enumerate(zip(described, given, strict=True)):
        if one["hidden"] is None and not isinstance(module, nn.Module):
            raise ValueError(
                f"expert {k} of {path} was a module that was given ({one['class']}), whose code no "
                f"file holds: give one of the same make as experts[{k}]; got {module!r:.80}"
            )
    return given


def _expert(described: dict[str, Any], module: Any, shape: Shape) -> NetworkExpert:
    hidden = described["hidden"]
    network = copy.deepcopy(module) if hidden is None else mlp(len(shape.x.mean), hidden, shape.outputs)
    expert = NetworkExpert(network, shape, raw=described["raw"], hidden=hidden)
    expert.frozen, expert.width_frozen = described["frozen"], described["width_frozen"]
    return expert


def _gate(path: Any, described: dict[str, Any], module: Any, shape: Shape) -> nn.Module:
    if described["kind"] == "grown":
        return GrownGate(_gate(path, described["inner"], module, shape), described["columns"])
    if described["kind"] == "cut":
        return CutGate(_gate(path, described["inner"], module, shape), described["without"])
    hidden, count = described["hidden"], described["n_experts"]
    if hidden is not None:
        return NetworkGate(mlp(len(shape.gate_columns), hidden, count), count, shape, hidden=hidden)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"the gate of {path} was a module that was given ({described['class']}), whose code no "
            f"file holds: give one of the same make as gate=; got {module!r:.80}"
        )
    return NetworkGate(copy.deepcopy(module), count, shape, raw=described["raw"])
