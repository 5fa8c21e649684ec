"""What keeps the experts of a sparse layer busy, and what it costs: balance losses and balanced routers.

Eight regimes, clusters in 16 inputs with a linear map each, of sizes 1 : 1/2 : ... : 1/8, so that an even
load is not what the task asks for. One layer of eight experts learns them, two experts for each token unless
k=1 is said. Measured in evaluation, without noise or balanced assignment, on new tokens:
  max/mean   load of the busiest expert over the mean load; 1 is balance
  in training   the same over the last 50 steps of training, as the router chose then
  error   squared error over the variance of the target
  dropped %   choices that an expert of capacity 1.25 turns away
  with drops   the error when these are lost
  nobody %   tokens that no expert took, though there was no capacity
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from expertise.nn import Experts, MoE, Routing, TopKRouter, load_balance_loss
from expertise.nn.balance import importance_loss, load_loss, router_z_loss
from expertise.nn.loss_free import LossFreeBias
from expertise.nn.routers import (
    AbstractRouter,
    BaseRouter,
    ExpertChoiceRouter,
    NoisyTopKRouter,
    SinkhornRouter,
)

D, E, HIDDEN, TOKENS, NEW = 16, 8, 16, 512, 8192
Balance = Callable[[Routing], Tensor]
COLUMNS = ("max/mean", "in training", "error", "dropped %", "with drops", "nobody %")


def importance_and_load(routing: Routing) -> Tensor:
    """Give the two losses of Shazeer et al. (2017), weighed .1 each."""
    return 0.1 * (importance_loss(routing) + load_loss(routing))


def weighed(weight: float, balance: Balance) -> Balance:
    """Give a multiple of a loss."""
    return lambda routing: weight * balance(routing)


TOP_2, TOP_1 = partial(TopKRouter, D, E, k=2), partial(TopKRouter, D, E, k=1)
BIASED = partial(TopKRouter, D, E, k=2, activation="sigmoid", selection_bias=True)
ROWS: dict[str, tuple[Callable[[], AbstractRouter], Balance | None]] = {
    "top_k": (TOP_2, None),
    "top_k, z-loss .001": (TOP_2, weighed(0.001, router_z_loss)),
    "top_k, load balance .01": (TOP_2, weighed(0.01, load_balance_loss)),
    "top_k, load balance .1": (TOP_2, weighed(0.1, load_balance_loss)),
    "top_k, loss-free bias": (BIASED, None),
    "noisy_top_k": (partial(NoisyTopKRouter, D, E, k=2), None),
    "noisy_top_k, imp. + load": (partial(NoisyTopKRouter, D, E, k=2), importance_and_load),
    "expert_choice": (partial(ExpertChoiceRouter, D, E, capacity_factor=2.0), None),
    "sinkhorn": (partial(SinkhornRouter, D, E, k=2), None),
    "top_k, k=1": (TOP_1, None),
    "top_k, k=1, balance .1": (TOP_1, weighed(0.1, load_balance_loss)),
    "base, k=1": (partial(BaseRouter, D, E), None),
}


class Task:
    """Centres (8, D) and maps (8, D, D) of the regimes, and how likely each is."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.centres = torch.randn(E, D, generator=self.generator)
        self.maps = torch.randn(E, D, D, generator=self.generator) / math.sqrt(D)
        self.shares = 1 / torch.arange(1, E + 1)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw tokens and targets, (n, D) each."""
        regime = torch.multinomial(self.shares, n, replacement=True, generator=self.generator)
        x = self.centres[regime] + 0.5 * torch.randn(n, D, generator=self.generator)
        return x, torch.einsum("nd,nde->ne", x, self.maps[regime])


def over_mean(load_E: Tensor) -> float:
    """Give the largest load over the mean load."""
    return float(load_E.max() / load_E.float().mean())


def measure(name: str, seed: int, steps: int) -> list[float]:
    """Train a layer, and give the numbers of COLUMNS."""
    torch.manual_seed(seed)
    task, (router, balance), recent = Task(seed), ROWS[name], []
    layer = MoE(router(), Experts(E, D, HIDDEN))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    bias = LossFreeBias(layer, rate=0.01) if router is BIASED else None
    for _ in range(steps):
        x, y = task.draw(TOKENS)
        out, routing = layer(x, return_routing=True)
        loss = (out - y).square().mean() + (balance(routing) if balance else 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if bias:
            bias.step()
        recent.append(over_mean(routing.load_E))
    layer.eval()
    x, y = task.draw(NEW)
    with torch.no_grad():
        out, routing = layer(x, return_routing=True)
        layer.capacity_factor = 1.25
        limited, tight = layer(x, return_routing=True)
    errors = [float((each - y).square().mean() / y.var(0).mean()) for each in (out, limited)]
    dropped = 100 * float(tight.dropped / tight.chosen_TK.sum())
    nobody = 100 * float((~routing.chosen_TK.any(1)).float().mean())
    return [over_mean(routing.load_E), sum(recent[-50:]) / 50, errors[0], dropped, errors[1], nobody]


def main(quick: bool = False) -> None:
    """Print the table."""
    begun, (steps, seeds) = time.perf_counter(), (60, range(1)) if quick else (300, range(3))
    print(f"{f'{steps} steps, {len(seeds)} tasks':<26}" + "".join(f"{name:>13}" for name in COLUMNS))
    for name in ROWS:
        mean = torch.tensor([measure(name, seed, steps) for seed in seeds]).mean(0).tolist()
        cells = (f"{value:>13.{digits}f}" for value, digits in zip(mean, (2, 2, 4, 1, 4, 1), strict=True))
        print(f"{name:<26}" + "".join(cells), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 steps instead of 300, 1 task instead of 3")
    torch.set_num_threads(1)
    main(parser.parse_args().quick)
