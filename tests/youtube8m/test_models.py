"""The models against the reference's own values, a slow twin, and what must hold for each of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from expertise.youtube8m.losses import LOSSES, cross_entropy_loss
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import VIDEO_MODELS, LogisticModel, MoeModel, build_model, l2_normalize
from expertise.youtube8m.models._mixing import mix
from expertise.youtube8m.optimizers import OPTIMIZERS, clip_each
from reference import moe_gradients, moe_probabilities


class Golden:
    """The case that the reference's MoeModel was run on in TensorFlow."""

    def __init__(self, folder: Path) -> None:
        case: dict[str, Any] = json.loads((folder / "youtube8m" / "moe_forward_expected.json").read_text())
        self.B, self.D, self.C, self.M = (case["dims"][letter] for letter in "BDCM")
        self.expected = case["expected"]
        self.x = torch.tensor(case["x"]).reshape(self.B, self.D)
        self.labels = torch.tensor(case["Y"]).reshape(self.B, self.C).bool()
        self.weights = [
            torch.tensor(case["Wg"]).reshape(self.D, -1),
            torch.tensor(case["We"]).reshape(self.D, -1),
            torch.tensor(case["be"]),
        ]

    def model(self) -> MoeModel:
        model = MoeModel(self.D, self.C, self.M, l2=1e-2)
        model.load_reference_weights(*self.weights)
        return model

    def class_major(self, gate: torch.Tensor, expert: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
        return [gate.permute(2, 1, 0).flatten(), expert.permute(2, 1, 0).flatten(), bias.T.flatten()]


VARIABLES = ("tower/gates/weights", "tower/experts/weights", "tower/experts/biases")


@pytest.fixture(scope="module")
def golden(reference_dir: Path) -> Golden:
    return Golden(reference_dir)


def close(actual: torch.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    assert_close(actual.flatten(), torch.tensor(expected).flatten(), atol=tolerance, rtol=0)


def test_predictions_are_those_of_the_reference(golden: Golden) -> None:
    model = golden.model()
    close(model(golden.x), golden.expected["predictions_raw_x"])
    close(model(l2_normalize(golden.x)), golden.expected["predictions_l2_normalized_x"])


def test_gate_and_expert_of_a_class_are_those_of_the_reference(golden: Golden) -> None:
    explained = golden.model().explain(golden.x)
    close(torch.tensor(explained.gate_weights[0, 0]), golden.expected["gate_row0_class0"])
    close(torch.tensor(explained.expert_votes[0, 0]), golden.expected["expert_row0_class0"])


def test_losses_and_gradients_are_those_of_the_reference(golden: Golden) -> None:
    model = golden.model()
    loss = cross_entropy_loss(model(golden.x), golden.labels)
    penalty = sum(l2 / 2 * w.square().sum() for w, l2 in model.penalized())
    assert loss.item() == pytest.approx(golden.expected["cross_entropy_loss_raw_x"], abs=1e-5)
    assert penalty.item() == pytest.approx(golden.expected["l2_reg_loss_with_l2_penalty_1e-2"], abs=1e-5)
    (loss + penalty).backward()
    gradients = golden.class_major(*(p.grad for p in model.parameters()))
    for name, gradient in zip(VARIABLES, gradients, strict=True):
        close(gradient, golden.expected["grad_of_(1.0*reg+loss)_raw_x"][name])
        norm = golden.expected["grad_norms_before_clip"][name]
        assert gradient.norm().item() == pytest.approx(norm, abs=1e-5)


def test_three_adam_steps_end_where_the_reference_ends(golden: Golden) -> None:
    model = golden.model()
    optimizer = OPTIMIZERS["AdamOptimizer"](model.parameters())
    optimizer.param_groups[0]["lr"] = 0.01
    expected = golden.expected["train3"]
    for step in range(4):
        optimizer.zero_grad()
        loss = cross_entropy_loss(model(golden.x), golden.labels)
        penalty = sum(l2 / 2 * w.square().sum() for w, l2 in model.penalized())
        assert loss.item() == pytest.approx(expected["loss_reg_trajectory"][step][0], abs=1e-5)
        assert penalty.item() == pytest.approx(expected["loss_reg_trajectory"][step][1], abs=1e-5)
        if step == 3:
            break
        (loss + penalty).backward()
        clip_each(model.parameters(), 1.0)
        optimizer.step()
    weights = golden.class_major(*(p.detach() for p in model.parameters()))
    for name, weight in zip(VARIABLES, weights, strict=True):
        close(weight, expected["final_weights"][name])


def numpy_adam(weights: list[np.ndarray], gradient_of: Any, steps: int, limit: float) -> list[np.ndarray]:
    """TensorFlow's Adam on each variable, its gradient clipped by itself. Float64, nothing clever."""
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    for t in range(1, steps + 1):
        gradients = gradient_of(weights)
        for i, g in enumerate(gradients):
            norm = np.sqrt((g**2).sum())
            clipped = g * limit / norm if norm > limit else g
            first[i] = 0.9 * first[i] + 0.1 * clipped
            second[i] = 0.999 * second[i] + 0.001 * clipped**2
            rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weights[i] = weights[i] - rate * first[i] / (np.sqrt(second[i]) + 1e-8)
    return weights


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_clipping_of_each_variable_equals_a_numpy_twin(golden: Golden, factor: float) -> None:
    model = golden.model()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    optimizer.param_groups[0]["lr"] = 0.01
    for _ in range(5):
        optimizer.zero_grad()
        (factor * cross_entropy_loss(model(golden.x), golden.labels)).backward()
        clip_each(model.parameters(), 1.0)
        optimizer.step()

    x, y = golden.x.double().numpy(), golden.labels.numpy()

    def gradients(weights: list[np.ndarray]) -> list[np.ndarray]:
        return [factor * g for g in moe_gradients(x, y, *weights)]

    start = [
        golden.weights[0].reshape(golden.D, golden.C, golden.M + 1).permute(2, 1, 0).double().numpy(),
        golden.weights[1].reshape(golden.D, golden.C, golden.M).permute(2, 1, 0).double().numpy(),
        golden.weights[2].reshape(golden.C, golden.M).T.double().numpy(),
    ]
    norms = [np.sqrt((g**2).sum()) for g in gradients(start)]
    assert (max(norms) > 1.0) == (factor == 100.0)  # the case must make the clip fire, or not at all
    for parameter, twin in zip(model.parameters(), numpy_adam(start, gradients, 5, 1.0), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), twin, atol=2e-5)


def test_clipping_is_off_at_zero_or_less() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    for limit in (0.0, -1.0):
        weight.grad = torch.full((3,), 100.0)
        clip_each([weight], limit)
        assert weight.grad.tolist() == [100.0] * 3
    clip_each([weight], 1.0)
    assert weight.grad.norm().item() == pytest.approx(1.0)


def test_clipping_does_not_wait_for_a_device() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, device="meta"))
    weight.grad = torch.zeros(3, device="meta")
    with pytest.raises(RuntimeError):
        bool(weight.grad.norm() > 1.0)  # to ask for a value is an error there
    clip_each([weight], 1.0)


