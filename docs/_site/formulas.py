"""Formulas become MathML while the site is built, so that pages need no script to show them."""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

# what pymdownx.arithmatex leaves of $...$ and $$...$$
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# log g, not logg: a name of a function before anything but a bracket
FUNCTION = re.compile(r"(<mi>(?:log|exp|sin|cos|tanh|Var)</mi>)(?!<mo|</)")
# a minus that stands after a sign, a comma or an opening bracket belongs to its number
BEFORE_A_SIGN = "&#x0003D;|&#x0002C;|&#x00028;|&#x0005B;|&#x02264;|&#x02265;"
SIGN = re.compile(rf"(<mo[^>]*>(?:{BEFORE_A_SIGN})</mo><mo)(>&#x02212;)")


def to_mathml(formula: str, display: str) -> str:
    """Convert a formula; display is "inline" or "block".

    Raises
    ------
    ValueError : a command that is not known, which would be shown as it is written.
    """
    try:
        mathml = convert(formula, display=display)
    except Exception as error:  # the converter has many kinds of its own
        raise ValueError(f"this formula can't be read: {formula!r} ({error})") from error
    unknown = re.findall(r"\\\w+", html.unescape(mathml))
    if unknown:
        raise ValueError(f"this formula has commands that are not known, {', '.join(unknown)}: {formula!r}")
    return SIGN.sub(r'\1 form="prefix"\2', FUNCTION.sub(r'\1<mspace width="0.17em"/>', mathml))


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Put MathML where the formulas of a page are."""

    def show(found: re.Match[str]) -> str:
        display = "inline" if found[1] == "span" else "block"
        try:
            mathml = to_mathml(html.unescape(found[2]).strip(), display)
        except ValueError as error:
            raise PluginError(f"{page.file.src_uri}: {error}") from error
        return mathml if display == "inline" else f'<div class="formula">{mathml}</div>'

    return FORMULA.sub(show, content)
