"""What holds of flags: which are known, which values they take, and what a resumed run may change."""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from expertise.youtube8m.flags import ENTRIES, SAID, SAME, FlagError, Flags, of_command

# Flags of the old help or of older versions that do not exist: what to use instead.
GONE = {"reader_type": "use --frame_features for frame-level records; video-level is the default"}


def unknown_flag(name: str, command: str) -> str:
    """Say what is wrong with a flag that a command does not read, and what may have been meant.

    >>> unknown_flag("batchsize", "train")
    'train has no flag --batchsize; the nearest is --batch_size'
    """
    if name in GONE:
        return f"--{name} does not exist: {GONE[name]}"
    if name in ENTRIES:
        return f"--{name} is not read by {command}, but by {', '.join(ENTRIES[name].commands)}"
    known = of_command(command)
    bare = name.removeprefix("no")
    nearest = difflib.get_close_matches(name, known, 1, 0.0) or difflib.get_close_matches(bare, known, 1, 0.0)
    return f"{command} has no flag --{name}; the nearest is --{nearest[0]}"


def choose(flag: str, value: str, known: Mapping[str, Any]) -> Any:
    """Give ``known[value]``; where it is not there, list what is known, the nearest first.

    Raises
    ------
    FlagError : ``value`` is not a key of ``known``.
    """
    if value in known:
        return known[value]
    nearest = difflib.get_close_matches(value, known, 1, 0.0)
    hint = f"; the nearest is {nearest[0]}" if nearest else ""
    raise FlagError(f"--{flag}={value!r} is not known; known are {', '.join(known)}{hint}")


def check(flags: Flags, command: str) -> None:
    """Check what can be checked of single flags, for one command.

    Raises
    ------
    FlagError : a required flag is missing, or a value is out of its range.
    """
    for name in of_command(command):
        entry, value = ENTRIES[name], getattr(flags, name)
        if command in entry.required and value == "":
            raise FlagError(f"--{name} is required by {command}: {entry.help}")
        if entry.choices and value not in entry.choices:
            raise FlagError(f"--{name}={value!r}: allowed are {', '.join(entry.choices)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise FlagError(f"--{name}={value}: must be a finite number")
        if isinstance(value, int) and abs(value) >= 2**62:
            raise FlagError(f"--{name}={value}: must be less than 2^62")
        if entry.minimum is not None and value is not None and not value >= entry.minimum:
            raise FlagError(f"--{name}={value}: must be at least {entry.minimum:g}")
        if entry.maximum is not None and value is not None and not value <= entry.maximum:
            raise FlagError(f"--{name}={value}: must be at most {entry.maximum:g}")


def compare(before: Mapping[str, Any], now: Flags) -> list[str]:
    """Compare the flags of an earlier run with those that are to go on with it.

    Returns
    -------
    One line for each flag that is taken with its new value.

    Raises
    ------
    FlagError : a flag that must stay the same has changed; all of them are named.
    """
    changed = {
        name: (before[name], getattr(now, name))
        for name in of_command("train")
        if name in before and before[name] != getattr(now, name)
    }
    wrong = [
        f"--{name} was {old!r}, now {new!r}"
        for name, (old, new) in changed.items()
        if ENTRIES[name].resume == SAME
    ]
    if wrong:
        raise FlagError(
            f"the run in {now.train_dir} can't go on with other flags: {'; '.join(wrong)}. "
            "Give the old values, another --train_dir, or --start_new_model to begin anew"
        )
    return [
        f"--{name} was {old!r}, now {new!r}: taken"
        for name, (old, new) in changed.items()
        if ENTRIES[name].resume == SAID
    ]
