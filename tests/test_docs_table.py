"""What docs/table shows: the printed lines are those of the commands, and no flag is left out."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from expertise.cli import table
from worked.running import assert_page_shows

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (ROOT / "docs" / "table" / "commands.md").read_text()


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    pytest.importorskip("skops")
    run(tmp_path, str(ROOT / "examples" / "cars.py"), "cars.csv")
    said = run(tmp_path, "-m", "expertise", "fit", "cars.csv", "--target=price", "--out=model.skops")
    assert_page_shows("../table/index.md", said, 0.02)
    said = run(tmp_path, "-m", "expertise", "explain", "model.skops", "cars.csv", "--row=5")
    assert_page_shows("../table/index.md", said, 0.05)


@pytest.mark.parametrize("command", table.COMMANDS)
def test_every_flag_stands_on_the_page_with_its_default(command: str) -> None:
    begin = COMMANDS.index(f"## expertise {command}")
    part = COMMANDS[begin : COMMANDS.find("\n## ", begin + 1)]
    parameters = inspect.signature(table.COMMANDS[command]).parameters.values()
    for parameter in parameters:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        flag = f"`--{parameter.name.replace('_', '-')}`"
        row = next((line for line in part.splitlines() if line.startswith("|") and flag in line), None)
        assert row, f"{command}: {flag} has no row"
        default = parameter.default
        if "as in predict" in row or isinstance(default, bool) or default in ("", inspect.Parameter.empty):
            continue
        assert f"| `{default}` |" in row, row


def test_every_flag_of_the_page_is_one_of_the_command_line() -> None:
    known = {
        name.replace("_", "-")
        for command in table.COMMANDS.values()
        for name in inspect.signature(command).parameters
    }
    named = set(re.findall(r"--([a-z][a-z-]*)", COMMANDS))
    assert named - known == {"no-keep-rows"}
