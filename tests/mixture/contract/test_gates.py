"""What every gate of the table keeps, whatever it is made of."""

import json
from dataclasses import replace

import numpy as np
import pytest

from expertise.mixture.gates import GATES
from expertise.mixture.rows import Array, Design
from expertise.mixture.sums import Sums
from mixture.gates_helpers import (
    finite_differences,
    fitted,
    gate_rows,
    improved,
    objective,
    started,
    statistics,
)

NAMES = list(GATES)
ADDITIVE = [name for name in NAMES if GATES[name].additive]
every = pytest.mark.parametrize("name", NAMES)
every_additive = pytest.mark.parametrize("name", ADDITIVE)


def close(a: Array, b: Array, tol: float = 1e-10) -> None:
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol)


@every
def test_the_table_says_the_gates_own_name(name: str) -> None:
    assert GATES[name].name == name


@every
def test_a_started_gate_gives_every_expert_the_same(name: str) -> None:
    rows = gate_rows()
    gate = started(name, rows)
    assert gate.n_experts == 4
    close(gate.log_gate(rows.design), np.full((160, 4), -np.log(4)))


@every
def test_priors_are_normalised(name: str) -> None:
    rows = gate_rows()
    gate = fitted(name, rows)
    log_gate = gate.log_gate(rows.design)
    assert log_gate.shape == gate.log_joint(rows.design).shape == (160, 4)
    close(np.exp(log_gate).sum(axis=1), np.ones(160))
    assert gate.n_experts == 4


@every_additive
def test_sums_of_shards_are_the_sum_of_the_whole(name: str) -> None:
    rows = gate_rows()
    gate = fitted(name, rows)
    whole = statistics(gate, rows)
    parts = [statistics(gate, rows.take(slice(a, b))) for a, b in ((0, 1), (1, 70), (70, 160))]
    joined = parts[0] + parts[1] + parts[2]
    assert isinstance(whole, Sums)
    assert joined.keys() == whole.keys()
    for key, value in whole.items():
        close(joined[key], value)


@every
def test_an_update_from_shards_is_the_update_from_the_whole(name: str) -> None:
    rows = gate_rows()
    gate = fitted(name, rows)
    parts = statistics(gate, rows.take(slice(0, 50))) + statistics(gate, rows.take(slice(50, 160)))
    whole = gate.update(statistics(gate, rows))
    close(gate.update(parts).log_gate(rows.design), whole.log_gate(rows.design), 1e-8)


@every
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    rows = gate_rows()
    mixed = rows.take(np.random.default_rng(1).permutation(160))
    tol = 1e-4 if name == "estimator" else 1e-8
    close(fitted(name, rows, 2).log_gate(rows.design), fitted(name, mixed, 2).log_gate(rows.design), tol)


@every_additive
def test_weight_two_is_the_row_twice(name: str) -> None:
    rows = gate_rows(weighted=False)
    gate = fitted(name, rows)
    heavy = replace(rows, weight=2 * rows.weight, resp=2 * rows.resp).take(slice(0, 5))
    twice = statistics(gate, rows.take(np.repeat(np.arange(5), 2)))
    for key, value in statistics(gate, heavy).items():
        close(twice[key], value)


@every
def test_an_update_raises_its_part_of_the_objective(name: str) -> None:
    rows = gate_rows()
    gate = started(name, rows)
    values = [objective(gate, rows)]
    for _ in range(5 if GATES[name].additive else 1):
        gate = improved(gate, rows)
        values.append(objective(gate, rows))
    assert values[1] > values[0] + 1.0
    assert (np.diff(values) >= -1e-9 * np.abs(values[1:])).all()


@every
def test_original_columns_and_standardised_ones_say_the_same(name: str) -> None:
    rows = gate_rows()
    inside = fitted(name, rows)
    outside = inside.unscaled(rows.x)
    close(outside.log_gate(rows.original), inside.log_gate(rows.design), 1e-9)
    close(outside.scaled(rows.x).log_gate(rows.design), inside.log_gate(rows.design), 1e-9)


@every
def test_a_gate_given_on_the_original_scale_starts_where_it_was(name: str) -> None:
    rows = gate_rows()
    outside = fitted(name, rows).unscaled(rows.x)
    again = outside.scaled(rows.x).started(4, rows.design, rows.settings)
    close(again.log_gate(rows.design), outside.log_gate(rows.original), 1e-9)


@every
def test_a_frozen_gate_says_the_same(name: str) -> None:
    rows = gate_rows()
    gate = fitted(name, rows)
    frozen = gate.frozen()
    close(frozen.log_joint(rows.design), gate.log_gate(rows.design))
    # centres that are given and stay are no fitted parameters; a gate that was fitted keeps its count
    assert frozen.n_parameters == (0 if frozen.says_where else gate.n_parameters)
    assert not frozen.models_inputs


