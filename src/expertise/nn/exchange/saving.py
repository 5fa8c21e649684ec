"""Layers in files: safetensors for the weights, JSON in its metadata for the rest. Reading runs no code."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from expertise._files import atomic_file, usual_mode
from expertise.nn.exchange._parts import arguments_of, assert_filled, demand_moe, layer_arguments
from expertise.nn.exchange.feed_forward import FeedForward
from expertise.nn.experts import Experts
from expertise.nn.layer import MoE
from expertise.nn.routers import ROUTERS

FORMAT = "expertise.layer"
VERSION = 1
_DESCRIPTION = "layer"  # the metadata's key of the JSON
_PLAIN = (bool, int, float, str, type(None))


def save_layer(layer: MoE, path: str | os.PathLike[str]) -> None:
    """Write a layer as one safetensors file, whole or not at all.

    Parameters
    ----------
    layer : with a router of the table `ROUTERS` and `Experts`; its shared module, if any, is a `FeedForward`.
    path : the file; its folder is made where it is missing.

    Raises
    ------
    ValueError : a part that cannot be described in plain values, an `ExpertList` for example.

    Examples
    --------
    >>> import tempfile
    >>> from expertise.nn import TopKRouter
    >>> layer = MoE(TopKRouter(4, 3, k=2), Experts(3, 4, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_layer(layer, Path(folder, "layer.safetensors"))
    ...     again = load_layer(Path(folder, "layer.safetensors"))
    >>> bool((again(torch.ones(1, 4)) == layer(torch.ones(1, 4))).all())
    True
    """
    demand_moe(layer)
    description = {
        "router": {"name": layer.router.name, "arguments": _plain(_router_arguments(layer.router))},
        "experts": _plain(_bank_arguments(layer.experts)),
        "shared": None if layer.shared is None else _plain(_shared_arguments(layer.shared)),
        "layer": _plain(layer_arguments(layer)),
    }
    metadata = {"format": FORMAT, "version": str(VERSION), _DESCRIPTION: json.dumps(description)}
    tensors = {name: tensor.detach().contiguous() for name, tensor in layer.state_dict().items()}
    with atomic_file(path) as file, usual_mode(file):
        save_file(tensors, file, metadata)


def load_layer(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> MoE:
    """Read a layer that `save_layer` wrote: the same weights and types, in training mode as any new module.

    Raises
    ------
    ValueError : the file is missing or damaged, is no layer, or was written by a newer version; says which.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt", str(device)) as file:
            metadata = file.metadata() or {}
            description = _description(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as a layer: {error}") from error
    try:
        layer = _make(path, description)
        _check_tensors(layer, tensors)
        layer.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its weights do not fit its description: {error}") from error
    assert_filled(layer)
    return layer.to(device)


def _router_arguments(router: nn.Module) -> dict[str, Any]:
    if type(router) not in ROUTERS.values():
        raise ValueError(
            f"layer: its router must be one of the table ROUTERS to be saved; got {type(router).__name__}; "
            "save layer.state_dict() instead, and load it into a layer that you make"
        )
    return arguments_of(router)


def _bank_arguments(experts: nn.Module) -> dict[str, Any]:
    """Read the arguments of `Experts` or `FeedForward`."""
    if not isinstance(experts, Experts | FeedForward):
        raise ValueError(
            f"layer: its experts must be Experts to be saved; got {type(experts).__name__}, whose modules "
            "only your code can make; save layer.state_dict() instead, and load it into a layer that you make"
        )
    names = ["dim", "hidden", "activation", "dropout"]
    if isinstance(experts, Experts):
        names.append("num_experts")
    return {name: getattr(experts, name) for name in names} | {"bias": experts.up_bias is not None}


def _shared_arguments(shared: nn.Module) -> dict[str, Any]:
    if not isinstance(shared, FeedForward):
        raise ValueError(
            f"layer: its shared module must be a FeedForward to be saved; got {type(shared).__name__}; "
            "save layer.state_dict() instead, and load it into a layer that you make"
        )
    return _bank_arguments(shared)


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    for name, value in arguments.items():
        if not isinstance(value, _PLAIN):
            raise ValueError(f"layer: {name}={value!r:.80} is no plain value, so it cannot be saved")
    return arguments


def _description(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no layer that save_layer wrote: its format is {metadata.get('format')!r}, "
            f"not {FORMAT!r}"
        )
    if metadata.get("version") != str(VERSION):
        raise ValueError(
            f"{path} has version {metadata.get('version')!r} of the format; this expertise reads version "
            f"{VERSION}; install a newer expertise"
        )
    try:
        found = json.loads(metadata[_DESCRIPTION])
        name = found["router"]["name"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its description cannot be read: {error!r}") from error
    if name not in ROUTERS:
        raise ValueError(f"{path} has the router {name!r}, which is not known; known: {', '.join(ROUTERS)}")
    assert isinstance(found, dict)
    return found


def _make(path: Path, description: dict[str, Any]) -> MoE:
    """Make the layer: the router for real, for it may hold tensors that are not in files; the rest empty."""
    router = description["router"]
    with torch.random.fork_rng(devices=[]):
        made_router = ROUTERS[router["name"]](**router["arguments"])
    with torch.device("meta"):
        experts = Experts(**description["experts"])
        shared = None if description["shared"] is None else FeedForward(**description["shared"])
        return MoE(made_router, experts, shared=shared, **description["layer"])


def _check_tensors(layer: MoE, tensors: dict[str, Tensor]) -> None:
    expected = layer.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise KeyError(f"{name} is missing")
        if name not in expected:
            raise KeyError(f"{name} belongs nowhere")
        if tensors[name].shape != expected[name].shape:
            raise RuntimeError(
                f"{name} must be {tuple(expected[name].shape)}; got {tuple(tensors[name].shape)}"
            )
