"""A bank of feed-forward blocks as one operation, for the CPU: up, activation, down, expert by expert.

What autograd would keep or make anew (activations, their gradients) lives in small buffers that every expert
uses again. New memory is dear on a CPU: a page of it costs more than filling it. Kept for the backward pass
are the inputs and the hidden values before the activation. On a GPU, with biases or with dropout, `Experts`
uses `grouped_mm` and torch's own operations instead.

Letters of shapes: P rows, sorted by expert; E experts, D model, H hidden, F columns of the first product (2H
with swiglu, else H), N rows of one expert.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

aten = torch.ops.aten


def _swiglu(h_NF: Tensor, out_NH: Tensor) -> None:
    gate_NH, up_NH = h_NF.chunk(2, 1)
    aten.silu.out(gate_NH, out=out_NH)
    out_NH.mul_(up_NH)


def _swiglu_backward(g_NH: Tensor, h_NF: Tensor, out_NF: Tensor) -> None:
    gate_NH, up_NH = h_NF.chunk(2, 1)
    g_gate_NH, g_up_NH = out_NF.chunk(2, 1)
    aten.silu.out(gate_NH, out=g_up_NH)
    g_up_NH.mul_(g_NH)
    aten.silu_backward.grad_input(g_NH.mul_(up_NH), gate_NH, grad_input=g_gate_NH)


def _gelu(h_NF: Tensor, out_NH: Tensor) -> None:
    aten.gelu.out(h_NF, out=out_NH)


def _gelu_backward(g_NH: Tensor, h_NF: Tensor, out_NF: Tensor) -> None:
    aten.gelu_backward.grad_input(g_NH, h_NF, grad_input=out_NF)


def _relu(h_NF: Tensor, out_NH: Tensor) -> None:
    torch.clamp(h_NF, min=0, out=out_NH)


def _relu_backward(g_NH: Tensor, h_NF: Tensor, out_NF: Tensor) -> None:
    torch.mul(g_NH, h_NF > 0, out=out_NF)


Forward = Callable[[Tensor, Tensor], None]
Backward = Callable[[Tensor, Tensor, Tensor], None]
# f(h, out) writes the activation; b(g, h, out) writes the gradient by h, and may overwrite g
ACTIVATIONS: dict[str, tuple[Forward, Backward]] = {
    "swiglu": (_swiglu, _swiglu_backward),
    "gelu": (_gelu, _gelu_backward),
    "relu": (_relu, _relu_backward),
}


def _groups(ends: list[int]) -> Iterator[tuple[int, int, int]]:
    start = 0
    for e, end in enumerate(ends):
        if end > start:
            yield e, start, end
        start = end


def _largest(ends: list[int]) -> int:
    return max((end - start for _, start, end in _groups(ends)), default=0)


@torch.library.custom_op("expertise::feed_forward", mutates_args=())
def feed_forward(
    x_PD: Tensor, up_EFD: Tensor, down_EDH: Tensor, offsets_E: Tensor, activation: str, keep: bool
) -> tuple[Tensor, Tensor]:
    """Run every expert on its rows.

    Parameters
    ----------
    x_PD : (P, D), sorted by expert.
    up_EFD, down_EDH : (E, F, D) and (E, D, H), of the type of ``x_PD``.
    offsets_E : (E,) int32, where each expert's rows end.
    activation : "swiglu", "gelu" or "relu".
    keep : keep the hidden values for a backward pass.

    Returns
    -------
    (P, D), 0 past the last offset; and (P, F) hidden values, or (0, F).
    """
    ends: list[int] = offsets_E.tolist()
    activate, _ = ACTIVATIONS[activation]
    rows = _largest(ends)
    y_PD = torch.empty_like(x_PD)
    h_PF = x_PD.new_empty(x_PD.shape[0] if keep else 0, up_EFD.shape[1])
    spare_NF = None if keep else x_PD.new_empty(rows, up_EFD.shape[1])
    hidden_NH = x_PD.new_empty(rows, down_EDH.shape[2])
    for e, start, end in _groups(ends):
        h_NF = h_PF[start:end] if spare_NF is None else spare_NF[: end - start]
        a_NH = hidden_NH[: end - start]
        torch.mm(x_PD[start:end], up_EFD[e].T, out=h_NF)
        activate(h_NF, a_NH)
        torch.mm(a_NH, down_EDH[e].T, out=y_PD[start:end])
    y_PD[ends[-1] :].zero_()
    return y_PD, h_PF


@torch.library.custom_op("expertise::feed_forward_backward", mutates_args=())
def feed_forward_backward(
    g_PD: Tensor,
    x_PD: Tensor,
    up_EFD: Tensor,
    down_EDH: Tensor,
    offsets_E: Tensor,
    h_PF: Tensor,
    activation: str,
    for_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients by x, up and down; the last two are empty unless ``for_weights``."""
    ends: list[int] = offsets_E.tolist()
    activate, activate_backward = ACTIVATIONS[activation]
    rows, E = _largest(ends), len(ends)
    g_x_PD = torch.empty_like(x_PD)
    g_up = torch.empty_like(up_EFD) if for_weights else up_EFD.new_empty(0)
    g_down = torch.empty_like(down_EDH) if for_weights else down_EDH.new_empty(0)
    a_buffer, g_buffer = (x_PD.new_empty(rows, down_EDH.shape[2]) for _ in range(2))
    f_buffer = x_PD.new_empty(rows, up_EFD.shape[1])
    ran = set()
    for e, start, end in _groups(ends):
        n = end - start
        g_ND, h_NF, g_NF = g_PD[start:end], h_PF[start:end], f_buffer[:n]
        if for_weights:
            activate(h_NF, a_buffer[:n])
            torch.mm(g_ND.T, a_buffer[:n], out=g_down[e])
        activate_backward(torch.mm(g_ND, down_EDH[e], out=g_buffer[:n]), h_NF, g_NF)
        if for_weights:
            torch.mm(g_NF.T, x_PD[start:end], out=g_up[e])
        torch.mm(g_NF, up_EFD[e], out=g_x_PD[start:end])
        ran.add(e)
    g_x_PD[ends[-1] :].zero_()
    if for_weights:
        for e in set(range(E)) - ran:
            g_up[e].zero_()
            g_down[e].zero_()
    return g_x_PD, g_up, g_down


