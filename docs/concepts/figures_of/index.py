"""The figures of index.md."""

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression

from expertise import MixtureOfExpertsRegressor
from figures_of.shared import EXPERTS, INK, Array, Drawing, Numbers


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
