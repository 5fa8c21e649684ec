"""A sparse layer: which experts ran, what it cost beside a dense one, and what a balance loss is worth.

Tokens come from eight regimes, each with its own linear map, and share a large common part, as hidden states
of deep models do. A layer of eight experts, one for each token, learns to give the regimes to different
experts; or, without a balance loss, gives nearly all tokens to one or two.

Needs: torch
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expertise.nn import Experts, LossFreeBias, MoE, TopKRouter, load_balance_loss, record_routing

REGIMES, D, STEPS, BATCH, NEW = 8, 16, 250, 512, 4000
WEIGHT, RATE = 0.5, 0.02  # of the balance loss, and of the loss-free bias


class Task:
    """Draws tokens x (n, D), targets y (n, D) and regimes (n,)."""

    def __init__(self, seed: int = 0) -> None:
        self.noise = torch.Generator().manual_seed(seed)
        common = 4 * torch.randn(D, generator=self.noise)
        self.centres = common + 1.5 * torch.randn(REGIMES, D, generator=self.noise)
        self.maps = torch.randn(REGIMES, D, D, generator=self.noise) / D**0.5

    def draw(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        regime = torch.randint(0, REGIMES, (n,), generator=self.noise)
        x = self.centres[regime] + torch.randn(n, D, generator=self.noise)
        return x, torch.einsum("nij,nj->ni", self.maps[regime], x), regime


def train(seed: int, balance: str) -> tuple[MoE, float, float]:
    """Train a layer; give it, its error on new tokens over their variance, and max over mean load there."""
    task = Task()
    torch.manual_seed(seed)
    layer = MoE(TopKRouter(D, REGIMES, k=1, selection_bias=balance == "bias"), Experts(REGIMES, D, hidden=32))
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    bias = LossFreeBias(layer, rate=RATE) if balance == "bias" else None
    for _ in range(STEPS):
        x, y, _ = task.draw(BATCH)
        prediction, routing = layer(x, return_routing=True)
        loss = F.mse_loss(prediction, y)
        if balance == "loss":
            loss = loss + WEIGHT * load_balance_loss(routing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if bias is not None:
            bias.step()
    x, y, _ = task.draw(NEW)
    with torch.no_grad():
        prediction, routing = layer.eval()(x, return_routing=True)
    load = routing.load_E.double()
    return layer, float(F.mse_loss(prediction, y) / y.var()), float(load.max() / load.mean())


def show_who_ran(layer: MoE) -> None:
    """Print the share of each regime's new tokens that went to each expert."""
    x, _, regime = Task().draw(NEW)
    with torch.no_grad(), record_routing(layer) as routings:
        layer(x)
    chosen = routings[0].experts_TK[:, 0]
    print("1. Which experts ran (share of the new tokens of each regime; a token runs one of eight)")
    print(" " * 10 + "".join(f"{f'expert {e}':>10}" for e in range(REGIMES)))
    for r in range(REGIMES):
        share = torch.bincount(chosen[regime == r], minlength=REGIMES) / (regime == r).sum()
        print(f"  regime {r}" + "".join(f"{value:10.3f}" for value in share.tolist()))


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


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show_cost(dim: int = 256, hidden: int = 512, experts: int = 16, k: int = 2, tokens: int = 1024) -> None:
    """Print sizes, multiplications a token, and measured time, beside two dense blocks."""
    torch.manual_seed(0)
    layers = {
        "dense, equal work": Dense(dim, k * hidden),
        f"{experts} experts, {k} a token": MoE(TopKRouter(dim, experts, k), Experts(experts, dim, hidden)),
        "dense, equal size": Dense(dim, experts * hidden),
    }
    x = torch.randn(tokens, dim)
    with torch.no_grad():
        times: dict[str, list[float]] = {name: [] for name in layers}
        for _ in range(5):
            for name, layer in layers.items():
                times[name].append(seconds(lambda layer=layer: layer(x)))  # type: ignore[misc]
    base = times["dense, equal work"]
    print("\n2. What it costs (forward; time as measured just now, it differs from run to run)")
    print(f"  {'':<24}{'parameters':>12}{'multiplications a token':>26}{'time':>8}")
    for name, layer in layers.items():
        size = sum(parameter.numel() for parameter in layer.parameters())
        work = 3 * dim * hidden * k + dim * experts if isinstance(layer, MoE) else size
        ratio = statistics.median(a / b for a, b in zip(times[name], base, strict=True))
        print(f"  {name:<24}{size:>12,}{work:>26,}{ratio:>7.1f}x")


def main() -> None:
    names = {"none": "no balance", "loss": "balance loss", "bias": "loss-free bias"}
    found = {(seed, name): train(seed, name) for seed in range(3) for name in names}
    show_who_ran(found[0, "loss"][0])
    show_cost()
    print("\n3. Balance, three starts: load of the busiest expert over the mean (1: even, 8: all to one),")
    print("   and squared error on new tokens / variance of y")
    print(" " * 10 + "".join(f"{text:>26}" for text in names.values()))
    for seed in range(3):
        cells = [f"{found[seed, name][2]:.2f}, error {found[seed, name][1]:.4f}" for name in names]
        print(f"  start {seed} " + "".join(f"{cell:>26}" for cell in cells))
    loads = {name: [found[seed, name][2] for seed in range(3)] for name in names}
    errors = {name: statistics.mean(found[seed, name][1] for seed in range(3)) for name in names}
    worst = {name: max(values) for name, values in loads.items()}
    print(
        f"  Without balance the busiest expert has up to {worst['none']:.1f} times the mean; with the loss "
        f"{worst['loss']:.1f},\n  with the bias {worst['bias']:.1f}. Mean error: {errors['none']:.4f} "
        f"without, {errors['loss']:.4f} with the loss, {errors['bias']:.4f} with the bias."
    )


if __name__ == "__main__":
    torch.set_num_threads(1)  # small products: threads would only wait for one another
    main()
