"""The bags of frames and the mean frame: against slow twins, and what must hold for each of them."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.loading import Classifier, prepare
from expertise.youtube8m.losses import cross_entropy_loss
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import (
    AbstractFrameModel,
    DbofModel,
    LogisticModel,
    MoeModel,
    build_model,
    l2_normalize,
)
from expertise.youtube8m.models._batch_norm import BatchNorm
from expertise.youtube8m.models._frame_sums import (
    extremes,
    extremes_and_squares,
    normalize_clusters,
    standard_product,
)
from youtube8m import twins_vlad as twins

D, C = 8, 5
SMALL: dict[str, Any] = {
    "video_level_classifier_model": "LogisticModel",
    "iterations": 4,
    "dbof_cluster_size": 12,
    "dbof_hidden_size": 6,
    "netvlad_cluster_size": 3,
    "netvlad_hidden_size": 6,
    "nextvlad_cluster_size": 3,
    "nextvlad_groups": 2,
    "nextvlad_hidden_size": 6,
    "nextvlad_reduction": 2,
    "moe_rank": 0,
}
# every model, and DbofModel in each of its shapes
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("FrameLevelLogisticModel", {}),
    "dbof": ("DbofModel", {}),
    "dbof-all": ("DbofModel", {"iterations": 0}),
    "dbof-mean": ("DbofModel", {"dbof_pooling_method": "average", "dbof_activation": "tanh"}),
    "dbof-all-mean": ("DbofModel", {"iterations": 0, "dbof_pooling_method": "average"}),
    "dbof-bias": ("DbofModel", {"dbof_add_batch_norm": False, "dbof_activation": "relu"}),
    "dbof-all-bias": ("DbofModel", {"dbof_add_batch_norm": False, "iterations": 0}),
    "dbof-bias-mean": (
        "DbofModel",
        {"dbof_add_batch_norm": False, "dbof_pooling_method": "average", "dbof_activation": "relu6"},
    ),
    "netvlad": ("NetVladModel", {}),
    "nextvlad": ("NeXtVladModel", {}),
}
every_case = pytest.mark.parametrize("case", CASES)


def flags_of(model: str, value_scale: float = 0.0, **options: Any) -> ModelFlags:
    return ModelFlags(
        model=model,
        feature_names=("rgb", "audio"),
        feature_sizes=(6, 2),
        num_classes=C,
        class_names=(),
        frame_features=True,
        value_scale=value_scale,
        options=Flags(**(SMALL | options)),
    )


def build(case: str, seed: int = 0, **options: Any) -> AbstractFrameModel:
    """A model whose batch normalisations are not those of the start; half of their scales are negative."""
    name, own = CASES[case]
    model = build_model(flags_of(name, **(own | options)))
    assert isinstance(model, AbstractFrameModel)
    generator = torch.Generator().manual_seed(seed)
    model.reset(generator)
    for norm in model.modules():
        if isinstance(norm, BatchNorm):
            with torch.no_grad():
                for value in (norm.weight, norm.bias, norm.running_mean):
                    value.normal_(generator=generator)
                norm.running_variance.uniform_(0.5, 2.0, generator=generator)
    return model


def batch(lengths: list[int], L: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normalised frames (B, L, D), padding 0, and lengths."""
    lengths_B = torch.tensor(lengths)
    x = torch.zeros(len(lengths), L, D)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + row)
        x[row, :length] = l2_normalize(torch.randn(length, D, generator=generator) + 0.5)
    return x, lengths_B


def weights_of(model: nn.Module) -> twins.Weights:
    return {name: value.detach().double().numpy() for name, value in model.state_dict().items()}


def twin_of(case: str, model: AbstractFrameModel, videos: list[np.ndarray], training: bool) -> np.ndarray:
    name, own = CASES[case]
    if name == "FrameLevelLogisticModel":
        return np.stack([video.sum(axis=0) / max(len(video), 1) for video in videos])
    if name == "DbofModel":
        pooling, activation = own.get("dbof_pooling_method", "max"), own.get("dbof_activation", "sigmoid")
        return twins.dbof(videos, weights_of(model), training, pooling, activation)
    return {"NetVladModel": twins.netvlad, "NeXtVladModel": twins.nextvlad}[name](
        videos, weights_of(model), training
    )


