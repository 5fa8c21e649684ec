"""What the flag table says of one flag, beside its name, type and default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COMMANDS = ("sample", "pack", "convert", "train", "eval", "infer", "export")
ROLES = ("dataset", "model", "training", "other")

# What a resumed run does with a flag that has another value than before.
SAME = "same"  # refuse: the weights would belong to no one run
SAID = "said"  # take the new value, and say so
FREE = "free"  # where and how fast, never what


class FlagError(ValueError):
    """A flag has a value that it can't have; the message says which are allowed."""


@dataclass(frozen=True)
class Entry:
    """What the table says of one flag, beside its name, type and default."""

    role: str
    commands: tuple[str, ...]
    help: str
    resume: str = FREE
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    required: tuple[str, ...] = ()
    """The commands that can't do without it."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of single commands that differ from the common one."""


def flag(default: Any, role: str, commands: str, help: str, **rest: Any) -> Any:  # noqa: A002
    rest["required"] = tuple(rest.get("required", "").split())
    entry = Entry(role=role, commands=tuple(commands.split()), help=help, **rest)
    return field(default=default, metadata={"entry": entry})
