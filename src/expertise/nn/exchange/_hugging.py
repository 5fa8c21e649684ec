"""What the blocks of transformers have in common: a row of the table, and the parts that they share.

Letters of shapes: E experts, D model, H hidden.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expertise.nn.exchange._parts import experts_of, known_activation, put
from expertise.nn.exchange.feed_forward import FeedForward
from expertise.nn.experts import Experts
from expertise.nn.layer import MoE
from expertise.nn.routers.top_k import TopKRouter

# What a block expresses, where its own `allows` says nothing else.
USUAL: dict[str, tuple[Any, ...]] = {
    "router.activation": ("softmax",),
    "router.scale": (1.0,),
    "router.groups": (None,),
    "router.selection_bias": (False,),
    "router.second": ("top",),
    "router.bias": (False,),
    "router.jitter": (0.0,),
    "experts.activation": ("swiglu",),
    "experts.bias": (False,),
    "experts.dropout": (0.0,),
    "shared": (None,),
    "shared_gate": (False,),
    "capacity_factor": (None,),
    "eval_capacity_factor": (None,),
    "capacity": (None,),
    "capacity_per_sequence": (False,),
}
ANY: tuple[Any, ...] = ()


class Block(ABC):
    """One block of transformers: how to read it, and how to write it.

    Attributes
    ----------
    name : its class.
    folder : of transformers.models.
    config : class of its configuration.
    allows : the values that it can express, of what a layer is made of; ``ANY`` for all. What is not named
        here is as in ``USUAL``.
    other_settings : of a configuration, that say nothing about the block.
    """

    name: str
    folder: str
    config: str
    allows: ClassVar[dict[str, tuple[Any, ...]]] = {}
    other_settings: ClassVar[dict[str, Any]] = {"num_attention_heads": 1, "num_key_value_heads": 1}

    @abstractmethod
    def read(self, block: Any) -> MoE:
        """Make a layer of a block."""

    @abstractmethod
    def settings(self, layer: MoE) -> dict[str, Any]:
        """Give the configuration's values that follow from the layer."""

    @abstractmethod
    def write(self, layer: MoE, block: Any) -> None:
        """Put the layer's weights into a block that has no memory yet."""

    def check(self, layer: MoE) -> None:
        """Say so when the layer has what this block cannot express."""
        router, experts = layer.router, layer.experts
        if not isinstance(router, TopKRouter) or not isinstance(experts, Experts):
            raise ValueError(
                f"{self.name} needs a TopKRouter and Experts; the layer has {type(router).__name__} and "
                f"{type(experts).__name__}"
            )
        for name, allowed in {**USUAL, **self.allows}.items():
            got = _fact(layer, name)
            if allowed and got not in allowed:
                raise ValueError(
                    f"{self.name} has only {name} = {' or '.join(map(repr, allowed))}; the layer has {got!r}"
                )


def _fact(layer: MoE, name: str) -> Any:
    router, experts = layer.router, layer.experts
    assert isinstance(router, TopKRouter)
    assert isinstance(experts, Experts)
    special: dict[str, Any] = {
        # what divides the one weight by itself divides nothing
        "router.renormalize": router.renormalize or router.num_experts == 1,
        "router.selection_bias": router.selection_bias_E is not None,
        "router.bias": router.bias_E is not None,
        "experts.bias": experts.up_bias is not None,
        "shared": None if layer.shared is None else _shared_form(layer.shared),
        "shared_gate": layer.shared_gate is not None,
    }
    if name in special:
        return special[name]
    owner, _, attribute = name.rpartition(".")
    return getattr({"router": router, "experts": experts, "": layer}[owner], attribute)


SHARED = "FeedForward(swiglu)"


def _shared_form(shared: nn.Module) -> str:
    if isinstance(shared, FeedForward):
        if shared.activation == "swiglu" and shared.up_bias is None and not shared.dropout:
            return SHARED
        bias = shared.up_bias is not None
        return f"FeedForward({shared.activation}, bias={bias}, dropout={shared.dropout})"
    return type(shared).__name__


def top_k_router(weight_ED: Tensor, k: int, renormalize: bool, **arguments: Any) -> TopKRouter:
    """Make a router with copies of the weights.

    Raises
    ------
    ValueError : k=1 renormalised: a weight that is always 1.
    """
    E, D = weight_ED.shape
    if k == 1 and renormalize and E > 1:
        raise ValueError(
            "block renormalises the weight of its single chosen expert, which so is always 1 and gives the "
            "router no gradient; TopKRouter has no such setting; choose 2 experts a token"
        )
    with torch.device("meta"):
        router = TopKRouter(D, E, k, renormalize=renormalize and k > 1, **arguments)
    put(router, weight_ED=weight_ED)
    return router


def swiglu_experts(block: nn.Module, D: int) -> Experts:
    """Make `Experts` of stacked weights: gate_up_proj (E, 2H, D), the gate first, and down_proj (E, D, H)."""
    theirs: Any = block.experts
    try:
        up, down = theirs.gate_up_proj, theirs.down_proj
    except AttributeError as error:
        raise ValueError(
            f"block.experts must have gate_up_proj and down_proj, as in transformers 5; "
            f"{type(theirs).__name__} has not; load the model with transformers 5"
        ) from error
    E, H = up.shape[0], up.shape[1] // 2
    if tuple(up.shape) != (E, 2 * H, D) or tuple(down.shape) != (E, D, H):
        raise ValueError(
            f"block.experts: gate_up_proj must be (E, 2H, {D}) and down_proj (E, {D}, H); got "
            f"{tuple(up.shape)} and {tuple(down.shape)}"
        )
    demand_silu(theirs.act_fn)
    return experts_of(up, down, activation="swiglu")


def demand_silu(act: object) -> None:
    """Say so when the activation beside a gate is another than silu."""
    if known_activation(act) != "silu":
        raise ValueError(f"block: its activation must be silu, which swiglu is made of; got {act!r}")


def read_shared(mlp: Any) -> FeedForward:
    """Make a `FeedForward` of gate_proj, up_proj and down_proj."""
    demand_silu(mlp.act_fn)
    D, H = mlp.down_proj.weight.shape
    with torch.device("meta"):
        shared = FeedForward(D, H)
    up = torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()])
    up.requires_grad_(mlp.gate_proj.weight.requires_grad)
    put(shared, up_weight=up, down_weight=mlp.down_proj.weight)
    return shared


def write_shared(shared: nn.Module | None, mlp: Any) -> None:
    """Put a `FeedForward` into gate_proj, up_proj and down_proj."""
    assert isinstance(shared, FeedForward)
    gate, up = shared.up_weight.chunk(2)
    put(mlp.gate_proj, weight=gate)
    put(mlp.up_proj, weight=up)
    put(mlp.down_proj, weight=shared.down_weight)


def write_swiglu(layer: MoE, block: Any) -> None:
    """Put the stacked weights of the experts, and the router's, into a block."""
    router, experts = layer.router, layer.experts
    assert isinstance(router, TopKRouter)
    assert isinstance(experts, Experts)
    put(block.gate, weight=router.weight_ED)
    put(block.experts, gate_up_proj=experts.up_weight, down_proj=experts.down_weight)


def sizes(layer: MoE) -> tuple[TopKRouter, Experts]:
    """Give router and experts by their types, after `Block.check`."""
    assert isinstance(layer.router, TopKRouter)
    assert isinstance(layer.experts, Experts)
    return layer.router, layer.experts