def looked_at(model: AbstractFrameModel, x: Tensor, lengths: Tensor, seed: int) -> list[np.ndarray]:
    """The frames of each video that the model sees; those that it samples, by torch's generator."""
    real = [video[:length].double().numpy() for video, length in zip(x, lengths.tolist(), strict=True)]
    if not isinstance(model, DbofModel) or model.iterations == 0:
        return real
    if not model.training:
        return [video[twins.even_frames(len(video), model.iterations)] for video in real]
    torch.manual_seed(seed)
    frames_BI = model._choice(lengths)
    return [
        video[frames.numpy() if len(video) else []] for video, frames in zip(real, frames_BI, strict=True)
    ]


@every_case
@pytest.mark.parametrize("training", [True, False])
def test_values_equal_a_slow_twin(case: str, training: bool) -> None:
    for seed, lengths in enumerate([[7, 3, 5], [6, 0, 1, 2], [4]]):
        model = build(case, seed).double().train(training)
        x, lengths_B = batch(lengths, 7, seed)
        expected = twin_of(case, model, looked_at(model, x, lengths_B, seed), training)
        torch.manual_seed(seed)
        actual = model.encode(x.double(), lengths_B).detach()
        np.testing.assert_allclose(actual.numpy(), expected, atol=1e-9)


def test_running_moments_of_dbof_are_those_of_a_chain_of_norms() -> None:
    """Though the largest values are taken first: the clusters' moments are those of all frames."""
    model = build("dbof-all").double()
    assert isinstance(model, DbofModel)
    assert model.norms is not None
    x, lengths = batch([7, 3, 5], 7)
    keep = frame_mask(lengths, 7)
    before = {name: value.clone() for name, value in model.norms.state_dict().items()}
    with torch.no_grad():
        model.encode(x.double(), lengths)
        after = {name: value.clone() for name, value in model.norms.state_dict().items()}
        model.norms.load_state_dict(before)
        clusters = model.norms.input(x.double(), keep) @ model.cluster_KD.T
        model.norms.cluster(clusters, keep)
    for name in ("running_mean", "running_variance"):
        assert_close(after[f"cluster.{name}"], model.norms.state_dict()[f"cluster.{name}"])


@every_case
def test_gradients_equal_finite_differences(case: str) -> None:
    model = build(case, 3).double()
    x, lengths = batch([7, 3, 0, 5], 7)
    norms = {name: value.clone() for name, value in model.named_buffers()}
    generator = torch.Generator().manual_seed(5)
    factors = torch.randn(4, C, dtype=torch.float64, generator=generator)

    def value() -> Tensor:
        torch.manual_seed(0)
        for name, buffer in model.named_buffers():
            buffer.copy_(norms[name])
        (logits,) = model.logits(x.double(), lengths)
        return (logits * factors).sum()

    value().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        values = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                parameter += step * direction
                values.append(value().item())
            parameter += 1e-6 * direction
        slope = (values[0] - values[1]) / 2e-6
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-7), name


@every_case
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(case: str, training: bool) -> None:
    lengths = [50, 12, 0, 33]
    results = []
    for L in (60, 300):
        model = build(case).train(training)
        x, lengths_B = batch(lengths, L)
        torch.manual_seed(0)
        results.append(model(x, lengths_B))
    assert_close(results[0], results[1], atol=1e-5, rtol=0)


@every_case
def test_evaluation_is_deterministic_and_row_by_row(case: str) -> None:
    model = build(case).eval()
    x, lengths = batch([9, 2, 0, 6, 4], 9)
    together = model(x, lengths)
    assert torch.equal(together, model(x, lengths))
    alone = torch.cat([model(x[i : i + 1], lengths[i : i + 1]) for i in range(5)])
    assert_close(together, alone, atol=1e-6, rtol=0)


@every_case
@pytest.mark.parametrize(("B", "L"), [(0, 4), (0, 0), (3, 0), (3, 4)])
def test_batches_without_a_video_or_a_frame_pass_both_ways(case: str, B: int, L: int) -> None:
    for training in (True, False):
        model = build(case).train(training)
        p_BC = model(torch.zeros(B, L, D), torch.zeros(B, dtype=torch.long))
        assert p_BC.shape == (B, C)
        assert p_BC.isfinite().all()
        p_BC.sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@every_case
def test_a_reset_depends_on_the_generator_alone(case: str) -> None:
    name, own = CASES[case]
    states = []
    for seed in (1, 1, 2):
        with torch.device("meta"):
            model = build_model(flags_of(name, **own))
        model.to_empty(device="cpu")
        for value in model.state_dict().values():
            value.fill_(float("nan"))
        torch.manual_seed(seed + len(states))
        model.reset(torch.Generator().manual_seed(seed))
        states.append(model.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
        assert value.isfinite().all(), key
    assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())


