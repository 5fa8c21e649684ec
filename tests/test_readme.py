"""The examples of the README run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def environment(folder: Path) -> dict[str, str]:
    bin_folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    table, videos = (block for block in blocks("") if re.search("^expertise (fit|youtube8m)", block, re.M))
    said = run(["bash", "-e", "-c", table], tmp_path)
    assert "The mixture helps: RMSE" in said
    assert "who decided: expert" in said
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 1201
    assert "</html>" in (tmp_path / "page.html").read_text()
    run(["bash", "-e", "-c", videos], tmp_path)
    assert (tmp_path / "predictions.csv").read_text().startswith("VideoId,LabelConfidencePairs\n")
    assert (tmp_path / "run" / "exported" / "model.onnx").is_file()
    assert "MoeModel" in (tmp_path / "run.html").read_text()


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    examples = blocks("python")
    assert len(examples) == 2
    for example in examples:
        assert run([sys.executable, "-c", example], tmp_path)


def test_the_readme_begins_with_what_it_is_and_the_two_commands() -> None:
    assert (
        README.index("gate")
        < README.index("make demo")
        < README.index("make test")
        < README.index("youtube8m train")
    )


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)) & {
        "demo",
        "test",
        "test-all",
        "bench",
        "docs",
    }:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_of_the_readme_leads_to_a_page() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", README):
        assert (ROOT / target).is_file(), target
