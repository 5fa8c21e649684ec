"""Run the acts of the demonstration in order: every NN_name.py beside this file.

An act's docstring says in its first line what it shows, and in a line "Needs: core" or "Needs: youtube8m,
report" which extras of expertise it needs. They are installed before the first act that needs them. Only the
standard library is used here.
"""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Act(NamedTuple):
    """One act: its file, what it shows, and the extras that it needs."""

    file: Path
    shows: str
    extras: tuple[str, ...]


def find_acts(folder: Path) -> list[Act]:
    """Find the acts of a folder, in the order of their numbers."""
    files = [file for file in folder.glob("*.py") if re.match(r"\d+_", file.name)]
    return [
        read_act(file) for file in sorted(files, key=lambda file: (int(file.name.split("_")[0]), file.name))
    ]


def read_act(file: Path) -> Act:
    """Read what an act shows and needs from its docstring.

    Raises
    ------
    ValueError : the docstring is missing, or has no line "Needs: ...".
    """
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    needs = re.search(r"^Needs: *(.+)$", text, re.MULTILINE)
    if not needs:
        raise ValueError(f"{file}: its docstring needs a line 'Needs: core' or 'Needs: EXTRA, EXTRA'")
    extras = tuple(name.strip() for name in needs[1].rstrip(".").split(",") if name.strip() != "core")
    return Act(file, text.splitlines()[0], extras)


def requirements(extra: str, package: str = "expertise") -> Iterator[str]:
    """Give the names of the packages that an extra brings, those of extras inside it too."""
    lines = metadata.requires(package) or []
    known = metadata.metadata(package).get_all("Provides-Extra") or []
    if extra not in known:
        raise ValueError(f"{package} has no extra {extra!r}; it has {', '.join(sorted(known))}")
    for line in lines:
        if not re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", line):
            continue
        inside = re.match(rf"{package}\[([^]]+)\]", line)
        if inside:
            for name in inside[1].split(","):
                yield from requirements(name.strip(), package)
        else:
            yield re.split(r"[^\w.-]", line, maxsplit=1)[0]


def pinned(constraints: Path) -> dict[str, str]:
    """Read the versions of constraints.txt, by name."""
    lines = constraints.read_text(encoding="utf-8").splitlines() if constraints.is_file() else []
    found = (re.match(r"([\w.-]+)==([^\s;+]+)", line) for line in lines)
    return {_plain(pin[1]): pin[2] for pin in found if pin}


def missing(extras: tuple[str, ...], pins: dict[str, str]) -> list[str]:
    """List the packages of these extras that are not installed, or not in the version that was tested."""
    return [name for extra in extras for name in requirements(extra) if not _there(name, pins)]


def _there(name: str, pins: dict[str, str]) -> bool:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return version.split("+")[0] == pins.get(_plain(name), version.split("+")[0])


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def install(extras: tuple[str, ...]) -> int:
    """Install what these extras lack, if anything; give pip's exit code."""
    lacking = missing(extras, pinned(ROOT / "constraints.txt"))
    if not lacking:
        return 0
    print(f"installing {', '.join(lacking)}: once only, may take some minutes", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return subprocess.call([*command, "-c", "constraints.txt", "-e", f".[{','.join(extras)}]"], cwd=ROOT)


def main(folder: Path = HERE) -> int:
    """Run all acts; stop at the first that fails and give its exit code."""
    acts = find_acts(folder)
    computing = 0.0
    for number, act in enumerate(acts, 1):
        print(f"\n[{number}/{len(acts)}] {act.shows}", flush=True)
        failed = install(act.extras)
        if failed:
            print(f"the packages for {act.file.name} could not be installed", file=sys.stderr)
            return failed
        start = time.monotonic()
        failed = subprocess.call([sys.executable, str(act.file)], cwd=ROOT)
        computing += time.monotonic() - start
        if failed:
            print(f"{act.file.name} failed with exit code {failed}", file=sys.stderr)
            return failed
    print(f"\n{len(acts)} act{'s' if len(acts) != 1 else ''} in {computing:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
