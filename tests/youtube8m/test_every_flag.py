"""Each of the reference's 21 flags of training does what it says; a test fails where its flag is ignored."""

import ast
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from expertise.youtube8m import checkpoint, run_state
from expertise.youtube8m import train as loop
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.launch import gpus_to_use
from expertise.youtube8m.lessons import Lessons
from expertise.youtube8m.models import FRAME_MODELS, MODELS
from expertise.youtube8m.readers import Batch, open_videos
from expertise.youtube8m.step import Lesson
from expertise.youtube8m.train import train
from youtube8m.segment_making import run_flags, write_shards

# fmt: off
FLAGS = (
    "train_dir", "train_data_pattern", "feature_names", "feature_sizes", "frame_features", "model",
    "start_new_model", "num_gpu", "batch_size", "label_loss", "regularization_penalty",
    "base_learning_rate", "learning_rate_decay", "learning_rate_decay_examples", "num_epochs", "max_steps",
    "export_model_steps", "num_readers", "optimizer", "clip_gradient_norm", "log_device_placement",
)
# fmt: on
PLAIN = {"recipe": "reference", "optimizer": "SGD", "clip_gradient_norm": 0.0, "max_steps": 1}
SMALL: dict[str, Any] = {
    **{
        field.name: 4
        for field in dataclasses.fields(Flags)
        if field.name.endswith(("_size", "_cells", "_hidden")) and field.name != "batch_size"
    },
    "nextvlad_groups": 2,
    "nextvlad_reduction": 2,
    "iterations": 3,
    "moe_rank": 3,
    "dropout": 0.3,
}


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that are trained on, as they come."""
    seen: list[Batch] = []
    make = Lessons.of

    def of(self: Lessons, batch: Batch, size: int) -> Lesson:
        seen.append(dataclasses.replace(batch, features=batch.features.clone()))
        return make(self, batch, size)

    monkeypatch.setattr(Lessons, "of", of)
    return seen


def weights(train_dir: Path) -> dict[str, torch.Tensor]:
    """All weights of the newest checkpoint, running moments too."""
    steps = checkpoint.steps_of(train_dir)
    return load_file(steps[max(steps)] / "model.safetensors")


def rates(train_dir: Path) -> list[float]:
    """The learning rates of the log."""
    return [json.loads(line)["learning_rate"] for line in (train_dir / "log.jsonl").read_text().splitlines()]


def moved(tiny: Any, folder: Path, rate: float = 0.5, **changes: Any) -> dict[str, torch.Tensor]:
    """By how much the first step, of plain gradient descent unless told otherwise, moves each variable."""
    before, after = folder / "before", folder / "after"
    train(tiny.flags(before, **{**PLAIN, "base_learning_rate": 0.0, **changes}))
    train(tiny.flags(after, **{**PLAIN, "base_learning_rate": rate, **changes}))
    start, end = weights(before), weights(after)
    return {name: end[name] - start[name] for name in start}


def test_no_flag_is_forgotten() -> None:
    body = ast.parse(Path(__file__).read_text()).body
    tests = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    assert len(FLAGS) == 21
    assert {f"test_{name}" for name in FLAGS} <= tests


def test_train_dir(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path / "deep" / "here", max_steps=1))
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert (tmp_path / "deep" / "here" / "model_flags.json").is_file()
    with pytest.raises(FlagError, match=r"the run in .*deep/here can't go on with other flags: --seed was 0"):
        train(tiny.flags(tmp_path / "deep" / "here", max_steps=2, seed=1))


def test_train_data_pattern(tiny: Any, tmp_path: Path, batches: list[Batch]) -> None:
    train(tiny.flags(tmp_path, train_data_pattern=f"{tiny.folder}/validate0001*", num_epochs=1))
    assert sorted(video for batch in batches for video in batch.ids) == [f"v{n:03d}" for n in range(100, 200)]


def test_feature_names(tiny: Any, tmp_path: Path, batches: list[Batch]) -> None:
    names = {"mean_rgb,mean_audio": "6,2", "mean_audio,mean_rgb": "2,6", "mean_audio": "2"}
    for number, (name, sizes) in enumerate(names.items()):
        train(tiny.flags(tmp_path / str(number), feature_names=name, feature_sizes=sizes, max_steps=1))
    both, swapped, audio = batches
    assert both.ids == swapped.ids == audio.ids
    assert torch.equal(swapped.features, both.features[:, [6, 7, 0, 1, 2, 3, 4, 5]])
    assert torch.equal(audio.features, both.features[:, 6:])


def test_feature_sizes(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path / "right", max_steps=1, moe_rank=0))
    assert weights(tmp_path / "right")["mixture.gate_GCH"].shape == (3, 5, 6 + 2)
    with pytest.raises(ValueError, match=r"has 6 values, expected 5; check --feature_sizes"):
        train(tiny.flags(tmp_path / "wrong", feature_sizes="5,3"))
    with pytest.raises(ValueError, match=r"feature_sizes"):
        train(tiny.flags(tmp_path / "few", feature_sizes="8"))


def test_frame_features(tmp_path: Path, batches: list[Batch]) -> None:
    pattern = write_shards(tmp_path, "train")
    frames = {"train_data_pattern": pattern, "feature_names": "rgb,audio", "feature_sizes": "6,2"}
    frames |= {"num_classes": 5, "model": "FrameLevelLogisticModel", "max_steps": 1}
    train(run_flags(tmp_path / "run", tmp_path, frame_features=True, **frames))
    assert batches[0].features.dtype == torch.uint8
    assert batches[0].features.ndim == 3
    with pytest.raises(FlagError, match=r"is a frame-level model; give --frame_features"):
        train(run_flags(tmp_path / "none", tmp_path, **frames))
    with pytest.raises(FlagError, match=r"--frame_features with --model=MoeModel, a video-level model"):
        train(run_flags(tmp_path / "none", tmp_path, frame_features=True, **(frames | {"model": "MoeModel"})))


def test_model(tiny: Any, tmp_path: Path) -> None:
    found = {}
    for name in ("LogisticModel", "MoeModel"):
        train(tiny.flags(tmp_path / name, model=name, max_steps=1))
        found[name] = set(weights(tmp_path / name))
        assert json.loads((tmp_path / name / "model_flags.json").read_text())["model"] == name
    assert found["LogisticModel"] == {"weight_CD", "bias_C"}
    assert found["LogisticModel"].isdisjoint(found["MoeModel"])


def test_start_new_model(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path, max_steps=3))
    assert train(tiny.flags(tmp_path, max_steps=5)).step == 5  # goes on
    assert list(checkpoint.steps_of(tmp_path)) == [3, 5]
    train(tiny.flags(tmp_path, max_steps=2, start_new_model=True))
    assert list(checkpoint.steps_of(tmp_path)) == [2]


def test_num_gpu(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []
    monkeypatch.setattr(loop, "run_processes", lambda _, count: started.append(count))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for count in (2, 4):
        train(tiny.flags(tmp_path, num_gpu=count, device="auto"))
    assert started == [2, 4]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus_to_use(Flags(num_gpu=2)) == 1
    train(tiny.flags(tmp_path, num_gpu=2, max_steps=1))
    assert "--num_gpu=2 is ignored" in capsys.readouterr().err


def test_batch_size(tiny: Any, tmp_path: Path, batches: list[Batch]) -> None:
    assert train(tiny.flags(tmp_path, batch_size=250, num_epochs=1)).step == 3
    assert [len(batch) for batch in batches] == [250, 250, 100]


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "HingeLoss", "SoftmaxLoss"])
def test_label_loss(tiny: Any, tmp_path: Path, batches: list[Batch], name: str) -> None:
    """The loss in the log is the formula's, of the weights as they were drawn."""
    flags = tiny.flags(tmp_path, **PLAIN, model="LogisticModel", label_loss=name, base_learning_rate=0.0)
    loss = _first_loss(flags)
    y = batches[0].labels.double().numpy()
    p = 1 / (1 + np.exp(-_logits(tmp_path, batches[0])))
    expected = {
        "CrossEntropyLoss": -(y * np.log(p + 1e-5) + (1 - y) * np.log(1 - p + 1e-5)).sum(1).mean(),
        "HingeLoss": np.maximum(0, 1 - (2 * y - 1) * p).sum(1).mean(),
        "SoftmaxLoss": -(
            y / y.sum(1, keepdims=True) * (p - np.log(np.exp(p).sum(1, keepdims=True)))
        ).sum(1).mean(),
    }  # fmt: skip
    assert loss == pytest.approx(expected[name], rel=1e-5)


