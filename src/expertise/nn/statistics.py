"""How the experts were used: counts and sums over a recorded run, which add up over batches and shards.

Letters of shapes: T tokens, E experts, S steps (forward passes of a layer).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from expertise.nn.balance import entropies
from expertise.nn.recording import Recorded
from expertise.nn.routing import Routing

__all__ = ["LayerStatistics", "RoutingStatistics", "routing_statistics"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """How one layer used its experts. Those of two shards, of the same layer, add up: ``first + second``.

    Attributes
    ----------
    name : of the layer.
    tokens : real tokens.
    load_E : (E,) int64, tokens that chose each expert, before any capacity.
    importance_E : (E,) float64, sum of each expert's weights.
    entropy_sum : sum over the tokens of the entropy of their probabilities, in nats.
    dropped : choices that were lost because the expert was full.
    max_over_mean_S : (S,) float64, max over mean of the load in each forward pass; NaN without tokens.
    """

    name: str
    tokens: int
    load_E: Ints
    importance_E: Floats
    entropy_sum: float
    dropped: int
    max_over_mean_S: Floats

    @property
    def max_over_mean(self) -> float:
        """Load of the busiest expert over the mean, 1 at balance; MaxVio + 1. NaN without tokens."""
        return _max_over_mean(self.load_E)

    @property
    def max_violation(self) -> float:
        """MaxVio (Wang et al. 2024, arXiv 2408.15664, eq. 4): `max_over_mean` - 1."""
        return self.max_over_mean - 1

    @property
    def entropy(self) -> float:
        """Mean entropy of a token's probabilities, in nats: from 0 to log E; NaN without tokens."""
        return self.entropy_sum / self.tokens if self.tokens else math.nan

    @property
    def dropped_share(self) -> float:
        """Part of all choices that were lost; NaN without tokens."""
        total = int(self.load_E.sum())
        return self.dropped / total if total else math.nan

    @property
    def unused(self) -> int:
        """Experts that no token chose."""
        return int((self.load_E == 0).sum())

    def __add__(self, other: "LayerStatistics") -> "LayerStatistics":
        if self.name != other.name or len(self.load_E) != len(other.load_E):
            raise ValueError(
                f"statistics add up for one layer only; got {self.name!r} with {len(self.load_E)} experts "
                f"and {other.name!r} with {len(other.load_E)}"
            )
        return LayerStatistics(
            self.name,
            self.tokens + other.tokens,
            self.load_E + other.load_E,
            self.importance_E + other.importance_E,
            self.entropy_sum + other.entropy_sum,
            self.dropped + other.dropped,
            np.concatenate([self.max_over_mean_S, other.max_over_mean_S]),
        )


@dataclass(frozen=True, eq=False)
class RoutingStatistics:
    """How the layers of a model used their experts. Those of two shards add up: ``first + second``.

    Attributes
    ----------
    layers : statistics of each layer, in the order in which they first ran.
    """

    layers: tuple[LayerStatistics, ...]

    def __add__(self, other: "RoutingStatistics") -> "RoutingStatistics":
        if [one.name for one in self.layers] != [one.name for one in other.layers]:
            raise ValueError(
                "statistics add up for the same layers only; got "
                f"{[one.name for one in self.layers]} and {[one.name for one in other.layers]}"
            )
        return RoutingStatistics(tuple(a + b for a, b in zip(self.layers, other.layers, strict=True)))

    def table(self, *, experts: bool = False) -> str:
        """Give an aligned table: a line for each layer, or with ``experts`` for each expert of each layer."""
        return _aligned(self._by_expert() if experts else self._by_layer())

    def _by_layer(self) -> list[list[str]]:
        rows = [[
            "layer", "tokens", "experts", "unused", "busiest",
            "max/mean", "importance", "entropy", "dropped",
        ]]  # fmt: skip
        for one in self.layers:
            busiest = int(one.load_E.argmax()) if one.load_E.any() else "-"
            rows.append([
                one.name, str(one.tokens), str(len(one.load_E)), str(one.unused), str(busiest),
                _number(one.max_over_mean), _number(_max_over_mean(one.importance_E)),
                _number(one.entropy), _percent(one.dropped_share),
            ])  # fmt: skip
        return rows

    def _by_expert(self) -> list[list[str]]:
        rows = [["layer", "expert", "load", "load/mean", "importance/mean"]]
        for one in self.layers:
            load, importance = _over_mean(one.load_E), _over_mean(one.importance_E)
            for e, count in enumerate(one.load_E):
                rows.append([one.name, str(e), str(count), _number(load[e]), _number(importance[e])])
        return rows


