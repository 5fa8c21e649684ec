"""Data hunger: with few rows a mixture of experts loses to one linear model, with many it wins.

Four linear regimes in ten inputs, bordered by hyperplanes, noise .1. A mixture of four linear experts has 81
parameters, one linear model 12. Test squared error / variance of y, median over draws of task and rows; 1 is
what predicting the mean gets. "by BIC" and "by CV" choose from one to four experts (n_experts="auto") inside
the training rows.
"""

import argparse
import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import DegenerateExpertWarning, FewCasesWarning

Array = npt.NDArray[np.float64]
INPUTS, REGIMES, NEW, NOISE = 10, 4, 5000, 0.1
SIZES = (50, 100, 200, 3000)
MODELS = ("mixture", "by BIC", "by CV", "linear", "HistGB")
LINEAR = MODELS.index("linear")
# so many candidates and folds want a shorter search than the default, which the mixture itself gets
SHORT: dict[str, Any] = {"n_init": 3, "starts": ("random", "residual", "kmeans_xy"), "max_experts": REGIMES}


def draw(n: int, seed: int, rows: int) -> tuple[Array, Array]:
    """Draw X (n, 10) and y (n,): the task belongs to ``seed``, the rows to ``seed`` and ``rows``."""
    task = np.random.default_rng(seed)
    borders, coef = task.normal(size=(INPUTS, REGIMES)), task.normal(size=(INPUTS + 1, REGIMES))
    rng = np.random.default_rng([seed, rows])
    X = rng.uniform(-1, 1, (n, INPUTS))
    means = X @ coef[1:] + coef[0]
    return X, means[np.arange(n), (X @ borders).argmax(axis=1)] + NOISE * rng.normal(size=n)


def errors(n: int, seed: int) -> tuple[list[float], bool]:
    """Fit all models on one draw: test MSE / variance in the order of MODELS; whether the mixture warned."""
    X, y = draw(n, seed, n)
    new_X, new_y = draw(NEW, seed, 0)
    models = (
        MixtureOfExpertsRegressor(REGIMES, random_state=seed),
        MixtureOfExpertsRegressor("auto", random_state=seed, **SHORT),
        MixtureOfExpertsRegressor("auto", criterion="cv", random_state=seed, **SHORT),
        LinearRegression(),
        HistGradientBoostingRegressor(random_state=0),
    )
    found, warned = [], False
    for j, model in enumerate(models):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            predicted = model.fit(X, y).predict(new_X)
        found.append(float(((predicted - new_y) ** 2).mean() / new_y.var()))
        about = (FewCasesWarning, DegenerateExpertWarning)
        warned |= j == 0 and any(issubclass(one.category, about) for one in caught)
    return found, warned


def main(quick: bool = False) -> dict[int, list[float]]:
    """Print the table of errors, and return it: N to the medians of MODELS."""
    seeds, sizes = (range(1), (50, 400)) if quick else (range(5), SIZES)
    begun = time.perf_counter()
    print(f"test MSE / variance of y, median of {len(seeds)} draws")
    head = (*MODELS, "mixture beats linear", "mixture warned")
    print(f"{'':<8}" + "".join(f"{name:>{len(name) + 4}}" for name in head))
    found = {}
    for n in sizes:
        values, warned = zip(*(errors(n, seed) for seed in seeds), strict=True)
        each = np.array(values)
        found[n] = np.median(each, axis=0).tolist()
        wins = f"{(each[:, 0] < each[:, LINEAR] - 1e-9).sum()} of {len(seeds)}"
        cells = (*(f"{error:.3f}" for error in found[n]), wins, f"{sum(warned)} of {len(seeds)}")
        pairs = zip(cells, head, strict=True)
        print(f"N={n:<6}" + "".join(f"{cell:>{len(name) + 4}}" for cell, name in pairs), flush=True)
    for j, name in enumerate(MODELS[:LINEAR]):
        lost = [str(n) for n in sizes if found[n][j] > found[n][LINEAR] + 1e-9]
        print(f"{name}: loses to one linear model at N={', '.join(lost) or 'none of these'}")
    print(f"{time.perf_counter() - begun:.0f} s")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 draw instead of 5, two sizes")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        main(arguments.quick)
