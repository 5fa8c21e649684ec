"""Figures of sparse layers: they draw the loads that they list."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from expertise.report import _colours
from expertise.report.page import Figure
from expertise.report.routing import MOST_LINES, balance_over_steps, expert_loads

SVG = "{http://www.w3.org/2000/svg}"


def bars(figure: Figure) -> list[float]:
    """The heights of all bars, from the left in the first panel on."""
    heights = []
    for path in ElementTree.fromstring(figure.svg).iter(f"{SVG}path"):
        if "fill: var(--series-1)" in path.get("style", ""):
            ys = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path.attrib["d"])]
            heights.append(max(ys) - min(ys))
    return heights


def texts(figure: Figure) -> set[str | None]:
    return {one.text for one in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")}


def test_bars_are_the_loads_over_the_mean_of_their_layer() -> None:
    figure = expert_loads("Uneven", ["low", "high"], [np.array([30, 10, 20]), np.array([2, 2])])
    heights = np.array(bars(figure))
    assert len(heights) == 5
    assert heights / heights[3] == pytest.approx([1.5, 0.5, 1, 1, 1], abs=0.01)  # one axis for both layers
    assert [[cell.value for cell in row] for row in figure.table.cells] == [
        ["low", "0", 30, 1.5],
        ["low", "1", 10, 0.5],
        ["low", "2", 20, 1.0],
        ["high", "0", 2, 1.0],
        ["high", "1", 2, 1.0],
    ]
    assert "low: most 1.50 (expert 0), 0 of 3 without any" in figure.alt
    assert {"low", "high", "expert", "load / mean"} <= texts(figure)


def test_colours_are_variables_of_the_page() -> None:
    for figure in (expert_loads("A", ["a"], [[1, 2]]), balance_over_steps("B", ["a"], [[1, 2]])):
        assert not re.search(r"#[0-9a-f]{6}", figure.svg)
        assert set(re.findall(r"var\(--([\w-]+)\)", figure.svg)) <= set(_colours.LIGHT)
        assert figure.key.startswith("k")
        assert "_KEY_" not in figure.svg


def test_a_layer_without_tokens_has_no_bars_and_says_so() -> None:
    figure = expert_loads("Idle", ["a"], [[0, 0]])
    assert bars(figure) in ([], [0.0, 0.0])
    assert "most – (expert 0), 2 of 2 without any" in figure.alt
    assert math.isnan(figure.table.cells[0][3].value)


def test_lines_are_the_steps_of_each_layer() -> None:
    figure = balance_over_steps("Falls", ["a", "b"], [[3, 2, 1], [2, math.nan, 1.5]], steps=[10, 20, 30])
    assert [cell.value for cell in figure.table.cells[0]] == [10, 3, 2]
    assert "a from 3.000 at 10 to 1.000 at 30" in figure.alt
    assert [entry.name for entry in figure.legend] == ["a", "b"]


def test_lines_of_layers_differ_in_colour_or_mark() -> None:
    names = [str(i) for i in range(MOST_LINES)]
    legend = balance_over_steps("All", names, [[1, 2]] * MOST_LINES).legend
    assert len({(entry.colour, entry.mark) for entry in legend}) == MOST_LINES


def test_of_many_layers_the_range_is_drawn() -> None:
    values = np.arange(1.0, 12.0)[:, None] * np.array([1.0, 2.0])  # layers 1..11, twice as much at step 2
    values[10, 1] = math.nan
    figure = balance_over_steps("Many", [str(i) for i in range(11)], values)
    assert [entry.name for entry in figure.legend] == ["largest of all layers", "median", "smallest"]
    assert [[cell.value for cell in row] for row in figure.table.cells] == [[1, 11, 6, 1], [2, 20, 10, 2]]


@pytest.mark.parametrize(
    ("names", "loads", "message"),
    [
        ([], [], "loads must have a row for each name in layers, at least one; got 0 rows and 0 names"),
        (["a"], [[1], [2]], "got 2 rows and 1 names"),
        (["a"], [[[1, 2]]], r"that of 'a' has the shape \(1, 2\) and the least value 1"),
        (["a"], [[-1, 2]], r"at least 0; that of 'a' has the shape \(2,\) and the least value -1"),
        (["a"], [[]], r"that of 'a' has the shape \(0,\)$"),
    ],
)
def test_loads_that_do_not_fit_are_refused(names: list[str], loads: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expert_loads("A", names, loads)  # type: ignore[arg-type]


def test_steps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a value for each of the 3 steps in every layer; got \[2\]"):
        balance_over_steps("A", ["a"], [[1, 2]], steps=[1, 2, 3])
    with pytest.raises(ValueError, match=r"a value for each of the 1 steps in every layer; got \[1, 2\]"):
        balance_over_steps("A", ["a", "b"], [[1, 2], [1]])
