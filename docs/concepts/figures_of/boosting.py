"""The figures of boosting.md."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.ensemble import BaggingRegressor, HistGradientBoostingRegressor, StackingRegressor
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from expertise import MixtureOfExpertsRegressor
from figures_of.shared import BLUE, EXPERTS, GREY, PALE, RED, Array, Drawing, Numbers, fitted


def regimes(n: int, seed: int, rows: int) -> tuple[Array, Array]:
    """Draw four linear regimes in six inputs, bordered by hyperplanes."""
    task = np.random.default_rng(seed)
    borders, coef = 2 * task.normal(size=(6, 4)), task.normal(size=(7, 4))
    rng = np.random.default_rng([seed, rows])
    X = rng.uniform(-1, 1, (n, 6))
    means = X @ coef[1:] + coef[0]
    return X, means[np.arange(n), (X @ borders).argmax(axis=1)] + 0.2 * rng.normal(size=n)


def additive(n: int, seed: int, rows: int) -> tuple[Array, Array]:
    """Draw a sum of smooth functions of one input each; two of six inputs do nothing."""
    rng = np.random.default_rng([seed, rows])
    X = rng.uniform(-1, 1, (n, 6))
    law = np.sin(np.pi * X[:, 0]) + 2 * X[:, 1] ** 2 + np.exp(X[:, 2]) + X[:, 3]
    return X, law + 0.2 * rng.normal(size=n)


def rivals() -> dict[str, Any]:
    """Make the models that are compared, unfitted."""
    several = [
        ("line", LinearRegression()),
        ("tree", DecisionTreeRegressor(min_samples_leaf=5, random_state=0)),
        ("neighbours", make_pipeline(StandardScaler(), KNeighborsRegressor(8))),
    ]
    return {
        "one line": LinearRegression(),
        "one additive model": make_pipeline(SplineTransformer(6), RidgeCV(np.logspace(-4, 2, 7))),
        "bagging": BaggingRegressor(DecisionTreeRegressor(random_state=0), 100, random_state=0),
        "boosting": HistGradientBoostingRegressor(random_state=0),
        "stacking": StackingRegressor(several, RidgeCV(np.logspace(-4, 2, 7))),
        "mixture": MixtureOfExpertsRegressor("auto", n_init=5, random_state=0),
    }


def ensembles() -> tuple[Numbers, Drawing]:
    """600 rows, noise .2; mean R2 of 5 draws on 3,000 new rows; spread over the cases of members' weights."""
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in rivals()}
    weights: dict[str, Array] = {}
    for task, draw in {"regimes": regimes, "additive": additive}.items():
        for seed in range(5):
            train, test = draw(600, seed, 0), draw(3000, seed, 1)
            models = rivals()
            for name, model in models.items():
                scores[name].setdefault(task, []).append(fitted(model, *train).score(*test))
            if task == "regimes" and seed == 0:
                weights = weights_of(models, test[0])
    numbers = {
        name: {task: float(np.mean(each)) for task, each in tasks.items()} for name, tasks in scores.items()
    }
    for name, weight in weights.items():
        numbers[name]["variance of the weights"] = float(weight.var(axis=0).mean())

    def drawing(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
        place = np.arange(len(numbers))[::-1]
        for task, colour, mark in (("regimes", BLUE, "o"), ("additive", RED, "s")):
            values = [row[task] for row in numbers.values()]
            left.plot(values, place, color=colour, marker=mark, linestyle="", label=task)
        left.set(title="test R2", yticks=place, yticklabels=list(numbers), xlim=(0, 1))
        left.grid(axis="y", color=PALE, linewidth=0.5)
        left.legend(loc="lower left")
        cases = np.arange(40)
        for j in range(weights["mixture"].shape[1]):
            name = "mixture, one colour an expert" if j == 0 else None
            right.scatter(cases, weights["mixture"][cases, j], s=12, color=EXPERTS[j % 4], label=name)
        for j in range(weights["stacking"].shape[1]):
            name = "stack, one line a member" if j == 0 else None
            right.plot(cases, weights["stacking"][cases, j], color=GREY, linestyle="--", label=name)
        right.set(title="weights", xlabel="case", ylim=(-0.05, 1.5), yticks=(0, 0.5, 1))
        right.legend(loc="upper left")

    return numbers, drawing


def weights_of(models: dict[str, Any], X: Array) -> dict[str, Array]:
    """Give the weight of every member in the answer to every case, (n, members), and check that it is so."""
    stack, bag, boost = models["stacking"], models["bagging"], models["boosting"]
    mixture = models["mixture"]
    members = {
        "stacking": stack.transform(X),
        "bagging": np.column_stack([tree.predict(X) for tree in bag.estimators_]),
        "boosting": np.diff(np.column_stack(list(boost.staged_predict(X))), axis=1, prepend=0.0),
        "mixture": mixture.predict_experts(X),
    }
    weights = {
        "stacking": np.tile(stack.final_estimator_.coef_, (len(X), 1)),
        "bagging": np.full(members["bagging"].shape, 1 / len(bag.estimators_)),
        "boosting": np.ones(members["boosting"].shape),
        "mixture": mixture.gate_proba(X),
    }
    for name, weight in weights.items():
        blend = (weight * members[name]).sum(axis=1)
        blend += stack.final_estimator_.intercept_ if name == "stacking" else 0.0
        assert np.allclose(blend, models[name].predict(X)), name
    return weights
