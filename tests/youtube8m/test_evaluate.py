"""Evaluation: the right figures, written down, and following a run that trains."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reference
from expertise.youtube8m import checkpoint
from expertise.youtube8m import evaluate as module
from expertise.youtube8m.evaluate import evaluate, evaluate_source, write_evaluation
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import Classifier, VideoModel, load_model
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import build_model
from expertise.youtube8m.readers import open_videos, read_batches
from expertise.youtube8m.records import encode_example, write_records
from expertise.youtube8m.videos import FeatureSpec

NAMES = ("cats", "dogs", "[red]fish", "trees", "stones")


def write_export(train_dir: Path, step: int, **changes: Any) -> VideoModel:
    """Put an untrained model where training puts its exports."""
    values = {"model": "MoeModel", "feature_names": ("mean_rgb", "mean_audio"), "feature_sizes": (6, 2)}
    flags = ModelFlags(**(values | {"num_classes": 5, "class_names": NAMES} | changes))
    model = build_model(flags)
    model.reset(torch.Generator().manual_seed(step), scale=20.0)
    optimizer = torch.optim.SGD(model.parameters())
    checkpoint.save(train_dir, step, model, optimizer, {}, flags)
    return VideoModel(Classifier(model).eval(), flags, step, torch.device("cpu"))


def eval_flags(tiny: Any, train_dir: Path, **changes: Any) -> Flags:
    values = {
        "train_dir": str(train_dir),
        "eval_data_pattern": tiny.validate,
        "cache_dir": str(tiny.folder / "cache"),
        "num_readers": 1,
        "device": "cpu",
        "batch_size": 64,
        "run_once": True,
    }
    return Flags(**(values | changes))


def everything(tiny: Any, model: VideoModel) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(
        read_batches(tiny.validate, feature_sizes="6,2", num_classes=5, batch_size=1000, cache_dir="none")
    )
    assert len(batches) == 1
    return model.predict(batches[0].features), batches[0].labels


def evaluation_file(train_dir: Path, step: int) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((train_dir / "evaluation" / f"step_{step}.json").read_text())
    return result


@pytest.mark.parametrize("label_loss", sorted(LOSSES))
def test_figures_are_those_of_the_slow_twins(tiny: Any, tmp_path: Path, label_loss: str) -> None:
    model = write_export(tmp_path, 7, label_loss=label_loss)
    predictions, labels = everything(tiny, model)
    rows, truth = predictions.tolist(), labels.tolist()
    by_class = reference.class_average_precisions(rows, truth, top_k=3)
    expected = {
        "step": 7,
        "loss": LOSSES[label_loss](predictions, labels).item(),
        "hit_at_1": reference.hit_at_1(rows, truth),
        "perr": reference.perr(rows, truth),
        "map": sum(by_class.values()) / len(by_class),
        "gap": reference.gap(rows, truth, top_k=3),
        "num_classes_in_map": len(by_class),
        "num_videos": 200,
    }
    found = evaluate(eval_flags(tiny, tmp_path, top_k=3))
    assert found == pytest.approx(expected, rel=1e-5)

    written = evaluation_file(tmp_path, 7)
    classes = written.pop("classes")
    assert written == {**found, "data_pattern": tiny.validate, "top_k": 3}
    assert [(entry["index"], entry["name"]) for entry in classes] == list(enumerate(NAMES))
    assert [entry["positives"] for entry in classes] == labels.sum(0).tolist()
    precisions = {entry["index"]: entry["average_precision"] for entry in classes}
    assert {c: ap for c, ap in precisions.items() if ap is not None} == pytest.approx(by_class, rel=1e-5)


def test_batch_size_cache_and_readers_do_not_change_the_figures(tiny: Any, tmp_path: Path) -> None:
    write_export(tmp_path, 1)
    whole = evaluate(eval_flags(tiny, tmp_path))
    for changes in ({"batch_size": 1}, {"batch_size": 199}, {"cache_dir": "none"}, {"num_readers": 3}):
        assert evaluate(eval_flags(tiny, tmp_path, **changes)) == pytest.approx(whole, rel=1e-5)


def test_precision_is_that_of_the_flag(tiny: Any, tmp_path: Path) -> None:
    write_export(tmp_path, 1)
    full = evaluate(eval_flags(tiny, tmp_path))
    half = evaluate(eval_flags(tiny, tmp_path, precision="bf16"))
    assert half["loss"] != full["loss"]
    assert half["loss"] == pytest.approx(full["loss"], rel=0.05)


def test_a_class_without_a_video_has_no_average_precision(tiny: Any, tmp_path: Path) -> None:
    write_export(tmp_path, 1, num_classes=6, class_names=(*NAMES, "unseen"))
    assert evaluate(eval_flags(tiny, tmp_path))["num_classes_in_map"] <= 5
    unseen = evaluation_file(tmp_path, 1)["classes"][5]
    assert unseen == {"index": 5, "name": "unseen", "positives": 0, "average_precision": None}


def test_it_prints_the_figures_and_the_frequent_classes(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_export(tmp_path, 1)
    found = evaluate(eval_flags(tiny, tmp_path))
    printed = capsys.readouterr().out
    assert "step 1, 200 videos" in printed
    assert all(f"{found[name]:.4f}" in printed for name in ("loss", "hit_at_1", "perr", "map", "gap"))
    assert "[red]fish" in printed
    assert str(tmp_path / "evaluation" / "step_1.json") in printed.replace("\n", "")


def test_the_figures_are_shown_where_nothing_may_be_written(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> None:
        raise OSError("read-only file system")

    write_export(tmp_path, 7)
    monkeypatch.setattr(checkpoint, "write_json", refused)
    with pytest.raises(OSError, match="read-only"):
        evaluate(eval_flags(tiny, tmp_path))
    told = capsys.readouterr().out
    assert "GAP" in told
    assert "mAP is over 5 classes" in told
    assert "all classes are in" not in told


def test_only_the_newest_export_is_evaluated_once(tiny: Any, tmp_path: Path) -> None:
    for step in (2, 10, 9):
        write_export(tmp_path, step)
    assert evaluate(eval_flags(tiny, tmp_path))["step"] == 10
    assert list(checkpoint.steps_of(tmp_path, "evaluation")) == [10]


def test_one_export_folder_can_be_evaluated_by_itself(tiny: Any, tmp_path: Path) -> None:
    for step in (2, 10):
        write_export(tmp_path, step)
    flags = eval_flags(tiny, tmp_path / "export" / "step_2", run_once=False)
    assert evaluate(flags)["step"] == 2


def test_evaluating_does_not_change_the_model_and_puts_it_in_eval_mode(tiny: Any, tmp_path: Path) -> None:
    model = write_export(tmp_path, 1)
    model.module.train()
    seen = []
    model.module.register_forward_hook(lambda m, _, out: seen.append(m.training))
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    spec = FeatureSpec(("mean_rgb", "mean_audio"), (6, 2))
    source = open_videos(tiny.validate, spec, 5, cache_dir="none", num_readers=1)
    sizes: list[int] = []
    first = evaluate_source(model, source, 70, 3, advance=sizes.append)
    assert sizes == [70, 70, 60]
    assert seen == [False] * 3
    assert model.module.training
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert evaluate_source(model, source, 70, 3).metrics == first.metrics
    file = write_evaluation(tmp_path, first)
    assert json.loads(file.read_text())["data_pattern"] == ""


class Run:
    """Stands for a training that runs beside: a step of the script at every look of the evaluation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Iterator[Any]) -> None:
        self.looks = 0
        self._script = script
        monkeypatch.setattr(module, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        assert seconds == module.POLL_SECONDS >= 1  # it sleeps, and does not ask without pause
        self.looks += 1
        next(self._script)


def test_follows_a_run_to_its_end(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def script() -> Iterator[None]:
        yield  # nothing yet: the folder is not even there
        write_export(tmp_path / "run", 5)
        yield
        yield  # nothing new
        write_export(tmp_path / "run", 10)
        write_export(tmp_path / "run", 15)
        yield
        write_export(tmp_path / "run", 17)
        checkpoint.write_json(tmp_path / "run" / "finished.json", {"step": 17})
        yield
        raise AssertionError("it did not end with the run")

    run = Run(monkeypatch, script())
    evaluated = []
    once = module._evaluate_export
    monkeypatch.setattr(
        module,
        "_evaluate_export",
        lambda flags, folder, data: evaluated.append(folder.name) or once(flags, folder, data),
    )
    found = evaluate(eval_flags(tiny, tmp_path / "run", run_once=False))
    assert evaluated == ["step_5", "step_15", "step_17"]
    assert found["step"] == 17
    assert run.looks == 5
    assert capsys.readouterr().err.count(f"waiting for the first export in {tmp_path / 'run'}") == 1


def test_a_finished_run_is_evaluated_without_waiting(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(monkeypatch, iter(()))
    write_export(tmp_path, 3)
    checkpoint.write_json(tmp_path / "finished.json", {"step": 3})
    assert evaluate(eval_flags(tiny, tmp_path, run_once=False))["step"] == 3
    assert run.looks == 0


def test_an_export_removed_while_it_is_loaded_is_passed_over(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_export(tmp_path, 3)
    load = module.load_model

    def slow(folder: Path, **settings: Any) -> VideoModel:
        if folder.name == "step_3":
            shutil.rmtree(folder)
            write_export(tmp_path, 4)
            checkpoint.write_json(tmp_path / "finished.json", {"step": 4})
        return load(folder, **settings)

    monkeypatch.setattr(module, "load_model", slow)
    assert evaluate(eval_flags(tiny, tmp_path, run_once=False))["step"] == 4


def test_errors_are_not_swallowed_while_following(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(monkeypatch, iter(()))
    write_export(tmp_path, 3)
    (tmp_path / "export" / "step_3" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(checkpoint.CheckpointError, match=r"step_3 can't be read"):
        evaluate(eval_flags(tiny, tmp_path, run_once=False))


@pytest.mark.parametrize("steps", [0, 1])
def test_ctrl_c_ends_following_cleanly(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sleep", interrupt)
    if steps:
        write_export(tmp_path, 8)
    found = evaluate(eval_flags(tiny, tmp_path, run_once=False))
    assert found.get("step") == (8 if steps else None)
    said = capsys.readouterr().err
    assert ("the last step evaluated is 8" if steps else "no step was evaluated") in said


def test_other_features_in_a_new_run_are_read_anew(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script() -> Iterator[None]:
        write_export(tmp_path, 9, feature_names=("mean_rgb",), feature_sizes=(6,))
        checkpoint.write_json(tmp_path / "finished.json", {"step": 9})
        yield

    Run(monkeypatch, script())
    write_export(tmp_path, 3)
    assert evaluate(eval_flags(tiny, tmp_path, run_once=False))["step"] == 9


def unlabelled(folder: Path) -> str:
    records = [
        encode_example(
            {"id": ["x"], "mean_rgb": np.ones(6, np.float32), "mean_audio": np.ones(2, np.float32)}
        )
    ] * 3
    write_records(folder / "test0.tfrecord", records)
    return str(folder / "test0.tfrecord")


@pytest.mark.parametrize("cache", ["cache", "none"])
def test_videos_without_any_label_are_an_error(tiny: Any, tmp_path: Path, cache: str) -> None:
    write_export(tmp_path / "run", 3)
    pattern = unlabelled(tmp_path)
    cache_dir = cache if cache == "none" else str(tmp_path / cache)
    flags = eval_flags(tiny, tmp_path / "run", eval_data_pattern=pattern, cache_dir=cache_dir)
    with pytest.raises(ValueError, match="none of the 3 videos has a label"):
        evaluate(flags)
    assert not (tmp_path / "run" / "evaluation").exists()


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (False, {}, "--train_dir=.* has no export yet"),
        (True, {"eval_data_pattern": ""}, "--eval_data_pattern is required by eval"),
        (True, {"eval_data_pattern": "/nowhere/*"}, "--eval_data_pattern='/nowhere/.*no file matches"),
        (True, {"top_k": 0}, "--top_k=0: must be at least 1"),
        (True, {"segment_labels": True}, "--segment_labels: MoeModel in .* is a video-level model"),
        (True, {"precision": "fp8"}, "--precision='fp8': allowed are fp32, bf16"),
    ],
)
def test_wrong_flags_are_named(
    tiny: Any, tmp_path: Path, make: bool, changes: dict[str, Any], message: str
) -> None:
    if make:
        write_export(tmp_path, 1)
    with pytest.raises(ValueError, match=message):
        evaluate(eval_flags(tiny, tmp_path, **changes))


def test_a_run_that_finished_without_an_export_is_an_error(tiny: Any, tmp_path: Path) -> None:
    checkpoint.write_json(tmp_path / "finished.json", {"step": 3})
    with pytest.raises(FlagError, match="the run has finished, but there is no export"):
        evaluate(eval_flags(tiny, tmp_path, run_once=False))


def test_a_diverged_model_is_said(tiny: Any, tmp_path: Path) -> None:
    model = write_export(tmp_path, 1)
    with torch.no_grad():
        next(model.module.parameters()).fill_(torch.nan)
    spec = FeatureSpec(("mean_rgb", "mean_audio"), (6, 2))
    source = open_videos(tiny.validate, spec, 5, cache_dir="none", num_readers=1)
    with pytest.raises(ValueError, match="NaN in row 0; has the training diverged"):
        evaluate_source(model, source, 64)


def test_evaluating_beside_a_real_training(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from expertise.youtube8m.train import train

    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    results: list[dict[str, Any]] = []

    def follow() -> None:
        results.append(evaluate(eval_flags(tiny, tmp_path / "run", run_once=False)))

    follower = threading.Thread(target=follow)
    follower.start()
    result = train(tiny.flags(tmp_path / "run", max_steps=12, export_model_steps=3))
    follower.join(timeout=60)
    assert results
    assert results[0]["step"] == result.step == 12
    again = load_model(tmp_path / "run")
    predictions, labels = everything(tiny, again)
    assert results[0]["gap"] == pytest.approx(reference.gap(predictions.tolist(), labels.tolist()), rel=1e-5)
