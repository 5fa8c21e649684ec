"""Small tables whose regimes are known, for the neural mixtures."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Regimes(NamedTuple):
    """Rows with the regime each came from."""

    X: Array
    y: Array
    regime: npt.NDArray[np.intp]


def regimes(n: int, seed: int = 0, noise: tuple[float, float] = (0.1, 0.1)) -> Regimes:
    """Draw two linear regimes, divided by the sign of x0: y = 3 x1, and y = 2 - 3 x1 + x2."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    regime = (X[:, 0] > 0).astype(np.intp)
    mean = np.where(regime == 0, 3 * X[:, 1], 2 - 3 * X[:, 1] + X[:, 2])
    return Regimes(X, mean + np.array(noise)[regime] * rng.normal(size=n), regime)


def speaker(source: int, n: int, seed: int) -> tuple[Array, npt.NDArray[np.intp]]:
    """Draw three classes as one of three sources says them: each permutes the places of the classes.

    Columns 2 and 3 tell the sources apart.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    order = np.array([(0, 1, 2), (1, 2, 0), (2, 0, 1)][source])
    places = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])[order[y]]
    centre = [[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]][source]
    return np.column_stack(
        [places + 0.5 * rng.normal(size=(n, 2)), centre + 0.6 * rng.normal(size=(n, 2))]
    ), y
