"""Small tables with every kind of column, and fits that are quick: fewer starts, one tree."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.feather
import pyarrow.parquet
import pytest
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from expertise.table import Request, TableModel, baselines, fit_table

N = 160


def bent(n: int = N, seed: int = 0) -> pd.DataFrame:
    """A table with two regimes, by the sign of x; numbers and categories have gaps."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    table = pd.DataFrame(
        {
            "x": x,
            "size": rng.integers(0, 50, n).astype(float),
            "colour": rng.choice(["red", "green", "blue"], n).astype(object),
            "day": pd.date_range("2024-01-01", periods=n, freq="D"),
            "open": rng.random(n) > 0.5,
        }
    )
    table.loc[rng.random(n) < 0.1, "size"] = np.nan
    table.loc[rng.random(n) < 0.1, "colour"] = None
    table["y"] = np.where(x > 0, 3 * x, -x) + 0.01 * table["size"].fillna(25) + 0.1 * rng.normal(size=n)
    return table


def write(table: pd.DataFrame, path: Path) -> Path:
    """Write a table in the format that its name says; "de.csv" has semicolons and decimal commas."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix == ".parquet":
        table.to_parquet(plain, index=False)
    elif plain.suffix == ".feather":
        pyarrow.feather.write_feather(pyarrow.Table.from_pandas(table, preserve_index=False), str(plain))
    elif plain.name.endswith("de.csv"):
        table.to_csv(plain, index=False, sep=";", decimal=",")
    else:
        table.to_csv(plain, index=False, sep="\t" if plain.suffix == ".tsv" else ",")
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def quiet(_: str) -> None:
    """Say nothing."""


def fitted(path: Path, target: str = "y", **asked: Any) -> TableModel:
    """Fit without a word; two experts unless asked otherwise."""
    return fit_table(path, Request(target, **{"experts": 2, **asked}), say=quiet)


def batches(path: Path, rows: int) -> None:
    """Write a Parquet file anew, in row groups of so many rows."""
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path, row_group_size=rows)


@contextmanager
def thin() -> Iterator[None]:
    """Fit with two starts, and a single tree for boosting: these tests are about tables, not about fits."""
    arguments = Request.arguments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Request, "arguments", lambda self, encoder: arguments(self, encoder) | {"n_init": 2})
        patch.setattr(baselines, "boosting", _one_tree)
        yield


def _one_tree(task: str, seed: int) -> tuple[str, Any]:
    kind = DecisionTreeRegressor if task == "regression" else DecisionTreeClassifier
    return "gradient boosting", kind(max_depth=3, random_state=seed)


def same_answers(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that two predictions are the same to the bit."""
    assert list(one) == list(other)
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
