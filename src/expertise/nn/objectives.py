"""What a mixture trained by gradient minimises: who learns from a case, and how much.

Letters: B cases, E experts (all, or those that a router picked), O outputs, V classes.

Every objective takes the logarithm of the gate (B, E), what the experts said (B, E, O), the targets and a
loss, and gives one value for each case, (B,); `weighted_mean` makes one number of them. They know nothing of
networks, so they serve anybody's own modules:

>>> from torch import nn
>>> _ = torch.manual_seed(0)
>>> x = torch.linspace(-1, 1, 41)[:, None]
>>> y = 4 * x.abs()
>>> gate, experts = nn.Linear(1, 2), nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
>>> parameters = [*gate.parameters(), *experts.parameters()]
>>> for epoch in range(1000):  # full-batch gradient descent with a fixed step
...     log_gate = gate(x).log_softmax(dim=1)
...     outputs = torch.stack([expert(x) for expert in experts], dim=1)
...     objective = weighted_mean(OBJECTIVES["likelihood"](log_gate, outputs, y))
...     with torch.no_grad():
...         for parameter, slope in zip(parameters, torch.autograd.grad(objective, parameters)):
...             parameter -= 0.3 * slope
>>> [round(expert.weight.item(), 1) for expert in experts]  # a line each
[-3.8, 3.8]
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "BASELINES",
    "OBJECTIVES",
    "Loss",
    "Objective",
    "cooperative",
    "cross_entropy",
    "each_loss",
    "expected",
    "gaussian_loss",
    "half_squared_error",
    "hard_gate",
    "likelihood",
    "log_loss",
    "mean_of_others",
    "reinforce",
    "sample_experts",
    "squared_error",
    "weighted_mean",
]

Loss = Callable[[Tensor, Tensor], Tensor]  # (y, prediction) -> (B,), a loss for each case
Objective = Callable[..., Tensor]
BASELINES = ("none", "batch", "gate")


# ---- losses of one prediction


def squared_error(y: Tensor, prediction: Tensor) -> Tensor:
    """Give ||y - prediction||^2 of each case, (B,), summed over the outputs."""
    return _sum_outputs((prediction - y).square())


def half_squared_error(y: Tensor, prediction: Tensor) -> Tensor:
    """Give ||y - prediction||^2 / 2: minus the log density of a Gaussian of width 1, but for a constant."""
    return squared_error(y, prediction) / 2


def gaussian_loss(y: Tensor, prediction: Tensor) -> Tensor:
    """Give minus the log density of y under a Gaussian, (B,), summed over the outputs.

    Parameters
    ----------
    y : (B, O).
    prediction : (B, 2 O), the means and then the logarithms of the widths, so that each expert may have its
        own (Weigend, Mangeas and Srivastava 1995).
    """
    mean, log_width = prediction.chunk(2, dim=-1)
    z = (y - mean) * torch.exp(-log_width)
    return _sum_outputs(z.square() / 2 + log_width + math.log(2 * math.pi) / 2)


def log_loss(y: Tensor, log_probabilities_BV: Tensor) -> Tensor:
    """Give minus the log probability of class y (B,) from log probabilities, (B,)."""
    return -log_probabilities_BV.gather(1, y[:, None])[:, 0]


def cross_entropy(y: Tensor, probabilities_BV: Tensor) -> Tensor:
    """Give minus the log probability of class y (B,) from probabilities, (B,)."""
    picked_B = probabilities_BV.gather(1, y[:, None])[:, 0]
    return -torch.log(picked_B.clamp_min(torch.finfo(picked_B.dtype).tiny))


def _sum_outputs(values: Tensor) -> Tensor:
    return values if values.ndim == 1 else values.flatten(1).sum(dim=1)


def each_loss(loss: Loss, y: Tensor, outputs_BEO: Tensor) -> Tensor:
    """Give the loss of every expert for every case, (B, E).

    Raises
    ------
    ValueError : the loss does not give one value for each case.
    """
    B, E = outputs_BEO.shape[:2]
    values = loss(y.repeat_interleave(E, dim=0), outputs_BEO.flatten(0, 1))
    return _checked(values, B * E).view(B, E)


def _checked(values: Tensor, cases: int) -> Tensor:
    if values.shape != (cases,):
        raise ValueError(
            f"loss must give one value for each case, the shape ({cases},); got {tuple(values.shape)}; "
            "take the sum or mean over the outputs, not over the cases"
        )
    return values


def weighted_mean(values_B: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Give the mean of w_i v_i over the cases.

    The weights are on the scale where their mean over all the data, not over the batch, is 1: then the mean
    of the gradients of all batches is the gradient of all the data.
    """
    return values_B.mean() if weight_B is None else (weight_B * values_B).mean()


# ---- the objectives


def cooperative(log_gate_BE: Tensor, outputs_BEO: Tensor, y: Tensor, loss: Loss = squared_error) -> Tensor:
    """Give the loss of the blend, loss(y, sum_k p_k o_k): the experts work together, and none need be right.

    E1 of Jacobs, Jordan, Nowlan and Hinton (1991), there to be avoided; with experts that were trained before
    and frozen the objective of Meta-Pi (Hampshire and Waibel 1992). With squared error
    dE/ds_k = -2 p_k (y - ybar).(o_k - ybar).

    Parameters
    ----------
    log_gate_BE : (B, E) logarithms of gate probabilities.
    outputs_BEO : (B, E, O) what each expert said.
    y : (B, ...) targets, as the loss takes them.
    loss : gives (B,) from y and a prediction (B, O).

    Returns
    -------
    (B,)
    """
    weight_BE1 = torch.exp(log_gate_BE)[:, :, None]
    return _checked(loss(y, (weight_BE1 * outputs_BEO).sum(dim=1)), len(y))


