"""Which layers let a token see later ones: Soft MoE (Puigcerver et al. 2023), expert choice, capacity.

The tokens after t are drawn anew; a causal layer gives the tokens up to t what it gave before. Four sequences
of 32 tokens; layers as they are made, in evaluation. sinkhorn and base balance a batch in training only.
  changed %   tokens up to t whose output moved by more than 1e-6
  change   largest move, over the root mean square of the outputs
  batch %   tokens of one sequence whose output moved when the other sequences were drawn anew
  permuted   largest difference between the outputs of shuffled tokens and the shuffled outputs, in the same
             units: 0 where the order does not matter (equivariance)
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from expertise.nn import Experts, MoE, SoftMoE, TopKRouter
from expertise.nn.routers import BaseRouter, ExpertChoiceRouter, SinkhornRouter

D, E, HIDDEN, B, L = 16, 8, 32, 4, 32
COLUMNS = ("changed %", "change", "batch %", "permuted")


def moe(router: nn.Module, train: bool = False, **capacity: object) -> nn.Module:
    """Make a sparse layer in evaluation, or in training."""
    return MoE(router, Experts(E, D, HIDDEN), **capacity).train(train)  # type: ignore[arg-type]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "top_k": lambda: moe(TopKRouter(D, E, k=2)),
    "top_k, capacity 1": lambda: moe(TopKRouter(D, E, k=2), capacity_factor=1.0),
    "top_k, capacity 1, priority": lambda: moe(
        TopKRouter(D, E, k=2), capacity_factor=1.0, capacity_order="priority"
    ),
    "top_k, capacity 1, sequence": lambda: moe(
        TopKRouter(D, E, k=2), capacity_factor=1.0, capacity_per_sequence=True
    ),
    "top_k, k=1, the same": lambda: moe(
        TopKRouter(D, E, k=1), capacity_factor=1.0, capacity_per_sequence=True
    ),
    "sinkhorn": lambda: moe(SinkhornRouter(D, E)),
    "sinkhorn, training": lambda: moe(SinkhornRouter(D, E), train=True),
    "base": lambda: moe(BaseRouter(D, E)),
    "base, training": lambda: moe(BaseRouter(D, E), train=True),
    "expert_choice": lambda: moe(ExpertChoiceRouter(D, E)),
    "soft": lambda: SoftMoE(D, Experts(E, D, HIDDEN), slots_per_expert=4).eval(),
}


def moved(before: Tensor, after: Tensor) -> Tensor:
    """Give how far the output of each token moved, over the root mean square of the outputs."""
    return (after - before).abs().amax(-1) / before.square().mean().sqrt()


def measure(name: str, seed: int) -> list[float]:
    """Give the numbers of COLUMNS for one layer and one batch."""
    torch.manual_seed(seed)
    layer, x = LAYERS[name](), torch.randn(B, L, D)
    y = layer(x)
    early = []
    for t in range(1, L):
        later = x.clone()
        later[:, t:] = torch.randn(B, L - t, D)
        early.append(moved(y, layer(later))[:, :t].flatten())
    others = x.clone()
    others[1:] = torch.randn(B - 1, L, D)
    order = torch.randperm(L)
    change, batch = torch.cat(early), moved(y, layer(others))[0]
    permuted = moved(y[:, order], layer(x[:, order])).max()
    share = [100 * float((each > 1e-6).float().mean()) for each in (change, batch)]
    return [share[0], float(change.max()), share[1], float(permuted)]


def main(quick: bool = False) -> None:
    """Print the table: means of the percentages, largest of the changes."""
    begun, batches = time.perf_counter(), 2 if quick else 20
    print(f"{f'{batches} batches of {B} x {L}':<29}" + "".join(f"{name:>12}" for name in COLUMNS))
    with torch.no_grad():
        for name in LAYERS:
            numbers = torch.tensor([measure(name, seed) for seed in range(batches)], dtype=torch.float64)
            (changed, _, batch, _), (_, change, _, permuted) = (
                numbers.mean(0).tolist(),
                numbers.amax(0).tolist(),
            )
            print(f"{name:<29}{changed:>12.1f}{change:>12.5f}{batch:>12.1f}{permuted:>12.5f}", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 batches instead of 20")
    torch.set_num_threads(1)
    main(parser.parse_args().quick)
