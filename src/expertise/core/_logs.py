"""Sums of small numbers by their logarithms."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def safe_log(values: npt.ArrayLike) -> Floats:
    """Take the logarithm, -inf at 0, without a warning."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values), dtype=np.float64)


def logsumexp(log_values: Floats, axis: int = -1) -> Floats:
    """Compute log(sum(exp(log_values))) along an axis; neither overflows nor warns, -inf of nothing but -inf.

    >>> logsumexp(np.log([0.25, 0.5])).round(4) == np.log(0.75).round(4)
    np.True_
    """
    top = log_values.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    total = safe_log(np.exp(log_values - top).sum(axis=axis))
    return np.asarray(total + np.squeeze(top, axis=axis))


def add_logs(log_weight: Floats, log_density: Floats) -> Floats:
    """Add logarithms; a weight of 0 stays 0, also times an infinite density."""
    with np.errstate(invalid="ignore"):
        return np.where(log_weight == -np.inf, -np.inf, log_weight + log_density)


def posterior(log_joint: Floats, log_prior: Floats) -> Floats:
    """Turn log g_k p_k(y) into responsibilities, h_k = g_k p_k(y) / sum_j g_j p_j(y).

    Jacobs, Jordan, Nowlan and Hinton (1991). Where no expert can have produced y (all densities 0), y says
    nothing about the experts, and the prior stays. Where densities are infinite, the experts with an
    infinite one share the row equally.

    Parameters
    ----------
    log_joint : (n, K), log g_k + log p_k(y).
    log_prior : (n, K), log g_k.

    Returns
    -------
    (n, K), rows that sum to 1.
    """
    total = logsumexp(log_joint)
    known = np.where((total == -np.inf)[:, None], log_prior - logsumexp(log_prior)[:, None], log_joint)
    known = np.where((total == np.inf)[:, None], safe_log(log_joint == np.inf), known)
    return np.asarray(np.exp(known - logsumexp(known)[:, None]))
