"""Tables that stay readable on a phone: long code breaks between its parts, cells of text keep some width."""

import html
import re
from typing import Any

CELL = re.compile(r"<td>(.*?)</td>", re.DOTALL)
CODE = re.compile(r"<code>(.*?)</code>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")
# after a stroke, an opening bracket, an equals sign, a pair of colons; after "_" inside a name
PLACE = re.compile(r"(?<=[/(=])(?=[\w&])|(?<=::)|(?<=\w_)(?=\w)")
SHORT = 24  # signs of code that stay on one line
TEXT = 40  # signs from which a cell is one of text


def shown(content: str) -> str:
    """Give what a reader sees of some HTML."""
    return " ".join(html.unescape(TAG.sub("", content)).split())


def breakable(found: re.Match[str]) -> str:
    """Let a long piece of code break, at places where a reader does not stumble."""
    if len(shown(found[1])) <= SHORT or TAG.search(found[1]):
        return found[0]
    return f"<code>{PLACE.sub('<wbr>', found[1])}</code>"


def on_page_content(content: str, **_: Any) -> str:
    """Mark the cells that hold much text, and where their code may break."""

    def cell(found: re.Match[str]) -> str:
        if len(shown(found[1])) <= TEXT:
            return found[0]
        kind = "text" if CODE.sub("", found[1]).strip(", \n") else "text code"
        return f'<td class="{kind}">{CODE.sub(breakable, found[1])}</td>'

    return CELL.sub(cell, content)