def _first_loss(flags: Flags) -> float:
    train(flags)
    record = json.loads((Path(flags.train_dir) / "log.jsonl").read_text().splitlines()[0])
    return float(record["loss"])


def _logits(train_dir: Path, batch: Batch) -> np.ndarray:
    found = weights(train_dir)
    x = batch.features / batch.features.norm(dim=1, keepdim=True)
    logits: np.ndarray = (x @ found["weight_CD"].T + found["bias_C"]).double().numpy()
    return logits


def test_regularization_penalty(tiny: Any, tmp_path: Path) -> None:
    """The step of a weight gains - rate penalty l2 w, with w as it was."""
    l2, penalty = 0.1, 3.0
    changes = {"moe_l2": l2, "moe_rank": 0}
    without = moved(tiny, tmp_path / "0", regularization_penalty=0.0, **changes)
    with_it = moved(tiny, tmp_path / "1", regularization_penalty=penalty, **changes)
    start = weights(tmp_path / "1" / "before")
    for name in without:
        expected = 0.0 * start[name] if "bias" in name else -0.5 * penalty * l2 * start[name]
        torch.testing.assert_close(with_it[name] - without[name], expected, atol=1e-6, rtol=1e-4)


def test_base_learning_rate(tiny: Any, tmp_path: Path) -> None:
    much, little = moved(tiny, tmp_path / "a"), moved(tiny, tmp_path / "b", rate=0.125)
    for name, change in much.items():
        assert change.any()
        torch.testing.assert_close(little[name], 0.25 * change, atol=1e-7, rtol=1e-3)
    assert rates(tmp_path / "b" / "after") == [0.125]


