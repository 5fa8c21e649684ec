"""What is said of new rows that the fit had nothing like: gaps where there were none, values out of reach."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from expertise.table import Request, TableModel, explain_rows, predict_file, reading, write_page
from expertise.table.columns import Column, Encoder
from expertise.table.remarks import Remarks, outside
from expertise.table.streamed import fit_streamed
from table.making import batches, bent, quiet, write

COLUMNS = (
    Column("a", "number", 2.0, 1.0, 3.0, True),
    Column("b", "category", 0.0, 0.0, 1.0, True, ("p", "q")),
    Column("c", "boolean", 1.0, 1.0, 1.0, True),
    Column("d", "date", 0.0, 0.0, 864000.0, True, marks_missing=True),
)
FEW = hnp.arrays(float, st.tuples(st.integers(1, 12), st.just(4)), elements=st.sampled_from([0.0, 1.0, 4.0]))


def test_only_numbers_and_dates_have_a_reach() -> None:
    found = np.array([[1.0, 0, 0, 864000], [3.0, 1, 1, 0], [0.99, 0, 1, 864001], [np.nan, 0, np.nan, -1]])
    assert outside(COLUMNS, found).tolist() == [
        [False, False, False, False],
        [False, False, False, False],
        [True, False, False, True],
        [False, False, False, True],
    ]


@given(FEW)
def test_batches_are_told_of_as_all_rows_at_once(found: Any) -> None:
    found[0, 0] = np.nan
    whole, parts = Remarks(Encoder(COLUMNS)), Remarks(Encoder(COLUMNS))
    whole.see(found)
    for row in found:
        parts.see(row[None])
    assert parts.lines() == whole.lines()
    assert whole.lines()[0].startswith(f"a is missing in 1 of {len(found)} rows")
    far = np.flatnonzero((found[:, 0] == 0) | (found[:, 0] == 4))
    expected = [
        f"a is outside 1 to 3, all that the fit had, in {len(far)} of {len(found)} rows, first in row {row} "
        f"({found[row, 0]:g}): predictions are extrapolated there"
        for row in far[:1]
    ]
    assert [line for line in whole.lines() if line.startswith("a is outside")] == expected


def test_predict_says_where_it_extrapolates(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    far = frame.copy()
    far.loc[[70, 150], "x"] = [9.5, -8.0]
    far.loc[3, "day"] = pd.Timestamp("2031-02-03")
    said: list[str] = []
    path = write(far, tmp_path / "t.parquet")
    batches(path, 40)
    predict_file(model, path, tmp_path / "p.csv", say=said.append)
    x, day = (model.encoder.columns[model.encoder.number(name)] for name in ("x", "day"))
    assert said == [
        f"x is outside {x.low:.6g} to {x.high:.6g}, all that the fit had, in 2 of 160 rows, first in row 70 "
        "(9.5): predictions are extrapolated there",
        f"day is outside 2024-01-01 to {day.text(day.high)}, all that the fit had, in 1 of 160 rows, first "
        "in row 3 (2031-02-03): predictions are extrapolated there",
    ]


def test_explain_says_it_of_the_row(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    far = frame.copy()
    far.loc[70, "x"] = 9.5
    x = model.encoder.columns[model.encoder.number("x")]
    one, other = explain_rows(model, write(far, tmp_path / "t.csv"), [70, 71]).split("\n\n")
    assert one.splitlines()[2] == f"extrapolated: x is 9.5 (the fit had {x.low:.6g} to {x.high:.6g})"
    assert "extrapolated" not in other


@pytest.mark.slow
def test_the_page_says_it_of_its_table(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    far = frame.copy()
    far.loc[70, "x"] = 9.5
    page = write_page(model, tmp_path / "page.html", write(far, tmp_path / "new.csv"))
    assert "in 1 of 160 rows, first in row 70 (9.5): predictions are extrapolated there." in page.read_text()
    page = write_page(model, tmp_path / "page.html", write(frame, tmp_path / "new.csv"))
    assert "extrapolated" not in page.read_text()


def test_the_ranges_of_a_stream_are_those_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH", 70)
    monkeypatch.setattr("expertise.table.streamed.SAMPLE", 60)
    frame = bent(400)
    path = write(frame, tmp_path / "t.parquet")
    model = fit_streamed(path, Request("y", experts=1), say=quiet)
    x = model.encoder.columns[model.encoder.number("x")]
    assert (x.low, x.high) == (frame["x"].min(), frame["x"].max())
    said: list[str] = []
    predict_file(model, path, tmp_path / "p.csv", say=said.append)
    assert not [line for line in said if "outside" in line]
