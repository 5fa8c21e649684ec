"""Draws at random, repeatable by a seed."""

from typing import Any

import numpy as np
import numpy.typing as npt

Generator = np.random.Generator | np.random.RandomState


def as_generator(random_state: Any) -> Generator:
    """Make a generator of random numbers of None, a whole number, or a generator of NumPy."""
    if isinstance(random_state, np.random.Generator | np.random.RandomState):
        return random_state
    if random_state is not None and not isinstance(random_state, int | np.integer):
        raise ValueError(
            f"random_state must be None, a whole number or a generator of NumPy; got {random_state!r}"
        )
    return np.random.default_rng(random_state)


def draw_columns(weights: npt.NDArray[np.float64], rng: Generator) -> npt.NDArray[np.intp]:
    """Draw a column for each row of weights (n, K), by their share of the row's sum, (n,)."""
    below = np.cumsum(weights, axis=1)
    drawn = rng.random(len(below))[:, None] * below[:, -1:]  # a sum a digit under 1 must not overrun
    return np.asarray((drawn >= below).sum(axis=1))
