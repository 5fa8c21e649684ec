"""What a run tells while it goes on: log.jsonl, TensorBoard scalars, the note on the progress bar."""

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import torch
from torch import Tensor, nn

from expertise._optional import require
from expertise._progress import Meter
from expertise.youtube8m.step import Lesson

LOG_STEPS = 10  # steps between two records of training
_SCALARS = (
    "loss",
    "regularization",
    "learning_rate",
    "hit_at_1",
    "perr",
    "map",
    "gap",
    "examples_per_second",
)
_TITLES = {"loss": "loss", "hit_at_1": "Hit@1", "gap": "GAP"}  # in the note; of segments others
_SEGMENT_TITLES = {"loss": "loss", "map": "segment mAP"}


class RunLog:
    """Writes the records of a run, each one line of train_dir/log.jsonl and a point in TensorBoard.

    Parameters
    ----------
    train_dir : the folder of the run.
    step, log_bytes : where the run goes on. What a killed run wrote after its last checkpoint is cut off, so
        that no step stands there twice.
    silent : write nothing: of several processes, one writes.
    """

    def __init__(self, train_dir: Path, step: int, log_bytes: int, *, silent: bool = False) -> None:
        self._train_dir, self._first_step, self._log_bytes = train_dir, step, log_bytes
        self._silent = silent
        self._since = (time.monotonic(), 0)

    def __enter__(self) -> Self:
        if self._silent:
            return self
        path = self._train_dir / "log.jsonl"
        path.touch()
        os.truncate(path, min(self._log_bytes, path.stat().st_size))
        self._file: TextIO = path.open("a", encoding="utf-8")
        tensorboard = require("torch.utils.tensorboard", "youtube8m")
        self._board = tensorboard.SummaryWriter(str(self._train_dir), purge_step=self._first_step + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._silent:
            self._file.close()
            self._board.close()

    def train(self, record: dict[str, Any], meter: Meter) -> None:
        """Write a record of training; its main figures become the bar's note."""
        now, examples = time.monotonic(), record["examples"]
        before, examples_before = self._since
        if examples_before:
            record |= {
                "examples_per_second": round((examples - examples_before) / max(now - before, 1e-9), 1)
            }
        self._since = (now, examples)
        self._write({"kind": "train", **record}, "train")
        rate = f"{record['examples_per_second']:,.0f} examples/s" if "examples_per_second" in record else ""
        meter.advance(0, note=f"{_figures(record)} {rate}".strip())

    def evaluation(self, record: dict[str, Any], meter: Meter) -> None:
        """Write a record of an evaluation; it also gets a line of its own.

        It says which figure decides what the best checkpoint is: GAP; of segments, which have none, mAP.
        """
        self._write({"kind": "eval", "decides": "gap" if "gap" in record else "map", **record}, "eval")
        meter.say(f"step {record['step']} evaluated: {_figures(record)}")
        self._since = (time.monotonic(), 0)

    def size(self) -> int:
        """Give the length of log.jsonl in bytes, all records on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def _write(self, record: dict[str, Any], group: str) -> None:
        if self._silent:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name in _SCALARS:
            if name in record:
                self._board.add_scalar(f"{group}/{name}", record[name], record["step"])


def _figures(record: dict[str, Any]) -> str:
    titles = _TITLES if "gap" in record else _SEGMENT_TITLES
    return " ".join(f"{title} {record[name]:.3f}" for name, title in titles.items())


def log_forward(root: nn.Module, lesson: Lesson, precision: str, meter: Meter) -> None:
    """Say, for every module of a forward, its device and the dtype of its weights and its output.

    The forward is one of its own: the step of a long run is compiled, and calls no module. It is one of
    evaluation, and draws from no random numbers of the run, so that what it looks at stays as it is.
    """

    def tell(name: str, module: nn.Module, output: object) -> None:
        weight = next(module.parameters(), None)
        weights = (
            f"weights {str(weight.dtype).removeprefix('torch.')}" if weight is not None else "no weights"
        )
        first = _first_tensor(output)
        result = str(first.dtype).removeprefix("torch.")
        meter.say(
            f"{name or 'classifier'} ({type(module).__name__}): {first.device}, {weights}, output {result}"
        )

    handles = [
        module.register_forward_hook(lambda m, _, out, name=name: tell(name, m, out))
        for name, module in root.named_modules()
    ]
    device, training = lesson.features.device.type, root.training
    root.eval()
    with (
        torch.random.fork_rng([lesson.features.device] if device == "cuda" else []),
        torch.no_grad(),
        torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"),
    ):
        root(lesson.features, lesson.lengths)
    root.train(training)
    for handle in handles:
        handle.remove()


def _first_tensor(output: object) -> Tensor:
    """Give the first tensor of what a module gives: one, several, or a value with fields, as a Routing."""
    if isinstance(output, Tensor):
        return output
    parts = output if isinstance(output, tuple) else vars(output).values()
    return next(part for part in parts if isinstance(part, Tensor))
