"""A training run as plain data, read from the files that training and evaluation leave in its folder."""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG_KINDS = ("train", "eval")
# moments that were counted, videos that were stored: beside the weights, but no parameters
_NOT_LEARNED = ("running_mean", "running_variance", ".steps", ".keys_NU", ".labels_NS", "memory.count")
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class Run:
    """What a run did and reached.

    Parameters
    ----------
    name : as the page calls it.
    parameters : number of trained values; None where unknown.
    log : the records of log.jsonl, in order of steps: ``kind`` ("train" or "eval"), ``step``, ``loss``, ...
    evaluation : the last evaluation: ``loss``, ``gap``, ``map``, ``perr``, ``hit_at_1``, ``num_videos`` and
        ``classes``, a list of ``name``, ``positives``, ``average_precision``. Empty where there is none.
    """

    name: str
    parameters: int | None
    log: tuple[dict[str, Any], ...] = ()
    evaluation: dict[str, Any] | None = None

    @property
    def steps(self) -> int | None:
        """Number of training steps; None where the log is empty."""
        return max((int(record["step"]) for record in self.log), default=None)

    def series(self, kind: str, figure: str) -> tuple[list[float], list[float]]:
        """Steps and values of one figure ("loss", "gap", ...) in the records of one kind.

        >>> log = ({"kind": "eval", "step": 10, "gap": 0.25}, {"kind": "eval", "step": 20, "gap": 0.5})
        >>> Run("A", 3, log).series("eval", "gap")
        ([10.0, 20.0], [0.25, 0.5])
        """
        records = [one for one in self.log if one["kind"] == kind and one.get(figure) is not None]
        return [float(one["step"]) for one in records], [float(one[figure]) for one in records]

    def metric(self, figure: str) -> float:
        """A figure of the evaluation; NaN where it is missing."""
        value = (self.evaluation or {}).get(figure)
        return math.nan if value is None else float(value)

    @property
    def classes(self) -> list[dict[str, Any]]:
        """The evaluation by class; empty where there is none."""
        return list((self.evaluation or {}).get("classes", []))


def read_run(train_dir: str | os.PathLike[str], name: str = "") -> Run:
    """Read what a run has left in its folder: log.jsonl, and the newest evaluation and export where they are.

    Parameters
    ----------
    train_dir : the folder of the run.
    name : as the page shall call it; the name of its model unless given.

    Raises
    ------
    ValueError
        The folder holds no run, or one of its files can't be read; the message names file and line.
    """
    folder = Path(train_dir)
    log = folder / "log.jsonl"
    if not log.is_file():
        raise ValueError(f"train_dir={folder} holds no log.jsonl; give the folder of a training run")
    name = name or str(_json_file(folder / "model_flags.json").get("model", folder.name))
    evaluations = _by_step(folder / "evaluation", r"step_(\d+)\.json")
    exports = _by_step(folder / "export", r"step_(\d+)")
    return Run(
        name,
        _count_parameters(exports[max(exports)] / "model.safetensors") if exports else None,
        _read_log(log),
        _json_file(evaluations[max(evaluations)]) if evaluations else None,
    )


def _by_step(folder: Path, pattern: str) -> dict[int, Path]:
    names = ((re.fullmatch(pattern, path.name), path) for path in folder.glob("*"))
    return {int(found[1]): path for found, path in names if found}


def _read_log(path: Path) -> tuple[dict[str, Any], ...]:
    records = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith("\n"):
            break  # the run goes on, and is just writing this line
        where = f"{path}, line {number}"
        record = _json(line, where)
        if record.get("kind") not in LOG_KINDS:
            raise ValueError(f"{where}: kind is {record.get('kind')!r}; it must be one of {LOG_KINDS}")
        if type(record.get("step")) is not int:
            raise ValueError(f"{where}: step is {record.get('step')!r}; it must be a whole number")
        records.append(record)
    return tuple(records)


def _json_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path} is not there; give the folder of a training run")
    return _json(path.read_text(encoding="utf-8"), str(path))


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} holds a {type(value).__name__}; it must hold an object")
    return value


def _count_parameters(path: Path) -> int:
    """Count what was learned in a safetensors file by its header: 8 bytes of length, then shapes as JSON."""
    if not path.is_file():
        raise ValueError(f"{path} is not there: the export is not whole")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(_HEADER_LIMIT, path.stat().st_size):
            raise ValueError(f"{path} is not a safetensors file: its header would have {size:,} bytes")
        header = _json(file.read(size).decode("utf-8", "replace"), f"the header of {path}")
    return sum(
        math.prod(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and not name.endswith(_NOT_LEARNED)
    )
