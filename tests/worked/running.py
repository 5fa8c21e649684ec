"""Runs a worked example as a reader would, and holds what it prints against its page in docs/."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NUMBER = re.compile(r"[-+]?\d*\.\d+|[-+]?\d+")


def script_of(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import examples/worked/NAME.py, which finds its tools beside it as a script does."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "worked")
    monkeypatch.delitem(sys.modules, "_tools", raising=False)
    return importlib.import_module(name)


def run_example(name: str, data: Path, *arguments: str) -> str:
    """Run examples/worked/NAME.py on the data and give what it prints; one thread, no warnings."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "worked" / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "EXPERTISE_DATA": str(data), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def assert_page_shows(page: str, printed: str, tolerance: float) -> None:
    """Assert that docs/examples/PAGE holds every printed line: words the same, numbers within a tolerance."""
    text = (ROOT / "docs" / "examples" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    shown = [line for language, block in blocks if not language for line in block.splitlines()]
    for line in filter(str.strip, printed.splitlines()):
        words = NUMBER.sub("#", line).split()
        same = [one for one in shown if NUMBER.sub("#", one).split() == words]
        assert same, f"docs/examples/{page} has no line like: {line}"
        numbers = [float(number) for number in NUMBER.findall(line)]
        off = min(
            max((abs(a - float(b)) for a, b in zip(numbers, NUMBER.findall(one), strict=True)), default=0.0)
            for one in same
        )
        assert off <= tolerance, f"docs/examples/{page} differs by {off:g} from: {line}"
