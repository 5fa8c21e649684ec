"""Runs of several processes for the tests; as a script, what one of these processes does.

The script reads runs from a file and makes them one after the other, as starting a process takes seconds.
What became of them is written to a file of each rank: "finished", "interrupted" or the error.
"""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expertise.youtube8m import flags as table
from expertise.youtube8m.flags import Flags

SCRIPT = Path(__file__)
Process = subprocess.Popen[bytes]


def arguments(flags: Flags) -> list[str]:
    """The flags as a command line."""
    given = {
        name: getattr(flags, name)
        for name in table.of_command("train")
        if getattr(flags, name) != table.default(name, "train")
    }
    return [f"--{name}={value}" for name, value in given.items()]


def start(python: Sequence[str], world: int, folder: Path, **environment: str) -> list[Process]:
    """Start Python so many times, as torchrun would; what they print goes to folder/output_RANK.txt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
        with (folder / f"output_{rank}.txt").open("ab") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *python], env={**os.environ, **own}, stdout=output, stderr=output
                )
            )
    return processes


def command(flags: Flags) -> list[str]:
    """What trains with these flags, after `python`."""
    return ["-m", "expertise", "youtube8m", "train", *arguments(flags)]


def said(folder: Path, rank: int) -> str:
    """What a process has printed."""
    return (folder / f"output_{rank}.txt").read_text()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return when the condition holds; AssertionError when it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def make_runs(
    runs: Mapping[str, Flags], world: int, folder: Path, other: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, str]]:
    """Make the runs by so many processes; ``other``: flags that all but the first are given otherwise.

    Returns
    -------
    For each rank what became of every run.
    """
    values = {
        name: {"flags": dataclasses.asdict(flags), "other": (other or {}).get(name, {})}
        for name, flags in runs.items()
    }
    (folder / "runs.json").write_text(json.dumps(values))
    processes = start([str(SCRIPT), str(folder)], world, folder)
    try:
        end = time.monotonic() + 300.0
        while any(process.poll() is None for process in processes):
            time.sleep(0.05)
            assert time.monotonic() < end, said(folder, 0)
            for rank, process in enumerate(processes):
                assert not process.returncode, said(folder, rank)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [json.loads((folder / f"outcome_{rank}.json").read_text()) for rank in range(world)]


def _main(folder: Path) -> None:
    from expertise.youtube8m.train import train

    rank = int(os.environ["RANK"])
    outcomes = {}
    for name, run in json.loads((folder / "runs.json").read_text()).items():
        flags = Flags(**(run["flags"] | (run["other"] if rank else {})))
        try:
            outcomes[name] = "finished" if train(flags).finished else "interrupted"
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the test sees it
            outcomes[name] = f"{type(error).__name__}: {error}"
    (folder / f"outcome_{rank}.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
