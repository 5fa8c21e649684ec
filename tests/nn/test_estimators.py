"""Neural mixtures on small tables: what they learn, predict, keep apart, and give back."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from nn.tables import regimes, speaker

LINEAR: dict[str, Any] = {
    "expert_hidden": (),
    "learning_rate": 0.1,
    "batch_size": 64,
    "epochs": 40,
    "random_state": 0,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fitted() -> NeuralMixtureRegressor:
    data = regimes(400, noise=(0.1, 0.6))
    return NeuralMixtureRegressor(2, **LINEAR).fit(data.X, data.y)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "expected", "batch_size": None, "learning_rate": 0.05},
        {"objective": "reinforce", "n_experts": 4},  # with two, one may take all and stay alone
        {"router": "top_k"},
        {"router": "top_k", "k": 2, "n_experts": 3},
        {"router": "top_k", "objective": "expected"},
        {"dtype": "float32"},
    ],
)
def test_two_regimes_are_found(options: dict[str, Any]) -> None:
    train, test = regimes(400, 1), regimes(400, 2)
    model = NeuralMixtureRegressor(**{"n_experts": 2, **LINEAR, **options}).fit(train.X, train.y)
    # draws are noisy: hard attention ends a little behind
    assert model.score(test.X, test.y) > (0.85 if model.objective == "reinforce" else 0.93)
    assert Ridge().fit(train.X, train.y).score(test.X, test.y) < 0.4


def test_each_expert_has_its_own_noise(fitted: NeuralMixtureRegressor) -> None:
    test = regimes(2000, 3, noise=(0.1, 0.6))
    expert = fitted.apply(np.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(fitted.sigma_[expert], [0.1, 0.6], rtol=0.25)
    low, high = fitted.predict_interval(test.X, 0.9).T
    assert np.mean((low < test.y) & (test.y < high)) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("objective", ["expected", "cooperative", "reinforce"])
def test_widths_are_found_after_training_where_the_objective_has_none(objective: str) -> None:
    data = regimes(300)
    model = NeuralMixtureRegressor(2, objective=objective, **LINEAR | {"epochs": 10}).fit(data.X, data.y)
    h = model.responsibilities(data.X, data.y)
    square = (data.y[:, None] - model.predict_experts(data.X)) ** 2
    np.testing.assert_allclose(model.sigma_**2, (h * square).sum(0) / h.sum(0), rtol=0.02)


def test_the_variance_floor_holds() -> None:
    x = np.linspace(-1, 1, 60)[:, None]
    model = NeuralMixtureRegressor(1, variance_floor=0.04, **LINEAR | {"epochs": 150}).fit(x, x[:, 0])
    assert model.sigma_[0] == pytest.approx(0.2 * x.std(), rel=0.05)


def test_gate_and_loglik_are_what_they_say(fitted: NeuralMixtureRegressor) -> None:
    data = regimes(400, noise=(0.1, 0.6))
    gate = fitted.gate_proba(data.X)
    np.testing.assert_allclose(gate.sum(axis=1), 1)
    np.testing.assert_allclose(fitted.weights_, gate.mean(axis=0))
    means = fitted.predict_experts(data.X)
    density = (gate * stats.norm(means, fitted.sigma_).pdf(data.y[:, None])).sum(axis=1)
    assert fitted.loglik_ == pytest.approx(np.log(density).sum())
    np.testing.assert_allclose(fitted.predict(data.X), (gate * means).sum(axis=1))
    inside = (data.X - data.X.mean(0)) / data.X.std(0)
    logits = fitted.gate_(torch.tensor(inside)).detach().numpy()
    np.testing.assert_allclose(np.log(gate[:, 0] / gate[:, 1]), logits[:, 0] - logits[:, 1], atol=1e-8)


def test_parameters_are_counted_and_addressable(fitted: NeuralMixtureRegressor) -> None:
    assert [p.numel() for p in fitted.parameters_of("gate")] == [6, 2]
    assert [p.numel() for p in fitted.parameters_of(1)] == [3, 1, 1]  # coefficients, intercept, width
    assert fitted.parameters_of(1)[0] is fitted.experts_[1][0].weight
    assert fitted.n_parameters_ == 8 + 2 * 5
    assert "2 experts" in fitted.summary()
    with pytest.raises(ValueError, match=r"there is no expert 2; the experts are 0 to 1"):
        fitted.parameters_of(2)


def test_pitfall_02_and_16_a_row_is_predicted_from_itself_alone(fitted: NeuralMixtureRegressor) -> None:
    X = regimes(50, 5).X
    alone = np.concatenate([fitted.predict(row[None]) for row in X])
    np.testing.assert_allclose(alone, fitted.predict(X), rtol=1e-10)
    sparse = NeuralMixtureRegressor(3, router="top_k", k=2, **LINEAR | {"epochs": 2}).fit(X, X[:, 0])
    alone = np.concatenate([sparse.predict(row[None]) for row in X])
    np.testing.assert_allclose(alone, sparse.predict(X), rtol=1e-10)


class Noisy(nn.Module):
    """A network with dropout and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)[:, 0]  # one output may be (B,)
        return found


