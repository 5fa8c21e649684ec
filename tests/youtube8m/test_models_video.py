"""The stronger video-level models: against slow twins, and what must hold for each of them."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from expertise.youtube8m.export import export
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import Classifier, VideoModel, load_model
from expertise.youtube8m.losses import LOSSES, cross_entropy_loss
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import VIDEO_MODELS, Outputs, SharedExpertMoeModel, l2_normalize
from expertise.youtube8m.models._abstract import AbstractFrameModel, AbstractVideoModel, ClassifierOf
from expertise.youtube8m.models._memory import Memory
from expertise.youtube8m.models._trunk import Trunk
from expertise.youtube8m.models.context_gated import ContextGatedMoeModel
from expertise.youtube8m.optimizers import OPTIMIZERS
from expertise.youtube8m.step import Lesson, TrainingNetwork, compiler_found, fuse, train_step
from expertise.youtube8m.train import train
from youtube8m.twins_video import TWINS, cross_entropy, neighbours, slopes

D, C, SCALE = 6, 4, 2.0
RATES = torch.tensor([0.5, 0.1, 0.001, 1e-6])
every_model = pytest.mark.parametrize("name", TWINS)
any_rank = pytest.mark.parametrize("rank", [0, 3])


def flags_of(name: str, **options: Any) -> ModelFlags:
    small = {"moe_rank": 0, "context_gating_rank": 2, "chain_size": 3, "shared_expert_size": 5}
    return ModelFlags(
        model=name,
        feature_names=("a",),
        feature_sizes=(D,),
        num_classes=C,
        class_names=(),
        input_scale=SCALE,
        options=Flags(**(small | {"chain_loss": 0.3} | options)),  # type: ignore[arg-type]
    )


def build(name: str, seed: int = 0, size: float = 3.0, **options: Any) -> AbstractVideoModel:
    """A small model, drawn anew, in evaluation; ``size`` makes its answers differ."""
    model = VIDEO_MODELS[name].from_flags(flags_of(name, **options), D, SCALE)
    model.reset(torch.Generator().manual_seed(seed), size)
    return model.eval()


def unlike_the_start(model: AbstractVideoModel, seed: int) -> None:
    """Change every weight and moment, so that a bias or a scale that is forgotten shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value += 0.3 * torch.randn(value.shape, generator=generator)
            if key.endswith("variance"):
                value.abs_().add_(0.1)


def videos(n: int, seed: int = 0) -> Tensor:
    return l2_normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(seed)))


def some_labels(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, C, generator=torch.Generator().manual_seed(seed)) < 0.4


def as_numpy(model: AbstractVideoModel) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy().copy() for name, value in model.state_dict().items()}


@every_model
@given(
    n=st.integers(2, 5),
    rank=st.sampled_from([0, 3]),
    mixtures=st.integers(1, 3),
    stages=st.integers(2, 4),
    gating=st.sampled_from([0, 2, 50]),
    training=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=12, deadline=None)
def test_it_equals_the_loops(
    name: str, n: int, rank: int, mixtures: int, stages: int, gating: int, training: bool, seed: int
) -> None:
    options = {"moe_num_mixtures": mixtures, "chain_stages": stages, "context_gating_rank": gating}
    model = build(name, seed, moe_rank=rank, **options).train(training)
    unlike_the_start(model, seed)
    x = videos(n, seed)
    expected, early = TWINS[name](as_numpy(model), x.double().numpy(), SCALE, training)
    outputs = model.training_outputs(x)
    assert len(outputs.early) == len(early) == (stages - 1 if name == "ChainMoeModel" else 0)
    for mine, its in zip((model.pool(*outputs.logits), *outputs.early), (expected, *early), strict=True):
        assert mine.dtype == torch.float32
        np.testing.assert_allclose(mine.detach().numpy(), its, atol=1e-5)


@every_model
@any_rank
def test_gradients_are_the_slopes_of_the_loops(name: str, rank: int) -> None:
    model = build(name, moe_rank=rank).train()
    unlike_the_start(model, 1)
    x, labels = videos(3), some_labels(3)
    weights, features, truth = as_numpy(model), x.double().numpy(), labels.double().numpy()

    def loss() -> float:
        p, early = TWINS[name](weights, features, SCALE, True)
        return cross_entropy(p, truth) + model.early_weight * sum(cross_entropy(q, truth) for q in early)

    outputs = model.training_outputs(x)
    mine = cross_entropy_loss(model.pool(*outputs.logits), labels)
    for early_BC in outputs.early:
        mine = mine + model.early_weight * cross_entropy_loss(early_BC, labels)
    assert mine.item() == pytest.approx(loss(), rel=1e-5)
    mine.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        twin = slopes(loss, weights[key])
        scale = max(0.1, abs(twin).max())
        np.testing.assert_allclose(parameter.grad.numpy(), twin, atol=2e-4 * scale, err_msg=key)


