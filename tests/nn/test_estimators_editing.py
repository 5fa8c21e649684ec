"""Experts added, replaced, removed; training gone on with; files written and read."""

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from nn.tables import Regimes, regimes

LINEAR: dict[str, Any] = {
    "expert_hidden": (),
    "learning_rate": 0.1,
    "batch_size": 64,
    "epochs": 40,
    "random_state": 0,
}
DATA = regimes(300)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fitted(**options: Any) -> NeuralMixtureRegressor:
    return NeuralMixtureRegressor(**{"n_experts": 2, **LINEAR, **options}).fit(DATA.X, DATA.y)


@functools.cache
def fitted_once() -> NeuralMixtureRegressor:
    return fitted()


def of_two() -> NeuralMixtureRegressor:
    """Give a fitted mixture of one's own, to be changed."""
    return copy.deepcopy(fitted_once())


def elsewhere(n: int, seed: int = 3) -> Regimes:
    """Draw a third regime, away from the two: y = 10 + 4 x2."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * 0.5
    X[:, 1] += 6
    return Regimes(X, 10 + 4 * X[:, 2] + 0.1 * rng.normal(size=n), np.full(n, 2))


@pytest.mark.parametrize("old_rows", [True, False])
def test_a_new_regime_from_a_few_rows(old_rows: bool) -> None:
    model, shots, test = of_two(), elsewhere(12), elsewhere(200, 4)
    before, experts = model.predict(DATA.X), model.predict_experts(DATA.X)
    assert model.score(test.X, test.y) < 0
    model.add_expert(shots.X, shots.y, X_old=DATA.X if old_rows else None, epochs=40)
    assert model.score(test.X, test.y) > 0.9
    np.testing.assert_array_equal(model.predict_experts(DATA.X)[:, :2], experts)
    assert np.mean((model.predict(DATA.X) - before) ** 2) < 0.01 * np.var(before)
    assert model.weights_.sum() == pytest.approx(1)
    assert model.weights_[2] == pytest.approx(12 / 312, rel=0.3)
    assert np.isnan(model.loglik_)
    assert model.n_parameters_ == 8 + 7 + 3 * 5  # the new output reads each column and its square


def test_a_trained_expert_may_be_added_and_is_kept() -> None:
    shots = elsewhere(30)
    own = Ridge(alpha=1e-3).fit(shots.X, shots.y)
    model = fitted(router="top_k", epochs=5).add_expert(shots.X, shots.y, expert=own, epochs=20)
    np.testing.assert_array_equal(model.predict(shots.X), own.predict(shots.X))
    # noise as wide as the estimator's errors, or the floor
    assert model.sigma_[2] < 1
    assert model.n_parameters_ is None


def test_many_columns_keep_variances_only() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 210))
    model = NeuralMixtureRegressor(2, **LINEAR | {"epochs": 2}).fit(X, X[:, 0])
    assert model._regions_[0][1].shape == (210, 1)
    model.add_expert(X[:5] + 9, X[:5, 0], epochs=2)
    assert model.gate_proba(X[:5] + 9)[:, 2].min() > 0.9
    assert model.gate_proba(X)[:, 2].max() < 0.1


def test_remove_gives_its_share_to_the_others_in_proportion() -> None:
    model = fitted(n_experts=3, epochs=5)
    gate, said = model.gate_proba(DATA.X), model.predict_experts(DATA.X)
    model.remove_expert(1)
    kept = gate[:, [0, 2]]
    np.testing.assert_allclose(model.gate_proba(DATA.X), kept / kept.sum(axis=1, keepdims=True), atol=1e-12)
    np.testing.assert_array_equal(model.predict_experts(DATA.X), said[:, [0, 2]])
    model.remove_expert(0)
    with pytest.raises(ValueError, match=r"the last expert cannot be removed"):
        model.remove_expert(0)


def test_replace_trains_the_new_one_in_its_place() -> None:
    model = of_two()
    expert = int(model.apply([[1.0, 0.0, 0.0]])[0])
    said = model.predict_experts(DATA.X)
    with pytest.raises(ValueError, match=r"replace_expert needs X and y to train a new network"):
        model.replace_expert(expert)
    model.replace_expert(expert, None, DATA.X, DATA.y, epochs=40)
    assert np.abs(model.predict_experts(DATA.X)[:, expert] - said[:, expert]).max() > 1e-6
    np.testing.assert_array_equal(model.predict_experts(DATA.X)[:, 1 - expert], said[:, 1 - expert])
    assert model.score(DATA.X, DATA.y) > 0.93


def test_refit_goes_on_and_an_interrupted_one_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(epochs=3)
    before, worse = model.predict(DATA.X), model.score(DATA.X, DATA.y)
    calls = 0
    real = torch.optim.AdamW.step

    def interrupted(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.refit(DATA.X, DATA.y)
    np.testing.assert_array_equal(model.predict(DATA.X), before)
    model.refit(DATA.X, DATA.y, epochs=40)
    assert model.score(DATA.X, DATA.y) > worse + 0.1
    assert model.loglik_ == pytest.approx(model.score_samples(DATA.X, DATA.y).sum())


def test_a_fitted_estimator_cannot_be_unfrozen() -> None:
    expert = Ridge().fit(DATA.X, DATA.y)
    model = NeuralMixtureRegressor(experts=[expert, expert], epochs=1).fit(DATA.X, DATA.y)
    with pytest.raises(
        ValueError, match=r"expert 1 is a fitted estimator, which does not learn here; replace"
    ):
        model.unfreeze(1)


# ---- files


def test_a_file_gives_the_same_answers_also_after_changes(tmp_path: Path) -> None:
    model = fitted(n_experts=3, gate_features=slice(0, 2), router="top_k", k=2, gate_hidden=(4,), epochs=5)
    shots = elsewhere(10)
    model.add_expert(shots.X, shots.y, epochs=5).remove_expert(0).freeze(1)
    model.save(tmp_path / "mixture.safetensors")
    again = NeuralMixtureRegressor.load(tmp_path / "mixture.safetensors")
    for X in (DATA.X, shots.X):
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
        np.testing.assert_array_equal(again.predict_interval(X), model.predict_interval(X))
    ours, theirs = again.get_params(), model.get_params()
    assert {name: value for name, value in ours.items() if value != theirs[name]} == {}
    assert again.summary() == model.summary()
    assert again.loss_curve_ == model.loss_curve_
    assert [e.frozen for e in again._mixture_.all_experts()] == [False, True, False]
    assert str(again.explain(DATA.X[:2])) == str(model.explain(DATA.X[:2]))
    more = [one.add_expert(shots.X, shots.y, epochs=3).predict(shots.X) for one in (again, model)]
    np.testing.assert_array_equal(more[0], more[1])


def test_a_classifier_keeps_its_labels_and_names(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(DATA.X, columns=["a", "b", "c"])
    labels = np.array(["low", "high"])[DATA.regime]
    model = NeuralMixtureClassifier(2, **LINEAR | {"epochs": 3}).fit(frame, labels)
    model.save(tmp_path / "m")
    again = NeuralMixtureClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
    assert again.classes_.tolist() == ["high", "low"]
    assert list(again.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(
        ValueError, match=r"m holds a NeuralMixtureClassifier; read it with NeuralMixtureClassifi"
    ):
        NeuralMixtureRegressor.load(tmp_path / "m")


class Own(nn.Module):
    """An expert of the user's make."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


