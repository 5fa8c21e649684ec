"""Training a mixture by gradient: one step, and the loop over epochs.

Letters: N rows, B rows of a batch.

All rows lie on the device as they are needed; a batch is an index into them.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import softplus

from expertise._progress import Meter
from expertise.nn import objectives
from expertise.nn.neural.batch import Plan, Rows, case_losses, evaluating
from expertise.nn.neural.networks import GrownGate, Mixture

EVALUATION_ROWS = 16_384  # rows at once where nothing learns
NOVELTY_RIDGE = 1e-3


@dataclass(frozen=True)
class Settings:
    """How it is minimised."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    seed: int


@dataclass
class Run:
    """What a run of the loop has shown."""

    loss_curve: list[float] = field(default_factory=list)
    validation_curve: list[float] = field(default_factory=list)


# ---- the loop


def step(
    mixture: Mixture,
    rows: Rows,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Tensor:
    """Make one step of the optimizer on a batch; give its objective, without the balance loss."""
    optimizer.zero_grad(set_to_none=True)
    values_B, balance = case_losses(mixture, rows, plan, generator)
    objective = objectives.weighted_mean(values_B, rows.weight_N)
    total = objective if balance is None or not plan.balance else objective + plan.balance * balance
    if total.requires_grad:
        total.backward()
        optimizer.step()
    return objective.detach()


def make_optimizer(mixture: Mixture, settings: Settings) -> torch.optim.Optimizer:
    """Make AdamW over what learns; widths have no weight decay, which would draw them to 1."""
    learning = mixture.learning()
    widths = {id(expert.log_width) for expert in mixture.all_experts()}
    groups = [
        {"params": [p for p in learning if id(p) not in widths], "weight_decay": settings.weight_decay},
        {"params": [p for p in learning if id(p) in widths], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def evaluate(mixture: Mixture, rows: Rows, plan: Plan) -> float:
    """Give the mean objective of rows, in chunks, without draws."""
    total = torch.zeros((), dtype=rows.weight_N.dtype, device=rows.weight_N.device)
    with evaluating(mixture):
        for start in range(0, len(rows), EVALUATION_ROWS):
            part = rows.take(slice(start, start + EVALUATION_ROWS))
            total += (part.weight_N * case_losses(mixture, part, plan, None)[0]).sum()
    return float(total / rows.weight_N.sum())


def train(
    mixture: Mixture,
    rows: Rows,
    held_out: Rows | None,
    plan: Plan,
    settings: Settings,
    meter: Meter | None = None,
) -> Run:
    """Train until the epochs are over, or the held-out rows have not improved for so long.

    With held-out rows the parameters of the best epoch are kept. The step falls along a cosine to 0.

    Raises
    ------
    ValueError : the objective is no longer a number.
    """
    run, best, since = Run(), math.inf, 0
    optimizer = make_optimizer(mixture, settings) if mixture.learning() else None
    kept: dict[str, Tensor] | None = None
    generator = torch.Generator().manual_seed(settings.seed)
    for epoch in range(settings.epochs):
        if optimizer is None:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        mixture.train()
        run.loss_curve.append(_epoch(mixture, rows, plan, optimizer, settings, generator))
        if not math.isfinite(run.loss_curve[-1]):
            raise ValueError(
                f"the objective became {run.loss_curve[-1]} in epoch {epoch + 1}; lower "
                f"learning_rate={settings.learning_rate:g}, or look for a loss or an expert that overflows"
            )
        note = f"loss {run.loss_curve[-1]:.4g}"
        if held_out is not None:
            run.validation_curve.append(evaluate(mixture, held_out, plan))
            note += f", held out {run.validation_curve[-1]:.4g}"
            since += 1
            if run.validation_curve[-1] < best:
                best, since = run.validation_curve[-1], 0
                kept = {name: value.clone() for name, value in mixture.state_dict().items()}
        if meter is not None:
            meter.advance(1, note)
        if since >= settings.patience:
            break
    if kept is not None:
        mixture.load_state_dict(kept)
    mixture.eval()
    return run


def _epoch(
    mixture: Mixture,
    rows: Rows,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    generator: torch.Generator,
) -> float:
    """Pass over the rows once, in a new order; give the mean objective of the batches."""
    order = torch.randperm(len(rows), generator=generator).to(rows.weight_N.device)
    total = torch.zeros((), dtype=rows.weight_N.dtype, device=rows.weight_N.device)
    for index in _batches(order, settings.batch_size):
        batch = rows if len(index) == len(rows) else rows.take(index)
        total += len(index) * step(mixture, batch, plan, optimizer, generator)
    return float(total / len(rows))


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """Divide the rows; a single one that is left over joins the batch before.

    One row alone makes a step of its own, and batch normalisation refuses it.
    """
    parts = list(order.split(size))
    if size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def learn_novelty(gate: GrownGate, new_ND: Tensor, old_ND: Tensor) -> None:
    """Learn where the new region ends: logistic regression of new rows against old ones, of equal weight.

    Only the new output of the gate learns. A small ridge, as few new rows are often divided from the old.
    """
    optimizer = torch.optim.LBFGS(gate.novelty.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        missed = softplus(-gate.log_odds(new_ND)).mean() + softplus(gate.log_odds(old_ND)).mean()
        total = missed + NOVELTY_RIDGE * gate.novelty.weight.square().sum()
        total.backward()
        return float(total.detach())

    optimizer.step(closure)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Draw what torch draws by itself (first weights, dropout) from a seed, and put its state back after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
