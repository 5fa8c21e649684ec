"""Frame-level models that read, weigh or route frames: against slow twins, and what must hold for each."""

import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from expertise.nn import record_routing
from expertise.youtube8m.export import quiet
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.loading import prepare
from expertise.youtube8m.losses import cross_entropy_loss
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import (
    AttentionModel,
    FrameMoeModel,
    FrameMomentsModel,
    GruModel,
    LstmModel,
    Outputs,
    build_model,
    l2_normalize,
)
from expertise.youtube8m.models._abstract import AbstractFrameModel
from youtube8m import twins_frames as twins

SIZES, D, C = (6, 2), 8, 3
every_model = pytest.mark.parametrize("name", twins.TWINS)
SMALL: dict[str, Any] = {
    "moe_rank": 0,
    "lstm_cells": 5,
    "gru_cells": 5,
    "attention_heads": 3,
    "attention_size": 4,
    "frame_moe_experts": 4,
    "frame_moe_hidden": 6,
}


def flags_of(name: str, **options: Any) -> ModelFlags:
    return ModelFlags(
        model=name,
        feature_names=("rgb", "audio"),
        feature_sizes=SIZES,
        num_classes=C,
        class_names=(),
        value_scale=1.0,
        frame_features=True,
        options=Flags(**(SMALL | options)),
    )


def build(name: str, seed: int = 0, **options: Any) -> Any:
    """A small model, drawn anew and moved from there, so that no bias or moment is what it began as."""
    model = build_model(flags_of(name, **options))
    generator = torch.Generator().manual_seed(seed)
    model.reset(generator)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value += 0.3 * torch.randn(value.shape, generator=generator)
            if key.endswith("variance"):
                value.abs_().add_(0.1)
    return model.eval()


