"""The estimators keep scikit-learn's contract: its own checks, pipelines, searches, data frames."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import EstimatorGate
from expertise.mixture.gates import GATES
from mixture.datasets import regimes

BUILT_IN = [name for name in GATES if name != "estimator"]


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        kind(gate=gate, n_init=2, max_iter=200, random_state=0)
        for kind in (MixtureOfExpertsRegressor, MixtureOfExpertsClassifier)
        for gate in BUILT_IN
    ]
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [MixtureOfExpertsRegressor(random_state=0), MixtureOfExpertsClassifier(random_state=0)]
)
def test_scikit_learn_checks_with_defaults(estimator: Any, check: Any) -> None:
    check(estimator)


def test_pipelines_searches_and_cross_validation() -> None:
    data = regimes(300, 2)
    model = make_pipeline(StandardScaler(), MixtureOfExpertsRegressor(n_init=2, random_state=0))
    assert cross_val_score(model, data.X, data.y, cv=3).min() > 0.9
    search = GridSearchCV(
        MixtureOfExpertsRegressor(n_init=2, random_state=0),
        {"n_experts": [1, 2], "gate": ["softmax", EstimatorGate(LogisticRegression())]},
        cv=3,
    ).fit(data.X, data.y)
    assert search.best_params_["n_experts"] == 2


def test_clone_keeps_every_argument() -> None:
    model = MixtureOfExpertsRegressor(
        3, gate=EstimatorGate(LogisticRegression()), alpha=0.1, starts=["random"]
    )
    copy = clone(model)
    assert copy.get_params()["starts"] == ["random"]
    assert copy.gate is not model.gate
    assert isinstance(copy.gate, EstimatorGate)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library: str) -> None:
    frames = pytest.importorskip(library, reason=f"{library} is not installed")
    data = regimes(200, 2)
    frame = frames.DataFrame({"age": data.X[:, 0], "dose": data.X[:, 1], "weight": data.X[:, 2]})
    model = MixtureOfExpertsRegressor(
        2, gate_features=["age"], expert_features=["age", "dose", "weight"], n_init=2
    )
    model.set_params(random_state=0).fit(frame, data.y)
    assert list(model.feature_names_in_) == ["age", "dose", "weight"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(model.predict(frame), model.predict(data.X))
    assert "age" in model.summary()
    assert "age = " in str(model.explain(frame[:1]))
    renamed = (
        frame.rename(columns={"age": "years"}) if library == "pandas" else frame.rename({"age": "years"})
    )
    with pytest.raises(ValueError, match="years"):
        model.predict(renamed)


def test_categories_go_through_a_column_transformer() -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    site, dose = rng.choice(["north", "south"], 400), rng.normal(size=400)
    y = np.where(site == "north", 2 * dose, 1 - 3 * dose) + 0.1 * rng.normal(size=400)
    encode = make_column_transformer((OneHotEncoder(drop="first"), ["site"]), remainder="passthrough")
    model = make_pipeline(encode, MixtureOfExpertsRegressor(2, n_init=3, random_state=0))
    frame = pandas.DataFrame({"site": site, "dose": dose})
    assert model.fit(frame, y).score(frame, y) > 0.98
