"""How well models do on held-out rows, side by side, and whether the mixture helps: paired comparisons."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score

from expertise.table.values import Floats

SMALLEST = 1e-15  # of a probability in a log loss
CONFIDENCE = 0.95
COVERAGE = 0.9
MIXTURE, ONE = "mixture", "one expert"


@dataclass(frozen=True)
class Held:
    """A model's answers on held-out rows.

    Parameters
    ----------
    name : of the model.
    prediction : (n,) numbers, or (n, V) class probabilities.
    log_density : (n,) nats, or None of a model without one.
    interval : (n, 2) of 90 %, or None.
    """

    name: str
    prediction: Floats
    log_density: Floats | None = None
    interval: Floats | None = None


def scores(held: Held, y: npt.NDArray[Any], weight: Floats) -> dict[str, float | None]:
    """Score a model: RMSE, R2, log-likelihood, coverage; or accuracy, log loss, AUC of two classes.

    Parameters
    ----------
    y : (n,) numbers, or codes of classes.
    weight : (n,).
    """
    share = weight / weight.sum()
    if held.prediction.ndim == 1:
        inside = None
        if held.interval is not None:
            inside = float(share @ ((held.interval[:, 0] <= y) & (y <= held.interval[:, 1])))
        return {
            "RMSE": float(np.sqrt(share @ (held.prediction - y) ** 2)),
            "R2": float(r2_score(y, held.prediction, sample_weight=weight)) if len(y) > 1 else None,
            "log-likelihood": None if held.log_density is None else float(share @ held.log_density),
            "90 % covered": inside,
        }
    n_classes = held.prediction.shape[1]
    found: dict[str, float | None] = {
        "accuracy": float(accuracy_score(y, held.prediction.argmax(axis=1), sample_weight=weight)),
        "log loss": float(
            log_loss(y, _inside(held.prediction), sample_weight=weight, labels=np.arange(n_classes))
        ),
    }
    if n_classes == 2:
        both = len(np.unique(y)) == 2
        auc = roc_auc_score(y, held.prediction[:, 1], sample_weight=weight) if both else None
        found["AUC"] = None if auc is None else float(auc)
    return found


def _inside(proba: Floats) -> Floats:
    clipped = np.clip(proba, SMALLEST, 1)
    return np.asarray(clipped / clipped.sum(axis=1, keepdims=True))


def losses(held: Held, y: npt.NDArray[Any]) -> Floats:
    """Give the loss of each row: squared error, or minus the log of the probability of the class: (n,)."""
    if held.prediction.ndim == 1:
        return np.asarray((held.prediction - y) ** 2)
    return np.asarray(-np.log(_inside(held.prediction)[np.arange(len(y)), y]))


def difference(
    a: Floats,
    b: Floats,
    weight: Floats,
    groups: npt.NDArray[Any] | None = None,
    *,
    in_order: bool = False,
) -> tuple[float, float, float]:
    """Give the weighted mean of a - b over rows, and its interval of 95 % by Student's t.

    Rows of a group err together: with ``groups`` (n,) each group counts once. ``in_order`` says that groups
    are moments: then each counts for less, the more it follows the one before (`telling`). One row, or one
    group, says nothing of chance: its interval is without end.

    >>> mean, low, high = difference(np.array([1.0, 2, 3]), np.zeros(3), np.ones(3))
    >>> mean, round(low, 3), round(high, 3)
    (2.0, -0.484, 4.484)
    >>> difference(np.array([1.0, 2, 3]), np.zeros(3), np.ones(3), groups=np.array(["a", "a", "a"]))
    (2.0, -inf, inf)
    """
    share = weight / weight.sum()
    mean = float(share @ (a - b))
    parts = _parts(a - b, weight, groups)
    if len(parts) < 2:
        return mean, -np.inf, np.inf
    count = telling(parts) if in_order else float(len(parts))
    variance = float(parts @ parts) * len(parts) / (len(parts) - 1) * len(parts) / count
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.sqrt(variance))
    return mean, mean - half, mean + half


def _parts(apart: Floats, weight: Floats, groups: npt.NDArray[Any] | None) -> Floats:
    """Give what each row of some weight, or each group, adds to the error of the weighted mean; by group."""
    some = weight > 0
    share = weight[some] / weight.sum()
    parts = share * (apart[some] - share @ apart[some])
    if groups is None:
        return np.asarray(parts)
    return np.asarray(np.bincount(np.unique(groups[some], return_inverse=True)[1], parts), dtype=float)


def telling(parts: Floats) -> float:
    """Give how many independent values tell as much as these (n,), of which each follows the one before.

    Of an autoregression of first order, r, n values are worth n (1 - r) / (1 + r). The correlation with the
    value before, measured on n values about their own mean, is too small by about (1 + 4 r) / n (Kendall
    1954, Biometrika 41:403). At least 2 are given.

    >>> telling(np.array([1.0, -1, 1, -1, 1, -1]))
    6.0
    >>> telling(np.repeat([1.0, -1.0], 50)) < 5
    True
    """
    n, square = len(parts), float(parts @ parts)
    r = float(parts[1:] @ parts[:-1]) / square if square else 0.0
    r = min(max(r + (1 + 4 * r) / n, 0.0), 1.0)
    return max(n * (1 - r) / (1 + r), 2.0)


@dataclass(frozen=True)
class Verdict:
    """Whether the mixture helps, in words; ``helps`` None where nothing was held out."""

    text: str
    helps: bool | None


def verdict(
    models: list[Held],
    y: npt.NDArray[Any],
    weight: Floats,
    n_experts: int,
    *,
    chosen: bool = True,
    groups: npt.NDArray[Any] | None = None,
    in_order: bool = False,
) -> Verdict:
    """Judge the mixture, the first of the models, against the others on the same rows.

    ``chosen`` says that the number of experts was chosen by the fit, and not asked for. ``groups`` (n,) of
    rows that belong together, or, ``in_order``, their moments.
    """
    mixture, *others = models
    metric = "RMSE" if mixture.prediction.ndim == 1 else "log loss"
    loss = {one.name: losses(one, y) for one in models}
    score = {one.name: scores(one, y, weight)[metric] or 0.0 for one in models}
    against = {
        one.name: difference(loss[mixture.name], loss[one.name], weight, groups, in_order=in_order)
        for one in others
    }
    best = min(others, key=lambda one: score[one.name]).name
    parts = _parts(loss[mixture.name] - loss[best], weight, groups)
    sets = len(parts)
    rows = f"{len(y):,} held-out row{'' if len(y) == 1 else 's'}"
    if in_order:
        rows += f" in their order, as telling as {telling(parts):,.0f} in no order" if sets > 1 else ""
    elif groups is not None:
        rows += f" of {sets:,} group{'' if sets == 1 else 's'}"
    said = f"{metric} {score[mixture.name]:.4g} on {rows}, against {score[best]:.4g} of {_the(best)}"
    if n_experts == 1:
        start = "One expert is enough: more would not pay for their parameters, so this" if chosen else "This"
        return Verdict(f"{start} is one model and no mixture ({said}).", False)
    if sets < 2:
        return Verdict(
            f"Whether the mixture helps cannot be told: {said}; so few say nothing of chance. Hold more out "
            "(--test).",
            False,
        )
    low, high = against[best][1:]
    one_low, one_high = against[ONE][1:] if ONE in against else (low, high)
    helps_over_one = one_high < 0
    but = _narrow(mixture, y, weight, groups, in_order=in_order)
    if high < 0:
        return Verdict(f"The mixture helps: {said}, and these rows are enough to tell.{but}", True)
    if low > 0 and helps_over_one:
        start = "The mixture helps over one expert, but is not the best here"
        return Verdict(f"{start}: {said}. Use {best} where only the error counts.{but}", True)
    if low > 0 or one_low > 0:
        return Verdict(f"The mixture does not help: {said}. Use {_the(best)}.", False)
    if helps_over_one:
        return Verdict(
            f"The mixture helps over one expert ({metric} {score[ONE]:.4g}): {said}; between these two, the "
            f"rows cannot tell.{but}",
            True,
        )
    return Verdict(
        f"The mixture does not help, as far as {rows} can tell: {said}; that is within chance. One "
        f"expert ({metric} {score[ONE]:.4g}) is simpler.",
        False,
    )


def _narrow(
    mixture: Held, y: npt.NDArray[Any], weight: Floats, groups: npt.NDArray[Any] | None, *, in_order: bool
) -> str:
    """Say so where the mixture's intervals cover clearly less than they claim: small errors hide it."""
    if mixture.interval is None:
        return ""
    inside = ((mixture.interval[:, 0] <= y) & (y <= mixture.interval[:, 1])).astype(float)
    found, _, high = difference(inside, np.zeros(len(y)), weight, groups, in_order=in_order)
    if high >= COVERAGE:
        return ""
    return (
        f" But do not trust its intervals: those of {COVERAGE:.0%} hold {found:.0%} of the rows. Fewer "
        "experts or inputs, or more rows, make them honest."
    )


def _the(name: str) -> str:
    return "one expert" if name == ONE else name
