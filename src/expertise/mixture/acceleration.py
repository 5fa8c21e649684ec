"""Longer steps where EM crawls: squared extrapolation (SQUAREM; Varadhan & Roland 2008, scheme S3).

Three points in a row, p0, p1 = M(p0), p2 = M(p1), show how EM's steps shrink: with r = p1 - p0 and
v = (p2 - p1) - r, the point p0 - 2 a r + a^2 v for a = -|r| / |v| lies further along. It costs one pass to
look there; where the objective is not higher, EM goes on from p2 as if nothing had been tried.
"""

import numpy as np

from expertise.mixture.experts import AbstractExpert
from expertise.mixture.gates import AbstractGate
from expertise.mixture.rows import Array

SLOW = 0.5  # gains that shrink faster than this from step to step need no help
FIRST_LIMIT = 4.0  # of |a|; four times as far after each success
FARTHEST = 300.0  # that a parameter of an expert may be, a log of a width too: exp of it can still be squared

Parts = tuple[AbstractGate, tuple[AbstractExpert, ...]]


class Extrapolation:
    """Remembers the last points, and says where to look next."""

    def __init__(self) -> None:
        self._points: list[Array] = []
        self._limit = FIRST_LIMIT

    def restart(self) -> None:
        """Forget the points: the next one is no plain step from the last."""
        self._points = []

    def reward(self) -> None:
        """Note that the last jump was worth it."""
        self._limit *= 4

    def punish(self) -> None:
        """Note that it was not."""
        self._limit = max(FIRST_LIMIT, self._limit / 4)
        self.restart()

    def jump(self, gate: AbstractGate, experts: tuple[AbstractExpert, ...], rate: float) -> Parts | None:
        """Take the next point; give the parts to look at, or None.

        rate : the last gain over the one before.
        """
        here = _vector(gate, experts)
        if here is None:
            return None
        self._points.append(here)
        if len(self._points) < 3 or not rate > SLOW:
            self._points = self._points[-3:]
            return None
        p0, p1, p2 = self._points[-3:]
        first = p1 - p0
        bend = (p2 - p1) - first
        size = float(np.linalg.norm(bend))
        if not np.isfinite(here).all() or size == 0:
            return None
        step = min(float(np.linalg.norm(first)) / size, self._limit)
        if step <= 1.0:
            return None
        there = p0 + 2 * step * first + step**2 * bend
        return _parts(gate, experts, there)


def _learning(gate: AbstractGate, experts: tuple[AbstractExpert, ...]) -> list[AbstractGate | AbstractExpert]:
    parts: list[AbstractGate | AbstractExpert] = [gate] if gate.trainable else []
    return [*parts, *(expert for expert in experts if not expert.frozen)]


def _vector(gate: AbstractGate, experts: tuple[AbstractExpert, ...]) -> Array | None:
    """Give all parameters that learn; None where a part has none."""
    vectors = [part.parameters for part in _learning(gate, experts)]
    known = [vector for vector in vectors if vector is not None]
    return np.concatenate(known) if known and len(known) == len(vectors) else None


def _parts(gate: AbstractGate, experts: tuple[AbstractExpert, ...], vector: Array) -> Parts | None:
    """Set the parameters; None where they leave what an M-step may give (a variance below its floor).

    Steep borders of a gate may lie far out, and do no harm; experts there would overflow.
    """
    at = 0

    def taken(part: AbstractGate | AbstractExpert) -> Array:
        nonlocal at
        size = len(part.parameters)  # type: ignore[arg-type]
        at += size
        return vector[at - size : at]

    with np.errstate(all="ignore"):
        if gate.trainable:
            gate = gate.with_parameters(taken(gate))
        if np.abs(vector[at:]).max(initial=0.0) > FARTHEST:
            return None
        moved = tuple(e if e.frozen else e.with_parameters(taken(e)) for e in experts)
        if any(e.degenerate() is not None for e in moved if not e.frozen):
            return None
    return gate, moved
