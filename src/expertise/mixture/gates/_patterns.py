"""Normal densities of rows with missing values, and their sums: rows that miss the same columns go together.

What is missing is integrated out: the density is that of the observed columns; the sums are of x and x x' as
they are expected given the observed columns (Little & Rubin, Statistical Analysis with Missing Data, 11.2).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import linalg

from expertise.mixture.rows import Array, Design, IntArray

LOG_2PI = float(np.log(2 * np.pi))

Pattern = tuple[IntArray | slice, IntArray, IntArray]


def patterns(x: Array) -> Iterator[Pattern]:
    """Yield rows with the columns they show and the columns they miss, of x (n, d) with NaN.

    >>> x = np.array([[1.0, 2.0], [np.nan, 3.0], [4.0, 5.0]])
    >>> [(rows.tolist(), seen.tolist(), lost.tolist()) for rows, seen, lost in patterns(x)]
    [([0, 2], [0, 1], []), ([1], [1], [0])]
    """
    missing = np.isnan(x)
    columns = np.arange(x.shape[1])
    if not missing.any():
        yield slice(None), columns, columns[:0]
        return
    kinds, which = np.unique(missing, axis=0, return_inverse=True)
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    ends = np.searchsorted(which[order], np.arange(len(kinds) + 1))
    for number, kind in enumerate(kinds):
        yield order[ends[number] : ends[number + 1]], columns[~kind], columns[kind]


def log_normals(x: Array, means: Array, covariances: Array) -> Array:
    """Compute log N(x; m_k, S_k) of what each row shows.

    Parameters
    ----------
    x : (n, d), NaN where missing.
    means : (K, d).
    covariances : (K, d, d), positive definite.

    Returns
    -------
    (n, K); 0 for a row that shows nothing.
    """
    found = np.zeros((len(x), len(means)), order="F")
    for rows, seen, _ in patterns(x):
        if not len(seen):
            continue
        shown = x[rows][:, seen]
        for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
            lower = linalg.cholesky(covariance[np.ix_(seen, seen)], lower=True)
            # one product with the inverse factor is faster than solving for every row
            inverse = linalg.solve_triangular(lower, np.eye(len(seen)), lower=True)
            white = (shown - mean[seen]) @ inverse.T
            constant = np.log(np.diag(lower)).sum() + 0.5 * LOG_2PI * len(seen)
            found[rows, k] = -0.5 * np.einsum("ij,ij->i", white, white) - constant
    return found


def expected_grams(design: Design, resp: Array, means: Array, covariances: Array) -> Array:
    """Sum h_ik E[x_i x_i' | what row i shows, k] over rows, the column of ones included.

    Parameters
    ----------
    design : (n, q), ones first, NaN where missing.
    resp : (n, K).
    means, covariances : (K, d) and (K, d, d) with d = q - 1: the normals that fill what is missing.

    Returns
    -------
    (K, q, q): count, sum of x and sum of x x' in one.
    """
    total = np.zeros((resp.shape[1], design.shape[1], design.shape[1]))
    for rows, seen, lost in patterns(design.x[:, 1:]):
        if not len(lost):
            total += (design if isinstance(rows, slice) else design.take(rows)).gram(resp[rows])
            continue
        for k in range(resp.shape[1]):
            total[k] += _filled_gram(design.x[rows], resp[rows, k], (seen, lost), means[k], covariances[k])
    return total


def _filled_gram(
    x: Array, weight: Array, columns: tuple[IntArray, IntArray], mean: Array, covariance: Array
) -> npt.NDArray[np.float64]:
    """Give the weighted Gram matrix (q, q) of rows (n, q) that miss the same columns, as expected."""
    seen, lost = columns
    slope = np.zeros((len(seen), len(lost)))
    if len(seen):
        slope = linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, lost)], assume_a="pos")
    filled = x.copy()
    filled[:, 1 + lost] = mean[lost] + (x[:, 1 + seen] - mean[seen]) @ slope
    gram: npt.NDArray[np.float64] = (filled * weight[:, None]).T @ filled
    rest = covariance[np.ix_(lost, lost)] - covariance[np.ix_(lost, seen)] @ slope
    gram[np.ix_(1 + lost, 1 + lost)] += weight.sum() * rest
    return gram
