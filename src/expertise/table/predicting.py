"""From a model and a table of new rows to a file of predictions, batch by batch."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from expertise._files import atomic_file
from expertise._optional import require
from expertise._progress import progress
from expertise.table import reading, values
from expertise.table.model import TableModel
from expertise.table.remarks import Remarks

FORMATS = (".parquet", ".feather", ".csv")


def predict_file(
    model: TableModel,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    coverage: float = 0.9,
    copy: Sequence[str] = (),
    new: str = "error",
    missing: tuple[str, ...] = (),
    encoding: str = "utf8",
    say: Callable[[str], None] = print,
) -> int:
    """Write the predictions for every row of a table, in its order; give how many there are.

    Parameters
    ----------
    path, encoding : of the table, see `read_table`. Parquet is read batch by batch.
    out : .parquet, .feather or .csv; written beside and renamed, so it is whole or not there.
    coverage : of the interval of a regression.
    copy : columns of the table that are written too, before the predictions.
    new : what to do with a category that the fit never saw: "error" or "missing".
    missing : further marks of a missing value.
    say : where the lines go that tell what was filled in, and what lies outside the range of the fit.

    Raises
    ------
    ValueError : another kind of file; a column that is not there; a wrong value, with row and column.
    """
    target = Path(out)
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"--out={out} must end in one of {', '.join(FORMATS)}")
    source = Path(path).name
    total, names, batches = reading.open_batches(path, encoding)
    for name in copy:
        if name not in names:
            raise ValueError(
                f"--copy={name}: {source} has no such column; it has {', '.join(map(repr, names))}"
            )
    done, remarks = 0, Remarks(model.encoder)
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_file(target))
        meter = stack.enter_context(progress("predict", total, "rows"))
        writer = None
        for batch in batches:
            read = model.encoder.read(batch, source=source, missing=missing, new=new, first=done)
            remarks.see(read)
            table = _table(batch, copy, model.answer(model.encoder.encode(read), coverage))
            if writer is None:
                _check_copies(table, copy, target)
                writer = stack.enter_context(_Writer(temporary, target.suffix.lower(), table.schema))
            writer.write(table)
            done += batch.num_rows
            meter.advance(batch.num_rows)
        if writer is not None:
            writer.close()
    for line in remarks.lines():
        say(line)
    return done


def _check_copies(table: Any, copy: Sequence[str], out: Path) -> None:
    nested = require("pyarrow.types", "table").is_nested
    for name in copy if out.suffix.lower() == ".csv" else ():
        if nested(table[name].type):
            raise ValueError(
                f"--copy={name} holds {table[name].type}, which a CSV cannot; write .parquet or .feather"
            )


def _table(batch: Any, copy: Sequence[str], found: dict[str, Any]) -> Any:
    arrow = require("pyarrow", "table")
    # Feather holds one dictionary a column, and batches may have different ones
    columns = {name: values.decoded(batch[name]) for name in copy}
    clash = sorted(set(columns) & set(found))
    if clash:
        raise ValueError(f"--copy={clash[0]} has the name of a column of predictions; rename it")
    columns |= {
        name: arrow.array(answer.tolist() if answer.dtype == object else answer)
        for name, answer in found.items()
    }
    return arrow.table(columns)


class _Writer:
    """Writes tables one after the other to a file of any of the formats."""

    def __init__(self, path: Path, suffix: str, schema: Any) -> None:
        if suffix == ".parquet":
            self._file: Any = require("pyarrow.parquet", "table").ParquetWriter(path, schema)
        elif suffix == ".csv":
            self._file = require("pyarrow.csv", "table").CSVWriter(path, schema)
        else:
            self._file = require("pyarrow.ipc", "table").new_file(str(path), schema)
        self._open = True

    def write(self, table: Any) -> None:
        self._file.write_table(table)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._file.close()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
