"""The tree gate: products along paths, Newton at every node, shapes, growing."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from expertise.mixture.gates import GateSettings, SoftmaxGate, TreeGate
from expertise.mixture.gates._nested import Tree, balanced, inner_nodes, leaves, pruned
from expertise.mixture.rows import Array
from mixture.gates_helpers import fitted, gate_rows, improved, objective, started, statistics

SETTINGS = GateSettings()


@st.composite
def shapes(draw: st.DrawFn) -> Tree:
    """Nest a shuffled list of experts at random."""
    n_experts = draw(st.integers(2, 8))

    def nest(some: list[int]) -> Tree:
        if len(some) == 1:
            return some[0]
        cuts = draw(st.sets(st.integers(1, len(some) - 1), min_size=1, max_size=3))
        ends = [0, *sorted(cuts), len(some)]
        return tuple(nest(some[a:b]) for a, b in pairwise(ends))

    return nest(draw(st.permutations(range(n_experts))))


def drawn_gate(tree: Any, columns: int = 3, seed: int = 0) -> TreeGate:
    """Give a tree with coefficients at random."""
    rng = np.random.default_rng(seed)
    betas = []
    for _, children in inner_nodes(tree):
        beta = rng.normal(size=(columns, len(children)))
        betas.append(beta - beta[:, [-1]])
    return TreeGate(tree=tree, betas=tuple(betas), columns=columns, settings=SETTINGS)


def prior_by_paths(gate: TreeGate, x: Array) -> Array:
    """Multiply along the path of every leaf, one row at a time."""
    found = np.ones((len(x), gate.n_experts))
    for i, row in enumerate(x):
        for leaf in range(gate.n_experts):
            below: Any = gate.tree
            betas = {
                id(children): beta
                for (_, children), beta in zip(inner_nodes(gate.tree), gate.betas or (), strict=True)
            }
            while not isinstance(below, int):
                odds = np.exp(row @ betas[id(below)])
                child = next(c for c, tree in enumerate(below) if leaf in leaves(tree))
                found[i, leaf] *= odds[child] / odds.sum()
                below = below[child]
    return found


@given(shapes())
def test_priors_are_products_along_the_paths(tree: Tree) -> None:
    gate = drawn_gate(tree)
    rows = gate_rows(6, d=2)
    found = gate.log_joint(rows.design)
    np.testing.assert_allclose(np.exp(found), prior_by_paths(gate, rows.design.x), rtol=1e-10)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)


def test_one_node_is_the_softmax_gate_exactly() -> None:
    rows = gate_rows()
    soft: Any = SoftmaxGate().started(4, rows.design, rows.settings)
    tree: Any = TreeGate(branching=(4,)).started(4, rows.design, rows.settings)
    for _ in range(4):
        assert (tree.log_joint(rows.design) == soft.log_joint(rows.design)).all()
        assert tree.penalty() == soft.penalty()
        soft, tree = soft.update(statistics(soft, rows)), tree.update(statistics(tree, rows))
    assert (tree.betas[0] == soft.beta).all()
    assert (tree.parameters == soft.parameters).all()


def test_two_experts_are_the_softmax_gate() -> None:
    rows = gate_rows(n_experts=2)
    tree, soft = fitted("tree", rows), fitted("softmax", rows)
    assert (tree.log_gate(rows.design) == soft.log_gate(rows.design)).all()


@pytest.mark.parametrize("tree", [[[0, 1], [2, 3]], [[[0, 1], 2], 3], [[3, 0, 2], 1]])
def test_newton_finds_the_maximum(tree: Any) -> None:
    rows = gate_rows(80, d=2)
    gate: Any = TreeGate(tree=tree).started(4, rows.design, rows.settings)
    start = gate
    for _ in range(30):
        gate = improved(gate, rows)

    def lost(vector: Array) -> float:
        return -objective(start.with_parameters(vector), rows)

    best = minimize(lost, start.parameters, method="BFGS", options={"gtol": 1e-5})
    assert objective(gate, rows) >= -best.fun - 1e-6
    np.testing.assert_allclose(gate.parameters, best.x, atol=2e-3)


def test_a_node_counts_rows_by_the_responsibility_of_reaching_it() -> None:
    rows = gate_rows()
    gate: Any = TreeGate(tree=[[0, 1], [2, 3]]).started(4, rows.design, rows.settings)
    sums = statistics(gate, rows)
    reach = rows.resp[:, 2] + rows.resp[:, 3]
    by_hand = rows.design.x.T @ (rows.resp[:, 2] - reach / 2)
    np.testing.assert_allclose(sums["2.gradient"][:, 0], by_hand)
    np.testing.assert_allclose(sums["2.hessian"][0], (rows.design.x.T * reach / 4) @ rows.design.x)


def test_half_a_step_is_half_way() -> None:
    rows = gate_rows()
    here: Any = started("tree", rows)
    there: Any = here.update(statistics(here, rows))
    half = here.between(there, 0.5)
    np.testing.assert_allclose(half.parameters, (here.parameters + there.parameters) / 2)
    assert objective(half, rows) > objective(here, rows)


# -- shapes


@pytest.mark.parametrize(
    ("options", "experts", "tree"),
    [
        ({"branching": (2, 2)}, 4, ((0, 1), (2, 3))),
        ({"branching": [3, 2]}, 6, ((0, 1), (2, 3), (4, 5))),
        ({"tree": [[0, 2], 1]}, 3, ((0, 2), 1)),
        ({}, 5, (((0, 1), 2), (3, 4))),
        ({"grow": True}, 1, 0),
        ({"grow": True}, 3, ((0, 1), 2)),
    ],
)
def test_shape_of_the_tree(options: dict[str, Any], experts: int, tree: Any) -> None:
    gate = TreeGate(**options)
    assert gate.wanted_experts() == (experts if "branching" in options or "tree" in options else None)
    begun = gate.started(experts, gate_rows().design, SETTINGS)
    assert begun.tree == tree
    assert begun.n_experts == experts
    assert begun.n_parameters == 4 * (sum(len(c) for _, c in inner_nodes(tree)) - len(begun.betas or ()))


def test_nodes_come_from_the_root_down() -> None:
    gate = drawn_gate((((0, 1), 2), (3, 4)))
    found = [(node.number, node.depth, node.leaves) for node in gate.nodes()]
    assert found == [
        (0, 0, [[0, 1, 2], [3, 4]]),
        (1, 1, [[0, 1], [2]]),
        (2, 2, [[0], [1]]),
        (3, 1, [[3], [4]]),
    ]
    assert all(node.beta is beta for node, beta in zip(gate.nodes(), gate.betas or (), strict=True))


@given(shapes(), st.data())
def test_a_split_leaf_shares_and_pruning_undoes_it(tree: Tree, data: st.DataObject) -> None:
    gate, rows = drawn_gate(tree), gate_rows(6, d=2)
    n_experts = gate.n_experts
    leaf = data.draw(st.integers(0, n_experts - 1))
    split = gate.split(leaf)
    before, after = np.exp(gate.log_gate(rows.design)), np.exp(split.log_gate(rows.design))
    others = [k for k in range(n_experts) if k != leaf]
    np.testing.assert_allclose(after[:, others], before[:, others], rtol=1e-10)
    np.testing.assert_allclose(
        after[:, [leaf, n_experts]], np.repeat(before[:, [leaf]] / 2, 2, 1), rtol=1e-10
    )
    back = split.without_expert(n_experts)
    assert back.tree == gate.tree
    assert all((a == b).all() for a, b in zip(back.betas or (), gate.betas or (), strict=True))


@given(shapes(), st.data())
def test_a_pruned_leaf_leaves_its_prior_to_its_siblings(tree: Tree, data: st.DataObject) -> None:
    gate, rows = drawn_gate(tree), gate_rows(6, d=2)
    gone = data.draw(st.integers(0, gate.n_experts - 1))
    siblings = next(
        [c for c in children if c != gone] for _, children in inner_nodes(tree) if gone in children
    )
    near = [leaf for child in siblings for leaf in leaves(child)]
    before = np.exp(gate.log_gate(rows.design))
    after = np.exp(gate.without_expert(gone).log_gate(rows.design))
    np.testing.assert_allclose(after.sum(axis=1), 1)
    after = np.insert(after, gone, 0.0, axis=1)
    far = [k for k in range(gate.n_experts) if k not in (*near, gone)]
    np.testing.assert_allclose(after[:, far], before[:, far], rtol=1e-10)
    # the siblings' odds among themselves stay, and their sum takes what was the leaf's
    total = (before[:, near].sum(axis=1) + before[:, gone]) / before[:, near].sum(axis=1)
    np.testing.assert_allclose(after[:, near], before[:, near] * total[:, None], rtol=1e-9)


def test_pruning_moves_numbers_down() -> None:
    assert pruned(((0, 3), (1, 2)), 1) == ((0, 2), 1)
    assert pruned((0, 1, 2), 1) == (0, 1)
    assert pruned((0, 1), 0) == 0


def test_a_tree_grows_from_one_expert() -> None:
    rows = gate_rows(n_experts=1)
    gate: TreeGate = TreeGate(grow=True).started(1, rows.design, rows.settings)
    assert gate.n_parameters == 0
    gate = improved(gate, rows).split(0).split(0).split(1)  # type: ignore[attr-defined]
    assert gate.tree == ((0, 2), (1, 3))
    np.testing.assert_allclose(np.exp(gate.log_gate(rows.design)), 0.25)
    more = gate_rows()
    again = replace(gate, settings=more.settings)
    assert objective(improved(again, more), more) > objective(again, more) + 1


def test_balanced_trees_are_as_low_as_can_be() -> None:
    for n_experts in range(2, 20):
        depth = max(depth for depth, _ in inner_nodes(balanced(range(n_experts)))) + 1
        assert depth == int(np.ceil(np.log2(n_experts)))


@pytest.mark.parametrize("n_experts", [2, 3, 7])
def test_standardised_and_original_columns_agree_at_any_depth(n_experts: int) -> None:
    rows = gate_rows(n_experts=n_experts)
    gate = fitted("tree", rows)
    outside = gate.unscaled(rows.x)
    np.testing.assert_allclose(outside.log_gate(rows.original), gate.log_gate(rows.design), atol=1e-9)
