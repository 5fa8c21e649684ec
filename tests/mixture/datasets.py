"""Data sets of the tests: classical ones from the data folder, and simulated regimes."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def columns(folder: Path, name: str) -> dict[str, list[str]]:
    """Read a CSV of the classical sets, column by column."""
    with (folder / "regimes" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {key: [row[key] for row in rows] for key in rows[0]}


def numbers(values: list[str]) -> Array:
    return np.array([float(value) for value in values])


class Regimes(NamedTuple):
    """Simulated rows with the regime each came from."""

    X: Array
    y: Array
    regime: npt.NDArray[np.intp]


def regimes(n: int, k: int = 2, d: int = 3, *, noise: float = 0.1, seed: int = 0) -> Regimes:
    """Linear regimes divided by the input: k hyperplanes through a star, or the sign of x0 for k = 2."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    directions = np.linalg.qr(np.random.default_rng(7).normal(size=(max(d, k), max(d, k))))[0][:k, :d]
    regime = (X @ directions.T).argmax(axis=1) if k > 2 else (X[:, 0] > 0).astype(int)
    beta = np.random.default_rng(11).normal(size=(k, d + 1)) * 2
    y = np.einsum("nd,nd->n", X, beta[regime, 1:]) + beta[regime, 0] + noise * rng.normal(size=n)
    return Regimes(X, y, regime.astype(np.intp))
