"""Roots of rising functions: all magnitudes of floats, steps, ends of the bracket."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from expertise.core._roots import bracketed_root, smallest_whole


def test_roots_over_all_magnitudes() -> None:
    low, high = np.full(5, -1e308), np.full(5, 1e308)
    roots = np.array([-1e300, -1e-200, 0.0, 1e-5, 1e20])
    found = bracketed_root(lambda y: np.sign(y - roots), low, high)  # a step tells only the side
    np.testing.assert_allclose(found, roots, rtol=1e-14, atol=1e-300)
    assert np.isnan(bracketed_root(lambda y: y * np.nan, np.zeros(1), np.ones(1))).all()
    assert bracketed_root(lambda y: y + 1, np.array([0.0]), np.array([3.0])).tolist() == [0]
    assert bracketed_root(lambda y: y - 9, np.array([0.0]), np.array([3.0])).tolist() == [3]


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_smallest_whole_number(answer: int, below: int, above: int) -> None:
    found = smallest_whole(
        lambda y: y >= answer, np.array([float(answer - below)]), np.array([float(answer + above)])
    )
    assert found.tolist() == [answer]