@pytest.mark.parametrize("case", ["mean", "dbof", "dbof-all-mean", "netvlad", "nextvlad"])
def test_values_have_about_the_size_that_the_classifier_is_told(case: str) -> None:
    name, own = CASES[case]
    sizes = {"dbof_cluster_size": 64, "dbof_hidden_size": 64, "netvlad_hidden_size": 64}
    sizes["nextvlad_hidden_size"] = 64
    model = build_model(flags_of(name, 1.0, **(own | sizes)))
    assert isinstance(model, AbstractFrameModel)
    classifier = model.classifier
    assert isinstance(classifier, LogisticModel)
    told = 1.0 / classifier.input_scale
    model.reset(torch.Generator().manual_seed(0))
    x, lengths = batch([2] * 64, 2)
    size = model.encode(x, lengths).square().mean().sqrt().item()
    assert 0.7 * told < size < 1.3 * told


@every_case
def test_a_toy_data_set_is_learned(case: str) -> None:
    name, own = CASES[case]
    model = build_model(flags_of(name, 1.0, **own))
    model.reset(torch.Generator().manual_seed(0), scale=0.1)
    generator = torch.Generator().manual_seed(1)
    kinds = torch.randint(0, C, (96,), generator=generator)
    frames = nn.functional.one_hot(kinds, D).float().unsqueeze(1) * 2 + torch.randn(
        96, 6, D, generator=generator
    )
    lengths = torch.randint(3, 7, (96,), generator=generator)
    x = l2_normalize(frames) * frame_mask(lengths, 6).unsqueeze(-1)
    labels = nn.functional.one_hot(kinds, C).bool()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy_loss(model(x, lengths), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


@every_case
def test_bfloat16_products_are_close_to_float32(case: str) -> None:
    results = []
    for enabled in (False, True):
        model = build(case)
        x, lengths = batch([40, 12, 25, 33, 8, 19], 40)
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values = model.encode(x, lengths)
        assert values.dtype == torch.float32
        results.append(values)
    # batch normalisation of six videos enlarges what rounding does
    assert (results[0] - results[1]).abs().mean() < 0.05 * results[0].abs().mean()


class Exported(nn.Module):
    """What is exported, of several models at once: raw features to probabilities."""

    def __init__(self, models: list[AbstractFrameModel]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        inputs = prepare(features, lengths)
        return tuple(model.pool_and_pullback(*model.logits(*inputs))[0] for model in self.models)


@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    models = [build(case).eval() for case in ("mean", "dbof", "dbof-all-mean", "netvlad", "nextvlad")]
    example = (torch.zeros(2, 7, D, dtype=torch.uint8), torch.tensor([7, 3]))
    videos, frames = torch.export.Dim("batch", min=1), torch.export.Dim("frames", min=1)
    with torch.no_grad():
        program = torch.export.export(
            Exported(models).eval(), example, dynamic_shapes=({0: videos, 1: frames}, {0: videos})
        )
        onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx is not None
    onnx.save(os.fspath(tmp_path / "model.onnx"))
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    generator = torch.Generator().manual_seed(0)
    for B, L in ((1, 1), (3, 20), (5, 9)):
        features = torch.randint(0, 256, (B, L, D), dtype=torch.uint8, generator=generator)
        lengths = torch.randint(0, L + 1, (B,), generator=generator)
        answers = session.run(None, dict(zip(names, (features.numpy(), lengths.numpy()), strict=True)))
        traced = program.module()(features, lengths)
        for model, answer, again in zip(models, answers, traced, strict=True):
            expected = Classifier(model).eval()(features, lengths)
            assert_close(torch.from_numpy(answer), expected, atol=1e-4, rtol=0)
            assert_close(again, expected, atol=1e-5, rtol=0)


# --- FrameLevelLogisticModel


def test_the_mean_frame_always_has_a_logistic_regression_behind_it() -> None:
    model = build_model(
        flags_of("FrameLevelLogisticModel", video_level_classifier_model="MoeModel", dropout=0.25)
    )
    assert isinstance(model, AbstractFrameModel)
    assert isinstance(model.classifier, LogisticModel)
    assert model.classifier.dropout == 0.25
    assert model.classifier.input_scale == 1.0
    assert [l2 for _, l2 in model.penalized()] == [1e-8]
    stable = build_model(flags_of("FrameLevelLogisticModel", value_scale=0.2))
    assert isinstance(stable, AbstractFrameModel)
    assert isinstance(stable.classifier, LogisticModel)
    assert stable.classifier.input_scale == pytest.approx(0.2 * D**0.5)


def test_the_mean_of_frames_is_their_sum_over_their_number() -> None:
    model = build("mean")
    x, lengths = batch([3, 0], 5)
    assert_close(model.encode(x, lengths), torch.stack([x[0, :3].mean(dim=0), torch.zeros(D)]))


# --- DbofModel


def sampler(iterations: int, **changes: Any) -> DbofModel:
    model = build("dbof", iterations=iterations, **changes)
    assert isinstance(model, DbofModel)
    return model


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 400), iterations=st.integers(1, 40), seed=st.integers(0, 1000))
def test_sampled_frames_are_real_ones(length: int, iterations: int, seed: int) -> None:
    torch.manual_seed(seed)
    for changes in ({}, {"sample_random_frames": False}):
        model = sampler(iterations, **changes)
        for training in (True, False):
            (frames,) = model.train(training)._choice(torch.tensor([length])).tolist()
            assert len(frames) == iterations
            assert all(0 <= frame < max(length, 1) for frame in frames)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 400), iterations=st.integers(1, 40))
