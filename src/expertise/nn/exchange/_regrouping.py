"""A layer anew with fewer experts, each made of a group of the old ones: pruning and merging are both this.

Letters of shapes: E experts, G groups of experts, D model.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expertise.nn.exchange._parts import arguments_of, copied, experts_of, layer_arguments
from expertise.nn.experts import ExpertList, Experts
from expertise.nn.layer import MoE
from expertise.nn.routers._abstract import AbstractRouter

Groups = Sequence[Sequence[int]]
Shares = Sequence[Sequence[float]]  # of each member of each group; they sum to 1


def regroup(layer: MoE, groups: Groups, shares: Shares) -> MoE:
    """Make a layer whose expert i is the mean of the experts ``groups[i]``, weighted by ``shares[i]``.

    A group of one keeps its numbers bit for bit.
    """
    made = MoE(
        regrouped_router(layer.router, groups, shares),
        _regrouped_experts(layer.experts, groups, shares),
        shared=copy.deepcopy(layer.shared),
        **layer_arguments(layer),
    )
    if layer.shared_gate is not None:
        made.shared_gate = copy.deepcopy(layer.shared_gate)
    return made.train(layer.training)


def mixed(tensor: Tensor, groups: Groups, shares: Shares) -> Tensor:
    """Give the weighted means of rows, (E, ...) -> (groups, ...); of one row the row itself.

    >>> mixed(torch.tensor([1.0, 2.0, 6.0]), [[1], [0, 2]], [[1.0], [0.6, 0.4]]).tolist()
    [2.0, 3.0]
    """
    tensor = tensor.detach()
    rows = []
    for group, share in zip(groups, shares, strict=True):
        if len(group) == 1:
            rows.append(tensor[group[0]])
            continue
        # in double precision: bfloat16 would lose the small shares
        parts = tensor[list(group)].double()
        weights = torch.tensor(list(share), dtype=torch.float64, device=tensor.device)
        rows.append(torch.tensordot(weights, parts, 1).to(tensor.dtype))
    return torch.stack(rows)


def _regrouped_experts(experts: Experts | ExpertList, groups: Groups, shares: Shares) -> Experts | ExpertList:
    if isinstance(experts, ExpertList):
        modules = list(experts.experts)
        return ExpertList(
            _mean_module([modules[e] for e in group], share)
            for group, share in zip(groups, shares, strict=True)
        )
    values = {
        name: mixed(parameter, groups, shares).requires_grad_(parameter.requires_grad)
        for name, parameter in experts.named_parameters()
    }
    return experts_of(**values, activation=experts.activation, dropout=experts.dropout)


def _mean_module(modules: list[nn.Module], share: Sequence[float]) -> nn.Module:
    made = copy.deepcopy(modules[0])
    if len(modules) == 1:
        return made
    states = [module.state_dict() for module in modules]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if any(type(module) is not type(made) for module in modules) or any(s != shapes[0] for s in shapes):
        raise ValueError(
            "groups: only modules of one class and of equal shapes can be merged; got "
            f"{', '.join(type(module).__name__ for module in modules)}; keep different ones apart"
        )
    row = [list(range(len(modules)))]
    made.load_state_dict(
        {
            name: mixed(torch.stack([state[name] for state in states]), row, [share])[0]
            if states[0][name].is_floating_point()
            else states[0][name]
            for name in states[0]
        }
    )
    return made


def regrouped_router(router: AbstractRouter, groups: Groups, shares: Shares) -> AbstractRouter:
    """Make a router of the same kind for the groups: every row of an expert is mixed, the rest is copied.

    Which tensors have a row for each expert is in their names: the letters of their shapes hold an E.

    With more than one member in a group, softmax routers get a bias; `merge` says why.
    """
    arguments = arguments_of(router)
    arguments |= _fewer(router.name, arguments, len(groups))
    raised_E = [-sum(s * math.log(s) for s in share if s > 0) for share in shares]  # entropy
    softmax = arguments.get("activation", "softmax") == "softmax"
    if softmax and any(raised_E):
        arguments["bias"] = True
    # the numbers that are drawn in the constructor are replaced at once: the caller's generator stays put
    with torch.random.fork_rng(devices=[]):
        made = type(router)(**arguments)
    made.to(next(iter(router.parameters())).device)
    for name, parameter in router.named_parameters():
        rows = _mixed_by_name(name, parameter, groups, shares)
        made._parameters[name] = copied(rows.requires_grad_(parameter.requires_grad))
    for name, buffer in router.named_buffers():
        if name != "load_E":  # counts of the old experts
            made._buffers[name] = _mixed_by_name(name, buffer, groups, shares)
    if softmax and any(raised_E):
        _raise_bias(made, raised_E)
    return made


def _raise_bias(router: AbstractRouter, raised_E: list[float]) -> None:
    """Add to the biases, which are 0 where the old router had none."""
    like, bias_E = router._parameters["weight_ED"], router._parameters["bias_E"]
    assert like is not None
    assert bias_E is not None
    raised_by_E = torch.tensor(raised_E, dtype=torch.float64, device=like.device)
    raised = (bias_E.detach() + raised_by_E).to(like.dtype)
    router._parameters["bias_E"] = copied(raised.requires_grad_(like.requires_grad))


def _mixed_by_name(name: str, tensor: Tensor, groups: Groups, shares: Shares) -> Tensor:
    letters = name.rpartition("_")[2]
    assert "E" not in letters[1:], name
    return mixed(tensor, groups, shares) if letters.startswith("E") else tensor.detach().clone()


def _fewer(name: str, arguments: dict[str, Any], n: int) -> dict[str, Any]:
    """Give the arguments that change with the number of experts: what a token takes at most is clipped."""
    changed: dict[str, Any] = {"num_experts": n}
    most = n
    if arguments.get("groups") is not None:
        within = n // arguments["groups"]
        # a hierarchical router takes k of each group, top_k takes k of all the groups that it keeps
        most = within if name == "hierarchical" else within * arguments["groups_kept"]
    for limit in ("k", "max_experts"):
        if arguments.get(limit) is not None:
            changed[limit] = min(arguments[limit], most)
    if changed.get("k", changed.get("max_experts")) == 1 and arguments.get("renormalize"):
        # one weight divided by itself is 1: so is the softmax of one expert, but not that of several
        if n > 1:
            raise ValueError(
                f"of {n} experts a token could take only one, whose renormalised weight is always 1, so the "
                "router would have no gradient; keep more experts"
            )
        changed["renormalize"] = False
        if "activation" in arguments:
            changed["activation"] = "softmax"
    return changed