def routing_statistics(
    routings: Recorded | Sequence[Routing], model: nn.Module | None = None
) -> RoutingStatistics:
    """Count how the experts were used.

    Parameters
    ----------
    routings : what `record_routing` gave, of one batch or of many: the passes of a layer are added up. In any
        other sequence each routing is that of a layer of its own; batches are then added with ``+``. Soft
        layers are left out: all of their experts always run.
    model : gives the layers the names that they have in it; unless given, they are "layer 0", "layer 1", ...

    Raises
    ------
    ValueError : there is no routing of a sparse layer, or a layer that is not in ``model``.

    Examples
    --------
    >>> probs_TE = torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    >>> routing = Routing(2, (4,), probs_TE, torch.tensor([[0], [0], [0], [1]]), torch.ones(4, 1))
    >>> statistics = routing_statistics([routing])
    >>> statistics.layers[0].load_E.tolist(), statistics.layers[0].max_over_mean
    ([3, 1], 1.5)
    >>> print((statistics + statistics).table())
    layer    tokens  experts  unused  busiest  max/mean  importance  entropy  dropped
    layer 0       8        2       0        0      1.50        1.50     0.35    0.0 %
    """
    names = _names(routings, model)
    found: dict[str, LayerStatistics] = {}
    for name, routing in zip(names, routings, strict=True):
        if isinstance(routing, Routing):
            one = _of_one(name, routing)
            found[name] = found[name] + one if name in found else one
    if not found:
        raise ValueError(
            f"routings must hold at least one Routing of a sparse layer; got {len(routings)} routings and "
            "none of those; run the model inside the block of record_routing"
        )
    return RoutingStatistics(tuple(found.values()))


def _names(routings: Recorded | Sequence[Routing], model: nn.Module | None) -> list[str]:
    if not isinstance(routings, Recorded):
        if model is not None:
            raise ValueError(
                "model names the layers of what record_routing gave; got another sequence, which does not "
                "say whose routings they are; leave model=None"
            )
        return [f"layer {i}" for i in range(len(routings))]
    if model is None:
        order = {layer: i for i, layer in enumerate(dict.fromkeys(routings.layers))}
        return [f"layer {order[layer]}" for layer in routings.layers]
    names = {module: name or type(module).__name__ for name, module in model.named_modules()}
    for layer in routings.layers:
        if layer not in names:
            raise ValueError(
                f"model must be the one that was recorded; a recorded {type(layer).__name__} is not in it"
            )
    return [names[layer] for layer in routings.layers]


def _of_one(name: str, routing: Routing) -> LayerStatistics:
    with torch.no_grad():
        load_E: Ints = routing.load_E.cpu().numpy()
        return LayerStatistics(
            name,
            int(routing.num_tokens),
            load_E,
            routing.importance_E.double().cpu().numpy(),
            float(entropies(routing).double().sum()),
            int(routing.dropped),
            np.array([_max_over_mean(load_E)]),
        )


def _max_over_mean(values_E: Ints | Floats) -> float:
    return float(_over_mean(values_E).max())


def _over_mean(values_E: Ints | Floats) -> Floats:
    mean = float(values_E.mean())
    return values_E / mean if mean else np.full(len(values_E), math.nan)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def _aligned(rows: list[list[str]]) -> str:
    """Names to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
