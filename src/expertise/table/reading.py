"""Opening tables: CSV, Parquet and Feather files, also gzipped, as Arrow tables; Parquet also batch by batch.

Values of a CSV stay text here: what they mean is decided over whole columns (`kinds`), so that an error can
name the row.
"""

import codecs
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from expertise._optional import require

TEXT = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
FEATHER = (".feather", ".arrow", ".ipc")
DELIMITERS = (",", ";", "\t", "|")
BATCH = 65_536  # rows of a streamed batch


def format_of(path: str | os.PathLike[str]) -> str:
    """Give "text", "parquet" or "feather" by the name of the file.

    Raises
    ------
    ValueError : the file is not there, or its name ends in nothing known.
    """
    file = Path(path)
    if not file.is_file():
        what = "a folder" if file.is_dir() else "not there"
        raise ValueError(f"{file} is {what}; give the path of a table")
    suffixes = [suffix.lower() for suffix in file.suffixes]
    last = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    for name, known in (("text", TEXT), ("parquet", PARQUET), ("feather", FEATHER)):
        if last in known:
            return name
    raise ValueError(
        f"{file}: the name ends in {last or 'nothing'!r}; known are {', '.join(TEXT + PARQUET + FEATHER)}, "
        "each also with .gz"
    )


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, encoding: str = "utf8"
) -> Any:
    """Read a whole table as a `pyarrow.Table`; columns of a CSV are all text.

    Parameters
    ----------
    path : .csv, .tsv, .txt, .parquet, .pq, .feather, .arrow or .ipc, each also with .gz.
    columns : which columns to read; those that are not there are left to the caller.
    encoding : of a CSV.

    Raises
    ------
    ValueError : no such file, an unknown ending, a file that is not what its name says, that is empty, or
        has two columns of the same name.
    """
    kind = format_of(path)
    arrow = require("pyarrow", "table")
    try:
        if kind == "text":
            table = _read_text(path, encoding)
        elif kind == "parquet":
            table = require("pyarrow.parquet", "table").read_table(_opened(path), use_threads=False)
        else:
            table = require("pyarrow.feather", "table").read_table(_opened(path))
    except (arrow.ArrowInvalid, arrow.ArrowKeyError, UnicodeError, OSError, EOFError, zlib.error) as error:
        text = " ".join(str(error).split())
        letters = isinstance(error, UnicodeError) or "UTF8" in text
        hint = "; give its encoding, for instance --encoding=latin-1" if letters else ""
        raise ValueError(f"{path} cannot be read as {kind}: {text[:300]}{hint}{_counted(text)}") from None
    check_table(path, table.num_rows, table.column_names)
    return (
        table if columns is None else table.select([name for name in columns if name in table.column_names])
    )


def check_table(path: str | os.PathLike[str], rows: int, names: Sequence[str]) -> None:
    """Say so where a table has no columns, two of the same name, or no rows."""
    if not names:
        raise ValueError(f"{path} has no columns")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"{path} has more than one column named {twice[0]!r}; rename or remove one")
    if not rows:
        raise ValueError(f"{path} has no rows; a table needs a header and at least one row")


def _counted(text: str) -> str:
    """Say which row Arrow's complaint is about as everywhere here: from 0, without the header; or ""."""
    found = re.search(r"CSV parse error: Row #(\d+)", text)
    return f"; counted from 0, without the header, this is row {int(found[1]) - 2}" if found else ""


def _opened(path: str | os.PathLike[str]) -> Any:
    """Give what Arrow reads from: the path, or the unpacked bytes of a .gz."""
    if Path(path).suffix.lower() != ".gz":
        return str(path)
    with gzip.open(path, "rb") as file:
        return io.BytesIO(file.read())


def _read_text(path: str | os.PathLike[str], encoding: str) -> Any:
    csv = require("pyarrow.csv", "table")
    arrow = require("pyarrow", "table")
    opener: Any = gzip.open if Path(path).suffix.lower() == ".gz" else open
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ValueError(f"--encoding={encoding} is unknown; try utf8, latin-1, cp1252 or utf-16") from None
    with opener(path, "rt", encoding=encoding, newline="") as file:
        header = file.readline()
    if not header.strip():
        raise ValueError(f"{path} is empty, or begins with an empty line; a table needs a header")
    delimiter = max(DELIMITERS, key=re.sub(r'"[^"]*"', "", header).count)  # names may hold delimiters
    names = csv.open_csv(
        _opened(path),
        read_options=csv.ReadOptions(encoding=encoding, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    ).schema.names

    def read(threads: bool) -> Any:
        return csv.read_csv(
            _opened(path),
            read_options=csv.ReadOptions(encoding=encoding, use_threads=threads),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, arrow.string()), strings_can_be_null=False
            ),
        )

    try:
        table = read(threads=True)
    except arrow.ArrowInvalid:
        table = read(threads=False)  # fails again, and now Arrow knows in which row
    return table.rename_columns([name.strip() for name in names])  # "a, b" in a header names "b"


def parquet_size(path: str | os.PathLike[str]) -> tuple[int, list[str]]:
    """Give rows and names of the columns of a Parquet file, from its footer alone."""
    parquet, arrow = require("pyarrow.parquet", "table"), require("pyarrow", "table")
    try:
        with parquet.ParquetFile(path) as file:
            return int(file.metadata.num_rows), list(file.schema_arrow.names)
    except (arrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {' '.join(str(error).split())[:300]}") from None


def parquet_batches(path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[Any]:
    """Give a Parquet file in tables of at most `BATCH` rows; memory does not grow with the file."""
    parquet, arrow = require("pyarrow.parquet", "table"), require("pyarrow", "table")
    with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        for group in range(file.num_row_groups):  # one by one: asked for all, Arrow reads the file ahead
            for batch in file.iter_batches(BATCH, [group], list(columns), use_threads=False):
                yield arrow.Table.from_batches([batch])


def open_batches(
    path: str | os.PathLike[str], encoding: str = "utf8"
) -> tuple[int, list[str], Iterator[Any]]:
    """Give the number of rows, the names of the columns, and the rows in tables of at most `BATCH`.

    Raises
    ------
    ValueError : as `read_table`.
    """
    if format_of(path) == "parquet" and Path(path).suffix.lower() != ".gz":
        rows, names = parquet_size(path)
        check_table(path, rows, names)
        return rows, names, parquet_batches(path, names)
    table = read_table(path, encoding=encoding)
    starts = range(0, table.num_rows, BATCH)
    return table.num_rows, table.column_names, (table.slice(start, BATCH) for start in starts)
