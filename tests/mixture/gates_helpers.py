"""Gates, designs and responsibilities for tests of the gates: all columns standardised."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse as sp
from sklearn.linear_model import LogisticRegression

from expertise.mixture.gates import GATES, AbstractGate, EstimatorGate, GateSettings
from expertise.mixture.rows import Array, Design, Scaling


@dataclass(frozen=True, eq=False)
class GateRows:
    """Inputs as a gate sees them: standardised, and the original columns; weighted responsibilities."""

    design: Design
    original: Design
    x: Scaling
    resp: Array
    weight: Array

    @property
    def settings(self) -> GateSettings:
        return GateSettings(alpha=1e-3, total_weight=float(self.weight.sum()))

    def with_resp(self, share: Array) -> "GateRows":
        """Set responsibilities (n, K) that sum to 1."""
        return replace(self, resp=share * self.weight[:, None])

    def take(self, rows: Any) -> "GateRows":
        design, original = self.design.take(rows), self.original.take(rows)
        return GateRows(design, original, self.x, self.resp[rows], self.weight[rows])


def gate_rows(
    n: int = 160,
    d: int = 3,
    n_experts: int = 4,
    seed: int = 0,
    *,
    sparse: bool = False,
    weighted: bool = True,
) -> GateRows:
    """Draw inputs on unlike scales, with responsibilities that depend on them."""
    rng = np.random.default_rng(seed)
    raw: Any = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-2, 3, d) + rng.normal(size=d) * (not sparse)
    if sparse:
        raw = sp.csr_matrix(raw * (rng.random((n, d)) < 0.5))
    weight = rng.uniform(0.5, 2.0, n) if weighted else np.ones(n)
    x = Scaling.of(raw, weight)
    design = Design.of(raw, x)
    inside = design.times(rng.normal(size=(d + 1, n_experts)))
    share = np.exp(inside) * rng.gamma(1.0, size=(n, n_experts))
    share /= share.sum(axis=1, keepdims=True)
    return GateRows(design, Design.of(raw), x, share * weight[:, None], weight)


def new_gate(name: str) -> AbstractGate:
    """Make a gate of the table as it is without options."""
    return (
        EstimatorGate(LogisticRegression(tol=1e-8, max_iter=1000)) if name == "estimator" else GATES[name]()
    )


def started(name: str, rows: GateRows) -> AbstractGate:
    return new_gate(name).started(rows.resp.shape[1], rows.design, rows.settings)


def statistics(gate: AbstractGate, rows: GateRows) -> Any:
    return gate.statistics(rows.design, rows.resp, gate.log_joint(rows.design), rows.weight)


def objective(gate: AbstractGate, rows: GateRows) -> float:
    """Give what the M-step of a gate raises: sum h log g less the penalty."""
    return float((rows.resp * gate.log_joint(rows.design)).sum()) - gate.penalty()


def improved(gate: AbstractGate, rows: GateRows) -> AbstractGate:
    """Make one M-step, as EM does: a step that went too far is halved."""
    target = candidate = gate.update(statistics(gate, rows))
    before, share = objective(gate, rows), 1.0
    while not gate.closed_form and objective(candidate, rows) < before and share > 1e-3:
        share /= 2
        candidate = gate.between(target, share)
    return candidate


def fitted(name: str, rows: GateRows, steps: int = 3) -> AbstractGate:
    gate = started(name, rows)
    for _ in range(steps):
        gate = improved(gate, rows)
    return gate


def finite_differences(gate: AbstractGate, rows: GateRows, step: float = 1e-5) -> Array:
    """Differentiate sum h log_joint by the parameters, numerically."""

    def value(vector: Array) -> float:
        return float((rows.resp * gate.with_parameters(vector).log_joint(rows.design)).sum())

    at = gate.parameters
    assert at is not None
    moves = np.eye(len(at)) * step
    return np.array([(value(at + move) - value(at - move)) / (2 * step) for move in moves])