@every_model
@any_rank
@pytest.mark.parametrize(
    "options", [{}, {"moe_num_mixtures": 4, "chain_stages": 4, "context_gating_rank": 0}]
)
def test_zeros_are_given_the_rates(name: str, rank: int, options: dict[str, int]) -> None:
    model = build(name, moe_rank=rank, **options)
    model.start_at_rates(RATES)
    assert_close(model(torch.zeros(1, D))[0], RATES, rtol=1e-4, atol=0)
    for early_BC in model.training_outputs(torch.zeros(1, D)).early:
        assert_close(early_BC[0], RATES, rtol=1e-4, atol=0)


def test_the_context_gates_start_open() -> None:
    model = build("ContextGatedMoeModel", size=0.1)
    model.start_at_rates(RATES)
    mixed_BC, gate_BC = model.train().logits(videos(50))
    assert torch.sigmoid(gate_BC).mean().item() > 0.9
    assert_close(model.pool(mixed_BC, gate_BC), mixed_BC, rtol=0.5, atol=1e-3)


@every_model
@pytest.mark.parametrize("loss", LOSSES)
def test_the_pullback_is_the_gradient_that_autograd_finds(name: str, loss: str) -> None:
    model = build(name)
    labels = some_labels(7)
    logits = [logit.detach().requires_grad_() for logit in model.logits(videos(7))]
    p, pullback = model.pool_and_pullback(*(logit.detach() for logit in logits))
    r, value = torch.func.grad_and_value(LOSSES[loss])(p, labels)
    gradients = pullback(r)
    pooled = model.pool(*(logit.clone() for logit in logits))
    expected = LOSSES[loss](pooled, labels)
    assert_close(p, pooled.detach(), atol=1e-6, rtol=0)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, twin in zip(gradients, torch.autograd.grad(expected, logits), strict=True):
        assert_close(gradient, twin, atol=1e-6, rtol=1e-4)


@every_model
@any_rank
def test_explain_says_what_the_answer_is_made_of(name: str, rank: int) -> None:
    model = build(name, moe_rank=rank, moe_num_mixtures=3)
    unlike_the_start(model, 2)
    x = videos(8)
    said = model.explain(x)
    assert said.gate_weights.shape == (8, C, 4)
    assert said.expert_votes.shape == (8, C, 3)
    np.testing.assert_allclose(said.gate_weights.sum(axis=2), 1.0, atol=1e-6)
    assert ((said.expert_votes >= 0) & (said.expert_votes <= 1)).all()
    np.testing.assert_allclose(
        (said.gate_weights[..., :3] * said.expert_votes).sum(axis=2), said.probabilities, atol=1e-6
    )
    np.testing.assert_allclose(said.probabilities, model(x).detach().numpy(), atol=1e-6)


@every_model
def test_evaluation_is_deterministic_and_video_by_video(name: str) -> None:
    model = build(name, dropout=0.5)
    x = videos(300)
    with torch.no_grad():
        together = model(x)
        assert torch.equal(together, model(x))
        single = torch.cat([model(x[i : i + 1]) for i in range(0, 300, 97)])
    assert_close(single, together[::97], atol=1e-6, rtol=0)
    assert ((together >= 0) & (together <= 1)).all()
    assert together.std(dim=0).min() > 1e-3  # the answers do depend on the video


@every_model
def test_dropout_is_drawn_by_the_global_generator_in_training(name: str) -> None:
    model = build(name, dropout=0.5).train()
    torch.manual_seed(3)
    first = model(videos(20))
    second = model(videos(20))
    torch.manual_seed(3)
    again = model(videos(20))
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


@every_model
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_videos_and_videos_of_zeros(name: str, precision: str) -> None:
    for x in (videos(0), torch.zeros(3, D), torch.cat([videos(1), torch.zeros(1, D)])):
        model = build(name, moe_rank=3).train()
        model.start_at_rates(RATES)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = model.training_outputs(x)
        labels = some_labels(len(x))
        loss = cross_entropy_loss(model.pool(*outputs.logits), labels, rows=4.0)
        for early_BC in outputs.early:
            loss = loss + cross_entropy_loss(early_BC, labels, rows=4.0)
        loss.backward()
        assert loss.isfinite()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
        assert all(value.isfinite().all() for value in model.state_dict().values())
        assert model.eval()(x).shape == (len(x), C)


