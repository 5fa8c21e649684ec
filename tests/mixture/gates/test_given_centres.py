"""The Gaussian gate with given centres: from the nearest one to the mean; options not allowed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from expertise.mixture.gates import GateSettings, GaussianGate
from expertise.mixture.rows import Array, Design, Scaling
from mixture.gates_helpers import GateRows, gate_rows, objective, statistics

SETTINGS = GateSettings()


def given_centres(rows: GateRows, means: Array, scale: Any) -> GaussianGate:
    """Give the gate with centres on the original columns, as EM holds it."""
    gate = GaussianGate(means, scale=scale, trainable=False)
    assert gate.wanted_experts() == len(means)
    return gate.scaled(rows.x).started(len(means), rows.design, SETTINGS)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-200, 1e-12, 1e-5]))
def test_a_tiny_width_asks_the_nearest_centre_alone(seed: int, width: float) -> None:
    rows = gate_rows(30, d=2, seed=seed)
    x = rows.original.x[:, 1:]
    means = np.random.default_rng(seed).permutation(x)[:20] + 1e-3
    means[:3] = x[:3]  # a distance of 0
    distance = ((x[:, None, :] - means) ** 2).sum(axis=2)
    gap = np.diff(np.sort(distance, axis=1)[:, :2])[:, 0]
    clear = gap > 50 * 2 * width**2
    wanted = np.arange(20) == distance.argmin(axis=1)[:, None]
    inside = given_centres(rows, means, width)
    outside = inside.unscaled(rows.x)
    for log_gate in (inside.log_gate(rows.design), outside.log_gate(rows.original)):
        assert np.isfinite(log_gate).all()
        np.testing.assert_allclose(np.exp(log_gate)[clear], wanted[clear], atol=1e-15)


@pytest.mark.parametrize("width", [1e9, 1e200])
def test_a_huge_width_asks_all_alike(width: float) -> None:
    rows = gate_rows(30)
    gate = given_centres(rows, rows.original.x[:, 1:], width)
    np.testing.assert_allclose(np.exp(gate.log_gate(rows.design)), np.full((30, 30), 1 / 30), atol=1e-12)


@pytest.mark.parametrize("scale", [0.7, [0.7, 1.5, 0.2], [[0.5, 1.0], [2.0, 0.3], [1.0, 1.0]]])
@pytest.mark.parametrize("holes", [False, True])
def test_given_widths_are_those_of_normal_densities(scale: Any, holes: bool) -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 2))
    widths = np.broadcast_to(np.array(scale)[:, None] if np.ndim(scale) == 1 else scale, (3, 2))
    x = rng.normal(size=(12, 2))
    if holes:
        x[rng.random(x.shape) < 0.4] = np.nan
    joint = np.nansum(stats.norm.logpdf(x[:, None, :], means, widths), axis=2)
    wanted = joint - logsumexp(joint, axis=1, keepdims=True)
    scaling = Scaling(np.array([3.0, -1.0]), np.array([10.0, 0.01]))
    gate = GaussianGate(means, scale, trainable=False).scaled(scaling)
    design = Design.of(x, scaling)
    gate = gate.started(3, design, SETTINGS)
    np.testing.assert_allclose(gate.log_gate(design), wanted, atol=1e-10)
    np.testing.assert_allclose(gate.log_joint(design), wanted, atol=1e-10)
    np.testing.assert_allclose(gate.unscaled(scaling).log_gate(Design.of(x)), wanted, atol=1e-10)


def test_many_centres_are_worked_on_in_blocks() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 2))
    design = Design.of(x)
    gate = GaussianGate(x, 0.5, trainable=False).started(1500, design, SETTINGS)
    few = design.take(slice(1400, 1410))
    np.testing.assert_array_equal(gate.log_gate(design)[1400:1410], gate.log_gate(few))


def test_given_centres_change_with_their_experts() -> None:
    rows = gate_rows(30)
    gate = given_centres(rows, rows.original.x[:4, 1:], 2.0)
    before = np.exp(gate.log_gate(rows.design))
    more = gate.with_expert(1, 0.5)
    np.testing.assert_allclose(np.exp(more.log_gate(rows.design))[:, 4], before[:, 1] / 2, atol=1e-12)
    back = more.without_expert(4).without_expert(0)
    assert back.n_experts == 3
    assert back.n_parameters == 0
    joined = gate.with_expert(None, 0.5)
    assert joined.n_experts == 5
    assert np.isfinite(joined.log_gate(rows.design)).all()


def test_given_centres_are_where_learning_starts() -> None:
    rows = gate_rows()
    means = rows.original.x[:4, 1:]
    gate = GaussianGate(means.tolist(), scale=1.5).scaled(rows.x).started(4, rows.design, rows.settings)
    normals = [stats.multivariate_normal(m, 1.5**2 * np.eye(3)) for m in means]
    wanted = np.column_stack([n.logpdf(rows.original.x[:, 1:]) for n in normals]) - np.log(4)
    wanted += np.log(rows.x.scale).sum()
    floor = (1.5 / rows.x.scale) ** 2 > 1e-6
    assert floor.all()
    np.testing.assert_allclose(gate.log_joint(rows.design), wanted, rtol=1e-9)
    assert objective(gate.update(statistics(gate, rows)), rows) > objective(gate, rows)


def test_centres_without_a_width_start_with_that_of_the_columns() -> None:
    rows = gate_rows()
    gate: Any = GaussianGate(rows.original.x[:4, 1:])
    gate = gate.scaled(rows.x).started(4, rows.design, rows.settings)
    np.testing.assert_allclose(gate.covariances, np.repeat(np.eye(3)[None], 4, axis=0), atol=1e-12)


# -- errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"covariance": "ful"}, r"covariance='ful' is unknown; known are full, diag, tied"),
        ({"floor": 0.0}, r"floor=0\.0 must be > 0: a variance of 0 has no density; use 1e-6"),
        ({"scale": 1.0}, r"scale=1\.0 needs the centres it belongs to; give means= as well"),
        ({"trainable": False}, r"has no centres; give means= and scale=, or let it learn"),
        ({"means": np.zeros((4, 2))}, r"means has the shape \(4, 2\); allowed is \(n_experts, 3\)"),
        ({"means": np.zeros(3)}, r"means has the shape \(3,\); allowed is \(n_experts, 3\)"),
        ({"means": np.full((4, 3), np.nan)}, r"means holds NaN or inf; centres must be finite"),
        ({"means": np.zeros((2, 3))}, r"means has 2 rows for n_experts=4; give one centre for each"),
        ({"means": np.zeros((4, 3)), "scale": 0.0}, r"scale=0\.0 must be finite and > 0"),
        (
            {"means": np.zeros((4, 3)), "scale": [1, 2]},
            r"scale has the shape \(2,\); allowed are a number, \(4,\)",
        ),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], text: str) -> None:
    rows = gate_rows()
    with pytest.raises(ValueError, match=text):
        GaussianGate(**options).started(4, rows.design, SETTINGS)


def test_wrong_centres_are_found_before_they_are_scaled() -> None:
    with pytest.raises(ValueError, match=r"means has the shape \(4, 2\)"):
        GaussianGate(np.zeros((4, 2))).scaled(gate_rows().x)