@every
@pytest.mark.parametrize("like", [0, 3])
def test_a_new_expert_takes_its_share_of_one(name: str, like: int) -> None:
    rows = gate_rows()
    gate = fitted(name, rows)
    before, after = (np.exp(g.log_gate(rows.design)) for g in (gate, gate.with_expert(like, 0.3)))
    others = [k for k in range(4) if k != like]
    close(after[:, others], before[:, others], 1e-8)
    close(after[:, like], 0.7 * before[:, like], 1e-8)
    close(after[:, 4], 0.3 * before[:, like], 1e-8)


@every
def test_a_new_expert_beside_all_leaves_the_others_odds(name: str) -> None:
    rows = gate_rows()
    gate = fitted(name, rows)
    more = gate.with_expert(None, 0.2)
    before, after = gate.log_gate(rows.design), more.log_gate(rows.design)
    assert more.n_experts == 5
    close(after[:, :4] - after[:, [0]], before - before[:, [0]], 1e-7)
    # every kind but the normals and the logit against one reference gives it that share everywhere
    if name not in ("gaussian", "softmax"):
        close(np.exp(after[:, 4]), np.full(160, 0.2), 1e-8)


@every
@pytest.mark.parametrize("gone", [0, 2, 3])
def test_without_an_expert_the_others_share_its_prior(name: str, gone: int) -> None:
    rows = gate_rows()
    gate = fitted(name, rows)
    less = gate.without_expert(gone)
    before, after = np.exp(gate.log_gate(rows.design)), np.exp(less.log_gate(rows.design))
    assert less.n_experts == 3
    rest = np.delete(before, gone, axis=1)
    if name == "tree":  # balanced: the sibling takes it all
        rest[:, {0: 0, 2: 2, 3: 2}[gone]] += before[:, gone]
        close(after, rest)
    else:
        close(after, rest / rest.sum(axis=1, keepdims=True), 1e-7)


@every_additive
def test_json_gives_the_same_gate(name: str) -> None:
    rows = gate_rows()
    gate = fitted(name, rows).unscaled(rows.x)
    again = GATES[name].from_dict(json.loads(json.dumps(gate.to_dict())))
    assert (again.log_joint(rows.original) == gate.log_joint(rows.original)).all()
    assert again.n_parameters == gate.n_parameters


@every_additive
def test_json_of_a_gate_that_is_not_fitted(name: str) -> None:
    rows = gate_rows()
    again = GATES[name].from_dict(json.loads(json.dumps(GATES[name]().to_dict())))
    start = again.started(4, rows.design, rows.settings)
    close(start.log_gate(rows.design), started(name, rows).log_gate(rows.design))


@pytest.mark.parametrize("name", ["constant", "softmax", "tree"])
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    rows = gate_rows(40)
    gate = fitted(name, rows, 2)
    found = gate.gradient(rows.design, rows.resp, gate.log_joint(rows.design), rows.weight)
    np.testing.assert_allclose(found, finite_differences(gate, rows), rtol=1e-5, atol=1e-5)
    assert gate.parameters is not None
    assert len(gate.parameters) == gate.n_parameters
    close(gate.with_parameters(gate.parameters).log_joint(rows.design), gate.log_joint(rows.design))


@every
def test_one_expert_has_the_whole_prior(name: str) -> None:
    rows = gate_rows(n_experts=1)
    gate = started(name, rows)
    for _ in range(2):
        close(gate.log_gate(rows.design), np.zeros((160, 1)))
        gate = improved(gate, rows)
    close(gate.unscaled(rows.x).log_gate(rows.original), np.zeros((160, 1)))


@every_additive
def test_one_expert_can_become_two(name: str) -> None:
    rows = gate_rows(n_experts=1)
    gate = improved(started(name, rows), rows).with_expert(0, 0.25)
    close(np.exp(gate.log_gate(rows.design)), np.tile([0.75, 0.25], (160, 1)))


@every
def test_an_expert_without_any_row_leaves_finite_priors(name: str) -> None:
    rows = gate_rows()
    share = np.delete(rows.resp, 1, axis=1)
    share = np.insert(share / share.sum(axis=1, keepdims=True), 1, 0.0, axis=1)
    gate = improved(improved(started(name, rows), rows), rows.with_resp(share))
    assert np.isfinite(gate.log_gate(rows.design)).all()


@every
def test_a_constant_column_changes_nothing(name: str) -> None:
    rows = gate_rows()
    raw = np.column_stack([rows.design.x[:, 1:], np.zeros(160)])
    more, less = (replace(rows, design=Design.of(inputs)) for inputs in (raw, raw[:, :-1]))
    found, wanted = (fitted(name, some).log_gate(some.design) for some in (more, less))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if GATES[name].takes_sparse])
def test_sparse_inputs_say_what_dense_ones_say(name: str) -> None:
    sparse = gate_rows(sparse=True)
    assert sparse.design.is_sparse
    dense = replace(sparse, design=Design(sparse.design.x.toarray(), sparse.design.raw.toarray()))
    tol = 1e-4 if name == "estimator" else 1e-8
    close(fitted(name, sparse).log_gate(sparse.design), fitted(name, dense).log_gate(dense.design), tol)