@given(
    videos=st.integers(1, 9),
    classes=st.integers(1, 7),
    mixtures=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=30, deadline=None)
def test_the_mixture_equals_the_double_loop(videos: int, classes: int, mixtures: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    gate = random.standard_normal((mixtures + 1, classes, 5))
    expert = random.standard_normal((mixtures, classes, 5))
    bias = random.standard_normal((mixtures, classes))
    x = random.standard_normal((videos, 5))
    model = MoeModel(5, classes, mixtures)
    for parameter, value in zip(model.parameters(), (gate, expert, bias), strict=True):
        parameter.data = torch.tensor(value, dtype=torch.float32)
    labels = random.random((videos, classes)) < 0.3
    p = model(torch.tensor(x, dtype=torch.float32))
    np.testing.assert_allclose(p.detach().numpy(), moe_probabilities(x, gate, expert, bias), atol=3e-6)
    cross_entropy_loss(p, torch.tensor(labels)).backward()
    for parameter, twin in zip(model.parameters(), moe_gradients(x, labels, gate, expert, bias), strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), twin, atol=1e-4 * max(1.0, abs(twin).max()))


def test_the_mixture_does_not_depend_on_how_rows_are_blocked() -> None:
    generator = torch.Generator().manual_seed(0)
    gate = torch.randn(40, 3, 6000, generator=generator)
    expert = torch.randn(40, 2, 6000, generator=generator)  # 30,000 logits a row: two blocks
    together = mix(gate.clone(), expert.clone())
    single = torch.cat([mix(gate[i : i + 1].clone(), expert[i : i + 1].clone()) for i in range(40)])
    assert_close(together, single, atol=1e-6, rtol=0)


