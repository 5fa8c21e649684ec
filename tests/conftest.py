"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _real_folder(path: Path) -> Path:
    if not path.is_dir():
        reason = f"the real data are not here: {path} (set EXPERTISE_DATA to their folder)"
        if os.environ.get("EXPERTISE_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; skips visibly where it is missing, fails under EXPERTISE_REQUIRE_DATA=1."""
    return _real_folder(Path(os.environ.get("EXPERTISE_DATA", ROOT.parent / "shared" / "data")).resolve())


@pytest.fixture(scope="session")
def reference_dir(data_dir: Path) -> Path:
    """The folder of reference values, beside the data."""
    return _real_folder(data_dir.parent / "reference")
