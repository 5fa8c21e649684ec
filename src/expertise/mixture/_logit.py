"""Newton for a multinomial logit with soft targets: shared by the gates that are made of softmaxes.

Maximise sum_ik h_ik log g_ik with g = softmax(X beta), h >= 0 summing to the weight of each row. Class by
class this is unstable; with all blocks of the Hessian it converges in a few steps.
"""

from functools import cache

import numpy as np
from scipy import linalg

from expertise.mixture.rows import Array, Design, IntArray
from expertise.mixture.sums import Sums

LARGE = 1500  # unknowns from which the fixed bound of Bohning & Lindsay replaces the Hessian


def log_softmax(eta: Array) -> Array:
    """Normalise logits (n, K) in place: log softmax over experts."""
    eta -= eta.max(axis=1, keepdims=True)
    eta -= np.log(np.exp(eta).sum(axis=1, keepdims=True))
    return eta


def gate_gradient(design: Design, resp: Array, log_gate: Array, weight: Array) -> Array:
    """Sum (h - w g) x over rows: (q, K)."""
    return design.cross(resp - weight[:, None] * np.exp(log_gate))


def newton_sums(design: Design, resp: Array, log_gate: Array, weight: Array) -> Sums:
    """Sum gradient (q, K) and Hessian of sum h log g; ``weight`` (n,) may be 0 in rows that do not count.

    The Hessian's blocks for experts k <= l < K are (pairs, q, q); for large problems the one bound (1, q, q)
    of Bohning & Lindsay 1988, sum w x x', from which all blocks follow.
    """
    prior = np.exp(log_gate)
    gate = prior * weight[:, None]
    gradient = design.cross(resp - gate)
    free = gate.shape[1] - 1
    if free * design.shape[1] > LARGE:
        return Sums(gradient=gradient, bound=design.gram(weight[:, None]))
    first, second = _upper(free)
    curvature = np.empty((len(gate), len(first)), order="F")
    for column, (k, other) in enumerate(zip(first, second, strict=True)):
        share = 1 - prior[:, k] if k == other else -prior[:, other]
        np.multiply(gate[:, k], share, out=curvature[:, column])
    return Sums(gradient=gradient, hessian=design.gram(curvature))


def newton_update(beta: Array, sums: Sums, ridge: float) -> Array:
    """Make one Newton step from beta (q, K), whose last column stays 0."""
    q, n_experts = beta.shape
    free = n_experts - 1
    if free == 0:
        return beta
    right = sums["gradient"][:, :-1] - _ridge_gradient(beta, ridge)[:, :-1]
    matrix = _hessian(sums, q, free)
    centring = ridge * (np.eye(free) - 1 / n_experts)  # of squared centred coefficients, last one 0
    penalised = np.eye(q)
    penalised[0, 0] = 0.0
    matrix += np.kron(centring, penalised)
    step = _solve(matrix, right.T.ravel()).reshape(free, q).T
    after = beta.copy()
    after[:, :-1] += step
    return after


def _hessian(sums: Sums, q: int, free: int) -> Array:
    if "bound" in sums:
        half = 0.5 * (np.eye(free) - 1 / (free + 1))
        return np.asarray(np.kron(half, sums["bound"][0]))
    matrix = np.empty((free, q, free, q))
    for block, (k, other) in zip(sums["hessian"], zip(*_upper(free), strict=True), strict=True):
        matrix[k, :, other, :] = matrix[other, :, k, :] = block
    return np.asarray(matrix.reshape(free * q, free * q))


@cache
def _upper(free: int) -> tuple[IntArray, IntArray]:
    return np.triu_indices(free)


def _solve(matrix: Array, right: Array) -> Array:
    """Solve with a tiny ridge relative to each unknown, so that a flat direction gives a bounded step."""
    diagonal = np.diag(matrix)
    root = np.sqrt(np.maximum(diagonal, 1e-12 * max(diagonal.max(), 1e-300)))
    unit = matrix / np.outer(root, root)
    unit[np.diag_indices_from(unit)] += 1e-10
    try:
        step = linalg.solve(unit, right / root, assume_a="pos", check_finite=False)
    except linalg.LinAlgError:
        values, vectors = np.linalg.eigh(unit)
        step = vectors @ ((vectors.T @ (right / root)) / np.maximum(values, 1e-10))
    return step / root  # type: ignore[no-any-return]


def ridge_penalty(beta: Array, ridge: float) -> float:
    """Give ridge / 2 times the squared coefficients (intercepts free), centred over experts."""
    slopes = beta[1:]
    return float(0.5 * ridge * ((slopes - slopes.mean(axis=1, keepdims=True)) ** 2).sum())


def _ridge_gradient(beta: Array, ridge: float) -> Array:
    gradient: Array = ridge * (beta - beta.mean(axis=1, keepdims=True))
    gradient[0] = 0.0
    return gradient


def between(here: Array, there: Array, share: float) -> Array:
    """Go from here towards there by share."""
    return here + share * (there - here)
