"""Experts that no row picked stay as they are: weights, momentum and all.

Letters of shapes: E experts, R experts that were not picked.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expertise.nn._ranks import Group, sum_over_ranks
from expertise.nn.experts import ExpertList, Experts
from expertise.nn.layer import MoE
from expertise.nn.recording import Recorded
from expertise.nn.routing import Routing, SoftRouting
from expertise.nn.soft import SoftMoE

__all__ = ["only_picked"]

Layer = MoE | SoftMoE
Pairs = Recorded | Sequence[tuple[nn.Module, Routing]]


@contextmanager
def only_picked(optimizer: Optimizer, routings: Pairs, group: Group = None) -> Iterator[None]:
    """Keep experts that no row picked from being moved by the optimizer's step in this block.

    Their gradient is 0, but momentum, weight decay and Adam's running means would move them all the same.
    Here their rows of the stacked weights and of the optimizer's state are put back after the step, bit for
    bit; state that this step has made is set there to what it is before any step. Modules of an `ExpertList`
    that were not picked are shown to the optimizer without gradient, so it passes them over. What is one
    number for a whole parameter, such as Adam's count of steps, goes on.

    An expert is picked when some row of any of the routings runs it, over all routings of its layer, and over
    all layers that share it.

    Parameters
    ----------
    optimizer : its step() is called inside the block, by itself or by a scaler of gradients.
    routings : what `record_routing` gave for all forward passes since the last step, or a list of pairs of an
        `MoE` layer and its routing. The experts of a `SoftMoE` layer all run, so all of them are picked.
    group : process group of torch.distributed, or True for the default one: an expert is picked when any of
        the ranks picked it. Needed in data-parallel training, where gradients are shared.

    Raises
    ------
    ValueError : routings without their layers, or a layer that is none.

    Examples
    --------
    >>> from expertise.nn import Experts, MoE, TopKRouter, record_routing
    >>> layer = MoE(TopKRouter(dim=4, num_experts=8, k=1), Experts(num_experts=8, dim=4, hidden=6))
    >>> optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    >>> before = layer.experts.up_weight.detach().clone()
    >>> with record_routing(layer) as routings:
    ...     layer(torch.randn(1, 4)).sum().backward()
    >>> with only_picked(optimizer, routings):
    ...     optimizer.step()
    >>> (layer.experts.up_weight != before).flatten(1).any(1).sum().item()  # one row picked one expert
    1
    """
    picked = _picked(_layers_of(routings), group)
    held = list(_rows_to_keep(picked, optimizer))
    with _without_gradient(picked):
        try:
            yield
        finally:
            _put_back(held, optimizer)


@dataclass(frozen=True)
class _Picked:
    """The experts of one module of experts, the layers it serves, and which of its experts ran, (E,) bool."""

    experts: Experts | ExpertList
    layers: list[Layer]
    picked_E: Tensor


@dataclass(frozen=True)
class _Held:
    """Rows of a stacked parameter and of its state, as they were: (R, ...) each."""

    parameter: Tensor
    rows_R: Tensor
    values: Tensor
    state: dict[str, Tensor]


def _layers_of(routings: Pairs) -> list[tuple[Layer, Tensor]]:
    """Give each layer with the load of its experts in one pass, (E,)."""
    how = "give what record_routing gave, or a list of pairs (layer, routing)"
    if isinstance(routings, Routing):
        raise ValueError(f"routings must name their layers; got one Routing; {how}")
    pairs: Iterable[object] = (
        zip(routings.layers, routings, strict=True) if isinstance(routings, Recorded) else routings
    )
    found = list[tuple[Layer, Tensor]]()
    for pair in pairs:
        match pair:
            case (MoE() as layer, Routing() as routing):
                found.append((layer, routing.picked_load_E))
            case (SoftMoE() as layer, SoftRouting() as soft):
                every_E = torch.ones(soft.num_experts, dtype=torch.int64, device=soft.logits_BLS.device)
                found.append((layer, every_E))
            case (nn.Module() as layer, Routing()):
                raise ValueError(f"routings must be those of MoE layers; got one of {type(layer).__name__}")
            case _:
                raise ValueError(f"routings must name their layers; got one {type(pair).__name__}; {how}")
    return found


def _picked(pairs: list[tuple[Layer, Tensor]], group: Group) -> list[_Picked]:
    """Say which experts ran, of each module of experts: over all routings, layers and ranks."""
    loads: dict[int, Tensor] = {}
    layers: dict[int, list[Layer]] = {}
    for layer, load_E in pairs:
        key = id(layer.experts)
        loads[key] = loads[key] + load_E.to(loads[key].device) if key in loads else load_E
        layers.setdefault(key, []).append(layer)
    if not loads:
        return []
    sums, _ = sum_over_ranks(list(loads.values()), group)
    return [
        _Picked(layers[key][0].experts, layers[key], load_E > 0)
        for key, load_E in zip(loads, sums, strict=True)
    ]


def _rows_to_keep(picked: list[_Picked], optimizer: Optimizer) -> Iterator[_Held]:
    """Copy the rows that the step must not move; nothing of the experts that were picked."""
    by_parameter: dict[Tensor, Tensor] = {}
    for one in picked:
        if isinstance(one.experts, Experts):
            for parameter in one.experts.parameters(recurse=False):
                before = by_parameter.get(parameter)  # weights may be tied between two modules
                by_parameter[parameter] = one.picked_E if before is None else before | one.picked_E
    ours = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for stacked, picked_E in by_parameter.items():
        if stacked in ours and stacked.grad is not None:
            rows_R = (~picked_E).nonzero()[:, 0]
            if len(rows_R):
                state = {name: value[rows_R] for name, value in _stacked_state(optimizer, stacked).items()}
                yield _Held(stacked, rows_R, stacked.detach()[rows_R], state)


def _stacked_state(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Give the tensors of a parameter's state that have a row for each expert."""
    state = optimizer.state.get(parameter, {})
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor) and value.shape[:1] == parameter.shape[:1]
    }


@torch.no_grad()
def _put_back(held: list[_Held], optimizer: Optimizer) -> None:
    for one in held:
        one.parameter[one.rows_R] = one.values
        for name, value in _stacked_state(optimizer, one.parameter).items():
            if name in one.state:
                value[one.rows_R] = one.state[name]
            elif name != "step_size":  # of Rprop: a first step leaves it as it was made
                value[one.rows_R] = 0


@contextmanager
def _without_gradient(picked: list[_Picked]) -> Iterator[None]:
    """Take the gradients away from the modules that were not picked, for the time of this block."""
    idle, busy = dict[nn.Parameter, None](), set[nn.Parameter]()
    for one in picked:
        if isinstance(one.experts, ExpertList):
            for module, ran in zip(one.experts.experts, one.picked_E.tolist(), strict=True):
                if ran:
                    busy.update(module.parameters())
                else:
                    idle.update(dict.fromkeys(module.parameters()))
        for layer in one.layers:
            if (
                isinstance(layer, MoE) and layer.shared is not None
            ):  # it runs on every row, and may be one of the experts too
                busy.update(layer.shared.parameters())
    gradients = [(parameter, parameter.grad) for parameter in idle if parameter not in busy]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
