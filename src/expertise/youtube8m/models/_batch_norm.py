"""Batch normalisation over real frames only, and over the frames of all processes.

Letters of shapes: N rows of any leading dimensions, F values.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

DECAY, EPSILON = 0.999, 1e-3  # of the reference (slim.batch_norm)
_BLOCK_VALUES = 200_000  # of one block of rows, which stay in the processor's cache


class BatchNorm(nn.Module):
    """Subtract each value's mean over the batch, divide by its standard deviation, scale and shift.

    In training the mean and the variance are those of the rows that ``keep`` marks, in all processes
    together, and running averages of them are kept (Ioffe & Szegedy 2015, algorithm 1, with the reference's
    decay .999 and epsilon 1e-3); in evaluation the running averages serve. The decay begins small, (1 + t) /
    (10 + t) after t steps: at .999 they would need thousands of steps to forget where they began. The running
    variance is that of the batch as it is (divided by n), as TensorFlow's. All arithmetic is in float32, of
    float64 inputs in float64.

    `forward` is all that most models need. A model whose next operation is a matrix product may ask for
    `moments` and `scale_and_shift`, and put these into the product's weights.

    Parameters
    ----------
    size : F.

    The parameters are float32 (F,): weight (1 at the start) and bias (0); the buffers are mean and variance,
    and the number of steps that they have followed.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_variance: Tensor
    steps: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_variance", torch.ones(size))
        self.register_buffer("steps", torch.zeros(()))

    def reset(self) -> None:
        """Start anew: scale 1, shift 0, running mean 0 and variance 1."""
        with torch.no_grad():
            self.weight.fill_(1.0)
            self.bias.zero_()
            self.running_mean.zero_()
            self.running_variance.fill_(1.0)
            self.steps.zero_()

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Normalise (..., F). ``keep``: bool (...), the rows that count (None: all); others become 0."""
        x = at_least_float32(x)
        scale, shift = self.scale_and_shift(*self.moments(x, keep))
        y = torch.addcmul(shift, x, scale)
        return y if keep is None else y * keep.unsqueeze(-1)

    def moments(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Give the mean and the variance (F,) that normalise (..., F); in training `follow` them.

        ``keep`` is as in `forward`; the other rows must be finite.
        """
        if not self.training:
            return self.running_mean, self.running_variance
        with torch.autocast(x.device.type, enabled=False):
            rows_NF = at_least_float32(x).reshape(-1, self.size)
            keep_N = rows_NF.new_ones(len(rows_NF)) if keep is None else keep.reshape(-1).to(rows_NF.dtype)
            count = sum_over_processes(keep_N.sum())
            mean = sum_over_processes(keep_N @ rows_NF) / count.clamp_min(1.0)
            squares: Tensor = _SquareSum.apply(  # type: ignore[no-untyped-call]
                rows_NF, mean.detach(), keep_N
            )
            variance = sum_over_processes(squares) / count.clamp_min(1.0)
        self.follow(mean, variance, count)
        return mean, variance

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Let the running averages follow the moments (F,) of ``count`` rows; of no row they do not."""
        seen = (count > 0).to(self.steps.dtype)
        decay = ((1.0 + self.steps) / (10.0 + self.steps)).clamp(max=DECAY)
        share = ((1.0 - decay) * seen).to(self.running_mean.dtype)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_variance.lerp_(variance.to(self.running_mean.dtype), share)
        self.steps += seen

    def scale_and_shift(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Give (F,) and (F,) such that x scale + shift normalises x by these moments."""
        scale = self.weight * torch.rsqrt(variance + EPSILON)
        return scale, self.bias - mean * scale


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor over all processes, differentiably; of one process, the tensor itself."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        result: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
        return result
    return values


def at_least_float32(x: Tensor) -> Tensor:
    """Give float32 of what is narrower."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _SumOverProcesses(torch.autograd.Function):
    """What every process has is part of every process's sum, so the gradient is a sum over them too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _SquareSum(torch.autograd.Function):
    """Sum of (x - mean)^2 over the rows that count (F,).

    In a second pass over the rows, because E x^2 - mean^2 loses digits; block by block, so that no array of
    the rows' size is made. The mean is a constant: the sum over all processes is stationary there.
    """

    @staticmethod
    def forward(ctx: Any, rows_NF: Tensor, mean_F: Tensor, keep_N: Tensor) -> Tensor:
        ctx.save_for_backward(rows_NF, mean_F, keep_N)
        on_cpu = rows_NF.device.type == "cpu"
        rows = max(1, _BLOCK_VALUES // len(mean_F) if on_cpu else len(rows_NF))
        total_F = torch.zeros_like(mean_F)
        for block, keep in zip(rows_NF.split(rows), keep_N.split(rows), strict=True):
            total_F.addmv_((block - mean_F).square_().T, keep)
        return total_F

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_F: Tensor) -> tuple[Tensor, None, None]:
        rows_NF, mean_F, keep_N = ctx.saved_tensors
        double_F = 2.0 * gradient_F
        result_NF = torch.addcmul(-mean_F * double_F, rows_NF, double_F)
        return result_NF.mul_(keep_N.unsqueeze(-1)), None, None