def test_frames_of_evaluation_lie_evenly(length: int, iterations: int) -> None:
    (frames,) = sampler(iterations).eval()._choice(torch.tensor([length])).tolist()
    assert frames == (twins.even_frames(length, iterations) or [0] * iterations)
    if length:
        assert frames == [length - 1 - frame for frame in reversed(frames)] or (length % 2 == 0 or length > 1)
        steps = np.diff(frames)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
    if length == iterations:
        assert frames == list(range(length))


def test_every_frame_is_drawn_equally_often() -> None:
    torch.manual_seed(0)
    frames = sampler(5000)._choice(torch.tensor([4, 10]))
    for row, length in zip(frames, (4, 10), strict=True):
        shares = torch.bincount(row, minlength=length) / 5000
        assert_close(shares, torch.full((length,), 1 / length), atol=0.03, rtol=0)


def test_a_run_of_frames_is_a_run_and_starts_anywhere() -> None:
    torch.manual_seed(0)
    model = sampler(4, sample_random_frames=False)
    frames = model._choice(torch.full((500,), 6))
    assert (frames.diff(dim=1) == 1).all()
    assert set(frames[:, 0].tolist()) == {0, 1, 2}
    assert model._choice(torch.tensor([2])).tolist() == [[0, 1, 1, 1]]  # a short video stays at its end


def test_training_draws_anew_and_evaluation_only_where_it_is_asked_to() -> None:
    lengths = torch.full((3,), 100)
    for changes, random in (({}, False), ({"dbof_random_evaluation": True}, True)):
        model = sampler(8, **changes)
        assert not torch.equal(model._choice(lengths), model._choice(lengths))
        model.eval()
        assert torch.equal(model._choice(lengths), model._choice(lengths)) is not random


def test_the_seed_decides_which_frames_are_drawn() -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append(sampler(8)._choice(torch.tensor([50, 3])))
    assert torch.equal(*draws)


def test_wrong_names_of_dbof_list_what_is_known() -> None:
    with pytest.raises(ValueError, match="pooling='mean' is not known; give max or average"):
        DbofModel(LogisticModel(6, C), D, pooling="mean")
    with pytest.raises(
        ValueError, match="activation='gelu' is not known; give sigmoid or relu or relu6 or tanh"
    ):
        DbofModel(LogisticModel(6, C), D, activation="gelu")


def test_dbof_takes_the_named_classifier() -> None:
    model = build("dbof", video_level_classifier_model="MoeModel", moe_num_mixtures=3)
    assert isinstance(model.classifier, MoeModel)
    assert (model.classifier.input_size, model.classifier.num_mixtures) == (6, 3)
    x, lengths = batch([5, 2], 5)
    assert model.explain(x, lengths).expert_votes.shape == (2, C, 3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), padded=st.booleans(), falling=st.booleans(), ties=st.booleans())
