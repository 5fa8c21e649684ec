"""The softmax and the constant gate: oracles, the maximum, large problems."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from expertise.mixture import _logit
from expertise.mixture.gates import ConstantGate, GateSettings, SoftmaxGate
from expertise.mixture.rows import Array
from mixture.gates_helpers import fitted, gate_rows, improved, objective, started, statistics


def test_softmax_by_loops() -> None:
    rows = gate_rows(20)
    gate: Any = fitted("softmax", rows)
    for i, row in enumerate(rows.design.x):
        odds = [np.exp(sum(row[j] * gate.beta[j, k] for j in range(4))) for k in range(4)]
        np.testing.assert_allclose(
            np.exp(gate.log_gate(rows.design)[i]), np.array(odds) / sum(odds), rtol=1e-10
        )


def test_sums_by_loops() -> None:
    rows = gate_rows(30)
    gate = fitted("softmax", rows)
    prior = np.exp(gate.log_gate(rows.design))
    gradient, hessian = np.zeros((4, 4)), np.zeros((3, 4, 3, 4))
    for x, h, g, w in zip(rows.design.x, rows.resp, prior, rows.weight, strict=True):
        for k in range(4):
            gradient[:, k] += (h[k] - w * g[k]) * x
        for k in range(3):
            for m in range(3):
                hessian[k, :, m, :] += w * g[k] * ((k == m) - g[m]) * np.outer(x, x)
    sums = statistics(gate, rows)
    np.testing.assert_allclose(sums["gradient"], gradient, atol=1e-10)
    pairs = zip(*np.triu_indices(3), strict=True)
    np.testing.assert_allclose(sums["hessian"], [hessian[k, :, m, :] for k, m in pairs], atol=1e-10)


def test_newton_finds_the_maximum() -> None:
    rows = gate_rows(80, d=2)
    gate: Any = fitted("softmax", rows, 30)
    start = started("softmax", rows)

    def lost(vector: Array) -> float:
        return -objective(start.with_parameters(vector), rows)

    best = minimize(lost, start.parameters, method="BFGS", options={"gtol": 1e-5})
    np.testing.assert_allclose(gate.parameters, best.x, atol=1e-3)
    assert objective(gate, rows) >= -best.fun - 1e-8


def test_hard_targets_are_scikit_learns_logistic_regression() -> None:
    rows = gate_rows(300, weighted=False)
    label = np.array([np.random.default_rng(0).choice(4, p=p) for p in rows.resp])
    hard = rows.with_resp(np.eye(4)[label])
    gate: Any = SoftmaxGate().started(4, rows.design, GateSettings(alpha=1 / 300, total_weight=300.0))
    for _ in range(20):
        gate = improved(gate, hard)
    # penalty 1/2 |w|^2 of coefficients that sum to zero: scikit-learn's with C=1
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(rows.design.x[:, 1:], label)
    np.testing.assert_allclose(
        np.exp(gate.log_gate(rows.design)), peer.predict_proba(rows.design.x[:, 1:]), atol=1e-5
    )


def test_separable_experts_stay_finite() -> None:
    rows = gate_rows()
    side = (rows.design.x[:, 1] > 0).astype(int)
    hard = rows.with_resp(np.eye(4)[side * 2])
    gate = fitted("softmax", hard, 60)
    assert np.isfinite(gate.log_gate(rows.design)).all()
    assert (gate.log_gate(rows.design).argmax(axis=1) == side * 2).mean() > 0.95


def test_the_bound_of_large_problems_reaches_the_same_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = gate_rows(100)
    wanted = objective(fitted("softmax", rows, 30), rows)
    monkeypatch.setattr(_logit, "LARGE", 0)
    gate = started("softmax", rows)
    values = [objective(gate, rows)]
    assert set(statistics(gate, rows)) == {"gradient", "bound"}
    for _ in range(400):
        gate = gate.update(statistics(gate, rows))  # whole steps: the bound never goes too far
        values.append(objective(gate, rows))
    assert (np.diff(values) > -1e-9).all()
    assert values[-1] == pytest.approx(wanted, abs=1e-3)


def test_given_coefficients_are_where_it_starts() -> None:
    rows = gate_rows()
    beta = np.column_stack([np.arange(4.0), np.zeros(4)])
    gate: Any = SoftmaxGate(beta=beta).started(2, rows.design, rows.settings)
    assert gate.beta is beta
    assert gate.n_parameters == 4


def test_constant_prior_is_the_mean_responsibility() -> None:
    rows = gate_rows()
    gate: Any = fitted("constant", rows, 1)
    np.testing.assert_allclose(gate.prior, np.average(rows.resp / rows.weight[:, None], 0, rows.weight))
    assert gate.n_parameters == 3


def test_a_constant_prior_of_zero_has_a_finite_logarithm() -> None:
    gate = ConstantGate(prior=np.array([1.0, 0.0])).started(2, gate_rows().design, GateSettings())
    assert np.isfinite(gate.log_joint(gate_rows().design)).all()
    assert gate.with_parameters(gate.parameters).prior == pytest.approx([1.0, 0.0])
