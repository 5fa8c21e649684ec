"""The figures of partitioning.md."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from expertise import MixtureOfExpertsRegressor
from figures_of.shared import (
    BLUE,
    DASHES,
    EXPERTS,
    GREEN,
    GREY,
    RED,
    Array,
    Drawing,
    Numbers,
    chosen_tree,
    fitted,
)


def clouds(n: int, seed: int) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Draw two clouds of inputs, left and right, whose laws change between below and above."""
    rng = np.random.default_rng(seed)
    X = rng.normal(0, 1, (n, 2)) + np.where(rng.random(n) < 0.5, 4, -4)[:, None] * [1, 0]
    above = X[:, 1] > 0
    y = np.where(above, X[:, 0], -X[:, 0]) + rng.normal(0, 0.3, n)
    return X, y, above


def partition() -> tuple[Numbers, Drawing]:
    """400 rows, two clouds of inputs, two laws that lie across them; mean R2 of 5 draws, 2,000 new rows."""
    found: dict[str, list[float]] = {
        "clusters of inputs": [],
        "mapping": [],
        "labels given": [],
        "one line": [],
    }
    pictures = {}
    for seed in range(5):
        X, y, above = clouds(400, seed)
        new, target, _ = clouds(2000, 100 + seed)
        models = {
            "clusters of inputs": MixtureOfExpertsRegressor(2, partition="inputs", random_state=0).fit(X, y),
            "mapping": MixtureOfExpertsRegressor(2, random_state=0).fit(X, y),
            "labels given": MixtureOfExpertsRegressor(partition="given", random_state=0).fit(
                X, y, subtask=above
            ),
            "one line": LinearRegression().fit(X, y),
        }
        for name, model in models.items():
            found[name].append(model.score(new, target))
        if seed == 0:
            pictures = {n: (X[:200], models[n].apply(X[:200])) for n in ("clusters of inputs", "mapping")}
    numbers = {name: {"R2": float(np.mean(scores))} for name, scores in found.items()}

    def drawing(figure: Figure) -> None:
        for axes, (name, (X, whose)) in zip(
            figure.subplots(1, 2, sharey=True), pictures.items(), strict=True
        ):
            for k, mark in enumerate(("o", "^")):
                axes.scatter(*X[whose == k].T, s=11, color=EXPERTS[k], marker=mark, alpha=0.7, linewidths=0)
            axes.set(title=f"by {name}: R2 {numbers[name]['R2']:.2f}", xlabel="first input")
            axes.label_outer()
        figure.axes[0].set_ylabel("second input")

    return numbers, drawing


ANGLES = (0, 15, 30, 45)
SLOPES = {"steps": 0.0, "lines": 1.0}


def turned(n: int, angle: float, slope: float, seed: int, rows: int) -> tuple[Array, Array]:
    """Draw two regimes in six inputs, whose border is turned from the first input to the second."""
    coef = slope * np.random.default_rng(seed).normal(size=(6, 2))
    rng = np.random.default_rng([seed, rows])
    X = rng.uniform(-1, 1, (n, 6))
    side = np.cos(np.deg2rad(angle)) * X[:, 0] + np.sin(np.deg2rad(angle)) * X[:, 1] > 0
    means = X @ coef + [-1.0, 1.0]
    return X, means[np.arange(n), side.astype(int)] + 0.2 * rng.normal(size=n)


def oblique() -> tuple[Numbers, Drawing]:
    """300 rows, noise .2; two levels ("steps"), or two lines; mean R2 of 5 draws on 3,000 new rows."""
    numbers: Numbers = {}
    for kind, slope in SLOPES.items():
        for angle in ANGLES:
            scores: dict[str, list[float]] = {}
            for seed in range(5):
                train, test = (turned(n, angle, slope, seed, rows) for n, rows in ((300, 0), (3000, 1)))
                models = {
                    "mixture": MixtureOfExpertsRegressor(2, random_state=seed),
                    "CART": chosen_tree(),
                    "boosting": HistGradientBoostingRegressor(random_state=0),
                    "one line": LinearRegression(),
                }
                for name, model in models.items():
                    scores.setdefault(name, []).append(model.fit(*train).score(*test))
            numbers[f"{kind}, {angle}"] = {name: float(np.mean(each)) for name, each in scores.items()}

    def drawing(figure: Figure) -> None:
        for axes, kind in zip(figure.subplots(1, 2, sharey=True), SLOPES, strict=True):
            for (name, _), colour, dash in zip(
                numbers["steps, 0"].items(), (BLUE, RED, GREEN, GREY), DASHES, strict=True
            ):
                values = [numbers[f"{kind}, {angle}"][name] for angle in ANGLES]
                axes.plot(ANGLES, values, color=colour, linestyle=dash, marker="o", markersize=3, label=name)
            about = "two levels" if kind == "steps" else "two lines"
            axes.set(title=about, xlabel="angle of the border, degrees", xticks=ANGLES, ylim=(0, 1))
        figure.axes[0].set_ylabel("test R2")
        figure.axes[0].legend(loc="lower left")

    return numbers, drawing


def three_regimes(n: int, seed: int) -> tuple[Array, Array]:
    """Draw three linear regimes over two inputs, drawn themselves by a softmax gate."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (n, 2))
    means = X @ [[1.0, -1.0, 0.5], [0.5, 1.0, -1.5]] + [0, 2, -2]
    scores = X @ [[3.0, -3.0, 0.0], [1.5, 1.5, -3.0]]
    regime = (scores + rng.gumbel(size=(n, 3))).argmax(axis=1)
    return X, means[np.arange(n), regime] + rng.normal(0, 0.3, n)


def how_many() -> tuple[Numbers, Drawing]:
    """300 rows of three regimes; BIC a row, and mean log-likelihood of 3,000 new rows, for 1 to 7 experts."""
    (X, y), test = three_regimes(300, 0), three_regimes(3000, 1)
    numbers = {}
    for k in range(1, 8):
        model = fitted(MixtureOfExpertsRegressor(k, random_state=0), X, y)
        numbers[f"K={k}"] = {
            "BIC a row": model.bic(X, y) / len(X),
            "log-likelihood a row": model.loglik_ / len(X),
            "held-out": float(model.score_samples(*test).mean()),
            "fewest cases": float(model.cases_.min()),
        }

    def drawing(figure: Figure) -> None:
        ks = np.arange(1, 8)
        left, right = figure.subplots(1, 2)
        rows = list(numbers.values())
        left.plot(
            ks,
            [row["log-likelihood a row"] for row in rows],
            color=GREY,
            linestyle="--",
            marker="o",
            markersize=3,
            label="training rows",
        )
        left.plot(
            ks, [row["held-out"] for row in rows], color=BLUE, marker="o", markersize=3, label="new rows"
        )
        left.set(title="log-likelihood a row", xlabel="experts")
        left.legend(loc="lower right")
        right.plot(ks, [row["BIC a row"] for row in rows], color=RED, marker="o", markersize=3)
        right.set(title="BIC a row (smaller is better)", xlabel="experts")

    return numbers, drawing
