"""The figures of spectrum.md."""

import numpy as np
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import GaussianGate
from figures_of.shared import (
    DASHES,
    EXPERTS,
    GREY,
    INK,
    PALE,
    RED,
    SKY,
    Array,
    Drawing,
    Numbers,
    curve,
    fitted,
    rmse,
)

WIDTHS = (1e-200, 0.003, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 1e200)
CENTRES = (1, 4, 16, 200)
LINES = (1, 2, 3, 4, 6, 8, 12)


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
