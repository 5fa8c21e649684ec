"""Borders at any angle: a softmax gate divides by hyperplanes, CART by steps along the axes.

Jordan & Jacobs (1994) against CART: its regions are boxes, those of a softmax gate are bounded by hyperplanes
of any orientation. Two linear regimes in ten inputs, 300 rows, noise .1; the normal of the border turns from
the first input (0 degrees) towards the second. "Flat" regimes are two levels with slopes of N(0, .1^2); in
"steep" ones the slopes are N(0, 1). Test R2, mean over draws of task and rows.
"""

import argparse
import time

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from expertise import MixtureOfExpertsRegressor

Array = npt.NDArray[np.float64]
Task = tuple[Array, Array]
INPUTS, ROWS, NEW, NOISE, LEVEL = 10, 300, 5000, 0.1, 1.0
ANGLES = (0, 15, 30, 45)
SLOPES = {"flat": 0.1, "steep": 1.0}
MODELS = ("mixture", "CART", "HistGB", "one linear model")


def draw(n: int, angle: int, slope: float, seed: int, rows: int) -> Task:
    """Draw X (n, 10) and y (n,): the task belongs to ``seed``, the rows to ``seed`` and ``rows``."""
    coef = slope * np.random.default_rng(seed).normal(size=(INPUTS, 2))
    rng = np.random.default_rng([seed, rows])
    X = rng.uniform(-1, 1, (n, INPUTS))
    turned = np.deg2rad(angle)
    regime = (np.cos(turned) * X[:, 0] + np.sin(turned) * X[:, 1] > 0).astype(int)
    means = X @ coef + LEVEL * np.array([-1, 1])
    return X, means[np.arange(n), regime] + NOISE * rng.normal(size=n)


def cart() -> GridSearchCV:
    """Make a regression tree whose pruning and leaf size are chosen inside the training rows."""
    grid = {"ccp_alpha": [0, 1e-4, 1e-3, 1e-2], "min_samples_leaf": [1, 5, 20]}
    return GridSearchCV(DecisionTreeRegressor(random_state=0), grid, cv=5)


def scores(angle: int, slope: float, seed: int) -> list[float]:
    """Fit all models on one draw, and give their test R2 in the order of MODELS."""
    train, test = draw(ROWS, angle, slope, seed, 0), draw(NEW, angle, slope, seed, 1)
    models = (
        MixtureOfExpertsRegressor(2, random_state=seed),
        cart(),
        HistGradientBoostingRegressor(random_state=0),
        LinearRegression(),
    )
    return [float(model.fit(*train).score(*test)) for model in models]


def main(quick: bool = False) -> dict[tuple[str, int], list[float]]:
    """Print the table of test R2, and return it: (regimes, angle) to the R2 of MODELS."""
    seeds, angles = (range(2), (0, 45)) if quick else (range(10), ANGLES)
    begun = time.perf_counter()
    print(f"test R2, {ROWS} rows to learn from, mean of {len(seeds)} draws")
    print(f"{'regimes, angle':<16}" + "".join(f"{name:>18}" for name in MODELS))
    found = {}
    for kind, slope in SLOPES.items():
        for angle in angles:
            mean = np.mean([scores(angle, slope, seed) for seed in seeds], axis=0).tolist()
            found[kind, angle] = mean
            print(f"{f'{kind}, {angle}':<16}" + "".join(f"{score:>18.3f}" for score in mean), flush=True)
    for kind in SLOPES:
        lost = [angle for angle in angles if found[kind, angle][0] < max(found[kind, angle][1:])]
        where = f"loses at {', '.join(map(str, lost))}" if lost else "loses at no angle"
        drop = [found[kind, 0][j] - found[kind, 45][j] for j in (0, 1)]
        print(
            f"{kind} regimes: the mixture {where}; "
            f"from 0 to 45 degrees it loses {drop[0]:.3f}, CART {drop[1]:.3f}"
        )
    print(f"{time.perf_counter() - begun:.0f} s")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 draws instead of 10, two angles")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        main(arguments.quick)
