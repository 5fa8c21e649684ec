"""Neural mixtures on data and parts as people bring them: what once went wrong, or was said unclearly."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from nn.tables import regimes

DATA = regimes(60)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


class FirstTwo(nn.Module):
    """A gate that never picks the last of three experts."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, 0.0, -1000.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), 3)


@pytest.mark.parametrize("baseline", ["none", "batch", "gate"])
@pytest.mark.parametrize("kind", [NeuralMixtureRegressor, NeuralMixtureClassifier])
def test_pitfall_03_an_expert_that_was_never_drawn_does_not_change(kind: Any, baseline: str) -> None:
    """Also where the baseline asks every expert: no weight decay, no running statistics."""
    y = DATA.y if kind is NeuralMixtureRegressor else DATA.regime
    torch.manual_seed(0)
    outputs = 1 if kind is NeuralMixtureRegressor else 2
    experts = [nn.Sequential(nn.Linear(3, outputs), nn.BatchNorm1d(outputs)) for _ in range(3)]
    model = kind(
        experts=experts,
        gate=FirstTwo(),
        objective="reinforce",
        baseline=baseline,
        batch_size=60,
        epochs=3,
        weight_decay=0.5,
        dtype="float32",
        random_state=0,
    ).fit(DATA.X, y)
    for k, (now, before) in enumerate(zip(model.experts_, experts, strict=True)):
        same = [torch.equal(value, now.state_dict()[name]) for name, value in before.state_dict().items()]
        assert all(same) == (k == 2)


def test_the_baseline_of_the_gate_is_the_expected_loss() -> None:
    """With two experts of fixed losses 1 and 4 and equal odds, the score's factor is L_z - 2.5."""
    from expertise.nn import objectives
    from expertise.nn.neural.batch import Plan, Rows, case_losses
    from expertise.nn.neural.networks import Mixture, NetworkExpert, NetworkGate, Scaling, Shape

    class Says(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 1), self.value)

    shape = Shape(1, True, Scaling.identity(1), Scaling.identity(1), np.arange(1))
    gate = nn.Linear(1, 2)
    nn.init.zeros_(gate.weight)
    nn.init.zeros_(gate.bias)
    experts = [NetworkExpert(Says(1.0), shape), NetworkExpert(Says(2.0), shape)]
    mixture = Mixture(NetworkGate(gate, 2, shape), experts)
    rows = Rows(torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1))
    plan = Plan("reinforce", objectives.squared_error, "mean", baseline="gate")
    values, _ = case_losses(mixture, rows, plan, torch.Generator().manual_seed(0))
    values.sum().backward()
    drawn = int(values.item() == 4.0)
    score = nn.functional.one_hot(torch.tensor(drawn), 2) - 0.5
    assert gate.bias.grad is not None
    torch.testing.assert_close(gate.bias.grad, (values.item() - 2.5) * score)


def test_a_row_that_is_left_over_joins_the_batch_before() -> None:
    """61 rows in batches of 20: batch normalisation cannot take one row."""
    data = regimes(61)
    seen: list[int] = []

    class Watching(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            if self.training:
                seen.append(len(input))
            return super().forward(input)

    experts: list[nn.Module] = [nn.Sequential(Watching(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))]
    options: dict[str, Any] = {"early_stopping": False, "epochs": 1, "random_state": 0}
    NeuralMixtureRegressor(experts=experts, batch_size=20, **options).fit(data.X, data.y)
    assert seen == [20, 20, 21]
    seen.clear()
    experts = [Watching(3, 1)]
    NeuralMixtureRegressor(experts=experts, batch_size=1, **options).fit(data.X, data.y)
    assert seen == [1] * 61  # as was asked


def test_one_row_for_batch_normalisation_is_explained() -> None:
    options: dict[str, Any] = {"objective": "reinforce", "batch_size": 3, "random_state": 0}
    model = NeuralMixtureRegressor(experts=[normalised() for _ in range(3)], **options)
    with pytest.raises(
        ValueError,
        match=r"an expert \(Sequential\) failed .* one row alone came to it: batch normalisation needs two; "
        r"use layer normalisation, a larger batch_size, or router=\"dense\" .*it said: Expected more than 1",
    ):
        model.fit(DATA.X, DATA.y)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"experts": [nn.Linear(4, 1)]},
            r"an expert \(Linear\) failed .*must take inputs of the shape \(cases, 3\)",
        ),
        (
            {"n_experts": 2, "gate": nn.Linear(4, 2)},
            r"gate \(Linear\) failed .*must take inputs of the shape \(cases, 3\)",
        ),
    ],
)
def test_modules_for_another_number_of_columns_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NeuralMixtureRegressor(epochs=1, **options).fit(DATA.X, DATA.y)


def test_a_column_of_text_is_named() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(DATA.X, columns=["age", "sex", "dose"])
    frame["sex"] = np.where(DATA.regime == 1, "m", "f")
    text = r"X must hold numbers; column 'sex' holds '[fm]'; make columns of 0 and 1 .*OneHotEncoder"
    for table in (frame, frame.astype({"sex": "category"})):
        with pytest.raises(ValueError, match=text):
            NeuralMixtureRegressor(epochs=1).fit(table, DATA.y)
    with pytest.raises(ValueError, match=r"column 1 holds '[fm]'"):
        NeuralMixtureRegressor(epochs=1).fit(frame.to_numpy(), DATA.y)
    numbers = frame.assign(sex="2.5")  # text that reads as numbers is taken, as scikit-learn does
    assert NeuralMixtureRegressor(epochs=1).fit(numbers, DATA.y).n_features_in_ == 3


@pytest.mark.filterwarnings("error")
def test_fitted_estimators_get_the_names_of_their_columns() -> None:
    """They may choose columns by name; and none warns that it was fitted with names."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(DATA.X, columns=["age", "sex", "dose"])
    chosen = make_pipeline(make_column_transformer((StandardScaler(), ["dose"])), Ridge()).fit(frame, DATA.y)
    whole = make_pipeline(StandardScaler(), Ridge()).fit(frame, DATA.y)
    model = NeuralMixtureRegressor(experts=[chosen, whole], objective="cooperative", epochs=2)
    said = model.fit(frame, DATA.y).predict_experts(frame)
    np.testing.assert_allclose(said, np.column_stack([chosen.predict(frame), whole.predict(frame)]))
    labelled = LogisticRegression().fit(frame, DATA.regime)
    classes = NeuralMixtureClassifier(experts=[labelled], epochs=2).fit(frame, DATA.regime)
    np.testing.assert_allclose(classes.predict_proba(frame), labelled.predict_proba(frame))


def test_fitted_estimators_of_other_columns_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(DATA.X, columns=["age", "sex", "dose"])
    turned = Ridge().fit(frame[["dose", "sex", "age"]], DATA.y)
    with pytest.raises(
        ValueError,
        match=r"experts holds Ridge\(\), which was fitted on the columns dose, sex, age; X has the columns "
        r"age, sex, dose; fit it on the same columns in the same order",
    ):
        NeuralMixtureRegressor(experts=[turned], epochs=1).fit(frame, DATA.y)
    fewer = Ridge().fit(DATA.X[:, :2], DATA.y)
    with pytest.raises(ValueError, match=r"which was fitted on 2 columns; X has 3 columns"):
        NeuralMixtureRegressor(experts=[fewer], epochs=1).fit(DATA.X, DATA.y)
