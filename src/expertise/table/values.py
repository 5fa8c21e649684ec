"""From a column of a table to plain values: numbers, dates, booleans, labels; and the first wrong one."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise._optional import require

Floats = npt.NDArray[np.float64]

# what people write for a value that is not there; compared in lower case
MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "#n/a", "-", ".", "missing")
TRUE = ("true", "yes", "t", "y")
FALSE = ("false", "no", "f", "n")
DATES = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S%z",  # the offset from UTC, as +02:00
    "%Y-%m-%dT%H:%M:%S%z",
    "%Y/%m/%d",
    "%Y-%m",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y",
    "%d/%m/%Y %H:%M",
)
MONTH_FIRST = "%m/%d"
DAY_FIRST = tuple(sorted(DATES, key=lambda form: form.startswith(MONTH_FIRST)))  # those come last
EXAMPLES = ("2024-01-31", "2024-01-31 23:59", "2024-01", "31.01.2024", "01/31/2024")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
# a number with what Arrow does not read: a currency, commas between thousands, a unit or percent
_DRESSED = re.compile(r"[+-]?[$€£¥]? ?([+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?) ?(%|[^\W\d_]{1,3}|[$€£¥])?")
LARGEST = 1e30  # of a number: sums of squares of larger ones overflow in a fit
_FRACTION = r"(:\d\d)\.\d+"  # of a second
_COMMA = r"^[+-]?\d+,\d+$"  # decimal commas; 1,500 alone may be a thousand and a half, or 1.5
_THOUSANDS = r"^[+-]?\d{1,3},\d{3}$"


@dataclass(frozen=True)
class Wrong:
    """A value that is not what its column holds: which row of the column, and what stands there."""

    row: int
    value: str


def is_text(array: Any) -> bool:
    """Whether a column holds text."""
    types = require("pyarrow.types", "table")
    kind = array.type.value_type if types.is_dictionary(array.type) else array.type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def can_hold(array: Any, kind: str) -> bool:
    """Whether a column of this type can hold values of a kind at all; text may hold any."""
    types = require("pyarrow.types", "table")
    found = array.type.value_type if types.is_dictionary(array.type) else array.type
    if is_text(array) or types.is_null(found):
        return True
    moment = bool(types.is_date(found) or types.is_timestamp(found))
    number = bool(types.is_integer(found) or types.is_floating(found) or types.is_decimal(found))
    plain = number or bool(types.is_boolean(found))
    return {"number": plain, "boolean": plain, "date": moment, "category": plain or moment}[kind]


def texts(array: Any, missing: tuple[str, ...] = ()) -> npt.NDArray[np.object_]:
    """Give each value as text without spaces around it, None where it is missing: (n,)."""
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    if is_text(array):
        if require("pyarrow.types", "table").is_dictionary(array.type):  # Arrow cannot take string views
            array = array.cast(arrow.dictionary(array.type.index_type, arrow.string()))
        text = compute.utf8_trim_whitespace(array.cast(arrow.string()))
        small = compute.utf8_lower(text)
        gone = [*MISSING, *(marker.strip().lower() for marker in missing)]
        text = compute.if_else(compute.is_in(small, arrow.array(gone)), None, text)
    else:
        text = _plain(decoded(array)).cast(arrow.string())
    return np.asarray(text.to_numpy(zero_copy_only=False), dtype=object)


def decoded(array: Any) -> Any:
    """Give a column whose values stand in a dictionary as plain values; any other as it is."""
    types = require("pyarrow.types", "table")
    return array.cast(array.type.value_type) if types.is_dictionary(array.type) else array


def _plain(array: Any) -> Any:
    """Whole numbers that stand as floats (a column with gaps) are written without a point."""
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    types = require("pyarrow.types", "table")
    if types.is_floating(array.type):
        array = compute.if_else(compute.is_nan(array), None, array)
        finite = compute.all(compute.is_finite(array), min_count=0).as_py()
        if finite and compute.all(compute.equal(compute.round(array), array), min_count=0).as_py():
            return array.cast(arrow.int64(), safe=False)
    return array


def decimal_commas(array: Any, missing: tuple[str, ...] = ()) -> bool:
    """Whether numbers written as text have decimal commas: some have one that parts no thousands."""
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    text = arrow.array(texts(array, missing), arrow.string())
    comma = compute.match_substring_regex(text, _COMMA)
    thousands = compute.match_substring_regex(text, _THOUSANDS)
    return bool(compute.any(compute.and_not(comma, thousands), min_count=0).as_py())


def numbers(
    array: Any, missing: tuple[str, ...] = (), *, commas: bool | None = None
) -> tuple[Floats, Wrong | None]:
    """Give numbers, NaN where missing, and the first value that is none (or not finite): (n,).

    ``commas`` says whether text has decimal commas; None looks at the column, which a few rows cannot tell.
    """
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    if not is_text(array):
        plain = decoded(array).cast(arrow.float64(), safe=False)
        found = np.array(plain.to_numpy(zero_copy_only=False), dtype=float)
        infinite = np.flatnonzero(np.isinf(found))
        return found, Wrong(int(infinite[0]), str(found[infinite[0]])) if len(infinite) else None
    text = arrow.array(texts(array, missing), arrow.string())
    original = text
    if decimal_commas(array, missing) if commas is None else commas:
        text = compute.replace_substring(text, ",", ".")
    fits = compute.fill_null(compute.match_substring_regex(text, _NUMBER), True)
    bad = np.flatnonzero(~fits.to_numpy(zero_copy_only=False))
    good = compute.replace_substring_regex(compute.if_else(fits, text, None), r"^\+", "")
    found = np.array(good.cast(arrow.float64()).to_numpy(zero_copy_only=False), dtype=float)
    return found, Wrong(int(bad[0]), str(original[int(bad[0])])) if len(bad) else None


def booleans(array: Any, missing: tuple[str, ...] = ()) -> tuple[Floats, Wrong | None]:
    """Give 1 for true and 0 for false, NaN where missing, and the first value that is neither: (n,)."""
    types, arrow = require("pyarrow.types", "table"), require("pyarrow", "table")
    if types.is_boolean(array.type):
        return np.array(array.cast(arrow.float64()).to_numpy(zero_copy_only=False), dtype=float), None
    words = dict.fromkeys((*TRUE, "1"), 1.0) | dict.fromkeys((*FALSE, "0"), 0.0)
    text = texts(array, missing)
    found = np.array([np.nan if one is None else words.get(one.lower(), np.inf) for one in text], dtype=float)
    bad = np.flatnonzero(np.isinf(found))
    return found, Wrong(int(bad[0]), str(text[bad[0]])) if len(bad) else None


def plain_number(text: str) -> str:
    """Give the number that a dressed one seems to mean, as it must be written; "" where there is none.

    >>> plain_number("$1,234.50"), plain_number("12 %"), plain_number("3,400 km"), plain_number("B12")
    ('1234.50', '12', '3400', '')
    """
    found = _DRESSED.fullmatch(text.strip())
    if found is None:
        return ""
    sign = "-" if text.strip().startswith("-") and not found[1].startswith("-") else ""
    return sign + found[1].replace(",", "")


def hint_of(text: str) -> str:
    """Say how to write a number that is not understood, for the end of a complaint; or ""."""
    plain = plain_number(text)
    return f"; where {text!r} is a number, write {plain}" if plain else ""


def too_large(x: Floats) -> Wrong | None:
    """Give the first number that is too large to fit."""
    bad = np.flatnonzero(np.abs(np.nan_to_num(x)) > LARGEST)
    return Wrong(int(bad[0]), f"{x[bad[0]]:g}") if len(bad) else None


def dates(array: Any, form: str = "", missing: tuple[str, ...] = ()) -> tuple[Floats, Wrong | None]:
    """Give seconds since 1970-01-01 UTC, NaN where missing, and the first value that is no date: (n,).

    ``form`` is how text is written, one of `DATES`; "" takes each of those that begin with the year.
    Fractions of a second of text do not count.
    """
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    if is_text(array):
        text = arrow.array(texts(array, missing), arrow.string())
        whole = compute.replace_substring_regex(text, _FRACTION, r"\1")
        forms = (form,) if form else (one for one in DATES if one.startswith("%Y"))
        found = (compute.strptime(whole, format=one, unit="s", error_is_null=True) for one in forms)
        stamps = compute.coalesce(*(one.cast(arrow.timestamp("s")) for one in found))
        wrong = compute.and_(compute.is_null(stamps), compute.is_valid(text))
        bad = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
        first = Wrong(int(bad[0]), str(text[int(bad[0])])) if len(bad) else None
    else:
        stamps, first = decoded(array), None
    micro = stamps.cast(arrow.timestamp("us"), safe=False).cast(arrow.int64())
    plain = micro.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(plain / 1e6, dtype=float), first
