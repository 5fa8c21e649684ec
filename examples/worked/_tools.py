"""What the worked examples share: where the data are, tables in plain text, paired comparisons.

The data are read from the folder in EXPERTISE_DATA, or from ../shared/data beside the checkout.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


def data_file(name: str) -> Path:
    """Give the path of a data file ("health/dermatology.csv"); without it, say so and end."""
    here = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("EXPERTISE_DATA", here)) / name
    if not path.is_file():
        sys.exit(f"{path} is not there; set EXPERTISE_DATA to the folder of the data (see SOURCES.md there)")
    return path


def print_table(columns: Sequence[str], rows: Mapping[str, Sequence[float | str]], digits: int = 3) -> None:
    """Print a table: a name a row, numbers with so many digits, right-aligned."""
    texts = {
        name: [cell if isinstance(cell, str) else f"{cell:.{digits}f}" for cell in row]
        for name, row in rows.items()
    }
    first = max(len(name) for name in texts)
    every = [list(columns), *texts.values()]
    widths = [max(len(row[j]) for row in every if j < len(row)) for j in range(len(columns))]
    print(" " * first, *(name.rjust(width) for name, width in zip(columns, widths, strict=True)), sep="  ")
    for name, row in texts.items():
        print(
            name.ljust(first),
            *(cell.rjust(width) for cell, width in zip(row, widths, strict=False)),
            sep="  ",
        )


def paired(a: Floats, b: Floats, confidence: float = 0.95) -> tuple[float, float, float]:
    """Give the mean of a - b and its confidence interval, by Student's t over paired values (folds).

    Folds share training cases, so the interval is narrower than one over new data sets would be.
    """
    difference = np.asarray(a, float) - np.asarray(b, float)
    mean, n = float(difference.mean()), len(difference)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * difference.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def compare(name: str, other: str, a: Floats, b: Floats, *, lower_is_better: bool, digits: int = 3) -> str:
    """Say in a line who wins over paired folds: ``a`` of ``name`` against ``b`` of ``other``, (folds,)."""
    mean, low, high = paired(a, b)
    better = mean < 0 if lower_is_better else mean > 0
    sure = low > 0 or high < 0
    verdict = f"{name if better else other} wins" if sure else "no difference that these folds can show"
    return f"{name} minus {other}: {mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]: {verdict}"


def with_products(X: Floats, n: int) -> Callable[[Floats], Floats]:
    """Give what adds n products of two columns: those that vary most over X, which is standardised."""
    first, second = np.triu_indices(X.shape[1], 1)
    kept = np.argsort(-(X[:, first] * X[:, second]).std(axis=0), kind="stable")[:n]
    return lambda Z: np.hstack([Z, Z[:, first[kept]] * Z[:, second[kept]]])


def delong(y: Floats, a: Floats, b: Floats) -> tuple[float, float]:
    """Give the AUC of a minus that of b, scores of the same cases, and its variance (DeLong et al. 1988)."""

    def placements(score: Floats) -> tuple[Floats, Floats]:
        case, other = score[y == 1], score[y == 0]  # the share of the other kind on the right side of each
        right = (case[:, None] > other) + 0.5 * (case[:, None] == other)
        return right.mean(axis=1), right.mean(axis=0)

    each = [u - v for u, v in zip(placements(a), placements(b), strict=True)]
    return float(each[0].mean()), float(sum(one.var(ddof=1) / len(one) for one in each))
