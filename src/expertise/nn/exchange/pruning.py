"""A smaller layer: the experts that few tokens need are left out, and what that costs is measured.

Letters of shapes: E experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expertise.nn.exchange._parts import demand_moe, has_rows, routings_of
from expertise.nn.exchange._regrouping import regroup
from expertise.nn.layer import MoE
from expertise.nn.routers._abstract import check_number, check_one_of, check_whole
from expertise.nn.routing import Routing

BY = ("load", "importance")
Loss = Callable[[MoE], float | Tensor]


@dataclass(frozen=True)
class PruneReport:
    """What was left out, and what it cost.

    Attributes
    ----------
    kept, removed : numbers of the experts in the old layer; the new layer's are ``kept``, in this order.
    by : what decided, "load" or "importance".
    shares : (E,) each old expert's part of all load or importance.
    loss_before, loss_after : of the old and of the new layer; None without a loss.
    """

    kept: tuple[int, ...]
    removed: tuple[int, ...]
    by: str
    shares: tuple[float, ...]
    loss_before: float | None = None
    loss_after: float | None = None

    @property
    def loss_change(self) -> float | None:
        """Loss after minus loss before; None without a loss."""
        if self.loss_before is None or self.loss_after is None:
            return None
        return self.loss_after - self.loss_before

    def __str__(self) -> str:
        lost = sum(self.shares[e] for e in self.removed)
        text = f"{len(self.kept)} of {len(self.shares)} experts kept; removed {list(self.removed)}, "
        text += f"with {lost:.1%} of the {self.by}"
        if self.loss_before is None or self.loss_after is None:
            return text
        return f"{text}; loss {self.loss_before:.6g} -> {self.loss_after:.6g} ({self.loss_change:+.3g})"


def prune(
    layer: MoE,
    routings: Routing | Sequence[Routing],
    *,
    keep: int | None = None,
    tolerance: float | None = None,
    by: str = "load",
    loss: Loss | None = None,
) -> tuple[MoE, PruneReport]:
    """Make a layer without the experts of least load or importance; the others' weights stay bit for bit.

    With ``keep`` that many stay. With ``tolerance`` every expert is tried once, the least used first: it goes
    if the loss without it, and without those that went before, is at most ``tolerance`` above that of the
    whole layer. So loss_change <= tolerance, at the price of about E calls of ``loss``.

    A token that chose an expert that is gone takes its next best. A token takes min(k, experts left); when
    one expert is left, its renormalised weight is 1 (times the router's scale). Capacity settings, the shared
    expert and the selection bias stay. With groups of experts (DeepSeek-V3, hierarchical) every group loses
    the same number.

    Parameters
    ----------
    layer : its router must have a row for each expert; it stays as it is.
    routings : what `record_routing` gave on typical data, or this layer's routings.
    keep, tolerance : how many experts stay; or how much the loss may rise. One of them.
    by : "load", tokens that chose an expert; or "importance", the sum of its weights (Shazeer et al. 2017,
        eq. 6).
    loss : gives the loss of a layer that is like this one, so it must put that into the model:
        ``def loss(candidate): model.ffn = candidate; return evaluate(model)``. The same layer must give
        the same loss. It is called without gradient, at the end with the layer that is returned.

    Returns
    -------
    The new layer, and a `PruneReport`.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> from expertise.nn import Experts, TopKRouter
    >>> _ = torch.manual_seed(0)
    >>> layer = MoE(TopKRouter(4, 6, k=2), Experts(6, 4, 8))
    >>> x = torch.randn(100, 4)
    >>> y, routing = layer(x, return_routing=True)
    >>> smaller, report = prune(layer, routing, keep=4, loss=lambda one: (one(x) - y).square().mean())
    >>> smaller.experts.num_experts, len(report.removed), report.loss_before
    (4, 2, 0.0)
    """
    _check(layer, keep, tolerance, by, loss)
    score_E = _score(layer, routings, by)
    steps = _steps(layer, score_E)
    before = None if loss is None else _number(loss, layer)
    if keep is not None:
        kept = _keep(steps, keep)
    else:
        assert tolerance is not None
        assert loss is not None
        assert before is not None
        kept = _within(layer, steps, tolerance, loss, before)
    smaller = _without(layer, kept)
    total, E = sum(score_E), len(score_E)
    report = PruneReport(
        kept=tuple(kept),
        removed=tuple(e for e in range(E) if e not in kept),
        by=by,
        shares=tuple(score / total if total else 1 / E for score in score_E),
        loss_before=before,
        loss_after=None if loss is None else _number(loss, smaller),
    )
    return smaller, report


def _check(layer: MoE, keep: int | None, tolerance: float | None, by: str, loss: Loss | None) -> None:
    demand_moe(layer)
    if not has_rows(layer.router):
        raise ValueError(
            f"layer: the router {layer.router.name!r} has no row of weights for each expert, so no expert "
            "can be taken out of it; prune knows routers that have a linear map"
        )
    check_one_of("by", by, BY)
    if (keep is None) == (tolerance is None):
        raise ValueError(
            f"give keep or tolerance, one of them; got keep={keep!r} and tolerance={tolerance!r}"
        )
    if keep is not None:
        check_whole("keep", keep, 1, layer.router.num_experts)
    if tolerance is not None:
        check_number("tolerance", tolerance, 0)
        if loss is None:
            raise ValueError("tolerance needs loss, a function of a layer that gives its loss; got None")


def _score(layer: MoE, routings: object, by: str) -> list[float]:
    score_E = torch.zeros(layer.router.num_experts, dtype=torch.float64)
    for routing in routings_of(layer, routings):
        one = routing.load_E if by == "load" else routing.importance_E
        score_E += one.detach().double().cpu()
    found: list[float] = score_E.tolist()
    return found


def _steps(layer: MoE, score_E: list[float]) -> list[list[int]]:
    """Give what is removed at once, least used first: an expert, or with groups one of every group."""

    def ordered(experts: range) -> list[int]:
        return sorted(experts, key=lambda e: (score_E[e], -e))

    groups = vars(layer.router).get("groups") or 1
    size = len(score_E) // groups
    by_group = [ordered(range(g * size, (g + 1) * size)) for g in range(groups)]
    return [list(step) for step in zip(*by_group, strict=True)]


def _keep(steps: list[list[int]], keep: int) -> list[int]:
    groups = len(steps[0])
    if keep % groups:
        raise ValueError(
            f"keep must be a multiple of {groups}, the router's groups of experts, which stay of equal size; "
            f"got {keep}"
        )
    return sorted(e for step in steps[len(steps) - keep // groups :] for e in step)


def _within(layer: MoE, steps: list[list[int]], tolerance: float, loss: Loss, before: float) -> list[int]:
    kept = list(range(layer.router.num_experts))
    for step in steps:
        fewer = [e for e in kept if e not in step]
        if len(fewer) < _least(layer):
            break
        # a loss that is not a number is no reason to remove anything
        if _number(loss, _without(layer, fewer)) - before <= tolerance:
            kept = fewer
    return kept


def _least(layer: MoE) -> int:
    """Give the smallest number of experts that the router can have."""
    arguments = vars(layer.router)
    groups = arguments.get("groups") or 1
    # a token that stays in one group of one expert would have a renormalised weight that is always 1
    alone = groups > 1 and arguments.get("renormalize") and arguments["groups_kept"] == 1
    return groups * 2 if alone else groups


def _without(layer: MoE, kept: list[int]) -> MoE:
    return regroup(layer, [[e] for e in kept], [[1.0]] * len(kept))


def _number(loss: Loss, layer: MoE) -> float:
    with torch.no_grad():
        value = loss(layer)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"loss must give one number; got {value!r:.80}") from error