def test_a_second_gradient_through_overwritten_logits_is_refused() -> None:
    p = MoeModel(3, 2)(torch.randn(4, 3))
    p.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        p.sum().backward()


def test_saturated_logits_stay_finite() -> None:
    model = MoeModel(2, 3)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 1e4
    p = model(torch.randn(50, 2))
    cross_entropy_loss(p, torch.zeros(50, 3, dtype=torch.bool)).backward()
    assert p.isfinite().all()
    assert ((p >= 0) & (p <= 1 + 1e-6)).all()
    assert all(
        parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None
    )


def test_a_sure_dummy_vetoes_the_class() -> None:
    model = MoeModel(1, 1, 2)
    model.mixture.gate_GCH.data[-1] = 50.0
    model.mixture.expert_bias_MC.data[:] = 50.0
    assert model(torch.ones(1, 1)).item() < 1e-12


def test_bfloat16_products_change_little() -> None:
    model = MoeModel(64, 50)
    model.reset(torch.Generator().manual_seed(0), 5.0)
    x = l2_normalize(torch.randn(20, 64, generator=torch.Generator().manual_seed(1)))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x)
    assert half.dtype == torch.float32
    full = model(x)
    assert not torch.equal(half, full)
    assert_close(half, full, atol=0.01, rtol=0)


OF_CLASSES = ("gate_GCH", "expert_MCU", "weight_CD")  # what gives the class logits


def flags_of(model: str) -> ModelFlags:
    return ModelFlags(model=model, feature_names=("a",), feature_sizes=(6,), num_classes=4, class_names=())


@pytest.mark.parametrize("name", VIDEO_MODELS)
class TestEveryModel:
    """What holds for each model of the table."""

    def test_probabilities(self, name: str) -> None:
        model = build_model(flags_of(name))
        model.eval().reset(torch.Generator().manual_seed(0))
        p = model(torch.randn(9, 6))
        assert p.shape == (9, 4)
        assert p.dtype == torch.float32
        assert ((p >= 0) & (p <= 1)).all()

    def test_reset_is_repeatable_and_scaled(self, name: str) -> None:
        first, second, smaller = (build_model(flags_of(name)) for _ in range(3))
        first.reset(torch.Generator().manual_seed(7))
        second.reset(torch.Generator().manual_seed(7))
        smaller.reset(torch.Generator().manual_seed(7), scale=0.1)
        others = dict(second.named_parameters()), dict(smaller.named_parameters())
        for key, weight in first.named_parameters():
            assert torch.equal(weight, others[0][key])
            of_classes = key.endswith(OF_CLASSES)
            assert_close(others[1][key], 0.1 * weight if of_classes else weight)
        other = build_model(flags_of(name))
        other.reset(torch.Generator().manual_seed(8))
        assert not torch.equal(next(first.parameters()), next(other.parameters()))

    def test_start_at_rates(self, name: str) -> None:
        model = build_model(flags_of(name)).eval()
        rates = torch.tensor([0.5, 0.1, 0.001, 1e-6])
        model.start_at_rates(rates)
        assert_close(model(torch.zeros(1, 6))[0], rates, rtol=1e-4, atol=0)

    def test_one_video_as_in_a_batch(self, name: str) -> None:
        model = build_model(flags_of(name))
        model.eval().reset(torch.Generator().manual_seed(0), 3.0)
        x = torch.randn(1024, 6, generator=torch.Generator().manual_seed(1))
        together = model(x)
        single = torch.cat([model(x[i : i + 1]) for i in range(0, 1024, 97)])
        assert_close(single, together[::97], atol=1e-6, rtol=0)

    def test_only_weights_are_penalized(self, name: str) -> None:
        model = build_model(flags_of(name))
        penalized = {id(weight) for weight, _ in model.penalized()}
        for key, parameter in model.named_parameters():
            assert (id(parameter) in penalized) == key.endswith(OF_CLASSES)


