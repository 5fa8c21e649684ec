"""Log odds of given centres with given widths, exact for any width: from the nearest centre to the mean."""

import numpy as np

from expertise.mixture.rows import Array

BLOCK = 2**20  # distances that are worked on at once
FARTHEST = -1e250  # the log of a prior of 0: finite, so that 0 times it is 0


def log_centres(x: Array, means: Array, widths: Array, log_prior: Array) -> Array:
    """Compute log g_k(x), g_k = a_k N(x; m_k, diag(w_k^2)) / sum.

    Distances come from differences, and the least of them is taken off before they are divided by the widths:
    for a tiny width all but the nearest centre get nothing, for a huge one all get the same.

    Parameters
    ----------
    x : (n, d); NaN where missing, which integrates the column out.
    means, widths : (K, d).
    log_prior : (K,) logs of a_k.

    >>> x, means = np.array([[0.1], [0.8]]), np.array([[0.0], [1.0]])
    >>> np.exp(log_centres(x, means, np.full((2, 1), 1e-200), np.log([0.5, 0.5])))
    array([[1., 0.],
           [0., 1.]])
    """
    least = float(widths.min(initial=np.inf)) if widths.size else 1.0
    ratio = widths / least
    found = np.empty((len(x), len(means)))
    step = max(1, BLOCK // max(len(means), 1))
    for start in range(0, len(x), step):
        block = found[start : start + step]
        block[:] = _log_block(x[start : start + step], means, ratio, least, log_prior)
    return found


def _log_block(x: Array, means: Array, ratio: Array, least: float, log_prior: Array) -> Array:
    square = np.zeros((len(x), len(means)))
    volume = np.zeros((len(x), len(means)))
    uneven = bool((ratio != ratio[:1]).any())  # equal widths need no normalising constants
    for j in range(x.shape[1]):
        there = ~np.isnan(x[:, j])
        difference = np.subtract.outer(np.where(there, x[:, j], 0.0), means[:, j])
        difference /= ratio[:, j]
        difference[~there] = 0.0
        square += np.square(difference, out=difference)
        if uneven:
            volume += np.outer(there, np.log(ratio[:, j]))
    square -= square.min(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # infinitely far is far
        square /= least
        square /= 2 * least
    logs = log_prior - volume - square
    logs -= logs.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return np.maximum(logs, FARTHEST)
