"""The element-wise part of the mixture, with its gradient written by hand.

    p = sum_{m < M} g_m s_m,   g = softmax(a) over M + 1 logits,   s = sigmoid(e)

The last gate belongs to the dummy expert, which says 0. With r the gradient of the loss by p:

    dL/de_m = r g_m s_m (1 - s_m),   dL/da_m = r g_m (s_m - p),   dL/da_M = -r g_M p

The logits of a batch are the largest arrays of a training step (1024 x 5 x 3862 floats are 79 MB), so
they are overwritten: by g and s on the way forward, by their own gradients on the way back. Rows are
taken a few at a time, so that what is between two operations stays in the processor's cache.
`mix_and_pullback` is the same without overwriting, for a compiler to make one loop of. All arithmetic is in
float32.

Letters of shapes: B batch, C classes, M mixtures, G = M + 1 gates.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from expertise.youtube8m.models._abstract import Pullback

# Logits of one block of rows. Smaller blocks fit a core's cache better, but every operation on a block makes
# the threads meet, which is slow where other programs keep the cores busy.
_BLOCK_VALUES = 600_000


def mix(gate_BGC: Tensor, expert_BMC: Tensor) -> Tensor:
    """Pool the experts' answers by the gate's weights.

    Parameters
    ----------
    gate_BGC, expert_BMC : logits (B, M + 1, C) and (B, M, C), in float32 or bfloat16. They are OVERWRITTEN,
        so give the fresh results of a matrix product, which needs them no more.

    Returns
    -------
    (B, C) float32, the probability of every class.
    """
    result: Tensor = _Mix.apply(gate_BGC, expert_BMC)  # type: ignore[no-untyped-call]
    return result


def mix_and_pullback(gate_BGC: Tensor, expert_BMC: Tensor) -> tuple[Tensor, Pullback]:
    """Do as `mix`, overwriting nothing, and give the map from dL/dp (B, C) to the gradients of both logits.

    Written gate by gate, which compiles to one loop over the classes.
    """
    gates, experts = gate_BGC.float().unbind(1), expert_BMC.float().unbind(1)
    largest = functools.reduce(torch.maximum, gates)
    exps = [torch.exp(gate - largest) for gate in gates]
    total = functools.reduce(torch.add, exps)
    g, s = [e / total for e in exps], [torch.sigmoid(expert) for expert in experts]
    p_BC = functools.reduce(torch.add, [weight * vote for weight, vote in zip(g, s, strict=False)])

    def pullback(r_BC: Tensor) -> tuple[Tensor, Tensor]:
        votes = list(zip(g, s, strict=False))  # one gate more than experts: the dummy's
        by_gate = [r_BC * weight * (vote - p_BC) for weight, vote in votes] + [-r_BC * g[-1] * p_BC]
        by_expert = [r_BC * weight * vote * (1.0 - vote) for weight, vote in votes]
        return (
            torch.stack(by_gate, 1).to(gate_BGC.dtype),
            torch.stack(by_expert, 1).to(expert_BMC.dtype),
        )

    return p_BC, pullback


def gate_and_votes(gate_BGC: Tensor, expert_BMC: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gate's weights (B, M + 1, C) and the experts' votes (B, M, C), float32, as new arrays."""
    return torch.softmax(gate_BGC.float(), dim=1), torch.sigmoid(expert_BMC.float())


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_BGC: Tensor, expert_BMC: Tensor) -> Tensor:
        p_BC = gate_BGC.new_empty((gate_BGC.shape[0], gate_BGC.shape[2]), dtype=torch.float32)
        rows = _block_rows(gate_BGC, expert_BMC)
        for gate, expert, p in zip(
            gate_BGC.split(rows), expert_BMC.split(rows), p_BC.split(rows), strict=True
        ):
            g, s = gate.float(), expert.float()  # the blocks themselves where they are float32 already
            g.sub_(g.amax(dim=1, keepdim=True)).exp_()
            g.mul_(g.sum(dim=1, keepdim=True).reciprocal_())
            s.sigmoid_()
            torch.sum(g[:, :-1] * s, dim=1, out=p)
            if gate.dtype != torch.float32:
                gate.copy_(g)
                expert.copy_(s)
        ctx.save_for_backward(gate_BGC, expert_BMC, p_BC)
        return p_BC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, r_BC: Tensor) -> tuple[Tensor, Tensor]:
        gate_BGC, expert_BMC, p_BC = ctx.saved_tensors
        rows = _block_rows(gate_BGC, expert_BMC)
        blocks = (gate_BGC.split(rows), expert_BMC.split(rows), p_BC.split(rows), r_BC.split(rows))
        for gate, expert, p, r in zip(*blocks, strict=True):
            g, s = gate.float(), expert.float()
            g.mul_(r.unsqueeze(1))
            voted = g[:, :-1] * s
            g.mul_(p.unsqueeze(1)).neg_()
            g[:, :-1].add_(voted)
            s.neg_().add_(1.0).mul_(voted)
            if gate.dtype != torch.float32:
                gate.copy_(g)
                expert.copy_(s)
        return gate_BGC, expert_BMC


def _block_rows(gate_BGC: Tensor, expert_BMC: Tensor) -> int:
    values = (gate_BGC.shape[1] + expert_BMC.shape[1]) * gate_BGC.shape[2]
    on_cpu = gate_BGC.device.type == "cpu"
    return max(1, _BLOCK_VALUES // values) if on_cpu else max(1, gate_BGC.shape[0])
