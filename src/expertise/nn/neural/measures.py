"""What is measured of trained experts: how wide their errors are, and where their cases lie."""

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

Floats = npt.NDArray[np.float64]

WIDTH_ITERATIONS = 50
COLUMNS_WITH_COVARIANCE = 200


def variances(square: Floats, prior: Floats, weight: Floats, floor: float) -> Floats:
    """Find noise variances by EM with gate and means as they are: sigma_k^2 = sum h r^2 / sum h.

    Objectives other than the likelihood do not say how wide an expert's errors are.

    Parameters
    ----------
    square : (K, n, m) squared errors of each expert.
    prior : (K, n) gate probabilities.
    weight : (n,) weights of the rows.
    floor : smallest variance.

    Returns
    -------
    (K, m); 1 of an expert that no case belongs to.

    >>> one = variances(np.array([[[1.0], [9.0]]]), np.ones((1, 2)), np.array([3.0, 1.0]), 0.0)
    >>> one
    array([[3.]])
    """
    resp = prior
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior)
    for _ in range(WIDTH_ITERATIONS):
        share = weight * resp
        mass = share.sum(axis=1)[:, None]
        found = np.einsum("kn,kno->ko", share, square) / np.maximum(mass, 1e-12)
        variance = np.where(mass > 1e-9 * weight.sum(), np.maximum(found, floor + 1e-12), 1.0)
        fit = square / variance[:, None] + np.log(variance)[:, None]
        log_joint = log_prior - fit.sum(axis=2) / 2
        resp = np.exp(log_joint - logsumexp(log_joint, axis=0))
    return variance


def region(inside: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Measure where an expert's cases lie: mean (d,) and a factor F (d, d) of the covariance F F'.

    Of many columns only the variances, as a factor (d, 1). Kept so that an expert can be added later without
    the old rows.
    """
    total = max(weight.sum(), 1e-12)
    mean = weight @ inside / total
    moved = inside - mean
    if inside.shape[1] > COLUMNS_WITH_COVARIANCE:
        return mean, np.sqrt(weight @ moved**2 / total)[:, None]
    values, vectors = np.linalg.eigh((weight[:, None] * moved).T @ moved / total)
    return mean, vectors * np.sqrt(np.maximum(values, 0.0))