def test_glorot_limits_are_those_of_the_whole_matrix() -> None:
    """The reference draws gates as one (D, C (M + 1)) matrix and experts as one (D, C M) matrix."""
    model = MoeModel(30, 200, 2)
    model.reset(torch.Generator().manual_seed(0))
    for weight in (model.mixture.gate_GCH, model.mixture.expert_MCU):
        limit = np.sqrt(6 / (30 + weight.shape[0] * 200))
        assert weight.abs().max().item() == pytest.approx(limit, rel=1e-2)
        assert weight.abs().max().item() <= limit


def test_logistic_model_is_sigmoid_of_a_linear_map() -> None:
    model = LogisticModel(3, 2)
    model.reset(torch.Generator().manual_seed(0))
    model.bias_C.data = torch.tensor([0.5, -1.0])
    x = torch.randn(4, 3)
    logits = x.numpy() @ model.weight_CD.detach().numpy().T + np.array([0.5, -1.0])
    np.testing.assert_allclose(model(x).detach().numpy(), 1 / (1 + np.exp(-logits)), atol=1e-6)
    with pytest.raises(ValueError, match="no experts"):
        model.explain(x)


def test_reference_weights_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gates has shape \(3, 5\).*takes \(3, 6\)"):
        MoeModel(3, 2).load_reference_weights(torch.zeros(3, 5), torch.zeros(3, 4), torch.zeros(4))


def test_l2_normalize_of_zeros_is_zeros() -> None:
    assert l2_normalize(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_losses_by_hand() -> None:
    p = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.1, 0.1]])
    y = torch.tensor([[True, False, True], [False, False, False]])
    eps = 1e-5
    said = np.array([0.9, 0.8, 0.5, 0.9, 0.9, 0.9]) + eps
    assert LOSSES["CrossEntropyLoss"](p, y).item() == pytest.approx(-np.log(said).sum() / 2, rel=1e-5)
    assert LOSSES["HingeLoss"](p, y).item() == pytest.approx((0.1 + 1.2 + 0.5 + 3 * 1.1) / 2, rel=1e-5)
    log_softmax = np.log(np.exp([0.9, 0.2, 0.5]) / np.exp([0.9, 0.2, 0.5]).sum())
    assert LOSSES["SoftmaxLoss"](p, y).item() == pytest.approx(
        -(log_softmax[0] + log_softmax[2]) / 4, rel=1e-5
    )


def test_cross_entropy_of_sure_answers_is_finite_with_a_gradient() -> None:
    p = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = cross_entropy_loss(p, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(-2 * np.log(1e-5), rel=1e-3)
    loss.backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_the_pullback_is_the_gradient_that_autograd_finds(name: str, loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = build_model(flags_of(name))
    model.reset(generator, 3.0)
    labels = torch.rand(7, 4, generator=generator) < 0.4
    logits = [one.detach().requires_grad_() for one in model.logits(torch.randn(7, 6, generator=generator))]
    p, pullback = model.pool_and_pullback(*(logit.detach() for logit in logits))
    r, value = torch.func.grad_and_value(LOSSES[loss])(p, labels)
    gradients = pullback(r)
    pooled = model.pool(*(logit.clone() for logit in logits))
    expected = LOSSES[loss](pooled, labels)
    assert_close(p, pooled.detach(), atol=1e-6, rtol=0)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, twin in zip(gradients, torch.autograd.grad(expected, logits), strict=True):
        assert_close(gradient, twin, atol=1e-6, rtol=1e-4)
