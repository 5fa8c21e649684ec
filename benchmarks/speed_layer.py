"""What does a sparse layer cost beside the dense block of equal active work?

A SwiGLU layer of E experts, k of which each token takes, against one SwiGLU block with k times the hidden
width, in turn in one process. The router, the sort, and the way there and back are in the layer's time.
Beside it, where they are installed: transformers' Qwen3-MoE block (eager, and with its grouped product),
st-moe-pytorch and mixture-of-experts, with their defaults (they drop tokens over a capacity). Prints
medians of the ratios, forward and forward + backward, and, for one token, the forward without gradient. All
sides run with huge pages unless --no-huge-pages. With a GPU it also prints TFLOP/s, and the share of the
largest rate that a plain matrix product reached there.
"""

import argparse
import importlib
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

if "--no-huge-pages" not in sys.argv:  # for all sides, and before torch takes memory
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expertise.nn import Experts, MoE, TopKRouter


class Case(NamedTuple):
    """One size: tokens, model, hidden, experts, experts a token takes; and the aims, (forward, both)."""

    T: int
    D: int
    H: int
    E: int
    k: int
    aims: dict[str, tuple[float | None, float | None]]


CASES = (
    Case(4096, 256, 512, 8, 2, {"fp32": (1.10, 1.10), "bf16": (1.15, 1.15)}),
    Case(4096, 256, 512, 64, 2, {"fp32": (1.30, 1.35), "bf16": (1.45, 1.55)}),
    Case(1024, 512, 1024, 16, 2, {"fp32": (1.15, 1.30), "bf16": (1.15, 1.30)}),
    Case(1, 256, 512, 8, 2, {"fp32": (2.1, None), "bf16": (2.1, None)}),
)
ON_GPU = Case(32768, 2048, 768, 128, 8, {"bf16": (None, None)})
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Dense(nn.Module):
    """One SwiGLU block."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, -1)
        y: Tensor = self.down(F.silu(gate) * up)
        return y


def ours(case: Case) -> nn.Module:
    return MoE(TopKRouter(case.D, case.E, case.k), Experts(case.E, case.D, case.H))


def theirs(case: Case, implementation: str) -> nn.Module:
    """Make transformers' block."""
    model = importlib.import_module("transformers.models.qwen3_moe.modeling_qwen3_moe")
    config = importlib.import_module("transformers").Qwen3MoeConfig(
        hidden_size=case.D,
        moe_intermediate_size=case.H,
        num_experts=case.E,
        num_experts_per_tok=case.k,
        norm_topk_prob=True,
    )
    config._experts_implementation = implementation
    block: nn.Module = model.Qwen3MoeSparseMoeBlock(config)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.02)
    return block


def st_moe(case: Case) -> nn.Module:
    """The layer of st-moe-pytorch; its experts are gated too."""
    block: nn.Module = importlib.import_module("st_moe_pytorch").MoE(
        case.D, num_experts=case.E, expert_hidden_mult=1.5 * case.H / case.D, gating_top_n=case.k
    )
    return block


def mixture_of_experts(case: Case) -> nn.Module:
    """The layer of mixture-of-experts; two products instead of three, so the hidden width is 1.5 H."""
    block: nn.Module = importlib.import_module("mixture_of_experts").MoE(
        case.D, num_experts=case.E, hidden_dim=case.H * 3 // 2
    )
    return block


# what is shown beside, the module that it needs, and the package that brings it
PEERS: dict[str, tuple[Callable[[Case], nn.Module], str]] = {
    "transformers, eager": (lambda case: theirs(case, "eager"), "transformers"),
    "transformers, grouped_mm": (lambda case: theirs(case, "grouped_mm"), "transformers"),
    "st-moe-pytorch": (st_moe, "st_moe_pytorch"),
    "mixture-of-experts": (mixture_of_experts, "mixture_of_experts"),
}


