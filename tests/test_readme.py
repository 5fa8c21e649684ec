"""The examples of the README run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.mark.slow
def test_the_examples_run_in_order(tmp_path: Path) -> None:
    commands = next(block for block in blocks("") if block.startswith("expertise youtube8m sample digits"))
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "predictions.csv").read_text().startswith("VideoId,LabelConfidencePairs\n")
    assert (tmp_path / "run" / "exported" / "model.onnx").is_file()
    examples = blocks("python")
    assert len(examples) == 5
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", example],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_the_readme_begins_with_what_it_is_and_the_two_commands() -> None:
    assert (
        README.index("gate")
        < README.index("make demo")
        < README.index("make test")
        < README.index("youtube8m train")
    )


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)) & {"demo", "test", "test-all", "bench"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
