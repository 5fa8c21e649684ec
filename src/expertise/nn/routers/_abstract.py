"""What every router answers.

Letters of shapes: T tokens, D model, E experts, K experts a token may choose.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expertise.nn._modes import add_load
from expertise.nn.routing import Routing


class AbstractRouter(nn.Module, ABC):
    """Decides which tokens go to which experts: x (..., D) -> Routing.

    Attributes
    ----------
    name : the router's name in the table `ROUTERS`.
    differentiable : the loss of the task has a gradient to the router.
    row_independent : in evaluation a token's choice depends on no other token, so causal models may use it.
    needs_token_ids : forward needs ``token_ids``.
    """

    name: ClassVar[str]
    differentiable: ClassVar[bool]
    row_independent: ClassVar[bool]
    needs_token_ids: ClassVar[bool] = False

    # tokens that chose each expert since it was last set to 0; `LossFreeBias` sets and reads it
    load_E: Tensor | None

    def __init__(self, dim: int, num_experts: int) -> None:
        super().__init__()
        check_whole("dim", dim, 1)
        check_whole("num_experts", num_experts, 1)
        self.dim = dim
        self.num_experts = num_experts
        # no buffer: DistributedDataParallel gives every rank the buffers of rank 0 before each forward
        self.load_E = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the counts with the module."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.load_E is not None:
            self.load_E = fn(self.load_E)
        return self

    @abstractmethod
    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        """Choose. Rows of padding are 0 in ``x_TD``; `forward` takes them out of the result."""

    def forward(self, x: Tensor, mask: Tensor | None = None, token_ids: Tensor | None = None) -> Routing:
        """Route the tokens.

        Parameters
        ----------
        x : (..., D) float.
        mask : (...) bool, True for real tokens; None: all are. Padding chooses nobody.
        token_ids : (...) int, for routers that need them.

        Raises
        ------
        ValueError : a shape or type that does not fit, or token_ids that are missing.
        """
        self._check(x, mask, token_ids)
        x_TD = x.reshape(-1, self.dim)
        mask_T = None if mask is None else mask.reshape(-1)
        if mask_T is not None:
            # even a gradient of 0 times a NaN in the padding would be NaN
            x_TD = torch.where(mask_T[:, None], x_TD, x_TD.new_zeros(()))
        routing = self._route(x_TD, mask_T, None if token_ids is None else token_ids.reshape(-1))
        routing = _without_padding(routing, mask_T, tuple(x.shape[:-1]))
        if self.load_E is not None and self.training:
            add_load(self.load_E, routing.load_E)
        return routing

    def _check(self, x: Tensor, mask: Tensor | None, token_ids: Tensor | None) -> None:
        if x.dim() < 1 or x.shape[-1] != self.dim:
            raise ValueError(f"x must have the shape (..., {self.dim}); got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"x must be floating point; got {x.dtype}; embed token ids first")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:-1]):
            raise ValueError(
                f"mask must be boolean of shape {tuple(x.shape[:-1])}, True for real tokens; "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        if token_ids is None:
            if self.needs_token_ids:
                raise ValueError(f"the router {self.name!r} needs token_ids; call layer(x, token_ids=ids)")
        elif token_ids.shape != x.shape[:-1] or token_ids.is_floating_point():
            raise ValueError(
                f"token_ids must be whole numbers of shape {tuple(x.shape[:-1])}; "
                f"got {token_ids.dtype} of shape {tuple(token_ids.shape)}"
            )


class AbstractLinearRouter(AbstractRouter):
    """A router whose logits are one linear map of the token, computed in float32 at least.

    A bfloat16 product changes the chosen experts of .1 % of the tokens at E=8, k=2, and of 3.7 % at E=256,
    k=8; so autocast is off here.

    Attributes
    ----------
    weight_ED : (E, D).
    bias_E : (E,) or None.
    jitter : in training, x is multiplied by U(1 - jitter, 1 + jitter) (Fedus et al. 2021, section 2.2).
    """

    def __init__(self, dim: int, num_experts: int, *, bias: bool = False, jitter: float = 0.0) -> None:
        super().__init__(dim, num_experts)
        check_number("jitter", jitter, 0, 1)
        self.jitter = jitter
        self.weight_ED = nn.Parameter(torch.empty(num_experts, dim))
        self.bias_E = nn.Parameter(torch.empty(num_experts)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights from N(0, 1/D), so that logits of normal tokens have variance 1; biases 0."""
        nn.init.normal_(self.weight_ED, std=1 / math.sqrt(self.dim))
        if self.bias_E is not None:
            nn.init.zeros_(self.bias_E)

    def _logits(self, x_TD: Tensor) -> Tensor:
        """Give the logits (T, E), float32 or float64."""
        dtype = torch.float64 if x_TD.dtype == torch.float64 else torch.float32
        x_TD = x_TD.to(dtype)
        if self.jitter and self.training:
            x_TD = x_TD * torch.empty_like(x_TD).uniform_(1 - self.jitter, 1 + self.jitter)
        bias = None if self.bias_E is None else self.bias_E.to(dtype)
        if not torch.is_autocast_enabled(x_TD.device.type):
            return F.linear(x_TD, self.weight_ED.to(dtype), bias)
        with torch.autocast(x_TD.device.type, enabled=False):
            return F.linear(x_TD, self.weight_ED.to(dtype), bias)

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"dim={self.dim}, num_experts={self.num_experts}"


def _without_padding(routing: Routing, mask_T: Tensor | None, shape: tuple[int, ...]) -> Routing:
    if mask_T is None:
        return replace(routing, shape=shape)
    real_T1 = mask_T[:, None]
    zero = routing.probs_TE.new_zeros(())
    return replace(
        routing,
        shape=shape,
        mask_T=mask_T,
        probs_TE=torch.where(real_T1, routing.probs_TE, zero),
        experts_TK=torch.where(real_T1, routing.experts_TK, routing.num_experts),
        weights_TK=torch.where(real_T1, routing.weights_TK, zero.to(routing.weights_TK.dtype)),
        log_prob_T=None if routing.log_prob_T is None else torch.where(mask_T, routing.log_prob_T, zero),
    )


def check_whole(name: str, value: object, low: int, high: int | None = None, *, hint: str = "") -> None:
    """Say so when an argument is not a whole number within its bounds."""
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not fits or (high is not None and isinstance(value, int) and value > high):
        upto = "" if high is None else f" and at most {high}"
        raise ValueError(f"{name} must be a whole number of at least {low}{upto}; got {value!r}{hint}")


def check_number(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Say so when an argument is not a number within its bounds."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        upto = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} must be a number of at least {low:g}{upto}; got {value!r}")


def check_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Say so when an argument is not one of the known words."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