def sides(case: Case) -> dict[str, Callable[[Case], nn.Module]]:
    found: dict[str, Callable[[Case], nn.Module]] = {
        "dense": lambda case: Dense(case.D, case.k * case.H),
        "expertise": ours,
    }
    for name, (make, module) in PEERS.items():
        if importlib.util.find_spec(module) is not None and (case.T > 1 or module == "transformers"):
            found[name] = make
    return found


def one_pass(layer: nn.Module, x: Tensor, g: Tensor, *, backward: bool) -> None:
    if not backward:
        with torch.no_grad():
            layer(x)
        return
    y = layer(x)
    (y[0] if isinstance(y, tuple) else y).backward(g)
    for parameter in layer.parameters():
        parameter.grad = None
    x.grad = None


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def times(
    case: Case, dtype: str, device: torch.device, rounds: int, *, backward: bool
) -> dict[str, list[float]]:
    """Time every side in turn; the order changes from round to round."""
    torch.manual_seed(0)
    layers = {name: make(case).to(device, TYPES[dtype]) for name, make in sides(case).items()}
    x = torch.randn(1, case.T, case.D, device=device, dtype=TYPES[dtype], requires_grad=True)
    g = torch.randn_like(x)
    for name in list(layers):
        try:
            one_pass(layers[name], x, g, backward=backward)
        except RuntimeError as error:  # another library that does not take this type
            if name in ("dense", "expertise"):
                raise
            print(f"{name} fails with {dtype}: {str(error).splitlines()[0]}")
            del layers[name]
    repeats = 1 if case.T > 1 else 100
    found: dict[str, list[float]] = {name: [] for name in layers}
    for turn in range(rounds + 2):
        names = list(layers) if turn % 2 else list(layers)[::-1]
        for name in names:

            def work(name: str = name) -> None:
                for _ in range(repeats):
                    one_pass(layers[name], x, g, backward=backward)

            found[name].append(seconds(work, device) / repeats)
    return {name: values[2:] for name, values in found.items()}


def print_ratios(rounds: int) -> None:
    device = torch.device("cpu")
    torch.set_num_threads(1)
    print(
        "time over that of the dense block of equal active work, 1 thread; median of the rounds (middle half)"
    )
    for case in CASES:
        for dtype in TYPES:
            for backward in (False, True) if case.T > 1 else (False,):
                found = times(case, dtype, device, rounds if case.T > 1 else 3 * rounds, backward=backward)
                aim = case.aims[dtype][backward]
                cells = []
                for name, values in found.items():
                    if name == "dense":
                        continue
                    ratios = [a / b for a, b in zip(values, found["dense"], strict=True)]
                    low, middle, high = statistics.quantiles(ratios, n=4)
                    cells.append(f"{name} {middle:5.2f} ({low:.2f} - {high:.2f})")
                what = "forward + backward" if backward else "forward"
                head = f"T{case.T} D{case.D} H{case.H} E{case.E} k{case.k} {dtype} {what}"
                print(f"{head:<54} aim {aim}   " + "   ".join(cells), flush=True)


def print_gpu(rounds: int) -> None:
    case, device = ON_GPU, torch.device("cuda")
    n = 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    peak = max(2 * n**3 / seconds(lambda: a @ b, device) for _ in range(rounds + 3))
    print(f"largest rate of a plain product: {peak / 1e12:.0f} TFLOP/s")
    for backward in (False, True):
        found = times(case, "bf16", device, rounds, backward=backward)
        work = 2 * case.T * case.k * 3 * case.D * case.H * (3 if backward else 1)
        for name, values in found.items():
            rate = work / statistics.median(values)
            what = "forward + backward" if backward else "forward"
            print(f"{name:<26} {what:<20} {rate / 1e12:6.0f} TFLOP/s, {rate / peak:.2f} of the largest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--no-huge-pages", action="store_true", help="memory in small pages, torch's default")
    rounds = 7 if parser.parse_args().quick else 20
    print_ratios(rounds)
    if torch.cuda.is_available():
        print_gpu(rounds)


if __name__ == "__main__":
    main()
