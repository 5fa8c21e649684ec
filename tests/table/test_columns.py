"""Columns: what the fit saw is encoded by hand, found again at predict, and missed with row and column."""

import datetime
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.table.columns import MISSING, OTHER, WEEK, YEAR, Column, Encoder
from expertise.table.kinds import Wishes, find

NAN = float("nan")
SIZE = Column("size", "number", 4.0, 0.0, 9.0, True, marks_missing=True)
COLOUR = Column("colour", "category", 0.0, 0.0, 3.0, True, ("red", "blue", OTHER, MISSING), True)
PLAIN = Column("plain", "category", 0.0, 0.0, 1.0, True, ("a", "b"))
OPEN = Column("open", "boolean", 1.0, 0.0, 1.0)
DAY = Column("day", "date", 0.0, 0.0, YEAR, waves=(WEEK,), form="%Y-%m-%d")
ALL = Encoder((SIZE, COLOUR, PLAIN, OPEN, DAY), {"id": "id-like"})


def table(**columns: Any) -> Any:
    usual = {"size": [1.0], "colour": ["red"], "plain": ["a"], "open": [True], "day": ["1970-01-01"]}
    return pa.table({name: pa.array(columns.get(name, values)) for name, values in usual.items()})


def test_features_by_hand() -> None:
    np.testing.assert_array_equal(SIZE.encode(np.array([2, NAN])), [[2, 0], [4, 1]])
    np.testing.assert_array_equal(
        COLOUR.encode(np.array([0, 1, 2, 3, NAN])), [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    )
    np.testing.assert_array_equal(OPEN.encode(np.array([0, 1, NAN])), [[0], [1], [1]])
    np.testing.assert_allclose(
        DAY.encode(np.array([0, WEEK / 4, NAN])),
        [[1970, 0, 1], [1970 + WEEK / 4 / YEAR, 1, 0], [1970, 0, 1]],
        atol=1e-12,
    )


def test_names_and_blocks_say_what_is_where() -> None:
    assert ALL.names == [
        "size",
        "size missing",
        "colour=blue",
        f"colour={OTHER}",
        f"colour={MISSING}",
        "plain=b",
        "open",
        "day: year",
        "day: sin of the week",
        "day: cos of the week",
    ]
    assert ALL.blocks == [[0, 1], [2, 3, 4], [5], [6], [7, 8, 9]]
    assert ALL.number("open") == 3
    found = ALL.encode(ALL.read(table(), source="t"))
    assert found.shape == (1, 10)


def test_values_in_words() -> None:
    assert SIZE.text(NAN) == "missing"
    assert SIZE.text(1234567.0) == "1234567"
    assert SIZE.text(20240131.5) == "20240132"
    assert SIZE.text(12345.678) == "12345.7"
    assert SIZE.text(1e15) == "1e+15"
    assert COLOUR.text(1.0) == "blue"
    assert (OPEN.text(0.0), OPEN.text(1.0)) == ("no", "yes")
    assert replace(DAY, whole=True).text(86400.0) == "1970-01-02"
    assert DAY.text(86460.0) == "1970-01-02T00:01:00"


def test_new_categories_and_missing_ones() -> None:
    assert COLOUR.read(pa.chunked_array([["blue", "pink", None]]))[0].tolist() == [1, 2, 3]
    found, wrong = PLAIN.read(pa.chunked_array([["b", None, "c"]]))
    assert wrong is not None
    assert (wrong.row, wrong.value) == (2, "c")
    np.testing.assert_array_equal(found, [1, NAN, np.inf])
    np.testing.assert_array_equal(
        ALL.read(table(plain=["c"]), source="t", new="missing")[0, 2], NAN
    )  # encoded as the reference
    marked = Encoder((Column("c", "category", 0, 0, 2, True, ("a", "b", MISSING), True),))
    assert marked.read(pa.table({"c": ["z"]}), source="t", new="missing").tolist() == [[2]]


def test_what_stands_for_a_missing_value_is_learned_from_the_rows_given() -> None:
    values = np.array([[1, 3, 0, 0, 86400], [7, 1, 1, 0, NAN], [7, 0, 1, 1, NAN]])
    again = ALL.refilled(values)
    assert [column.fill for column in again.columns] == [7, 0, 0, 0, 86400]
    assert again.left_out == ALL.left_out
    nothing = ALL.refilled(np.full((2, 5), NAN))
    assert [column.fill for column in nothing.columns] == [4, 0, 0, 1, 0]


@pytest.mark.parametrize("column", ALL.columns, ids=lambda column: column.name)
def test_as_plain_data(column: Column) -> None:
    assert Column.from_dict(column.as_dict()) == column
    listed = {
        name: list(value) if isinstance(value, tuple) else value for name, value in vars(column).items()
    }
    assert Column.from_dict(listed) == column  # as JSON gives it


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"size": ["1x"]},
            "new.csv, row 7, column 'size': '1x' is not a finite number, as this column was at the fit; rows "
            "count from 0; correct it, or use --missing=1x so that it counts as missing",
        ),
        ({"size": [np.inf]}, "row 7, column 'size': 'inf' is not a finite number"),
        ({"open": ["perhaps"]}, "row 7, column 'open': 'perhaps' is not true or false, as this column was"),
        ({"day": ["1.2.1970"]}, "row 7, column 'day': '1.2.1970' is not a date written as %Y-%m-%d, as this"),
        (
            {"plain": ["c"]},
            "row 7, column 'plain': 'c' is a category that the fit never saw; known are 'a', 'b'; correct "
            "it, or use --new-categories=missing to take such values as missing",
        ),
        ({"size": [[1.0]]}, "column 'size' holds list<item: double>, but a number at the fit; convert it"),
        ({"day": [5]}, "column 'day' holds int64, but a date at the fit; convert it"),
        ({"size": [datetime.date(2024, 1, 1)]}, "column 'size' holds date32[day], but a number at the fit"),
        ({"open": [datetime.date(2024, 1, 1)]}, "column 'open' holds date32[day], but a boolean at the fit"),
        ({"colour": [{"a": 1}]}, "column 'colour' holds struct<a: int64>, but a category at the fit"),
    ],
)
def test_a_wrong_value_is_named_with_row_and_column(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ALL.read(table(**changed), source="new.csv", first=7)


def test_many_levels_are_not_all_listed() -> None:
    many = Column("c", "category", 0, 0, 19, True, tuple(f"l{i}" for i in range(20)))
    with pytest.raises(ValueError, match=r"known are 'l0', .*'l11', \.\.\.; correct"):
        Encoder((many,)).read(pa.table({"c": ["new"]}), source="t")


def test_columns_that_are_not_there() -> None:
    short = table().drop_columns(["size", "day"])
    message = "new.csv lacks the column 'size', 'day', which the fit had; it has 'colour', 'plain', 'open'"
    with pytest.raises(ValueError, match=message):
        ALL.read(short, source="new.csv")


def test_order_and_further_columns_make_no_difference() -> None:
    plain = table()
    other = plain.select(["day", "open", "plain", "colour", "size"]).append_column("more", pa.array([3]))
    np.testing.assert_array_equal(ALL.read(plain, source="t"), ALL.read(other, source="t"))


# -- random tables: what is read is what was written, as numbers and as text

LABELS = st.sampled_from(["red", "blue", "größe, 5", 'with "quotes"', "a b"])
COLUMNS = {
    "number": st.floats(-1e9, 1e9, allow_subnormal=False),
    "category": LABELS,
    "boolean": st.booleans(),
    "date": st.datetimes().map(lambda one: one.replace(microsecond=0)),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_columns_go_there_and_back(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 12))
    columns = {
        kind: data.draw(st.lists(st.none() | values, min_size=n, max_size=n))
        for kind, values in COLUMNS.items()
    }
    columns["anchor"] = list(np.linspace(0.5, 1, n))
    arrow = {kind: pa.timestamp("us") if kind == "date" else None for kind in columns}
    typed = pa.table({kind: pa.array(values, arrow[kind]) for kind, values in columns.items()})
    text = pa.table({kind: [_written(one) for one in values] for kind, values in columns.items()})
    encoder, values = find(typed, list(columns), Wishes(), source="t")
    as_text, read = find(text, list(columns), Wishes(), source="t")
    assert [column.name for column in encoder.columns] == [column.name for column in as_text.columns]
    np.testing.assert_array_equal(values, read)
    np.testing.assert_array_equal(encoder.encode(values), as_text.encode(read))
    np.testing.assert_array_equal(values, encoder.read(typed, source="t"))
    assert np.isfinite(encoder.encode(values)).all()
    for j, column in enumerate(encoder.columns):
        for value, given_value in zip(values[:, j], columns[column.name], strict=True):
            if given_value is None:
                assert np.isnan(value) or column.text(value) == MISSING
            elif column.kind == "category":
                assert column.text(value) in (given_value, OTHER)
            elif column.kind == "date":
                assert value == (np.datetime64(given_value) - np.datetime64(0, "s")) / np.timedelta64(1, "s")
            else:
                assert value == given_value


def _written(value: Any) -> str | None:
    if value is None:
        return None
    return "yes" if value is True else "no" if value is False else str(value)