@feed_forward.register_fake
def _(
    x_PD: Tensor, up_EFD: Tensor, down_EDH: Tensor, offsets_E: Tensor, activation: str, keep: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_PD), x_PD.new_empty(x_PD.shape[0] if keep else 0, up_EFD.shape[1])


@feed_forward_backward.register_fake
def _(
    g_PD: Tensor,
    x_PD: Tensor,
    up_EFD: Tensor,
    down_EDH: Tensor,
    offsets_E: Tensor,
    h_PF: Tensor,
    activation: str,
    for_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not for_weights:
        return torch.empty_like(x_PD), up_EFD.new_empty(0), down_EDH.new_empty(0)
    return torch.empty_like(x_PD), torch.empty_like(up_EFD), torch.empty_like(down_EDH)


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    x_PD, up_EFD, down_EDH, offsets_E, ctx.activation, _ = inputs
    ctx.save_for_backward(x_PD, up_EFD, down_EDH, offsets_E, output[1])


def _backward(ctx, g_PD, _):  # type: ignore[no-untyped-def]
    x_PD, up_EFD, down_EDH, offsets_E, h_PF = ctx.saved_tensors
    for_weights = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    g_x, g_up, g_down = feed_forward_backward(
        g_PD.contiguous(), x_PD, up_EFD, down_EDH, offsets_E, h_PF, ctx.activation, for_weights
    )
    if not for_weights:
        g_up = g_down = None
    return g_x, g_up, g_down, None, None, None


feed_forward.register_autograd(_backward, setup_context=_keep)
