"""Runs are read from the files of their folder, and what is wrong there is named."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from expertise.report.runs import Run, read_run


@pytest.fixture
def train_dir(tmp_path: Path) -> Path:
    """A folder as training and evaluation leave it."""
    log = [{"kind": "train", "step": 10, "loss": 2.0}, {"kind": "eval", "step": 20, "loss": 1.5, "gap": 0.5}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    (tmp_path / "model_flags.json").write_text(json.dumps({"model": "MoeModel"}))
    for step, gap in ((9, 0.1), (100, 0.7), (20, 0.5)):
        write(tmp_path / f"evaluation/step_{step}.json", {"step": step, "gap": gap, "classes": []})
    for step in (20, 100):
        (tmp_path / f"export/step_{step}").mkdir(parents=True)
        weights = {"w": np.zeros((step, 3), np.float32), "b": np.zeros(7, np.float32)}
        save_file(weights, tmp_path / f"export/step_{step}/model.safetensors", {"made": "by a test"})
    return tmp_path


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_a_run_is_read(train_dir: Path) -> None:
    run = read_run(train_dir)
    assert run.name == "MoeModel"
    assert run.parameters == 307  # of the newest export
    assert run.steps == 20
    assert run.metric("gap") == 0.7  # of the newest evaluation, by number
    assert np.isnan(run.metric("map"))
    assert run.series("eval", "loss") == ([20.0], [1.5])
    assert run.series("train", "gap") == ([], [])
    assert read_run(str(train_dir), "mine").name == "mine"


def test_a_young_run_has_a_log_only(train_dir: Path) -> None:
    for path in [*train_dir.glob("evaluation/*"), *train_dir.glob("export/*/*")]:
        path.unlink()
    for path in train_dir.glob("export/*"):
        path.rmdir()
    run = read_run(train_dir)
    assert (run.parameters, run.evaluation, run.classes) == (None, None, [])
    assert np.isnan(run.metric("gap"))
    assert Run("empty", None).steps is None


def test_a_line_that_is_just_being_written_is_left_out(train_dir: Path) -> None:
    with (train_dir / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert len(read_run(train_dir).log) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"log\.jsonl, line 3 is not JSON"),
        ("[1]", r"log\.jsonl, line 3 holds a list; it must hold an object"),
        ('{"step": 3}', r"log\.jsonl, line 3: kind is None; it must be one of \('train', 'eval'\)"),
        ('{"kind": "eval", "step": "x"}', r"log\.jsonl, line 3: step is 'x'; it must be a whole number"),
    ],
)
def test_a_bad_line_is_named(train_dir: Path, line: str, message: str) -> None:
    with (train_dir / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_run(train_dir)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no log\.jsonl; give the folder of a training run"):
        read_run(tmp_path)
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(ValueError, match=r"model_flags\.json is not there"):
        read_run(tmp_path)


def test_bad_weights_are_named(train_dir: Path) -> None:
    file = train_dir / "export/step_100/model.safetensors"
    for size in (1 << 40, file.stat().st_size + 1):
        file.write_bytes(struct.pack("<Q", size) + b"{}")
        with pytest.raises(ValueError, match="not a safetensors file: its header would have"):
            read_run(train_dir)
    file.write_bytes(struct.pack("<Q", 2) + b"\xff\xff")
    with pytest.raises(ValueError, match=r"the header of .* is not JSON"):
        read_run(train_dir)
    file.unlink()
    with pytest.raises(ValueError, match="the export is not whole"):
        read_run(train_dir)


def test_moments_and_memories_are_no_parameters(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from expertise.report.runs import _count_parameters
    from expertise.youtube8m.flags import Flags
    from expertise.youtube8m.model_flags import ModelFlags
    from expertise.youtube8m.models import build_model

    options = Flags(moe_rank=0, shared_expert_size=5, memory_videos=7)
    model = build_model(
        ModelFlags(
            model="SharedExpertMoeModel", feature_names=("a",), feature_sizes=(6,), num_classes=4,
            class_names=(), options=options,
        )
    )  # fmt: skip
    safetensors.save_file(dict(model.state_dict()), tmp_path / "model.safetensors")
    learned = sum(weight.numel() for weight in model.parameters() if isinstance(weight, torch.Tensor))
    assert _count_parameters(tmp_path / "model.safetensors") == learned
