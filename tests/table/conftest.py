"""Fixtures of the tests of tables: quick fits, one model that many tests look at."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from expertise.table import TableModel
from table.making import bent, fitted, thin, write


@pytest.fixture(autouse=True, scope="module")
def _thin() -> Iterator[None]:
    with thin():
        yield


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return bent()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table as a Parquet file."""
    return write(bent(), tmp_path_factory.mktemp("table") / "bent.parquet")


@pytest.fixture(scope="module")
def model(file: Path) -> TableModel:
    """Two experts for the table; tests only look at it."""
    return fitted(file)
