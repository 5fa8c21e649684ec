"""Mixtures that run only the experts that were picked, in training and in prediction."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expertise.nn import objectives
from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from expertise.nn.neural.batch import Plan, Rows, balance_loss, case_losses, pick, say_all, say_chosen
from expertise.nn.neural.networks import Mixture, NetworkExpert, NetworkGate, Scaling, Shape
from expertise.nn.neural.training import Settings, make_optimizer, step
from nn.tables import regimes, speaker


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Counting(nn.Linear):
    """A linear expert that counts the rows of each call, in training and else."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.trained: list[int] = []
        self.asked: list[int] = []

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        (self.trained if torch.is_grad_enabled() else self.asked).append(len(input))
        return super().forward(input)


def small(k: int | None, objective: str = "likelihood") -> tuple[Mixture, Rows, Plan]:
    """Make a mixture of three linear experts in three columns, rows, and a plan."""
    torch.manual_seed(0)
    shape = Shape(1, True, Scaling.identity(3), Scaling.identity(1), np.arange(3), 1e-4)
    experts = [NetworkExpert(Counting(), shape) for _ in range(3)]
    mixture = Mixture(NetworkGate(nn.Linear(3, 3), 3, shape), experts)
    rows = Rows(torch.randn(40, 3), torch.randn(40, 1), torch.ones(40))
    if objective == "likelihood":
        return mixture, rows, Plan(objective, objectives.gaussian_loss, "mean_and_width", k, balance=0.01)
    return mixture, rows, Plan(objective, objectives.squared_error, "mean", k, balance=0.01)


def test_the_chosen_say_what_they_would_say_among_all() -> None:
    mixture, rows, plan = small(2)
    chosen, log_weight = pick(mixture.gate(rows.x_ND).log_softmax(1), 2)
    every = say_all(mixture, rows, plan)
    picked = say_chosen(mixture, chosen, rows, plan)
    torch.testing.assert_close(picked, every.gather(1, chosen[:, :, None].expand(-1, -1, 2)))
    torch.testing.assert_close(log_weight.exp().sum(1), torch.ones(40))


def test_pitfall_03_an_expert_that_no_row_picked_does_not_change_at_all() -> None:
    """AdamW with momentum from the step before and weight decay: weights and state byte for byte."""
    for objective in ("likelihood", "expected", "cooperative"):
        mixture, rows, plan = small(1, objective)
        settings = Settings(1, 40, 0.1, 0.5, 1, 0)
        optimizer = make_optimizer(mixture, settings)
        generator = torch.Generator().manual_seed(0)
        step(mixture, rows, plan, optimizer, generator)
        chosen = mixture.gate(rows.x_ND).argmax(1)
        assert len(chosen.unique()) == 3  # all have momentum now
        only = rows.take(chosen == 1)
        before = copy.deepcopy(mixture.state_dict())
        state = {
            id(p): copy.deepcopy(optimizer.state[p]) for p in mixture.parameters() if p in optimizer.state
        }
        mixture.train()
        step(mixture, only, plan, optimizer, generator)
        for k in range(3):
            same = [
                torch.equal(value, mixture.state_dict()[name])
                for name, value in before.items()
                if name.startswith(f"experts.{k}.network")
            ]
            assert all(same) == (k != 1)
            for parameter in mixture.expert(k).parameters():
                if k != 1 and id(parameter) in state:
                    for name, value in state[id(parameter)].items():
                        assert torch.equal(value, optimizer.state[parameter][name])
        moved = [
            not torch.equal(before[name], mixture.state_dict()[name]) for name in before if "gate.net" in name
        ]
        assert all(moved)


@pytest.mark.parametrize("objective", ["likelihood", "expected", "cooperative"])
@pytest.mark.parametrize("k", [1, 2])
def test_pitfall_04_the_gate_has_a_gradient_also_with_one_expert(objective: str, k: int) -> None:
    mixture, rows, plan = small(k, objective)
    values, _ = case_losses(mixture, rows, plan, None)
    values.sum().backward()
    gradient = next(mixture.gate.parameters()).grad
    assert gradient is not None
    assert gradient.abs().max() > 1e-3


