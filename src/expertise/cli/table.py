"""The commands for tables: fit, predict, explain, report. Each is one call."""

import csv
import difflib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    UnusedCliTokensError,
)

from expertise._optional import require
from expertise.cli._shared import whole_number

EXAMPLES = {
    "fit": "expertise fit cars.csv --target=price --out=model.skops",
    "predict": "expertise predict model.skops new.csv --out=predictions.parquet",
    "explain": "expertise explain model.skops new.csv --row=3",
    "report": "expertise report model.skops --out=report.html",
}


def _flag(text: str) -> Parameter:
    return Parameter(help=text)


Table = Annotated[Path, _flag("The table: .csv, .tsv, .parquet or .feather, each also with .gz.")]
Model = Annotated[Path, _flag("What expertise fit wrote.")]
Missing = Annotated[
    str, _flag("Further marks of a missing value, separated by commas, beside NA, ? and the like.")
]
Encoding = Annotated[str, _flag("Encoding of a CSV.")]
New = Annotated[
    str, _flag("A category that the fit never saw: error, or missing (it counts as a missing value).")
]


def fit(
    data: Table,
    /,
    *,
    target: Annotated[str, _flag("The column to predict.")],
    out: Annotated[Path, _flag("Where to write the model.")] = Path("model.skops"),
    task: Annotated[str, _flag("regression, classification, or auto: by what the target holds.")] = "auto",
    experts: Annotated[str, _flag("How many experts; auto: as BIC says, from 1 to 6.")] = "auto",
    expert: Annotated[
        str,
        _flag(
            "The kind of the experts: gaussian, student_t, poisson, gamma, constant; multinomial, logistic. "
            "Several, separated by commas, make one expert of each."
        ),
    ] = "",
    gate: Annotated[str, _flag("softmax, gaussian, tree or constant.")] = "softmax",
    gate_features: Annotated[
        str, _flag("The columns that the gate sees, separated by commas; all if not given.")
    ] = "",
    weights: Annotated[str, _flag("A column of weights: a row of weight 2 counts twice.")] = "",
    groups: Annotated[
        str,
        _flag("A column of groups: their rows stay together, and share an expert if the gate sees the same."),
    ] = "",
    order: Annotated[
        str, _flag("A column of dates or numbers: the last rows by it are held out, not random ones.")
    ] = "",
    test: Annotated[float, _flag("Share of the rows that is held out; 0 holds none out.")] = 0.2,
    seed: Annotated[int, Parameter(help="Makes results repeatable.", converter=whole_number)] = 0,
    categories: Annotated[str, _flag("Columns of numbers that are names, separated by commas.")] = "",
    keep: Annotated[str, _flag("Columns to take although they look like row numbers or names of rows.")] = "",
    drop: Annotated[str, _flag("Columns to leave out, separated by commas.")] = "",
    day_first: Annotated[bool, _flag("Read 3/4/2025 as the third of April.")] = False,
    missing: Missing = "",
    encoding: Encoding = "utf8",
    stream: Annotated[
        bool, _flag("Read Parquet batch by batch, as is done anyway where it would not fit in memory.")
    ] = False,
    keep_rows: Annotated[bool, _flag("Keep up to 2,000 held-out rows in the model, for its page.")] = True,
) -> int:
    """Fit a mixture of experts to a table, and compare it with simpler models on held-out rows."""
    _need()
    from expertise.table.fitting import fit_table
    from expertise.table.kinds import Wishes
    from expertise.table.request import Request
    from expertise.table.streamed import fit_streamed, must_stream

    _suffix("out", out, ".skops")
    request = Request(
        target=target,
        task=task,  # type: ignore[arg-type]
        experts=_whole_or_auto(experts),
        expert=_names(expert),
        gate=gate,
        gate_features=_names(gate_features),
        weights=weights,
        groups=groups,
        order=order,
        test=test,
        seed=seed,
        wishes=Wishes(_names(categories), _names(keep), _names(drop), _names(missing), day_first),
        keep_rows=keep_rows,
    )
    if stream or must_stream(data):
        model = fit_streamed(data, request)
    else:
        model = fit_table(data, request, encoding=encoding)
    model.save(out)
    rows = "" if model.kept is not None else f" {data}"  # a model that keeps no rows needs a table
    print(f"wrote {out}; next: expertise report {out}{rows} --out={out.with_suffix('.html')}")
    return 0


def predict(
    model: Model,
    data: Table,
    /,
    *,
    out: Annotated[Path, _flag("Where to write: .parquet, .feather or .csv.")] = Path("predictions.parquet"),
    coverage: Annotated[float, _flag("Share of the cases that the interval is to cover.")] = 0.9,
    copy: Annotated[str, _flag("Columns of the table to write too, separated by commas: an id.")] = "",
    new_categories: New = "error",
    missing: Missing = "",
    encoding: Encoding = "utf8",
) -> int:
    """Predict every row of a table: the mean, its interval, who decides, with which weights."""
    _need()
    from expertise.table import load_model, predict_file

    rows = predict_file(
        load_model(model),
        data,
        out,
        coverage=coverage,
        copy=_names(copy),
        new=_choice("new-categories", new_categories, ("error", "missing")),
        missing=_names(missing),
        encoding=encoding,
    )
    print(f"wrote {rows:,} predictions to {out}")
    return 0