def test_pitfall_09_prediction_is_deterministic_and_frozen_modules_stay_out_of_training() -> None:
    data = regimes(80)
    torch.manual_seed(0)
    experts = [Noisy(), Noisy()]
    model = NeuralMixtureRegressor(experts=experts, freeze_experts=[0], epochs=3, random_state=0)
    model.fit(data.X, data.y)
    np.testing.assert_array_equal(model.predict(data.X), model.predict(data.X))
    for name, value in experts[0].double().state_dict().items():
        assert torch.equal(model.experts_[0].state_dict()[name], value), name
    assert model.experts_[1].state_dict()["layers.1.num_batches_tracked"] > 0


def test_same_seed_same_model_and_the_random_numbers_of_others_are_left_alone() -> None:
    data = regimes(100)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, third = (
        NeuralMixtureRegressor(2, epochs=3, objective="reinforce", random_state=seed).fit(data.X, data.y)
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(first.predict(data.X), second.predict(data.X))
    assert np.abs(first.predict(data.X) - third.predict(data.X)).max() > 1e-3


def test_early_stopping_keeps_the_best_epoch() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 8)), rng.normal(size=120)  # nothing to learn but noise
    model = NeuralMixtureRegressor(
        2, early_stopping=True, validation_fraction=0.3, patience=5, epochs=200, random_state=0
    ).fit(X, y)
    assert model.validation_curve_ is not None
    best = int(np.argmin(model.validation_curve_))
    assert model.n_iter_ == len(model.loss_curve_) == best + 6
    longer = NeuralMixtureRegressor(2, early_stopping=False, epochs=60, random_state=0).fit(X, y)
    assert longer.validation_curve_ is None
    assert longer.n_iter_ == 60
    assert longer.loglik_ > model.loglik_  # learned the noise by heart


