"""Checkpoints: saved whole or not at all, resumed exactly, the newest three and the best kept.

train_dir/
  model_flags.json               what evaluation and inference need
  checkpoints/step_00001000/     model.safetensors, optimizer.safetensors, state.json, with --ema_decay
                                 averaged.safetensors
  export/step_1000/              model.safetensors, model_flags.json: all that `infer` needs
  evaluation/step_1000.json      written by an evaluation, every class in it
  log.jsonl                      one line a record; its evaluations decide which checkpoint is the best
  finished.json                  training has come to its end
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from expertise._files import atomic_file, atomic_folder, usual_mode
from expertise.youtube8m.averaged import AveragedModel
from expertise.youtube8m.model_flags import ModelFlags

STATE = ("step", "examples", "flags", "data", "shuffle", "log_bytes", "streams", "compiled")  # of a run
KEPT = 3  # newest checkpoints that stay, beside the best
_STEP = re.compile(r"step_0*(\d+)$")


class CheckpointError(ValueError):
    """A checkpoint can't be read; the message says which, why, and what to do."""


def steps_of(train_dir: Path, kind: str = "checkpoints") -> dict[int, Path]:
    """List what is there, by step, in order. ``kind``: checkpoints, export or evaluation."""
    found = {}
    for path in (train_dir / kind).glob("step_*"):
        match = _STEP.match(path.stem if path.is_file() else path.name)
        if match:
            found[int(match.group(1))] = path
    return dict(sorted(found.items()))


def save(
    train_dir: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    flags: ModelFlags,
    averaged: AveragedModel | None = None,
) -> Path:
    """Write the export of a step, and its checkpoint. With ``averaged``, its weights are what is exported.

    The checkpoint comes last: a run that is killed before it goes on from the one before, and makes both
    again. Where there is a checkpoint, there is its export.
    """
    with atomic_folder(train_dir / "export" / f"step_{step}") as part:
        flags.write(part / "model_flags.json")
        _write_tensors(_tensors(averaged.model if averaged else model), part / "model.safetensors")
    folder = train_dir / "checkpoints" / f"step_{step:08d}"
    with atomic_folder(folder) as part:
        _write_tensors(_tensors(model), part / "model.safetensors")
        if averaged is not None:
            _write_tensors(_tensors(averaged.model), part / "averaged.safetensors")
        _write_tensors(_optimizer_tensors(model, optimizer), part / "optimizer.safetensors")
        (part / "state.json").write_text(json.dumps({"step": step, **state}, indent=1) + "\n")
    return folder


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, averaged: AveragedModel | None = None
) -> None:
    """Put a checkpoint's weights and optimizer state in place.

    Raises
    ------
    CheckpointError : a file is missing, damaged, or belongs to another model.
    """
    load_weights(folder / "model.safetensors", model)
    if averaged is not None:
        load_weights(folder / "averaged.safetensors", averaged.model)
    try:
        tensors = load_file(folder / "optimizer.safetensors")
        state: dict[int, dict[str, torch.Tensor]] = {}
        for number, (name, _) in enumerate(model.named_parameters()):
            mine = {key.split("/")[1]: value for key, value in tensors.items() if key.split("/")[0] == name}
            if mine:
                state[number] = mine
        # torch puts each tensor on the device where this optimizer wants it
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_unreadable(folder, error)) from error


def read_state(folder: Path) -> dict[str, Any]:
    """Give the state.json of a checkpoint.

    Raises
    ------
    CheckpointError : it is missing or damaged.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        missing = [key for key in STATE if key not in state]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(_unreadable(folder, error)) from error
    if missing:
        raise CheckpointError(_unreadable(folder, f"state.json lacks {', '.join(missing)}"))
    return state


def load_weights(file: Path, model: nn.Module) -> None:
    """Put the weights of a safetensors file into the model.

    Raises
    ------
    CheckpointError : the file is missing, damaged, or belongs to another model.
    """
    try:
        on_meta = any(weight.is_meta for weight in model.parameters())
        types = {name: value.dtype for name, value in model.state_dict().items()}
        read = {name: value.to(types.get(name, value.dtype)) for name, value in load_file(file).items()}
        model.load_state_dict(read, assign=on_meta)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(_unreadable(file.parent, error)) from error


def best_step(train_dir: Path) -> int | None:
    """Give the step that was best among the run's own evaluations on its newest evaluation data.

    A record says by "decides" which of its figures that is: GAP, or the mAP of segments. The command `eval`
    decides nothing: it may look at test data. None where training evaluates nothing.
    """
    log = train_dir / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    records = [record for record in records if record["kind"] == "eval"]
    figures = {
        record["step"]: record[record.get("decides", "gap")]  # older runs have GAP only
        for record in records
        if record["data"] == records[-1]["data"]
    }
    return max(figures, key=lambda step: (figures[step], step)) if figures else None


def prune(train_dir: Path) -> None:
    """Remove checkpoints and exports, all but the newest three and the best evaluated."""
    best = best_step(train_dir)
    for kind in ("checkpoints", "export"):
        there = steps_of(train_dir, kind)
        for step in list(there)[:-KEPT]:
            if step != best:
                shutil.rmtree(there[step])


def sweep(train_dir: Path) -> None:
    """Remove what a killed run has left half-written."""
    for kind in ("checkpoints", "export"):
        for part in (train_dir / kind).glob(".step_*.part"):
            shutil.rmtree(part, ignore_errors=True)


def clear(train_dir: Path) -> None:
    """Remove what a run has written into its folder, and nothing else."""
    for name in ("checkpoints", "export", "evaluation"):
        shutil.rmtree(train_dir / name, ignore_errors=True)
    for pattern in ("log.jsonl", "finished.json", "model_flags.json", "events.out.tfevents.*"):
        for file in train_dir.glob(pattern):
            file.unlink()


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_file(file) as part:
        part.write_text(json.dumps(values, indent=1) + "\n")


def _write_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    try:
        with usual_mode(file):
            save_file(tensors, file)
    except SafetensorError as error:
        raise OSError(
            f"{file.name} can't be written in {file.parent.parent}: {error}; the last checkpoint stands, the "
            "same command goes on from there"
        ) from error


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if torch.is_tensor(value)
    }


def _unreadable(folder: Path, error: Exception | str) -> str:
    return (
        f"the checkpoint {folder} can't be read: {' '.join(str(error).split())}. "
        "Remove this folder to go on from the one before, or begin anew with --start_new_model"
    )
