"""`make demo`: the acts in order, what they need, and the act on videos itself."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"demo_{file.stem}", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load(DEMO / "run.py")


def act(folder: Path, name: str, code: str = "", needs: str = "Needs: core") -> Path:
    file = folder / name
    file.write_text(f'"""Shows {name}.\n\nMore.\n\n{needs}\n"""\n{code}\n')
    return file


def test_acts_go_by_number(tmp_path: Path) -> None:
    for name in ("50_videos.py", "9_first.py", "100_last.py", "run.py", "helper.py"):
        act(tmp_path, name, needs="Needs: youtube8m, report" if name.startswith("50") else "Needs: core")
    acts = run.find_acts(tmp_path)
    assert [one.file.name for one in acts] == ["9_first.py", "50_videos.py", "100_last.py"]
    assert [one.extras for one in acts] == [(), ("youtube8m", "report"), ()]
    assert acts[0].shows == "Shows 9_first.py."


def test_an_act_that_does_not_say_what_it_needs_is_an_error(tmp_path: Path) -> None:
    act(tmp_path, "1_a.py", needs="")
    with pytest.raises(ValueError, match=r"1_a\.py: its docstring needs a line 'Needs: core' or"):
        run.find_acts(tmp_path)


def test_all_acts_run_and_are_announced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    act(tmp_path, "1_a.py", "print('one')")
    act(tmp_path, "2_b.py", "import os; print(os.getcwd())")
    assert run.main(tmp_path) == 0
    said = capfd.readouterr().out.split("\n")
    assert said[1:3] == ["[1/2] Shows 1_a.py.", "one"]
    assert said[4:6] == ["[2/2] Shows 2_b.py.", str(DEMO.parents[1])]
    assert said[7].startswith("2 acts in ")


def test_the_first_failure_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    act(tmp_path, "1_a.py", "raise SystemExit(7)")
    act(tmp_path, "2_b.py", "print('never')")
    assert run.main(tmp_path) == 7
    captured = capfd.readouterr()
    assert "never" not in captured.out
    assert "1_a.py failed with exit code 7" in captured.err


def test_what_an_extra_brings() -> None:
    names = set(run.requirements("youtube8m"))
    assert {"torch", "safetensors", "google-crc32c"} <= names  # torch through the extra inside it
    assert "expertise" not in names
    assert set(run.requirements("report")) == {"matplotlib", "jinja2"}
    with pytest.raises(ValueError, match="expertise has no extra 'vidoes'; it has all, "):
        list(run.requirements("vidoes"))


def test_pins_are_read(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("# comment\nTorch==2.13.0+cpu\ngoogle_crc32c==1.9.0\nloose>=1\n")
    assert run.pinned(file) == {"torch": "2.13.0", "google-crc32c": "1.9.0"}
    assert run.pinned(tmp_path / "none") == {}


def test_only_what_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(run.subprocess, "call", lambda command, **_: calls.append(command) or 3)
    assert run.install(()) == 0
    monkeypatch.setattr(run.metadata, "version", lambda name: "1.0+cpu")
    monkeypatch.setattr(run, "pinned", lambda file: {"matplotlib": "1.0"})
    assert run.install(("report",)) == 0
    assert calls == []
    monkeypatch.setattr(run, "pinned", lambda file: {"matplotlib": "2.0"})
    assert run.missing(("report",), run.pinned(Path())) == ["matplotlib"]
    assert run.install(("report",)) == 3
    assert calls[0][-5:] == ["--disable-pip-version-check", "-c", "constraints.txt", "-e", ".[report]"]


def test_the_acts_that_are_here_can_be_announced() -> None:
    acts = run.find_acts(DEMO)
    assert acts
    for one in acts:
        assert len(one.shows) < 110
        for extra in one.extras:
            assert list(run.requirements(extra))
    needs_torch = ["youtube8m" in one.extras for one in acts]
    assert needs_torch == sorted(needs_torch), "acts of the core come before torch is fetched"


@pytest.mark.slow
def test_the_act_on_videos(tmp_path: Path) -> None:
    out = tmp_path / "videos"
    done = subprocess.run(
        [sys.executable, str(DEMO / "50_videos.py"), str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    gaps = {
        line.split("  ")[0]: float(line.split()[-1]) for line in done.stdout.splitlines() if " GAP " in line
    }
    assert gaps["MoeModel"] > gaps["LogisticModel"] + 0.1  # two regimes need more than one linear model
    with (out / "predictions.csv").open() as file:
        assert len(list(csv.reader(file))) == 1001
    html = (out / "page.html").read_text(encoding="utf-8")
    assert html.count("<figure") == 6
    assert html.count('<article class="card">') == 6
    assert "5,226 parameters" in html
    assert not (tmp_path / "cache" / "expertise").exists(), "all that it makes is in its folder"
