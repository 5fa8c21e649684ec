"""From a column of a table to plain values: numbers, dates, booleans, labels; and the first wrong one."""

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
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
)
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
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
    kind = array.type
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or (types.is_dictionary(kind) and _is_text_type(kind.value_type))
    )


def _is_text_type(kind: Any) -> bool:
    types = require("pyarrow.types", "table")
    return bool(types.is_string(kind) or types.is_large_string(kind))


def texts(array: Any, missing: tuple[str, ...] = ()) -> npt.NDArray[np.object_]:
    """Give each value as text without spaces around it, None where it is missing: (n,)."""
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    if is_text(array):
        text = compute.utf8_trim_whitespace(array.cast(arrow.string()))
        small = compute.utf8_lower(text)
        gone = [*MISSING, *(marker.strip().lower() for marker in missing)]
        text = compute.if_else(compute.is_in(small, arrow.array(gone)), None, text)
    else:
        text = _plain(array).cast(arrow.string())
    return np.asarray(text.to_numpy(zero_copy_only=False), dtype=object)


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


def numbers(array: Any, missing: tuple[str, ...] = ()) -> tuple[Floats, Wrong | None]:
    """Give numbers, NaN where missing, and the first value that is none (or not finite): (n,)."""
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    if not is_text(array):
        found = np.array(array.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=float)
        infinite = np.flatnonzero(np.isinf(found))
        return found, Wrong(int(infinite[0]), str(found[infinite[0]])) if len(infinite) else None
    text = arrow.array(texts(array, missing), arrow.string())
    comma = compute.fill_null(compute.match_substring_regex(text, _COMMA), False)
    thousands = compute.fill_null(compute.match_substring_regex(text, _THOUSANDS), False)
    if compute.any(compute.and_not(comma, thousands), min_count=0).as_py():
        text = compute.replace_substring(text, ",", ".")
    fits = compute.fill_null(compute.match_substring_regex(text, _NUMBER), True)
    bad = np.flatnonzero(~fits.to_numpy(zero_copy_only=False))
    good = compute.replace_substring_regex(compute.if_else(fits, text, None), r"^\+", "")
    found = np.array(good.cast(arrow.float64()).to_numpy(zero_copy_only=False), dtype=float)
    return found, Wrong(int(bad[0]), str(text[int(bad[0])])) if len(bad) else None


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


def dates(array: Any, form: str = "", missing: tuple[str, ...] = ()) -> tuple[Floats, Wrong | None]:
    """Give seconds since 1970-01-01 UTC, NaN where missing, and the first value that is no date: (n,).

    ``form`` is how text is written, one of `DATES`.
    """
    compute, arrow = require("pyarrow.compute", "table"), require("pyarrow", "table")
    if is_text(array):
        text = arrow.array(texts(array, missing), arrow.string())
        stamps = compute.strptime(text, format=form, unit="s", error_is_null=True)
        wrong = compute.and_(compute.is_null(stamps), compute.is_valid(text))
        bad = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
        first = Wrong(int(bad[0]), str(text[int(bad[0])])) if len(bad) else None
    else:
        stamps, first = array, None
    whole = stamps.cast(arrow.timestamp("us")).cast(arrow.int64())
    return np.array(whole.cast(arrow.float64()).to_numpy(zero_copy_only=False), dtype=float) / 1e6, first
