"""What the product claims of mixtures trained by gradient: its requirements A6, A8, A17, A19, A21, A22."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from expertise.nn.objectives import BASELINES, expected, likelihood, reinforce, squared_error
from nn.tables import regimes, speaker


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bytes_of(module: nn.Module) -> list[bytes]:
    return [value.detach().numpy().tobytes() for value in module.state_dict().values()]


def test_a06_soft_experts_learn_by_their_responsibility() -> None:
    """Case by case, the gradient by an expert's mean is -h (y - mu), against finite differences."""
    torch.manual_seed(0)
    log_gate = torch.randn(6, 3, dtype=torch.float64).log_softmax(1)
    outputs, y = torch.randn(6, 3, 1, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
    h = (log_gate - (y[:, None] - outputs)[:, :, 0].square() / 2).softmax(1)
    for k in range(3):
        shift = torch.zeros_like(outputs)
        shift[:, k] = 1e-6
        slope = (likelihood(log_gate, outputs + shift, y) - likelihood(log_gate, outputs - shift, y)) / 2e-6
        np.testing.assert_allclose(slope, -h[:, k] * (y - outputs[:, k])[:, 0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [{"router": "top_k"}, {"objective": "reinforce"}])
def test_a06_experts_learn_nothing_on_cases_they_are_not_picked_for(options: dict[str, Any]) -> None:
    """The gate always picks expert 0: the others keep every bit, with momentum and weight decay."""
    data = regimes(100)

    class Always(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([100.0, 0.0, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias.expand(len(x), 3)

    torch.manual_seed(0)
    experts = [nn.Linear(3, 1) for _ in range(3)]
    model = NeuralMixtureRegressor(
        experts=experts, gate=Always(), epochs=5, weight_decay=0.5, dtype="float32", **options
    ).fit(data.X, data.y)
    assert bytes_of(model.experts_[0]) != bytes_of(experts[0])
    for k in (1, 2):
        assert bytes_of(model.experts_[k]) == bytes_of(experts[k])


def test_a08_cooperating_experts_are_worse_alone() -> None:
    """Each case's expected error of one expert drawn by the gate: the cooperative ones need each other."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, size=(300, 2))
    y = np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] ** 2 + 0.1 * rng.normal(size=300)

    def alone(objective: str) -> float:
        options: dict[str, Any] = {
            "expert_hidden": (4,),
            "epochs": 60,
            "learning_rate": 0.05,
            "batch_size": 64,
        }
        model = NeuralMixtureRegressor(4, objective=objective, random_state=0, **options).fit(X, y)
        each = (y[:, None] - model.predict_experts(X)) ** 2
        return float((model.gate_proba(X) * each).sum(axis=1).mean())

    error = {objective: alone(objective) for objective in ("cooperative", "expected", "likelihood")}
    assert error["cooperative"] >= 1.3 * error["expected"]
    assert error["cooperative"] >= 1.3 * error["likelihood"]


@pytest.mark.parametrize("part", ["gate", 0, 1])
def test_a17_parts_are_addressed_frozen_and_replaced_by_index(part: Any) -> None:
    data = regimes(120)
    model = NeuralMixtureRegressor(2, epochs=3, random_state=0).fit(data.X, data.y)
    parts = ["gate", 0, 1]

    def state() -> dict[Any, list[bytes]]:
        return {p: [v.detach().numpy().tobytes() for v in model.parameters_of(p)] for p in parts}

    before = state()
    for other in parts:
        if other != part:
            model.freeze(other)
    model.refit(data.X, data.y, epochs=2)
    changed = {p for p in parts if state()[p] != before[p]}
    assert changed == {part}
    # with all free again, everything moves
    for other in parts:
        model.unfreeze(other)
    model.refit(data.X, data.y, epochs=2)
    assert all(state()[p] != before[p] for p in parts)
    if part != "gate":
        before = state()
        new = nn.Linear(3, 1)
        model.replace_expert(part, new)
        assert bytes_of(model.experts_[part]) == bytes_of(new.double())
        assert all(state()[p] == before[p] for p in parts if p != part)


def test_a17_a_frozen_gate_stays_and_given_experts_too() -> None:
    data = regimes(120)
    torch.manual_seed(0)
    gate, experts = nn.Linear(3, 2), [nn.Linear(3, 1), nn.Linear(3, 1)]
    model = NeuralMixtureRegressor(
        experts=experts, gate=gate, freeze_gate=True, freeze_experts=[1], epochs=3, dtype="float32"
    ).fit(data.X, data.y)
    assert bytes_of(model.gate_) == bytes_of(gate)
    assert bytes_of(model.experts_[1]) == bytes_of(experts[1])
    assert bytes_of(model.experts_[0]) != bytes_of(experts[0])


@pytest.mark.parametrize("own", ["networks", "fitted estimators (Meta-Pi)"])
def test_a19_an_expert_for_a_new_source_from_five_shots_a_class(own: str) -> None:
    """Others byte for byte; old cases keep their predictions within a hundredth."""
    train, test = (
        [speaker(source, n, seed + source) for source in range(3)] for n, seed in ((200, 0), (400, 10))
    )
    X, y = (np.concatenate(part) for part in zip(*train[:2], strict=True))
    options: dict[str, Any] = {"epochs": 40, "batch_size": 64, "learning_rate": 0.03, "random_state": 0}
    if own == "networks":
        model = NeuralMixtureClassifier(2, **options)
    else:
        model = NeuralMixtureClassifier(
            experts=[LogisticRegression().fit(*table) for table in train[:2]],
            objective="cooperative",
            freeze_experts=True,
            **options,
        )
    model.fit(X, y)
    before = [model.predict_proba(table[0]) for table in test[:2]]
    experts = [model.predict_experts(table[0]) for table in test[:2]]
    gate, odds = bytes_of(model.gate_), model.gate_proba(test[0][0])
    assert model.score(*test[2]) < 0.2
    shots = np.concatenate([np.flatnonzero(train[2][1] == v)[:5] for v in range(3)])
    model.add_expert(train[2][0][shots], train[2][1][shots])
    assert model.n_experts_ == 3
    assert model.score(*test[2]) > 0.9
    for table, proba, said in zip(test[:2], before, experts, strict=True):
        assert np.abs(model.predict_proba(table[0]) - proba).max() < 0.02
        assert np.abs(model.predict_proba(table[0]) - proba).mean() < 0.001
        assert abs(model.score(*table) - np.mean(proba.argmax(1) == table[1])) < 0.01
        np.testing.assert_array_equal(model.predict_experts(table[0])[:, :2], said)
    # the old gate is inside the new one, and what it says of the old experts is the same
    assert all(value in bytes_of(model.gate_) for value in gate)
    now = model.gate_proba(test[0][0])
    np.testing.assert_allclose(now[:, :2] / now[:, :2].sum(axis=1, keepdims=True), odds, atol=1e-12)


class Bump(nn.Module):
    """An expert of another kind: one radial bump."""

    def __init__(self) -> None:
        super().__init__()
        self.centre, self.height = nn.Parameter(torch.randn(3)), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.height * torch.exp(-(x - self.centre).square().sum(1))


class Near(nn.Module):
    """A gate of another kind: distances to centres."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(x, self.centres).square()


def absolute(y: Tensor, prediction: Tensor) -> Tensor:
    return (y - prediction).abs()


EXPERTS = {
    "linear": lambda: [nn.Linear(3, 1), nn.Linear(3, 1)],
    "networks": lambda: [nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)) for _ in range(2)],
    "mixed": lambda: [Bump(), nn.Linear(3, 1)],
}
GATES = {
    "linear": lambda: None,
    "network": lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
    "distance": Near,
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "likelihood": {},
    "expected": {"objective": "expected", "loss": absolute},
    "cooperative": {"objective": "cooperative"},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("experts", EXPERTS)
def test_a21_any_experts_any_gate_any_objective(experts: str, gate: str, objective: str) -> None:
    data = regimes(120)
    torch.manual_seed(0)
    options = {"epochs": 10, "learning_rate": 0.05, "random_state": 0, **OBJECTIVES[objective]}
    model = NeuralMixtureRegressor(experts=EXPERTS[experts](), gate=GATES[gate](), **options)
    model.fit(data.X, data.y)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.score(data.X, data.y) > 0.05
    assert model.predict_interval(data.X[:3]).shape == (3, 2)
    assert len(model.parameters_of("gate")) == (1 if gate == "distance" else 2 if gate == "linear" else 4)


def test_a22_the_sampled_gradient_is_that_of_the_expected_loss_and_baselines_calm_it() -> None:
    torch.manual_seed(0)
    logits = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    outputs, y = torch.randn(20, 4, 1, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    exact = torch.autograd.grad(expected(logits.log_softmax(1), outputs, y).mean(), logits)[0]
    generator = torch.Generator().manual_seed(0)
    variance = {}
    for baseline in BASELINES:
        draws = []
        for _ in range(1000):
            log_gate = logits.log_softmax(1)
            values = reinforce(log_gate, outputs, y, squared_error, baseline=baseline, generator=generator)
            draws.append(torch.autograd.grad(values.mean(), logits)[0])
        drawn = torch.stack(draws)
        variance[baseline] = drawn.var(dim=0).sum().item()
        # the mean of 1000 draws lies within a few standard errors of the exact gradient
        standard_error = (variance[baseline] / 1000) ** 0.5
        assert (drawn.mean(dim=0) - exact).norm() < 1.5 * standard_error
    assert variance["none"] > variance["batch"] > variance["gate"]


@pytest.mark.parametrize("baseline", BASELINES)
def test_a22_hard_attention_learns(baseline: str) -> None:
    train, test = regimes(400, 1), regimes(400, 2)
    options: dict[str, Any] = {"expert_hidden": (), "learning_rate": 0.05, "epochs": 60, "random_state": 0}
    options["batch_size"] = 64
    model = NeuralMixtureRegressor(4, objective="reinforce", baseline=baseline, **options)
    model.fit(train.X, train.y)
    assert model.score(test.X, test.y) > 0.8
