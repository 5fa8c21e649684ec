"""The tree gate: softmaxes one below the other, experts at the leaves (the hierarchical mixture)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from expertise.mixture._logit import (
    between,
    gate_gradient,
    log_softmax,
    newton_sums,
    newton_update,
    ridge_penalty,
)
from expertise.mixture.gates import _drawing, _nested
from expertise.mixture.gates._abstract import AbstractGate, GateSettings
from expertise.mixture.gates._nested import Tree, TreeNode
from expertise.mixture.rows import Array, Design, Scaling
from expertise.mixture.sums import Statistics, Sums


@dataclass(frozen=True, eq=False)
class TreeGate(AbstractGate):
    """A tree of softmax gates: the prior of an expert is the product along its path (Jordan & Jacobs 1994).

    The M-step fits each node by itself: a multinomial logit in which a row counts by the responsibility of
    reaching the node, with the responsibilities of its children as soft targets. Each node makes one Newton
    step. Without options the tree is binary and balanced.

    Parameters
    ----------
    branching : children of a node at every level: (2, 2) has four experts, each below two binary nodes.
    tree : nested lists of experts for other shapes: [[0, 1], 2].
    grow : start from one expert, and split; the mixture does this, up to ``max_leaves`` experts.
    max_leaves : experts at most with grow, 2 or more.
    betas : for each node in preorder (q, children), intercept first; the last column is 0.
    columns : q; set when started, since a gate with one expert has no node that would tell.
    """

    # named only, so that the own options come first
    branching: Sequence[int] | None = None
    tree: Any = None
    grow: bool = False
    max_leaves: int = 8
    betas: tuple[Array, ...] | None = None
    columns: int | None = None

    name = "tree"
    closed_form = False

    def wanted_experts(self) -> int | None:
        """Give the number of leaves that branching or tree have; None with neither, or while it grows."""
        self._check()
        if self.grow:
            return None
        if self.branching is not None:
            return math.prod(self.branching)
        return None if self.tree is None else len(_nested.leaves(_nested.checked(self.tree)))

    def started(self, n_experts: int, design: Design, settings: GateSettings) -> Self:
        """Give the gate with even splits, or with the given coefficients."""
        wanted = self.wanted_experts()
        if wanted is not None and wanted != n_experts:
            options = f"tree={self.tree!r}" if self.branching is None else f"branching={self.branching!r}"
            raise ValueError(
                f"{options} has {wanted} leaves for n_experts={n_experts}; give as many leaves as experts"
            )
        if self.betas is not None:
            return replace(self, settings=settings)
        if self.branching is not None:
            tree = _nested.of_branching(tuple(self.branching))
        elif self.tree is not None and not self.grow:
            tree = _nested.checked(self.tree)
        else:
            tree = _nested.balanced(range(n_experts))
        nodes = _nested.inner_nodes(tree)
        betas = tuple(np.zeros((design.shape[1], len(children))) for _, children in nodes)
        columns = design.shape[1]
        return replace(self, branching=None, tree=tree, betas=betas, columns=columns, settings=settings)

    def nodes(self) -> Iterator[TreeNode]:
        """Yield the inner nodes, a node before its children (preorder)."""
        pairs = zip(_nested.inner_nodes(self._tree), self._betas, strict=True)
        for number, ((depth, children), beta) in enumerate(pairs):
            yield TreeNode(number, depth, children, beta)

    @property
    def n_experts(self) -> int:
        """Experts of a started gate."""
        return len(_nested.leaves(self._tree))

    @property
    def n_parameters(self) -> int:
        """Coefficients of all children but the last, over nodes."""
        return sum(beta[:, :-1].size for beta in self._betas)

    def log_joint(self, design: Design) -> Array:
        """Compute log g_k(x), the sum of the logs along the path: (n, K)."""
        total = np.zeros((design.shape[0], self.n_experts), order="F")
        for node in self.nodes():
            log_child = log_softmax(design.times(node.beta))
            for child, below in enumerate(node.leaves):
                total[:, below] += log_child[:, [child]]
        return total

    def formula(self) -> dict[str, Any] | None:
        """Give the coefficients of every node (q, children), and the experts below each child."""
        nodes = [{"beta": node.beta.tolist(), "leaves": node.leaves} for node in self.nodes()]
        return {"kind": "tree", "n_experts": self.n_experts, "nodes": nodes}

    def statistics(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Statistics:
        """Sum gradient and Hessian of every node."""
        sums = Sums()
        for node in self.nodes():
            target, reach = _targets(node, resp, weight)
            log_child = log_softmax(design.times(node.beta))
            for name, value in newton_sums(design, target, log_child, reach).items():
                sums[f"{node.number}.{name}"] = value
        return sums

    def update(self, statistics: Statistics) -> Self:
        """Make one Newton step at every node."""
        assert isinstance(statistics, Sums)
        after = []
        for node in self.nodes():
            start = f"{node.number}."
            own = {name[len(start) :]: s for name, s in statistics.items() if name.startswith(start)}
            after.append(newton_update(node.beta, Sums(own), self._ridge))
        return replace(self, betas=tuple(after))

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``."""
        pairs = zip(self._betas, other._betas, strict=True)
        return replace(other, betas=tuple(between(here, there, share) for here, there in pairs))

    def penalty(self) -> float:
        """Half the ridge times the squared coefficients, centred over the children of each node."""
        return sum(ridge_penalty(beta, self._ridge) for beta in self._betas)

    def scaled(self, x: Scaling) -> Self:
        """Turn the coefficients for original columns into those for standardised ones."""
        if self.betas is None:
            return self
        if any(len(beta) != len(x.mean) + 1 for beta in self.betas):
            raise ValueError(
                f"TreeGate(betas=...) must have {len(x.mean) + 1} rows each, for the intercept and each "
                f"input; got {[len(beta) for beta in self.betas]}"
            )
        return replace(self, betas=tuple(x.coefficients_in(beta) for beta in self.betas))

    def unscaled(self, x: Scaling) -> Self:
        """Turn the coefficients for standardised columns into those for original ones."""
        return replace(self, betas=tuple(x.coefficients_out(beta) for beta in self._betas))

    # -- growing and pruning

    def split(self, leaf: int, share: float = 0.5) -> Self:
        """Put a node with two leaves in the place of a leaf.

        The leaf keeps its number and 1 - share of its prior; the new leaf is the last expert.

        >>> TreeGate(tree=(0, 1), betas=(np.zeros((2, 2)),), columns=2).split(0).tree
        ((0, 2), 1)
        """
        new = self.n_experts
        assert 0 <= leaf < new, leaf
        tree = _nested.replaced(self._tree, leaf, (leaf, new))
        return self._with_node(_nested.nodes_before(self._tree, leaf), tree, share)

    def with_expert(self, like: int | None, share: float) -> Self:
        """Add an expert, the last: it shares a new node with ``like``, or with the whole tree if None."""
        if like is not None:
            return self.split(like, share)
        return self._with_node(0, (self._tree, self.n_experts), share)

    def forgotten(self) -> Self:
        """Give equal priors at every split."""
        return replace(self, betas=tuple(np.zeros_like(beta) for beta in self._betas))

    def without_expert(self, k: int) -> Self:
        """Prune leaf k: its siblings take its prior; numbers above k move down by one."""
        assert self.n_experts > 1
        number, child = _nested.parent(self._tree, k)
        betas = list(self._betas)
        if betas[number].shape[1] == 2:
            del betas[number]
        else:
            rest = np.delete(betas[number], child, axis=1)
            betas[number] = rest - rest[:, [-1]]
        return replace(self, tree=_nested.pruned(self._tree, k), betas=tuple(betas))

    def _with_node(self, at: int, tree: Tree, share: float) -> Self:
        """Take a tree with one more node of two children, whose prior is 1 - share and share everywhere."""
        assert 0 < share < 1
        assert self.columns is not None
        beta = np.zeros((self.columns, 2))
        beta[0, 0] = np.log(1 - share) - np.log(share)
        return replace(self, tree=tree, betas=(*self._betas[:at], beta, *self._betas[at:]))

    # -- standard errors

    @property
    def parameters(self) -> Array:
        """Coefficients of all children but the last, node by node."""
        return np.concatenate([np.zeros(0), *(beta[:, :-1].ravel() for beta in self._betas)])

    def with_parameters(self, vector: Array) -> Self:
        """Set the coefficients of all children but the last, node by node."""
        betas, at = [], 0
        for beta in self._betas:
            free = vector[at : at + beta[:, :-1].size].reshape(len(beta), -1)
            betas.append(np.column_stack([free, np.zeros(len(free))]))
            at += free.size
        return replace(self, betas=tuple(betas))

    def gradient(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Array:
        """Differentiate: at every node, (h - reach g) x."""
        parts = [np.zeros(0)]
        for node in self.nodes():
            target, reach = _targets(node, resp, weight)
            log_child = log_softmax(design.times(node.beta))
            parts.append(gate_gradient(design, target, log_child, reach)[:, :-1].ravel())
        return np.concatenate(parts)

    # -- to read

    def to_text(
        self, names: Sequence[str] | None = None, scale: Sequence[float] | Array | None = None, top: int = 3
    ) -> str:
        """Write the tree, a line for each split and each expert.

        Before a child stand the coefficients, centred over the children of its node, of the inputs that part
        these children most: with a positive one, more of the input leads there.

        Parameters
        ----------
        names : of the inputs; x0, x1, ... if None.
        scale : standard deviations of the inputs: coefficients are then for standardised inputs and compare;
            as they are if None.
        top : inputs shown at each split.

        >>> beta = np.array([[0.0, 0.0], [-2.0, 0.0]])
        >>> print(TreeGate(tree=(0, 1), betas=(beta,)).to_text(["age"]))
        split 0 on age
          [age -1] expert 0
          [age +1] expert 1
        """
        return _drawing.text(self._tree, list(self.nodes()), _drawing.Labels(names, scale, top))

    def to_svg(
        self, names: Sequence[str] | None = None, scale: Sequence[float] | Array | None = None, top: int = 2
    ) -> str:
        """Draw the tree as one self-contained SVG; arguments as those of `to_text`."""
        return _drawing.svg(self._tree, list(self.nodes()), _drawing.Labels(names, scale, top))

    # -- JSON

    def to_dict(self) -> dict[str, Any]:
        """Give options and parameters as plain values; settings are not among them."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "settings"}
        values["branching"] = None if self.branching is None else [int(b) for b in self.branching]
        values["tree"] = None if self.tree is None else _nested.as_lists(_nested.checked(self.tree))
        values["betas"] = None if self.betas is None else [beta.tolist() for beta in self.betas]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make the gate again from `to_dict`."""
        betas, tree = values["betas"], values["tree"]
        changed = {
            "betas": None if betas is None else tuple(np.array(beta, float) for beta in betas),
            "tree": None if tree is None else _nested.checked(tree),
        }
        return cls(**{**values, **changed})

    # -- inside

    def _check(self) -> None:
        """Raise a ValueError about the first option that is not allowed."""
        if self.branching is not None:
            if self.tree is not None or self.grow:
                other = f"tree={self.tree!r}" if self.tree is not None else "grow=True"
                raise ValueError(f"branching={self.branching!r} and {other} both shape the tree; give one")
            _nested.check_branching(self.branching)
        if self.grow and self.max_leaves < 2:
            raise ValueError(
                f"max_leaves={self.max_leaves!r} must be 2 or more; with one expert use gate='constant'"
            )

    @property
    def _tree(self) -> Tree:
        assert self.tree is not None
        return _nested.checked(self.tree)

    @property
    def _betas(self) -> tuple[Array, ...]:
        assert self.betas is not None
        return self.betas

    @property
    def _ridge(self) -> float:
        assert self.settings is not None
        return self.settings.alpha * self.settings.total_weight


def _targets(node: TreeNode, resp: Array, weight: Array) -> tuple[Array, Array]:
    """Give the responsibilities of the node's children (n, children), and of reaching it (n,)."""
    target = np.stack([resp[:, below].sum(axis=1) for below in node.leaves], axis=1)
    return target, weight if node.number == 0 else target.sum(axis=1)
