"""The training step of each frame-level model over its own matrix products, or torch's recurrent layer.

The floor of a model is every matrix product of its step, forward and backward, done again alone with the same
shapes and strides. LstmModel and GruModel stand beside torch.nn.LSTM and torch.nn.GRU, forward and backward,
on as many frames. Both sides run in turn; ratios are medians. Each model runs in a process of its own, whose
peak of memory is shown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from expertise.youtube8m import Flags
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import FRAME_MODELS, build_model
from expertise.youtube8m.optimizers import OPTIMIZERS
from expertise.youtube8m.step import Lesson, TrainingNetwork, train_step

D, C, FRAMES = 1152, 3862, 300
FEW_FRAMES = 60  # of recurrent models, whose steps take their time frame by frame
# model: batch, target of the ratio, examples/s and peak MiB of google/youtube-8m on this kind of machine
CASES: dict[str, tuple[int, float | None, float | None, int | None]] = {
    "FrameLevelLogisticModel": (128, 1.6, 290, 1630),
    "DbofModel": (64, 1.3, 80, 2370),
    "LstmModel": (32, 1.3, 0.5, None),
    "GruModel": (32, 1.3, None, None),
    "NetVladModel": (32, None, None, None),
    "NeXtVladModel": (32, None, None, None),
    "AttentionModel": (64, None, None, None),
    "FrameMoeModel": (32, None, None, None),
    "FrameMomentsModel": (128, None, None, None),
}
SUMMED = ("FrameLevelLogisticModel", "FrameMomentsModel")  # bytes to numbers and their sum are of the floor
RECURRENT = {"LstmModel": nn.LSTM, "GruModel": nn.GRU}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")


class Products(TorchDispatchMode):
    """Notes every matrix product that runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[Any, list[Tensor | None]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in PRODUCTS:
            self.found.append((func, [_like(one) for one in args if isinstance(one, Tensor)]))
        return func(*args, **(kwargs or {}))


def _like(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and strides, filled with numbers."""
    dense = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return dense.fill_(0.5)


def step(name: str, batch: int, precision: str) -> Callable[[], None]:
    flags = Flags(model=name, frame_features=True, precision=precision)
    model = build_model(
        ModelFlags(
            model=name,
            feature_names=("rgb", "audio"),
            feature_sizes=(1024, 128),
            num_classes=C,
            class_names=(),
            frame_features=True,
        )
    )
    model.reset(torch.Generator().manual_seed(0))
    network = TrainingNetwork(model)
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    length = FEW_FRAMES if name in RECURRENT else FRAMES
    frames = torch.randint(0, 256, (batch, length, D), dtype=torch.uint8)
    labels = torch.zeros(batch, C, dtype=torch.bool).scatter_(1, torch.randint(0, C, (batch, 3)), True)
    lesson = Lesson(frames, torch.full((batch,), length), labels, None, batch)

    def one() -> None:
        train_step(flags, network, model, optimizer, LOSSES["CrossEntropyLoss"], lesson, 0.001)

    return one


def floor(name: str, batch: int, whole: Callable[[], None]) -> Callable[[], None]:
    if name in RECURRENT:
        layer = RECURRENT[name](D, 1024, 2, batch_first=True)
        x = torch.randn(batch, FEW_FRAMES, D)

        def recurrent() -> None:
            layer(x)[0][:, -1].sum().backward()

        return recurrent
    with Products() as products:
        whole()
    frames = torch.randint(0, 256, (batch, FRAMES, D), dtype=torch.uint8)

    if name == "FrameMoeModel":  # its experts are one operation, inside of which no product is seen
        rows = 2 * batch * FRAMES  # two experts of every frame; hidden 512
        x, up, hidden = torch.randn(rows, D), torch.randn(D, 512), torch.randn(rows, 512)
        products.found += [
            (torch.mm, [a, b])
            for a, b in ((x, up), (hidden, up.T), (x, up), (hidden.T, x), (x.T, hidden))  # forward, then back
        ]

    def again() -> None:
        for product, tensors in products.found:
            product(*tensors)
        if name in SUMMED:
            frames.float().sum(1)

    return again


def measure(name: str, precision: str, repeats: int) -> dict[str, float]:
    """In this process: median ratio, its quartiles, examples a second, peak of memory."""
    torch.manual_seed(0)
    batch = CASES[name][0]
    whole = step(name, batch, precision)
    whole()
    peak = _peak()
    alone = floor(name, batch, whole)
    ratios, rates = [], []
    for _ in range(repeats + 1):
        times = []
        for side in (whole, alone):
            start = time.perf_counter()
            side()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
        rates.append(batch / times[0])
    low, middle, high = statistics.quantiles(ratios[1:], n=4)
    return {"ratio": middle, "low": low, "high": high, "rate": statistics.median(rates[1:]), "peak": peak}


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, without the recurrent models")
    parser.add_argument("--only", choices=CASES, nargs="+", help="these models; all unless given")
    parser.add_argument("--repeats", type=int, default=7, help="of each side, beside a first one")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--one", choices=CASES, help="measure one model in this process, print JSON")
    given = parser.parse_args()
    repeats = 2 if given.quick else max(2, given.repeats)
    if given.one:
        print(json.dumps(measure(given.one, given.precision, repeats)))
        return
    assert set(CASES) == set(FRAME_MODELS)
    frames, threads = f"{FRAMES} frames (recurrent: {FEW_FRAMES})", torch.get_num_threads()
    print(f"training step, D={D}, C={C}, {frames}, {given.precision}, {threads} threads")
    print(f"{'':<26}{'batch':>6}{'over':>14}{'ratio':>7}{'half':>14}{'target':>8}", end="")
    print(f"{'ex/s':>8}{'old':>6}{'MiB':>7}{'old':>7}")
    for name, (batch, target, old_rate, old_peak) in CASES.items():
        if (given.quick and name in RECURRENT) or name not in (given.only or CASES):
            continue
        command = [sys.executable, __file__, "--one", name, "--precision", given.precision]
        command += [f"--repeats={repeats}"]
        environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "1"}
        output = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if output.returncode:
            print(f"{name}: {output.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        got = json.loads(output.stdout)
        over = f"nn.{RECURRENT[name].__name__}" if name in RECURRENT else "products"
        over += ", sum" if name in SUMMED else ""
        half = f"{got['low']:.2f} - {got['high']:.2f}"
        print(f"{name:<26}{batch:>6}{over:>14}{got['ratio']:>7.2f}{half:>14}{target or '-':>8}", end="")
        print(f"{got['rate']:>8,.1f}{old_rate or '-':>6}{got['peak']:>7,.0f}{old_peak or '-':>7}", flush=True)


if __name__ == "__main__":
    main()
