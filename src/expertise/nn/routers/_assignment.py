"""The balanced assignment of largest total score, exactly, as a flow between experts.

Letters of shapes: T tokens, E experts, N = E + 1 nodes of the flow: the experts, and the rest.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def balanced_assignment(score_TE: Floats) -> Ints:
    """Give each token an expert, (T,), so that the total score is largest and loads differ by at most 1.

    Successive shortest paths (Ahuja, Magnanti and Orlin 1993, section 9.7): every token starts with the
    expert of largest score less price; then, while an expert has too many, the cheapest chain of moves goes
    to one that has too few. The nodes are the experts, so a chain costs about E^2 steps, and memory is T x E.

    >>> balanced_assignment(np.array([[5.0, 0.0], [4.0, 0.0], [3.0, 1.0], [9.0, 0.0]])).tolist()
    [0, 1, 1, 0]
    """
    if len(score_TE) == 0:
        return np.zeros(0, dtype=np.int64)
    flow = _Flow(score_TE)
    while flow.excess_N.any():
        flow.push()
    return flow.expert_T


class _Flow:
    """Tokens at experts, and what it costs to move one on.

    An expert needs T // E tokens; beyond these it may hand one to the node "rest", which needs T mod E.
    """

    def __init__(self, score_TE: Floats) -> None:
        T, E = score_TE.shape
        self.score_TE = score_TE
        # any prices are a start that can be mended to the exact answer; good ones leave little to mend
        price_E = _prices(score_TE)
        self.expert_T: Ints = (score_TE - price_E).argmax(1)
        load_E = np.bincount(self.expert_T, minlength=E)
        self.hands_on_E = np.zeros(E, dtype=bool)
        self.hands_on_E[np.argsort(-price_E, kind="stable")[: T % E]] = True
        self.excess_N = np.append(load_E - T // E - self.hands_on_E, self.hands_on_E.sum() - T % E)
        # moving a token costs what its score falls; infinite where there is none to move
        self.cost_NN: Floats = np.full((E + 1, E + 1), np.inf)
        self.mover_EE: Ints = np.zeros((E, E), dtype=np.int64)
        for e in range(E):
            self._look_at(e)
        # rounding must not make a path that goes round and round
        self.least_gain = 1e-13 * max(1.0, float(np.abs(score_TE).max()))

    def push(self) -> None:
        """Move one token along the cheapest path from a node with too many to one with too few."""
        before_N, to = self._cheapest_path()
        path = [to]
        while before_N[path[-1]] >= 0:
            path.append(int(before_N[path[-1]]))
        path.reverse()
        rest = len(self.hands_on_E)
        # who moves is settled before anybody does
        moves = [(int(self.mover_EE[a, b]), b) for a, b in pairwise(path) if rest not in (a, b)]
        for token, b in moves:
            self.expert_T[token] = b
        for a, b in pairwise(path):
            if b == rest:
                self.hands_on_E[a] = True
            elif a == rest:
                self.hands_on_E[b] = False
        self.excess_N[path[0]] -= 1
        self.excess_N[to] += 1
        for e in path:
            if e != rest:
                self._look_at(e)

    def _cheapest_path(self) -> tuple[Ints, int]:
        """Bellman and Ford's: the node before each, -1 at the start; and where the path ends."""
        distance_N = np.where(self.excess_N > 0, 0.0, np.inf)
        before_N: Ints = np.full(len(distance_N), -1)
        for _ in range(len(distance_N)):
            through_NN = distance_N[:, None] + self.cost_NN
            best_N = through_NN.argmin(0)
            shorter_N = through_NN.min(0) < distance_N - self.least_gain
            if not shorter_N.any():
                break
            distance_N = np.where(shorter_N, through_NN.min(0), distance_N)
            before_N = np.where(shorter_N, best_N, before_N)
        end_N = np.where(self.excess_N < 0, distance_N, np.inf)
        assert end_N.min() < np.inf
        return before_N, int(end_N.argmin())

    def _look_at(self, e: int) -> None:
        """Find the cheapest token to move from expert e to each other one."""
        rest = len(self.hands_on_E)
        self.cost_NN[e, rest] = np.inf if self.hands_on_E[e] else 0.0
        self.cost_NN[rest, e] = 0.0 if self.hands_on_E[e] else np.inf
        tokens: npt.NDArray[Any] = np.flatnonzero(self.expert_T == e)
        if not len(tokens):
            self.cost_NN[e, :rest] = np.inf
            return
        score_nE = self.score_TE[tokens]
        fall_nE = score_nE[:, e : e + 1] - score_nE
        cheapest_E = fall_nE.argmin(0)
        self.mover_EE[e] = tokens[cheapest_E]
        self.cost_NN[e, :rest] = fall_nE[cheapest_E, np.arange(rest)]


def _prices(score_TE: Floats, steps: int = 24) -> Floats:
    """Give each expert a price at which about equally many tokens want it, (E,): Sinkhorn, ever sharper."""
    T, E = score_TE.shape
    price_E = np.zeros(E)
    spread = float(score_TE.std(1).mean())
    if spread == 0:
        return price_E
    for sharpness in np.geomspace(1, 100, steps) / spread:
        wish_TE = (score_TE - price_E) * sharpness
        wish_TE = np.exp(wish_TE - wish_TE.max(1, keepdims=True))
        load_E = (wish_TE / wish_TE.sum(1, keepdims=True)).sum(0)
        price_E = price_E + np.log(np.maximum(load_E * E / T, 1e-3)) / sharpness
    return price_E
