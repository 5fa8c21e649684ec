"""A missing package is named with the extra that brings it."""

import sys
from pathlib import Path

import pytest

from expertise._optional import MissingExtraError, require


def test_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"'no_such_package'.*pip install 'expertise\[export\]'"):
        require("no_such_package", "export")
    with pytest.raises(MissingExtraError, match="no_such_package"):
        require("no_such_package.inner", "export")


def test_a_package_that_is_broken_inside_shows_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs") as raised:
        require("broken_package", "export")
    assert not isinstance(raised.value, MissingExtraError)
    assert "broken_package" not in sys.modules
