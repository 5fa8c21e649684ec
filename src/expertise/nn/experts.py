"""Experts of a layer: stacked feed-forward blocks, or a list of any modules.

Letters of shapes: P rows sorted by expert, D model, H hidden, E experts, F columns of the first product (2H
with swiglu, else H).
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from expertise.nn._fused import feed_forward
from expertise.nn._grouped import grouped_mm
from expertise.nn.routers._abstract import AbstractRouter, check_number, check_one_of, check_whole


def swiglu(h_PF: Tensor) -> Tensor:
    """silu(gate) x up, of the two halves of the columns (Shazeer 2020, arXiv 2002.05202)."""
    gate_PH, up_PH = h_PF.chunk(2, -1)
    return functional.silu(gate_PH) * up_PH


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": swiglu,
    "gelu": functional.gelu,
    "relu": functional.relu,
}


class Experts(nn.Module):
    """E feed-forward blocks of one shape, their weights stacked: down(activation(up(x))).

    Parameters
    ----------
    num_experts, dim, hidden : E, D, H.
    activation : "swiglu", "gelu" or "relu".
    bias : both maps have a bias.
    dropout : share of hidden values set to 0 in training.

    Attributes
    ----------
    up_weight : (E, 2H, D) with swiglu, the gate's rows first; else (E, H, D).
    down_weight : (E, D, H).
    up_bias, down_bias : (E, 2H) or (E, H), and (E, D); None without bias.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> experts = Experts(num_experts=2, dim=4, hidden=8)
    >>> x_PD = torch.randn(3, 4)  # the first row for expert 0, two rows for expert 1
    >>> experts(x_PD, torch.tensor([1, 3], dtype=torch.int32)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        num_experts: int,
        dim: int,
        hidden: int,
        *,
        activation: str = "swiglu",
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("num_experts", num_experts, 1)
        check_whole("dim", dim, 1)
        check_whole("hidden", hidden, 1)
        check_one_of("activation", activation, tuple(ACTIVATIONS))
        check_number("dropout", dropout, 0, 1)
        self.num_experts = num_experts
        self.dim = dim
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        wide = 2 * hidden if activation == "swiglu" else hidden
        self.up_weight = nn.Parameter(torch.empty(num_experts, wide, dim))
        self.down_weight = nn.Parameter(torch.empty(num_experts, dim, hidden))
        self.up_bias = nn.Parameter(torch.empty(num_experts, wide)) if bias else None
        self.down_bias = nn.Parameter(torch.empty(num_experts, dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every expert as torch draws a linear map: U(-1/sqrt(n), 1/sqrt(n)) of n inputs."""
        pairs = ((self.up_weight, self.up_bias), (self.down_weight, self.down_bias))
        for weight, bias in pairs:
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)
            if bias is not None:
                nn.init.uniform_(bias, -bound, bound)

    def forward(self, x_PD: Tensor, offsets_E: Tensor) -> Tensor:
        """Run every expert on its rows: (P, D); rows past the last offset go to nobody.

        Parameters
        ----------
        x_PD : (P, D), sorted by expert.
        offsets_E : (E,) int32, where each expert's rows end.
        """
        up_weight: Tensor = self.up_weight
        down_weight: Tensor = self.down_weight
        # autocast leaves float64 as it is
        if torch.is_autocast_enabled(x_PD.device.type) and x_PD.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(x_PD.device.type)
            x_PD, up_weight, down_weight = x_PD.to(dtype), up_weight.to(dtype), down_weight.to(dtype)
        if self.up_bias is None and not self.dropout and not x_PD.is_cuda:
            keep = torch.is_grad_enabled()
            y_PD: Tensor
            y_PD, _ = feed_forward(x_PD, up_weight, down_weight, offsets_E, self.activation, keep)
            return y_PD
        expert_P = None
        if self.up_bias is not None:
            rows_P = torch.arange(x_PD.shape[0], device=x_PD.device)
            expert_P = torch.searchsorted(offsets_E, rows_P, right=True).clamp(max=self.num_experts - 1)
        h_PF = _add_bias(grouped_mm(x_PD, up_weight, offsets_E), self.up_bias, expert_P)
        h_PH = ACTIVATIONS[self.activation](h_PF)
        if self.dropout:
            h_PH = functional.dropout(h_PH, self.dropout, self.training)
        return _add_bias(grouped_mm(h_PH, down_weight, offsets_E), self.down_bias, expert_P)

    def one(self, e: int, x: Tensor) -> Tensor:
        """Run one expert on (..., D), without dispatch."""
        up_bias = None if self.up_bias is None else self.up_bias[e]
        down_bias = None if self.down_bias is None else self.down_bias[e]
        h = ACTIVATIONS[self.activation](_linear(x, self.up_weight[e], up_bias))
        if self.dropout:
            h = functional.dropout(h, self.dropout, self.training)
        return _linear(h, self.down_weight[e], down_bias)

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return (
            f"num_experts={self.num_experts}, dim={self.dim}, hidden={self.hidden}, "
            f"activation={self.activation!r}, bias={self.up_bias is not None}"
        )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.dim() > 1:
        return functional.linear(x, weight, bias)
    if x.dtype in (torch.bfloat16, torch.float16):
        return functional.linear(x[None], weight, bias)[0]
    y = torch.mv(weight, x)  # for a single row faster than linear, but slower in low precision
    return y if bias is None else y + bias


def _add_bias(h_PF: Tensor, bias_EF: Tensor | None, expert_P: Tensor | None) -> Tensor:
    if bias_EF is None or expert_P is None:
        return h_PF
    return h_PF + bias_EF.index_select(0, expert_P).to(h_PF.dtype)


class ExpertList(nn.Module):
    """Any modules as experts, different ones too: each maps (n, D) to (n, D).

    A module is called only if a token goes to it, and with its rows alone. The loop over modules needs their
    numbers of rows, so torch.compile breaks its graph here; use `Experts` for fullgraph=True.

    Parameters
    ----------
    experts : the modules.

    Raises
    ------
    ValueError : no module, or something that is none.

    Examples
    --------
    >>> experts = ExpertList([nn.Linear(4, 4), nn.Identity()])
    >>> experts(torch.ones(2, 4), torch.tensor([0, 2], dtype=torch.int32)).sum().item()
    8.0
    """

    def __init__(self, experts: Iterable[nn.Module]) -> None:
        super().__init__()
        modules = list(experts)
        for i, module in enumerate(modules):
            if not isinstance(module, nn.Module):
                raise ValueError(f"experts must be torch modules; experts[{i}] is {module!r:.80}")
        if not modules:
            raise ValueError("experts must hold at least one module; got none")
        self.experts = nn.ModuleList(modules)
        self.num_experts = len(modules)

    def forward(self, x_PD: Tensor, offsets_E: Tensor) -> Tensor:
        """Run every module on its rows: (P, D'); rows past the last offset are 0."""
        pieces, start = list[Tensor](), 0
        for module, end in zip(self.experts, offsets_E.tolist(), strict=True):
            if end > start:
                y = module(x_PD[start:end])
                if not isinstance(y, Tensor) or y.dim() != 2 or len(y) != end - start:
                    made = tuple(y.shape) if isinstance(y, Tensor) else f"a {type(y).__name__}"
                    raise ValueError(
                        f"an expert must map (n, D) to (n, D); {type(module).__name__} made {made} "
                        f"of {tuple(x_PD[start:end].shape)}"
                    )
                if pieces and y.shape[1] != pieces[0].shape[1]:
                    raise ValueError(
                        f"all experts must give the same width; {type(module).__name__} gave {y.shape[1]}, "
                        f"one before it {pieces[0].shape[1]}"
                    )
                pieces.append(y)
            start = end
        width = pieces[0].shape[1] if pieces else x_PD.shape[1]
        like = pieces[0] if pieces else x_PD
        return torch.cat([*pieces, like.new_zeros(x_PD.shape[0] - start, width)])

    def one(self, e: int, x: Tensor) -> Tensor:
        """Run one expert on (..., D)."""
        y: Tensor = self.experts[e](x)
        return y


def check_experts(experts: object) -> None:
    """Say what a layer takes as its experts, to who gives a list of modules or a router.

    Raises
    ------
    ValueError : neither `Experts` nor `ExpertList`, nor a module that may wrap one of them.
    """
    if not isinstance(experts, nn.Module) or isinstance(
        experts, nn.ModuleList | nn.Sequential | AbstractRouter
    ):
        raise ValueError(
            "experts must be Experts(num_experts, dim, hidden), or ExpertList(modules) for modules of your "
            f"own; got {type(experts).__name__}"
        )
