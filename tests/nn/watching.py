"""What a piece of code allocates and computes, as torch's profiler sees it: also inside custom operations."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::mv", "aten::baddbmm", "aten::addmv")


def _profiled(run: Callable[[], object], **keywords: Any) -> Any:
    with profile(activities=[ProfilerActivity.CPU], **keywords) as profiler:
        run()
    return profiler


def bytes_allocated(run: Callable[[], object]) -> int:
    """Everything that was allocated, whether or not it was given back."""
    profiler = _profiled(run, profile_memory=True)
    events = profiler.profiler.kineto_results.events()
    return sum(max(event.nbytes(), 0) for event in events if event.name() == "[memory]")


def largest_tensor(run: Callable[[], object]) -> int:
    """Most elements of any tensor that an operation was given."""
    profiler = _profiled(run, record_shapes=True)
    shapes = [shape for event in profiler.events() for shape in event.input_shapes if shape]
    return max(torch.Size(shape).numel() for shape in shapes if all(isinstance(n, int) for n in shape))


def product_flops(run: Callable[[], object]) -> int:
    """Multiplications and additions in products of matrices."""
    profiler = _profiled(run, record_shapes=True, with_flops=True)
    return sum(event.flops for event in profiler.events() if event.name in PRODUCTS)