def expected(log_gate_BE: Tensor, outputs_BEO: Tensor, y: Tensor, loss: Loss = squared_error) -> Tensor:
    """Give the expected loss of one expert drawn by the gate, sum_k p_k loss(y, o_k).

    E2 of Jacobs et al. (1991): dE/ds_k = p_k (loss_k - E), dE/do_k = p_k dloss_k/do_k. Arguments and result
    are those of `cooperative`.
    """
    return (torch.exp(log_gate_BE) * each_loss(loss, y, outputs_BEO)).sum(dim=1)


def likelihood(
    log_gate_BE: Tensor, outputs_BEO: Tensor, y: Tensor, loss: Loss = half_squared_error
) -> Tensor:
    """Give minus the log-likelihood, -log sum_k p_k exp(-loss(y, o_k)); the loss is minus a log density.

    E3 of Jacobs et al. (1991): dE/ds_k = p_k - h_k, dE/do_k = h_k dloss_k/do_k, where the responsibility h_k
    is p_k exp(-loss_k) over its sum: the expert that does best already learns most. Arguments and result are
    those of `cooperative`; computed from logarithms, so that nothing underflows.

    >>> far = torch.tensor([[[100.0], [110.0]]])
    >>> likelihood(torch.tensor([[0.5, 0.5]]).log(), far, torch.zeros(1, 1)).round()
    tensor([5001.])
    """
    return -torch.logsumexp(log_gate_BE - each_loss(loss, y, outputs_BEO), dim=1)


def reinforce(
    log_gate_BE: Tensor,
    outputs_BEO: Tensor,
    y: Tensor,
    loss: Loss = squared_error,
    *,
    baseline: str = "batch",
    weight_B: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Give the loss of one expert drawn by the gate; only this one learns (hard attention).

    The gate learns by the score function (Williams 1992): its gradient is (L_z - b)(e_z - p), whose mean over
    the draws is exactly the gradient of `expected`. The value of each case is L_z.

    Parameters
    ----------
    log_gate_BE, outputs_BEO, y, loss : as in `cooperative`.
    baseline : b, which lowers the variance and not the mean: "none", 0; "batch", the mean loss of the other
        cases; "gate", the mean loss of all experts weighed by the gate, for which every expert must have run.
    weight_B : (B,) weights of the cases in the batch's mean.
    generator : of the draws.

    Raises
    ------
    ValueError : an unknown baseline.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(map(repr, BASELINES))}; got {baseline!r}")
    chosen_B = sample_experts(log_gate_BE, generator)
    rows_B = torch.arange(len(chosen_B), device=chosen_B.device)
    loss_B = _checked(loss(y, outputs_BEO[rows_B, chosen_B]), len(rows_B))
    if baseline == "gate":
        with torch.no_grad():
            baseline_B = expected(log_gate_BE, outputs_BEO, y, loss)
    else:
        baseline_B = mean_of_others(loss_B, weight_B) if baseline == "batch" else torch.zeros_like(loss_B)
    return hard_gate(log_gate_BE[rows_B, chosen_B], loss_B, baseline_B)


OBJECTIVES: dict[str, Objective] = {
    "likelihood": likelihood,
    "expected": expected,
    "cooperative": cooperative,
    "reinforce": reinforce,
}


# ---- the parts of the hard gate, for those who run only the experts that were drawn


def sample_experts(log_gate_BE: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw an expert for each case by the gate, (B,); one of probability 0 is never drawn."""
    probs_BE = torch.exp(log_gate_BE.detach())
    below_BE = probs_BE.cumsum(dim=1)
    device = log_gate_BE.device if generator is None else generator.device
    # drawn on the generator's device, so that a seed means the same on every machine
    uniform_B1 = torch.rand(len(probs_BE), 1, generator=generator, device=device, dtype=probs_BE.dtype)
    chosen_B = (below_BE <= uniform_B1.to(log_gate_BE.device) * below_BE[:, -1:]).sum(dim=1)
    # rounding may carry a draw over the end: the last expert that has any probability
    last_B = (probs_BE > 0).long().mul(torch.arange(1, probs_BE.shape[1] + 1, device=probs_BE.device)).amax(1)
    return torch.minimum(chosen_B, last_B - 1)


def mean_of_others(loss_B: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Give the mean loss of the other cases of a batch, (B,); 0 where there is none.

    Without the case itself, whose draw would tie the baseline to the score and so bias the gradient.
    """
    weight_B = torch.ones_like(loss_B) if weight_B is None else weight_B
    loss_B = loss_B.detach()
    rest_B = weight_B.sum() - weight_B
    total_B = (weight_B * loss_B).sum() - weight_B * loss_B
    return torch.where(rest_B > 0, total_B / rest_B.clamp_min(torch.finfo(rest_B.dtype).tiny), 0.0)


def hard_gate(log_chosen_B: Tensor, loss_B: Tensor, baseline_B: Tensor) -> Tensor:
    """Give the loss of the drawn experts, with the gradient (L_z - b) d log p_z beside their own.

    Parameters
    ----------
    log_chosen_B : (B,) log gate probability of the drawn expert.
    loss_B : (B,) its loss.
    baseline_B : (B,) what is subtracted from the loss in the gate's gradient.
    """
    score_B = (loss_B - baseline_B).detach() * log_chosen_B
    return loss_B + score_B - score_B.detach()
