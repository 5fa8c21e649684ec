"""What the accuracy benchmarks compare on and with: data sets, their folds, and the single models.

Not a benchmark of its own. Data come from ../shared/data, or the folder EXPERTISE_DATA. A file that is not
there raises `MissingDataError`; the scripts print its message.
"""

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn import datasets
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

FOLDER = Path(os.environ.get("EXPERTISE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
# the target, and the columns that are neither input nor target
REGIMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "servo": ("Class", ()),
    "ais": ("Bfat", ("sex", "sport")),
    "mcycle": ("accel", ()),
    "nasa_temp_anomalies": ("AnnualAnomaly", ("5-YearMean",)),
    "ozone": ("ozone", ()),
    "galaxy": ("velocity", ()),
}


NAMES = ("diabetes", *REGIMES)
CLASSES = ("breast_cancer", "wine", "iris", "digits")
PEERS = ("linear", "kNN", "RF", "HistGB", "MLP", "Cubist")
AIMS = {
    "diabetes": 54.5, "servo": 4.9, "ais": 0.59, "mcycle": 25.3, "nasa_temp_anomalies": 0.116, "ozone": 17.9,
    "galaxy": 16.2, "kin8nm": 0.09,
}  # fmt: skip
# of packages that do not install beside today's scikit-learn: earlier runs on the same folds
PUBLISHED = {
    "linear-tree*": {
        "servo": 4.539, "ais": 0.504, "mcycle": 24.06, "nasa_temp_anomalies": 0.119, "galaxy": 15.08,
    },
    "SMT*": {"nasa_temp_anomalies": 0.1156},
}  # fmt: skip


class MissingDataError(Exception):
    """A file that is not there; the message says where it was looked for."""


def regression(name: str) -> tuple[Array, Array]:
    """Give X (n, d) and y (n,). Columns of text become one column of 0 and 1 for each of their values."""
    if name == "diabetes":
        X, y = datasets.load_diabetes(return_X_y=True)
        return np.asarray(X), np.asarray(y)
    target, dropped = REGIMES[name]
    with _found(FOLDER / "regimes" / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = []
    for column in rows[0]:
        if column != target and column not in dropped:
            columns += _numbers([row[column] for row in rows])
    return np.column_stack(columns), np.array([float(row[target]) for row in rows])


def _numbers(values: list[str]) -> list[Array]:
    try:
        return [np.array([float(value) for value in values])]
    except ValueError:
        return [np.array([float(value == one) for value in values]) for one in sorted(set(values))]


def classification(name: str) -> tuple[Array, Index]:
    """Give X (n, d) and class codes (n,) of a set that scikit-learn brings."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(X, float), np.asarray(y)


def published(name: str) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Give X, y and the test rows of each published split, (n, splits)."""
    table = np.loadtxt(_found(FOLDER / "uci" / f"{name}.csv"), delimiter=",", skiprows=1)
    mask = np.loadtxt(_found(FOLDER / "uci" / f"{name}_gal_test_mask.csv"), delimiter=",", ndmin=2)
    return table[:, :-1], table[:, -1], mask == 1


def _found(file: Path) -> Path:
    if not file.exists():
        raise MissingDataError(
            f"no file {file}; set EXPERTISE_DATA to the folder that holds {file.parent.name}/"
        )
    return file


class Job(NamedTuple):
    """One fold of one data set."""

    name: str
    task: str
    X: Array
    y: Any
    train: Index
    test: Index


def jobs(names: Iterable[str], splits: int) -> list[Job]:
    """Load data and deal folds, the large ones first; say which data are not there."""
    found: list[Job] = []
    for name in names:
        task = "classification" if name in CLASSES else "regression"
        y: Any
        dealt: Any
        try:
            if task == "classification":
                X, y = classification(name)
                dealt = StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)
            elif name == "kin8nm":
                X, y, mask = published(name)
                dealt = [(np.flatnonzero(~test), np.flatnonzero(test)) for test in mask.T[:splits]]
            else:
                X, y = regression(name)
                dealt = KFold(5, shuffle=True, random_state=0).split(X)
        except MissingDataError as error:
            print(f"{name}: left out, {error}")
            continue
        found += [Job(name, task, X, y, train, test) for train, test in dealt]
    return sorted(found, key=lambda job: -len(job.y))


def peers(task: str) -> dict[str, Any]:
    """Give the single models, on standardised inputs where that matters to them."""
    if task == "classification":
        return {
            "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            "kNN": make_pipeline(StandardScaler(), KNeighborsClassifier()),
            "RF": RandomForestClassifier(300, random_state=0),
            "HistGB": HistGradientBoostingClassifier(random_state=0),
            "MLP": make_pipeline(
                StandardScaler(), MLPClassifier(hidden_layer_sizes=(64, 64), max_iter=2000, random_state=0)
            ),
        }
    found: dict[str, Any] = {
        "linear": make_pipeline(StandardScaler(), Ridge()),
        "kNN": make_pipeline(StandardScaler(), KNeighborsRegressor()),
        "RF": RandomForestRegressor(300, random_state=0),
        "HistGB": HistGradientBoostingRegressor(random_state=0),
        "MLP": make_pipeline(
            StandardScaler(), MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=2000, random_state=0)
        ),
    }
    try:
        from cubist import Cubist
    except ModuleNotFoundError:
        return found
    return {**found, "Cubist": Cubist(n_committees=20)}
