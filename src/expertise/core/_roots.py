"""Where a rising function reaches a value, for many rows at once."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_INTERPOLATED = 60  # steps before only halving is left; smooth functions need about 10
_HALVED = 66  # halving by the order of the floats ends within 64


def bracketed_root(function: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """Find the root of a rising function between ``low`` and ``high``, to the last digits of a float.

    Bisection that interpolates where this is safe (Chandrupatla 1997, "A new hybrid quadratic/bisection
    algorithm for finding the zero of a nonlinear function").

    Parameters
    ----------
    function : of y, (n,) or (n, m), elementwise.
    low, high : of the same shape; the root lies between, the ends included.

    >>> bracketed_root(lambda y: y**3 - 8.0, np.array([0.0]), np.array([5.0]))
    array([2.])
    """
    limit = np.finfo(np.float64).max / 4  # the width of the bracket must not overflow
    a, b = np.clip(low, -limit, limit), np.clip(high, -limit, limit)
    fa, fb = function(a), function(b)
    root = np.where(fa >= 0, a, np.where(fb <= 0, b, np.nan))
    done = (fa >= 0) | (fb <= 0) | np.isnan(fa) | np.isnan(fb)
    t: Floats = np.full(a.shape, 0.5)
    for step in range(_INTERPOLATED + _HALVED):
        if done.all():
            break
        x = a + t * (b - a) if step < _INTERPOLATED else _between(a, b)
        fx = function(x)
        same = np.sign(fx) == np.sign(fa)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, fx
        best = np.where(np.abs(fa) < np.abs(fb), a, b)
        tolerance = 2 * np.finfo(np.float64).eps * np.abs(best) + np.finfo(np.float64).tiny
        width = np.abs(b - a)
        ended = ~done & ((fx == 0) | (width <= 2 * tolerance) | (step == _INTERPOLATED + _HALVED - 1))
        root = np.where(ended, best, root)
        done |= ended | np.isnan(fx)
        t = _next_step(a, b, c, fa, fb, fc, tolerance)
    return root


def _next_step(
    a: Floats, b: Floats, c: Floats, fa: Floats, fb: Floats, fc: Floats, tolerance: Floats
) -> Floats:
    """Give the share of the way from a to b: by inverse quadratic interpolation where safe, else a half."""
    with np.errstate(all="ignore"):
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        quadratic = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        least = np.minimum(tolerance / np.abs(b - a), 0.5)
    t = np.where(safe & np.isfinite(quadratic), quadratic, 0.5)
    return np.where(np.isfinite(least), np.clip(t, least, 1 - least), 0.5)


def _between(a: Floats, b: Floats) -> Floats:
    """Give the float in the middle of those from a to b, which halves even a bracket of many magnitudes."""
    i, j = _order(a.view(np.int64)), _order(b.view(np.int64))
    middle = (i >> 1) + (j >> 1) + (i & j & 1)
    return _order(middle).view(np.float64)


def _order(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Turn the bits of floats into whole numbers of the same order, and back."""
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))


def smallest_whole(reached: Callable[[Floats], npt.NDArray[np.bool_]], low: Floats, high: Floats) -> Floats:
    """Find the smallest whole number where ``reached`` holds, which it does from there on, and at ``high``.

    Parameters
    ----------
    reached : of y, (n,) or (n, m), elementwise.
    low, high : whole numbers of the same shape; the answer is one of them or between.

    >>> smallest_whole(lambda y: y * y >= 50, np.array([0.0]), np.array([100.0]))
    array([8.])
    """
    limit = 2.0**53  # beyond, floats are no longer all whole numbers
    below, at = np.clip(low, -limit, limit) - 1, np.clip(high, -limit, limit)
    while (at - below > 1).any():
        middle = np.floor((below + at) / 2)
        good = reached(middle)
        open_ = at - below > 1
        below, at = np.where(open_ & ~good, middle, below), np.where(open_ & good, middle, at)
    return at
