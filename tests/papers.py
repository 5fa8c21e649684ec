"""Runs of the scripts in examples/papers, for the tests: what one prints, and its table."""

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

PAPERS = Path(__file__).resolve().parent.parent / "examples" / "papers"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"papers_{name}", PAPERS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def said(name: str, data: str = "/there is no such folder") -> str:
    """Run a script with --quick, and give what it printed."""
    done = subprocess.run(
        [sys.executable, str(PAPERS / f"{name}.py"), "--quick"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "EXPERTISE_DATA": data},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def table(text: str) -> dict[str, list[float]]:
    """Give the numbers of every row by its label; a dash is NaN."""
    found = {}
    for line in text.splitlines():
        label, *cells = re.split(r"\s{2,}", line.strip())
        numbers = [cell.replace(",", "").replace("–", "nan") for cell in cells]
        numbers = [cell for cell in numbers if re.fullmatch(r"nan|-?\d+(\.\d+)?(e-?\d+)?", cell)]
        if numbers:
            assert label not in found, f"two rows are called {label!r}"
            found[label] = [float(number) for number in numbers]
    return found