def test_modules_and_losses_that_were_given_are_given_again(tmp_path: Path) -> None:
    def loss(y: Tensor, prediction: Tensor) -> Tensor:
        return (y - prediction).abs()

    path = tmp_path / "own.safetensors"
    options: dict[str, Any] = {"objective": "expected", "loss": loss, "epochs": 2, "standardize": False}
    model = NeuralMixtureRegressor(experts=[Own(4), Own(4)], gate=nn.Linear(3, 2), **options)
    model.fit(DATA.X, DATA.y).save(path)
    load = NeuralMixtureRegressor.load
    again = load(path, experts=[Own(4), Own(4)], gate=nn.Linear(3, 2), loss=loss)
    np.testing.assert_array_equal(again.predict(DATA.X), model.predict(DATA.X))
    again.refit(DATA.X, DATA.y, epochs=1)
    with pytest.raises(
        ValueError, match=r"was trained with a loss of its own, which no file holds; give it as lo"
    ):
        load(path)
    with pytest.raises(
        ValueError, match=r"expert 0 of .* was a module that was given \(Own\), whose code no file"
    ):
        load(path, loss=loss)
    with pytest.raises(ValueError, match=r"holds 2 experts; experts lists 1"):
        load(path, experts=[Own(4)], loss=loss)
    with pytest.raises(ValueError, match=r"the gate of .* was a module that was given \(Linear\)"):
        load(path, experts=[Own(4), Own(4)], loss=loss)
    with pytest.raises(
        ValueError, match=r"the given modules are not of the make that was saved: .*size mismatch"
    ):
        load(path, experts=[Own(4), Own(5)], gate=nn.Linear(3, 2), loss=loss)


def test_fitted_estimators_have_no_safetensors(tmp_path: Path) -> None:
    expert = Ridge().fit(DATA.X, DATA.y)
    model = NeuralMixtureRegressor(experts=[None, expert], epochs=1).fit(DATA.X, DATA.y)
    with pytest.raises(ValueError, match=r"expert 1 is a fitted Ridge, which a safetensors file cannot hold"):
        model.save(tmp_path / "no")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match=r"text is no safetensors file"):
        NeuralMixtureRegressor.load(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other is no file of expertise.nn.mixture; save writes it"):
        NeuralMixtureRegressor.load(tmp_path / "other")
    model = fitted(epochs=1)
    model.save(tmp_path / "mine")
    with safe_open(tmp_path / "mine", framework="pt") as file:
        header = json.loads(file.metadata()["expertise.nn.mixture"])
    newer = {"expertise.nn.mixture": json.dumps(header | {"version": 99})}
    save_file({"a": torch.zeros(1)}, tmp_path / "newer", metadata=newer)
    with pytest.raises(ValueError, match=r"newer has version 99, known are up to 1; use a newer expertise"):
        NeuralMixtureRegressor.load(tmp_path / "newer")
