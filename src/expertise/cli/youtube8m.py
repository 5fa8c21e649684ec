"""The commands of `expertise youtube8m`. Each is one call; the flags come from the flag table."""

import difflib
import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from expertise._optional import require
from expertise.cli._shared import INTERRUPTED, whole_number
from expertise.youtube8m import flag_rules
from expertise.youtube8m import flags as table
from expertise.youtube8m.flags import Flags

_KINDS = {bool: "True or False", int: "a whole number", int | None: "a whole number", float: "a number"}

# command: (what it does, an example)
_COMMANDS = {
    "sample": (
        "Write a small data set of the same format, from scikit-learn's handwritten digits.",
        "expertise youtube8m sample digits",
    ),
    "pack": (
        "Make records of your own embeddings: .npz arrays or .parquet tables with an id and labels.",
        "expertise youtube8m pack --input_data_pattern='embeddings/*.parquet' --output_dir=packed",
    ),
    "convert": (
        "Convert records between TFRecord, .npz and Parquet.",
        "expertise youtube8m convert --input_data_pattern='yt8m/train*.tfrecord' --output_dir=parquet "
        "--output_format=parquet",
    ),
    "train": (
        "Train a model, or go on with the run in train_dir.",
        "expertise youtube8m train --train_data_pattern='yt8m/train*.tfrecord' --train_dir=run "
        "--feature_names=mean_rgb,mean_audio --feature_sizes=1024,128 --model=MoeModel",
    ),
    "eval": (
        "Evaluate the newest checkpoint: Hit@1, PERR, mAP, GAP, and every class.",
        "expertise youtube8m eval --eval_data_pattern='yt8m/validate*.tfrecord' --train_dir=run --run_once",
    ),
    "infer": (
        "Write the best classes of every video.",
        "expertise youtube8m infer --input_data_pattern='yt8m/test*.tfrecord' --train_dir=run "
        "--output_file=predictions.csv",
    ),
    "export": (
        "Write the classifier for other programs: torch.export and ONNX.",
        "expertise youtube8m export --train_dir=run",
    ),
}

_GROUPS = {
    role: Group(f"{role.capitalize()} flags", sort_key=number) for number, role in enumerate(table.ROLES)
}


def app() -> App:
    """Make `expertise youtube8m` and its commands."""
    found = App(
        name="youtube8m",
        help="Train, evaluate and infer mixtures of experts on labelled videos.",
        suppress_keyboard_interrupt=False,
    )
    for name in _COMMANDS:
        found.command(_command(name), name=name, help=_COMMANDS[name][0], help_epilogue=_epilogue(name))
    return found


def _command(name: str) -> Callable[..., int]:
    """Make the function that cyclopts reads: a keyword for each flag of the table that the command reads."""

    # No name here may be that of a parameter below: cyclopts would take its type from here, and no help.
    def command(*positional: Any, **values: Any) -> int:
        defaults = {flag: table.default(flag, name) for flag in table.of_command(name)}
        return _RUN[name](*positional, Flags(**(defaults | values)))

    parameters = [_parameter(flag, name) for flag in table.of_command(name)]
    if name == "sample":
        folder = inspect.Parameter(
            "folder",
            inspect.Parameter.POSITIONAL_ONLY,
            annotation=Annotated[Path, Parameter(help="The folder to make; it must not exist, or be empty.")],
        )
        parameters = [folder, *parameters]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _epilogue(name: str) -> str:
    return f"Example: {_COMMANDS[name][1]}"


def _parameter(flag: str, command: str) -> inspect.Parameter:
    entry, default = table.ENTRIES[flag], table.default(flag, command)
    text = entry.help + (f" One of {', '.join(entry.choices)}." if entry.choices else "")
    required = command in entry.required
    described = Parameter(
        name=(f"--{flag}",),
        negative=(f"--no{flag}",) if table.TYPES[flag] is bool else (),
        help=text,
        group=_GROUPS[entry.role],
        converter=whole_number if table.TYPES[flag] in (int, int | None) else None,
        show_default=(lambda value: value if value != "" else '""') if not required else False,
        required=False,
    )
    return inspect.Parameter(
        flag,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[table.TYPES[flag], described],
    )


def _sample(folder: Path, flags: Flags) -> int:
    from expertise.youtube8m.sample import write_sample

    flag_rules.check(flags, "sample")
    for key, value in write_sample(folder, seed=flags.seed).items():
        print(f"{key}: {value}")
    return 0


def _pack(flags: Flags) -> int:
    from expertise.youtube8m.pack import pack

    print(pack(flags))
    return 0


def _convert(flags: Flags) -> int:
    from expertise.youtube8m.convert import convert
    from expertise.youtube8m.videos import FeatureSpec

    flag_rules.check(flags, "convert")
    done = convert(
        flags.input_data_pattern,
        flags.output_dir,
        flags.output_format,
        FeatureSpec.parse(flags.feature_names, flags.feature_sizes),
        flags.num_classes,
        skip_corrupt=flags.skip_corrupt_records,
    )
    print(done)
    return 0


def _load_torch() -> None:
    """Load torch, with huge pages for large arrays: a step makes some, and 4 KiB at a time that is slow."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    require("torch", "youtube8m")


def _train(flags: Flags) -> int:
    _load_torch()
    from expertise.youtube8m.train import train

    return 0 if train(flags).finished else INTERRUPTED


def _call(module: str, function: str) -> Callable[[Flags], int]:
    def run(flags: Flags) -> int:
        _load_torch()
        getattr(importlib.import_module(f"expertise.youtube8m.{module}"), function)(flags)
        return 0

    return run


_RUN: dict[str, Callable[..., int]] = {
    "sample": _sample,
    "pack": _pack,
    "convert": _convert,
    "train": _train,
    "eval": _call("evaluate", "evaluate"),
    "infer": _call("infer", "infer"),
    "export": _call("export", "export"),
}


def explain(error: CycloptsError, tokens: Sequence[str]) -> str:
    """Say what is wrong with a command line, in the words of the flag table."""
    command = next((token for token in tokens if token in _COMMANDS), "")
    if not command:
        nearest = difflib.get_close_matches(tokens[1], _COMMANDS, 1, 0.0)
        known = ", ".join(_COMMANDS)
        return f"youtube8m has no command {tokens[1]!r}; the nearest is {nearest[0]}, all are {known}"
    if isinstance(error, UnknownOptionError):
        # Where a positional argument is still missing, the whole word is the value of its token.
        word = error.token.keyword or error.token.value
        return flag_rules.unknown_flag(word.partition("=")[0].lstrip("-").replace("-", "_"), command)
    if isinstance(error, UnusedCliTokensError):
        unused = error.unused_tokens or []
        before = tokens[list(tokens).index(unused[0]) - 1].lstrip("-")
        hint = f"; did you mean --{before}={unused[0]}?" if before in table.ENTRIES else ""
        return f"{' '.join(unused)!r} is not a flag{hint}"
    return _explain_value(error, command)


def _explain_value(error: CycloptsError, command: str) -> str:
    """Say what is wrong with what is given, or not given, for a flag that there is."""
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given twice, now as {error.token.value!r}; give it once"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        if name == "FOLDER":
            return f"{command} needs the FOLDER to make; for instance: {_COMMANDS[command][1]}"
        return f"{name} has no value; give one as {name}=VALUE"
    if isinstance(error, CoercionError) and error.token is not None and error.token.keyword:
        kind = _KINDS.get(table.TYPES[error.token.keyword.lstrip("-").replace("-", "_")])
        if kind:
            return f"{error.token.keyword}: {error.token.value!r} is not {kind}"
    return " ".join(str(error).split())
