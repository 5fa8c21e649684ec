"""Frame-level models from records to predictions: trained, resumed, evaluated, inferred, one by one."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from expertise.youtube8m.evaluate import evaluate
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.infer import infer
from expertise.youtube8m.loading import load_model
from expertise.youtube8m.model_flags import OPTIONS
from expertise.youtube8m.models import FRAME_MODELS
from expertise.youtube8m.readers import read_batches
from expertise.youtube8m.sample import write_sample
from expertise.youtube8m.train import train

SMALL: dict[str, Any] = {
    **{name: 8 for name in OPTIONS if name.endswith(("_size", "_cells", "_hidden"))},
    "frame_moe_experts": 3,
    "attention_heads": 2,
    "nextvlad_groups": 2,
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    write_sample(folder / "digits", num_train=150, num_validate=12, num_test=11)
    return folder


def flags_of(clips: Path, train_dir: Path, **changes: Any) -> Flags:
    values: dict[str, Any] = {
        "train_dir": str(train_dir),
        "train_data_pattern": f"{clips}/digits/frame/train*",
        "vocabulary": f"{clips}/digits/vocabulary.csv",
        "cache_dir": f"{clips}/cache",
        "feature_names": "rgb,audio",
        "feature_sizes": "64,16",
        "frame_features": True,
        "batch_size": 8,
        "num_epochs": 2,
    }
    return Flags(**{**SMALL, **values, **changes})


def weights(train_dir: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(train_dir / "export" / f"step_{step}" / "model.safetensors")


@pytest.mark.parametrize("model", FRAME_MODELS)
def test_a_resumed_run_is_the_same_run_and_its_model_is_used(
    clips: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"model": model, "dropout": 0.2, "ema_decay": 0.9}
    options |= {"max_steps": 5, "export_model_steps": 2}
    train(flags_of(clips, tmp_path / "whole", **options))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts" / "finished.json").unlink()
    for part in ("checkpoints/step_00000004", "checkpoints/step_00000005", "export/step_4", "export/step_5"):
        shutil.rmtree(tmp_path / "parts" / part)  # as if it had been killed after step 2
    train(flags_of(clips, tmp_path / "parts", **options))
    one, other = weights(tmp_path / "whole", 5), weights(tmp_path / "parts", 5)
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name

    pattern = f"{clips}/digits/frame/test*"
    common = {"train_dir": str(tmp_path / "whole"), "cache_dir": f"{clips}/cache"}
    result = evaluate(Flags(**common, eval_data_pattern=pattern, run_once=True))
    assert result["num_videos"] == 11
    output = tmp_path / "predictions.csv"
    infer(Flags(**common, input_data_pattern=pattern, output_file=str(output), top_k=3, batch_size=4))
    with output.open(newline="") as file:
        lines = {row["VideoId"]: row["LabelConfidencePairs"].split() for row in csv.DictReader(file)}
    trained = load_model(tmp_path / "whole")
    (batch,) = read_batches(
        pattern, feature_names="rgb,audio", feature_sizes="64,16", num_classes=13, frame_features=True,
        cache_dir=f"{clips}/cache",
    )  # fmt: skip
    together = trained.predict(batch.features, batch.lengths)
    for row, video in enumerate(batch.ids):
        best = together[row].topk(3).values.tolist()
        assert [float(score) for score in lines[video][1::2]] == pytest.approx(best, abs=2e-5)


@pytest.mark.parametrize("classifier", ["LogisticModel", "ContextGatedMoeModel", "ChainMoeModel"])
def test_any_video_level_model_stands_on_top(clips: Path, tmp_path: Path, classifier: str) -> None:
    flags = flags_of(
        clips, tmp_path, model="FrameMomentsModel", video_level_classifier_model=classifier, max_steps=3
    )
    assert train(flags).finished
    assert type(load_model(tmp_path).module.model.classifier).__name__ == classifier  # type: ignore[union-attr]


def test_more_frames_than_max_frames_are_left_out(clips: Path, tmp_path: Path) -> None:
    for frames in (5, 300):
        flags = flags_of(clips, tmp_path / str(frames), model="FrameMomentsModel", max_frames=frames)
        train(flags)
    assert load_model(tmp_path / "5").flags.max_frames == 5
    few, all_frames = weights(tmp_path / "5", 8), weights(tmp_path / "300", 8)
    assert not torch.equal(few["norm.running_mean"], all_frames["norm.running_mean"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_features": False}, "--model=LstmModel is a frame-level model; give --frame_features"),
        ({"model": "MoeModel"}, "--frame_features with --model=MoeModel, a video-level model; take one of"),
        ({"model": "MoeModel", "frame_features": False, "segment_labels": True}, "--segment_labels needs"),
        ({"mixup": 0.2}, "--mixup=0.2: frames of two videos are not mixed"),
        ({"video_level_classifier_model": "LstmModel"}, "--video_level_classifier_model='LstmModel' is not"),
        ({"feature_names": "mean_rgb,mean_audio"}, "rgb"),
        ({"feature_sizes": "64,17"}, "17"),
        ({"dbof_pooling_method": "sum"}, "--dbof_pooling_method='sum': allowed are max, average"),
        ({"model": "FrameMoeModel", "frame_moe_k": 4}, "--frame_moe_k=4: a frame can't take more than"),
        ({"model": "NeXtVladModel", "nextvlad_groups": 7}, "--nextvlad_groups=7"),
    ],
)
def test_wrong_flags_are_named(clips: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        train(flags_of(clips, tmp_path / "run", **{"model": "LstmModel", **changes}))
    assert isinstance(error.value, FlagError) or "rgb" in str(error.value) or "17" in str(error.value)
    assert not (tmp_path / "run").exists()
