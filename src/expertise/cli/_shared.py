"""What the commands share: exit codes, and reading whole numbers."""

from collections.abc import Sequence
from typing import Any

from cyclopts import Token

INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended
PIPE_CLOSED = 141  # and of one whose reader has gone


def whole_number(kind: Any, tokens: Sequence[Token]) -> int | None:
    """Read a whole number; 1.5 is none, which cyclopts would round."""
    text = tokens[0].value
    if text == "None":
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
