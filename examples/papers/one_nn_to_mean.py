"""From the nearest neighbour to the mean: one mixture of constants, from very local to fully global.

Centres that stay where they are and share one width, `GaussianGate(means=centres, scale=width,
trainable=False)`, with constant experts, which EM fits (the localised gate of Xu, Jordan & Hinton 1995, held
fixed). With a centre on every row, width to 0 is the nearest neighbour and width to infinity the mean; fewer
centres and widths between lie between. Target: sin(3 x0) cos(2 x1) + N(0, .3^2), x uniform on (-1, 1)^2;
where there are fewer centres than rows, k-means gives them. Test RMSE against the function without noise.
"""

import argparse
import time
import warnings

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from threadpoolctl import threadpool_limits

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import GaussianGate

Array = npt.NDArray[np.float64]
WIDTHS = (1e-200, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 1e200)
QUICK_WIDTHS = (1e-200, 0.1, 0.2, 0.5, 1e200)
CENTRES = (1, 4, 16, 64)


def draw(n: int, seed: int) -> tuple[Array, Array, Array]:
    """Draw X (n, 2), y (n,), and the function without noise (n,)."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 2))
    truth = np.sin(3 * X[:, 0]) * np.cos(2 * X[:, 1])
    return X, truth + 0.3 * rng.normal(size=n), truth


def mixture(X: Array, y: Array, centres: Array, width: float) -> tuple[MixtureOfExpertsRegressor, set[str]]:
    """Fit constants under a fixed gate; say too of what the fit warned."""
    gate = GaussianGate(means=centres, scale=width, trainable=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = MixtureOfExpertsRegressor(expert="constant", gate=gate, tol=1e-5, max_iter=300).fit(X, y)
    return model, {one.category.__name__ for one in caught}


def rmse(predicted: Array, truth: Array) -> float:
    return float(np.sqrt(((predicted - truth) ** 2).mean()))


def chosen_width(X: Array, y: Array, widths: tuple[float, ...]) -> float:
    """Choose the width of a mixture with a centre on every row by 5-fold cross-validation."""
    errors = dict.fromkeys(widths, 0.0)
    for train, test in KFold(5).split(X):
        for width in errors:
            predicted = mixture(X[train], y[train], X[train], width)[0].predict(X[test])
            errors[width] += float(((predicted - y[test]) ** 2).sum())
    return min(errors, key=lambda width: errors[width])


def print_limits(X: Array, y: Array, new: Array) -> None:
    """Print how far the mixtures at the ends are from what they should equal."""
    ends = [mixture(X, y, X, width)[0].predict(new) for width in (WIDTHS[0], WIDTHS[-1])]
    ends.append(MixtureOfExpertsRegressor(1, expert="gaussian").fit(X, y).predict(new))
    names = ("least width and 1-NN", "largest width and the mean of y", "one linear expert and least squares")
    neighbour = KNeighborsRegressor(1).fit(X, y).predict(new)
    should = (neighbour, y.mean(), LinearRegression().fit(X, y).predict(new))
    print("largest difference on the new rows between")
    for name, is_, be in zip(names, ends, should, strict=True):
        print(f"  {name:<38}{np.abs(is_ - be).max():.0e}")


def main(quick: bool = False) -> dict[tuple[float, int], float]:
    """Print the table of errors, limits and baselines; return the table: (width, K) to the RMSE."""
    n, widths = (100, QUICK_WIDTHS) if quick else (300, WIDTHS)
    begun = time.perf_counter()
    X, y, _ = draw(n, 0)
    new, _, truth = draw(4000, 1)
    centres = {k: KMeans(k, n_init=3, random_state=0).fit(X).cluster_centers_ for k in CENTRES} | {n: X}
    print(f"test RMSE of K constants, {n} rows to learn from")
    print(f"{'width':<12}" + "".join(f"{f'K={k}':>9}" for k in centres))
    found, unfinished = {}, 0
    for width in widths:
        for k, where in centres.items():
            model, warned = mixture(X, y, where, width)
            unfinished += ConvergenceWarning.__name__ in warned
            found[width, k] = rmse(model.predict(new), truth)
        print(f"{f'w={width:g}':<12}" + "".join(f"{found[width, k]:>9.3f}" for k in centres), flush=True)
    print(f"stopped after 300 iterations, not converged: {unfinished} of {len(found)} fits")
    print_limits(X, y, new)
    width = chosen_width(X, y, widths[1:-1])
    several = GridSearchCV(KNeighborsRegressor(), {"n_neighbors": [1, 2, 3, 5, 8, 12, 20, 30]}, cv=KFold(5))
    others = {
        "k-NN, k by cross-validation": several,
        "least squares": LinearRegression(),
        "HistGB": HistGradientBoostingRegressor(random_state=0),
    }
    print("test RMSE of")
    print(f"  {f'the mixture, K={n}, w={width:g} by cross-validation':<48}{found[width, n]:.3f}")
    for name, model in others.items():
        print(f"  {name:<48}{rmse(model.fit(X, y).predict(new), truth):.3f}")
    print(f"{time.perf_counter() - begun:.0f} s")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 rows instead of 300, fewer widths")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        main(arguments.quick)