@every_model
def test_sure_answers_have_a_gradient(name: str) -> None:
    """An answer of exactly 0 is under a root, and sure answers are rounded to 0 and 1."""
    model = build(name, size=1e4).train()
    outputs = model.training_outputs(videos(50))
    p = model.pool(*outputs.logits)
    assert (p < 1e-30).any()
    assert (p <= 1 + 1e-6).all()
    loss = cross_entropy_loss(p, some_labels(50))
    for early_BC in outputs.early:
        loss = loss + cross_entropy_loss(early_BC, some_labels(50))
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@every_model
@any_rank
def test_reset_depends_on_the_generator_alone(name: str, rank: int) -> None:
    first, second = build(name, 7, 1.0, moe_rank=rank), build(name, 8, 1.0, moe_rank=rank)
    other = as_numpy(second)
    unlike_the_start(second, 1)
    second.reset(torch.Generator().manual_seed(7))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    drawn = [key for key in other if "bias" not in key and "norm" not in key]
    assert drawn
    for key in drawn:
        assert not np.array_equal(other[key], as_numpy(first)[key]), key
        assert as_numpy(first)[key].std() > 0, key
    for key in set(other) - set(drawn):
        assert set(np.unique(other[key])) <= {0.0, 1.0}, key
    projection = first.projection()
    assert (projection is None) == (rank == 0)
    if projection is not None:
        weight = projection.weight_RD
        assert_close(weight @ weight.T, torch.eye(rank), atol=1e-5, rtol=0)


@every_model
def test_scale_is_for_the_weights_that_give_the_class_logits(name: str) -> None:
    plain, smaller = as_numpy(build(name, 7, 1.0)), as_numpy(build(name, 7, 0.1))
    for key, value in plain.items():
        factor = 0.1 if "gate_GCH" in key or "expert_MCU" in key else 1.0
        np.testing.assert_allclose(smaller[key], factor * value, rtol=1e-6, err_msg=key)


@every_model
def test_weights_are_drawn_as_for_a_full_model(name: str) -> None:
    """Glorot's limits: of the features at any rank, or of the hidden values that are looked at."""
    shared = name == "SharedExpertMoeModel"
    inputs = dict.fromkeys(("gate_GCH", "expert_MCU"), 50 if shared else D)
    model = build(name, size=1.0, moe_rank=5, shared_expert_size=50, chain_size=40)
    for key, weight in model.named_parameters():
        if key.split(".")[-1] in inputs:
            limit = np.sqrt(6 / (inputs[key.split(".")[-1]] + len(weight) * C)) * (0.3 if shared else 1)
            assert 0.8 * limit < weight.abs().max().item() <= limit, key


@every_model
def test_gates_and_experts_are_penalized_and_nothing_else(name: str) -> None:
    model = build(name, moe_rank=3, moe_l2=0.25)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    penalized = {names[id(weight)]: l2 for weight, l2 in model.penalized()}
    wanted = [key for key in names.values() if key.endswith(("gate_GCH", "expert_MCU"))]
    assert penalized == dict.fromkeys(wanted, 0.25)


def test_sizes_are_those_of_the_flags() -> None:
    gated = dict(build("ContextGatedMoeModel", moe_num_mixtures=5, moe_rank=3).named_parameters())
    assert gated["mixture.gate_GCH"].shape == (6, C, 3)
    assert gated["mixture.expert_MCU"].shape == (5, C, 3)
    assert gated["input_gate.first_KN"].shape == (2, D)
    assert gated["output_gate.second_NK"].shape == (C, 2)
    full = dict(build("ContextGatedMoeModel", context_gating_rank=0).named_parameters())
    assert full["input_gate.second_NK"].shape == (D, D)
    assert "input_gate.first_KN" not in full
    chained = build("ChainMoeModel", chain_stages=3, chain_size=7, chain_loss=0.4)
    shapes = [tuple(weight.shape) for key, weight in chained.named_parameters() if key.endswith("gate_GCH")]
    assert shapes == [(3, C, D), (3, C, D + 7), (3, C, D + 14)]
    assert chained.early_weight == 0.4
    sizes = {"shared_expert_size": 9, "shared_expert_layers": 2, "moe_rank": 3}
    shared = dict(build("SharedExpertMoeModel", **sizes).named_parameters())
    assert shared["trunk.weights.0"].shape == (9, 3)
    assert shared["trunk.weights.1"].shape == (9, 9)
    assert shared["mixture.gate_GCH"].shape == (3, C, 9)
    assert shared["mixture.expert_MCU"].shape == (2, C, 9)


