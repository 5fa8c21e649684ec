"""A dense feed-forward block, the form of one expert; and reading such blocks of other libraries.

Letters of shapes: D model, H hidden, F columns of the first product (2H with swiglu, else H).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from expertise.nn.exchange._parts import known_activation
from expertise.nn.experts import ACTIVATIONS
from expertise.nn.routers._abstract import check_number, check_one_of, check_whole


class FeedForward(nn.Module):
    """A dense feed-forward block: down(activation(up(x))), the form of one expert of `Experts`.

    It is the shared expert of layers that come from transformers, and what `upcycle` makes experts of.

    Parameters
    ----------
    dim, hidden : D, H.
    activation : "swiglu", "gelu" or "relu".
    bias : both maps have a bias.
    dropout : share of hidden values set to 0 in training.

    Attributes
    ----------
    up_weight : (2H, D) with swiglu, the gate's rows first; else (H, D).
    down_weight : (D, H).
    up_bias, down_bias : (2H,) or (H,), and (D,); None without bias.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> FeedForward(dim=4, hidden=8, activation="relu")(torch.ones(3, 4)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        activation: str = "swiglu",
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("dim", dim, 1)
        check_whole("hidden", hidden, 1)
        check_one_of("activation", activation, tuple(ACTIVATIONS))
        check_number("dropout", dropout, 0, 1)
        self.dim = dim
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        wide = 2 * hidden if activation == "swiglu" else hidden
        self.up_weight = nn.Parameter(torch.empty(wide, dim))
        self.down_weight = nn.Parameter(torch.empty(dim, hidden))
        self.up_bias = nn.Parameter(torch.empty(wide)) if bias else None
        self.down_bias = nn.Parameter(torch.empty(dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both maps as torch draws a linear map: U(-1/sqrt(n), 1/sqrt(n)) of n inputs."""
        for weight, bias in ((self.up_weight, self.up_bias), (self.down_weight, self.down_bias)):
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)
            if bias is not None:
                nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on (..., D)."""
        h = ACTIVATIONS[self.activation](functional.linear(x, self.up_weight, self.up_bias))
        if self.dropout:
            h = functional.dropout(h, self.dropout, self.training)
        return functional.linear(h, self.down_weight, self.down_bias)

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return (
            f"dim={self.dim}, hidden={self.hidden}, activation={self.activation!r}, "
            f"bias={self.up_bias is not None}"
        )


class DenseWeights(NamedTuple):
    """What a dense feed-forward block is made of; names and shapes as in `FeedForward`."""

    up_weight: Tensor
    down_weight: Tensor
    up_bias: Tensor | None
    down_bias: Tensor | None
    activation: str
    dropout: float

    @property
    def dim(self) -> int:
        """D."""
        return self.down_weight.shape[0]

    @property
    def hidden(self) -> int:
        """H."""
        return self.down_weight.shape[1]


# Attributes of blocks with two linear maps: into the hidden layer, out of it, the activation.
PLAIN_FORMS = (("wi", "wo", "act"), ("fc1", "fc2", "activation_fn"), ("c_fc", "c_proj", "act"))
KNOWN_FORMS = (
    "FeedForward; torch.nn.Sequential(Linear, activation, Linear), also with Dropout; a module with "
    "gate_proj, up_proj, down_proj and act_fn (the MLPs of transformers); one with "
    + "; or ".join(", ".join(names) for names in PLAIN_FORMS)
)


def read_dense(block: nn.Module) -> DenseWeights:
    """Read the weights of a dense block, and make sure that they explain what it does.

    Raises
    ------
    ValueError : a form or an activation that is not known, or a block that does more than these weights.
    """
    weights = _read(block)
    weight = weights.up_weight
    x = torch.randn(4, weights.dim, generator=torch.Generator().manual_seed(0)).to(weight)
    modes = [(module, module.training) for module in block.modules()]
    try:
        with torch.no_grad():
            y = block.eval()(x)
            expected = _run(weights, x)
    finally:
        for module, mode in modes:
            module.training = mode
    close = max(1e-3, 16 * torch.finfo(weight.dtype).eps) * expected.abs().max()
    if y.shape != expected.shape or not bool(((y - expected).abs() <= close).all()):
        raise ValueError(
            f"block: a {type(block).__name__} does more than its two linear maps and the activation, so "
            f"experts of these weights would not equal it; {_WAY_OUT}"
        )
    return weights


_WAY_OUT = "make copies of the module experts by themselves: ExpertList([copy.deepcopy(block) for ...])"


def _read(block: nn.Module) -> DenseWeights:
    children = dict(block.named_children())
    if isinstance(block, FeedForward):
        own = (block.up_weight, block.down_weight, block.up_bias, block.down_bias)
        return DenseWeights(*own, block.activation, block.dropout)
    if isinstance(block, nn.Sequential):
        return _read_sequential(block)
    if {"gate_proj", "up_proj", "down_proj"} <= children.keys():
        _demand_silu(block)
        gate, up, down = (_linear(children, name) for name in ("gate_proj", "up_proj", "down_proj"))
        bias = None
        if any(linear.bias is not None for linear in (gate, up)):
            bias = torch.cat([_bias_or_zero(gate), _bias_or_zero(up)])
        up_weight = torch.cat([gate.weight, up.weight])
        return _weights(up_weight, bias, down, "swiglu", 0.0)
    for into, out, act in PLAIN_FORMS:
        if {into, out} <= children.keys():
            up, down = _linear(children, into), _linear(children, out)
            dropouts = [child.p for child in children.values() if isinstance(child, nn.Dropout)]
            activation = _plain_activation(getattr(block, act, None))
            return _weights(up.weight, up.bias, down, activation, max(dropouts, default=0.0))
    raise ValueError(
        f"block must be a dense feed-forward block; got {type(block).__name__}; known: {KNOWN_FORMS}; "
        f"of any other {_WAY_OUT}"
    )


def _read_sequential(block: nn.Sequential) -> DenseWeights:
    parts: list[Any] = [part for part in block if not _does_nothing(part)]
    dropout = 0.0
    if len(parts) == 4 and isinstance(parts[2], nn.Dropout):
        dropout = parts.pop(2).p
    if len(parts) != 3 or not isinstance(parts[0], nn.Linear) or not isinstance(parts[2], nn.Linear):
        names = ", ".join(type(part).__name__ for part in block)
        raise ValueError(
            f"block must be Sequential(Linear, activation, Linear), with a Dropout after the activation if "
            f"any; got Sequential({names}); {_WAY_OUT}"
        )
    up, act, down = parts
    return _weights(up.weight, up.bias, down, _plain_activation(act), dropout)


def _does_nothing(part: nn.Module) -> bool:
    return isinstance(part, nn.Identity) or (isinstance(part, nn.Dropout) and part.p == 0)


def _plain_activation(act: object) -> str:
    activation = known_activation(act)
    if activation not in ("gelu", "relu"):
        raise ValueError(_unknown_activation(act, "gelu (exact) and relu"))
    return activation


def _demand_silu(block: nn.Module) -> None:
    act = getattr(block, "act_fn", None)
    if known_activation(act) != "silu":
        raise ValueError(_unknown_activation(act, "silu, where there is a gate_proj"))


def _unknown_activation(act: object, known: str) -> str:
    return f"block: its activation {act!r} has no equal in Experts; known: {known}; {_WAY_OUT}"


def _linear(children: dict[str, nn.Module], name: str) -> nn.Linear:
    module = children[name]
    if not isinstance(module, nn.Linear):
        raise ValueError(f"block: {name} must be a torch.nn.Linear; got {type(module).__name__}; {_WAY_OUT}")
    return module


def _bias_or_zero(linear: nn.Linear) -> Tensor:
    bias: Tensor | None = linear.bias
    return linear.weight.new_zeros(linear.out_features) if bias is None else bias


def _weights(
    up_weight: Tensor, up_bias: Tensor | None, down: nn.Linear, activation: str, dropout: float
) -> DenseWeights:
    """`Experts` has both biases or none: the one that is missing becomes 0."""
    down_bias: Tensor | None = down.bias
    if up_bias is not None or down_bias is not None:
        up_bias = up_weight.new_zeros(len(up_weight)) if up_bias is None else up_bias
        down_bias = _bias_or_zero(down)
    return DenseWeights(up_weight, down.weight, up_bias, down_bias, activation, dropout)


def _run(weights: DenseWeights, x: Tensor) -> Tensor:
    h = ACTIVATIONS[weights.activation](functional.linear(x, weights.up_weight, weights.up_bias))
    return functional.linear(h, weights.down_weight, weights.down_bias)
