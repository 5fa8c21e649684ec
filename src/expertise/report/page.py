"""One self-contained HTML page: sections of prose, tables, figures and cards, written as one file.

The page needs no network: its style, its figures and the scripts of its `Live` parts are inside, and its
content policy forbids everything else (a script runs only if the policy names its hash; most pages have
none). Every text is escaped; names may come from data.
"""

import base64
import functools
import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from expertise import _files, _optional
from expertise.report import _colours
from expertise.report._colours import MARKS as MARKS

Value = str | int | float | None


@dataclass(frozen=True)
class Cell:
    """One cell of a table that is more than its value.

    ``digits`` fixes the decimals of a number. ``bar`` names a colour: the value, a share of 1, is drawn as
    a bar of that colour too, or ``length``, where the value is no share. ``strong`` marks the best of its
    column. ``colour`` puts a patch of that colour before the text.
    """

    value: Value
    digits: int | None = None
    bar: str = ""
    colour: str = ""
    strong: bool = False
    length: float | None = None

    @property
    def text(self) -> str:
        """The value as it is shown."""
        return format_value(self.value, self.digits)

    @property
    def is_number(self) -> bool:
        """Whether the cell is set right-aligned with the numbers of its column."""
        return not isinstance(self.value, str)

    @property
    def percent(self) -> float:
        """Length of the bar in percent of its column."""
        length = self.value if self.length is None else self.length
        if not isinstance(length, int | float) or math.isnan(length):
            return 0.0
        return round(100 * min(max(length, 0.0), 1.0), 2)


Row = tuple[Value | Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table: names of the columns, rows of values or `Cell`, and what it shows; ``tall`` scrolls inside."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    tall: bool = False
    kind: ClassVar[str] = "table"

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, every value as a `Cell`."""
        return [[value if isinstance(value, Cell) else Cell(value) for value in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """For every column, whether all its values are numbers."""
        return [all(cell.is_number for cell in column) for column in zip(*self.cells, strict=True)]


@dataclass(frozen=True)
class LegendEntry:
    """What one colour of a figure stands for; ``mark`` is a key of `MARKS`."""

    name: str
    colour: str
    mark: str


@dataclass(frozen=True)
class Figure:
    """A figure: its finding, its drawing, what it shows in words, and its data.

    Parameters
    ----------
    title : the finding, a sentence.
    svg : the drawing; every id in it begins with ``key``, which the page replaces by a number of its own.
    alt : what the drawing shows, for those who cannot see it.
    table : the data that are drawn.
    wide : the figure takes the whole width of the page.
    """

    title: str
    svg: str
    key: str
    alt: str
    table: Table
    legend: tuple[LegendEntry, ...] = ()
    note: str = ""
    wide: bool = False
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Prose:
    """Paragraphs of text, then a list of points."""

    paragraphs: tuple[str, ...]
    points: tuple[str, ...] = ()
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, its value, and a remark."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One case: a headline, tags, remarks, perhaps a small picture, and a table.

    ``picture`` is a grey image, (height, width) in 0 (black) to 1 (white); ``picture_alt`` says what it is.
    """

    title: str
    table: Table
    lines: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    picture: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    picture_alt: str = ""
    kind: ClassVar[str] = "card"

    @property
    def picture_uri(self) -> str:
        """The picture as a data URI."""
        assert self.picture is not None
        return "data:image/png;base64," + base64.b64encode(grey_png(self.picture)).decode()


@dataclass(frozen=True)
class Live:
    """A part that a script moves: without the script the reader sees its figure, or a sentence.

    Parameters
    ----------
    title : what it is, or the finding.
    template, script : files of the folder of templates: the HTML, and what moves it. The script finds its
        part by the class "live" and the attribute ``data-live``, which is the name of the script.
    data : what the script reads, as JSON; a number that is not finite becomes null.
    shown : what the template shows, by name.
    figure : the drawing of the part.
    """

    title: str
    template: str
    script: str
    data: Mapping[str, Any] = field(compare=False)
    shown: Mapping[str, Any] = field(default_factory=dict, compare=False)
    figure: Figure | None = None
    kind: ClassVar[str] = "live"

    @property
    def json(self) -> str:
        """The data as JSON that cannot end the element it stands in."""
        text = json.dumps(_finite(self.data), allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c")


Block = Prose | Table | Figure | Card | Live


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A page: its title, what was found in a sentence or two, key figures, sections, and a last line."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    tiles: tuple[Tile, ...] = ()
    footer: str = ""


def format_value(value: Value, digits: int | None = None) -> str:
    """A value as a reader wants it: whole numbers with thousands apart, missing ones as a dash.

    >>> format_value(22251300), format_value(0.70839, 3), format_value(float("nan")), format_value(12.3456789)
    ('22,251,300', '0.708', '–', '12.35')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if digits is not None:
        return f"{value:,.{digits}f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def grey_png(image: npt.NDArray[np.float64]) -> bytes:
    """A PNG file of a grey image.

    Parameters
    ----------
    image : (height, width), 0 is black and 1 is white; values outside are cut.

    Raises
    ------
    ValueError
        Where the image is not of two dimensions, or empty.
    """
    if image.ndim != 2 or not image.size:
        raise ValueError(f"a picture must be an array of shape (height, width), not {image.shape}")
    pixels = np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@functools.cache  # templates are compiled once
def _environment() -> Any:
    jinja2 = _optional.require("jinja2", "report")
    return jinja2.Environment(
        loader=jinja2.PackageLoader("expertise.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(page: Page) -> str:
    """The page as HTML; the same page gives the same bytes.

    Needs the extra ``report`` (jinja2).
    """
    markupsafe = _optional.require("markupsafe", "report")
    environment = _environment()
    drawn = 0

    def drawing(figure: Figure) -> Any:
        nonlocal drawn
        drawn += 1
        return markupsafe.Markup(figure.svg.replace(figure.key, f"f{drawn}"))

    def mark(entry: LegendEntry) -> Any:
        return markupsafe.Markup(MARKS[entry.mark].replace("{c}", f"var(--{_colour(entry.colour)})"))

    names = sorted({block.script for s in page.sections for block in s.blocks if isinstance(block, Live)})
    scripts = [environment.loader.get_source(environment, name)[0] for name in names]
    html: str = environment.get_template("page.html.jinja").render(
        page=page,
        light=_colours.LIGHT,
        dark=_colours.DARK,
        drawing=drawing,
        mark=mark,
        colour=_colour,
        policy=_policy(scripts),
        scripts=[markupsafe.Markup(script) for script in scripts],
        markup=markupsafe.Markup,
    )
    return html


def _policy(scripts: list[str]) -> str:
    """Give the content policy: nothing but our style, pictures of our own, and exactly these scripts."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return policy + ("; script-src " + " ".join(f"'sha256-{one}'" for one in hashes) if hashes else "")


def _finite(data: Any) -> Any:
    """Give the data as JSON knows them: arrays as lists, numbers that are not finite as None."""
    if isinstance(data, np.ndarray | np.generic):
        return _finite(data.tolist())
    if isinstance(data, Mapping):
        return {str(name): _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _colour(name: str) -> str:
    if name not in _colours.LIGHT:
        raise ValueError(f"unknown colour {name!r}; known are {', '.join(_colours.LIGHT)}")
    return name


def write_page(path: str | os.PathLike[str], page: Page) -> Path:
    """Write the page to ``path``, whole or not at all; its folder is made where it is missing."""
    html = render(page)
    with _files.atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return Path(path)