def test_with_one_expert_the_gate_learns_by_the_score() -> None:
    """Its gradient is (L_z - mean of the others' L)(e_z - p) at the expert that is picked."""
    mixture, rows, plan = small(1, "expected")
    logits = mixture.gate(rows.x_ND).detach().requires_grad_()
    mixture.gate.forward = lambda x: logits
    values, _ = case_losses(mixture, rows, plan, None)
    values.sum().backward()
    chosen = logits.argmax(1)
    loss = objectives.squared_error(rows.y, say_all(mixture, rows, plan)[torch.arange(40), chosen]).detach()
    torch.testing.assert_close(values.detach(), loss)
    others = (loss.sum() - loss) / 39
    score = nn.functional.one_hot(chosen, 3) - logits.detach().softmax(1)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (loss - others)[:, None] * score)


def test_the_balance_loss_by_hand() -> None:
    probs = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.4, 0.6]], requires_grad=True)
    chosen = torch.tensor([[0], [0], [1]])
    weight = torch.tensor([1.0, 1.0, 2.0])
    # f = (1/2, 1/2); P = ((.7 + .6 + .8) / 4, ...) = (.525, .475)
    value = balance_loss(probs.log(), chosen, weight)
    assert value.item() == pytest.approx(2 * (0.5 * 0.525 + 0.5 * 0.475))
    value.backward()
    assert probs.grad is not None
    # only P carries a gradient: E f_e share_i
    torch.testing.assert_close(probs.grad, torch.tensor([[0.25], [0.25], [0.5]]).expand(3, 2))


def test_balance_keeps_all_experts_in_use() -> None:
    data = regimes(400)
    options: dict[str, Any] = {"router": "top_k", "expert_hidden": (), "epochs": 15, "random_state": 0}
    options |= {"batch_size": 64, "learning_rate": 0.03}
    largest = [
        NeuralMixtureRegressor(4, balance=balance, **options).fit(data.X, data.y).weights_.max()
        for balance in (0.0, 1.0)
    ]
    assert largest[1] < 0.4
    assert largest[1] < largest[0]


@pytest.mark.parametrize("k", [1, 2])
def test_only_picked_experts_run_in_training_and_in_prediction(k: int) -> None:
    data = regimes(120)
    model = NeuralMixtureRegressor(
        experts=[Counting() for _ in range(4)],
        router="top_k",
        k=k,
        epochs=2,
        batch_size=120,
        early_stopping=False,
        random_state=0,
    ).fit(data.X, data.y)
    gate = model.gate_proba(data.X)
    assert (np.count_nonzero(gate, axis=1) == k).all()
    np.testing.assert_allclose(gate.sum(axis=1), 1)
    assert sum(sum(expert.trained) for expert in model.experts_) == 2 * 120 * k
    for expert in model.experts_:
        expert.asked.clear()
    found = model.predict(data.X)
    assert [sum(expert.asked) for expert in model.experts_] == np.count_nonzero(gate, axis=0).tolist()
    np.testing.assert_allclose(found, (gate * model.predict_experts(data.X)).sum(axis=1))


@pytest.mark.parametrize(("baseline", "more"), [("none", 0), ("batch", 0), ("gate", 3)])
def test_hard_attention_trains_one_expert_a_row(baseline: str, more: int) -> None:
    """The baseline "gate" asks all three, apart from what learns."""
    data = regimes(100)
    options: dict[str, Any] = {"objective": "reinforce", "batch_size": 100, "epochs": 2, "random_state": 0}
    model = NeuralMixtureRegressor(experts=[Counting() for _ in range(3)], baseline=baseline, **options)
    model.fit(data.X, data.y)
    assert sum(sum(expert.trained) for expert in model.experts_) == 2 * 100
    after = 2 * 100 * 3  # noise widths and likelihood ask each expert about each row once
    assert sum(sum(expert.asked) for expert in model.experts_) == after + 2 * 100 * more


def test_classes_too() -> None:
    tables = [speaker(source, 200, source) for source in range(2)]
    X, y = (np.concatenate(part) for part in zip(*tables, strict=True))
    options: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.03, "epochs": 30, "random_state": 0}
    model = NeuralMixtureClassifier(2, router="top_k", **options).fit(X, y)
    assert model.score(X, y) > 0.95
    assert set(np.unique(model.gate_proba(X))) == {0.0, 1.0}
