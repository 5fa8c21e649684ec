"""Kinds: what the columns of a table are taken for, what is left out and why."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from expertise.table.columns import DAY, MISSING, OTHER, WEEK, YEAR, Encoder
from expertise.table.kinds import FEWEST, MOST_LEVELS, Wishes, find

RNG = np.random.default_rng(0)


def found(columns: dict[str, Any], **wishes: tuple[str, ...]) -> tuple[Encoder, Any]:
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    return find(table, table.column_names, Wishes(**wishes), source="t.csv")


def of(values: Any, **wishes: tuple[str, ...]) -> Any:
    """The one column c of a table that has another one, too; or why it is left out."""
    values = list(values)
    encoder, _ = found({"c": values, "z": RNG.normal(size=len(values))}, **wishes)
    return encoder.left_out.get("c") or encoder.columns[0]


def test_kinds_of_text_and_of_types() -> None:
    encoder, _ = found(
        {
            "text numbers": ["1", "2.5", "NA"],
            "numbers": [1, 2, 5],
            "text booleans": ["yes", "no", "?"],
            "booleans": [True, False, None],
            "text dates": ["01.02.2024", "28.02.2024", ""],
            "dates": pd.to_datetime(["2024-01-01", "2024-01-02", None]),
            "days": pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04"])).dt.date,
            "labels": ["a", "b", "a"],
            "mixed": ["1", "b", "2"],
            "codes": pd.Categorical([3, 4, 3]),
        }
    )
    assert {column.name: (column.kind, column.form) for column in encoder.columns} == {
        "text numbers": ("number", ""),
        "numbers": ("number", ""),
        "text booleans": ("boolean", ""),
        "booleans": ("boolean", ""),
        "text dates": ("date", "%d.%m.%Y"),
        "dates": ("date", ""),
        "days": ("date", ""),
        "labels": ("category", ""),
        "mixed": ("category", ""),
        "codes": ("category", ""),
    }


def test_decimal_commas_are_remembered() -> None:
    assert of(["1,5", "2,25", "3,125"]).form == ","
    assert of(["1.5", "2.25", "3.125"]).form == ""


def test_what_stands_for_a_missing_value() -> None:
    column = of([1.0, None, 5.0, 100.0])
    assert (column.fill, column.low, column.high, column.marks_missing, column.whole) == (
        5,
        1,
        100,
        True,
        True,
    )
    assert of([1.5, 2.0]).marks_missing is False
    assert of([True, True, False, None]).fill == 1
    assert of(["b", "b", "a", None]).levels == ("b", "a", MISSING)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None, None, None], "empty"),
        (["", "NA", "?"], "empty"),
        ([2, 2, 2], "constant"),
        (["a", "a", "a"], "constant"),
        ([True, True, True], "constant"),
        (list(range(7, 37)), "id-like (a different whole number in each row; --keep=c takes it)"),
        ([f"name {i}" for i in range(40)], "id-like (40 different values in 40 rows; --keep=c takes it)"),
    ],
)
def test_columns_of_no_use_are_left_out(values: list[Any], reason: str) -> None:
    assert of(values) == reason


def test_constant_with_gaps_tells_something() -> None:
    assert of([2, None, 2]).names() == ["c", "c missing"]
    assert of(["a", None, "a"]).levels == ("a", MISSING)


@pytest.mark.parametrize("name", ["id", "patient_id", "ID", "row", "Unnamed: 0", "key"])
def test_numbers_called_an_id_are_id_like_also_with_gaps_between_them(name: str) -> None:
    numbers = (RNG.permutation(1000)[:30] * 3).tolist()
    z = RNG.normal(size=30)
    assert "id-like" in found({name: numbers, "z": z})[0].left_out[name]
    assert found({"weight": numbers, "z": z})[0].left_out == {}
    assert found({"paid": numbers, "z": z})[0].left_out == {}
    assert found({name: numbers, "z": z}, keep=(name,))[0].left_out == {}
    assert found({name: [1.5, *numbers[1:]], "z": z})[0].left_out == {}


def test_few_rows_are_not_called_ids() -> None:
    assert of(range(10)).kind == "number"


def test_wishes() -> None:
    assert of([1, 2, 1], categories=("c",)).levels == ("1", "2")
    assert of([f"name {i}" for i in range(40)], keep=("c",)).kind == "category"
    assert of([1, 2, 4], drop=("c",)) == "dropped, as --drop says"
    assert of(["1", "2", "unknown"], missing=("unknown",)).kind == "number"


def test_levels_are_most_frequent_first_and_rare_ones_are_taken_together() -> None:
    column = of(["b"] * 9 + ["a"] * 9 + ["c"] * 10 + ["x"] * (FEWEST - 1) + ["y"])
    assert column.levels == ("c", "a", "b", OTHER)
    assert of(["a"] * 9 + ["b"]).levels == ("a", "b")  # one rare level keeps its name
    many = of([f"n{i:02}" for i in range(MOST_LEVELS + 5) for _ in range(FEWEST + i)])
    assert len(many.levels) == MOST_LEVELS + 1
    assert many.levels[0] == f"n{MOST_LEVELS + 4:02}"
    assert many.levels[-1] == OTHER


@pytest.mark.parametrize(
    ("start", "end", "waves"),
    [
        ("2024-01-01", "2024-01-03", ()),
        ("2024-01-01", "2024-02-01", (WEEK,)),
        ("2024-01-01", "2025-01-01", (YEAR, WEEK)),
    ],
)
def test_dates_vary_with_the_periods_that_they_cover(start: str, end: str, waves: tuple[float, ...]) -> None:
    assert of(pd.date_range(start, end)).waves == waves


def test_times_of_day() -> None:
    assert of(pd.date_range("2024-01-01", periods=200, freq="7h")).waves == (WEEK, DAY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [*map(str, range(29)), "12o"],
            "t.csv, row 29, column 'c': '12o' is not a number, but 29 of 30 values are; rows count from 0; "
            "correct it, or use --missing=12o so that it counts as missing, or --categories=c",
        ),
        ([1.0, float("inf")], "t.csv, row 1, column 'c': inf is not finite; correct it"),
        (
            [[1], [2]],
            "t.csv, column 'c' holds list<item: int64>; known are numbers, text, booleans and dates",
        ),
    ],
)
def test_wrong_columns(values: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        of(values)


def test_a_table_without_inputs_of_use() -> None:
    message = "t.csv has no column of inputs that is of use: a is constant; b is empty"
    with pytest.raises(ValueError, match=message):
        found({"a": [1, 1], "b": [None, None]})
    with pytest.raises(ValueError, match="of use: there are none"):
        find(pa.table({"y": [1, 2]}), [], Wishes(), source="t.csv")
