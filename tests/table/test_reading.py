"""Files: every format gives the same table; what cannot be read says which file, why, and what to do."""

import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expertise.table import reading
from expertise.table.kinds import Wishes, find
from expertise.table.reading import read_table
from table.making import bent, write

FORMATS = ["t.csv", "t.tsv", "t.txt", "de.csv", "t.parquet", "t.pq", "t.feather", "t.arrow", "t.ipc"]


def written(path: Path, text: str, encoding: str = "utf8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("name", [*FORMATS, *(f"{name}.gz" for name in FORMATS)])
def test_every_format_holds_the_same_values(tmp_path: Path, name: str) -> None:
    stem = {".txt": ".csv", ".pq": ".parquet", ".arrow": ".feather", ".ipc": ".feather"}
    frame, kind = bent(40), Path(name.removesuffix(".gz")).suffix
    as_known = name.replace(kind, stem.get(kind, kind))
    path = write(frame, tmp_path / as_known).rename(tmp_path / name)
    table = read_table(path)
    assert table.column_names == list(frame.columns)
    encoder, values = find(table, list(frame.columns), Wishes(), source=name)
    assert [column.kind for column in encoder.columns] == [
        "number",
        "number",
        "category",
        "date",
        "boolean",
        "number",
    ]
    np.testing.assert_array_equal(values[:, 0], frame["x"])
    np.testing.assert_array_equal(values[:, 1], frame["size"])
    assert [encoder.columns[2].text(value) for value in values[:, 2]] == [
        one if isinstance(one, str) else "(missing)" for one in frame["colour"]
    ]
    np.testing.assert_array_equal(values[:, 3], frame["day"].astype("datetime64[s]").astype(int))
    np.testing.assert_array_equal(values[:, 4], frame["open"])


@pytest.mark.parametrize("view", ["write_ipc", "write_parquet"])
def test_tables_of_polars(tmp_path: Path, view: str) -> None:
    """Polars writes text as string views, categories as dictionaries of them."""
    frame = polars.from_pandas(bent(30)).with_columns(polars.col("colour").cast(polars.Categorical))
    frame = frame.with_columns(name=polars.Series([f"n{i % 3}" for i in range(30)]))
    path = tmp_path / ("t.arrow" if view == "write_ipc" else "t.parquet")
    getattr(frame, view)(path)
    encoder, _ = find(read_table(path), ["colour", "name"], Wishes(), source="t")
    assert [column.kind for column in encoder.columns] == ["category", "category"]
    assert set(encoder.columns[1].levels) == {"n0", "n1", "n2"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("\ufeffa,b\n1,2\n", ["a", "b"]),
        ("a;b\n1;2\n", ["a", "b"]),
        ("a|b\n1|2\n", ["a", "b"]),
        ("a\tb\n1\t2\n", ["a", "b"]),
        ("a,b\r\n1,2\r\n", ["a", "b"]),
        ('"a,b,c,d";y\n1;2\n', ["a,b,c,d", "y"]),
        ('"he said ""no""",größe,two words\n1,2,3\n', ['he said "no"', "größe", "two words"]),
        ("only\n1\n", ["only"]),
    ],
)
def test_headers_as_people_write_them(tmp_path: Path, text: str, names: list[str]) -> None:
    assert read_table(written(tmp_path / "t.csv", text)).column_names == names


def test_a_value_may_hold_delimiters_and_lines(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "t.csv", 'a,b\n"x, y","two\nlines"\nz,w\n'))
    assert table.to_pydict() == {"a": ["x, y", "z"], "b": ["two\nlines", "w"]}


@pytest.mark.parametrize("encoding", ["utf8", "latin-1", "cp1252", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "t.csv", "straße,b\né,1\n", encoding)
    assert read_table(path, encoding=encoding).to_pydict() == {"straße": ["é"], "b": ["1"]}


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "a,b,c\n1,2,3\n")
    assert read_table(path, ["c", "a", "not there"]).column_names == ["c", "a"]


LATIN = "a,b\n1,é\n".encode("latin-1")
DAMAGED = bytearray(gzip.compress(b"a,b\n" + b"1,2\n3,44\n" * 200, mtime=0))
DAMAGED[14:24] = b"\xff" * 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "t.csv is empty, or begins with an empty line; a table needs a header"),
        ("t.csv", b"\na,b\n1,2\n", "is empty, or begins with an empty line"),
        ("t.csv", b"a,b\n", "t.csv has no rows; a table needs a header and at least one row"),
        ("t.csv", b"a,a\n1,2\n", "has more than one column named 'a'; rename or remove one"),
        (
            "t.csv",
            b"a,b\n1,2\n3\n",
            "cannot be read as text: CSV parse error: Row #3: Expected 2 columns, got 1",
        ),
        ("t.csv", LATIN, "give its encoding, for instance --encoding=latin-1"),
        ("t.csv.gz", b"no gzip", "t.csv.gz cannot be read as text: Not a gzipped file"),
        (
            "t.csv.gz",
            gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9],
            "cannot be read as text: Compressed file ended before",
        ),
        ("t.csv.gz", bytes(DAMAGED), "t.csv.gz cannot be read as text: "),
        ("t.parquet", b"a,b\n1,2\n", "t.parquet cannot be read as parquet: "),
        ("t.feather", b"a,b\n1,2\n", "t.feather cannot be read as feather: "),
        ("t.xlsx", b"PK", "t.xlsx: the name ends in '.xlsx'; known are .csv, .tsv, .txt, .parquet, .pq, "),
        ("table", b"a\n1\n", "table: the name ends in 'nothing'; known are"),
        ("t.gz", b"a\n1\n", "t.gz: the name ends in '.gz'; known are"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(tmp_path / name)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.csv is not there; give the path of a table"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"is a folder; give the path of a table"):
        read_table(tmp_path)


def test_an_encoding_that_is_wrong_or_unknown(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "a,b\n1,é\n")
    with pytest.raises(ValueError, match=r"t\.csv cannot be read as text.*--encoding=latin-1"):
        read_table(path, encoding="ascii")
    with pytest.raises(ValueError, match=r"--encoding=utf9 is unknown; try utf8, latin-1, cp1252 or utf-16"):
        read_table(path, encoding="utf9")


def test_batches_of_parquet_give_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": np.arange(100), "b": np.arange(100) * 2.0, "c": "text"})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet", row_group_size=30)
    monkeypatch.setattr(reading, "BATCH", 20)
    found = list(reading.parquet_batches(tmp_path / "t.parquet", ["b", "a"]))
    assert [batch.num_rows for batch in found] == [20, 10, 20, 10, 20, 10, 10]
    assert found[0].column_names == ["b", "a"]
    assert pa.concat_tables(found)["a"].to_pylist() == list(range(100))
    assert reading.parquet_size(tmp_path / "t.parquet") == (100, ["a", "b", "c"])


def test_the_size_of_what_is_no_parquet(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", "no")
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read as parquet"):
        reading.parquet_size(path)
