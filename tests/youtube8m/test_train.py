"""Training: every flag does what it says, nothing is lost, and a resumed run is the same run."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from expertise.youtube8m import checkpoint
from expertise.youtube8m import flags as table
from expertise.youtube8m.checkpoint import CheckpointError
from expertise.youtube8m.flag_rules import compare
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import load_model
from expertise.youtube8m.optimizers import staircase
from expertise.youtube8m.records import encode_example, write_records
from expertise.youtube8m.step import compiler_found
from expertise.youtube8m.train import learning_rate, train


def weights(train_dir: Path) -> dict[str, torch.Tensor]:
    steps = checkpoint.steps_of(train_dir)
    return load_file(steps[max(steps)] / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def log(train_dir: Path, kind: str = "train") -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (train_dir / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def test_it_learns_and_leaves_everything_that_is_needed(tiny: Any, tmp_path: Path) -> None:
    result = train(tiny.flags(tmp_path, num_epochs=30, vocabulary=str(tiny.folder / "vocabulary.csv")))
    assert result.finished
    assert result.step == -(-600 * 30 // 64)
    records = log(tmp_path)
    assert records[-1]["step"] == result.step
    assert records[-1]["examples"] == 600 * 30
    assert records[-1]["loss"] < records[0]["loss"]
    assert records[-1]["gap"] > records[0]["gap"] + 0.1
    assert {"loss", "hit_at_1", "gap", "learning_rate", "regularization", "examples_per_second"} <= set(
        records[-1]
    )
    assert json.loads((tmp_path / "finished.json").read_text()) == {"step": result.step}
    assert (tmp_path / "export" / f"step_{result.step}" / "model_flags.json").is_file()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert load_model(tmp_path).class_names == tuple(f"name {c}" for c in range(5))


def test_the_last_weights_are_saved_whatever_the_export_steps(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path, max_steps=7, export_model_steps=5))
    assert list(checkpoint.steps_of(tmp_path)) == [5, 7]
    assert list(checkpoint.steps_of(tmp_path, "export")) == [5, 7]


def test_export_model_steps_and_what_is_kept(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path, max_steps=12, export_model_steps=2))
    assert list(checkpoint.steps_of(tmp_path)) == [8, 10, 12]


def test_the_best_checkpoint_stays(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(tmp_path, max_steps=4, export_model_steps=2, eval_data_pattern=tiny.validate)
    train(flags)
    assert [record["step"] for record in log(tmp_path, "eval")] == [2, 4]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "eval" and line["step"] == 2:
            line["gap"] = 2.0
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = checkpoint.steps_of(tmp_path)[4] / "state.json"
    size = (tmp_path / "log.jsonl").stat().st_size
    state.write_text(json.dumps(json.loads(state.read_text()) | {"log_bytes": size}))
    # what the command eval finds on other videos does not count
    (tmp_path / "evaluation" / "step_4.json").write_text(json.dumps({"gap": 3.0}))
    train(dataclasses.replace(flags, max_steps=12))
    assert list(checkpoint.steps_of(tmp_path)) == [2, 8, 10, 12]
    assert list(checkpoint.steps_of(tmp_path, "export")) == [2, 8, 10, 12]


@pytest.mark.parametrize("streams", [False, True])
def test_every_example_exactly_num_epochs_times(tiny: Any, tmp_path: Path, streams: bool) -> None:
    cache = {"cache_dir": "none"} if streams else {}
    result = train(tiny.flags(tmp_path, num_epochs=3, batch_size=70, **cache))
    assert log(tmp_path)[-1]["examples"] == 1800
    assert result.step == 26


def test_max_steps(tiny: Any, tmp_path: Path) -> None:
    assert train(tiny.flags(tmp_path, max_steps=3)).step == 3
    assert train(tiny.flags(tmp_path / "epochs", max_steps=300)).step == 19


def test_learning_rate_is_a_staircase() -> None:
    assert staircase(0.01, 0.95, 4_000_000, 3_999_999) == 0.01
    assert staircase(0.01, 0.95, 4_000_000, 4_000_000) == pytest.approx(0.0095)
    changed = Flags(
        base_learning_rate=1.0, learning_rate_decay=0.5, learning_rate_decay_examples=100, recipe="reference"
    )
    assert [learning_rate(changed, n, 10**9) for n in (0, 99, 100, 250)] == [1.0, 1.0, 0.5, 0.25]


def test_the_stable_recipe_warms_up_and_anneals_along_the_staircase() -> None:
    flags = Flags(learning_rate_decay=0.5, learning_rate_decay_examples=1000)
    rates = [learning_rate(flags, n, 2000) for n in range(0, 2001, 10)]
    assert rates[0] == pytest.approx(0.01 * 0.01)
    assert max(rates) == rates[20] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(a < b for a, b in pairwise(rates[:20]))
    assert all(a > b for a, b in pairwise(rates[20:]))
    assert rates[100] == pytest.approx(0.5 * learning_rate(Flags(), 1000, 2000))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "LogisticModel"},
        {"label_loss": "HingeLoss"},
        {"label_loss": "SoftmaxLoss"},
        {"optimizer": "GradientDescentOptimizer"},
        {"optimizer": "AdamW"},
        {"optimizer": "Momentum"},
        {"optimizer": "AdagradOptimizer"},
        {"optimizer": "RMSPropOptimizer"},
        {"base_learning_rate": 0.1},
        {"learning_rate_decay": 0.5, "learning_rate_decay_examples": 64.0},
        {"regularization_penalty": 1e7},
        {"moe_l2": 0.1},
        {"moe_num_mixtures": 3},
        {"moe_rank": 3},
        {"recipe": "reference"},
        {"clip_gradient_norm": 1e-3, "optimizer": "SGD"},
        {"batch_size": 32},
        {"seed": 1},
        {"precision": "bf16"},
    ],
    ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items()),
)
def test_the_flag_changes_the_result(tiny: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    base = {"optimizer": change["optimizer"]} if "clip_gradient_norm" in change else {}
    train(tiny.flags(tmp_path / "a", max_steps=4, **base))
    train(tiny.flags(tmp_path / "b", max_steps=4, **change))
    assert not same(tmp_path / "a", tmp_path / "b")
    assert all(value.isfinite().all() for value in weights(tmp_path / "b").values())


@pytest.mark.parametrize(
    "change", [{"num_readers": 3}, {"export_model_steps": 2}, {"optimizer": "Adam"}, {"num_gpu": 2}],
    ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items()),
)  # fmt: skip
def test_the_flag_does_not_change_the_result(tiny: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    if "num_gpu" in change and torch.cuda.device_count():
        pytest.skip("there are GPUs here: num_gpu is not ignored")
    train(tiny.flags(tmp_path / "a", max_steps=5))
    train(tiny.flags(tmp_path / "b", max_steps=5, **change))
    assert same(tmp_path / "a", tmp_path / "b")


def test_num_gpu_without_a_gpu_is_said(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.device_count():
        pytest.skip("there are GPUs here")
    train(tiny.flags(tmp_path, max_steps=1, num_gpu=4))
    assert "--num_gpu=4 is ignored" in capsys.readouterr().err


def test_device_cuda_without_a_gpu(tiny: Any, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(FlagError, match="--device=cuda: torch finds no GPU"):
        train(tiny.flags(tmp_path, device="cuda"))


def test_log_device_placement(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny.flags(tmp_path, max_steps=2, log_device_placement=True))
    said = capsys.readouterr().err
    assert said.count("(MoeModel): cpu, weights float32, output float32") == 1
    assert said.count("(Classifier): cpu, weights float32, output float32") == 1


def test_evaluation_at_every_export(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path, max_steps=6, export_model_steps=3, eval_data_pattern=tiny.validate))
    records = log(tmp_path, "eval")
    assert [record["step"] for record in records] == [3, 6]
    written = json.loads((tmp_path / "evaluation" / "step_6.json").read_text())
    assert written["gap"] == records[1]["gap"]
    assert written["num_videos"] == 200


class TestResume:
    """A run that goes on is the run that was never interrupted."""

    def test_more_epochs_are_taken_and_said(
        self, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(tiny.flags(tmp_path / "once", num_epochs=3))
        train(tiny.flags(tmp_path / "twice", num_epochs=1))  # its last batch is a smaller one
        result = train(tiny.flags(tmp_path / "twice", num_epochs=3))
        assert "--num_epochs was 1, now 3: taken" in capsys.readouterr().err
        assert result.step == 29

    @pytest.mark.parametrize("streams", [False, True])
    def test_stopped_in_mid_epoch(self, tiny: Any, tmp_path: Path, streams: bool) -> None:
        # the stable recipe's learning rate depends on where the run is to end, the reference's does not
        cache = {"recipe": "reference"} | ({"cache_dir": "none"} if streams else {})
        train(tiny.flags(tmp_path / "once", **cache))
        for stop in (4, 11, None):
            train(tiny.flags(tmp_path / "thrice", max_steps=stop, **cache))
        assert same(tmp_path / "once", tmp_path / "thrice")

        def figures(folder: str) -> list[dict[str, Any]]:
            drop = {"examples_per_second"}
            return [{k: v for k, v in r.items() if k not in drop} for r in log(tmp_path / folder)]

        extra = {4, 11}  # a run that stops writes a record of its last step
        assert figures("once") == [r for r in figures("thrice") if r["step"] not in extra]

    def test_a_finished_run_stays_as_it_is(
        self, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(tiny.flags(tmp_path, max_steps=3))
        before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "checkpoints").rglob("*"))
        assert train(tiny.flags(tmp_path, max_steps=3)).finished
        assert "training had ended at step 3" in capsys.readouterr().err
        assert (tmp_path / "finished.json").is_file()
        assert before == sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "checkpoints").rglob("*"))

    def test_killed_between_the_last_checkpoint_and_the_end(self, tiny: Any, tmp_path: Path) -> None:
        train(tiny.flags(tmp_path, max_steps=3))
        (tmp_path / "finished.json").unlink()
        half = tmp_path / "checkpoints" / ".step_00000004.abcd.part"
        half.mkdir()
        assert train(tiny.flags(tmp_path, max_steps=3)).finished
        assert (tmp_path / "finished.json").is_file()
        assert not half.exists()

    def test_killed_between_export_and_checkpoint(
        self, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flags = tiny.flags(tmp_path / "run", num_epochs=1, export_model_steps=4)
        train(dataclasses.replace(flags, train_dir=str(tmp_path / "whole")))
        whole = checkpoint.save_file

        def fail(tensors: Any, file: Path) -> None:
            if file.name == "optimizer.safetensors" and "step_00000008" in file.parent.name:
                raise OSError("no space left")
            whole(tensors, file)

        monkeypatch.setattr(checkpoint, "save_file", fail)
        with pytest.raises(OSError, match="no space"):
            train(flags)
        monkeypatch.undo()
        assert list(checkpoint.steps_of(tmp_path / "run")) == [4]
        assert list(checkpoint.steps_of(tmp_path / "run", "export")) == [4, 8]
        train(flags)
        assert same(tmp_path / "run", tmp_path / "whole")

    @pytest.mark.parametrize(
        "change",
        [
            {"batch_size": 32},
            {"model": "LogisticModel"},
            {"moe_num_mixtures": 4},
            {"seed": 9},
            {"optimizer": "SGD"},
            {"feature_sizes": "2,6"},
            {"clip_gradient_norm": 0.5},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_changed_flag_is_refused(self, tiny: Any, tmp_path: Path, change: dict[str, Any]) -> None:
        flags = tiny.flags(tmp_path, max_steps=2)
        train(flags)
        name, value = next(iter(change.items()))
        changed = dataclasses.replace(flags, max_steps=3, **change)
        with pytest.raises(FlagError, match=f"--{name} was {getattr(flags, name)!r}, now {value!r}"):
            train(changed)

    def test_start_new_model_begins_anew(self, tiny: Any, tmp_path: Path) -> None:
        keep = tmp_path / "notes.txt"
        keep.write_text("mine")
        train(tiny.flags(tmp_path, max_steps=4))
        train(tiny.flags(tmp_path, max_steps=2, batch_size=32, start_new_model=True))
        assert list(checkpoint.steps_of(tmp_path)) == [2]
        assert log(tmp_path)[-1]["step"] == 2
        assert keep.read_text() == "mine"

    def test_moved_files_are_the_same_data_and_changed_files_are_not(self, tiny: Any, tmp_path: Path) -> None:
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        for file in tiny.folder.glob("train*"):
            (here / file.name).write_bytes(file.read_bytes())
        flags = tiny.flags(tmp_path / "run", train_data_pattern=f"{here}/train*", max_steps=2)
        train(flags)
        here.rename(there)
        train(dataclasses.replace(flags, train_data_pattern=f"{there}/train*", max_steps=3))
        (there / "train0001.tfrecord").unlink()
        with pytest.raises(FlagError, match="have changed since"):
            train(dataclasses.replace(flags, train_data_pattern=f"{there}/train*", max_steps=4))

    def test_other_files_by_another_pattern_are_said(
        self, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = f"{tiny.folder}/train0001*"
        train(tiny.flags(tmp_path, max_steps=2))
        train(tiny.flags(tmp_path, max_steps=3, train_data_pattern=one))
        assert f"--train_data_pattern was {tiny.train!r}, now {one!r}: taken" in capsys.readouterr().err

    def test_a_damaged_checkpoint_is_named(self, tiny: Any, tmp_path: Path) -> None:
        train(tiny.flags(tmp_path, max_steps=2))
        file = checkpoint.steps_of(tmp_path)[2] / "optimizer.safetensors"
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(CheckpointError, match=r"step_00000002 can't be read.*Remove this folder"):
            train(tiny.flags(tmp_path, max_steps=4))


def command(flags: Flags) -> list[str]:
    given = {
        field.name: getattr(flags, field.name)
        for field in dataclasses.fields(flags)
        if getattr(flags, field.name) != field.default
    }
    return [
        sys.executable,
        "-m",
        "expertise",
        "youtube8m",
        "train",
        *(f"--{k}={v}" for k, v in given.items()),
    ]


def start(flags: Flags, log_file: Path) -> "subprocess.Popen[bytes]":
    with log_file.open("ab") as output:
        return subprocess.Popen(command(flags), stdout=output, stderr=output)


def wait_for_step(train_dir: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a checkpoint of at least this step is there."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if any(there >= step for there in checkpoint.steps_of(train_dir)):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {step}; the process ended with {process.poll()}")


def test_killed_at_random_steps_and_resumed_ends_bit_identical(tiny: Any, tmp_path: Path) -> None:
    """kill -9 at three random moments; the final weights are those of the run that was left alone."""
    changes = {"num_epochs": 60, "export_model_steps": 25, "eval_data_pattern": tiny.validate}  # 563 steps
    train(tiny.flags(tmp_path / "whole", **changes))
    flags = tiny.flags(tmp_path / "killed", **changes)
    delays = random.Random(0)
    for step in (25, 150, 300):
        process = start(flags, tmp_path / "output.txt")
        wait_for_step(tmp_path / "killed", step, process)
        time.sleep(delays.uniform(0, 0.2))
        process.kill()
        process.wait()
    assert not (tmp_path / "killed" / "finished.json").exists()
    assert start(flags, tmp_path / "output.txt").wait() == 0, (tmp_path / "output.txt").read_text()
    assert same(tmp_path / "whole", tmp_path / "killed")
    for kind in ("train", "eval"):
        drop = {"examples_per_second"}
        figures = [
            [{k: v for k, v in record.items() if k not in drop} for record in log(tmp_path / folder, kind)]
            for folder in ("killed", "whole")
        ]
        assert figures[0] == figures[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(tiny: Any, tmp_path: Path, number: int) -> None:
    flags = tiny.flags(tmp_path / "run", num_epochs=4000, export_model_steps=40, recipe="reference")
    process = start(flags, tmp_path / "output.txt")
    wait_for_step(tmp_path / "run", 40, process)
    os.kill(process.pid, number)
    assert process.wait() == 130
    steps = list(checkpoint.steps_of(tmp_path / "run"))
    said = (tmp_path / "output.txt").read_text()
    assert f"interrupted; step {steps[-1]} is saved" in said
    result = train(dataclasses.replace(flags, max_steps=steps[-1] + 2))
    train(dataclasses.replace(flags, train_dir=str(tmp_path / "whole"), max_steps=steps[-1] + 2))
    assert result.step == steps[-1] + 2
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_loss_that_is_not_finite_stops_and_saves_nothing(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(
        tmp_path, optimizer="SGD", base_learning_rate=1e30, clip_gradient_norm=0.0, moe_l2=1.0, max_steps=50
    )
    with pytest.raises(FloatingPointError, match="base_learning_rate"):
        train(flags)
    assert not checkpoint.steps_of(tmp_path)


def test_no_files_is_an_error_before_anything_is_made(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--train_data_pattern=.*no file matches"):
        train(tiny.flags(tmp_path / "run", train_data_pattern=str(tmp_path / "none*")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("start_new_model", [False, True])
def test_a_train_dir_that_is_a_file(tiny: Any, tmp_path: Path, start_new_model: bool) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FlagError, match=r"--train_dir=.*run is a file; give a folder"):
        train(tiny.flags(tmp_path / "run", start_new_model=start_new_model))
    assert (tmp_path / "run").read_text() == "mine"


def test_videos_without_labels_are_an_error_before_training(tiny: Any, tmp_path: Path) -> None:
    records = [encode_example({"id": ["a"], "mean_rgb": np.ones(6), "mean_audio": np.ones(2)})]
    write_records(tmp_path / "test.tfrecord", records)
    for flag in ("train_data_pattern", "eval_data_pattern"):
        with pytest.raises(FlagError, match=rf"--{flag}=.*none of the 1 videos has a label"):
            train(tiny.flags(tmp_path / "run", **{flag: str(tmp_path / "test.tfrecord")}))
    assert not (tmp_path / "run").exists()


def test_misspelt_names_are_found_before_records_are_read(tiny: Any, tmp_path: Path) -> None:
    for change in ({"model": "MoModel"}, {"optimizer": "Adom"}, {"label_loss": "CrossEntropy"}):
        with pytest.raises(FlagError, match="the nearest is"):
            train(tiny.flags(tmp_path, train_data_pattern=str(tmp_path / "none*"), **change))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{}, {"model": "LogisticModel"}, {"precision": "bf16"}, {"label_loss": "HingeLoss"}], ids=str
)
def test_a_compiled_step_is_the_same_step(tiny: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    if not compiler_found(torch.device("cpu")):
        pytest.skip("no C++ compiler here")
    for name in ("off", "on"):
        train(tiny.flags(tmp_path / name, compile=name, max_steps=8, **change))
    tolerance = 2e-3 if "precision" in change else 1e-5
    for name, value in weights(tmp_path / "off").items():
        torch.testing.assert_close(weights(tmp_path / "on")[name], value, atol=tolerance, rtol=0)
    state = json.loads((checkpoint.steps_of(tmp_path / "on")[8] / "state.json").read_text())
    assert state["compiled"] is True


def test_compile_without_a_compiler(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(FlagError, match=r"--compile=on: there is no C\+\+ compiler"):
        train(tiny.flags(tmp_path / "on", compile="on"))
    assert train(tiny.flags(tmp_path / "auto", max_steps=1)).finished


def test_a_signal_in_the_middle_of_a_record_loses_nothing(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = sys.modules["expertise.youtube8m.train"]
    recent = module._recent  # type: ignore[attr-defined]

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(module, "_recent", recent)
        os.kill(os.getpid(), signal.SIGTERM)
        return recent(*arguments)

    monkeypatch.setattr(module, "_recent", interrupted)
    result = train(tiny.flags(tmp_path, num_epochs=50))
    assert not result.finished
    assert list(checkpoint.steps_of(tmp_path)) == [result.step]
    assert f"interrupted; step {result.step} is saved" in capsys.readouterr().err


def test_a_signal_does_not_wait_for_an_evaluation(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["expertise.youtube8m.train"]
    whole = module.evaluate_source  # type: ignore[attr-defined]

    def interrupted(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return whole(*arguments, **options)

    monkeypatch.setattr(module, "evaluate_source", interrupted)
    result = train(tiny.flags(tmp_path, export_model_steps=4, eval_data_pattern=tiny.validate))
    assert (result.step, result.finished) == (4, False)
    assert list(checkpoint.steps_of(tmp_path)) == [4]
    assert log(tmp_path, "eval") == []


def test_batches_without_a_label_are_no_error(tmp_path: Path) -> None:
    labels = [np.array([1] if n % 2 else [], dtype=np.int64) for n in range(20)]
    records = [
        encode_example({"id": [str(n)], "labels": labels[n], "mean_rgb": np.ones(3)}) for n in range(20)
    ]
    write_records(tmp_path / "a.tfrecord", records)
    flags = Flags(
        train_data_pattern=str(tmp_path / "a.tfrecord"),
        train_dir=str(tmp_path / "run"),
        feature_sizes="3",
        num_classes=2,
        batch_size=1,
        cache_dir=str(tmp_path / "cache"),
        num_readers=1,
    )
    assert train(flags).step == 100


def test_a_new_model_that_can_not_begin_leaves_the_old_one(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path, max_steps=2))
    for change in ({"eval_data_pattern": "none*"}, {"train_data_pattern": "none*"}, {"feature_sizes": "2,2"}):
        with pytest.raises(ValueError, match=r"none\*|expected 2"):
            train(tiny.flags(tmp_path, start_new_model=True, **change))
    assert list(checkpoint.steps_of(tmp_path)) == [2]


def test_streaming_and_cache_are_not_mixed(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path, max_steps=2))
    with pytest.raises(FlagError, match=r"--cache_dir=.*now none"):
        train(tiny.flags(tmp_path, max_steps=3, cache_dir="none"))


def test_the_classes_of_a_run_stay(tiny: Any, tmp_path: Path) -> None:
    other, same_names = tmp_path / "other.csv", tmp_path / "same.csv"
    text = (tiny.folder / "vocabulary.csv").read_text()
    other.write_text(text.replace("name 3", "another"))
    same_names.write_text(text)
    flags = tiny.flags(tmp_path / "run", max_steps=2, vocabulary=str(tiny.folder / "vocabulary.csv"))
    train(flags)
    assert train(dataclasses.replace(flags, vocabulary=str(same_names), max_steps=3)).step == 3
    with pytest.raises(FlagError, match=r"--vocabulary=.*or other names"):
        train(dataclasses.replace(flags, vocabulary=str(other), max_steps=4))


def test_features_that_are_all_zero_are_named(tmp_path: Path) -> None:
    records = [encode_example({"id": [str(n)], "labels": [n % 2], "mean_rgb": np.zeros(6)}) for n in range(9)]
    write_records(tmp_path / "a.tfrecord", records)
    with pytest.raises(FlagError, match="every feature of every video is 0"):
        train(
            Flags(
                train_data_pattern=str(tmp_path / "a.tfrecord"),
                train_dir=str(tmp_path / "run"),
                feature_sizes="6",
                num_classes=2,
                model="MoeModel",
                moe_rank=3,
                cache_dir=str(tmp_path / "cache"),
            )
        )


@pytest.mark.parametrize(
    "name", [n for n in table.of_command("train") if table.ENTRIES[n].resume == table.SAME]
)
def test_every_flag_that_must_stay_is_refused_when_it_changes(name: str) -> None:
    before = dataclasses.asdict(Flags())
    with pytest.raises(FlagError, match=f"--{name} was 'something else'"):
        compare(before | {name: "something else"}, Flags())
