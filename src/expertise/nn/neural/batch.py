"""What a batch costs: which experts run on which rows, what they say, and the objective of each row.

Letters: N rows, B rows of a batch, D columns, E experts, K chosen, P pairs of row and expert, O outputs (or V
classes).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from expertise.nn import objectives
from expertise.nn.neural.networks import Mixture, log_sigmas


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows on the device: inputs and targets inside their scaling, weights of mean 1.

    ``given`` holds what experts that do not learn say, (N, O) each by number: they are asked once.
    """

    x_ND: Tensor
    y: Tensor
    weight_N: Tensor
    given: dict[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.weight_N)

    def take(self, index: Tensor | slice) -> "Rows":
        """Give some rows."""
        given = {k: said[index] for k, said in self.given.items()}
        return Rows(self.x_ND[index], self.y[index], self.weight_N[index], given)


@dataclass(frozen=True)
class Plan:
    """What is minimised.

    objective : a key of OBJECTIVES.
    loss : of (y, what an expert says, as `said` dresses it).
    dress : "mean", "mean_and_width", "log_proba" or "proba": what the loss and the blend see.
    k : experts that a row picks, None for all.
    """

    objective: str
    loss: objectives.Loss
    dress: str
    k: int | None = None
    baseline: str = "batch"
    balance: float = 0.0


@contextmanager
def evaluating(mixture: Mixture) -> Iterator[None]:
    """Switch dropout and the like, and gradients, off for a while."""
    was = mixture.training
    mixture.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        mixture.train(was)


# ---- what the experts say


def say(mixture: Mixture, k: int, rows: Rows, plan: Plan) -> Tensor:
    """Give what expert k says of each row, (B, O), or (B, 2 O) with its widths."""
    expert = mixture.expert(k)
    out_BO = rows.given[k] if k in rows.given else expert(rows.x_ND)
    if plan.dress == "proba":
        return out_BO.exp()
    if plan.dress == "mean_and_width":
        return torch.cat([out_BO, expert.log_sigma().expand_as(out_BO)], dim=1)
    return out_BO


def say_all(mixture: Mixture, rows: Rows, plan: Plan) -> Tensor:
    """Give what every expert says, (B, E, O), or (B, E, 2 O) with their widths."""
    bare = replace(plan, dress="mean") if plan.dress == "mean_and_width" else plan
    out_BEO = torch.stack([say(mixture, k, rows, bare) for k in range(len(mixture.experts))], dim=1)
    if bare is plan:
        return out_BEO
    # all widths at once: small operations, one for each expert, took a third of a step
    return torch.cat([out_BEO, log_sigmas(mixture.all_experts()).expand_as(out_BEO)], dim=2)


def say_chosen(mixture: Mixture, chosen_BK: Tensor, rows: Rows, plan: Plan) -> Tensor:
    """Give what the chosen experts say, (B, K, O); each runs on its own rows only, or not at all.

    An expert that no row chose is not in the graph: its parameters have no gradient (None, not 0), so the
    optimizer leaves them and their momentum alone, weight decay included.
    """
    B, K = chosen_BK.shape
    flat_P = chosen_BK.flatten()
    order_P = torch.argsort(flat_P, stable=True)
    counts = torch.bincount(flat_P, minlength=len(mixture.experts)).tolist()
    parts = []
    for k, index in enumerate(order_P.split(counts)):
        if len(index):
            parts.append(say(mixture, k, rows.take(index // K), plan))
    back_P = torch.empty_like(order_P).scatter_(0, order_P, torch.arange(B * K, device=order_P.device))
    return torch.cat(parts)[back_P].view(B, K, -1)


# ---- what a batch costs


def pick(log_gate_BE: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give the k likeliest experts of each row, (B, K), and the logarithms of their weights.

    The weights are renormalised over the chosen. With k = 1 that would be the constant 1, without a gradient
    for the gate: see `hard_pick`.
    """
    log_chosen_BK, chosen_BK = log_gate_BE.topk(k, dim=1)
    return chosen_BK, log_chosen_BK - log_chosen_BK.logsumexp(dim=1, keepdim=True)


def balance_loss(log_gate_BE: Tensor, chosen_BK: Tensor, weight_B: Tensor) -> Tensor:
    """Give E sum_e f_e P_e (Fedus, Zoph and Shazeer 2021, eq. 4-6), 1 where all is even.

    f is the share of the choices that fell on an expert, without a gradient; P its mean probability.
    """
    E = log_gate_BE.shape[1]
    K = chosen_BK.shape[1]
    share_B = weight_B / weight_B.sum()
    f_E = torch.zeros(E, dtype=share_B.dtype, device=share_B.device)
    f_E.index_add_(0, chosen_BK.flatten(), share_B.repeat_interleave(K) / K)
    return E * (f_E * (share_B[:, None] * log_gate_BE.exp()).sum(dim=0)).sum()


def case_losses(
    mixture: Mixture, rows: Rows, plan: Plan, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """Give the objective of each row, (B,), and the balance loss of the batch where experts are picked."""
    log_gate_BE = mixture.gate(rows.x_ND).log_softmax(dim=1)
    if mixture.gate_frozen:
        log_gate_BE = log_gate_BE.detach()
    if plan.objective == "reinforce":
        return _reinforce(mixture, log_gate_BE, rows, plan, generator), None
    objective = objectives.OBJECTIVES[plan.objective]
    if plan.k is None:
        return objective(log_gate_BE, say_all(mixture, rows, plan), rows.y, plan.loss), None
    chosen_BK, log_weight_BK = pick(log_gate_BE, plan.k)
    outputs_BKO = say_chosen(mixture, chosen_BK, rows, plan)
    values_B = objective(log_weight_BK, outputs_BKO, rows.y, plan.loss)
    if plan.k == 1 and log_gate_BE.shape[1] > 1:
        # one expert: its weight is 1 in every objective, so the gate learns as a hard gate does
        others_B = objectives.mean_of_others(values_B, rows.weight_N)
        log_chosen_B = log_gate_BE.gather(1, chosen_BK)[:, 0]
        values_B = objectives.hard_gate(log_chosen_B, values_B, others_B)
    return values_B, balance_loss(log_gate_BE, chosen_BK, rows.weight_N)


def _reinforce(
    mixture: Mixture, log_gate_BE: Tensor, rows: Rows, plan: Plan, generator: torch.Generator | None
) -> Tensor:
    """Train only the experts that were drawn; the others run where the baseline needs all."""
    if generator is None:  # evaluation: the mean over the draws, without drawing
        return objectives.expected(log_gate_BE, say_all(mixture, rows, plan), rows.y, plan.loss)
    chosen_B1 = objectives.sample_experts(log_gate_BE, generator)[:, None]
    outputs_B1O = say_chosen(mixture, chosen_B1, rows, plan)
    loss_B = objectives.each_loss(plan.loss, rows.y, outputs_B1O)[:, 0]
    if plan.baseline == "gate":
        # apart, without gradients: of one graph, experts that were not drawn would get gradients of 0, with
        # which weight decay and momentum move them
        with evaluating(mixture):
            baseline_B = objectives.expected(log_gate_BE, say_all(mixture, rows, plan), rows.y, plan.loss)
    elif plan.baseline == "batch":
        baseline_B = objectives.mean_of_others(loss_B, rows.weight_N)
    else:
        baseline_B = torch.zeros_like(loss_B)
    return objectives.hard_gate(log_gate_BE.gather(1, chosen_B1)[:, 0], loss_B, baseline_B)
