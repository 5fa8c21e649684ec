"""Ranked lists as sorted whole numbers: the precision at each hit, ties averaged over their orders.

A key holds class (31 bits), score (32 bits) and hit (1 bit), so that sorting keys ranks every class's list.
"""

import numpy as np
import numpy.typing as npt
import torch

Keys = npt.NDArray[np.uint64]

_CLASS_SHIFT = np.uint64(33)
_SIGN = np.uint32(1 << 31)


def ranking_keys(
    scores: npt.NDArray[np.floating], hits: npt.NDArray[np.bool_], classes: npt.NDArray[np.unsignedinteger]
) -> Keys:
    """Make the keys of entries: score, whether it is a hit, class; all flat and of one length."""
    keys = score_keys(scores) << np.uint64(1) | hits
    keys |= classes.astype(np.uint64) << _CLASS_SHIFT
    return keys


def one_list(keys: Keys) -> Keys:
    """Put the entries of all classes into one list, in place."""
    keys &= (np.uint64(1) << _CLASS_SHIFT) - np.uint64(1)
    return keys


def score_keys(scores: npt.NDArray[np.floating]) -> Keys:
    """Give each score a 32-bit whole number: a larger score has a smaller one, equal scores the same."""
    if scores.dtype == np.float64:  # 64 bits do not fit; ranks do
        _, ranks = np.unique(-scores, return_inverse=True)
        return np.asarray(ranks, dtype=np.uint64)
    bits = (scores + np.float32(0)).view(np.uint32)  # + 0 makes -0.0 the same as 0.0
    # IEEE 754: the bits of positive numbers rise with the number, those of negative numbers fall
    return np.where(bits & _SIGN != 0, bits, ~(bits | _SIGN)).astype(np.uint64)


def scores_of_keys(keys: Keys) -> npt.NDArray[np.float32]:
    """Give the float32 scores that `score_keys` made these numbers of.

    >>> scores_of_keys(score_keys(np.array([0.25, -2.0, 1.0], dtype=np.float32))).tolist()
    [0.25, -2.0, 1.0]
    """
    bits = keys.astype(np.uint32)
    return np.where(bits & _SIGN != 0, bits, ~bits & ~_SIGN).view(np.float32)


def precisions_of_hits(
    keys: Keys, depth: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return for each hit its class and the precision of its class's ranked list at its place.

    ``keys`` are sorted in place. ``depth``: entries of each list that count; a hit behind them gives 0.
    In a group of m equal scores with r hits, after n entries with h hits, the mean over all orders of the
    group gives each of its hits 1/m sum_{i=1..m} (h + 1 + (i - 1)(r - 1)/(m - 1)) / (n + i)
    (McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence
    of Tied Scores", ECIR 2008); without equal scores that is (h + 1)/(n + 1). The sum ends at i = depth - n.
    """
    one = np.uint64(1)
    keys.sort()
    places = np.flatnonzero(keys & one)
    group = keys[places] >> one
    classes = group >> (_CLASS_SHIFT - one)
    first = np.searchsorted(keys, group << one)
    m = np.searchsorted(keys, (group + one) << one) - first
    list_start = np.searchsorted(keys, classes << _CLASS_SHIFT)
    hits_before = np.searchsorted(places, first)
    r = np.searchsorted(places, first + m) - hits_before
    n = first - list_start
    h = hits_before - np.searchsorted(places, list_start)

    precisions = (h + 1) / (n + 1)
    if depth is not None:
        precisions[n >= depth] = 0.0
    tied = m > 1
    n, m, h, r = n[tied], m[tied], h[tied], r[tied]
    end = m if depth is None else np.clip(depth - n, 0, m)
    harmonic = _digamma(n + end + 1) - _digamma(n + 1)  # sum of 1/(n + i)
    precisions[tied] = ((h + 1) * harmonic + (end - (n + 1) * harmonic) * (r - 1) / (m - 1)) / m
    return classes.astype(np.int64), precisions


def _digamma(x: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return torch.digamma(torch.from_numpy(x).double()).numpy()
