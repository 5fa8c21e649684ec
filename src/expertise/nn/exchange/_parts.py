"""What the files of this folder share: parts made anew with given weights, arguments read from attributes.

Letters of shapes: E experts, D model.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expertise.nn.experts import Experts
from expertise.nn.layer import MoE
from expertise.nn.recording import Recorded
from expertise.nn.routers._abstract import AbstractRouter
from expertise.nn.routing import Routing

_POINTWISE: dict[str, Callable[..., Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "relu": functional.relu,
}


def known_activation(act: Any) -> str | None:
    """Name an activation by its values: "silu", "gelu" (the exact one) or "relu"; None: another.

    >>> known_activation(nn.GELU()), known_activation(nn.GELU(approximate="tanh"))
    ('gelu', None)
    """
    x = torch.linspace(-6, 6, 97)
    try:
        with torch.no_grad():
            y = act(x.clone())
    except (RuntimeError, TypeError, ValueError):
        return None
    for name, function in _POINTWISE.items():
        if isinstance(y, Tensor) and y.shape == x.shape and torch.allclose(y, function(x), atol=1e-6):
            return name
    return None


def copied(tensor: Tensor) -> nn.Parameter:
    """Give a parameter of the same values, type and device, with memory of its own."""
    values = tensor.detach().clone(memory_format=torch.contiguous_format)
    return nn.Parameter(values, requires_grad=tensor.requires_grad)


def put(module: nn.Module, **tensors: Tensor | None) -> None:
    """Set parameters and buffers of a module that was made without memory, by name."""
    for name, tensor in tensors.items():
        if name in module._buffers:
            module._buffers[name] = None if tensor is None else tensor.detach().clone()
        else:
            module._parameters[name] = None if tensor is None else copied(tensor)


def assert_filled(module: nn.Module) -> None:
    """Every tensor has memory: nothing was forgotten."""
    left = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
    assert not left, left


def experts_of(
    up_weight: Tensor,
    down_weight: Tensor,
    up_bias: Tensor | None = None,
    down_bias: Tensor | None = None,
    *,
    activation: str,
    dropout: float = 0.0,
) -> Experts:
    """Make `Experts` of copies of stacked weights (E, F, D), (E, D, H) and biases."""
    E, D, H = down_weight.shape
    with torch.device("meta"):
        experts = Experts(E, D, H, activation=activation, bias=up_bias is not None, dropout=dropout)
    assert experts.up_weight.shape == up_weight.shape, (experts.up_weight.shape, up_weight.shape)
    put(experts, up_weight=up_weight, down_weight=down_weight)
    if up_bias is not None:
        put(experts, up_bias=up_bias, down_bias=down_bias)
    return experts


def arguments_of(module: nn.Module) -> dict[str, Any]:
    """Read a module's constructor arguments from its attributes.

    An argument is the attribute of its name. Where there is none, it is a flag that asked for a tensor, whose
    name begins with the argument's: ``bias`` for bias_E, ``selection_bias`` for selection_bias_E.

    >>> from expertise.nn import TopKRouter
    >>> arguments = arguments_of(TopKRouter(4, 8, k=3, bias=True))
    >>> arguments["k"], arguments["bias"], arguments["selection_bias"], arguments["groups"]
    (3, True, False, None)
    """
    found = {}
    for name in inspect.signature(type(module)).parameters:
        attributes = vars(module)
        # torch keeps tensors apart from other attributes
        tensors = {**attributes, **module._parameters, **module._buffers}
        if name in attributes:
            found[name] = attributes[name]
        elif f"{name}_E" in tensors:
            found[name] = tensors[f"{name}_E"] is not None
        else:
            raise ValueError(
                f"{type(module).__name__} does not keep its argument {name!r}, so it cannot be made anew; "
                f"keep it as the attribute {name}"
            )
    return found


# arguments of MoE that it keeps as attributes of the same names
LAYER_ARGUMENTS = (
    "capacity_factor",
    "eval_capacity_factor",
    "capacity",
    "capacity_order",
    "capacity_per_sequence",
    "causal",
)


def layer_arguments(layer: MoE) -> dict[str, Any]:
    """Read the arguments of a layer that are no modules."""
    found = {name: getattr(layer, name) for name in LAYER_ARGUMENTS}
    return {"shared_gate": layer.shared_gate is not None, **found}


def demand_moe(layer: object) -> None:
    """Say so when this is no sparse layer."""
    if not isinstance(layer, MoE):
        raise ValueError(f"layer must be an expertise.nn.MoE; got {type(layer).__name__}")


def routings_of(layer: MoE, routings: object) -> list[Routing]:
    """Give the routings that are this layer's: one, several, or what `record_routing` recorded.

    Raises
    ------
    ValueError : none of them, or of another number of experts.
    """
    if isinstance(routings, Recorded):
        mine = [one for one, where in zip(routings, routings.layers, strict=True) if where is layer]
    elif isinstance(routings, Routing):
        mine = [routings]
    elif isinstance(routings, list | tuple) and all(isinstance(one, Routing) for one in routings):
        mine = list(routings)
    else:
        raise ValueError(
            f"routings must be a Routing, a list of them, or what record_routing(model) gave; got "
            f"{type(routings).__name__}"
        )
    if not mine:
        raise ValueError("routings holds none of this layer; run the layer inside record_routing first")
    for one in mine:
        if one.num_experts != layer.router.num_experts:
            raise ValueError(
                f"routings must be this layer's, of {layer.router.num_experts} experts; got one of "
                f"{one.num_experts}; take those of this layer alone"
            )
    return mine


def has_rows(router: AbstractRouter) -> bool:
    """Say whether the router has a row of numbers for each expert."""
    return "weight_ED" in router._parameters
