"""Averages of several models: how answers become one, which models fit together, eval and infer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from expertise.youtube8m.checkpoint import steps_of
from expertise.youtube8m.ensemble import AVERAGE, AVERAGES, Ensemble, load_models, split_paths
from expertise.youtube8m.evaluate import evaluate, evaluate_source
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.infer import best_classes, infer, write_model_tgz
from expertise.youtube8m.loading import VideoModel, load_model
from expertise.youtube8m.measure import measure
from expertise.youtube8m.readers import open_videos
from youtube8m.segment_making import (
    SPEC,
    C,
    best_segments,
    one_batch,
    run_flags,
    write_frame_export,
    write_shards,
)

# ---- averages

PROBABILITIES = st.floats(0, 1, width=32)


@pytest.mark.parametrize("average", AVERAGES)
@settings(max_examples=60, deadline=None)
@given(answers=st.lists(PROBABILITIES, min_size=2, max_size=5))
def test_an_average_is_between_the_answers_whatever_their_order(average: str, answers: list[float]) -> None:
    tensors = [torch.tensor([[p]]) for p in answers]
    found = AVERAGES[average](tensors).item()
    assert min(answers) - 1e-6 <= found <= max(answers) + 1e-6
    assert AVERAGES[average](tensors[::-1]).item() == pytest.approx(found, rel=1e-5, abs=1e-7)
    assert 0.0 <= found <= 1.0


def test_log_odds_by_hand() -> None:
    rows = torch.tensor([0.02, 0.5, 0.9]), torch.tensor([0.3, 0.1, 0.95]), torch.tensor([0.2, 0.2, 0.4])
    found = AVERAGES["log_odds"](rows)
    for c, p in enumerate(zip(*(row.tolist() for row in rows), strict=True)):
        odds = np.prod([one / (1 - one) for one in p]) ** (1 / 3)
        assert found[c].item() == pytest.approx(odds / (1 + odds), rel=1e-5)
    assert AVERAGES["probabilities"](rows)[0].item() == pytest.approx((0.02 + 0.3 + 0.2) / 3)


def test_small_answers_stay_apart_and_certain_ones_finite() -> None:
    small = torch.tensor([1e-9, 2e-9, 1e-5])
    found = AVERAGES["log_odds"]([small, small])
    torch.testing.assert_close(found, small, rtol=1e-4, atol=0)
    certain = AVERAGES["log_odds"]([torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.5, 0.5, 0.0])])
    assert bool(certain.isfinite().all())
    assert certain[0] < 0.5 < certain[1]


@pytest.mark.parametrize("average", AVERAGES)
def test_nan_stays_nan_and_the_answers_stay_as_they_are(average: str) -> None:
    answers = [torch.tensor([[0.2, torch.nan]]), torch.tensor([[0.4, 0.5]])]
    before = [answer.clone() for answer in answers]
    assert AVERAGES[average](answers).isnan().tolist() == [[False, True]]
    for answer, old in zip(answers, before, strict=True):
        torch.testing.assert_close(answer, old, equal_nan=True)


# ---- which models


def test_paths_are_split_at_commas_unless_they_are_there(tmp_path: Path) -> None:
    assert split_paths("a") == ["a"]
    assert split_paths("a, b,c") == ["a", "b", "c"]
    for name in ("x,y", "z"):
        (tmp_path / name).mkdir()
    comma, plain = str(tmp_path / "x,y"), str(tmp_path / "z")
    assert split_paths(comma) == [comma]
    assert split_paths(f"{comma},{plain}") == [comma, plain]
    assert split_paths(f"{plain},{comma},b") == [plain, comma, "b"]


def test_one_path_gives_the_model_itself(tmp_path: Path) -> None:
    write_frame_export(tmp_path / "a,b", 3)
    assert isinstance(load_models(str(tmp_path / "a,b"), device="cpu"), VideoModel)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ()}, r"class_names is \('cats', .* in the first and \(\) in the second"),
        ({"num_classes": 6, "class_names": ()}, "num_classes is 5 in the first and 6 in the second"),
        ({"feature_names": ("rgb", "sound")}, r"feature_names is .* and \('rgb', 'sound'\) in the second"),
        ({"feature_sizes": (7, 2)}, r"feature_sizes is \(6, 2\) in the first and \(7, 2\)"),
        ({"label_loss": "HingeLoss"}, "label_loss is 'CrossEntropyLoss' in the first and 'HingeLoss'"),
        ({"max_frames": 300}, "max_frames is 20 in the first and 300 in the second"),
        ({"model": "MoeModel", "frame_features": False}, "frame_features is True in the first and False"),
    ],
)
def test_models_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_frame_export(one, 3)
    write_frame_export(other, 4, **changes)
    with pytest.raises(FlagError, match=f"the models in {one} and {other} can't be averaged: {message}"):
        load_models(f"{one},{other}", device="cpu")


def test_models_may_differ_in_all_else(tmp_path: Path) -> None:
    write_frame_export(tmp_path / "one", 3, model="LstmModel", segment_labels=True)
    write_frame_export(tmp_path / "other", 4)
    found = load_models(f"{tmp_path / 'one'},{tmp_path / 'other'}", device="cpu")
    assert isinstance(found, Ensemble)
    assert (found.step, found.average, found.class_names[0]) == (4, AVERAGE, "cats")


def test_wrong_paths_are_said(tmp_path: Path) -> None:
    write_frame_export(tmp_path / "one", 3)
    one = str(tmp_path / "one")
    with pytest.raises(FlagError, match=r"--train_dir=.*: there is nothing beside a comma"):
        load_models(f"{one},", device="cpu")
    with pytest.raises(FlagError, match=r"one/\. stands there twice|one stands there twice"):
        load_models(f"{one},{one}/.", device="cpu")
    with pytest.raises(FlagError, match="--train_dir=/nowhere does not exist"):
        load_models(f"{one},/nowhere", device="cpu")
    model = load_model(one, device="cpu")
    with pytest.raises(ValueError, match="got 1 members and 1 names"):
        Ensemble((model,), ("one",))
    with pytest.raises(ValueError, match="average must be one of log_odds, probabilities, got 'median'"):
        Ensemble((model, model), ("one", "other"), "median")


# ---- eval


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("averages"), "validate", 30)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three runs, of other steps."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for step, folder in enumerate(folders, start=3):
        write_frame_export(folder, step)
    return folders


def joined(runs: list[Path]) -> str:
    return ",".join(map(str, runs))


def eval_flags(runs: list[Path], pattern: str, **changes: Any) -> Flags:
    values = {"eval_data_pattern": pattern, "run_once": True}
    return run_flags(joined(runs), Path(pattern).parent, **(values | changes))


def averaged(runs: list[Path], features: Any, lengths: Any) -> torch.Tensor:
    answers = [load_model(run, device="cpu").predict(features, lengths) for run in runs]
    return AVERAGES[AVERAGE](answers)


@pytest.mark.parametrize("segment_labels", [False, True])
def test_eval_shows_the_average_and_each_member(
    runs: list[Path], pattern: str, capsys: pytest.CaptureFixture[str], segment_labels: bool
) -> None:
    changes = {"segment_labels": segment_labels}
    found = evaluate(eval_flags(runs, pattern, **changes))
    printed = capsys.readouterr().out
    assert "average of 3 models (log_odds), 30 videos" in printed
    batch = one_batch(pattern, FrameReading(20))
    p, labels = averaged(runs, batch.features, batch.lengths).tolist(), batch.labels.tolist()
    assert found["gap"] == pytest.approx(reference.gap(p, labels), rel=1e-5)
    assert f"{found['gap']:.4f}" in printed
    assert ("segments" in found) == segment_labels

    for run, step, member in zip(runs, (3, 4, 5), found["members"], strict=True):
        alone = evaluate(eval_flags([run], pattern, **changes))
        assert member == {"train_dir": str(run), **alone}
        assert member["step"] == step
        assert f"{member['gap']:.4f}" in printed
        assert f"│ {run.name} " in printed

    [file] = (runs[0] / "evaluation").glob("average_*.json")
    assert str(file) in printed.replace("\n", "")
    written = json.loads(file.read_text())
    assert len(written.pop("classes")) == C
    if segment_labels:
        written["segments"] = {k: v for k, v in written["segments"].items() if k in found["segments"]}
    assert written == {**found, "data_pattern": pattern, "top_k": 20}
    assert list(steps_of(runs[0], "evaluation")) == [3]  # not taken for one of the run's own


def test_one_pass_serves_all(runs: list[Path], pattern: str) -> None:
    model = load_models(joined(runs), device="cpu")
    assert isinstance(model, Ensemble)
    source = open_videos(pattern, SPEC, C, frames=FrameReading(20), cache_dir="none", num_readers=1)
    seen: list[int] = []
    modes: list[bool] = []
    for member in model.members:
        member.module.train()
        member.module.register_forward_hook(lambda m, _, out: modes.append(m.training))
    found = measure(model, source, 16, advance=seen.append)
    assert seen == [16, 14]
    assert modes == [False] * 6
    assert all(member.module.training for member in model.members)
    assert [one.step for one in found] == [5, 3, 4, 5]
    assert evaluate_source(model, source, 7).metrics == pytest.approx(found[0].metrics, rel=1e-5)


def test_each_set_of_exports_has_a_file_of_its_own(runs: list[Path], pattern: str) -> None:
    for chosen in (runs, runs[:2], runs):
        evaluate(eval_flags(chosen, pattern))
    write_frame_export(runs[1], 9)
    evaluate(eval_flags(runs[:2], pattern))
    assert len(list((runs[0] / "evaluation").iterdir())) == 3


def test_several_are_evaluated_once_and_not_followed(
    runs: list[Path], pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "gap" in evaluate(eval_flags(runs, pattern, run_once=False))
    assert "several models are evaluated once, as with --run_once" in capsys.readouterr().err
    missing = [*runs, runs[0].parent / "four"]
    missing[-1].mkdir()
    with pytest.raises(FlagError, match=f"--train_dir={missing[-1]} has no export yet"):
        evaluate(eval_flags(missing, pattern, run_once=False))


def test_a_folder_with_a_comma_is_one_run(tmp_path: Path, pattern: str) -> None:
    write_frame_export(tmp_path / "a,b", 3)
    found = evaluate(eval_flags([tmp_path / "a,b"], pattern))
    assert found["step"] == 3
    assert (tmp_path / "a,b" / "evaluation" / "step_3.json").is_file()


def test_a_member_that_has_diverged_is_said(runs: list[Path], pattern: str) -> None:
    model = load_models(joined(runs), device="cpu")
    assert isinstance(model, Ensemble)
    with torch.no_grad():
        next(model.members[1].module.parameters()).fill_(torch.nan)
    source = open_videos(pattern, SPEC, C, frames=FrameReading(20), cache_dir="none", num_readers=1)
    with pytest.raises(ValueError, match="NaN in row 0; has the training diverged"):
        measure(model, source, 16)


# ---- infer


def infer_flags(runs: list[Path], pattern: str, output: str, **changes: Any) -> Flags:
    values = {"input_data_pattern": pattern, "output_file": str(runs[0].parent / output), "top_k": 2}
    return run_flags(joined(runs), Path(pattern).parent, **(values | changes))


def test_infer_writes_the_average(runs: list[Path], pattern: str) -> None:
    assert infer(infer_flags(runs, pattern, "out.csv")) == 30
    batch = one_batch(pattern, FrameReading(20))
    scores, classes = best_classes(averaged(runs, batch.features, batch.lengths), 2)
    lines = (runs[0].parent / "out.csv").read_text().splitlines()[1:]
    for line, video, row, best in zip(lines, batch.ids, scores, classes, strict=True):
        name, pairs = line.split(",")
        words = pairs.split(" ")
        assert (name, [int(word) for word in words[::2]]) == (video, best.tolist())
        assert [float(word) for word in words[1::2]] == pytest.approx(row.tolist(), rel=1e-4)


def test_infer_writes_the_segments_of_the_average(runs: list[Path], pattern: str) -> None:
    infer(infer_flags(runs, pattern, "out.csv", segment_labels=True, segment_max_pred=3))
    batch = one_batch(pattern, FrameReading(20, "all"))
    scores = averaged(runs, batch.features, batch.lengths).tolist()
    lines = (runs[0].parent / "out.csv").read_text().splitlines()[1:]
    expected = best_segments(batch.ids, scores, range(C), 3)
    assert lines == [f"{c},{' '.join(segments)}" for c, segments in expected.items()]


def test_archives_are_averaged_as_their_runs(runs: list[Path], pattern: str) -> None:
    archives = [run.parent / f"{run.name}.tgz" for run in runs]
    for step, (run, archive) in enumerate(zip(runs, archives, strict=True), start=3):
        write_model_tgz(run / "export" / f"step_{step}", archive)
    infer(infer_flags(runs, pattern, "out.csv"))
    elsewhere = [runs[0].parent / "no run"]
    infer(infer_flags(elsewhere, pattern, "again.csv", input_model_tgz=joined(archives)))
    folder = runs[0].parent
    assert (folder / "again.csv").read_bytes() == (folder / "out.csv").read_bytes()
    with pytest.raises(FlagError, match=r"--input_model_tgz=.*/nowhere.tgz: there is no such file"):
        infer(infer_flags(runs, pattern, "x.csv", input_model_tgz=f"{archives[0]},/nowhere.tgz"))


def test_several_are_not_one_archive(runs: list[Path], pattern: str, tmp_path: Path) -> None:
    flags = infer_flags(runs, pattern, "out.csv", output_model_tgz=str(tmp_path / "model.tgz"))
    with pytest.raises(
        FlagError, match=r"--output_model_tgz writes one model, but --train_dir=.* names several"
    ):
        infer(flags)
    assert not (tmp_path / "out.csv").exists()
