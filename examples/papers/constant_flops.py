"""Constant work, more experts: a token pays for its k experts, however many there are (Fedus et al. 2021).

64 regimes, clusters in 16 inputs with a linear map each. A sparse layer of E experts learns them, k = 1 or 2
experts for each token, beside dense blocks of equal active work (the same block, and one twice as wide), and
one sixteen times as wide. All train for equally many steps and tokens, the layers with a small balance loss.
  experts, router   multiplications and additions for a token, as torch's profiler counts products of matrices
  rows, called   rows that the experts got for each token, and experts that ran at all, counted by hooks on a
                 layer of modules with the same router
  error   squared error over the variance of the target on new tokens; of two tasks the mean
"""

import argparse
import math
import os
import time

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from expertise.nn import ExpertList, Experts, MoE, TopKRouter, load_balance_loss

D, HIDDEN, REGIMES, TOKENS, NEW = 16, 16, 64, 512, 4096
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::mv", "aten::baddbmm", "aten::addmv")
COLUMNS = ("parameters", "experts", "router", "rows", "called", "error")


class Task:
    """Centres (64, D) and maps (64, D, D) of the regimes."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.centres = 1.5 * torch.randn(REGIMES, D, generator=self.generator)
        self.maps = torch.randn(REGIMES, D, D, generator=self.generator) / math.sqrt(D)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw tokens and targets, (n, D) each."""
        regime = torch.randint(REGIMES, (n,), generator=self.generator)
        x = self.centres[regime] + 0.5 * torch.randn(n, D, generator=self.generator)
        return x, torch.einsum("nd,nde->ne", x, self.maps[regime])


def flops(module: nn.Module, x: Tensor) -> float:
    """Count the multiplications and additions for one token in products of matrices."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # some builds of the profiler write lines of their own
    with (
        torch.no_grad(),
        profile(activities=[ProfilerActivity.CPU], with_flops=True, record_shapes=True) as seen,
    ):
        module(x)
    return float(sum(event.flops for event in seen.events() if event.name in PRODUCTS)) / len(x)


def watched(layer: MoE, x: Tensor) -> tuple[float, int]:
    """Give the rows that experts got for each token, and how many experts ran, with modules as experts."""
    modules = [nn.Linear(D, D) for _ in range(layer.router.num_experts)]
    rows: list[int] = []
    for module in modules:
        module.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    with torch.no_grad():
        MoE(layer.router, ExpertList(modules))(x)
    return sum(rows) / len(x), len(rows)


def train(layer: MoE, task: Task, steps: int) -> float:
    """Train a layer, and give its error on new tokens."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(steps):
        x, y = task.draw(TOKENS)
        out, routing = layer(x, return_routing=True)
        optimizer.zero_grad()
        ((out - y).square().mean() + 0.01 * load_balance_loss(routing)).backward()
        optimizer.step()
    x, y = task.draw(NEW)
    with torch.no_grad():
        return float((layer(x) - y).square().mean() / y.var(0).mean())


def measure(num_experts: int, k: int, wide: int, steps: int, tasks: int) -> list[float]:
    """Give the numbers of COLUMNS; a single expert is the dense block."""
    errors = []
    for seed in range(tasks):
        torch.manual_seed(seed)
        layer = MoE(TopKRouter(D, num_experts, k=k), Experts(num_experts, D, wide * HIDDEN))
        task = Task(seed)
        errors.append(train(layer, task, steps))
    x = task.draw(NEW)[0]
    router = flops(layer.router, x)
    size = sum(parameter.numel() for parameter in layer.experts.parameters())
    return [size, flops(layer, x) - router, router, *watched(layer, x), sum(errors) / tasks]


def main(quick: bool = False) -> None:
    """Print the table."""
    begun, (steps, tasks) = time.perf_counter(), (80, 1) if quick else (500, 2)
    rows = {"dense": (1, 1, 1), "dense, 2 times as wide": (1, 1, 2), "dense, 16 times as wide": (1, 1, 16)}
    rows |= {f"E={e}, k={k}": (e, k, 1) for k in (1, 2) for e in (2, 4, 16, 64) if e > 2 or not quick}
    print(f"{f'{steps} steps, {tasks} tasks':<25}" + "".join(f"{name:>12}" for name in COLUMNS))
    for name, settings in rows.items():
        numbers = measure(*settings, steps, tasks)
        if numbers[1] == 0:
            raise RuntimeError("the profiler counted no product: this table would say nothing")
        cells = (f"{value:>12,.{digits}f}" for value, digits in zip(numbers, (0, 0, 0, 2, 0, 4), strict=True))
        print(f"{name:<25}" + "".join(cells), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="80 steps instead of 500, one task instead of two"
    )
    torch.set_num_threads(1)
    main(parser.parse_args().quick)
