"""Batch normalisation over real frames only, and over the frames of all processes.

Letters of shapes: N rows of any leading dimensions, F values.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

DECAY, EPSILON = 0.999, 1e-3  # of the reference (slim.batch_norm)


class BatchNorm(nn.Module):
    """Subtract each value's mean over the batch, divide by its standard deviation, scale and shift.

    In training the mean and the variance are those of the rows that ``keep`` marks, in all processes
    together, and running averages of them are kept (Ioffe & Szegedy 2015, algorithm 1, with the reference's
    decay .999 and epsilon 1e-3); in evaluation the running averages serve. The running variance is that of
    the batch as it is (divided by n), as TensorFlow's. All arithmetic is in float32.

    Parameters
    ----------
    size : F.

    The parameters are float32 (F,): weight (1 at the start) and bias (0); the buffers are mean and variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_variance", torch.ones(size))

    def reset(self) -> None:
        """Start anew: scale 1, shift 0, running mean 0 and variance 1."""
        with torch.no_grad():
            self.weight.fill_(1.0)
            self.bias.zero_()
            self.running_mean.zero_()
            self.running_variance.fill_(1.0)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Normalise (..., F). ``keep``: bool (...), the rows that count; None: all. Others become 0."""
        x = x.float()
        if self.training:
            mean, variance = self._moments(x, keep)
        else:
            mean, variance = self.running_mean, self.running_variance
        scale = self.weight * torch.rsqrt(variance + EPSILON)
        y = x * scale + (self.bias - mean * scale)
        return y if keep is None else y * keep.unsqueeze(-1)

    def _moments(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance (F,) over the rows that count, of all processes; the running averages follow."""
        rows_NF = x.reshape(-1, self.size)
        if keep is not None:
            rows_NF = rows_NF[keep.reshape(-1)]
        count = torch.tensor(float(len(rows_NF)), device=x.device)
        total = rows_NF.sum(0)
        together = dist.is_initialized() and dist.get_world_size() > 1
        if together:
            dist.all_reduce(count)
            total = all_reduce(total)
        mean = total / count.clamp_min(1.0)
        squares = (rows_NF - mean).square().sum(0)  # in a second pass: E x^2 - m^2 loses digits
        if together:
            squares = all_reduce(squares)
        variance = squares / count.clamp_min(1.0)
        if count > 0:
            with torch.no_grad():
                self.running_mean.lerp_(mean, 1.0 - DECAY)
                self.running_variance.lerp_(variance, 1.0 - DECAY)
        return mean, variance
