"""The neural mixtures keep scikit-learn's contract: its own checks, pipelines, searches, frames, pickle."""

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from nn.tables import regimes

KINDS = (NeuralMixtureRegressor, NeuralMixtureClassifier)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [kind(2, epochs=12, learning_rate=0.03, batch_size=64, random_state=0) for kind in KINDS]
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [kind(**options) for kind in KINDS for options in ({}, {"router": "top_k"}, {"objective": "reinforce"})]
)
def test_scikit_learn_checks_with_defaults(estimator: Any, check: Any) -> None:
    check(estimator.set_params(random_state=0))


def test_pipelines_searches_and_cross_validation() -> None:
    data = regimes(120)
    options: dict[str, Any] = {"expert_hidden": (), "epochs": 25, "learning_rate": 0.1, "random_state": 0}
    model = make_pipeline(StandardScaler(), NeuralMixtureRegressor(3, **options))
    assert cross_val_score(model, data.X, data.y, cv=2).min() > 0.8
    search = GridSearchCV(NeuralMixtureRegressor(**options), {"n_experts": [1, 3]}, cv=2)
    assert search.fit(data.X, data.y).best_params_["n_experts"] == 3


def test_clone_keeps_every_argument_and_copies_modules() -> None:
    network = torch.nn.Linear(3, 1)
    model = NeuralMixtureRegressor(experts=[network, torch.nn.Linear(3, 1)], objective="expected")
    copy = clone(model)
    assert copy.objective == "expected"
    assert copy.experts[0] is not network
    assert torch.equal(copy.experts[0].weight, network.weight)


def test_cloned_fitted_estimators_are_refused_unless_they_are_frozen() -> None:
    data = regimes(60)
    expert = Ridge().fit(data.X, data.y)
    bare = NeuralMixtureRegressor(experts=[expert, expert], epochs=2)
    with pytest.raises(
        ValueError,
        match=r"which is not fitted, and estimators do not learn here; fit it first.*"
        r"wrap it as sklearn.frozen.FrozenEstimator",
    ):
        clone(bare).fit(data.X, data.y)
    kept = NeuralMixtureRegressor(experts=[FrozenEstimator(expert)] * 2, epochs=2)
    np.testing.assert_array_equal(
        clone(kept).fit(data.X, data.y).predict_experts(data.X)[:, 0], expert.predict(data.X)
    )


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library: str) -> None:
    frames = pytest.importorskip(library, reason=f"{library} is not installed")
    data = regimes(100)
    frame = frames.DataFrame({"age": data.X[:, 0], "dose": data.X[:, 1], "weight": data.X[:, 2]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no word about missing names, at the fit and after
        model = NeuralMixtureRegressor(2, gate_features=["age"], epochs=3, random_state=0).fit(frame, data.y)
        model.add_expert(frame[:10], data.y[:10], epochs=2)
        found = model.predict(frame)
    assert list(model.feature_names_in_) == ["age", "dose", "weight"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(found, model.predict(data.X))
    assert "age = " in str(model.explain(frame[:1]))
    with pytest.raises(ValueError, match=r"gate_features='years' is unknown; known are age, dose, weight"):
        NeuralMixtureRegressor(2, gate_features=["years"]).fit(frame, data.y)


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_gives_the_same_answers(kind: Any) -> None:
    data = regimes(80)
    y = data.y if kind is NeuralMixtureRegressor else data.regime
    model = kind(2, epochs=3, random_state=0).fit(data.X, y)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(again.predict(data.X), model.predict(data.X))
    assert again.summary() == model.summary()