def frames_of(lengths: list[int], num_frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normalised frames (B, L, D), padding 0, whatever L the same ones; and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    x_BLD = torch.zeros(len(lengths), num_frames, D)
    for b, length in enumerate(lengths):
        x_BLD[b, :length] = l2_normalize(torch.randn(length, D, generator=generator))
    return x_BLD, torch.tensor(lengths, dtype=torch.int64)


def numbers(model: nn.Module) -> twins.Weights:
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


def videos_of(x_BLD: Tensor, lengths_B: Tensor) -> twins.Videos:
    return [x[:length].double().numpy() for x, length in zip(x_BLD, lengths_B.tolist(), strict=True)]


def loss_of(model: AbstractFrameModel, x_BLD: Tensor, lengths_B: Tensor, labels_BC: Tensor) -> Tensor:
    outputs = model.training_outputs(x_BLD, lengths_B)
    loss = cross_entropy_loss(model.pool(*outputs.logits), labels_BC, None, float(len(x_BLD)))
    return loss if outputs.loss is None else loss + outputs.loss


# values and gradients


@every_model
@pytest.mark.parametrize("training", [False, True])
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_values_are_those_of_the_slow_twin(name: str, training: bool, lengths: list[int], seed: int) -> None:
    model = build(name, seed).train(training)
    x_BLD, lengths_B = frames_of([*lengths, 3], 7, seed)
    expected = twins.TWINS[name](numbers(model), videos_of(x_BLD, lengths_B), training)
    with torch.no_grad():
        values = model.encode(x_BLD, lengths_B)
    assert values.dtype == torch.float32
    assert_close(values.double(), torch.from_numpy(expected), atol=2e-5, rtol=2e-5)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_differences(name: str, training: bool) -> None:
    """Of all weights of the encoder, and of the frames; one video has a single frame, one has none."""
    sizes = {"attention_size": 2, "attention_heads": 2, "frame_moe_experts": 3, "frame_moe_hidden": 2}
    model = build(name, lstm_cells=3, gru_cells=3, **sizes).double().train(training)
    x_BLD, lengths_B = frames_of([4, 1, 0, 3], 4)
    x_BLD = x_BLD.double().requires_grad_()
    mask_BL1 = frame_mask(lengths_B, 4).unsqueeze(2)
    weights = [value for key, value in model.named_parameters() if not key.startswith("classifier.")]

    def values(x_BLD: Tensor, *_: Tensor) -> Tensor:
        return model.encode(x_BLD * mask_BL1, lengths_B)  # padding is 0, and stays it

    # a deviation of 0 has a corner: the video of a single frame is looked at by a test of its own
    if name == "FrameMomentsModel":
        x_BLD, lengths_B = x_BLD.detach()[[0, 2, 3]].requires_grad_(), lengths_B[[0, 2, 3]]
        mask_BL1 = mask_BL1[[0, 2, 3]]
    assert torch.autograd.gradcheck(values, (x_BLD, *weights), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["LstmModel", "GruModel"])
def test_the_kernels_of_float32_learn_as_those_of_float64(name: str) -> None:
    """They are others: what is trained with is not what finite differences see."""
    model = build(name).train()
    double = copy.deepcopy(model).double()
    x_BLD, lengths_B = frames_of([9, 4, 0, 1, 6], 9)
    for one, x in ((model, x_BLD), (double, x_BLD.double())):
        one.encode(x, lengths_B).square().sum().backward()
    for mine, its in zip(model.parameters(), double.parameters(), strict=True):
        if mine.grad is not None:
            assert_close(mine.grad.double(), its.grad, atol=1e-5, rtol=1e-4)


# padding, empty videos, empty batches


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_padding_does_not_matter(name: str, training: bool) -> None:
    """Nor does it for the gradients, nor for a loss of the model itself."""
    lengths = [50, 17, 0, 1]
    labels_BC = torch.eye(4)[:, :C].bool()
    found = []
    for num_frames in (50, 60, 300):
        model = build(name).train(training)
        x_BLD, lengths_B = frames_of(lengths, num_frames)
        loss = loss_of(model, x_BLD, lengths_B, labels_BC)
        loss.backward()
        gradients = [weight.grad for weight in model.parameters()]
        with torch.no_grad():
            found.append([loss.detach(), model(x_BLD, lengths_B), *gradients])
    for other in found[1:]:
        assert_close(other, found[0], atol=1e-5, rtol=1e-5)


@every_model
def test_a_video_is_judged_by_itself_and_twice_the_same(name: str) -> None:
    model = build(name)
    x_BLD, lengths_B = frames_of([7, 3, 0, 5], 7)
    with torch.no_grad():
        together = model(x_BLD, lengths_B)
        assert torch.equal(model(x_BLD, lengths_B), together)
        for b in range(4):
            assert_close(model(x_BLD[b : b + 1], lengths_B[b : b + 1]), together[b : b + 1])


@every_model
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("lengths", "num_frames"), [([], 4), ([0, 0], 4), ([0, 0], 0), ([], 0)], ids=str)
def test_nothing_to_see_gives_finite_answers_and_gradients(
    name: str, training: bool, lengths: list[int], num_frames: int
) -> None:
    model = build(name).train(training)
    before = copy.deepcopy(dict(model.named_buffers()))
    x_BLD, lengths_B = frames_of(lengths, num_frames)
    outputs = model.training_outputs(x_BLD, lengths_B)
    p_BC = model.pool(*outputs.logits)
    assert p_BC.shape == (len(lengths), C)
    assert p_BC.isfinite().all()
    (p_BC.sum() + (0.0 if outputs.loss is None else outputs.loss)).backward()
    for key, weight in model.named_parameters():
        assert weight.grad is not None, key  # several processes wait for all of them
        assert weight.grad.isfinite().all(), key
    if not lengths:
        assert_close(dict(model.named_buffers()), before)


# weights


@every_model
def test_reset_draws_everything_from_the_generator_alone(name: str) -> None:
    drawn = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        with torch.device("meta"):
            model = build_model(flags_of(name))
        model.to_empty(device="cpu")
        with torch.no_grad():
            for value in model.state_dict().values():
                value.fill_(torch.nan)
        model.reset(torch.Generator().manual_seed(7))
        drawn.append(model.state_dict())
    assert_close(drawn[0], drawn[1], atol=0, rtol=0)
    assert all(value.isfinite().all() for value in drawn[0].values())


@every_model
def test_values_at_the_start_have_about_the_size_that_the_classifier_is_told(name: str) -> None:
    """The recipe scales by it. Frames of a video are alike, as in real ones."""
    generator = torch.Generator().manual_seed(0)
    flags = replace(flags_of(name, lstm_cells=64, gru_cells=64), feature_sizes=(200, 56))
    model: Any = build_model(flags)
    model.reset(generator)
    told = flags.value_scale / model.classifier.input_scale
    video_B1D = torch.randn(16, 1, 256, generator=generator)
    x_BLD = l2_normalize(video_B1D + 0.7 * torch.randn(16, 40, 256, generator=generator))
    with torch.no_grad():
        values = model.train().encode(x_BLD, torch.full((16,), 40))
    assert 0.5 * told < values.square().mean().sqrt().item() < 2.0 * told


