"""The figures of the concept pages, and the numbers that stand beside them.

`python docs/concepts/figures.py` draws all of them into this folder and prints the table of each;
`python docs/concepts/figures.py oblique` draws one. All data are made here. What each figure measures:

parts           R2 of two experts with a gate, and of one line, where two laws meet
spectrum        error of constants by the width of a fixed gate and their number; of lines by their number
partition       R2 when rows are divided by clusters of inputs, and by the law from x to y
oblique         R2 of a softmax gate and of decision trees when the border between two regimes turns
how-many        BIC and held-out log-likelihood by the number of experts, where three regimes made the data
objectives      error of the blend and of one expert, and entropy of the gate, under E1, E2 and E3 of 1991
climbs          the log-likelihood at every iteration of EM, from several starts
ensembles       R2 of boosting, bagging, stacking, a mixture and one model on two tasks; spread of the weights
learning-curve  error by the number of rows to learn from
extrapolation   error and coverage of intervals inside and outside of the range of the training rows
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.ensemble import BaggingRegressor, HistGradientBoostingRegressor, StackingRegressor
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import GaussianGate

Array = npt.NDArray[np.float64]
Numbers = dict[str, dict[str, float]]  # row -> column -> value: what a page may quote
Drawing = Callable[[Figure], None]

HERE = Path(__file__).resolve().parent
# told apart by all common kinds of colour vision (Okabe & Ito 2008)
BLUE, RED, GREEN, PINK, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"
INK, GREY, PALE = "#222222", "#767676", "#bdbdbd"
EXPERTS = (BLUE, RED, GREEN, PINK)
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "concepts",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",  # a white ground, so that dark pages show it too
    "savefig.facecolor": "white",
}


def rmse(predicted: Array, truth: Array) -> float:
    """Give the root mean squared error."""
    return float(np.sqrt(((predicted - truth) ** 2).mean()))


def fitted(model: Any, X: Array, y: Array) -> Any:
    """Fit without warnings: here it is the point that some models have too few rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y)


def chosen_tree() -> GridSearchCV:
    """Make a decision tree whose pruning and leaf size are chosen inside the training rows."""
    grid = {"ccp_alpha": [0, 1e-4, 1e-3, 1e-2], "min_samples_leaf": [1, 5, 20]}
    return GridSearchCV(DecisionTreeRegressor(random_state=0), grid, cv=5)


# ---- index.md


