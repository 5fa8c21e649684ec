"""The figures of when-not.md."""

import numpy as np
from matplotlib.figure import Figure
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from expertise import MixtureOfExpertsRegressor
from figures_of.shared import BLUE, DASHES, GREEN, GREY, INK, PALE, SKY, Array, Drawing, Numbers, fitted, rmse

SIZES = (50, 100, 200, 400, 1000, 3000)


def learning_curve() -> tuple[Numbers, Drawing]:
    """Four regimes in ten inputs, noise .1; squared error / variance of y on 4,000 new rows, median of 5."""

    def draw(n: int, seed: int, rows: int) -> tuple[Array, Array]:
        task = np.random.default_rng(seed)
        borders, coef = task.normal(size=(10, 4)), task.normal(size=(11, 4))
        rng = np.random.default_rng([seed, rows])
        X = rng.uniform(-1, 1, (n, 10))
        means = X @ coef[1:] + coef[0]
        return X, means[np.arange(n), (X @ borders).argmax(axis=1)] + 0.1 * rng.normal(size=n)

    numbers: Numbers = {}
    for n in SIZES:
        errors: dict[str, list[float]] = {}
        for seed in range(5):
            train, test = draw(n, seed, n), draw(4000, seed, 0)
            models = {
                "four experts": MixtureOfExpertsRegressor(4, random_state=seed),
                "number by BIC": MixtureOfExpertsRegressor(
                    "auto", max_experts=4, n_init=3, random_state=seed
                ),
                "one line": LinearRegression(),
                "boosting": HistGradientBoostingRegressor(random_state=0),
            }
            for name, model in models.items():
                score = fitted(model, *train).score(*test)
                errors.setdefault(name, []).append(1 - score)
        numbers[f"{n} rows"] = {name: float(np.median(each)) for name, each in errors.items()}

    def drawing(figure: Figure) -> None:
        axes = figure.subplots()
        for name, colour, dash in zip(numbers["50 rows"], (BLUE, SKY, GREY, GREEN), DASHES, strict=True):
            values = [row[name] for row in numbers.values()]
            axes.plot(SIZES, values, color=colour, linestyle=dash, marker="o", markersize=3, label=name)
        axes.set(xscale="log", yscale="log", xlabel="rows to learn from", ylabel="test error / variance of y")
        axes.set_xticks(SIZES, [str(n) for n in SIZES])
        axes.minorticks_off()
        axes.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        axes.legend(loc="lower left")

    return numbers, drawing


def extrapolation() -> tuple[Numbers, Drawing]:
    """A sine seen on (-2, 2), 300 rows, noise .1; asked there and on (2, 4), 2,000 new rows each."""

    def draw(n: int, low: float, high: float, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        x = rng.uniform(low, high, n)
        return x[:, None], np.sin(2 * x) + rng.normal(0, 0.1, n)

    X, y = draw(300, -2, 2, 0)
    mixture = MixtureOfExpertsRegressor(4, random_state=0).fit(X, y)
    trees = HistGradientBoostingRegressor(random_state=0).fit(X, y)
    numbers = {}
    for where, (low, high) in {"inside": (-2, 2), "outside": (2, 4)}.items():
        new, target = draw(2000, low, high, 1)
        bottom, top = mixture.predict_interval(new, coverage=0.9).T
        numbers[where] = {
            "mixture": rmse(mixture.predict(new), target),
            "boosting": rmse(trees.predict(new), target),
            "mean of y": rmse(np.full(len(target), y.mean()), target),
            "coverage of 90 % intervals": float(((bottom < target) & (target < top)).mean()),
            "width of intervals": float((top - bottom).mean()),
        }
    grid = np.linspace(-2, 4, 301)[:, None]

    def drawing(figure: Figure) -> None:
        axes = figure.subplots()
        bottom, top = mixture.predict_interval(grid, coverage=0.9).T
        axes.axvspan(2, 4, color="#f2f2f2", linewidth=0)
        axes.scatter(X[:150, 0], y[:150], s=5, color=PALE, linewidths=0)
        axes.fill_between(grid[:, 0], bottom, top, color=BLUE, alpha=0.25, linewidth=0, label="90 % interval")
        axes.plot(grid, mixture.predict(grid), color=BLUE, label="mixture")
        axes.plot(grid, trees.predict(grid), color=GREEN, linestyle="-.", linewidth=1, label="boosting")
        axes.plot(grid, np.sin(2 * grid), color=INK, linestyle=":", label="the law")
        axes.set(xlabel="x", ylabel="y", ylim=(-4, 4))
        axes.text(2.1, 3.5, "no training rows", color=GREY)
        axes.legend(loc="upper left", ncols=2)

    return numbers, drawing
