"""Fit any scikit-learn estimator to weighted rows, and predict rows that it did not see."""

from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.mixture.rows import Array, IntArray

NEGLIGIBLE = 1e-8  # weights below this share of the largest are dropped

# Where predictions of the rows of the fit say little about new rows: these follow single rows.
INTERPOLATING = (
    "sklearn.tree",
    "sklearn.ensemble",
    "sklearn.neighbors",
    "sklearn.gaussian_process",
    "sklearn.neural_network",
    "sklearn.kernel_ridge",
    "xgboost",
    "lightgbm",
    "catboost",
)


def final_step(estimator: Any) -> Any:
    """Give what does the predicting: the last step of a pipeline, the estimator inside a search.

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> final_step(make_pipeline(Ridge(alpha=2)))
    Ridge(alpha=2)
    """
    from sklearn.pipeline import Pipeline

    if isinstance(estimator, Pipeline):
        return final_step(estimator.steps[-1][1])
    inside = estimator.get_params(deep=False)
    # scikit-learn's searches and wrappers call what is inside by one of these names; so do ensembles
    wrapped = (
        None
        if _module(estimator).startswith(INTERPOLATING)
        else inside.get("estimator", inside.get("regressor"))
    )
    return final_step(wrapped) if hasattr(type(wrapped), "fit") else estimator


def interpolates(estimator: Any) -> bool:
    """Say whether the estimator follows single rows, so that its fit of them is no measure of its error.

    Trees, ensembles, neighbours, Gaussian processes, neural networks, and machines with a kernel that is not
    linear.

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.tree import DecisionTreeRegressor
    >>> interpolates(Ridge()), interpolates(DecisionTreeRegressor())
    (False, True)
    """
    last = final_step(estimator)
    if _module(last).startswith("sklearn.svm"):
        return bool(last.get_params().get("kernel", "linear") != "linear")
    return _module(last).startswith(INTERPOLATING)


def _module(estimator: Any) -> str:
    return type(estimator).__module__


def is_already_fitted(estimator: Any) -> bool:
    """Say whether the estimator was fitted."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def weight_parameter(estimator: Any) -> str | None:
    """Give the name under which ``fit`` takes weights, or None if it takes none.

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from sklearn.pipeline import make_pipeline
    >>> weight_parameter(make_pipeline(Ridge()))
    'ridge__sample_weight'
    >>> weight_parameter(KNeighborsRegressor()) is None
    True
    """
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        inside = weight_parameter(last)
        return None if inside is None else f"{name}__{inside}"
    return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None


def resampled(weight: Array, seed: int) -> IntArray:
    """Draw as many rows as there are, by weight: systematic resampling (Kitagawa 1996).

    A row's count is its expected one, rounded down or up; equal weights give every row once.

    >>> resampled(np.array([1.0, 0.0, 2.0, 1.0]), seed=0).tolist()
    [0, 2, 2, 3]
    """
    n = len(weight)
    edges = np.cumsum(weight)
    points = (np.arange(n) + np.random.default_rng(seed).uniform(0.1, 0.9)) * (edges[-1] / n)
    rows: IntArray = np.minimum(np.searchsorted(edges, points), n - 1)
    return rows


def fit_weighted(estimator: Any, x: Any, y: npt.NDArray[Any], weight: Array, seed: int) -> Any:
    """Fit a clone to the rows by their weights; rows of negligible weight are left out.

    Without a parameter for weights the rows are drawn by `resampled`. With fewer rows than two or than the
    neighbours that are asked for, or one class only, it is scikit-learn's dummy: the mean, or that class.
    """
    from sklearn.base import clone, is_classifier
    from sklearn.dummy import DummyClassifier, DummyRegressor

    rows = np.flatnonzero(weight > NEGLIGIBLE * weight.max(initial=0.0))
    classifies = is_classifier(estimator)
    neighbours = final_step(estimator).get_params(deep=False).get("n_neighbors")
    fewest = max(2, neighbours) if isinstance(neighbours, int) else 2
    if len(rows) < fewest or (classifies and (y[rows] == y[rows[0]]).all()):
        dummy = DummyClassifier(strategy="prior") if classifies else DummyRegressor()
        rows = rows if len(rows) else np.arange(len(y))  # nobody: all alike
        some = weight[rows] if weight[rows].sum() > 0 else None
        return dummy.fit(np.zeros((len(rows), 1)), y[rows], sample_weight=some)
    model = clone(estimator)
    unset = [
        name for name, value in model.get_params().items() if name.endswith("random_state") and value is None
    ]
    model.set_params(**dict.fromkeys(unset, seed))  # else each M-step would differ by luck
    name = weight_parameter(model)
    if name is not None:
        return model.fit(x[rows], y[rows], **{name: weight[rows]})
    drawn = rows[resampled(weight[rows], seed)]
    return model.fit(x[drawn], y[drawn])


def fold_of(index: IntArray | None, n: int, folds: int, seed: int) -> IntArray:
    """Give the fold of each of n rows: by index, shuffled, so that chunks may come in any order."""
    order = np.arange(n) if index is None else np.argsort(index, kind="stable")
    fold = np.empty(n, dtype=np.intp)
    fold[order] = np.random.default_rng(seed).permutation(n) % folds
    return fold
