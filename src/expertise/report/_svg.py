"""From a drawing of matplotlib to SVG for use inside a page, in the page's colours."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from expertise import _optional
from expertise.report import _colours

WIDTH = 390.0  # of a drawing, in the units of its text (11 high): narrow, to be readable on a phone

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}"
# matplotlib knows no CSS variables: each colour is drawn as a number that stands for its name
_STAND_IN = {name: f"#fe01{index:02x}" for index, name in enumerate(_colours.LIGHT)}
_VARIABLE = {number: f"var(--{name})" for name, number in _STAND_IN.items()}


def stand_in(colour: str) -> str:
    """What to draw with, to have the colour of this name in the page."""
    return _STAND_IN[colour]


def svg_of(draw: Callable[[Any], None], height: float, over: Callable[[], str] | None = None) -> str:
    """Draw on an empty figure and give it as SVG for use inside HTML.

    ``over`` gives SVG of our own, put above the drawing: it is called when the axes have their final places,
    and finds them by `at`.
    """
    matplotlib = _optional.require("matplotlib", "report")
    drawing = _optional.require("matplotlib.figure", "report")
    file = io.StringIO()
    with matplotlib.rc_context(_style()), warnings.catch_warnings():
        # the reader's fonts draw the text; that matplotlib's own lacks a letter does not matter
        warnings.filterwarnings("ignore", message="Glyph")
        figure = drawing.Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        figure.get_layout_engine().set(w_pad=4 / 72, h_pad=4 / 72)
        draw(figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = _for_html(file.getvalue())
    return svg if over is None else svg.removesuffix("</svg>") + over() + "</svg>"


def at(axes: Any, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where points of the data of these axes are in the finished drawing: (n, 2), y from the top."""
    figure = axes.figure
    pixels = axes.transData.transform(np.column_stack([np.atleast_1d(x), np.atleast_1d(y)]))
    units = pixels * 72 / figure.dpi
    height = figure.get_figheight() * 72
    return np.column_stack([units[:, 0], height - units[:, 1]])


def _style() -> dict[str, Any]:
    ink, muted, rule = _STAND_IN["ink"], _STAND_IN["muted"], _STAND_IN["rule"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "expertise",
        "text.parse_math": False,  # names come from data, and may hold a dollar sign
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same widths everywhere
        "font.size": 11.5,
        "axes.titlesize": 11.5,
        "axes.labelsize": 11.5,
        "figure.labelsize": 11.5,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.titlecolor": ink,
        "xtick.color": rule,
        "ytick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "axes.edgecolor": rule,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "axes.formatter.useoffset": False,
        "axes.unicode_minus": False,
    }


def _for_html(text: str) -> str:
    """Only what a drawing inside a page needs: no metadata, no sizes, no loose style, ids under one key."""
    text = re.sub(r"<!DOCTYPE.*?>", "", text, flags=re.DOTALL)
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(text)
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'xlink:href="#([^"]+)"', text))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"_KEY_{name}")
        target = element.attrib.pop(f"{_XLINK}href", None)
        if target is not None:
            element.set("href", f"#_KEY_{target[1:]}")
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("url(#", "url(#_KEY_"))
        if "style" in element.attrib:
            element.set("style", _with_variables(element.attrib["style"]))
        if element.attrib.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        for attribute in {"d", "x", "y", "transform"} & set(element.attrib):
            element.set(attribute, _rounded(element.attrib[attribute]))
    del root.attrib["width"], root.attrib["height"]
    root.set("aria-hidden", "true")  # the page's own words stand beside it
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode")).strip()


def _with_variables(style: str) -> str:
    return re.sub(r"#fe01[0-9a-f]{2}", lambda found: _VARIABLE[found[0]], style)


def _rounded(text: str) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), text)