def test_each_feature_has_its_own_length_in_the_trunk() -> None:
    trunk = Trunk((4, 2), 0, 5, 1)
    x = torch.tensor([[3.0, 0.0, 4.0, 0.0, 0.0, 1e-3], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]])
    expected = [[1.2, 0.0, 1.6, 0.0, 0.0, 2**0.5], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    assert_close(trunk.lengths_one(x), torch.tensor(expected))


def test_the_flags_sizes_divide_the_features() -> None:
    flags = replace(flags_of("SharedExpertMoeModel"), feature_names=("a", "b"), feature_sizes=(4, 2))
    assert SharedExpertMoeModel.from_flags(flags, 6, 1.0).trunk.sizes == (4, 2)
    assert SharedExpertMoeModel.from_flags(flags, 9, 1.0).trunk.sizes == (9,), "values of a frame-level model"


# ---- the memory


def remembering(
    n: int, asked: int = 3, temperature: float = 0.5, weight: float = 0.25
) -> SharedExpertMoeModel:
    options = {"memory_videos": n, "memory_neighbours": asked, "memory_temperature": temperature}
    model = build("SharedExpertMoeModel", memory_weight=weight, **options)
    assert isinstance(model, SharedExpertMoeModel)
    return model


@given(n=st.integers(1, 9), asked=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_nearest_videos_say_their_labels(n: int, asked: int, seed: int) -> None:
    model = remembering(n, asked)
    x, labels = videos(n, seed), some_labels(n, seed)
    model.remember([(x[:2], labels[:2]), (x[2:], labels[2:])])
    assert model.memory is not None
    query = videos(4, seed + 1)
    with torch.no_grad():
        u = model.trunk(query)
        told = model.memory(u)
    truth = [row.nonzero()[:, 0].tolist() for row in labels]
    keys = model.memory.keys_NU.double().numpy()
    expected = neighbours(keys, truth, u.double().numpy(), C, asked, 0.5)
    np.testing.assert_allclose(told.numpy(), expected, atol=1e-3)  # keys are rounded to float16
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1.0, atol=1e-2)


def test_the_answer_is_the_mean_of_mixture_and_memory_in_evaluation_alone() -> None:
    model, plain = remembering(5), build("SharedExpertMoeModel")
    model.remember([(videos(5), some_labels(5))])
    x = videos(3, 7)
    assert model.memory is not None
    with torch.no_grad():
        expected = 0.75 * plain(x) + 0.25 * model.memory(model.trunk(x))
        assert_close(model(x), expected)
        logits = model.logits(x)
        assert_close(model.pool_and_pullback(*logits)[0], model(x))
        said = model.explain(x)
        np.testing.assert_allclose(
            (said.gate_weights[:, :, :-1] * said.expert_votes).sum(2), model(x), atol=1e-6
        )
        np.testing.assert_allclose(said.gate_weights.sum(2), 1.0, atol=1e-6)
        np.testing.assert_allclose(said.gate_weights[:, :, 2], 0.25)
        assert len(model.train().logits(x)) == 2


def test_the_pullback_of_a_memory_is_the_gradient_that_autograd_finds() -> None:
    model = remembering(5)
    model.remember([(videos(5), some_labels(5))])
    logits = [one.detach().requires_grad_() for one in model.logits(videos(3, 7))]
    p, pullback = model.pool_and_pullback(*[one.detach() for one in logits])
    r = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad((model.pool(*[one.clone() for one in logits]) * r).sum(), logits)
    for mine, its in zip(pullback(r), expected, strict=True):
        assert_close(mine, its, atol=1e-6, rtol=1e-4)


def test_a_memory_keeps_the_first_videos_and_labels_and_forgets_the_earlier_ones() -> None:
    memory = Memory(3, 2, 40, neighbours=3, temperature=1.0)
    assert not memory(torch.ones(2, 2)).any(), "nothing is remembered yet"
    u = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [5.0, 5.0]])
    labels = torch.zeros(4, 40, dtype=torch.bool)
    labels[0] = True
    memory.fill([(u, labels)])
    assert memory.count.item() == 3
    assert memory.labels_NS[0].tolist() == list(range(32))
    assert (memory.labels_NS[1:] == -1).all()
    memory.fill([(u[:1], labels[1:2])])
    assert memory.count.item() == 1
    assert not memory(torch.ones(2, 2)).any()


