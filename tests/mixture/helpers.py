"""Rows as the mixture makes them, for tests of the parts: all columns standardised."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse as sp

from expertise.mixture.experts import AbstractExpert
from expertise.mixture.rows import Array, Design, Rows, Scaling


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows inside EM, with how they were standardised and the design of the original columns."""

    rows: Rows
    x: Scaling
    y: Scaling
    design: Design


def make_rows(
    X: Any,
    y: npt.NDArray[Any],
    weight: Array | None = None,
    offset: Array | None = None,
    *,
    sparse: bool = False,
) -> Sample:
    """Standardise inputs (n, p) and targets (n,) or (n, m)."""
    n = len(y)
    weight = np.ones(n) if weight is None else weight
    raw = sp.csr_matrix(X) if sparse else np.asarray(X, float)
    x = Scaling.of(raw, weight)
    columns = np.asarray(y, float).reshape(n, -1)
    moved = columns if offset is None else columns - offset[:, None]
    scale = Scaling.of(moved, weight)
    design = Design.of(raw, x)
    rows = Rows(
        gate=design,
        expert=design,
        y=y,
        z=(moved - scale.mean) / scale.scale,
        log_scale=float(np.log(scale.scale).sum()),
        weight=weight,
        offset=offset,
        index=np.arange(n),
    )
    return Sample(rows, x, scale, Design.of(raw))


def updated(expert: AbstractExpert, rows: Rows, resp: Array) -> AbstractExpert:
    """Make one M-step of one expert from resp (n,)."""
    return expert.update(type(expert).statistics([expert], rows, resp[:, None])[0])


def iterated(expert: AbstractExpert, rows: Rows, resp: Array, times: int = 60) -> AbstractExpert:
    """Make so many M-steps with the same responsibilities."""
    for _ in range(times):
        expert = updated(expert, rows, resp)
    return expert


def loglik(expert: AbstractExpert, rows: Rows, resp: Array | None = None) -> float:
    """Sum h log p."""
    resp = rows.weight if resp is None else resp
    return float(resp @ type(expert).log_densities([expert], rows)[:, 0])


def objective(expert: AbstractExpert, rows: Rows, resp: Array) -> float:
    """Sum h log p, less the penalty."""
    return loglik(expert, rows, resp) - expert.penalty()


def improved(expert: AbstractExpert, rows: Rows, resp: Array) -> AbstractExpert:
    """Make one M-step, shortened until the objective does not fall, as EM does."""
    before = objective(expert, rows, resp)
    full = updated(expert, rows, resp)
    share = 1.0
    after = full
    while objective(after, rows, resp) < before - 1e-9 * abs(before):
        share /= 2
        assert share > 1e-6, "no part of the step helps"
        after = expert.between(full, share)
    return after
