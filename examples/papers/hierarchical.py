"""The hierarchical mixture (Jordan & Jacobs 1994): a binary tree of gates, 16 linear experts, on robot arms.

Relative error is the test squared error over the variance of the target, mean over outputs. kin8nm (its first
published split) and puma8NH (a fixed split) are public simulated arms. "own arm" is simulated here, after the
paper's task: four joints, from angles, velocities and torques to accelerations, 12 inputs and 4 outputs.
Links i = 1..4 in a horizontal plane have lengths l_i, absolute angles p = L q (L lower triangular, of ones)
and a point mass m_i at their ends; every joint has the rotor inertia J and the damping b. From Lagrange's
equations, with a_ij = l_i l_j (sum of m_k over k >= max(i, j)):

    (L' A L + J) q'' = torque - b q' - L' c
    A_ij = a_ij cos(p_i - p_j),   c_i = sum_j a_ij sin(p_i - p_j) p'_j^2
"""

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import TreeGate

Array = npt.NDArray[np.float64]
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
LENGTHS, MASSES = np.array([0.5, 0.4, 0.3, 0.2]), np.array([2.0, 1.5, 1.0, 0.5])
ROTOR, DAMPING = 0.1, 0.2
PAPER = {"linear": 0.31, "CART": 0.17, "HME, 16 leaves": 0.10, "MLP": 0.09}  # on another arm, not public


class Split(NamedTuple):
    """Inputs and targets to learn from, and new ones."""

    X: Array
    y: Array
    new_X: Array
    new_y: Array


def accelerations(q: Array, velocity: Array, torque: Array) -> Array:
    """Compute q'' of the arm, all (n, 4), from joint angles, velocities and torques."""
    lower = np.tril(np.ones((4, 4)))
    beyond = MASSES[::-1].cumsum()[::-1]
    a = np.outer(LENGTHS, LENGTHS) * beyond[np.maximum.outer(np.arange(4), np.arange(4))]
    p, turning = q @ lower.T, velocity @ lower.T
    apart = p[:, :, None] - p[:, None, :]
    inertia = lower.T @ (a * np.cos(apart)) @ lower + ROTOR * np.eye(4)
    coriolis = np.einsum("nij,nj->ni", a * np.sin(apart), turning**2) @ lower
    solved: Array = np.linalg.solve(inertia, (torque - DAMPING * velocity - coriolis)[:, :, None])[:, :, 0]
    return solved


def own_arm(quick: bool) -> Split:
    """Draw arms: angles within 90 degrees, velocities within 2 rad/s, torques within 2 Nm."""
    n, new = (3000, 1000) if quick else (15000, 5000)
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (n + new, 12)) * np.repeat([np.pi / 2, 2.0, 2.0], 4)
    y = accelerations(X[:, :4], X[:, 4:8], X[:, 8:])
    return Split(X[:n], y[:n], X[n:], y[n:])


def public_arm(name: str, quick: bool) -> Split | None:
    """Read a public arm; None, with a message, where the data are not."""
    folder = Path(os.environ.get("EXPERTISE_DATA", BESIDE)) / "uci"
    if not (folder / f"{name}.csv").is_file():
        print(f"{name}: SKIPPED, no {folder / name}.csv; set EXPERTISE_DATA to the folder of the data")
        return None
    table = np.loadtxt(folder / f"{name}.csv", delimiter=",", skiprows=1)
    masks = folder / f"{name}_gal_test_mask.csv"
    if masks.is_file():
        is_new = np.loadtxt(masks, delimiter=",", usecols=0).astype(bool)
    else:
        is_new = np.isin(np.arange(len(table)), np.random.default_rng(0).permutation(len(table))[::10])
    X, y = table[:, :-1], table[:, -1]
    step = 4 if quick else 1
    return Split(X[~is_new][::step], y[~is_new][::step], X[is_new], y[is_new])


def models(quick: bool) -> dict[str, Any]:
    """Give the models: what CART prunes is chosen inside the training rows, the rest is fixed beforehand."""
    grid = {"min_samples_leaf": [2, 5, 10, 20], "ccp_alpha": [0.0, 1e-5, 1e-4, 1e-3]}
    net = MLPRegressor(
        hidden_layer_sizes=(64, 64), early_stopping=True, max_iter=60 if quick else 300, random_state=0
    )
    return {
        "linear": LinearRegression(),
        "CART": GridSearchCV(DecisionTreeRegressor(random_state=0), grid, cv=3),
        "HME, 16 leaves": MixtureOfExpertsRegressor(
            gate=TreeGate(branching=(2, 2, 2, 2)), n_init=3, max_iter=30 if quick else 150, random_state=0
        ),
        "MLP": TransformedTargetRegressor(make_pipeline(StandardScaler(), net), transformer=StandardScaler()),
    }


def main(quick: bool = False) -> dict[str, dict[str, float]]:
    """Print the table of relative errors, and return it: data to model to error."""
    splits = {name: public_arm(name, quick) for name in ("kin8nm", "puma8NH")} | {"own arm": own_arm(quick)}
    names = list(models(quick))
    print(f"{'relative error':<16}{'rows':>8}{'new':>8}" + "".join(f"{name:>18}" for name in names))
    found: dict[str, dict[str, float]] = {}
    begun = time.perf_counter()
    for data, split in splits.items():
        if split is None:
            continue
        print(f"{data:<16}{len(split.X):>8,}{len(split.new_X):>8,}", end="", flush=True)
        found[data] = {}
        for name, model in models(quick).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a limit of iterations is part of the setting
                error = split.new_y - model.fit(split.X, split.y).predict(split.new_X)
            found[data][name] = float(np.mean((error**2).mean(axis=0) / split.new_y.var(axis=0)))
            print(f"{found[data][name]:>18.3f}", end="", flush=True)
        print()
    print(f"{'paper, its arm':<16}{15000:>8,}{5000:>8,}" + "".join(f"{PAPER[name]:>18.2f}" for name in names))
    print("the paper's data are not public: its line stands beside, and is no target for these arms")
    for data, errors in found.items():
        print(f"{data}: {' < '.join(sorted(errors, key=lambda name: errors[name]))}")
    first = [data for data, errors in found.items() if min(errors, key=lambda name: errors[name]) == "MLP"]
    print(f"the MLP wins on {len(first)} of {len(found)} ({', '.join(first) or 'none'})")
    print(f"{time.perf_counter() - begun:.0f} s")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and iterations")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        main(arguments.quick)
