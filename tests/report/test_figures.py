"""Figures: they draw what their table lists, say it in words, and fit into a page."""

import re
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest

from expertise.report import _colours, figures
from expertise.report.figures import Dots, Line, dots, lines, shares
from expertise.report.page import Cell, Figure

SVG = "{http://www.w3.org/2000/svg}"


def three() -> list[Figure]:
    return [
        lines("A", [Line("a", [0, 1], [2, 3], "series-1", "dashed")], x_label="steps", y_label="loss"),
        dots("B", ["u", "v"], [Dots("a", [0.1, 0.9], "series-1")], row_label="class", x_label="AP"),
        shares(
            "C",
            ["u"],
            ["day", "night"],
            [("one", "expert-1"), ("two", "expert-2")],
            np.array([[[0.25, 0.75], [1.0, 0.0]]]),
            row_label="class",
            x_label="share",
        ),
    ]


def values(figure: Figure) -> list[list[object]]:
    return [[cell.value for cell in row] for row in figure.table.cells]


def paths(figure: Figure, colour: str) -> list[list[tuple[float, float]]]:
    """The points of every path that is drawn in a colour."""
    found = ElementTree.fromstring(figure.svg).iter(f"{SVG}path")
    drawn = [one.attrib["d"] for one in found if f"var(--{colour})" in one.attrib.get("style", "")]
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", d)] for d in drawn]


@pytest.mark.parametrize("figure", three(), ids=lambda figure: figure.title)
def test_a_drawing_fits_into_a_page(figure: Figure) -> None:
    root = ElementTree.fromstring(figure.svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox", "").startswith("0 0 390 ")
    assert "width" not in root.attrib  # the page decides
    assert not list(root.iter(f"{SVG}style"))  # it would reach the whole page
    assert all(
        element.attrib["id"].startswith(figure.key) for element in root.iter() if "id" in element.attrib
    )
    assert not re.search(r"#[0-9a-f]{6}", figure.svg), "every colour is a variable of the page"
    assert set(re.findall(r"var\(--([\w-]+)\)", figure.svg)) <= set(_colours.LIGHT)


@pytest.mark.parametrize("figure", three(), ids=lambda figure: figure.title)
def test_axes_and_words(figure: Figure) -> None:
    text = "".join(ElementTree.fromstring(figure.svg).itertext())
    label = figure.table.caption.split(",")[0]
    assert label in text
    assert figure.alt.startswith(figure.title)
    assert label in figure.alt


def test_the_same_data_give_the_same_drawing() -> None:
    assert three() == three()


def test_lines_draw_what_the_table_lists() -> None:
    figure = lines(
        "t",
        [Line("a", [0, 10, 20], [1.0, 3.0, 2.0], "series-1"), Line("b", [10], [2.5], "series-2")],
        x_label="steps",
        y_label="loss",
    )
    assert figure.table.columns == ("steps", "a", "b")
    assert [row[:2] for row in values(figure)] == [[0, 1.0], [10, 3.0], [20, 2.0]]
    assert values(figure)[1][2] == 2.5
    assert np.isnan(values(figure)[0][2])  # type: ignore[call-overload]
    drawn = next(points for points in paths(figure, "series-1") if len(points) == 3)
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.05)
    assert (y0 - y1) == pytest.approx(2 * (y2 - y1), abs=0.05)  # up the page is less


def test_lines_leave_out_what_is_not_finite_and_thin_what_is_long() -> None:
    y = np.arange(5000.0)
    y[7] = np.nan
    figure = lines("t", [Line("a", np.arange(5000), y, "series-1")], x_label="x", y_label="y")
    listed = values(figure)
    assert len(listed) == figures.MAX_POINTS
    assert (listed[0], listed[-1]) == ([0, 0.0], [4999, 4999.0])
    assert "a from 0.000 at 0 to 4999" in figure.alt.replace(",", "")


def test_lines_without_points() -> None:
    figure = lines("t", [Line("a", [], [], "series-1")], x_label="x", y_label="y")
    assert figure.table.rows == ()
    assert "no points" in figure.alt


def test_dots_stand_where_their_values_are() -> None:
    figure = dots(
        "t",
        ["u", "v"],
        [Dots("a", [0.0, 1.0], "series-1"), Dots("b", [0.5, np.nan], "series-2", "square")],
        row_label="class",
        x_label="AP",
    )
    uses = [one.attrib for one in ElementTree.fromstring(figure.svg).iter(f"{SVG}use")]
    at = {
        colour: sorted(float(one["x"]) for one in uses if f"fill: var(--{colour})" in one.get("style", ""))
        for colour in ("series-1", "series-2")
    }
    left, right = at["series-1"]
    assert at["series-2"] == [pytest.approx((left + right) / 2, abs=0.05)]
    assert values(figure)[0] == ["u", 0.0, 0.5]
    assert "means: a 0.500, b 0.500" in figure.alt


def test_shares_fill_each_row() -> None:
    figure = three()[2]
    widths = {
        part: [max(x for x, _ in points) - min(x for x, _ in points) for points in paths(figure, colour)]
        for part, colour in (("one", "expert-1"), ("two", "expert-2"))
    }
    assert widths["two"][0] == pytest.approx(3 * widths["one"][0], rel=0.01)
    assert widths["one"][1] == pytest.approx(4 * widths["one"][0], rel=0.01)
    assert values(figure) == [["u", "day", 0.25, 0.75], ["u", "night", 1.0, 0.0]]


def test_shares_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(rows, panels, parts\) = \(1, 2, 1\), not \(3, 2\)"):
        shares("t", ["u"], ["p", "q"], [("a", "ink")], np.zeros((3, 2)), row_label="", x_label="")


def test_names_are_drawn_as_they_are() -> None:
    names = ["<b>&", "$x_1$", "a name that is far too long", "line\nbreak", "\x00", "日本"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = dots("t", names, [Dots("a", [0.5] * 6, "ink")], row_label="class", x_label="AP")
    shown = [one.text for one in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]
    assert {"<b>&", "$x_1$", "a name that is fa…", "line\N{REPLACEMENT CHARACTER}break", "日本"} <= set(shown)
    assert figure.table.rows[2][0] == names[2]  # the table has the whole name


def test_legends_list_what_is_drawn() -> None:
    entries = [(entry.name, entry.colour, entry.mark) for figure in three() for entry in figure.legend]
    assert entries == [
        ("a", "series-1", "dashed"),
        ("a", "series-1", "circle"),
        ("one", "expert-1", "box"),
        ("two", "expert-2", "box"),
    ]


def test_numbers_of_the_table_have_their_digits() -> None:
    cell = three()[1].table.rows[0][1]
    assert isinstance(cell, Cell)
    assert cell.text == "0.100"
