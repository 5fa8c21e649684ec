"""A tree of experts for the eye: as text, and as one self-contained SVG."""

from collections.abc import Sequence
from html import escape

import numpy as np

from expertise.mixture.gates._nested import Tree, TreeNode, leaves
from expertise.mixture.rows import Array

WIDTH, HEIGHT, MARGIN = 150, 92, 24  # room of a leaf, of a level, and around, in pixels
LINE = 14  # height of a line of text


class Labels:
    """What is written at a node: the inputs that part its children most, with their coefficients.

    Parameters
    ----------
    names : of the inputs, or None.
    scale : (d,) multiplies the coefficients, or None.
    top : inputs shown.
    """

    def __init__(self, names: Sequence[str] | None, scale: Sequence[float] | Array | None, top: int) -> None:
        self.names = names
        self.scale = scale
        self.top = top

    def inputs(self, node: TreeNode) -> list[tuple[str, Array]]:
        """Give names and centred coefficients (children,) of the inputs that matter most, largest first."""
        slopes = node.beta[1:]
        self._check(len(slopes))
        if self.scale is not None:
            slopes = slopes * np.asarray(self.scale, float)[:, None]
        centred = slopes - slopes.mean(axis=1, keepdims=True)
        spread = np.ptp(centred, axis=1)
        order = np.argsort(-spread, kind="stable")[: self.top]
        return [(self._name(j), centred[j]) for j in order if spread[j] > 0]

    def title(self, node: TreeNode) -> str:
        """Name a split."""
        shown = ", ".join(name for name, _ in self.inputs(node))
        return f"split {node.number}" + (f" on {shown}" if shown else "")

    def of_child(self, node: TreeNode, child: int) -> str:
        """Write the coefficients that lead to a child."""
        return ", ".join(f"{name} {values[child]:+.3g}" for name, values in self.inputs(node))

    def _name(self, j: int) -> str:
        return f"x{j}" if self.names is None else str(self.names[j])

    def _check(self, columns: int) -> None:
        for argument, value in (("names", self.names), ("scale", self.scale)):
            if value is not None and len(value) != columns:
                raise ValueError(
                    f"{argument} has {len(value)} entries, but the gate {columns} inputs; give one for each"
                )


def text(tree: Tree, nodes: list[TreeNode], labels: Labels) -> str:
    """Write a line for each split and each expert, indented by depth."""
    rest = iter(nodes)
    lines: list[str] = []

    def write(below: Tree, depth: int, before: str) -> None:
        start = "  " * depth + (f"[{before}] " if before else "")
        if isinstance(below, int):
            lines.append(f"{start}expert {below}")
            return
        node = next(rest)
        lines.append(start + labels.title(node))
        for number, child in enumerate(node.children):
            write(child, depth + 1, labels.of_child(node, number))

    write(tree, 0, "")
    return "\n".join(lines)


def svg(tree: Tree, nodes: list[TreeNode], labels: Labels) -> str:
    """Draw nodes, leaves and the lines between them."""
    places = {leaf: MARGIN + (i + 0.5) * WIDTH for i, leaf in enumerate(leaves(tree))}
    rest = iter(nodes)
    lines: list[str] = []
    boxes: list[str] = []
    deepest = MARGIN

    def draw(below: Tree, depth: int) -> tuple[float, float]:
        nonlocal deepest
        y = MARGIN + LINE + depth * HEIGHT
        deepest = max(deepest, y)
        if isinstance(below, int):
            boxes.append(_box(places[below], y, f"expert {below}", "leaf"))
            return places[below], y
        node = next(rest)
        under = leaves(below)
        x = (places[under[0]] + places[under[-1]]) / 2
        for number, child in enumerate(node.children):
            to_x, to_y = draw(child, depth + 1)
            lines.append(f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}"/>')
            wanted = [f"{name} {values[number]:+.3g}" for name, values in labels.inputs(node)]
            lines.extend(_notes((x + to_x) / 2, (y + to_y) / 2 - LINE * (len(wanted) - 1) / 2, wanted))
        boxes.append(_box(x, y, f"split {node.number}", "node"))
        return x, y

    draw(tree, 0)
    width, height = 2 * MARGIN + WIDTH * len(places), deepest + LINE + MARGIN
    said = escape(text(tree, nodes, labels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="sans-serif" font-size="12" text-anchor="middle">\n'
        f"<title>Tree gate with {len(places)} experts</title>\n<desc>{said}</desc>\n"
        '<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<g stroke="#8a8f98" fill="#22262b">\n{chr(10).join(lines)}\n</g>\n{chr(10).join(boxes)}\n</svg>\n'
    )


def _notes(x: float, y: float, wanted: list[str]) -> list[str]:
    # the outline in the ground's colour keeps the text readable on its line
    style = 'stroke="#ffffff" stroke-width="4" paint-order="stroke" font-size="11"'
    return [
        f'<text x="{x:g}" y="{y + i * LINE + 4:g}" {style}>{escape(one)}</text>'
        for i, one in enumerate(wanted)
    ]


def _box(x: float, y: float, label: str, kind: str) -> str:
    fill, corner = {"node": ("#eef1f5", LINE), "leaf": ("#dcebdc", 3)}[kind]
    half = 4 * len(label) + 6
    return (
        f'<rect x="{x - half:g}" y="{y - LINE:g}" width="{2 * half:g}" height="{2 * LINE:g}" rx="{corner}" '
        f'fill="{fill}" stroke="#5b616a"/><text x="{x:g}" y="{y + 4:g}" fill="#22262b">{escape(label)}</text>'
    )
