"""Checkpoints: what is written comes back, and only what need not stay is removed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from expertise.youtube8m import checkpoint
from expertise.youtube8m.checkpoint import CheckpointError
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import MoeModel
from expertise.youtube8m.optimizers import OPTIMIZERS

FLAGS = ModelFlags(
    model="MoeModel", feature_names=("mean_rgb",), feature_sizes=(6,), num_classes=4, class_names=()
)


def made(optimizer: str = "Adam", steps: int = 3) -> tuple[MoeModel, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = MoeModel(6, 4, rank=3)
    model.reset(torch.Generator().manual_seed(steps))
    chosen = OPTIMIZERS[optimizer](model.parameters())
    for _ in range(steps):
        step(model, chosen)
    return model, chosen


def step(model: MoeModel, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 6)).square().sum().backward()
    optimizer.step()


def test_steps_are_found_in_order(tmp_path: Path) -> None:
    for number in (1000, 20, 300):
        (tmp_path / "checkpoints" / f"step_{number:08d}").mkdir(parents=True)
        (tmp_path / "export" / f"step_{number}").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step_00000400.abcd.part").mkdir()
    (tmp_path / "checkpoints" / "step_last").mkdir()
    assert list(checkpoint.steps_of(tmp_path)) == [20, 300, 1000]
    assert list(checkpoint.steps_of(tmp_path, "export")) == [20, 300, 1000]
    assert checkpoint.steps_of(tmp_path / "none") == {}


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS)))
def test_a_restored_run_takes_the_same_next_step(tmp_path: Path, name: str) -> None:
    model, optimizer = made(name)
    state = dict.fromkeys(checkpoint.STATE, 6) | {"step": 3}
    folder = checkpoint.save(tmp_path, 3, model, optimizer, state, FLAGS)
    restored, its_optimizer = made(name, steps=0)
    checkpoint.restore(folder, restored, its_optimizer)
    assert checkpoint.read_state(folder) == state
    for _ in range(3):
        step(model, optimizer)
        step(restored, its_optimizer)
    for a, b in zip(model.parameters(), restored.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_export_holds_all_that_is_needed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 7, *made(), {}, FLAGS)
    assert sorted(file.name for file in (tmp_path / "export" / "step_7").iterdir()) == [
        "model.safetensors",
        "model_flags.json",
    ]


def test_who_may_read_the_flags_may_read_the_weights(tmp_path: Path) -> None:
    state = dict.fromkeys(checkpoint.STATE, 1)
    checkpoint.save(tmp_path, 1, *made(), state, FLAGS)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert len({path.stat().st_mode for path in files}) == 1


def test_a_disk_that_is_full_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise SafetensorError("No space left on device")

    state = dict.fromkeys(checkpoint.STATE, 1)
    checkpoint.save(tmp_path, 1, *made(), state, FLAGS)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"can't be written in .*/export: No space left.*; the last checkpoint"):
        checkpoint.save(tmp_path, 2, *made(), state, FLAGS)
    assert sorted(tmp_path.rglob("*")) == before


def test_pruning_keeps_the_newest_three_and_the_best(tmp_path: Path) -> None:
    for number in range(1, 8):
        checkpoint.save(tmp_path, number, *made(), {}, FLAGS)
    records = [
        {"kind": "eval", "step": 1, "gap": 0.99, "data": "other videos"},
        {"kind": "train", "step": 2, "gap": 1.0},
        {"kind": "eval", "step": 2, "gap": 0.9, "data": "validate*"},
        {"kind": "eval", "step": 3, "gap": 0.5, "data": "validate*"},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert checkpoint.best_step(tmp_path) == 2
    checkpoint.prune(tmp_path)
    assert list(checkpoint.steps_of(tmp_path)) == [2, 5, 6, 7]
    assert list(checkpoint.steps_of(tmp_path, "export")) == [2, 5, 6, 7]


def test_nothing_was_evaluated(tmp_path: Path) -> None:
    assert checkpoint.best_step(tmp_path) is None
    (tmp_path / "log.jsonl").write_text('{"kind": "train", "step": 2, "gap": 1.0}\n')
    assert checkpoint.best_step(tmp_path) is None


def test_a_state_of_a_wrong_form_is_named(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 3, *made(), {"examples": 6}, FLAGS)
    with pytest.raises(CheckpointError, match="lacks flags, data, shuffle"):
        checkpoint.read_state(folder)
    (folder / "state.json").write_text("3")
    with pytest.raises(CheckpointError, match="can't be read"):
        checkpoint.read_state(folder)


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, *made(), {}, FLAGS)
    for kind in ("checkpoints", "export"):
        (tmp_path / kind / ".step_00000006.abcd.part").mkdir()
    checkpoint.sweep(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000003"]
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["step_3"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["gone", "short", "garbled"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, file: str, damage: str) -> None:
    model, optimizer = made()
    folder = checkpoint.save(tmp_path, 3, model, optimizer, {}, FLAGS)
    content = (folder / file).read_bytes()
    if damage == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(
            content[: len(content) // 2] if damage == "short" else b"\xff" * len(content)
        )
    with pytest.raises(CheckpointError, match=r"step_00000003 can't be read.*Remove this folder"):
        checkpoint.read_state(folder) if file == "state.json" else checkpoint.restore(
            folder, model, optimizer
        )


def test_the_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 3, *made(), {}, FLAGS)
    with pytest.raises(CheckpointError, match="size mismatch"):
        checkpoint.load_weights(folder / "model.safetensors", MoeModel(6, 5, rank=3))


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, *made(), {}, FLAGS)
    for name in ("log.jsonl", "finished.json", "events.out.tfevents.1", "mine.txt"):
        (tmp_path / name).write_text("")
    checkpoint.clear(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