def parts() -> tuple[Numbers, Drawing]:
    """Two laws with a soft border; 300 rows to learn from, 2,000 new ones."""

    def draw(n: int, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        x = rng.uniform(-3, 3, n)
        right = rng.random(n) < 1 / (1 + np.exp(-4 * x))
        return x[:, None], np.where(right, 2 - 0.5 * x, 1 + x) + rng.normal(0, np.where(right, 0.3, 0.15))

    (X, y), test = draw(300, 0), draw(2000, 1)
    mixture = MixtureOfExpertsRegressor(2, random_state=0).fit(X, y)
    line = LinearRegression().fit(X, y)
    numbers = {"two experts": {"R2": mixture.score(*test)}, "one line": {"R2": line.score(*test)}}
    grid = np.linspace(-3, 3, 241)[:, None]
    order = np.argsort(mixture.sigma_)  # the calm expert first, so that colours stay
    said, gate = mixture.predict_experts(grid)[:, order], mixture.gate_proba(grid)[:, order]
    whose = np.argsort(order)[mixture.apply(X)]

    def drawing(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
        for k in range(2):
            mine = whose == k
            upper.scatter(X[mine], y[mine], s=7, color=EXPERTS[k], alpha=0.35, linewidths=0)
            upper.plot(grid, said[:, k], color=EXPERTS[k], linestyle="--", label=f"expert {k} alone")
            lower.plot(grid, gate[:, k], color=EXPERTS[k])
        upper.plot(grid, mixture.predict(grid), color=INK, linewidth=2, label="weighted sum")
        upper.set_ylabel("y")
        upper.set_ylim(-2.6, 4.2)
        upper.legend(loc="lower right")
        lower.set_ylabel("gate")
        lower.set_xlabel("x")

    return numbers, drawing


# ---- spectrum.md

WIDTHS = (1e-200, 0.003, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 1e200)
CENTRES = (1, 4, 16, 200)
LINES = (1, 2, 3, 4, 6, 8, 12)


def curve(n: int, seed: int) -> tuple[Array, Array, Array]:
    """Draw x (n, 1), y (n,) and the law without noise (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 4, n)
    law = np.sin(x * x / 2) + 0.3 * x
    return x[:, None], law + rng.normal(0, 0.3, n), law


def constants(X: Array, y: Array, centres: Array, width: float) -> MixtureOfExpertsRegressor:
    """Fit a constant expert at each centre, under a gate that stays as it is."""
    gate = GaussianGate(means=centres, scale=width, trainable=False)
    model = MixtureOfExpertsRegressor(expert="constant", gate=gate, tol=1e-5, max_iter=300)
    fitted(model, X, y)
    return model


def spectrum() -> tuple[Numbers, Drawing]:
    """200 rows, noise .3; RMSE on 2,000 new rows against the law without noise."""
    X, y, _ = curve(200, 0)
    new, _, law = curve(2000, 1)
    centres = {k: KMeans(k, n_init=3, random_state=0).fit(X).cluster_centers_ for k in CENTRES[:-1]}
    centres[len(X)] = X
    models = {(k, w): constants(X, y, where, w) for k, where in centres.items() for w in WIDTHS}
    errors = {key: rmse(model.predict(new), law) for key, model in models.items()}
    shown = {"width to 0": 1e-200, "width to infinity": 1e200}
    shown |= {f"width {w}": w for w in (0.02, 0.08, 0.15, 0.6)}
    numbers = {
        name: {f"{k} constants": errors[k, w] for k in CENTRES}
        for name, w in sorted(shown.items(), key=lambda item: item[1])
    }
    lines = {k: fitted(MixtureOfExpertsRegressor(k, random_state=0), X, y) for k in LINES}
    by_number = {k: rmse(model.predict(new), law) for k, model in lines.items()}
    numbers["lines"] = {f"K={k}": by_number[k] for k in LINES}
    nearest = rmse(KNeighborsRegressor(1).fit(X, y).predict(new), law)
    mean, least = rmse(np.full(len(law), y.mean()), law), rmse(LinearRegression().fit(X, y).predict(new), law)
    numbers["others"] = {"1-NN": nearest, "mean": mean, "least squares": least}
    grid = np.linspace(0, 4, 401)[:, None]

    def drawing(figure: Figure) -> None:
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 1])
        left.scatter(X, y, s=5, color=PALE)
        for width, name, colour, dash in zip(
            (1e-200, 0.08, 1e200),
            ("width to 0", "width 0.08", "width to infinity"),
            (SKY, INK, RED),
            ("-", "-", "--"),
            strict=True,
        ):
            left.plot(
                grid,
                models[200, width].predict(grid),
                color=colour,
                linestyle=dash,
                linewidth=2 if colour == INK else 0.9,
                label=name,
            )
        left.set(title="200 constants at the rows", xlabel="x", ylabel="y", ylim=(-1.6, 4.0))
        left.legend(loc="upper left")
        between = WIDTHS[1:-1]
        for k, colour, dash in zip(CENTRES, EXPERTS, DASHES, strict=True):
            middle.plot(
                between, [errors[k, w] for w in between], color=colour, linestyle=dash, label=f"K={k}"
            )
        middle.axhline(nearest, color=GREY, linewidth=0.7)
        middle.text(between[0], nearest, "1-NN", color=GREY, va="bottom", fontsize=8)
        middle.axhline(mean, color=GREY, linewidth=0.7)
        middle.text(between[0], mean, "mean", color=GREY, va="bottom", fontsize=8)
        middle.set(
            title="constants, by width", xscale="log", xlabel="width of the gate", ylabel="test RMSE", ylim=0
        )
        middle.legend(loc="lower right")
        right.plot(LINES, [by_number[k] for k in LINES], color=INK, marker="o", markersize=3)
        right.text(1.3, least, "least squares", color=GREY, fontsize=8)
        right.set(title="lines, by number", xlabel="experts", xticks=LINES, ylim=middle.get_ylim())

    return numbers, drawing


# ---- partitioning.md


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


# ---- mathematics.md

OBJECTIVES = ("cooperative", "expected", "likelihood")


def objectives() -> tuple[Numbers, Drawing]:
    """300 rows of a sine, four linear experts, a linear gate; medians of 5 seeds, on 2,000 new rows."""
    from expertise import NeuralMixtureRegressor  # torch is slow to load, and one figure alone needs it

    def draw(n: int, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        x = rng.uniform(-2, 2, n)
        return x[:, None], np.sin(2 * x) + rng.normal(0, 0.1, n)

    (X, y), (new, target) = draw(300, 0), draw(2000, 1)
    numbers, shown = {}, {}
    for objective in OBJECTIVES:
        values = []
        for seed in range(5):
            model = NeuralMixtureRegressor(
                4,
                expert_hidden=(),
                objective=objective,
                epochs=300,
                batch_size=50,
                learning_rate=0.05,
                random_state=seed,
            ).fit(X, y)
            gate, said = model.gate_proba(new), model.predict_experts(new)
            drawn = np.sqrt((gate * (said - target[:, None]) ** 2).sum(axis=1).mean())
            entropy = -(gate * np.log(np.maximum(gate, 1e-300))).sum(axis=1).mean()
            best = np.sqrt(((said - target[:, None]) ** 2).min(axis=1).mean())
            values.append((rmse(model.predict(new), target), drawn, best, entropy))
            if seed == 0:
                shown[objective] = model
        blend, drawn, best, entropy = np.median(values, axis=0).tolist()
        numbers[objective] = {
            "blend": blend,
            "one expert": drawn,
            "best expert of each case": best,
            "entropy": entropy,
            "one expert / blend": drawn / blend,
        }
    grid = np.linspace(-2, 2, 161)[:, None]

    def drawing(figure: Figure) -> None:
        for axes, (objective, model) in zip(figure.subplots(1, 3, sharey=True), shown.items(), strict=True):
            axes.scatter(X[:150, 0], y[:150], s=5, color=PALE, linewidths=0)
            gate, said = model.gate_proba(grid), model.predict_experts(grid)
            for k, colour in enumerate(EXPERTS):
                axes.plot(grid, said[:, k], color=colour, linewidth=0.8, linestyle=":")
                trusted = np.where(gate[:, k] > 0.25, said[:, k], np.nan)
                axes.plot(grid, trusted, color=colour, linewidth=2.2)
            axes.plot(grid, model.predict(grid), color=INK, linewidth=1)
            axes.set(title=objective, xlabel="x", ylim=(-3, 3))
        figure.axes[0].set_ylabel("y")

    return numbers, drawing


def climbs() -> tuple[Numbers, Drawing]:
    """Five lines to 200 rows of a curve, from 12 random starts: the log-likelihood a row by iteration."""
    X, y, _ = curve(200, 0)
    runs = []
    for seed in range(12):
        model = MixtureOfExpertsRegressor(5, n_init=1, starts=("random",), random_state=seed)
        runs.append(np.asarray(fitted(model, X, y).objective_history_) / len(X))
    ends = np.array([run[-1] for run in runs])
    numbers = {
        "12 starts": {
            "steps": float(sum(len(run) - 1 for run in runs)),
            "steps that fell": float(sum((np.diff(run) < -1e-9).sum() for run in runs)),
            "best end": float(ends.max()),
            "worst end": float(ends.min()),
            "starts at the best end": float((ends > ends.max() - 1e-3).sum()),
        }
    }

    def drawing(figure: Figure) -> None:
        whole, close = figure.subplots(1, 2)
        for run in runs:
            best = run[-1] > ends.max() - 1e-3
            for axes in (whole, close):
                axes.plot(run, color=BLUE if best else GREY, linewidth=2 if best else 0.8)
        last = max(map(len, runs))
        whole.set(title="all iterations", xlabel="iteration", ylabel="log-likelihood a row")
        close.set(title="the same, close up", xlabel="iteration", xlim=(20, last), ylim=(-0.3, -0.12))

    return numbers, drawing


# ---- boosting.md


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


# ---- when-not.md

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


# ---- all of them

FIGURES: dict[str, tuple[Callable[[], tuple[Numbers, Drawing]], tuple[float, float]]] = {
    "parts": (parts, (6.0, 4.2)),
    "spectrum": (spectrum, (9.0, 3.2)),
    "partition": (partition, (7.5, 3.2)),
    "oblique": (oblique, (7.5, 3.2)),
    "how-many": (how_many, (7.5, 3.0)),
    "objectives": (objectives, (9.0, 3.2)),
    "climbs": (climbs, (6.0, 3.2)),
    "ensembles": (ensembles, (8.5, 3.2)),
    "learning-curve": (learning_curve, (6.0, 3.6)),
    "extrapolation": (extrapolation, (6.0, 3.4)),
}


def as_table(numbers: Numbers) -> str:
    """Give the numbers in Markdown; a row that shares no column with the table so far begins a new one."""
    tables: list[Numbers] = []
    for name, row in numbers.items():
        if not tables or not set(row) & {column for one in tables[-1].values() for column in one}:
            tables.append({})
        tables[-1][name] = row
    lines = []
    for table in tables:
        columns = list(dict.fromkeys(column for row in table.values() for column in row))
        lines += ["", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, row in table.items():
            cells = (f"{row[column]:.3f}" if column in row else "–" for column in columns)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(names: Sequence[str]) -> None:
    """Measure and draw the named figures."""
    for name in names or FIGURES:
        measure, size = FIGURES[name]
        numbers, drawing = measure()
        print(f"## {name}\n{as_table(numbers)}\n", flush=True)
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            drawing(figure)
            figure.savefig(HERE / f"{name}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # argparse holds the empty default against the choices, too
    parser.add_argument(
        "names", nargs="*", choices=[*FIGURES, []], help="which figures; all if none is named"
    )
    with threadpool_limits(1):
        main(parser.parse_args().names)
