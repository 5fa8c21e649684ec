"""The soft layer: every expert works on mixtures of all tokens of a sequence (Soft MoE).

Puigcerver et al. 2023, "From sparse to soft mixtures of experts", arXiv 2308.00951. Tokens are mixed into
slots, each expert transforms its own slots, and every token gets a mixture of all slots back:

    L = l2norm(X) . (scale l2norm(Phi))
    slots = softmax over tokens(L)' X,  y = softmax over slots(L) f(slots)

It is not a dense mixture of experts for each token: the experts see slots. A token's output depends on all
other tokens of its sequence, so it is not for causal models.

Letters of shapes: B sequences, L tokens of a sequence, D model, E experts, N slots of an expert, S = E N.
"""

import math
import warnings
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expertise.nn.experts import ExpertList, Experts, check_experts
from expertise.nn.recording import Recorder
from expertise.nn.routers._abstract import check_whole
from expertise.nn.routing import SoftRouting


class SoftMoE(nn.Module):
    """A soft mixture-of-experts layer, x (..., L, D) -> (..., L, D).

    Parameters
    ----------
    dim : D.
    experts : `Experts` or `ExpertList`.
    slots_per_expert : N. About L / E makes as many slots as there are tokens.
    causal : always warns: the layer is not causal.

    Attributes
    ----------
    phi_DS : (D, S), drawn from N(0, 1/D).
    scale : one number, 1 at the start.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> layer = SoftMoE(dim=8, experts=Experts(num_experts=4, dim=8, hidden=16), slots_per_expert=2)
    >>> layer(torch.randn(2, 10, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        dim: int,
        experts: Experts | ExpertList,
        slots_per_expert: int = 1,
        *,
        causal: bool = False,
    ) -> None:
        super().__init__()
        check_whole("dim", dim, 1)
        check_whole("slots_per_expert", slots_per_expert, 1)
        check_experts(experts)
        if isinstance(experts, Experts) and experts.dim != dim:
            raise ValueError(f"dim and experts must agree: got dim={dim}, the experts have {experts.dim}")
        if causal:
            warnings.warn(
                "causal=True: SoftMoE mixes all tokens of a sequence, so a token's output depends on later "
                "tokens; use MoE with a router that has row_independent=True (top_k, for example)",
                UserWarning,
                stacklevel=2,
            )
        self.dim = dim
        self.experts = experts
        self.slots_per_expert = slots_per_expert
        self.phi_DS = nn.Parameter(torch.empty(dim, experts.num_experts * slots_per_expert))
        self.scale = nn.Parameter(torch.ones(()))
        # set by record_routing, for the time of its block
        self.recorder: Recorder | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw phi from N(0, 1/D); scale 1."""
        nn.init.normal_(self.phi_DS, std=1 / math.sqrt(self.dim))
        nn.init.ones_(self.scale)

    @overload
    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, return_routing: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, return_routing: Literal[True]
    ) -> tuple[Tensor, SoftRouting]: ...

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, return_routing: bool = False
    ) -> Tensor | tuple[Tensor, SoftRouting]:
        """Run the layer.

        Parameters
        ----------
        x : (..., L, D) float; tokens are mixed within each sequence of L.
        mask : (..., L) bool, True for real tokens; padding is in no slot, and its output is 0.
        return_routing : also give the `SoftRouting`.

        Raises
        ------
        ValueError : a shape or type that does not fit.
        """
        self._check(x, mask)
        B = math.prod(x.shape[:-2])
        x_BLD = x.reshape(B, *x.shape[-2:])
        mask_BL = None if mask is None else mask.reshape(B, mask.shape[-1])
        if mask_BL is not None:
            x_BLD = torch.where(mask_BL[..., None], x_BLD, x_BLD.new_zeros(()))
        routing = self._route(x_BLD, mask_BL, tuple(x.shape[:-1]))
        slots_BSD = routing.dispatch_BLS.mT.to(x.dtype) @ x_BLD
        y_BLD = routing.combine_BLS.to(x.dtype) @ self._run(slots_BSD).to(x.dtype)
        if self.recorder is not None:
            self.recorder.add(self, routing)
        y = y_BLD.reshape(*x.shape[:-1], y_BLD.shape[-1])
        return (y, routing) if return_routing else y

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        if x.dim() < 2 or x.shape[-1] != self.dim or not x.is_floating_point():
            raise ValueError(
                f"x must be floating point of shape (..., tokens, {self.dim}); got {x.dtype} of shape "
                f"{tuple(x.shape)}"
            )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:-1]):
            raise ValueError(
                f"mask must be boolean of shape {tuple(x.shape[:-1])}, True for real tokens; "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )

    def _route(self, x_BLD: Tensor, mask_BL: Tensor | None, shape: tuple[int, ...]) -> SoftRouting:
        dtype = torch.float64 if x_BLD.dtype == torch.float64 else torch.float32
        with torch.autocast(x_BLD.device.type, enabled=False):
            unit_BLD = F.normalize(x_BLD.to(dtype), dim=-1, eps=1e-6)
            unit_DS = F.normalize(self.phi_DS.to(dtype), dim=0, eps=1e-6)
            logits_BLS = unit_BLD @ (self.scale.to(dtype) * unit_DS)
        if mask_BL is None:
            parts = logits_BLS.softmax(1), logits_BLS.softmax(2)
            return SoftRouting(self.experts.num_experts, shape, logits_BLS, *parts)
        real = mask_BL[..., None]
        zero = logits_BLS.new_zeros(())
        # a finite floor: a sequence of padding only would give NaN with -inf
        low = torch.finfo(dtype).min
        dispatch_BLS = torch.where(real, torch.where(real, logits_BLS, low).softmax(1), zero)
        combine_BLS = torch.where(real, logits_BLS.softmax(2), zero)
        return SoftRouting(self.experts.num_experts, shape, logits_BLS, dispatch_BLS, combine_BLS, mask_BL)

    def _run(self, slots_BSD: Tensor) -> Tensor:
        """Let each expert transform its slots of all sequences."""
        B, _, D = slots_BSD.shape
        E, N = self.experts.num_experts, self.slots_per_expert
        rows_PD = slots_BSD.unflatten(1, (E, N)).transpose(0, 1).reshape(E * B * N, D)
        ends = torch.arange(1, E + 1, device=rows_PD.device, dtype=torch.int32) * (B * N)
        y_PD: Tensor = self.experts(rows_PD, ends)
        return y_PD.reshape(E, B, N, y_PD.shape[1]).transpose(0, 1).reshape(B, E * N, y_PD.shape[1])

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"dim={self.dim}, slots_per_expert={self.slots_per_expert}"
