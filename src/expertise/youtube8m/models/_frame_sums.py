"""What bags of frames share: the largest values, products of normalised frames, norms, random weights.

Letters of shapes: B batch, L frames, D features, K clusters, N values of a cluster.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_VALUES = 300_000  # of one block of videos, which stay in the processor's cache
_ROWS = 256  # of weights, of one block


def normal_(weight: Tensor, deviation: float, generator: torch.Generator) -> None:
    """Fill with N(0, deviation^2)."""
    with torch.no_grad():
        weight.normal_(0.0, deviation, generator=generator)


def variance_scaled_(weight: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Fill from a normal of variance 2 / fan_in, cut at 2 deviations (slim.variance_scaling_initializer)."""
    deviation = math.sqrt(1.3 * 2.0 / fan_in)  # 1.3 makes up for what the cut takes away
    torch.nn.init.trunc_normal_(
        weight, std=deviation, a=-2.0 * deviation, b=2.0 * deviation, generator=generator
    )


def at_least_one_frame(x_BLD: Tensor) -> Tensor:
    """Give a padding frame to a batch without any, so that there is something to pick or to compare."""
    if not torch.compiler.is_exporting() and x_BLD.shape[1] == 0:
        return x_BLD.new_zeros(x_BLD.shape[0], 1, x_BLD.shape[2])
    return x_BLD


def normalize_clusters(vlad_BKN: Tensor) -> Tensor:
    """Divide by its length first what belongs to each cluster, then all of a video; zeros stay.

    As `l2_normalize` over N and then over (K, N), in one pass: the length of all follows from the others.
    """
    square_BK = vlad_BKN.square().sum(dim=-1)
    inverse_BK = torch.rsqrt(square_BK.clamp_min(1e-12))
    total_B1 = (square_BK * inverse_BK.square()).sum(dim=-1, keepdim=True)
    factor_BK = inverse_BK * torch.rsqrt(total_B1.clamp_min(1e-12))
    return vlad_BKN * factor_BK.unsqueeze(-1)


def extremes(a_BLK: Tensor, keep_BL: Tensor | None, falling_K: Tensor | None = None) -> Tensor:
    """Give the largest value of each cluster over the frames, or the smallest, (B, K).

    Parameters
    ----------
    keep_BL : bool, which frames count; None: all. A video without a frame that counts gets 0.
    falling_K : bool, the clusters whose smallest value is given; None: none.
    """
    if keep_BL is None:
        most_BK = a_BLK.amax(dim=1)
        return most_BK if falling_K is None else torch.where(falling_K, a_BLK.amin(dim=1), most_BK)
    hidden_BL1 = ~keep_BL.unsqueeze(-1)
    most_BK = a_BLK.masked_fill(hidden_BL1, -math.inf).amax(dim=1)
    if falling_K is not None:
        most_BK = torch.where(falling_K, a_BLK.masked_fill(hidden_BL1, math.inf).amin(dim=1), most_BK)
    return most_BK.masked_fill(hidden_BL1.all(dim=1), 0.0)


def extremes_and_squares(
    a_BLK: Tensor, keep_BL: Tensor | None, falling_K: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Give `extremes`, and the sum of all squares over the videos and frames (K,); for training.

    Parameters
    ----------
    a_BLK : float32, float64 or bfloat16. It is OVERWRITTEN on the way back, so give the fresh result of a
        matrix product, which needs it no more.
    keep_BL, falling_K : as for `extremes`. Squares are summed over all frames.

    Of frames that are equally large, each gets its share of the gradient, as in TensorFlow.
    """
    result: tuple[Tensor, Tensor] = _ExtremesAndSquares.apply(  # type: ignore[no-untyped-call]
        a_BLK, keep_BL, falling_K
    )
    return result


class _ExtremesAndSquares(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a_BLK: Tensor, keep_BL: Tensor | None, falling_K: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(a_BLK.dtype, torch.float32)
        B, _, K = a_BLK.shape
        extreme_BK = a_BLK.new_empty((B, K))
        squares_K = torch.zeros(K, dtype=kind, device=a_BLK.device)
        for rows in _blocks(a_BLK):
            a = a_BLK[rows]
            extreme_BK[rows] = extremes(a, None if keep_BL is None else keep_BL[rows], falling_K)
            squares_K += a.to(kind).square().sum(dim=(0, 1))
        ctx.save_for_backward(a_BLK, extreme_BK, keep_BL)
        return extreme_BK.to(kind, copy=True), squares_K

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BK: Tensor, squares_gradient_K: Tensor) -> tuple[Tensor, None, None]:
        a_BLK, extreme_BK, keep_BL = ctx.saved_tensors
        kind, double_K = gradient_BK.dtype, 2.0 * squares_gradient_K
        for rows in _blocks(a_BLK):
            a = a_BLK[rows]
            hit = (a == extreme_BK[rows].unsqueeze(1)).to(kind)
            if keep_BL is not None:
                hit.mul_(keep_BL[rows].unsqueeze(-1))
            share_BK = gradient_BK[rows] / hit.sum(dim=1).clamp_min_(1.0)
            a.copy_(hit.mul_(share_BK.unsqueeze(1)).addcmul_(a.to(kind), double_K))
        return a_BLK, None, None


def _blocks(a_BLK: Tensor) -> list[slice]:
    """Divide the videos into blocks: a few at a time on the CPU, elsewhere all."""
    B, L, K = a_BLK.shape
    size = max(1, _BLOCK_VALUES // max(1, L * K)) if a_BLK.device.type == "cpu" else max(1, B)
    return [slice(first, first + size) for first in range(0, B, size)]


def standard_product(z_BLD: Tensor, scale_D: Tensor, shift_D: Tensor, weight_KD: Tensor) -> Tensor:
    """Give (z scale) W' for frames z that nothing was learned of: batch normalisation between two others.

    It is normalised over the frames again, and there a shift of z, the same for all frames, is taken out: it
    is left out here, and its gradient is 0. The scale's gradient comes from that of the weights, so none of z
    is needed, which would be a third product of the same size. Under autocast the product is in its dtype.

    Parameters
    ----------
    z_BLD : frames with mean 0 and variance 1.
    scale_D, shift_D : weight and bias of their batch normalisation.
    weight_KD : W.
    """
    kind = z_BLD.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else z_BLD.dtype
    with torch.autocast(kind, enabled=False):
        result: Tensor = _StandardProduct.apply(  # type: ignore[no-untyped-call]
            z_BLD, scale_D, shift_D, weight_KD, dtype
        )
    return result


class _StandardProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_BLD: Tensor, scale_D: Tensor, shift_D: Tensor, weight_KD: Tensor, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(z_BLD.to(dtype), scale_D, shift_D, weight_KD)
        return (z_BLD * scale_D).to(dtype) @ weight_KD.to(dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BLK: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None]:
        z_BLD, scale_D, shift_D, weight_KD = ctx.saved_tensors
        raw_KD = (gradient_BLK.flatten(0, 1).T @ z_BLD.flatten(0, 1)).to(weight_KD.dtype)
        scale_gradient_D = torch.zeros_like(scale_D)
        for raw, weight in zip(raw_KD.split(_ROWS), weight_KD.split(_ROWS), strict=True):
            scale_gradient_D += (raw * weight).sum(dim=0)
        return None, scale_gradient_D, torch.zeros_like(shift_D), raw_KD.mul_(scale_D), None