def test_a_run_remembers_its_training_videos_and_an_export_has_them(tiny: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = {"shared_expert_size": 16, "memory_videos": 10**6, "memory_neighbours": 5}
    flags = tiny.flags(tmp_path, model="SharedExpertMoeModel", eval_data_pattern=tiny.validate, **options)
    assert train(flags).finished
    trained = load_model(tmp_path, device="cpu")
    model = trained.module.model
    assert isinstance(model, SharedExpertMoeModel)
    assert model.memory is not None
    assert model.memory.count.item() == trained.flags.options.memory_videos == 600
    assert model.memory.keys_NU.dtype == torch.float16
    x = torch.randn(3, 8)
    said = trained.explain(x)
    np.testing.assert_allclose(said.probabilities, trained.predict(x).numpy(), atol=1e-6)
    export(Flags(train_dir=str(tmp_path)))  # compares the answers itself
    assert (tmp_path / "exported" / "model.onnx").is_file()


def test_frames_are_not_remembered(tiny: Any, tmp_path: Path) -> None:
    flags = tiny.flags(tmp_path, model="FrameMomentsModel", frame_features=True, memory_videos=5)
    with pytest.raises(FlagError, match="--memory_videos=5: only a video-level model by itself"):
        train(flags)


@every_model
def test_bfloat16_products_change_little(name: str) -> None:
    model = build(name, moe_rank=3)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(videos(40))
    full = model(videos(40))
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert_close(half, full, atol=0.03, rtol=0)


def lesson_of(x: Tensor, labels: Tensor) -> Lesson:
    return Lesson(x, None, labels, None, float(len(x)))


@every_model
def test_it_learns(name: str) -> None:
    """Four labels, one of them an exclusive or, which no linear map gives."""
    x = torch.randn(400, D, generator=torch.Generator().manual_seed(0))
    labels = torch.stack([x[:, 0] > 0, x[:, 1] > 0.5, x[:, 2] < -1, (x[:, 3] > 0) ^ (x[:, 4] > 0)], dim=1)
    model = build(name, size=1.0, shared_expert_size=32).train()
    model.start_at_rates(labels.float().mean(0))
    optimizer, flags = OPTIMIZERS["AdamOptimizer"](model.parameters()), Flags()
    steps = (flags, TrainingNetwork(model), model, optimizer, cross_entropy_loss, lesson_of(x, labels), 0.03)
    losses = [train_step(*steps)[0].item() for _ in range(150)]
    assert losses[-1] < 0.35 * losses[0]


@every_model
def test_early_answers_are_learned_with_their_weight(name: str) -> None:
    """A step goes against the gradient of the whole loss."""
    x, labels = videos(6), some_labels(6)
    model = build(name).train()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    flags = Flags(clip_gradient_norm=0.0, regularization_penalty=0.0)
    train_step(flags, TrainingNetwork(model), model, optimizer, cross_entropy_loss, lesson_of(x, labels), 0.1)
    outputs = twin.training_outputs(x)
    loss = cross_entropy_loss(twin.pool(*outputs.logits), labels)
    for early_BC in outputs.early:
        loss = loss + 0.3 * cross_entropy_loss(early_BC, labels)
    loss.backward()
    for after, before in zip(model.parameters(), twin.parameters(), strict=True):
        assert before.grad is not None
        assert_close(after.detach(), before.detach() - 0.1 * before.grad, atol=1e-6, rtol=1e-4)


def fused_equals_eager(name: str, soft: bool) -> None:
    labels = some_labels(16)
    lesson = lesson_of(videos(16), labels * 0.75 if soft else labels)
    eager, other = build(name).train(), build(name).train()
    for model, fused in ((eager, None), (other, fuse(other, cross_entropy_loss))):
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        for _ in range(3):
            loss, p = train_step(
                Flags(), TrainingNetwork(model), model, optimizer, cross_entropy_loss, lesson, 0.1, fused
            )
        assert_close(loss, cross_entropy_loss(p, lesson.labels))
    for a, b in zip(eager.parameters(), other.parameters(), strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-4)


@every_model
@pytest.mark.parametrize("soft", [False, True])
def test_the_fused_step_is_the_step(name: str, soft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    fused_equals_eager(name, soft)


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("soft", [False, True])
def test_the_compiled_step_is_the_step(name: str, soft: bool) -> None:
    if not compiler_found(torch.device("cpu")):
        pytest.skip("there is no C++ compiler here")
    fused_equals_eager(name, soft)


class Means(AbstractFrameModel):
    """The mean of the frames, for a classifier to look at."""

    def __init__(self, classifier: AbstractVideoModel) -> None:
        super().__init__()
        self.classifier, self.num_classes = classifier, classifier.num_classes

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> "Means":
        return cls(classifier_of(flags.input_size, 1.0))

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        return x_BLD.sum(1) / lengths_B.clamp_min(1).unsqueeze(1)

    def reset_encoder(self, generator: torch.Generator) -> None:
        pass


@every_model
def test_it_serves_a_frame_level_model(name: str) -> None:
    flags = flags_of(name)
    model = Means.from_flags(flags, lambda size, _: VIDEO_MODELS[name].from_flags(flags, size, 0.2))
    model.reset(torch.Generator().manual_seed(0))
    model.start_at_rates(RATES)
    inputs = torch.randn(5, 9, D), torch.tensor([9, 9, 3, 1, 0])
    model.train()
    outputs: Outputs = model.training_outputs(*inputs)
    assert len(outputs.early) == (name == "ChainMoeModel")
    assert model.early_weight == model.classifier.early_weight
    model.eval()
    p = model(*inputs)
    assert p.shape == (5, C)
    np.testing.assert_allclose(model.explain(*inputs).probabilities, p.detach().numpy(), atol=1e-6)


@every_model
def test_it_is_exported(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from expertise.youtube8m.export import export_program, write_onnx

    model = build(name, moe_rank=3)
    ours = VideoModel(Classifier(model).eval(), flags_of(name), 0, torch.device("cpu"))
    program = export_program(ours)
    write_onnx(program, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 2, 70):
        x = torch.randn(n, D, generator=torch.Generator().manual_seed(n))
        expected = ours.predict(x)
        with torch.no_grad():
            assert_close(program.module()(x), expected, atol=1e-6, rtol=0)
        (answer,) = session.run(None, {"features": x.numpy()})
        np.testing.assert_allclose(answer, expected.numpy(), atol=1e-4)


@every_model
@any_rank
def test_it_takes_weights_where_it_has_no_memory_yet(name: str, rank: int) -> None:
    """As an export is read: built on the meta device, then given what was saved."""
    source = build(name, moe_rank=rank)
    with torch.device("meta"):
        empty = VIDEO_MODELS[name].from_flags(flags_of(name, moe_rank=rank), D, SCALE)
    empty.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(empty.eval()(videos(4)), source(videos(4)))


@every_model
def test_a_run_from_beginning_to_end(name: str, tiny: Any, tmp_path: Path) -> None:
    small = {"context_gating_rank": 2, "chain_size": 4, "shared_expert_size": 16}
    flags = tiny.flags(tmp_path, model=name, num_epochs=3, eval_data_pattern=tiny.validate, **small)
    assert train(flags).finished
    model = load_model(tmp_path, device="cpu")
    assert type(model.module.model) is VIDEO_MODELS[name]
    exported = load_file(next((tmp_path / "export").iterdir()) / "model.safetensors")
    assert exported.keys() == model.module.model.state_dict().keys()
    x = torch.randn(3, 8)
    said = model.explain(x)
    np.testing.assert_allclose(said.probabilities, model.predict(x).numpy(), atol=1e-6)


def test_all_of_them_are_modules_that_can_be_copied() -> None:
    for name in TWINS:
        model = build(name)
        copied = copy.deepcopy(model)
        assert isinstance(copied, nn.Module)
        assert torch.equal(copied(videos(3)), model(videos(3)))
        model.reset(torch.Generator().manual_seed(99), 3.0)
        assert not torch.equal(copied(videos(3)), model(videos(3)))


def test_context_gates_are_computed_in_float32() -> None:
    """What all videos have in common is large there: rounded to bfloat16, it would hide what differs."""
    found = []
    for bf16 in (False, True):
        model = ContextGatedMoeModel(64, 20, gating_rank=8)
        model.reset(torch.Generator().manual_seed(0), scale=0.5)
        x_BD = l2_normalize(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model.logits(x_BD)
        found.append(model.pool(*logits))
    torch.testing.assert_close(found[1], found[0], atol=3e-3, rtol=0)