def test_a_loss_of_ones_own_on_the_original_scale() -> None:
    """The pinball loss makes a quantile of the expert's prediction."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(1500, 1)), 50 + 20 * rng.normal(size=1500)
    seen = []

    def pinball(y: Tensor, prediction: Tensor) -> Tensor:
        seen.append((y.ndim, float(y.mean())))
        return torch.maximum(0.9 * (y - prediction), 0.1 * (prediction - y))

    model = NeuralMixtureRegressor(1, objective="expected", loss=pinball, **LINEAR).fit(X, y)
    assert np.mean(y < model.predict(X)) == pytest.approx(0.9, abs=0.02)
    assert {ndim for ndim, _ in seen} == {1}
    assert np.mean([mean for _, mean in seen]) == pytest.approx(50, abs=5)


def test_several_outputs() -> None:
    data = regimes(300)
    Y = np.column_stack([data.y, 100 - 10 * data.y])
    model = NeuralMixtureRegressor(2, **LINEAR).fit(data.X, Y)
    assert model.score(data.X, Y) > 0.93
    assert model.sigma_.shape == (2, 2)
    assert model.predict_interval(data.X[:5]).shape == (5, 2, 2)
    with pytest.raises(ValueError, match=r"y must have 2 columns, as at the fit; got 1"):
        model.score_samples(data.X, data.y)


def test_modules_see_standardised_inputs_or_those_that_came() -> None:
    seen: list[float] = []

    class Watching(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            seen.append(float(input.mean()))
            return super().forward(input)

    X = np.random.default_rng(0).normal(1000, 5, size=(60, 2))
    inside = NeuralMixtureRegressor(experts=[Watching(2, 1)], epochs=1).fit(X, X[:, 0])
    assert max(np.abs(seen)) < 1
    seen.clear()
    given = Watching(2, 1)
    with torch.no_grad():
        given.weight.copy_(torch.tensor([[1.0, 0.0]]))
        given.bias.zero_()
    outside = NeuralMixtureRegressor(experts=[given], standardize=False, freeze_experts=True, epochs=1)
    np.testing.assert_allclose(outside.fit(X, X[:, 0]).predict(X), X[:, 0])
    assert min(seen) > 990
    assert inside.predict(X).mean() == pytest.approx(1000, abs=20)


def test_the_gate_sees_the_columns_it_was_given() -> None:
    data = regimes(100)
    model = NeuralMixtureRegressor(2, gate_features=[0], epochs=3, random_state=0).fit(data.X, data.y)
    moved = data.X.copy()
    moved[:, 1:] += 5
    np.testing.assert_array_equal(model.gate_proba(moved), model.gate_proba(data.X))
    assert model.gate_[0].in_features == 1


def test_fitted_classifiers_keep_their_classes_in_order() -> None:
    """One expert knows a and c, the other b and c: what it never saw has probability 0."""
    X, codes = speaker(0, 200, 0)
    y = np.array(["a", "b", "c"])[codes]
    experts = [LogisticRegression().fit(X[y != other], y[y != other]) for other in ("b", "a")]
    model = NeuralMixtureClassifier(
        experts=experts, objective="cooperative", freeze_experts=True, epochs=60, random_state=0
    )
    said = model.fit(X, y).predict_experts(X)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert (said[:, 0, 1] == 0).all()
    np.testing.assert_array_equal(said[:, 0, [0, 2]], experts[0].predict_proba(X))
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.score(X, y) > max(expert.score(X, y) for expert in experts) + 0.1
    assert np.isfinite(model.loss_curve_).all()
    fewer = NeuralMixtureClassifier(experts=experts, epochs=2).fit(X[y != "b"], y[y != "b"])
    assert fewer.classes_.tolist() == ["a", "b", "c"]  # the experts' labels are labels too


def test_estimators_and_networks_may_stand_beside_each_other() -> None:
    data = regimes(300)
    own = data.regime == 1
    tree = DecisionTreeRegressor(max_depth=6).fit(data.X[own], data.y[own])
    model = NeuralMixtureRegressor(experts=[tree, nn.Linear(3, 1)], **LINEAR).fit(data.X, data.y)
    np.testing.assert_array_equal(model.predict_experts(data.X)[:, 0], tree.predict(data.X))
    assert np.mean(model.apply(data.X) == (data.regime == 0)) > 0.9
    assert model.n_parameters_ is None


def test_an_interrupted_fit_leaves_the_last_one_whole() -> None:
    data = regimes(100)
    calls = 0

    def loss(y: Tensor, prediction: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt
        return (y - prediction).square()

    model = NeuralMixtureRegressor(2, objective="expected", loss=loss, epochs=2, random_state=0)
    before = model.fit(data.X, data.y).predict(data.X)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(epochs=50).fit(data.X[:, :2], data.y)
    assert calls == 40
    np.testing.assert_array_equal(model.predict(data.X), before)


def test_a_progress_bar_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    data = regimes(50)
    NeuralMixtureRegressor(2, epochs=3, verbose=True).fit(data.X, data.y)
    assert "3/3 epochs" in capsys.readouterr().err
