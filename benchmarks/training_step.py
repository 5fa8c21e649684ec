"""How much does a training step of MoeModel cost beside the matrix products that it can't do without?

The floor is one forward product and one weight-gradient product of the same shapes; the inputs are data and
need no gradient. Both sides run in turn in one process, with huge pages as the command `train` has them.
Prints one table: the median of the ratios, and the middle half of them.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as cli.py does, before torch takes memory

import torch

from expertise.youtube8m.flags import Flags
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.models import MoeModel
from expertise.youtube8m.optimizers import OPTIMIZERS
from expertise.youtube8m.step import Lesson, TrainingNetwork, compiler_found, fuse, train_step

D, C, M = 1152, 3862, 2


def floor(batch: int) -> Callable[[], None]:
    x_BD, gradient_BN = torch.randn(batch, D), torch.randn(batch, C * (2 * M + 1))
    weight_ND = torch.randn(C * (2 * M + 1), D)

    def products() -> None:
        torch.mm(x_BD, weight_ND.T)
        torch.mm(gradient_BN.T, x_BD)

    return products


def step(batch: int, precision: str, *, compiled: bool) -> Callable[[], None]:
    flags = Flags(model="MoeModel", precision=precision)
    model = MoeModel(D, C, M)
    model.reset(torch.Generator().manual_seed(0))
    network = TrainingNetwork(model)
    optimizer = OPTIMIZERS[flags.optimizer](model.parameters())
    features = torch.randn(batch, D)
    labels = torch.zeros(batch, C, dtype=torch.bool)
    labels.scatter_(1, torch.randint(0, C, (batch, 3)), True)
    lesson = Lesson(features, None, labels, None, batch)
    label_loss = LOSSES[flags.label_loss]
    fused = fuse(model, label_loss) if compiled else None

    def one() -> None:
        train_step(flags, network, model, optimizer, label_loss, lesson, 0.01, fused)

    return one


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    repeats = 4 if parser.parse_args().quick else 21
    batch = 1024
    sides = {"floor": floor(batch)}
    for precision in ("fp32", "bf16"):
        sides[precision] = step(batch, precision, compiled=False)
        if compiler_found(torch.device("cpu")):
            sides[f"{precision}, compiled"] = step(batch, precision, compiled=True)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 2):
        for name, work in sides.items():
            times[name].append(seconds(work))
    ratios = {
        name: [a / b for a, b in zip(times[name][2:], times["floor"][2:], strict=True)] for name in sides
    }
    print(f"MoeModel training step, M={M}, D={D}, C={C}, batch {batch}, {torch.get_num_threads()} threads")
    print(f"{'step over the fp32 products':<34}{'ratio':>8}{'half':>16}{'target':>8}{'aim':>6}")
    for name in list(sides)[1:]:
        target, aim = (1.20, 1.05) if name.startswith("fp32") else (0.60, 0.45)
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        half = f"{low:.2f} - {high:.2f}"
        print(f"{name:<34}{middle:>8.3f}{half:>16}{target:>8.2f}{aim:>6.2f}")


if __name__ == "__main__":
    main()
