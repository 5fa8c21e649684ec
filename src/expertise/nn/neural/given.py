"""What users give to a neural mixture: modules and fitted estimators, put in frames, and losses."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from expertise.nn import objectives
from expertise.nn.neural.networks import AbstractExpert, FittedExpert, NetworkExpert, NetworkGate, Shape, mlp


def frame_gate(given: Any, count: int, shape: Shape, hidden: Sequence[int], *, raw: bool) -> nn.Module:
    """Frame a gate: None, a network with these hidden layers; or a module, of which a copy is trained."""
    if given is None:
        return NetworkGate(mlp(len(shape.gate_columns), hidden, count), count, shape, hidden=hidden)
    return NetworkGate(copy.deepcopy(given), count, shape, raw=raw)


def frame_expert(
    given: Any, shape: Shape, hidden: Sequence[int], labels: npt.NDArray[Any] | None, *, raw: bool
) -> AbstractExpert:
    """Frame an expert: None, a network; a module, of which a copy is trained; or a fitted estimator."""
    if given is None:
        return NetworkExpert(mlp(len(shape.x.mean), hidden, shape.outputs), shape, hidden=hidden)
    if isinstance(given, nn.Module):
        return NetworkExpert(copy.deepcopy(given), shape, raw=raw)
    check_fitted_expert(given)
    return FittedExpert(given, shape, labels)


def check_fitted_expert(expert: Any) -> None:
    """Check that this is a fitted scikit-learn estimator."""
    if isinstance(expert, type) or not callable(getattr(expert, "predict", None)):
        raise ValueError(
            "experts must hold torch.nn.Modules, fitted scikit-learn estimators, or None for a network made "
            f"here; got {expert!r:.80}"
        )
    try:
        check_is_fitted(expert)
    except (NotFittedError, TypeError):
        raise ValueError(
            f"experts holds {expert!r:.80}, which is not fitted, and estimators do not learn here; fit it "
            "first. If it was fitted: clone (also in searches and cross-validation) forgets "
            "that; wrap it as sklearn.frozen.FrozenEstimator(...)"
        ) from None


def check_columns(expert: Any, count: int, names: Any) -> None:
    """Check that an estimator was fitted on the columns that X has, by their order where both have names."""
    own, own_count = getattr(expert, "feature_names_in_", None), getattr(expert, "n_features_in_", count)
    same = own_count == count
    if own is not None and names is not None:
        same = list(own) == list(names)
    if not same:
        raise ValueError(
            f"experts holds {expert!r:.80}, which was fitted on {_columns(own_count, own)}; X has "
            f"{_columns(count, names)}; fit it on the same columns in the same order"
        )


def _columns(count: int, names: Any) -> str:
    return f"{count} columns" if names is None else f"the columns {', '.join(map(str, names)):.120}"


class ReturnsTensor:
    """A loss that was given: says so where it gives no tensor."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Any]) -> None:
        self.loss = loss

    def __call__(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Give the loss of each case, (B,)."""
        values = self.loss(y, prediction)
        if not isinstance(values, Tensor):
            raise ValueError(
                f"loss must give a torch tensor, one value for each case; got {type(values).__name__}"
            )
        return values


class OnTheOriginalScale:
    """A loss of y and predictions as the user knows them, (B,) where there is one output."""

    def __init__(self, loss: objectives.Loss, mean: Tensor, scale: Tensor, single: bool) -> None:
        self.loss, self.mean, self.scale, self.single = loss, mean, scale, single

    def __call__(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Give the loss of each case on the original scale, (B,)."""
        y, prediction = y * self.scale + self.mean, prediction * self.scale + self.mean
        return self.loss(y[:, 0], prediction[:, 0]) if self.single else self.loss(y, prediction)
