"""Docstrings as this package writes them, brought to the form that the reference is made from.

Here a parameter is `name : what it means`, since its type stands in the signature. In numpydoc the place
after the colon is for the type. Doctests may stand anywhere here; there they need a section, or a fence.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^([A-Z]\w+)\n-{3,}\n", re.MULTILINE)
ENTRY = re.compile(r"([\w.*]+(?:, [\w.*]+)*)(?: : |$)")
TYPED_BY_SIGNATURE = ("Returns", "Yields")
BY_NAME = ("Parameters", "Attributes", "Raises")


def split(docstring: str) -> list[tuple[str, str]]:
    """Give the sections, each with its heading; what stands before the first has the heading ""."""
    found = list(SECTION.finditer(docstring))
    ends = [*(one.start() for one in found), len(docstring)]
    sections = [(one[1], docstring[one.end() : end]) for one, end in zip(found, ends[1:], strict=True)]
    return [("", docstring[: ends[0]]), *sections]


def entries(text: str) -> list[tuple[str, list[str]]]:
    """Give the name and the lines of text of each entry; what has no name has the name ""."""
    found: list[tuple[str, list[str]]] = []
    for line in text.split("\n"):
        named = ENTRY.match(line)
        if named:
            rest = line[named.end() :]
            found.append((named[1], [rest] if rest else []))
        elif found:
            found[-1][1].append(line.strip())
        else:
            found.append(("", [line.strip()]))
    return found


def below(named: list[tuple[str, list[str]]]) -> str:
    """Write entries with the text below the name."""
    lines = []
    for name, text in named:
        lines += [name or ":", *(f"    {line}" if line else "" for line in text)]
    return "\n".join(lines)


def prose(text: str) -> str:
    """Write text as Markdown: fields as a list, doctests and blocks of code in fences."""
    shown = []
    for paragraph in re.split(r"\n\n(?! )", text.strip("\n")):
        if paragraph.startswith(">>> "):
            shown.append(f"```pycon\n{paragraph}\n```")
        elif len(named := entries(paragraph)) > 1 and all(name for name, _ in named):
            shown.append("\n".join(f"- `{name}`: {' '.join(lines)}" for name, lines in named))
        elif paragraph != "::":  # what says in reStructuredText that code follows
            shown.append(re.sub(r" ?::$", ":", paragraph, flags=re.MULTILINE))
    return "\n\n".join(shown)


def for_griffe(docstring: str) -> str:
    """Rewrite one docstring."""
    shown = []
    for heading, body in split(docstring):
        if not heading:
            shown.append(prose(body))
            continue
        if heading not in (*BY_NAME, *TYPED_BY_SIGNATURE):
            shown.append(f"{heading}\n{'-' * len(heading)}\n{body.strip()}")
            continue
        text, doctest, rest = body.strip("\n").partition("\n\n>>> ")
        if heading == "Attributes":  # "weights_ : of the mean case; cases_ : of all" are two
            text = re.sub(r";\s+(?=\w+(?:, \w+)* : )", "\n", text)
        named = [("", [line.strip() for line in text.split("\n")])]
        found = entries(text) if heading in BY_NAME else named
        shown.append(f"{heading}\n{'-' * len(heading)}\n{below(found)}")
        if doctest:
            shown.append(f"Examples\n--------\n{doctest.strip()} {rest}")
    return "\n\n".join(shown)


class OwnForm(griffe.Extension):
    """Rewrites each docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = for_griffe(obj.docstring.value)
