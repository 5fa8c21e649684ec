"""The localised gate: normal densities of the inputs (Xu, Jordan & Hinton 1995) beside a softmax gate.

EM fits the Gaussian gate in closed form, but it maximises the JOINT likelihood of inputs and target; a
softmax gate, by Newton steps, the conditional one. So both are shown, in nats per new row. Four linear
experts read two columns, the gate reads four. "clusters": the inputs of a regime are one normal cloud, as the
Gaussian gate assumes. "planes": uniform inputs and softmax borders, which it does not assume. "holes":
clusters, with 30 % of the two columns missing that the gate alone reads; the Gaussian gate integrates them
out, the others get means instead.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import GaussianGate

Array = npt.NDArray[np.float64]
Draw = Callable[[int, int, int], tuple[Array, Array]]
INPUTS, READ, REGIMES, NOISE, MISSING = 4, 2, 4, 0.3, 0.3
COLUMNS = ("conditional", "joint", "R2", "CPU s", "iterations")


def _targets(X: Array, regime: npt.NDArray[np.intp], coef: Array, rng: np.random.Generator) -> Array:
    means: Array = (X[:, :READ] @ coef[1:] + coef[0])[np.arange(len(X)), regime]
    return means + NOISE * rng.normal(size=len(X))


def clusters(n: int, task: int, rows: int) -> tuple[Array, Array]:
    """Draw X (n, 4) from one normal cloud a regime, and y (n,)."""
    of_task, rng = np.random.default_rng(task), np.random.default_rng([task, rows])
    means, mixing = of_task.normal(0, 2, (REGIMES, INPUTS)), of_task.normal(0, 0.6, (REGIMES, INPUTS, INPUTS))
    coef = of_task.normal(0, 2, (READ + 1, REGIMES))
    regime = rng.integers(REGIMES, size=n)
    X = means[regime] + np.einsum("nij,nj->ni", mixing[regime], rng.normal(size=(n, INPUTS)))
    return X, _targets(X, regime, coef, rng)


def planes(n: int, task: int, rows: int) -> tuple[Array, Array]:
    """Draw uniform X (n, 4), regimes by a softmax of x, and y (n,)."""
    of_task, rng = np.random.default_rng(task), np.random.default_rng([task, rows])
    borders, coef = of_task.normal(0, 3, (INPUTS, REGIMES)), of_task.normal(0, 2, (READ + 1, REGIMES))
    X = rng.uniform(-1, 1, (n, INPUTS))
    regime = (X @ borders + rng.gumbel(size=(n, REGIMES))).argmax(axis=1)
    return X, _targets(X, regime, coef, rng)


def holes(n: int, task: int, rows: int) -> tuple[Array, Array]:
    """Draw as `clusters`, then make entries of the columns that no expert reads NaN."""
    X, y = clusters(n, task, rows)
    lost = np.random.default_rng([task, rows, 1]).random((n, INPUTS - READ)) < MISSING
    X[:, READ:][lost] = np.nan
    return X, y


def mixture(gate: Any, n_experts: int = REGIMES) -> MixtureOfExpertsRegressor:
    """Make the mixture; all gates get the same four kinds of starts."""
    starts = ("kmeans", "kmeans_xy", "random", "residual")
    return MixtureOfExpertsRegressor(
        n_experts, gate=gate, expert_features=[0, 1], starts=starts, n_init=4, random_state=0
    )


def models(data: str) -> dict[str, Any]:
    """Give the models of one data set."""
    full, tied = GaussianGate(), GaussianGate(covariance="tied")
    trees = {"HistGB": HistGradientBoostingRegressor(random_state=0)}
    if data == "holes":
        return {
            "gaussian, integrated": mixture(full),
            "gaussian, means filled in": make_pipeline(SimpleImputer(), mixture(full)),
            "softmax, means filled in": make_pipeline(SimpleImputer(), mixture("softmax")),
        } | trees
    gates = {"softmax": "softmax", "gaussian": full, "gaussian, tied": tied}
    one = {"one linear": mixture("constant", 1)}
    return {name: mixture(gate) for name, gate in gates.items()} | one | trees


def measure(model: Any, train: tuple[Array, Array], test: tuple[Array, Array], data: str) -> list[float]:
    """Fit, and give the numbers of COLUMNS; NaN where a model has none."""
    begun = time.process_time()  # of this process alone, whatever else the machine does
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(*train)
    seconds = time.process_time() - begun
    last, X = model, test[0]
    if data == "holes" and not isinstance(model, MixtureOfExpertsRegressor | HistGradientBoostingRegressor):
        last, X = model[-1], model[:-1].transform(X)
    r2 = model.score(*test)
    if not isinstance(last, MixtureOfExpertsRegressor):
        return [np.nan, np.nan, r2, seconds, np.nan]
    conditional = last.score_samples(X, test[1]).mean()
    # a gate that does not model the inputs has no joint likelihood; after filling in, it is of other inputs
    models_x = isinstance(last.gate_, GaussianGate) and last is model
    joint = conditional + last.score_samples(X).mean() if models_x else np.nan
    return [conditional, joint, r2, seconds, last.n_iter_]


def main(quick: bool = False) -> dict[tuple[str, str], list[float]]:
    """Print the table, and return it: (data, model) to the numbers of COLUMNS."""
    n, tasks = (1000, range(2)) if quick else (5000, range(5))
    print(f"{n:,} rows to learn from, 5,000 new ones, mean over {len(tasks)} tasks")
    print(f"{'':<42}" + "".join(f"{name:>12}" for name in COLUMNS))
    found = {}
    draws: dict[str, Draw] = {"clusters": clusters, "planes": planes, "holes": holes}
    for data, draw in draws.items():
        for name in models(data):
            values = [
                measure(models(data)[name], draw(n, task, 0), draw(5000, task, 1), data) for task in tasks
            ]
            found[data, name] = mean = np.mean(values, axis=0).tolist()
            cells = ("–" if np.isnan(value) else f"{value:.3f}" for value in mean)
            print(f"{f'{data}: {name}':<42}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
    for data in ("clusters", "planes"):
        ours, theirs = found[data, "gaussian"], found[data, "softmax"]
        print(
            f"{data}: Gaussian gate against softmax: {ours[3] / theirs[3]:.2f} times the time of a fit, "
            f"{ours[0] - theirs[0]:+.3f} nats a row (conditional)"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 rows and 2 tasks instead of 5,000 and 5")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        main(arguments.quick)