def test_flags_decide_the_sizes() -> None:
    lstm = build("LstmModel", lstm_layers=3, lstm_cells=4)
    assert [tuple(kernel.shape) for kernel in lstm.kernels] == [(16, 12), (16, 8), (16, 8)]
    gru = build("GruModel", gru_layers=1, gru_cells=4)
    assert [tuple(kernel.shape) for kernel in gru.input_kernels] == [(12, 8)]
    assert [tuple(kernel.shape) for kernel in gru.hidden_kernels] == [(12, 4)]
    attention = build("AttentionModel", attention_heads=2, attention_size=5)
    assert attention.heads_AS.shape == (2, 5)
    assert attention.classifier.input_size == 2 * D
    moe = build(
        "FrameMoeModel", frame_moe_experts=3, frame_moe_k=1, frame_moe_hidden=7, frame_moe_balance=0.5
    )
    assert moe.layer.experts.down_weight.shape == (3, D, 7)
    assert (moe.layer.router.k, moe.balance, moe.classifier.input_size) == (1, 0.5, 2 * D)
    assert build("FrameMomentsModel").classifier.input_size == 2 * D


def test_more_experts_a_frame_than_there_are_is_an_error() -> None:
    with pytest.raises(
        FlagError, match=r"--frame_moe_k=5: a frame can't take more than the --frame_moe_experts=4"
    ):
        build_model(flags_of("FrameMoeModel", frame_moe_k=5))


@every_model
def test_a_small_problem_is_learned(name: str) -> None:
    """Classes differ in what their frames show, and in how much these change."""
    torch.manual_seed(0)
    model = build_model(flags_of(name, lstm_cells=16, gru_cells=16)).train()
    model.reset(torch.Generator().manual_seed(0))
    centres_CD = torch.randn(C, D)
    lengths_B = torch.randint(3, 9, (60,))
    of_B = torch.arange(60) % C
    noise = (0.2 + 0.4 * of_B[:, None, None]) * torch.randn(60, 8, D)
    x_BLD = l2_normalize(centres_CD[of_B].unsqueeze(1) + noise) * frame_mask(lengths_B, 8).unsqueeze(2)
    labels_BC = nn.functional.one_hot(of_B, C).bool()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = loss_of(model, x_BLD, lengths_B, labels_BC)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


# exports and precision


class Traceable(nn.Module):
    """From bytes to probabilities, as an export has it."""

    def __init__(self, model: AbstractFrameModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        logits = self.model.logits(*prepare(features, lengths))
        return self.model.pool_and_pullback(*logits)[0]


@every_model
def test_exports_give_the_same_for_any_batch_and_number_of_frames(name: str, tmp_path: Path) -> None:
    """One to be loaded by torch alone, and ONNX."""
    model = build(name, gru_layers=1, video_level_classifier_model="LogisticModel")
    example = (torch.zeros(2, 7, D, dtype=torch.uint8), torch.tensor([7, 3]))
    batch, frames = torch.export.Dim("batch", min=1), torch.export.Dim("frames", min=1)
    with quiet(), torch.no_grad():
        program = torch.export.export(
            Traceable(model).eval(), example, dynamic_shapes=({0: batch, 1: frames}, {0: batch})
        )
        stored = io.BytesIO()
        torch.export.save(program, stored)
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["features", "lengths"],
            dynamic_shapes=({0: "batch", 1: "frames"}, {0: "batch"}),
        )
    assert written is not None
    written.save(tmp_path / "model.onnx")
    stored.seek(0)
    loaded = torch.export.load(stored).module()
    assert "expertise" not in str(program.graph)  # torch alone can run it
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for lengths, num_frames in (([1], 1), ([0, 9, 4], 9), ([2, 7, 0, 1, 3], 30)):
        features = torch.randint(0, 256, (len(lengths), num_frames, D), dtype=torch.uint8)
        lengths_B = torch.tensor(lengths)
        with torch.no_grad():
            expected = model(*prepare(features, lengths_B))
            assert_close(loaded(features, lengths_B), expected, atol=1e-5, rtol=0)
        (answer,) = session.run(None, {"features": features.numpy(), "lengths": lengths_B.numpy()})
        assert_close(torch.from_numpy(answer), expected, atol=1e-4, rtol=0)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_products_change_little(name: str, training: bool) -> None:
    model = build(name, lstm_cells=16, gru_cells=16).train(training)
    x_BLD, lengths_B = frames_of([30, 12, 0, 1, 21, 8], 30)
    with torch.no_grad():
        exact = model.encode(x_BLD, lengths_B)
    with torch.autocast("cpu", torch.bfloat16):
        values = model.encode(x_BLD, lengths_B)
    assert values.dtype == torch.float32
    assert (values - exact).square().mean().sqrt() < 0.03 * exact.square().mean().sqrt()
    values.sum().backward()
    assert all(
        weight.grad is not None and weight.grad.isfinite().all()
        for key, weight in model.named_parameters()
        if not key.startswith("classifier.")
    )


