"""The stable recipe: where training starts, and what it protects from."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expertise.youtube8m import recipe
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.models import LogisticModel, MoeModel, l2_normalize
from expertise.youtube8m.optimizers import OPTIMIZERS
from expertise.youtube8m.readers import VideoSource, open_videos
from expertise.youtube8m.train import train
from expertise.youtube8m.videos import FeatureSpec


@pytest.fixture
def source(tiny: Any) -> VideoSource:
    return open_videos(
        tiny.train, FeatureSpec.parse("mean_rgb,mean_audio", "6,2"), 5, cache_dir=str(tiny.folder / "cache")
    )


def begin(flags: Flags, source: VideoSource) -> MoeModel:
    rank, scale, _ = recipe.scales(flags, 8)
    model = MoeModel(8, 5, rank=rank, input_scale=scale)
    recipe.begin(flags, model, OPTIMIZERS["Adam"](model.parameters()), source)
    return model


def test_shapes_of_the_two_recipes() -> None:
    moe = Flags(model="MoeModel")
    assert recipe.scales(moe, 1152) == (512, pytest.approx(math.sqrt(1152) * 0.04), 0)
    assert recipe.scales(moe, 80) == (0, pytest.approx(math.sqrt(80) * 0.2), 0)
    logistic = Flags(model="LogisticModel")
    assert recipe.scales(logistic, 1152) == (0, pytest.approx(math.sqrt(1152) * 0.2), 0)
    frames = Flags(model="LstmModel", frame_features=True)
    assert recipe.scales(frames, 1152) == (0, 1.0, 0.2)
    assert recipe.scales(dataclasses.replace(moe, moe_rank=0), 1152)[0] == 0
    assert recipe.scales(dataclasses.replace(moe, recipe="reference"), 1152) == (0, 1.0, 0)


@pytest.mark.parametrize("rank", [0, 4])
def test_it_starts_near_the_rates_of_the_classes(source: VideoSource, rank: int) -> None:
    model = begin(Flags(model="MoeModel", moe_rank=rank), source)
    batch = next(source.batches(600))
    rates = batch.labels.float().mean(dim=0)
    given = model(l2_normalize(batch.features)).mean(dim=0)
    assert (given / rates - 1).abs().max() < 0.2


def test_the_projection_gives_what_gates_are_made_for(source: VideoSource) -> None:
    model = begin(Flags(model="MoeModel", moe_rank=4), source)
    assert model.seen.projection_RD is not None
    x = l2_normalize(next(source.batches(600)).features) * model.input_scale
    seen = x @ model.seen.projection_RD.T
    assert seen.square().mean().sqrt().item() == pytest.approx(recipe.KAPPA, rel=1e-3)


def test_the_projection_keeps_the_directions_that_tell_classes_apart(tmp_path: Path) -> None:
    """Two of eight features decide the label; a projection to two values must look at just these."""
    from expertise.youtube8m.records import encode_example, write_records

    random = np.random.default_rng(0)
    records = []
    for number in range(2000):
        x = random.standard_normal(8).astype(np.float32)
        labels = [c for c in range(2) if x[[1, 6][c]] > 0]
        records.append(
            encode_example({"id": [str(number)], "labels": np.array(labels, np.int64), "mean_rgb": x})
        )
    write_records(tmp_path / "a.tfrecord", records)
    source = open_videos(
        str(tmp_path / "a.tfrecord"), FeatureSpec.parse("mean_rgb", "8"), 2, cache_dir=str(tmp_path / "cache")
    )
    model = MoeModel(8, 2, rank=2, input_scale=1.0)
    recipe.begin(Flags(model="MoeModel"), model, OPTIMIZERS["Adam"](model.parameters()), source)
    assert model.seen.projection_RD is not None
    energy = model.seen.projection_RD.detach().square().sum(dim=0)
    assert energy[[1, 6]].sum() > 0.98 * energy.sum()


def test_the_start_is_repeatable_and_depends_on_the_seed(source: VideoSource) -> None:
    flags = Flags(model="MoeModel", moe_rank=4)
    first, second = begin(flags, source), begin(flags, source)
    other = begin(dataclasses.replace(flags, seed=1), source)
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == (a is first.mixture.expert_bias_MC)  # the rates are the same


def test_the_reference_starts_as_the_reference(source: VideoSource) -> None:
    model = begin(Flags(model="MoeModel", recipe="reference"), source)
    assert model.rank == 0
    assert not model.mixture.expert_bias_MC.any()
    assert model.mixture.gate_GCH.abs().max().item() == pytest.approx(math.sqrt(6 / (8 + 15)), rel=0.05)


def test_epsilon_is_the_recipes_for_adam_only_in_the_stable_recipe(source: VideoSource) -> None:
    for name, expected in (("stable", recipe.EPSILON), ("reference", 1e-8)):
        model = LogisticModel(8, 5)
        optimizer = OPTIMIZERS["Adam"](model.parameters())
        recipe.begin(Flags(recipe=name), model, optimizer, source)
        assert optimizer.epsilon_hat == expected  # type: ignore[attr-defined]


def test_a_merged_model_is_the_same_function() -> None:
    generator = torch.Generator().manual_seed(0)
    model = MoeModel(20, 6, 3, rank=5, input_scale=1.7)
    model.reset(generator, 4.0)
    model.mixture.expert_bias_MC.data = torch.randn(3, 6, generator=generator)
    x = torch.randn(30, 20, generator=generator)
    full = model.merged()
    assert full.rank == 0
    assert full.input_scale == 1.0
    torch.testing.assert_close(full(x), model(x), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"rank=5 and input_scale=1\.7"):
        model.load_reference_weights(torch.zeros(20, 24), torch.zeros(20, 18), torch.zeros(18))


def test_it_does_not_overshoot_where_the_reference_does(tmp_path: Path) -> None:
    """Many rare classes and few videos: the loss of the reference's recipe explodes, the stable one's falls.

    Every class is rare (1 video in 200), nothing in the input tells them apart, and there are 400 of them:
    the best that can be learned is the rate, with a loss of 400 times the entropy of .005, 12.6.
    """
    from expertise.youtube8m.records import encode_example, write_records

    random = np.random.default_rng(0)

    def shard(name: str, videos: int) -> str:
        records = []
        for number in range(videos):
            x = (random.standard_normal(256) + 1.0).astype(np.float32)
            labels = np.flatnonzero(random.random(400) < 0.005)
            records.append(encode_example({"id": [str(number)], "labels": labels, "mean_rgb": x}))
        write_records(tmp_path / f"{name}.tfrecord", records)
        return str(tmp_path / f"{name}.tfrecord")

    flags = Flags(
        train_data_pattern=shard("train", 2000),
        eval_data_pattern=shard("validate", 500),
        feature_sizes="256",
        num_classes=400,
        batch_size=100,
        cache_dir=str(tmp_path / "cache"),
        num_readers=1,
        device="cpu",
    )
    losses = {}
    for name in ("stable", "reference"):
        folder = tmp_path / name
        train(dataclasses.replace(flags, train_dir=str(folder), recipe=name, export_model_steps=25))
        records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        losses[name] = [record["loss"] for record in records if record["kind"] == "eval"]
    assert max(losses["stable"]) < 14.5
    assert max(losses["reference"]) > 1.3 * max(losses["stable"])


@pytest.mark.slow
def test_on_real_records_the_default_flags_do_not_overshoot(data_dir: Path, tmp_path: Path) -> None:
    """Some 5,900 videos, all flags at their defaults: the reference's loss explodes, ours stays small."""
    part = str(data_dir / "youtube8m" / "yt8m_video_u8_part{}.npz")
    flags = Flags(
        train_data_pattern=part.format(0),
        eval_data_pattern=part.format(5),
        feature_names="mean_rgb,mean_audio",
        feature_sizes="1024,128",
        model="MoeModel",
        cache_dir=str(tmp_path / "cache"),
    )
    last = {}
    for name in ("stable", "reference"):
        folder = tmp_path / name
        train(dataclasses.replace(flags, train_dir=str(folder), recipe=name))
        last[name] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert last["stable"]["loss"] < 15
    assert last["reference"]["loss"] > 20 * last["stable"]["loss"]
    assert last["stable"]["gap"] > last["reference"]["gap"] + 0.1
