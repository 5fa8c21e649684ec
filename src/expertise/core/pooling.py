"""How the experts' outputs become one: a table of poolings, and the sum that they share."""

import difflib
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Pooling = Callable[[Floats, int], Floats]


def weighted_sum(gate: Floats, k: int) -> Floats:
    """Every expert counts by its gate probability, sum_k g_k f_k (Jacobs et al. 1991); no use of ``k``."""
    return gate


def argmax(gate: Floats, k: int) -> Floats:
    """Only the expert with the largest gate probability counts, of equal ones the first; no use of ``k``."""
    return _largest(gate, 1)


def top_k(gate: Floats, k: int) -> Floats:
    """Only the ``k`` largest gate probabilities count, over their sum (Shazeer et al. 2017, eq. 3-5)."""
    return _largest(gate, k)


POOLINGS: dict[str, Pooling] = {"weighted_sum": weighted_sum, "argmax": argmax, "top_k": top_k}


def _largest(gate: Floats, k: int) -> Floats:
    """Keep the k largest of each row, renormalised, with exact zeros elsewhere."""
    kept = np.argsort(-gate, axis=1, kind="stable")[:, :k]  # stable: of equal experts the first
    values = np.take_along_axis(gate, kept, axis=1)
    weights = np.zeros_like(gate)
    np.put_along_axis(weights, kept, values / values.sum(axis=1, keepdims=True), axis=1)
    return weights


def pooling_weights(pooling: str, gate: Floats, k: int) -> Floats:
    """Turn gate probabilities into the weights that a pooling uses.

    Parameters
    ----------
    pooling : a key of `POOLINGS`.
    gate : (n, K) gate probabilities.
    k : how many experts "top_k" keeps.

    Returns
    -------
    (n, K) weights that sum to 1 in each row, exactly 0 for experts that are not asked.

    Raises
    ------
    ValueError : an unknown pooling, or a ``k`` that "top_k" cannot use.

    >>> pooling_weights("top_k", np.array([[0.2, 0.6, 0.2]]), 2)
    array([[0.25, 0.75, 0.  ]])
    """
    if pooling not in POOLINGS:
        near = difflib.get_close_matches(str(pooling), POOLINGS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"pooling must be one of {', '.join(map(repr, POOLINGS))}; got {pooling!r}{hint}")
    if pooling == "top_k":
        _check_k(k, gate.shape[1])
    return POOLINGS[pooling](gate, k)


def _check_k(k: Any, n_experts: int) -> None:
    try:
        good = not isinstance(k, bool) and 1 <= operator.index(k) <= n_experts
    except TypeError:
        good = False
    if not good:
        raise ValueError(
            f"k must be a whole number from 1 to the number of experts, {n_experts}; got {k!r}; "
            'pooling="weighted_sum" uses all experts'
        )


def pool(weights: Floats, predict_one: Callable[[int, Rows], Any]) -> Floats:
    """Add up the experts' outputs by their weights; an expert is asked only for rows where it counts.

    A row with one expert gets the output of this expert itself, bit for bit.

    Parameters
    ----------
    weights : (n, K), as `pooling_weights` gives them.
    predict_one : gives the output of expert k for some rows, (len(rows), ...); never called with no rows.

    Returns
    -------
    (n, ...)
    """
    counts = np.count_nonzero(weights > 0, axis=1)
    result: Floats | None = None
    for k in range(weights.shape[1]):
        rows = np.flatnonzero(weights[:, k] > 0)
        if rows.size == 0:
            continue
        output = np.asarray(predict_one(k, rows), dtype=np.float64)
        if result is None:
            result = np.zeros((len(weights), *output.shape[1:]))
            result[counts == 0] = np.nan  # a gate that is not a number must not look like a prediction of 0
        alone = counts[rows] == 1
        result[rows[alone]] = output[alone]
        shared = rows[~alone]
        share = weights[shared, k].reshape(-1, *[1] * (output.ndim - 1))
        result[shared] += share * output[~alone]
    return np.full(len(weights), np.nan) if result is None else result
