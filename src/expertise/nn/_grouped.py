"""The grouped product: each group of rows times its own matrix, as one operation of torch.

On a GPU it is F.grouped_mm where type and strides allow. On a CPU one product a group, written into one
result, was as fast or faster at every size measured. Being below autograd, the loop makes no gradient of the
size of all matrices for each of them.

Letters of shapes: P rows, sorted by group; E groups; D, F columns.
"""

import torch
from torch import Tensor
from torch.nn import functional

_GPU_TYPES = (torch.bfloat16, torch.float16)


@torch.library.custom_op("expertise::grouped_mm", mutates_args=())
def grouped_mm(x_PD: Tensor, weight_EFD: Tensor, offsets_E: Tensor) -> Tensor:
    """Multiply the rows of each group by the group's matrix, x W', (P, F); rows past the last group are 0.

    Parameters
    ----------
    x_PD : (P, D).
    weight_EFD : (E, F, D), same type as ``x_PD``.
    offsets_E : (E,) int32, where each group ends.
    """
    if _on_gpu(x_PD, weight_EFD):
        y_PF = functional.grouped_mm(x_PD.contiguous(), weight_EFD.mT, offs=offsets_E)
        # rows past the last offset were never written
        past_P = torch.arange(len(x_PD), device=x_PD.device) >= offsets_E[-1]
        return y_PF.masked_fill_(past_P[:, None], 0.0)
    y_PF = x_PD.new_empty(x_PD.shape[0], weight_EFD.shape[1])
    start = 0
    for weight_FD, end in zip(weight_EFD.unbind(0), offsets_E.tolist(), strict=True):
        if end > start:
            torch.mm(x_PD[start:end], weight_FD.T, out=y_PF[start:end])
        start = end
    y_PF[start:].zero_()
    return y_PF


@torch.library.custom_op("expertise::grouped_outer", mutates_args=())
def grouped_outer(y_PF: Tensor, x_PD: Tensor, offsets_E: Tensor) -> Tensor:
    """Multiply the rows of each group with one another, y' x, (E, F, D); 0 for a group without rows."""
    if _on_gpu(y_PF, x_PD):
        product_EFD = functional.grouped_mm(y_PF.contiguous().T, x_PD.contiguous(), offs=offsets_E)
        empty_E = torch.diff(offsets_E, prepend=offsets_E.new_zeros(1)) == 0
        return product_EFD.masked_fill_(empty_E[:, None, None], 0.0)
    product_EFD = x_PD.new_empty(len(offsets_E), y_PF.shape[1], x_PD.shape[1])
    start = 0
    for product_FD, end in zip(product_EFD.unbind(0), offsets_E.tolist(), strict=True):
        if end > start:
            torch.mm(y_PF[start:end].T, x_PD[start:end], out=product_FD)
        else:
            product_FD.zero_()
        start = end
    return product_EFD


@grouped_mm.register_fake
def _(x_PD: Tensor, weight_EFD: Tensor, offsets_E: Tensor) -> Tensor:
    return x_PD.new_empty(x_PD.shape[0], weight_EFD.shape[1])


@grouped_outer.register_fake
def _(y_PF: Tensor, x_PD: Tensor, offsets_E: Tensor) -> Tensor:
    return x_PD.new_empty(offsets_E.shape[0], y_PF.shape[1], x_PD.shape[1])


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _grouped_mm_backward(ctx, grad_PF):  # type: ignore[no-untyped-def]
    x_PD, weight_EFD, offsets_E = ctx.saved_tensors
    grad_x = grouped_mm(grad_PF, weight_EFD.mT, offsets_E) if ctx.needs_input_grad[0] else None
    grad_weight = grouped_outer(grad_PF, x_PD, offsets_E) if ctx.needs_input_grad[1] else None
    return grad_x, grad_weight, None


def _grouped_outer_backward(ctx, grad_EFD):  # type: ignore[no-untyped-def]
    y_PF, x_PD, offsets_E = ctx.saved_tensors
    grad_y = grouped_mm(x_PD, grad_EFD, offsets_E) if ctx.needs_input_grad[0] else None
    grad_x = grouped_mm(y_PF, grad_EFD.mT, offsets_E) if ctx.needs_input_grad[1] else None
    return grad_y, grad_x, None


grouped_mm.register_autograd(_grouped_mm_backward, setup_context=_keep)
grouped_outer.register_autograd(_grouped_outer_backward, setup_context=_keep)


def _on_gpu(a: Tensor, b: Tensor) -> bool:
    """Say whether F.grouped_mm takes these: its rows must be multiples of 16 bytes.

    On a GPU, what it does not take goes by the loop, which waits for the offsets.
    """
    sizes = (a.shape[-1], *b.shape[-2:]) if b.dim() == 3 else (a.shape[-1], b.shape[-1])
    return a.is_cuda and a.dtype in _GPU_TYPES and b.dtype == a.dtype and all(n % 8 == 0 for n in sizes)
