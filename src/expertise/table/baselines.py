"""What a mixture must beat, fitted on the same rows: one expert, ridge or logistic regression, boosting."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from expertise.table.scoring import Held
from expertise.table.values import Floats

RIDGES = np.logspace(-3, 5, 33)


def linear(task: str) -> tuple[str, Any]:
    """Give the linear model: ridge regression, its penalty by leave-one-out; or logistic regression."""
    if task == "regression":
        return "ridge regression", make_pipeline(StandardScaler(), RidgeCV(RIDGES))
    return "logistic regression", make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def boosting(task: str, seed: int) -> tuple[str, Any]:
    """Give gradient boosting with its usual settings."""
    if task == "regression":
        return "gradient boosting", HistGradientBoostingRegressor(random_state=seed)
    return "gradient boosting", HistGradientBoostingClassifier(random_state=seed)


def fit_and_predict(
    name: str, model: Any, X: Floats, y: npt.NDArray[Any], weight: Floats, new: Floats, n_classes: int
) -> Held:
    """Fit a baseline, and give its answers to new rows; codes of classes that it never saw get 0."""
    if name == "gradient boosting":
        model.fit(X, y, sample_weight=weight)
    else:
        last = model.steps[-1][0]
        model.fit(X, y, **{f"{last}__sample_weight": weight})
    if not n_classes:
        return Held(name, np.asarray(model.predict(new), float))
    proba = np.zeros((len(new), n_classes))
    proba[:, model.classes_] = model.predict_proba(new)
    return Held(name, proba)
