"""The page as a file: whole, escaped, the same every time, and without a network."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from expertise.report import _colours, figures
from expertise.report.page import (
    MARKS,
    Card,
    Cell,
    Figure,
    LegendEntry,
    Page,
    Prose,
    Section,
    Table,
    Tile,
    format_value,
    grey_png,
    render,
    write_page,
)

VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Reads a page: its elements, its text, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def everything(text: str) -> Page:
    """A page with every kind of block, the same text in every place that takes one."""
    table = Table(
        (text, "n"), ((text, 1), (Cell(text, colour="expert-1"), Cell(0.5, 2, bar="series-1"))), text
    )
    line = figures.Line(text, [0, 1], [1, 2], "series-1")
    figure = figures.lines(text, [line], x_label=text, y_label=text, note=text)
    card = Card(text, table, (text,), (text,), np.eye(2), text)
    blocks = (Prose((text,), (text,)), table, figure, figure, card)
    return Page(text, text, (Section(text, blocks),), (Tile(text, text, text),), text)


def test_names_from_data_stay_text() -> None:
    evil = """</style></svg><script>alert(1)</script>"' onload=x & ]]> {{ 7 * 7 }}"""
    page = Reader(render(everything(evil)))
    assert "script" not in {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count(evil) >= 15


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30))
def test_any_text_makes_a_well_formed_page(text: str) -> None:
    table = Table((text,), ((text,),), text)
    page = Reader(render(Page(text, text, (Section(text, (Prose((text,)), table)),))))
    assert page.text.count(text) >= 5


def test_the_page_asks_nobody() -> None:
    html = render(everything("plain"))
    page = Reader(html)
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)|@import|<script", html)
    assert "default-src 'none'" in html


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    html = render(everything("twice the same figure"))
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', html)
    assert used
    assert set(used) <= set(ids)


def test_the_same_page_gives_the_same_bytes() -> None:
    assert render(everything("a")) == render(everything("a"))


def test_every_figure_has_words_and_its_data() -> None:
    page = Reader(render(everything("finding")))
    drawings = [a for _, a in page.elements if a.get("role") == "img"]
    tags = [tag for tag, _ in page.elements]
    assert len(drawings) == tags.count("figure") == tags.count("details") == 2
    assert all((a.get("aria-label") or "").startswith("finding") for a in drawings)
    assert all(a.get("alt") for tag, a in page.elements if tag == "img")


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    assert write_page(path, everything("first")) == path
    before = path.read_bytes()
    broken = Figure(
        "t", "<svg/>", "k", "alt", Table(("a",), ((1,),)), (LegendEntry("x", "no colour", "line"),)
    )
    with pytest.raises(ValueError, match="unknown colour 'no colour'; known are page, panel"):
        write_page(path, Page("t", "", (Section("s", (broken,)),)))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (1234567, None, "1,234,567"),
        (np.int64(1234), None, "1,234"),
        (0.12345, None, "0.1235"),
        (0.5, 3, "0.500"),
        (123456.7, None, "123,457"),
        (float("nan"), 3, "–"),
        (None, None, "–"),
        ("text", 2, "text"),
    ],
)
def test_values_are_shown_as_readers_want_them(value: object, digits: int | None, shown: str) -> None:
    assert format_value(value, digits) == shown  # type: ignore[arg-type]


def test_bars_stay_inside_their_box() -> None:
    assert [Cell(v, bar="expert-1").percent for v in (-1.0, 0.25, 7.0, float("nan"), None)] == [
        0,
        25,
        100,
        0,
        0,
    ]


def test_a_picture_is_a_png_of_its_values() -> None:
    values = np.array([[0.0, 0.5, 1.0], [-3.0, np.nan, 2.0]])
    picture = np.asarray(Image.open(io.BytesIO(grey_png(values))))
    assert picture.tolist() == [[0, 128, 255], [0, 0, 255]]


@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 2, 3)])
def test_a_picture_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"must be an array of shape (height, width), not {shape}")
    ):
        grey_png(np.zeros(shape))


# ---- colours


def linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG 2.1, contrast ratio."""
    dark, light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (a, b))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira & Fernandes 2009, table 1, severity 1
SIGHT = {
    "full": np.eye(3),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}
SCHEMES = {"light": _colours.LIGHT, "dark": _colours.DARK}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_have_contrast(scheme: str) -> None:
    colours = SCHEMES[scheme]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for background in ("page", "panel"):
        for text in ("ink", "muted", "link"):
            assert contrast(colours[text], colours[background]) >= 4.5, (text, background)
        for mark in (*_colours.SERIES, *_colours.EXPERTS, "nobody"):
            assert contrast(colours[mark], colours[background]) >= 3, (mark, background)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_stay_apart_for_every_eye(scheme: str, sight: str) -> None:
    colours = SCHEMES[scheme]
    for family in (_colours.SERIES, (*_colours.EXPERTS, "nobody")):
        seen = [lab(SIGHT[sight] @ linear(colours[name])) for name in family]
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(gaps) >= 10, (scheme, sight, family)  # 2.3 is a difference that is just noticed


def test_schemes_name_the_same_colours() -> None:
    assert list(_colours.LIGHT) == list(_colours.DARK)
    assert _colours.series_colour(0) == _colours.series_colour(len(_colours.SERIES))
    assert _colours.expert_colour(1) != _colours.expert_colour(2)


def test_every_mark_can_be_drawn_in_a_legend() -> None:
    figure = figures.lines(
        "t", [], x_label="x", y_label="y", legend=[LegendEntry(m, "ink", m) for m in MARKS]
    )
    html = render(Page("t", "", (Section("s", (figure,)),)))
    assert html.count("var(--ink)") >= len(MARKS)
    assert "{c}" not in html