def test_extremes_and_squares_have_the_gradients_of_plain_operations(
    seed: int, padded: bool, falling: bool, ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    a = a.round() if ties else a
    keep = torch.rand(3, 5, generator=generator) < 0.6 if padded else None
    falls = torch.rand(4, generator=generator) < 0.5 if falling else None
    factors = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    gradients, values = [], []
    for fast in (False, True):
        leaf = a.clone().requires_grad_()
        if fast:
            extreme, squares = extremes_and_squares(leaf * 1.0, keep, falls)
        else:
            extreme, squares = extremes(leaf, keep, falls), leaf.square().sum(dim=(0, 1))
        ((extreme * factors).sum() + (squares * torch.arange(4.0)).sum()).backward()
        gradients.append(leaf.grad)
        values.append((extreme.detach(), squares.detach()))
    assert_close(values[0], values[1])
    assert_close(gradients[0], gradients[1])


def test_extremes_of_many_videos_are_taken_block_by_block() -> None:
    a = torch.randn(50, 6, 3000, generator=torch.Generator().manual_seed(0))  # more than one block
    extreme, squares = extremes_and_squares(a, None)
    assert_close(extreme, a.amax(dim=1))
    assert_close(squares, a.square().sum(dim=(0, 1)))


def test_standard_product_is_the_product_and_gives_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    z, scale, weight = (
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((2, 3, 4), (4,), (600, 4))
    )
    leaves = [scale.requires_grad_(), torch.zeros(4, dtype=torch.float64, requires_grad=True)]
    leaves.append(weight.requires_grad_())
    factors = torch.randn(2, 3, 600, dtype=torch.float64, generator=generator)
    plain = (z * scale) @ weight.T
    expected = torch.autograd.grad((plain * factors).sum(), [scale, weight])
    fast = standard_product(z, *leaves)
    actual = torch.autograd.grad((fast * factors).sum(), leaves)
    assert_close(fast, plain)
    assert_close((actual[0], actual[2]), expected)
    assert torch.equal(actual[1], torch.zeros(4, dtype=torch.float64))


# --- NetVladModel, NeXtVladModel


def test_clusters_are_normalised_one_by_one_and_then_all_together() -> None:
    vlad = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vlad[0, 1] = 0.0
    vlad[1] = 0.0
    expected = l2_normalize(l2_normalize(vlad).flatten(1)).unflatten(1, (4, 5))
    assert_close(normalize_clusters(vlad), expected)
    assert torch.autograd.gradcheck(normalize_clusters, vlad[2:].requires_grad_())


def test_widened_frames_are_assigned_the_same_in_both_orders_of_the_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few frames take the plain way, many the one of a single product."""
    few, many = batch([3], 3), batch([50, 41], 50)
    shapes: list[tuple[int, ...]] = []
    linear = nn.functional.linear

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.append(tuple(weight.shape))
        return linear(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", watched)
    model = build("nextvlad")
    for inputs, size in ((few, 2 * D), (many, D)):
        shapes.clear()
        model.encode(*inputs)
        assert (6, size) in shapes  # G K = 6 assignments


def test_wrong_sizes_of_nextvlad_name_the_flags_and_what_fits() -> None:
    with pytest.raises(FlagError, match=r"--nextvlad_groups=3 does not divide .* 16, .* nearest .* 2 and 4"):
        build("nextvlad", nextvlad_groups=3)
    with pytest.raises(FlagError, match=r"--nextvlad_reduction=7 leaves nothing of --nextvlad_hidden_size=6"):
        build("nextvlad", nextvlad_reduction=7)


def test_flags_decide_the_sizes() -> None:
    netvlad = dict(build("netvlad", netvlad_cluster_size=5, netvlad_hidden_size=7).named_parameters())
    assert netvlad["center_KD"].shape == (5, D)
    assert netvlad["hidden_HV"].shape == (7, 5 * D)
    wide = {"nextvlad_expansion": 3, "nextvlad_groups": 4, "nextvlad_cluster_size": 5}
    nextvlad = dict(
        build("nextvlad", **wide, nextvlad_hidden_size=9, nextvlad_reduction=3).named_parameters()
    )
    assert nextvlad["widen_ED"].shape == (24, D)
    assert nextvlad["center_KN"].shape == (5, 6)
    assert nextvlad["narrow_RH"].shape == (3, 9)
    dbof = build("dbof", dbof_cluster_size=7, dbof_hidden_size=3)
    assert isinstance(dbof, DbofModel)
    assert dbof.hidden_HK.shape == (3, 7)


PARAMETERS = {
    # a LogisticModel of 3,862 classes is behind them: 4,452,886 numbers for 1,152 values, 3,958,550 for 1,024
    "FrameLevelLogisticModel": 4_452_886,
    "DbofModel": 21_805_078,
    "NetVladModel": 307_593_750,
    "NeXtVladModel": 47_118_622,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_numbers_of_parameters_at_the_defaults(name: str) -> None:
    flags = ModelFlags(
        model=name,
        feature_names=("rgb", "audio"),
        feature_sizes=(1024, 128),
        num_classes=3862,
        class_names=(),
        frame_features=True,
        options=dataclasses.replace(Flags(moe_rank=0), video_level_classifier_model="LogisticModel"),
    )
    with torch.device("meta"):
        model = build_model(flags)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
