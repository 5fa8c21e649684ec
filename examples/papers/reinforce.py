"""REINFORCE (Williams 1992) for a hard gate: the mean gradient is exact, its variance is up to a baseline.

One expert z is drawn from the gate p for each case, and only it learns. The gate's gradient is
(L_z - b)(e_z - p), whose mean is the gradient of E2 = sum_k p_k L_k (Jacobs et al. 1991), whatever b is, as
long as b does not know z. Baselines: "none", 0; "batch", the mean loss of the other cases; "gate", the mean
loss of all experts weighed by p, for which all of them must run. A seeded case: 16 inputs, 4 linear experts
and a linear gate with weights as drawn. Variance: of the gradient of the gate's weights, summed over them.

Then gate and experts learn together from the same start, by E2 itself and by draws: E2 after so many steps.
"""

import argparse
import time
from typing import NamedTuple

import torch
from torch import Tensor

from expertise.nn.objectives import BASELINES, expected, reinforce

CASES, INPUTS, EXPERTS = 16, 2, 4
RATE = 0.4


class Case(NamedTuple):
    """Inputs with a column of ones (16, 3), targets (16, 1), gate (4, 3) and experts (4, 3)."""

    x: Tensor
    y: Tensor
    gate: Tensor
    experts: Tensor


def draw(seed: int) -> Case:
    """Draw inputs, targets of a parabola with an edge, and weights of gate and experts."""
    generator = torch.Generator().manual_seed(seed)
    normal = [
        torch.randn(shape, generator=generator) for shape in ((CASES, INPUTS), (2 * EXPERTS, INPUTS + 1))
    ]
    x = torch.cat([normal[0], torch.ones(CASES, 1)], dim=1).double()
    y = (x[:, 0] ** 2 + x[:, 1].sign())[:, None]
    weights = 0.5 * normal[1].double()
    return Case(x, y, weights[:EXPERTS].clone(), weights[EXPERTS:].clone())


def loss(case: Case, baseline: str | None, generator: torch.Generator) -> Tensor:
    """Give the mean over the cases of E2, or of the drawn loss that has its gradient in the mean."""
    log_gate, said = (case.x @ case.gate.T).log_softmax(1), (case.x @ case.experts.T)[:, :, None]
    if baseline is None:
        return expected(log_gate, said, case.y).mean()
    return reinforce(log_gate, said, case.y, baseline=baseline, generator=generator).mean()


def gradients(case: Case, baseline: str | None, draws: int) -> Tensor:
    """Give gradients of the gate's weights: (draws, 4, 3)."""
    generator = torch.Generator().manual_seed(1)
    gate = case.gate.clone().requires_grad_()
    learning = case._replace(gate=gate)
    found = [torch.autograd.grad(loss(learning, baseline, generator), gate)[0] for _ in range(draws)]
    return torch.stack(found)


def learn(case: Case, baseline: str | None, steps: int, seed: int) -> float:
    """Train gate and experts by gradient descent, and give E2 at the end."""
    generator = torch.Generator().manual_seed(seed)
    weights = [case.gate.clone().requires_grad_(), case.experts.clone().requires_grad_()]
    for _ in range(steps):
        slopes = torch.autograd.grad(loss(Case(case.x, case.y, *weights), baseline, generator), weights)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight -= RATE * slope
    return float(loss(Case(case.x, case.y, *weights), None, generator).detach())


def main(quick: bool = False) -> None:
    """Print the gradients, their variances, and what training by them reaches."""
    begun = time.perf_counter()
    draws, steps, runs = (2000, 100, 3) if quick else (20000, 300, 10)
    case = draw(0)
    exact = gradients(case, None, 1)[0]
    found = {baseline: gradients(case, baseline, draws) for baseline in BASELINES}
    print(f"gradient of the gate's constants, mean of {draws:,} draws")
    print(f"{'':<18}" + "".join(f"{f'expert {k}':>12}" for k in range(EXPERTS)))
    means = {name: values.mean(0) for name, values in found.items()}
    for name, mean in {"exact": exact, **means}.items():
        print(f"{name:<18}" + "".join(f"{value:>12.4f}" for value in mean[:, -1].tolist()))
    print(f"{'':<18}{'in s.e., r.m.s.':>18}{'in s.e., largest':>18}{'variance':>12}{'of none':>12}")
    total = {name: float(values.var(0).sum()) for name, values in found.items()}
    for name, values in found.items():
        apart = (values.mean(0) - exact) / (values.std(0) / draws**0.5)
        cells = f"{float(apart.square().mean().sqrt()):>18.2f}{float(apart.abs().max()):>18.2f}"
        print(f"{f'draws, {name}':<18}{cells}{total[name]:>12.3f}{total[name] / total['none']:>12.2f}")
    print(f"{f'E2, {steps} steps':<18}{'mean':>12}{'sd':>12}{'E2 at the start':>18}")
    for baseline in (None, *BASELINES):
        ends = torch.tensor([learn(case, baseline, steps, seed) for seed in range(runs if baseline else 1)])
        label, spread = (f"by {baseline}", f"{float(ends.std()):.3f}") if baseline else ("by E2 itself", "–")
        begin = float(loss(case, None, torch.Generator()))
        print(f"{label:<18}{float(ends.mean()):>12.3f}{spread:>12}{begin:>18.3f}", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="2,000 draws instead of 20,000, shorter training"
    )
    torch.set_num_threads(1)
    main(parser.parse_args().quick)
