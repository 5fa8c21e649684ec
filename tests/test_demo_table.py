"""The act on a table of cars: the four commands run, and the page they make is whole."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_act_runs_the_four_commands(tmp_path: Path) -> None:
    pytest.importorskip("skops")
    pytest.importorskip("matplotlib")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "examples" / "demo" / "20_table.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ ")] == [
        "fit",
        "predict",
        "explain",
        "report",
    ]
    assert "The mixture helps" in done.stdout
    assert "who decided: expert" in done.stdout
    folder = tmp_path / "demo-output" / "table"
    assert (folder / "page.html").read_text().rstrip().endswith("</html>")
    assert (folder / "predictions.csv").read_text().startswith('"id","prediction","lower","upper"')
    assert sorted(path.name for path in folder.iterdir()) == [
        "cars.csv",
        "model.skops",
        "page.html",
        "predictions.csv",
    ]
