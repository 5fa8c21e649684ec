"""The Gaussian gate: densities, missing values, closed form, given centres."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from expertise.mixture.gates import GateSettings, GaussianGate
from expertise.mixture.rows import Array, Design, Scaling
from mixture.gates_helpers import GateRows, fitted, gate_rows, objective, started, statistics

SETTINGS = GateSettings()
kinds = pytest.mark.parametrize("covariance", ["full", "diag", "tied"])


def learned(rows: GateRows, covariance: str = "full", steps: int = 1, **options: Any) -> Any:
    gate: Any = GaussianGate(covariance=covariance, **options)
    gate = gate.started(rows.resp.shape[1], rows.design, rows.settings)
    for _ in range(steps):
        gate = gate.update(statistics(gate, rows))
    return gate


def with_holes(rows: GateRows, share: float = 0.3, seed: int = 1) -> GateRows:
    """Take values away at random; row 0 keeps all, row 1 loses all."""
    rng = np.random.default_rng(seed)
    x = rows.design.x.copy()
    lost = rng.random(x[:, 1:].shape) < share
    lost[0], lost[1] = False, True
    x[:, 1:][lost] = np.nan
    return replace(rows, design=Design(x))


def log_density(gate: Any, x: Array) -> Array:
    """Compute log a_k N(x; m_k, S_k) row by row, expert by expert, of the columns that are there."""
    found = np.empty((len(x), gate.n_experts))
    for i, row in enumerate(x):
        seen = ~np.isnan(row)
        for k in range(gate.n_experts):
            found[i, k] = np.log(gate.prior[k])
            if seen.any():
                normal = stats.multivariate_normal(
                    gate.means[k][seen], gate.covariances[k][np.ix_(seen, seen)]
                )
                found[i, k] += normal.logpdf(row[seen])
    return found


# -- density


@kinds
def test_log_joint_is_prior_times_normal_density(covariance: str) -> None:
    rows = gate_rows(30)
    gate = learned(rows, covariance)
    np.testing.assert_allclose(
        gate.log_joint(rows.design), log_density(gate, rows.design.x[:, 1:]), rtol=1e-10
    )
    outside = gate.unscaled(rows.x)
    moved = gate.log_joint(rows.design) - np.log(rows.x.scale).sum()
    np.testing.assert_allclose(outside.log_joint(rows.original), moved, rtol=1e-8)


@kinds
def test_missing_columns_are_integrated_out(covariance: str) -> None:
    rows = with_holes(gate_rows(40))
    gate = learned(rows, covariance, 2)
    np.testing.assert_allclose(
        gate.log_joint(rows.design), log_density(gate, rows.design.x[:, 1:]), rtol=1e-9
    )


def test_a_missing_column_is_the_integral_over_it() -> None:
    rows = gate_rows(60, d=2)
    gate = learned(rows)
    grid = np.linspace(-15, 15, 6001)
    shown = np.column_stack([np.ones(len(grid)), np.full(len(grid), 0.4), grid])
    integral = np.log(np.exp(gate.log_joint(Design(shown))).sum(axis=0) * (grid[1] - grid[0]))
    lost = gate.log_joint(Design(np.array([[1.0, 0.4, np.nan]])))
    np.testing.assert_allclose(lost[0], integral, rtol=1e-9)


def test_a_row_that_shows_nothing_gets_the_prior() -> None:
    rows = gate_rows()
    gate = learned(rows)
    nothing = Design(np.array([[1.0, np.nan, np.nan, np.nan]]))
    np.testing.assert_allclose(np.exp(gate.log_gate(nothing))[0], gate.prior, rtol=1e-12)


def test_years_far_from_zero_lose_no_digits() -> None:
    rows = gate_rows()
    far = Scaling(np.full(3, 1e9), np.ones(3))
    gate = learned(rows)
    moved = Design(np.column_stack([np.ones(160), rows.design.x[:, 1:] + 1e9]))
    np.testing.assert_allclose(gate.unscaled(far).log_gate(moved), gate.log_gate(rows.design), atol=1e-5)


# -- M-step


def test_update_is_the_weighted_moments() -> None:
    rows = gate_rows()
    gate = learned(rows)
    x, h = rows.design.x[:, 1:], rows.resp
    for k in range(4):
        mean = np.average(x, axis=0, weights=h[:, k])
        np.testing.assert_allclose(gate.prior[k], h[:, k].sum() / h.sum(), rtol=1e-12)
        np.testing.assert_allclose(gate.means[k], mean, atol=1e-12)
        full = np.cov(x.T, aweights=h[:, k], ddof=0)
        np.testing.assert_allclose(gate.covariances[k], full, atol=1e-10)
        diag = learned(rows, "diag").covariances
        np.testing.assert_allclose(diag[k], np.diag(np.diag(full)), atol=1e-10)


def test_tied_covariance_is_the_mean_of_the_experts() -> None:
    rows = gate_rows()
    full, tied = learned(rows), learned(rows, "tied")
    wanted = np.average(full.covariances, axis=0, weights=full.prior)
    np.testing.assert_allclose(tied.covariances, np.repeat(wanted[None], 4, axis=0), atol=1e-12)


def test_tied_covariance_gives_linear_log_odds() -> None:
    rows = gate_rows()
    log_gate = learned(rows, "tied").log_gate(rows.design)
    odds = log_gate[:, :-1] - log_gate[:, [-1]]
    beta = np.linalg.lstsq(rows.design.x, odds, rcond=None)[0]
    np.testing.assert_allclose(rows.design.x @ beta, odds, atol=1e-8)
    full = learned(rows).log_gate(rows.design)
    curved = full[:, :-1] - full[:, [-1]]
    beta = np.linalg.lstsq(rows.design.x, curved, rcond=None)[0]
    assert np.abs(rows.design.x @ beta - curved).max() > 0.1


@kinds
def test_no_other_parameters_are_better_than_the_update(covariance: str) -> None:
    rows = gate_rows(80, d=2, n_experts=2)
    gate = learned(rows, covariance)
    best = objective(gate, rows)
    rng = np.random.default_rng(0)
    for _ in range(20):
        turned = np.eye(2) + 0.05 * rng.normal(size=(2, 2))
        if covariance == "diag":
            turned = np.diag(np.diag(turned))
        moved = replace(
            gate,
            means=gate.means + 0.05 * rng.normal(size=(2, 2)),
            covariances=turned @ gate.covariances @ turned.T,
        )
        assert objective(moved, rows) < best


def em_step_by_loops(gate: Any, x: Array, resp: Array) -> tuple[Array, Array, Array]:
    """Make one M-step with what is missing expected given what is there, one row at a time."""
    n_experts, d = gate.means.shape
    prior, means, spread = np.zeros(n_experts), np.zeros((n_experts, d)), np.zeros((n_experts, d, d))
    for k in range(n_experts):
        first, second = np.zeros(d), np.zeros((d, d))
        for row, h in zip(x, resp[:, k], strict=True):
            o, m = ~np.isnan(row), np.isnan(row)
            filled, extra = np.where(m, 0.0, row), np.zeros((d, d))
            gain = gate.covariances[k][np.ix_(m, o)] @ np.linalg.inv(gate.covariances[k][np.ix_(o, o)])
            filled[m] = gate.means[k][m] + gain @ (row[o] - gate.means[k][o])
            rest = gate.covariances[k][np.ix_(m, m)] - gain @ gate.covariances[k][np.ix_(o, m)]
            extra[np.ix_(m, m)] = rest
            first += h * filled
            second += h * (np.outer(filled, filled) + extra)
        prior[k] = resp[:, k].sum()
        means[k] = first / prior[k]
        spread[k] = second / prior[k] - np.outer(means[k], means[k])
    return prior / prior.sum(), means, spread


def test_an_em_step_with_missing_values_is_that_of_the_loops() -> None:
    rows = with_holes(gate_rows(50))
    gate = learned(rows)
    prior, means, spread = em_step_by_loops(gate, rows.design.x[:, 1:], rows.resp)
    after = gate.update(statistics(gate, rows))
    np.testing.assert_allclose(after.prior, prior, rtol=1e-10)
    np.testing.assert_allclose(after.means, means, atol=1e-10)
    np.testing.assert_allclose(after.covariances, spread, atol=1e-9)


def test_the_first_step_fills_with_mean_and_variance_of_the_column() -> None:
    rows = with_holes(gate_rows(50))
    x = rows.design.x[:, 1:]
    gate = learned(rows)
    h = rows.resp[:, 0]
    mean = (h @ np.nan_to_num(x)) / h.sum()
    square = (h @ np.where(np.isnan(x), 1.0, x**2)) / h.sum()
    np.testing.assert_allclose(gate.means[0], mean, atol=1e-12)
    np.testing.assert_allclose(np.diag(gate.covariances[0]), square - mean**2, atol=1e-12)


@kinds
@pytest.mark.parametrize("holes", [0.0, 0.4])
def test_em_on_the_inputs_never_falls(covariance: str, holes: float) -> None:
    rows = gate_rows(120)
    rows = with_holes(rows, holes) if holes else rows
    gate = learned(rows, covariance)
    values = []
    for _ in range(25):
        joint = gate.log_joint(rows.design)
        total = logsumexp(joint, axis=1)
        values.append(rows.weight @ total - gate.penalty())
        rows = rows.with_resp(np.exp(joint - total[:, None]))
        gate = gate.update(statistics(gate, rows))
    assert (np.diff(values) >= -1e-9 * np.abs(values[1:])).all()
    assert values[-1] > values[0] + 1


@kinds
def test_shards_with_missing_values_sum_to_the_whole(covariance: str) -> None:
    rows = with_holes(gate_rows())
    gate = learned(rows, covariance)
    parts = statistics(gate, rows.take(slice(0, 33))) + statistics(gate, rows.take(slice(33, 160)))
    whole = statistics(gate, rows)
    np.testing.assert_allclose(parts["gram"], whole["gram"], rtol=1e-10, atol=1e-10)


@kinds
def test_no_variance_falls_below_the_floor(covariance: str) -> None:
    rows = gate_rows(40)
    x = rows.design.x.copy()
    x[:, 3] = x[:, 1] - x[:, 2]  # a plane
    gate = learned(replace(rows, design=Design(x)), covariance, floor=1e-3)
    least = np.linalg.eigvalsh(gate.covariances).min()
    assert least >= 1e-3 * (1 - 1e-9)
    assert (least == pytest.approx(1e-3)) == (covariance != "diag")


def test_columns_that_are_all_missing_leave_the_others_alone() -> None:
    rows = gate_rows()
    x = np.column_stack([rows.design.x, np.full(160, np.nan)])
    more = replace(rows, design=Design(x))
    np.testing.assert_allclose(
        learned(more, steps=3).log_gate(more.design), learned(rows, steps=3).log_gate(rows.design), atol=1e-9
    )


def test_an_expert_nobody_asks_keeps_its_place() -> None:
    rows = gate_rows()
    gate = learned(rows)
    share = rows.resp.copy()
    share[:, 2] = 0
    after = gate.update(statistics(gate, rows.with_resp(share / share.sum(axis=1, keepdims=True))))
    assert after.prior[2] == 0
    assert (after.means[2] == gate.means[2]).all()


@pytest.mark.parametrize(
    ("covariance", "wanted"), [("full", 3 + 12 + 4 * 6), ("diag", 3 + 2 * 12), ("tied", 3 + 12 + 6)]
)
def test_number_of_parameters(covariance: str, wanted: int) -> None:
    assert learned(gate_rows(), covariance).n_parameters == wanted


def test_a_new_expert_beside_all_stands_at_the_mean_of_the_rows() -> None:
    rows = gate_rows()
    more = learned(rows).with_expert(None, 0.25)
    assert more.prior[-1] == 0.25
    x = rows.design.x[:, 1:]
    np.testing.assert_allclose(more.means[-1], np.average(x, axis=0, weights=rows.weight), atol=1e-10)
    np.testing.assert_allclose(more.covariances[-1], np.cov(x.T, aweights=rows.weight, ddof=0), atol=1e-10)


def test_while_it_learns_it_models_the_inputs() -> None:
    rows = gate_rows()
    gate = started("gaussian", rows)
    assert gate.models_inputs
    assert not gate.frozen().models_inputs


def test_a_frozen_gate_is_not_updated() -> None:
    rows = gate_rows()
    gate = learned(rows).frozen()
    assert gate.update(statistics(gate, rows)) is gate


def test_fitted_gates_refit_from_where_they_are() -> None:
    rows = gate_rows()
    gate = fitted("gaussian", rows)
    again = gate.unscaled(rows.x).scaled(rows.x).started(4, rows.design, rows.settings)
    np.testing.assert_allclose(again.log_joint(rows.design), gate.log_joint(rows.design), rtol=1e-9)
