"""What a step learns from: mixtures of two videos, and what teachers say."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from expertise.youtube8m import checkpoint
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.lessons import Lessons, mixed
from expertise.youtube8m.loading import load_model
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.reading.source import Batch
from expertise.youtube8m.records import encode_example, parse_example, read_records, write_records
from expertise.youtube8m.train import train

CPU = torch.device("cpu")


def weights(train_dir: Path, kind: str = "checkpoints") -> dict[str, Tensor]:
    steps = checkpoint.steps_of(train_dir, kind)
    return load_file(steps[max(steps)] / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def last_loss(train_dir: Path) -> float:
    loss: float = json.loads((train_dir / "log.jsonl").read_text().splitlines()[-1])["loss"]
    return loss


# ---- mixup


def test_labels_are_mixed_by_the_shares_of_the_features() -> None:
    """Video i has the i-th unit vector for features and for labels: what is mixed shows in both."""
    torch.manual_seed(0)
    x, y = mixed(torch.eye(50), torch.eye(50, dtype=torch.bool), 0.5)
    assert y.dtype == torch.float32
    assert torch.equal(x, y)
    assert (x >= 0).all()
    assert_close(x.sum(dim=1), torch.ones(50))
    assert ((x > 0).sum(dim=1) <= 2).all()
    assert (x.diagonal() > 0).float().mean() > 0.9  # its own share
    off = x - torch.diag(x.diagonal())
    assert ((off > 0).sum(dim=0) <= 1).all()  # every video is the other one of one video
    assert (off > 0).any(dim=1).float().mean() > 0.8


def test_a_mixture_lies_between_its_two_videos() -> None:
    torch.manual_seed(1)
    features = torch.randn(2, 7)
    labels = torch.tensor([[True, True, False], [True, False, False]])
    for _ in range(20):
        x, y = mixed(features, labels, 1.0)
        assert (x >= features.amin(0) - 1e-6).all()
        assert (x <= features.amax(0) + 1e-6).all()
        assert (y[:, 0] == 1).all()
        assert (y[:, 2] == 0).all()


def test_mixing_changes_neither_video() -> None:
    features, labels = torch.randn(9, 3), torch.rand(9, 4) < 0.5
    before = features.clone(), labels.clone()
    mixed(features, labels, 0.3)
    assert torch.equal(features, before[0])
    assert torch.equal(labels, before[1])


def test_the_global_generator_decides() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return mixed(torch.eye(20), torch.eye(20) > 0, 0.4)[0]

    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    torch.manual_seed(0)
    n = 1500
    x, _ = mixed(torch.eye(n), torch.zeros(n, 1, dtype=torch.bool), alpha)
    shares = x.diagonal()
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("alpha", [1e-4, 0.2, 1e6])
def test_few_videos_and_any_alpha(n: int, alpha: float) -> None:
    features, labels = torch.randn(n, 3), torch.ones(n, 2, dtype=torch.bool)
    x, y = mixed(features, labels, alpha)
    assert_close(x, features)
    assert_close(y, labels.float())
    assert mixed(torch.randn(500, 3), torch.ones(500, 2) > 0, alpha)[0].isfinite().all()


def test_mixup_learns_and_its_run_goes_on_exactly(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(tmp_path / "once", mixup=0.3, num_epochs=4, recipe="reference")
    train(flags)
    train(dataclasses.replace(flags, train_dir=str(tmp_path / "twice"), max_steps=7))
    train(dataclasses.replace(flags, train_dir=str(tmp_path / "twice")))
    train(dataclasses.replace(flags, train_dir=str(tmp_path / "without"), mixup=0.0))
    assert same(tmp_path / "once", tmp_path / "twice")
    assert not same(tmp_path / "once", tmp_path / "without")
    first = json.loads((tmp_path / "once" / "log.jsonl").read_text().splitlines()[0])["loss"]
    assert last_loss(tmp_path / "once") < first


def test_frames_are_not_mixed(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(tmp_path, mixup=0.2, frame_features=True)
    with pytest.raises(FlagError, match=r"--mixup=0.2: frames.*not mixed; leave it at 0"):
        Lessons(flags, model_flags_of(flags), Processes.one(CPU))


# ---- teachers


def model_flags_of(flags: Flags, **changes: Any) -> ModelFlags:
    values: dict[str, Any] = {
        "model": flags.model,
        "feature_names": ("mean_rgb", "mean_audio"),
        "feature_sizes": (6, 2),
        "num_classes": 5,
        "class_names": (),
    }
    return ModelFlags(**(values | changes))


@dataclasses.dataclass(frozen=True)
class School:
    """Two trained models, and a batch of videos."""

    first: Path
    second: Path

    @property
    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(12, 8, generator=generator)
        return Batch([str(i) for i in range(12)], features, torch.rand(12, 5, generator=generator) < 0.4)

    def lessons(self, tiny: Any, tmp_path: Path, **changes: Any) -> Lessons:
        flags = tiny.flags(tmp_path, **({"teacher": str(self.first)} | changes))
        return Lessons(flags, model_flags_of(flags), Processes.one(CPU))


@pytest.fixture(scope="module")
def school(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> School:
    folder = tmp_path_factory.mktemp("school")
    train(tiny.flags(folder / "first", num_epochs=6, recipe="reference", base_learning_rate=0.05))
    train(tiny.flags(folder / "second", num_epochs=3, model="LogisticModel"))
    return School(folder / "first", folder / "second")


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("several", [False, True])
def test_the_labels_are_shared_with_the_teachers(
    tiny: Any, tmp_path: Path, school: School, weight: float, several: bool
) -> None:
    paths = [school.first, school.second] if several else [school.first]
    lessons = school.lessons(
        tiny, tmp_path, teacher=" , ".join(str(path) for path in paths), teacher_weight=weight
    )
    batch = school.batch
    lesson = lessons.of(batch, 12)
    said = [load_model(path, device="cpu").predict(batch.features).numpy() for path in paths]
    expected = (1 - weight) * batch.labels.numpy() + weight * np.mean(said, axis=0)
    np.testing.assert_allclose(lesson.labels.numpy(), expected, atol=1e-6)
    assert not lesson.labels.requires_grad
    assert torch.equal(lesson.features, batch.features)
    assert lesson.rows == 12


def test_teachers_are_asked_about_the_mixtures(tiny: Any, tmp_path: Path, school: School) -> None:
    batch = school.batch
    torch.manual_seed(3)
    features, labels = mixed(batch.features, batch.labels, 0.4)
    said = load_model(school.first, device="cpu").predict(features)
    torch.manual_seed(3)
    lesson = school.lessons(tiny, tmp_path, mixup=0.4, teacher_weight=0.25).of(batch, 12)
    assert torch.equal(lesson.features, features)
    assert_close(lesson.labels, 0.75 * labels + 0.25 * said)


def test_without_teachers_and_mixup_the_labels_stay_bool(tiny: Any, tmp_path: Path, school: School) -> None:
    batch = school.batch
    lesson = school.lessons(tiny, tmp_path, teacher="").of(batch, 12)
    assert torch.equal(lesson.labels, batch.labels)
    assert lesson.labels.dtype == torch.bool
    assert lesson.lengths is None
    assert lesson.rated is None


def test_an_empty_part_of_a_batch(tiny: Any, tmp_path: Path, school: School) -> None:
    """Of a last batch in several processes: its share of the rows is what the whole batch has by process."""
    flags = tiny.flags(tmp_path, teacher=str(school.first), mixup=0.3)
    empty = Batch([], torch.zeros(0, 8), torch.zeros(0, 5, dtype=torch.bool))
    lesson = Lessons(flags, model_flags_of(flags), Processes(1, 2, CPU)).of(empty, 1)
    assert lesson.features.shape == (0, 8)
    assert lesson.labels.shape == (0, 5)
    assert lesson.rows == 0.5


def test_bfloat16_is_the_teachers_too(tiny: Any, tmp_path: Path, school: School) -> None:
    batch = school.batch
    half, full = (
        school.lessons(tiny, tmp_path, teacher_weight=1.0, precision=precision).of(batch, 12).labels
        for precision in ("bf16", "fp32")
    )
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert_close(half, full, atol=0.03, rtol=0)


def relabelled(folder: Path, source: Path) -> Path:
    """The same videos with other labels."""
    for file in sorted(source.glob("train*.tfrecord")):
        records = []
        for record in read_records(file):
            video = parse_example(record)
            others = sorted((int(label) + 1) % 5 for label in video["labels"])
            records.append(encode_example({**video, "labels": others}))
        write_records(folder / file.name, records)
    return folder


def test_a_teacher_of_weight_1_is_learned_alone(tiny: Any, tmp_path: Path, school: School) -> None:
    """Wrong labels change nothing, and the student comes to say what the teacher says."""
    (tmp_path / "data").mkdir()
    others = str(relabelled(tmp_path / "data", tiny.folder) / "train*.tfrecord")
    student = tiny.flags(
        tmp_path / "student",
        teacher=str(school.first),
        teacher_weight=1.0,
        num_epochs=12,
        recipe="reference",
        base_learning_rate=0.05,
    )
    train(student)
    short = dataclasses.replace(student, max_steps=5)
    for name, changes in {
        "right": {},
        "wrong": {"train_data_pattern": others},
        "half": {"teacher_weight": 0.5},
    }.items():
        train(dataclasses.replace(short, train_dir=str(tmp_path / name), **changes))
    assert same(tmp_path / "right", tmp_path / "wrong")
    assert not same(tmp_path / "right", tmp_path / "half")
    batch = school.batch
    taught, said = (
        load_model(path, device="cpu").predict(batch.features)
        for path in (tmp_path / "student", school.first)
    )
    assert (taught - said).abs().mean() < 0.05
    assert (batch.labels.float() - said).abs().mean() > 0.2


def test_a_run_with_everything_goes_on_exactly(tiny: Any, tmp_path: Path, school: School) -> None:
    flags = tiny.flags(
        tmp_path / "once",
        teacher=f"{school.first},{school.second}",
        mixup=0.2,
        ema_decay=0.9,
        dropout=0.2,
        model="ContextGatedMoeModel",
        context_gating_rank=2,
        recipe="reference",
    )
    train(flags)
    for stop in (5, 11, None):
        train(dataclasses.replace(flags, train_dir=str(tmp_path / "thrice"), max_steps=stop))
    assert same(tmp_path / "once", tmp_path / "thrice")
    averages = [weights(tmp_path / run, "export") for run in ("once", "thrice")]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])
    assert not torch.equal(averages[0]["mixture.gate_GCH"], weights(tmp_path / "once")["mixture.gate_GCH"])


@pytest.mark.parametrize("label_loss", ["HingeLoss", "SoftmaxLoss"])
def test_every_loss_takes_shares(tiny: Any, tmp_path: Path, school: School, label_loss: str) -> None:
    train(tiny.flags(tmp_path, teacher=str(school.first), mixup=0.2, label_loss=label_loss, max_steps=4))
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def change_flags(**changes: Any) -> Callable[[School, Path], Path]:
    """Make a teacher whose flags say something else."""

    def make(school: School, folder: Path) -> Path:
        newest = max(checkpoint.steps_of(school.first, "export").items())[1]
        shutil.copytree(newest, folder / "teacher")
        file = folder / "teacher" / "model_flags.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return folder / "teacher"

    return make


def test_a_teachers_folder_may_hold_a_comma(tiny: Any, tmp_path: Path, school: School) -> None:
    shutil.copytree(school.first, tmp_path / "a,b")
    lessons = school.lessons(tiny, tmp_path / "run", teacher=f"{tmp_path / 'a,b'}, {school.second}")
    assert len(lessons._teachers) == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            change_flags(feature_names=["mean_audio", "mean_rgb"]),
            r"has feature_names \('mean_audio', 'mean_rgb'\), this run has \('mean_rgb', 'mean_audio'\)",
        ),
        (change_flags(feature_sizes=[5, 3]), r"has feature_sizes \(5, 3\), this run has \(6, 2\)"),
        (change_flags(frame_features=True), "has frame_features True, this run has False"),
        (change_flags(class_names=list("abcde")), r"has class_names \('a', 'b', 'c', 'd', 'e'\), this run"),
        (lambda school, folder: folder / "none", "none does not exist; give the folder of a run"),
        (lambda school, folder: folder, "has no export yet; give the folder of a run"),
        (lambda school, folder: f"{school.first},", "there is nothing beside a comma"),
    ],
    ids=["features", "sizes", "frames", "names", "missing", "empty", "comma"],
)
def test_a_wrong_teacher_is_named(
    tiny: Any, tmp_path: Path, school: School, make: Callable[[School, Path], Any], said: str
) -> None:
    path = make(school, tmp_path)
    with pytest.raises(FlagError, match=rf"^--teacher={path}: .*{said}"):
        school.lessons(tiny, tmp_path / "run", teacher=str(path))


def test_a_teacher_of_other_classes_ends_the_run_before_it_begins(
    tiny: Any, tmp_path: Path, school: School
) -> None:
    flags = tiny.flags(tmp_path / "run", num_classes=6, teacher=str(school.first))
    with pytest.raises(FlagError, match="has num_classes 5, this run has 6; a teacher must see the same"):
        train(flags)
    assert not (tmp_path / "run").exists()


def test_another_teacher_is_another_run(tiny: Any, tmp_path: Path, school: School) -> None:
    flags = tiny.flags(tmp_path, teacher=str(school.first), max_steps=1)
    train(flags)
    with pytest.raises(FlagError, match="--teacher was"):
        train(dataclasses.replace(flags, teacher=str(school.second), max_steps=2))
    with pytest.raises(FlagError, match=r"--teacher_weight was 0\.5, now 0\.9"):
        train(dataclasses.replace(flags, teacher_weight=0.9, max_steps=2))