def test_learning_rate_decay(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(
        tmp_path, recipe="reference", learning_rate_decay=0.5, learning_rate_decay_examples=640, num_epochs=3
    )
    train(flags)
    assert rates(tmp_path) == [0.01, 0.005, 0.005 * 0.5]  # records of steps 10, 20 and the last


def test_learning_rate_decay_examples(tiny: Any, tmp_path: Path) -> None:
    for number, examples in enumerate((576, 577)):  # step 10 comes after 576 examples
        flags = tiny.flags(tmp_path / str(number), recipe="reference", learning_rate_decay_examples=examples)
        train(dataclasses.replace(flags, max_steps=10))
    assert rates(tmp_path / "0") == [0.0095]
    assert rates(tmp_path / "1") == [0.01]


@pytest.mark.parametrize("cache", [True, False])
def test_num_epochs(tiny: Any, tmp_path: Path, batches: list[Batch], cache: bool) -> None:
    train(tiny.flags(tmp_path, num_epochs=3, batch_size=70, **({} if cache else {"cache_dir": "none"})))
    seen = Counter(video for batch in batches for video in batch.ids)
    assert seen == {f"t{number:03d}": 3 for number in range(600)}


def test_max_steps(tiny: Any, tmp_path: Path, batches: list[Batch]) -> None:
    assert train(tiny.flags(tmp_path, max_steps=3)).step == 3
    assert len(batches) == 3


def test_export_model_steps(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path, max_steps=7, export_model_steps=3))
    for kind in ("checkpoints", "export"):
        assert list(checkpoint.steps_of(tmp_path, kind)) == [3, 6, 7]


def test_num_readers(
    tiny: Any, tmp_path: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def opened(*values: Any, num_readers: int, **more: Any) -> Any:
        asked.append(num_readers)
        return open_videos(*values, num_readers=num_readers, **more)

    monkeypatch.setattr(run_state, "open_videos", opened)
    for count in (1, 3):
        train(tiny.flags(tmp_path / str(count), num_readers=count, num_epochs=1, cache_dir="none"))
    assert asked == [1, 3]
    half = len(batches) // 2
    assert [batch.ids for batch in batches[:half]] == [batch.ids for batch in batches[half:]]


def test_optimizer(tiny: Any, tmp_path: Path) -> None:
    """Gradient descent moves by the gradient; Adam's first step is the learning rate, wherever it goes."""
    plain = moved(tiny, tmp_path / "a")["mixture.expert_bias_MC"]
    adam = moved(tiny, tmp_path / "b", optimizer="AdamOptimizer")["mixture.expert_bias_MC"]
    assert plain.abs().unique().numel() > 1
    torch.testing.assert_close(adam, 0.5 * plain.sign(), atol=1e-3, rtol=0)


def test_clip_gradient_norm(tiny: Any, tmp_path: Path) -> None:
    free = moved(tiny, tmp_path / "a", clip_gradient_norm=-1.0)
    clipped = moved(tiny, tmp_path / "b", clip_gradient_norm=0.01)
    assert max(change.norm().item() for change in free.values()) > 2 * 0.5 * 0.01  # it must clip something
    for name, change in free.items():  # variable by variable, not all together
        expected = change * min(1.0, 0.5 * 0.01 / change.norm().item())
        torch.testing.assert_close(clipped[name], expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_log_device_placement(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    """It tells of the first forward once, and changes nothing, whatever the model holds or draws."""
    changes = SMALL | {"model": model, "max_steps": 3, "export_model_steps": 1}
    if model in FRAME_MODELS:
        pattern = write_shards(tmp_path, "train")
        frames = {"frame_features": True, "feature_names": "rgb,audio", "cache_dir": str(tmp_path / "cache")}
        changes |= frames | {"train_data_pattern": pattern, "batch_size": 16}
    for asked in (False, True):
        capsys.readouterr()
        train(tiny.flags(tmp_path / str(asked), log_device_placement=asked, **changes))
        said = capsys.readouterr().err
        assert said.count(f"({model}): cpu, weights float32, output float32") == asked
        assert said.count("(Classifier): cpu, weights float32, output float32") == asked
    plain, told = weights(tmp_path / "False"), weights(tmp_path / "True")
    assert [name for name in plain if not torch.equal(plain[name], told[name])] == []
