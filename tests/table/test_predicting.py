"""Files of predictions: batches give what all rows at once give; an error leaves nothing behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from expertise.table import TableModel, predict_file, reading
from table.making import batches, bent, fitted, same_answers, write


def read(path: Path) -> dict[str, Any]:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
    else:
        table = pyarrow.feather.read_table(path) if path.suffix == ".feather" else pyarrow.csv.read_csv(path)
    return {name: np.asarray(table[name].to_pylist()) for name in table.column_names}


@pytest.mark.parametrize("source", ["t.parquet", "t.csv", "t.feather", "t.csv.gz", "t.parquet.gz"])
@pytest.mark.parametrize("out", ["p.parquet", "p.feather", "p.csv"])
def test_batches_give_what_all_rows_at_once_give(
    model: TableModel,
    frame: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    out: str,
) -> None:
    monkeypatch.setattr(reading, "BATCH", 37)
    path = write(frame, tmp_path / source)
    assert predict_file(model, path, tmp_path / out) == len(frame)
    same_answers(model.predict(frame), read(tmp_path / out))
    assert {one.name for one in tmp_path.iterdir()} == {source, out}


def test_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 20)
    frame = bent(90).assign(y=lambda one: np.where(one["x"] + one["open"] > 0, "größer", "b, c"))
    path = write(frame, tmp_path / "t.parquet")
    model = fitted(path)
    for out in ("p.parquet", "p.csv"):
        predict_file(model, path, tmp_path / out)
        same_answers(model.predict(frame), read(tmp_path / out))


def test_one_row_of_decimal_commas_is_read_as_the_fit_read_them(tmp_path: Path) -> None:
    """1,234 alone could be a thousand; the column was one of decimal commas."""
    frame = bent(80)[["x", "y"]].round(3)
    model = fitted(write(frame, tmp_path / "de.csv"))
    (tmp_path / "one.csv").write_text('x\n"1,234"\n')
    predict_file(model, tmp_path / "one.csv", tmp_path / "p.parquet")
    expected = model.predict(pd.DataFrame({"x": [1.234]}))
    same_answers(expected, read(tmp_path / "p.parquet"))


def test_columns_can_be_copied(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = write(frame.assign(id=np.arange(len(frame)) + 1000), tmp_path / "t.parquet")
    predict_file(model, path, tmp_path / "p.parquet", copy=("id", "colour"))
    found = read(tmp_path / "p.parquet")
    assert list(found)[:3] == ["id", "colour", "prediction"]
    assert found["id"].tolist() == list(range(1000, 1000 + len(frame)))
    with pytest.raises(ValueError, match=r"--copy=idd: t\.parquet has no such column; it has 'x', 'size'"):
        predict_file(model, path, tmp_path / "p.parquet", copy=("idd",))
    path = write(frame.assign(prediction=1), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="--copy=prediction has the name of a column of predictions"):
        predict_file(model, path, tmp_path / "q.parquet", copy=("prediction",))
    assert not (tmp_path / "q.parquet").exists()


def test_coverage_and_new_categories(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = write(frame.assign(colour="violet"), tmp_path / "t.parquet")
    predict_file(model, path, tmp_path / "p.parquet", coverage=0.5, new="missing")
    same_answers(model.predict(frame.assign(colour=None), coverage=0.5), read(tmp_path / "p.parquet"))


@pytest.mark.parametrize("source", ["t.parquet", "t.csv"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "violet"}, "row 130, column 'colour': 'violet' is a category that the fit never saw"),
        ({"x": "wide"}, "row 130, column 'x': 'wide' is not a finite number, as this column was at the fit"),
        ({"day": "soon"}, "row 130, column 'day': 'soon' is not a date, as this column was at the fit"),
        (
            {"open": "ajar"},
            "row 130, column 'open': 'ajar' is not true or false, as this column was at the fit",
        ),
    ],
)
def test_a_wrong_row_is_named_and_leaves_nothing_behind(
    model: TableModel,
    frame: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    change: dict[str, str],
    message: str,
) -> None:
    """The row is in the fourth batch: three have been written when it is met."""
    monkeypatch.setattr(reading, "BATCH", 40)
    name, value = next(iter(change.items()))
    wrong = frame.assign(**{name: frame[name].astype(object).where(frame[name].notna(), None)})
    wrong[name] = wrong[name].map(lambda one: None if one is None else str(one))
    wrong.loc[130, name] = value
    path = write(wrong, tmp_path / source)
    out = tmp_path / "p.parquet"
    out.write_text("the old one")
    with pytest.raises(ValueError, match=f"{source}, {message}"):
        predict_file(model, path, out)
    assert out.read_text() == "the old one"
    assert {one.name for one in tmp_path.iterdir()} == {source, "p.parquet"}


@pytest.mark.parametrize("out", ["p.parquet", "p.feather", "p.csv"])
def test_ctrl_c_leaves_nothing_behind(
    model: TableModel, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.setattr(reading, "BATCH", 40)
    calls = []
    answer = TableModel.answer

    def interrupted(self: TableModel, *given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(self, *given, **options)

    monkeypatch.setattr(TableModel, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_file(model, file, tmp_path / out)
    assert list(tmp_path.iterdir()) == []


def test_tables_that_cannot_be_predicted(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    with pytest.raises(ValueError, match=r"--out=p\.xlsx must end in one of \.parquet, \.feather, \.csv"):
        predict_file(model, tmp_path / "t.csv", "p.xlsx")
    with pytest.raises(ValueError, match=r"t\.csv is not there"):
        predict_file(model, tmp_path / "t.csv", out)
    path = write(frame.drop(columns=["size", "open"]), tmp_path / "t.csv")
    with pytest.raises(
        ValueError, match=r"t\.csv lacks the column 'size', 'open', which the fit had; it has 'x'"
    ):
        predict_file(model, path, out)
    path = write(frame.iloc[:0], tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"none\.parquet has no rows"):
        predict_file(model, path, out)
    table = pa.Table.from_pandas(frame)
    twice = pa.Table.from_arrays([*table.columns, table["x"]], names=[*table.column_names, "x"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="has more than one column named 'x'"):
        predict_file(model, tmp_path / "twice.parquet", out)
    (tmp_path / "half.parquet").write_bytes(write(frame, tmp_path / "w.parquet").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"half\.parquet cannot be read as parquet"):
        predict_file(model, tmp_path / "half.parquet", out)
    assert not out.exists()


def test_dictionaries_that_differ_from_batch_to_batch(
    model: TableModel, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH", 50)
    path = write(frame.assign(colour=frame["colour"].astype("category")), tmp_path / "t.parquet")
    batches(path, 30)
    predict_file(model, path, tmp_path / "p.csv", copy=("colour",))
    found = read(tmp_path / "p.csv")
    same_answers(model.predict(frame), {name: found[name] for name in found if name != "colour"})


def test_what_was_filled_is_said(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    """Size had gaps at the fit, so a feature marks them; x had none, so they are filled, and this is said."""
    gaps = frame.copy()
    gaps.loc[[3, 70, 71], "x"] = np.nan
    gaps.loc[4, "size"] = np.nan
    said: list[str] = []
    predict_file(model, write(gaps, tmp_path / "t.csv"), tmp_path / "p.csv", say=said.append)
    (x,) = (column for column in model.encoder.columns if column.name == "x")
    assert said == [
        f"x is missing in 3 of {len(frame)} rows, and never was at the fit: {x.text(x.fill)}, the usual "
        "value, stands for it"
    ]
    usual = frame.copy()
    usual.loc[[3, 70, 71], "x"] = x.fill
    usual.loc[4, "size"] = np.nan
    same_answers(model.predict(usual), read(tmp_path / "p.csv"))
    said.clear()
    predict_file(model, write(frame, tmp_path / "u.csv"), tmp_path / "p.csv", say=said.append)
    assert said == []
