"""The shape of a tree of experts: nested tuples whose leaves are the numbers of the experts.

Inner nodes are numbered in preorder: a node before its children, children from left to right. ((0, 1), 2) has
node 0, the root, and node 1 above the experts 0 and 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from expertise.mixture.rows import Array

Tree: TypeAlias = "int | tuple[Tree, ...]"


@dataclass(frozen=True, eq=False)
class TreeNode:
    """An inner node of a tree of experts, a softmax over its children.

    number : in preorder; the root is 0.
    depth : the root's is 0.
    children : the trees below.
    beta : (q, children) intercept first; the last column is 0.
    """

    number: int
    depth: int
    children: tuple[Tree, ...]
    beta: Array

    @property
    def leaves(self) -> list[list[int]]:
        """List the experts below each child."""
        return [leaves(child) for child in self.children]


def leaves(tree: Tree) -> list[int]:
    """List the leaves from left to right.

    >>> leaves(((0, 2), 1))
    [0, 2, 1]
    """
    if isinstance(tree, int):
        return [tree]
    return [leaf for child in tree for leaf in leaves(child)]


def inner_nodes(tree: Tree, depth: int = 0) -> Iterator[tuple[int, tuple[Tree, ...]]]:
    """Yield depth and children of every inner node, in preorder."""
    if not isinstance(tree, int):
        yield depth, tree
        for child in tree:
            yield from inner_nodes(child, depth + 1)


def balanced(experts: Sequence[int]) -> Tree:
    """Halve the experts again and again.

    >>> balanced(range(5))
    (((0, 1), 2), (3, 4))
    """
    if len(experts) == 1:
        return experts[0]
    middle = (len(experts) + 1) // 2
    return balanced(experts[:middle]), balanced(experts[middle:])


def check_branching(branching: Any) -> None:
    """Raise a ValueError unless these are numbers of children, at every level."""
    listed = isinstance(branching, list | tuple) and len(branching) > 0
    if not (listed and all(hasattr(children, "__index__") and children >= 2 for children in branching)):
        raise ValueError(
            f"branching={branching!r} must list the children of a node at every level, "
            "whole numbers of 2 or more, such as (2, 2)"
        )


def of_branching(branching: Sequence[int], first: int = 0) -> Tree:
    """Make the tree whose nodes at depth i have branching[i] children.

    >>> of_branching((2, 3))
    ((0, 1, 2), (3, 4, 5))
    """
    if not branching:
        return first
    below = 1
    for children in branching[1:]:
        below *= children
    return tuple(of_branching(branching[1:], first + i * below) for i in range(branching[0]))


def checked(value: Any) -> Tree:
    """Turn what a user nested into tuples.

    Raises
    ------
    ValueError
        A node with fewer than two children, or leaves that are not 0 .. K - 1, each once.
    """
    tree = _nested(value, value)
    found = leaves(tree)
    if sorted(found) != list(range(len(found))):
        raise ValueError(
            f"tree={value!r} has the leaves {found}; allowed are the experts 0 to {len(found) - 1}, each once"
        )
    return tree


def _nested(value: Any, whole: Any) -> Tree:
    if isinstance(value, list | tuple):
        if len(value) < 2:
            raise ValueError(
                f"tree={whole!r} has a node with {len(value)} children; a node needs two or more: "
                "write a lone child in place of its node"
            )
        return tuple(_nested(child, whole) for child in value)
    try:
        return int(value.__index__())
    except AttributeError:
        raise ValueError(
            f"tree={whole!r} has the leaf {value!r}; leaves are whole numbers, nodes are lists of children"
        ) from None


def as_lists(tree: Tree) -> Any:
    """Turn tuples into lists, as JSON has them."""
    return tree if isinstance(tree, int) else [as_lists(child) for child in tree]


def replaced(tree: Tree, leaf: int, by: Tree) -> Tree:
    """Put a tree in the place of a leaf.

    >>> replaced((0, 1), 1, (1, 2))
    (0, (1, 2))
    """
    if isinstance(tree, int):
        return by if tree == leaf else tree
    return tuple(replaced(child, leaf, by) for child in tree)


def nodes_before(tree: Tree, leaf: int) -> int:
    """Count the inner nodes that preorder meets before a leaf: the number of a node in its place.

    >>> nodes_before(((0, 1), (2, 3)), 1)
    2
    """
    if isinstance(tree, int):
        return 0
    count = 1
    for child in tree:
        if leaf in leaves(child):
            return count + nodes_before(child, leaf)
        count += sum(1 for _ in inner_nodes(child))
    raise AssertionError(f"no leaf {leaf} in {tree}")


def parent(tree: Tree, leaf: int) -> tuple[int, int]:
    """Give the number of the node above a leaf, and which of its children the leaf is.

    >>> parent(((0, 1), (2, 3)), 3)
    (2, 1)
    """
    for number, (_, children) in enumerate(inner_nodes(tree)):
        if leaf in children:
            return number, children.index(leaf)
    raise AssertionError(f"no node above {leaf} in {tree}")


def pruned(tree: Tree, leaf: int) -> Tree:
    """Take a leaf away: a lone sibling takes the place of their node; higher leaves move down by one.

    >>> pruned(((0, 1), 2), 0)
    (0, 1)
    """
    if isinstance(tree, int):
        return tree - (tree > leaf)
    rest = tuple(pruned(child, leaf) for child in tree if child != leaf)
    return rest[0] if len(rest) == 1 else rest
