"""What is wrong is said: the argument, the value got, what is allowed, what to do."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.svm import LinearSVC
from torch import nn

from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from nn.tables import regimes

DATA = regimes(60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_experts": 0}, r"n_experts must be a whole number of at least 1 or None; got 0"),
        ({"experts": []}, r"experts must be a list of torch.nn.Modules and fitted scikit-learn estimators"),
        ({"experts": nn.Linear(3, 1)}, r"experts must be a list .*; got Linear"),
        (
            {"experts": [nn.Linear(3, 1)], "n_experts": 2},
            r"n_experts=2, but experts lists 1; leave n_experts out",
        ),
        (
            {"experts": ["linear"]},
            r"experts must hold torch.nn.Modules, fitted .*; got 'linear'",
        ),
        ({"experts": [Ridge]}, r"experts must hold torch.nn.Modules, fitted"),
        (
            {"experts": [Ridge()]},
            r"experts holds Ridge\(\), which is not fitted, and estimators do not learn here",
        ),
        (
            {"experts": [nn.Linear(3, 2)]},
            r"an expert must give the shape \(cases, 1\).*; got \(\d+, 2\) from Linear",
        ),
        ({"expert_hidden": 32}, r"expert_hidden must be a tuple of whole numbers.*; got 32"),
        ({"gate_hidden": (0,)}, r"gate_hidden must be a tuple .* such as \(32,\); got \(0,\)"),
        ({"gate": "softmax"}, r"gate must be a torch.nn.Module that gives logits, or None; got 'softmax'"),
        (
            {"gate": nn.Linear(3, 7)},
            r"gate must give the shape \(cases, experts\), here .* 4\); got \(\d+, 7\)",
        ),
        ({"gate_features": [3]}, r"gate_features must hold names or columns from 0 to 2; got 3"),
        ({"gate_features": []}, r"gate_features must name at least one column, and each once; got \[\]"),
        ({"gate_features": ["age"]}, r"gate_features names the column 'age', but X has no column names"),
        (
            {"objective": "likelyhood"},
            r"objective='likelyhood' is unknown; known are likelihood, expected, cooperative, reinforce; did "
            r"you mean 'likelihood'\?",
        ),
        (
            {"loss": "mse", "objective": "expected"},
            r"loss must be a function of \(y, prediction\).*; got 'mse'",
        ),
        (
            {"loss": abs},
            r'loss was given, but objective="likelihood" takes none: .*; use objective="expected"',
        ),
        (
            {"loss": lambda y, p: 0.0, "objective": "expected"},
            r"loss must give a torch tensor, one value for each case; got float",
        ),
        (
            {"loss": lambda y, p: (y - p).square().mean(), "objective": "expected"},
            r"loss must give one value for each case",
        ),
        ({"baseline": "mean"}, r"baseline='mean' is unknown; known are none, batch, gate"),
        ({"router": "topk"}, r"router='topk' is unknown; known are dense, top_k; did you mean 'top_k'\?"),
        ({"router": "top_k", "k": 5}, r"k=5 is more than the 4 experts; use k from 1 to 4"),
        ({"balance": -1}, r"balance must be a number of at least 0; got -1"),
        (
            {"freeze_experts": True},
            r"freeze_experts=True, but expert 0 is a new network, which has learned nothing to keep",
        ),
        (
            {"freeze_experts": [2], "experts": [nn.Linear(3, 1)]},
            r"freeze_experts must be True, False, or a list of numbers of experts from 0 to 0; got \[2\]",
        ),
        ({"standardize": "yes"}, r"standardize must be True or False; got 'yes'"),
        ({"variance_floor": -0.1}, r"variance_floor must be a number of at least 0; got -0.1"),
        ({"epochs": 0}, r"epochs must be a whole number of at least 1; got 0"),
        ({"batch_size": 1.5}, r"batch_size must be a whole number of at least 1 or None; got 1.5"),
        ({"learning_rate": 0}, r"learning_rate must be a number above 0; got 0"),
        ({"learning_rate": float("nan")}, r"learning_rate must be a number above 0; got nan"),
        ({"early_stopping": "yes"}, r"early_stopping must be True, False or \"auto\"; got 'yes'"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be a number above 0 and below 1; got 1.0"),
        (
            {"validation_fraction": 0.999, "early_stopping": True},
            r"validation_fraction=0.999 of 60 different rows leaves none to train on; use a smaller one",
        ),
        ({"device": "gpu"}, r'device must be "auto", "cpu", "cuda" or "cuda:1"; got \'gpu\''),
        ({"dtype": "float16"}, r"dtype='float16' is unknown; known are float32, float64"),
        ({"verbose": 2}, r"verbose must be True or False; got 2"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuralMixtureRegressor(**{"epochs": 2, **arguments}).fit(DATA.X, DATA.y)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(
        ValueError, match=r"device='cuda', but torch sees no GPU here; use device=\"auto\" or \"cpu\""
    ):
        NeuralMixtureRegressor(device="cuda").fit(DATA.X, DATA.y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(60), r"sample_weight sums to zero, so there is nothing to fit"),
        (-np.ones(60), r"sample_weight must not be negative; got -1.0; use 0 to leave a row out"),
        (np.full(60, np.nan), r"sample_weight must be finite; got NaN or infinity; use 0 to leave a row out"),
        (np.ones(3), r"sample_weight.shape == \(3,\), expected \(60,\)"),
        (np.ones((60, 1)), r"Sample weights must be 1D"),
        (np.eye(60)[0], r"n_samples = 1 \(with weight\) is too few to fit; give at least 2 rows"),
    ],
)
def test_weights(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuralMixtureRegressor(epochs=1).fit(DATA.X, DATA.y, sample_weight=weight)


def test_an_objective_that_overflows_is_said_and_leaves_nothing_behind() -> None:
    model = NeuralMixtureRegressor(2, objective="expected", loss=lambda y, p: (y - p) * float("inf"))
    with pytest.raises(
        ValueError, match=r"the objective became (nan|inf|-inf) in epoch 1; lower learning_rate=0.01"
    ):
        model.fit(DATA.X, DATA.y)
    assert not [name for name in vars(model) if name.endswith("_")]


def test_labels_and_offsets() -> None:
    with pytest.raises(
        ValueError, match=r"y must hold numbers; got .*; for labels use NeuralMixtureClassifier"
    ):
        NeuralMixtureRegressor().fit(DATA.X, np.array(["a", "b"])[DATA.regime])
    model = NeuralMixtureRegressor(2, epochs=1).fit(DATA.X, DATA.y)
    with pytest.raises(
        ValueError, match=r"offset was given, but experts that are networks take none; leave it out"
    ):
        model.predict(DATA.X, offset=np.ones(60))
    with pytest.raises(ValueError, match=r"epochs must be a whole number of at least 1; got 0"):
        model.add_expert(DATA.X, DATA.y, epochs=0)


def test_experts_that_are_no_classifiers() -> None:
    for expert, y in ((LinearRegression(), DATA.y), (LinearSVC(), DATA.regime)):
        with pytest.raises(ValueError, match=r"which has no predict_proba to give classes"):
            NeuralMixtureClassifier(experts=[expert.fit(DATA.X, y)]).fit(DATA.X, DATA.regime)
