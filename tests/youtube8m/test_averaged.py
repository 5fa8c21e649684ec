"""The moving average of the weights: what is exported and evaluated, and that a run goes on exactly."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from expertise.youtube8m import checkpoint
from expertise.youtube8m.averaged import AveragedModel
from expertise.youtube8m.checkpoint import CheckpointError
from expertise.youtube8m.evaluate import evaluate
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import load_model
from expertise.youtube8m.models import MoeModel
from expertise.youtube8m.models.context_gated import ContextGatedMoeModel
from expertise.youtube8m.train import train


def saved(train_dir: Path, step: int, name: str = "model", kind: str = "checkpoints") -> dict[str, Tensor]:
    return load_file(checkpoint.steps_of(train_dir, kind)[step] / f"{name}.safetensors")


def alike(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_five_steps_by_hand(decay: float) -> None:
    """w' = d w' + (1 - d) w, d = min(decay, (1 + t) / (10 + t)) at step t = 1, 2, ..."""
    generator = torch.Generator().manual_seed(0)
    model = MoeModel(3, 2)
    model.reset(generator)
    averaged = AveragedModel(model, decay)
    expected = [weight.detach().double().numpy().copy() for weight in model.parameters()]
    for step, first in zip(range(1, 6), (2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15), strict=True):
        model.reset(generator, 3.0)
        averaged.follow(model, step)
        share = min(decay, first)
        for number, weight in enumerate(model.parameters()):
            expected[number] = share * expected[number] + (1 - share) * weight.detach().double().numpy()
    for mine, twin in zip(averaged.model.parameters(), expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), twin, atol=1e-6)


def test_late_in_a_run_the_decay_is_the_flag() -> None:
    model = MoeModel(3, 2)
    averaged = AveragedModel(model, 0.99)
    model.mixture.expert_bias_MC.data.fill_(1.0)
    averaged.follow(model, 10**6)
    assert_close(averaged.model.state_dict()["mixture.expert_bias_MC"], torch.full((2, 2), 0.01))


def test_it_is_a_model_of_its_own() -> None:
    model = MoeModel(3, 2)
    model.reset(torch.Generator().manual_seed(0))
    averaged = AveragedModel(model.train(), 0.9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    averaged.follow(model, 1)
    assert alike(before, model.state_dict())
    assert model.training
    assert not averaged.model.training
    assert not any(weight.requires_grad for weight in averaged.model.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    own = {weight.data_ptr() for weight in averaged.model.parameters()}
    assert own.isdisjoint(weight.data_ptr() for weight in model.parameters())


def test_moments_of_batch_normalisation_are_copied() -> None:
    model = ContextGatedMoeModel(6, 4, gating_rank=2)
    model.reset(torch.Generator().manual_seed(0))
    averaged = AveragedModel(model, 0.999)
    model.train()(torch.randn(20, 6))
    averaged.follow(model, 1000)
    for mine, its in zip(averaged.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, its)
    assert any((buffer != 0).any() and (buffer != 1).any() for buffer in model.buffers())


def test_a_run_exports_and_evaluates_the_average(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "KEPT", 100)
    flags: Flags = tiny.flags(
        tmp_path / "run", ema_decay=0.3, max_steps=5, export_model_steps=1, eval_data_pattern=tiny.validate
    )
    train(flags)
    # at a rate of 0 a step changes nothing: these are the weights that the run began with
    train(dataclasses.replace(flags, train_dir=str(tmp_path / "start"), base_learning_rate=0.0, max_steps=1))
    average = saved(tmp_path / "start", 1)
    for step in range(1, 6):
        weights = saved(tmp_path / "run", step)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in average.items():
            average[name] = decay * value + (1 - decay) * weights[name]
            assert_close(saved(tmp_path / "run", step, kind="export")[name], average[name])
            assert not torch.equal(weights[name], average[name])
        assert alike(
            saved(tmp_path / "run", step, kind="export"), saved(tmp_path / "run", step, name="averaged")
        )
    model = load_model(tmp_path / "run", device="cpu").module.model
    for name, value in model.state_dict().items():
        assert_close(value, average[name])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    logged = next(line for line in lines if line["kind"] == "eval" and line["step"] == 5)
    again = evaluate(
        Flags(
            train_dir=str(tmp_path / "run"),
            eval_data_pattern=tiny.validate,
            run_once=True,
            cache_dir=flags.cache_dir,
            device="cpu",
        )
    )
    assert again["gap"] == pytest.approx(logged["gap"], abs=1e-9)
    assert again["loss"] == pytest.approx(logged["loss"], rel=1e-6)


def test_averaging_does_not_change_the_training(tiny: Any, tmp_path: Path) -> None:
    train(tiny.flags(tmp_path / "with", ema_decay=0.9, max_steps=6))
    train(tiny.flags(tmp_path / "without", max_steps=6))
    assert alike(saved(tmp_path / "with", 6), saved(tmp_path / "without", 6))
    assert not (checkpoint.steps_of(tmp_path / "without")[6] / "averaged.safetensors").exists()
    assert alike(saved(tmp_path / "without", 6), saved(tmp_path / "without", 6, kind="export"))


@pytest.mark.parametrize("model", ["MoeModel", "ContextGatedMoeModel"])
def test_a_run_goes_on_exactly(tiny: Any, tmp_path: Path, model: str) -> None:
    flags = tiny.flags(
        tmp_path / "once", ema_decay=0.95, recipe="reference", model=model, context_gating_rank=2
    )
    step = train(flags).step
    for stop in (4, 11, None):
        train(dataclasses.replace(flags, train_dir=str(tmp_path / "thrice"), max_steps=stop))
    for name in ("model", "averaged", "optimizer"):
        assert alike(saved(tmp_path / "once", step, name), saved(tmp_path / "thrice", step, name))
    assert alike(*(saved(tmp_path / run, step, kind="export") for run in ("once", "thrice")))


def test_a_lost_average_is_named(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(tmp_path, ema_decay=0.9, max_steps=2)
    train(flags)
    (checkpoint.steps_of(tmp_path)[2] / "averaged.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step_00000002 can't be read.*averaged"):
        train(dataclasses.replace(flags, max_steps=3))


def test_another_decay_is_another_run(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(tmp_path, ema_decay=0.9, max_steps=2)
    train(flags)
    for decay in (0.0, 0.99):
        with pytest.raises(FlagError, match=r"--ema_decay was 0\.9"):
            train(dataclasses.replace(flags, ema_decay=decay, max_steps=3))