def explain_command(
    model: Model,
    data: Table,
    /,
    *,
    row: Annotated[str, _flag("Which row, counted from 0; several separated by commas.")] = "0",
    new_categories: New = "error",
    missing: Missing = "",
    encoding: Encoding = "utf8",
) -> int:
    """Say who decided about a row, with which weight, and which inputs moved the gate and the expert."""
    _need()
    from expertise.table import explain_rows, load_model

    rows = [_whole("row", one) for one in _names(row)]
    if not rows:
        raise ValueError(f"--row={row} names no row; rows count from 0, as --row=0,3")
    new = _choice("new-categories", new_categories, ("error", "missing"))
    print(explain_rows(load_model(model), data, rows, new=new, missing=_names(missing), encoding=encoding))
    return 0


def report(
    model: Annotated[Path, _flag("What expertise fit wrote, or the train_dir of a YouTube-8M run.")],
    data: Annotated[
        Path | None, _flag("Rows to report on; the held-out rows of the fit if not given.")
    ] = None,
    /,
    *,
    out: Annotated[Path, _flag("Where to write the page.")] = Path("report.html"),
    new_categories: New = "error",
    missing: Missing = "",
    encoding: Encoding = "utf8",
) -> int:
    """Write one page: what was fitted, who decides where and why, and how far to trust the numbers."""
    require("jinja2", "report")
    require("matplotlib", "report")
    _suffix("out", out, ".html")
    if model.is_dir():
        from expertise.report.runs import read_run
        from expertise.report.videos import write_video_page

        if data is not None:
            raise ValueError(f"{model} is a folder: a run needs no table, but got {data}; leave it out")
        write_video_page(out, [read_run(model)])
    else:
        _need()
        from expertise.table import load_model, write_page

        new = _choice("new-categories", new_categories, ("error", "missing"))
        write_page(load_model(model), out, data, new=new, missing=_names(missing), encoding=encoding)
    print(f"wrote {out}; open it in a browser")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "fit": fit,
    "predict": predict,
    "explain": explain_command,
    "report": report,
}


# -- reading what was given


def _need() -> None:
    require("pyarrow", "table")
    require("skops", "table")


def _names(text: str) -> tuple[str, ...]:
    """Read names separated by commas; a name that holds one stands in double quotes, as in a CSV."""
    fields = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(name.strip() for name in fields if name.strip())


def _whole(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--{flag}={text} is no whole number") from None


def _whole_or_auto(text: str) -> Any:
    return text if text == "auto" else _whole("experts", text)


def _choice(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"--{flag}={value} is unknown; known are {', '.join(allowed)}")
    return value


def _suffix(flag: str, path: Path, suffix: str) -> None:
    """Check where something is to be written, before the work."""
    if path.suffix.lower() != suffix:
        raise ValueError(f"--{flag}={path} must end in {suffix}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "it is a folder" if path.is_dir() else f"{folder} is no folder that can be written to"
        raise ValueError(f"--{flag}={path} cannot be written: {what}")


# -- saying what is wrong with a command line


def explain(error: CycloptsError, tokens: Sequence[str]) -> str:
    """Say what is wrong with a command line, with an example of a right one."""
    command = tokens[0]
    flags = {
        name.replace("_", "-"): parameter
        for name, parameter in inspect.signature(COMMANDS[command]).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    example = f"; for instance: {EXAMPLES[command]}"
    # a misspelt flag is named first, also where cyclopts first misses the flag that was meant
    given = (token.partition("=")[0] for token in tokens if token.startswith("--"))
    words = (word.lstrip("-").replace("_", "-") for word in given)
    unknown = [word for word in words if word.removeprefix("no-") not in flags]
    if unknown:
        word = unknown[0]
        nearest = difflib.get_close_matches(word, flags, 1, 0.5)
        hint = f"; the nearest is --{nearest[0]}" if nearest else ""
        return f"{command} has no flag --{word}{hint}; all are {', '.join(f'--{name}' for name in flags)}"
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or [])!r} is too much for {command}{example}"
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given twice, now as {error.token.value!r}; give it once"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        what = f"{name}=..." if name.startswith("-") else f"a {name.upper()} first"
        return f"{command} needs {what}{example}"
    if isinstance(error, CoercionError) and error.token is not None:
        word = (error.token.keyword or "").lstrip("-").replace("_", "-")
        kind: Any = get_args(flags[word].annotation)[0] if word in flags else None
        what = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "understood")
        return f"--{word}: {error.token.value!r} is not {what}{example}"
    return " ".join(str(error).split())
