"""Values: numbers, booleans, dates and labels as people and programs write them, and the first wrong one."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from expertise.table import values
from expertise.table.values import Wrong

NAN = float("nan")


def column(*items: Any, kind: Any = None) -> Any:
    return pa.chunked_array([pa.array(items, kind)])


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (("1", "2.5", "-3", "+4", "1e3", ".5", "5.", " 6 "), [1, 2.5, -3, 4, 1000, 0.5, 5, 6]),
        (("1,5", "2,25", "-3"), [1.5, 2.25, -3]),  # decimal commas
        (("1,500", "2,5"), [1.5, 2.5]),  # one of them tells for all
        (("1", "", "NA", "n/a", "NaN", "null", "None", "?", "-", ".", None), [1] + [NAN] * 10),
    ],
)
def test_numbers_of_text(items: tuple[str, ...], expected: list[float]) -> None:
    found, wrong = values.numbers(column(*items))
    assert wrong is None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bad", ["1.2.3", "12o", "inf", "1_000", "0x10", "1 000", "--1", "1e", "1,234,567"])
def test_the_first_value_that_is_no_number(bad: str) -> None:
    found, wrong = values.numbers(column("1", bad, "also bad"))
    assert wrong == Wrong(1, bad)
    assert np.isnan(found[1])


def test_thousands_are_no_decimals() -> None:
    """1,500 alone may be 1500 or 1.5: it is neither."""
    assert values.numbers(column("1,500", "2,000"))[1] == Wrong(0, "1,500")


def test_what_a_column_was_tells_what_a_row_is() -> None:
    """One row of decimal commas cannot say what 1,500 is; the fit can."""
    found, wrong = values.numbers(column("1,500"), commas=True)
    assert wrong is None
    assert found.tolist() == [1.5]
    assert values.numbers(column("2,5"), commas=False)[1] == Wrong(0, "2,5")


def test_a_wrong_number_is_quoted_as_it_was_written() -> None:
    assert values.numbers(column("1,5", "2,5x"))[1] == Wrong(1, "2,5x")


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 2), pa.int64()],
)
def test_numbers_of_every_type(kind: Any) -> None:
    items = [np.float16(1), None, np.float16(3)] if kind == pa.float16() else [1, None, 3]
    if pa.types.is_decimal(kind):
        items = [Decimal(1), None, Decimal(3)]
    found, wrong = values.numbers(column(*items, kind=kind))
    assert wrong is None
    np.testing.assert_array_equal(found, [1, NAN, 3])


def test_infinity_is_wrong_and_nan_is_missing() -> None:
    found, wrong = values.numbers(column(1.0, NAN, None, float("-inf")))
    assert wrong == Wrong(3, "-inf")
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, False])


def test_further_marks_of_a_missing_value() -> None:
    found, wrong = values.numbers(column("1", " -999 ", "Unknown"), ("-999", "unknown"))
    assert wrong is None
    np.testing.assert_array_equal(found, [1, NAN, NAN])


def test_booleans() -> None:
    words = ("TRUE", "no", "T", "f", "Yes", "N", "1", "0", "NA", None)
    found, wrong = values.booleans(column(*words))
    assert wrong is None
    np.testing.assert_array_equal(found, [1, 0, 1, 0, 1, 0, 1, 0, NAN, NAN])
    assert values.booleans(column("yes", "maybe"))[1] == Wrong(1, "maybe")
    np.testing.assert_array_equal(values.booleans(column(True, None, False))[0], [1, NAN, 0])
    np.testing.assert_array_equal(values.booleans(column(1, None, 0))[0], [1, NAN, 0])
    assert values.booleans(column(1, 2))[1] == Wrong(1, "2")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2024-02-29", "%Y-%m-%d"),
        ("2024-02-29 00:00:00", "%Y-%m-%d %H:%M:%S"),
        ("2024-02-29T00:00:00", "%Y-%m-%dT%H:%M:%S"),
        ("2024-02-29T00:00:00Z", "%Y-%m-%dT%H:%M:%SZ"),
        ("2024-02-29 00:00", "%Y-%m-%d %H:%M"),
        ("2024-02-29 00:00:00.000000000", "%Y-%m-%d %H:%M:%S"),
        ("2024/02/29", "%Y/%m/%d"),
        ("29.02.2024", "%d.%m.%Y"),
        ("02/29/2024", "%m/%d/%Y"),
        ("29/02/2024", "%d/%m/%Y"),
        ("2024-02-29 02:00:00+02:00", "%Y-%m-%d %H:%M:%S%z"),
        ("2024-02-28T19:00:00.5-0500", "%Y-%m-%dT%H:%M:%S%z"),
        ("29.02.2024 00:00", "%d.%m.%Y %H:%M"),
        ("02/29/2024 00:00", "%m/%d/%Y %H:%M"),
        ("29/02/2024 00:00", "%d/%m/%Y %H:%M"),
    ],
)
def test_dates_of_text(text: str, form: str) -> None:
    expected = datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC).timestamp()
    assert form in values.DATES
    found, wrong = values.dates(column(text, None, "?"), form)
    assert wrong is None
    np.testing.assert_array_equal(found, [expected, NAN, NAN])
    if form.startswith(
        "%Y"
    ):  # where the fit saw dates and not text, each way that begins with the year will do
        np.testing.assert_array_equal(values.dates(column(text))[0], [expected])


def test_the_first_value_that_is_no_date() -> None:
    assert values.dates(column("2024-01-01", "2024-13-01"), "%Y-%m-%d")[1] == Wrong(1, "2024-13-01")
    assert values.dates(column("2024-01-01", "01/02/2024"))[1] == Wrong(1, "01/02/2024")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_dates_of_every_type(unit: str, zone: str | None) -> None:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    found, wrong = values.dates(column(1_700_000_000 * scale, None, kind=pa.timestamp(unit, zone)))
    assert wrong is None
    np.testing.assert_array_equal(found, [1_700_000_000, NAN])


def test_days_and_nanoseconds() -> None:
    assert values.dates(column(datetime.date(1970, 1, 3)))[0].tolist() == [2 * 86400]
    assert values.dates(column(1_500_000_001, kind=pa.timestamp("ns")))[0].tolist() == [1.5]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (column("a ", " b", "NA", None), ["a", "b", None, None]),
        (column(1, 0, None), ["1", "0", None]),
        (column(1.0, 0.0, NAN, None), ["1", "0", None, None]),  # whole numbers with gaps
        (column(1.5, 2.0), ["1.5", "2"]),
        (column(True, False), ["true", "false"]),
        (column("a", None, kind=pa.large_string()), ["a", None]),
        (column("a", None, kind=pa.string_view()), ["a", None]),
        (column("a", None, "a").dictionary_encode(), ["a", None, "a"]),
        (column(7, None, 7).dictionary_encode(), ["7", None, "7"]),
        (column(None, None), [None, None]),
    ],
)
def test_labels(array: Any, expected: list[str | None]) -> None:
    assert values.texts(array).tolist() == expected


def test_a_batch_writes_a_label_as_the_whole_column_does() -> None:
    """A slice may hold whole numbers only; its labels must not change for that."""
    whole = column(1.0, 2.5, 3.0)
    assert [values.texts(whole.slice(i, 1))[0] for i in range(3)] == values.texts(whole).tolist()


@pytest.mark.parametrize(
    ("array", "kinds"),
    [
        (column("a"), "number boolean date category"),
        (column(None), "number boolean date category"),
        (column(1), "number boolean category"),
        (column(True), "number boolean category"),
        (column(1.5), "number boolean category"),
        (column(datetime.date(2024, 1, 1)), "date category"),
        (column(1).dictionary_encode(), "number boolean category"),
        (column([1]), ""),
        (column({"a": 1}), ""),
        (column(b"bytes"), ""),
        (column(datetime.time(1)), ""),
    ],
)
def test_what_a_type_can_hold(array: Any, kinds: str) -> None:
    found = [kind for kind in ("number", "boolean", "date", "category") if values.can_hold(array, kind)]
    assert found == kinds.split()