# one by one


def test_the_lstm_takes_the_references_weights() -> None:
    """Kernels and biases as TensorFlow has them; the features are not scaled there."""
    random = np.random.default_rng(0)
    model = LstmModel(D, 4, 2, build("LstmModel", lstm_cells=4).classifier)
    kernels = [random.standard_normal((rows, 16)) for rows in (D + 4, 8)]
    biases = [random.standard_normal(16) for _ in range(2)]
    model.load_reference_weights(*([torch.tensor(v) for v in values] for values in (kernels, biases)))
    x_BLD, lengths_B = frames_of([6, 2, 0], 6)
    expected = twins.tensorflow_lstm(kernels, biases, videos_of(x_BLD, lengths_B), 4)
    with torch.no_grad():
        assert_close(model.encode(x_BLD, lengths_B).double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_reference_weights_of_another_shape_are_an_error() -> None:
    model = build("LstmModel", lstm_cells=4, lstm_layers=1)
    kernel, bias = torch.zeros(12, 16), torch.zeros(16)
    with pytest.raises(
        ValueError, match=r"kernels have shapes \[\(16, 12\)\]; this model takes \[\(12, 16\)\]"
    ):
        model.load_reference_weights([kernel.T], [bias])
    with pytest.raises(ValueError, match=r"biases have shapes \[\]; this model takes \[\(16,\)\]"):
        model.load_reference_weights([kernel], [])


def test_the_lstm_scales_the_features_but_in_the_recipe_of_the_reference() -> None:
    flags = flags_of("LstmModel")
    stable, reference = (build_model(replace(flags, value_scale=size)) for size in (0.2, 0.0))
    assert isinstance(stable, LstmModel)
    assert isinstance(reference, LstmModel)
    assert (stable.input_scale, reference.input_scale) == (D**0.5, 1.0)


def test_a_gru_that_keeps_its_state_keeps_it() -> None:
    model: GruModel = build("GruModel", gru_layers=1)
    with torch.no_grad():
        model.biases[0][5:10] = 50.0  # z is 1
        assert (model.encode(*frames_of([9], 9)) == 0.0).all()


def test_frame_weights_sum_to_one_and_leave_padding_out() -> None:
    model: AttentionModel = build("AttentionModel")
    x_BLD, lengths_B = frames_of([6, 1, 0, 4], 7)
    with torch.no_grad():
        weights_BAL = model.frame_weights(x_BLD, lengths_B)
    assert weights_BAL.shape == (4, 3, 7)
    assert_close(weights_BAL.sum(2), (lengths_B > 0).float().unsqueeze(1).expand(4, 3))
    assert (weights_BAL[~frame_mask(lengths_B, 7).unsqueeze(1).expand(4, 3, 7)] == 0.0).all()
    frames = twins.scaled(videos_of(x_BLD, lengths_B))[0]
    expected = twins.attention_weights(numbers(model), frames)
    assert_close(weights_BAL[0, :, :6].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("same", [1, 4])
def test_frames_without_deviation_have_deviation_and_gradient_zero(same: int) -> None:
    """A single frame, or frames that are all the same; sqrt would give a gradient that is not a number."""
    model: FrameMomentsModel = build("FrameMomentsModel").train()
    x_BLD, lengths_B = frames_of([1, 4], 5)
    x_BLD[0, :same] = x_BLD[0, 0].clone().round(decimals=2)
    lengths_B[0] = same
    x_BLD.requires_grad_()
    captured: list[Tensor] = []
    model.norm.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    values = model.encode(x_BLD, lengths_B)
    assert captured[0][0, D:].abs().max() < 1e-6
    values.square().sum().backward()
    assert x_BLD.grad is not None
    assert x_BLD.grad.isfinite().all()


def test_moments_of_frames_that_hardly_differ_keep_their_digits() -> None:
    """The mean of the squares less the square of the mean would lose them."""
    model: FrameMomentsModel = build("FrameMomentsModel")
    x_BLD, lengths_B = frames_of([40], 40)
    x_BLD = x_BLD * 1e-4 + 3.0
    captured: list[Tensor] = []
    model.norm.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    with torch.no_grad():
        model.encode(x_BLD, lengths_B)
    expected = x_BLD[0].double().std(0, correction=0) * D**0.5
    assert_close(captured[0][0, D:].double(), expected, rtol=0.01, atol=0)


# the experts of frames


def test_routing_tells_who_reads_which_frame() -> None:
    model: FrameMoeModel = build("FrameMoeModel")
    x_BLD, lengths_B = frames_of([5, 0, 3], 6)
    routing = model.route(x_BLD, lengths_B)
    experts_BLK = routing.experts_TK.unflatten(0, routing.shape)
    assert experts_BLK.shape == (3, 6, 2)
    weights = numbers(model)
    load = np.zeros(4)
    for b, frames in enumerate(twins.scaled(videos_of(x_BLD, lengths_B))):
        assert (experts_BLK[b, len(frames) :] == 4).all()  # nobody reads padding
        for number, frame in enumerate(frames):
            expected = twins.chosen(weights, frame, 2)
            assert experts_BLK[b, number].tolist() == expected
            load[expected] += 1
    assert routing.load_E.tolist() == load.tolist()
    with record_routing(model) as recorded, torch.no_grad():
        model(x_BLD, lengths_B)
    assert torch.equal(recorded[0].experts_TK, routing.experts_TK)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_balance_loss_is_that_of_all_real_frames(k: int) -> None:
    model = build("FrameMoeModel", frame_moe_k=k, frame_moe_balance=0.7).train()
    x_BLD, lengths_B = frames_of([5, 0, 3, 6], 6)
    outputs = model.training_outputs(x_BLD, lengths_B)
    expected = twins.balance_loss(numbers(model), videos_of(x_BLD, lengths_B), k)
    assert outputs.loss.item() == pytest.approx(0.7 * expected, rel=1e-5)
    outputs.loss.backward()
    assert model.layer.router.weight_ED.grad.abs().max() > 0
    assert model.layer.experts.up_weight.grad is None


def test_without_weight_there_is_no_balance_loss() -> None:
    model = build("FrameMoeModel", frame_moe_balance=0.0).train()
    assert model.training_outputs(*frames_of([3], 3)).loss is None


def test_a_loss_of_the_classifier_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("FrameMoeModel").train()
    inputs = frames_of([3, 2], 3)
    alone = model.training_outputs(*inputs).loss
    given_B = torch.zeros(2, C)
    outputs = Outputs((given_B,), (given_B,), torch.tensor(2.0))
    monkeypatch.setattr(model.classifier, "training_outputs", lambda values: outputs)
    found = model.training_outputs(*inputs)
    assert_close(found.loss, alone + 2.0)
    assert found.logits == (given_B,)
    assert found.early == (given_B,)


# several processes


PARTS = ([5, 0, 3], [4])  # lengths of the videos that each process has


def report(rank: int, folder: str) -> None:
    """Learn from this process's videos, and save the mean of all processes' gradients."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(PARTS)
    )
    try:
        found = {name: gradients(name, (rank,)) for name in twins.TWINS}
        for values in found.values():
            for value in values.values():
                torch.distributed.all_reduce(value)
                value /= len(PARTS)
    finally:
        torch.distributed.destroy_process_group()
    torch.save(found, Path(folder) / f"rank{rank}.pt")


def gradients(name: str, parts: tuple[int, ...]) -> dict[str, Tensor]:
    """Gradients of all weights by the videos of some of the parts; the loss counts as in training."""
    model = build(name, frame_moe_balance=0.5).train()
    pieces = [frames_of(PARTS[part], 5, seed=part) for part in parts]
    x_BLD, lengths_B = (torch.cat(tensors) for tensors in zip(*pieces, strict=True))
    outputs = model.training_outputs(x_BLD, lengths_B)
    labels_BC = torch.ones(len(x_BLD), C).bool()
    rows = sum(len(part) for part in PARTS) * len(parts) / len(PARTS)
    loss = cross_entropy_loss(model.pool(*outputs.logits), labels_BC, None, rows)
    (loss if outputs.loss is None else loss + outputs.loss).backward()
    return {key: weight.grad for key, weight in model.named_parameters()}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_of_the_whole_batch(tmp_path: Path) -> None:
    """Batch normalisation and the balance of the experts are those of all frames, wherever they are."""
    torch.multiprocessing.spawn(report, (str(tmp_path),), nprocs=len(PARTS))
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(len(PARTS))]
    for name in twins.TWINS:
        expected = gradients(name, tuple(range(len(PARTS))))
        for rank in found:
            assert_close(rank[name], expected, atol=1e-5, rtol=1e-4)
