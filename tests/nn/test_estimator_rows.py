"""The rows that a neural mixture is trained on, and what is measured of its experts after."""

import numpy as np
import pytest

from expertise.nn.estimators import NeuralMixtureRegressor
from expertise.nn.neural.measures import variances
from expertise.nn.neural.rows import Table, canonical, split
from nn.tables import regimes


def test_variances_of_one_expert_are_the_weighted_mean_square_and_keep_the_floor() -> None:
    square = np.array([[[1.0], [4.0]], [[0.0], [0.0]]])
    prior = np.array([[1.0, 1.0], [0.0, 0.0]])
    found = variances(square, prior, np.array([1.0, 2.0]), 0.5)
    np.testing.assert_allclose(found, [[3.0], [1.0]])  # nobody's expert keeps width 1
    np.testing.assert_allclose(variances(0 * square, prior[::-1], np.ones(2), 0.5)[1], [0.5])


def test_rows_are_held_out_by_class_and_a_lone_row_is_not() -> None:
    y = np.array([0] * 60 + [1] * 20 + [2])
    table = Table(np.arange(81.0)[:, None], y, np.ones(81))
    training, held = split(table, 0.1, np.random.default_rng(0), by_class=True)
    assert np.bincount(y[held], minlength=3).tolist() == [6, 2, 0]
    np.testing.assert_array_equal(np.sort(np.concatenate([training, held])), np.arange(81))
    joined = canonical(Table(np.array([[1.0], [0.0], [1.0]]), np.array([5, 6, 5]), np.array([1.0, 0.0, 2.0])))
    assert (joined.X.tolist(), joined.y.tolist(), joined.weight.tolist()) == ([[1.0]], [5], [3.0])


def test_a_weight_of_two_is_the_row_twice_and_zero_leaves_it_out() -> None:
    data, rng = regimes(250), np.random.default_rng(0)
    weight = rng.integers(0, 3, 250)
    order = rng.permutation(np.repeat(np.arange(250), weight))
    y = np.where(weight > 0, data.y, 1e6)
    weighted = NeuralMixtureRegressor(2, epochs=3, random_state=0).fit(data.X, y, sample_weight=weight)
    repeated = NeuralMixtureRegressor(2, epochs=3, random_state=0).fit(data.X[order], data.y[order])
    np.testing.assert_allclose(weighted.predict(data.X), repeated.predict(data.X), rtol=1e-9)
    assert weighted.loglik_ == pytest.approx(repeated.loglik_)
