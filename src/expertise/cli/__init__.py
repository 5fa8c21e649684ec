"""The command `expertise`: fit, predict, explain and report for tables, and the commands for videos."""

import difflib
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import expertise
from expertise._optional import MissingExtraError
from expertise.cli import table, youtube8m
from expertise.cli._shared import INTERRUPTED, PIPE_CLOSED

_KNOWN = (*table.COMMANDS, "youtube8m")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (that of the process unless given) and exit with its code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _app()(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(_explain(error, tokens), 2)
    except BrokenPipeError:  # whoever read the output (head) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush
        sys.exit(PIPE_CLOSED)
    except (ValueError, FloatingPointError, MissingExtraError, OSError) as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _app() -> App:
    app = App(
        name="expertise",
        help="Mixtures of experts: a gate looks at each case and decides which expert to trust.",
        version=expertise.__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # `main` says what has happened
    )
    for name, command in table.COMMANDS.items():
        app.command(command, name=name, help_epilogue=f"Example: {table.EXAMPLES[name]}")
    app.command(youtube8m.app())
    return app


def _explain(error: CycloptsError, tokens: Sequence[str]) -> str:
    """Say what is wrong with a command line."""
    if tokens[0] == "youtube8m":
        return youtube8m.explain(error, tokens)
    if tokens[0] in table.COMMANDS:
        return table.explain(error, tokens)
    nearest = difflib.get_close_matches(tokens[0], _KNOWN, 1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"there is no command {tokens[0]!r}{hint}; known are {', '.join(_KNOWN)}"


def _fail(message: str, code: int) -> None:
    print(f"expertise: {message}", file=sys.stderr)
    sys.exit(code)
