"""What a fitted mixture says about new rows: numbers, classes, intervals, draws; and what it refuses."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags

from core.mixtures import (
    INTERCEPTS,
    SCALES,
    SLOPES,
    TinyClassifier,
    TinyRegressor,
    classifier,
    inputs,
    regressor,
)
from expertise.core import POOLINGS, Inputs


def test_shapes() -> None:
    X = inputs(7)
    assert regressor().predict_experts(X).shape == (7, 3)
    assert regressor(n_outputs=2).predict_experts(X).shape == (7, 3, 2)
    assert classifier().predict_experts(X).shape == (7, 2, 3)
    assert len(regressor().expert_distributions(X)) == 3


def test_apply_is_the_largest_gate_probability() -> None:
    model, X = regressor(), inputs(30)
    for row, chosen in zip(model.gate_proba(X), model.apply(X), strict=True):
        assert row[chosen] == max(row)


def test_the_mean_of_the_distribution_is_the_prediction() -> None:
    for n_outputs in (None, 2):
        model, X = regressor(n_outputs=n_outputs), inputs(8)
        np.testing.assert_allclose(model.predict_distribution(X).mean(), model.predict(X), rtol=1e-12)


def test_the_distribution_and_the_score_agree() -> None:
    model, X, y = regressor(), inputs(8), np.linspace(-3, 3, 8)
    offset = np.arange(8.0)
    np.testing.assert_allclose(
        model.predict_distribution(X, offset).logpdf(y), model.score_samples(X, y, offset=offset), rtol=1e-12
    )


def test_intervals_and_quantiles() -> None:
    model, X = regressor(), inputs(6)
    distribution = model.predict_distribution(X)
    interval = model.predict_interval(X, coverage=0.5)
    np.testing.assert_allclose(distribution.cdf(interval[:, 0]), 0.25)
    np.testing.assert_allclose(distribution.cdf(interval[:, 1]), 0.75)
    np.testing.assert_array_equal(model.predict_quantile(X, [0.25, 0.75]), interval)
    np.testing.assert_array_equal(model.predict_quantile(X, 0.25), interval[:, 0])
    assert model.predict_quantile(X, []).shape == (6, 0)
    two = regressor(n_outputs=2)
    assert two.predict_quantile(X, 0.5).shape == (6, 2)
    assert two.predict_quantile(X, [0.1, 0.5, 0.9]).shape == (6, 2, 3)
    np.testing.assert_allclose(two.predict_interval(X, 0.5)[:, 0], interval, rtol=1e-12)


def test_draws_of_the_model_are_those_of_its_distribution() -> None:
    model, X = regressor(), inputs(6)
    np.testing.assert_array_equal(model.sample(X, 5), model.predict_distribution(X).rvs(random_state=5))
    many = model.sample(np.repeat(X[:1], 3000, axis=0), random_state=0)
    ranks = model.predict_distribution(np.repeat(X[:1], 3000, axis=0)).cdf(many)
    assert stats.kstest(ranks, "uniform").pvalue > 0.01


def test_one_expert_is_that_expert() -> None:
    model, X = regressor(n_experts=1), inputs(6)
    mean = X @ SLOPES[:, 0] + INTERCEPTS[0]
    np.testing.assert_allclose(model.predict(X), mean)
    np.testing.assert_allclose(model.predict_quantile(X, 0.9), stats.norm(mean, SCALES[0]).ppf(0.9))
    np.testing.assert_allclose(model.predict_distribution(X).var(), SCALES[0] ** 2)


def test_counts_have_whole_quantiles() -> None:
    model = regressor(family=lambda mean, k: stats.poisson(np.exp(mean / 4)))
    interval = model.predict_interval(inputs(9), 0.9)
    assert (interval == np.round(interval)).all()
    assert (interval[:, 0] < interval[:, 1]).all()
    drawn = model.sample(inputs(9), 0)
    assert (drawn == np.round(drawn)).all()
    assert np.isfinite(model.score_samples(inputs(9), drawn)).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_classes(pooling: str) -> None:
    model, X = classifier(), inputs(20)
    proba = model.predict_proba(X, pooling=pooling, k=1)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    labels = model.predict(X, pooling=pooling, k=1)
    assert labels.tolist() == [model.classes_[int(np.argmax(row))] for row in proba]
    assert len(set(labels)) > 1
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X, pooling=pooling, k=1)), proba)
    if pooling != "weighted_sum":
        experts = model.predict_experts(X)
        np.testing.assert_allclose(proba, [experts[i, k] for i, k in enumerate(model.apply(X))])


def test_drawn_classes_follow_their_probabilities() -> None:
    model, X = classifier(), np.repeat(inputs(1), 3000, axis=0)
    labels, counts = np.unique(model.sample(X, random_state=0), return_counts=True)
    assert labels.tolist() == ["ant", "bee", "cat"]
    assert stats.chisquare(counts, model.predict_proba(X).sum(axis=0)).pvalue > 0.01
    assert model.sample(X, 1).tolist() == model.sample(X, 1).tolist()


def test_scores_of_scikit_learn() -> None:
    X = inputs(10)
    assert regressor().score(X, regressor().predict(X)) == 1
    assert classifier().score(X, classifier().predict(X)) == 1


def test_kinds_and_tags() -> None:
    assert is_regressor(regressor())
    assert is_classifier(classifier())
    tags = get_tags(regressor())
    assert tags.input_tags.sparse
    assert not tags.input_tags.allow_nan
    assert get_tags(regressor(nan_allowed=True)).input_tags.allow_nan


def test_a_mixture_is_cloned_and_pickled() -> None:
    model, X = regressor(n_experts=2), inputs(4)
    assert clone(model).n_experts == 2
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("method", ["predict", "gate_proba", "predict_experts", "apply", "explain"])
def test_nothing_before_the_fit(method: str) -> None:
    for model in (TinyRegressor(), TinyClassifier()):
        with pytest.raises(NotFittedError):
            getattr(model, method)(inputs())
        with pytest.raises(NotFittedError):
            model.summary()


def test_missing_values_only_where_allowed() -> None:
    X = inputs(4)
    X[1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        regressor().predict(X)
    values = regressor(nan_allowed=True).predict(X)
    np.testing.assert_allclose(values[[0, 2, 3]], regressor().predict(X[[0, 2, 3]]))


def test_wrong_columns() -> None:
    with pytest.raises(ValueError, match="expecting 2 features"):
        regressor().predict(np.ones((3, 4)))
    frame = pd.DataFrame(inputs(3), columns=["age", "size"])
    named = TinyRegressor().fit(frame)
    np.testing.assert_array_equal(named.predict(frame), regressor().predict(frame.to_numpy()))
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[["size", "age"]])


def test_inputs_take_rows_and_their_offset() -> None:
    X = inputs(5)
    for some in (X, sparse.csr_array(X)):
        taken = Inputs(some, np.arange(5.0)).take(np.array([3, 1]))
        dense = taken.X.toarray() if sparse.issparse(taken.X) else taken.X
        np.testing.assert_array_equal(dense, X[[3, 1]])
        assert taken.offset is not None
        assert taken.offset.tolist() == [3, 1]
    assert Inputs(X).take(np.array([0])).offset is None


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_offset_goes_with_its_row(pooling: str) -> None:
    model, X, offset = regressor(), inputs(9), np.arange(9.0) * 10
    np.testing.assert_allclose(
        model.predict(X, pooling=pooling, offset=offset), model.predict(X, pooling=pooling) + offset
    )


@pytest.mark.parametrize(
    ("method", "args", "message"),
    [
        ("predict_quantile", {"q": 95}, r"q must be from 0 to 1; got 95; 10 percent is 0\.1"),
        (
            "predict_quantile",
            {"q": [[0.5]]},
            r"q must be one number or a list of them; got the shape \(1, 1\)",
        ),
        ("predict_interval", {"coverage": 0}, r"coverage must be one number over 0 and up to 1; got 0;"),
        ("sample", {"random_state": 1.5}, r"random_state must be None, a whole number .* got 1\.5"),
    ],
)
def test_wrong_arguments(method: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(regressor(), method)(inputs(), **args)
