"""The tree gate as text and as a drawing; options that are not allowed."""

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from expertise.mixture.gates import GateSettings, TreeGate
from mixture.gates_helpers import gate_rows, started

SETTINGS = GateSettings()


def two_splits() -> TreeGate:
    """Split on b, then on a among the rows where b is low."""
    root, below = np.zeros((3, 2)), np.zeros((3, 2))
    root[2, 0], below[1, 0], below[2, 0] = -4.0, 6.0, 0.5
    return TreeGate(tree=((0, 1), 2), betas=(root, below), columns=3)


def test_text() -> None:
    assert two_splits().to_text(["a", "b"]) == (
        "split 0 on b\n"
        "  [b -2] split 1 on a, b\n"
        "    [a +3, b +0.25] expert 0\n"
        "    [a -3, b -0.25] expert 1\n"
        "  [b +2] expert 2"
    )


def test_text_ranks_standardised_coefficients() -> None:
    text = two_splits().to_text(scale=[0.01, 1.0], top=1)
    assert "split 1 on x1\n" in text
    assert "[x1 +0.25] expert 0" in text


def test_text_of_trees_without_inputs() -> None:
    rows = gate_rows(n_experts=2)
    assert started("tree", rows).to_text() == "split 0\n  expert 0\n  expert 1"  # type: ignore[attr-defined]
    one: TreeGate = TreeGate().started(1, rows.design, SETTINGS)
    assert one.to_text() == "expert 0"
    ET.fromstring(one.to_svg())


def test_svg_is_a_drawing_with_a_title_and_all_nodes() -> None:
    svg = two_splits().to_svg(["a<b", 'the "b" & c'])
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert root.attrib["role"] == "img"
    assert root.findtext(f"{space}title") == "Tree gate with 3 experts"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"split 0", "split 1", "expert 0", "expert 1", "expert 2"} <= set(texts)
    assert "a<b +3" in texts
    assert 'the "b" & c -2' in texts
    assert len(list(root.iter(f"{space}line"))) == 4
    assert "href" not in svg
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for text in root.iter(f"{space}text"):
        assert 0 < float(text.attrib["x"]) < width
        assert 0 < float(text.attrib["y"]) < height


# -- errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"branching": (2, 1)}, r"branching=\(2, 1\) must list the children .* whole numbers of 2 or more"),
        ({"branching": ()}, r"branching=\(\) must list the children of a node at every level"),
        ({"branching": 4}, r"branching=4 must list the children of a node at every level"),
        ({"branching": (2.5,)}, r"branching=\(2\.5,\) must list the children"),
        ({"branching": (2, 2), "tree": [0, 1]}, r"branching=\(2, 2\) and tree=\[0, 1\] both shape the tree"),
        (
            {"branching": (2, 2), "grow": True},
            r"branching=\(2, 2\) and grow=True both shape the tree; give one",
        ),
        (
            {"tree": [0, 2]},
            r"tree=\[0, 2\] has the leaves \[0, 2\]; allowed are the experts 0 to 1, each once",
        ),
        ({"tree": [[0, 1], 1]}, r"has the leaves \[0, 1, 1\]; allowed are the experts 0 to 2, each once"),
        ({"tree": [[0], 1]}, r"tree=\[\[0\], 1\] has a node with 1 children; a node needs two or more"),
        ({"tree": [0, "b"]}, r"has the leaf 'b'; leaves are whole numbers, nodes are lists of children"),
        ({"grow": True, "max_leaves": 1}, r"max_leaves=1 must be 2 or more; with one expert use"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TreeGate(**options).wanted_experts()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"branching": (2, 2)}, r"branching=\(2, 2\) has 4 leaves for n_experts=3; give as many leaves as"),
        ({"tree": [0, 1]}, r"tree=\[0, 1\] has 2 leaves for n_experts=3"),
    ],
)
def test_leaves_must_be_as_many_as_experts(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TreeGate(**options).started(3, gate_rows().design, SETTINGS)


@pytest.mark.parametrize("call", ["to_text", "to_svg"])
def test_names_must_be_as_many_as_inputs(call: str) -> None:
    with pytest.raises(ValueError, match=r"names has 1 entries, but the gate 2 inputs; give one for each"):
        getattr(two_splits(), call)(["a"])
