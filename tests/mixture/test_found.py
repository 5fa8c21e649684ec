"""Behaviour that was once wrong, found by trying odd inputs: starts, few rows, chunks, given gates."""

import warnings
from typing import Any

import numpy as np
import pytest

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import GaussianGate, TreeGate
from expertise.mixture.rows import Array

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2))
POSITIVE = X[:, 0] > 0
Y = np.where(POSITIVE, 1 + 2 * X[:, 1], -1 - X[:, 1]) + 0.3 * RNG.normal(size=300)
LABELS = np.where(X[:, 1] * np.where(POSITIVE, 1, -1) > 0.3 * RNG.normal(size=300), "yes", "no")


def regressor(*args: Any, **more: Any) -> MixtureOfExpertsRegressor:
    return MixtureOfExpertsRegressor(*args, **{"random_state": 0, "n_init": 3, **more})


# -- a Gaussian gate beside inputs that are not normal


def one_hot(n: int, seed: int) -> tuple[Array, Array]:
    """Two regimes by the sign of x0, beside a category that says little about y."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    category = rng.integers(0, 5, n)
    y = np.where(x[:, 0] > 0, 1 + 2 * x[:, 1], -1 - x[:, 1]) + 0.4 * (category == 2)
    return np.column_stack([x, np.eye(5)[category]]), y + 0.3 * rng.normal(size=n)


def dated(n: int, seed: int) -> tuple[Array, Array]:
    """The same regimes beside a date, in columns of which one nearly repeats another."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    day = rng.integers(0, 1000, n)
    y = np.where(x[:, 0] > 0, 1 + 2 * x[:, 1], -1 - x[:, 1]) + 0.3 * rng.normal(size=n)
    return np.column_stack([x, day / 365 + 2015, day // 365 + 2015, day % 365 // 30, day % 7]), y


@pytest.mark.parametrize("make", [one_hot, dated])
def test_more_starts_of_a_gaussian_gate_do_not_explain_y_worse(make: Any) -> None:
    found, new = make(400, 1), make(2000, 101)
    scores = [
        regressor(2, gate="gaussian", n_init=n_init, random_state=1).fit(*found).score_samples(*new).mean()
        for n_init in (1, 10)
    ]
    # the best of the joint likelihood alone parts the categories, and says -1.9 a row
    assert scores[1] > -0.6
    assert scores[1] >= scores[0] - 0.05


def test_starts_of_a_gaussian_gate_are_ranked_by_what_they_say_of_y() -> None:
    model = regressor(2, gate="gaussian", n_init=6).fit(*one_hot(400, 0))
    continued = [start for start in model.starts_ if start["continued"]]
    assert continued[0]["objective"] == max(start["objective"] for start in continued)
    assert continued[0]["objective"] == pytest.approx(model.loglik_, abs=1e-3)


# -- how many experts, of few rows


# folds judge by themselves; of them it counts that 3 rows can be dealt into folds
@pytest.mark.parametrize(
    ("criterion", "n"), [(one, n) for one in ("bic", "aic", "icl") for n in (3, 6, 10)] + [("cv", 3)]
)
@pytest.mark.filterwarnings("ignore:expert 0 is degenerate")
def test_few_rows_on_one_line_are_one_expert(criterion: str, n: int) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 1))
        y = x[:, 0] + 0.5 * rng.normal(size=n)
        assert regressor("auto", criterion=criterion, max_experts=3).fit(x, y).n_experts_ == 1


def test_a_tree_does_not_grow_on_few_rows() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(10, 1))
        y = x[:, 0] + 0.5 * rng.normal(size=10)
        assert regressor(gate=TreeGate(grow=True)).fit(x, y).n_experts_ == 1


def test_cross_validation_of_one_group_says_what_is_wrong() -> None:
    model = regressor("auto", criterion="cv", gate="constant")
    with pytest.raises(ValueError, match="there is one only"):
        model.fit(X[:9], Y[:9], groups=np.zeros(9))


# -- gates that are given


@pytest.mark.parametrize("gate", ["softmax", "tree", "gaussian"])
def test_a_fitted_gate_is_a_start(gate: str) -> None:
    first = regressor(2, gate=gate).fit(X, Y)
    again = regressor(2, gate=first.gate_).fit(X, Y)
    assert again.starts_[0]["kind"] == "the gate's prior"
    assert again.loglik_ == pytest.approx(first.loglik_, abs=0.01)


def test_a_tree_that_has_grown_is_a_start() -> None:
    first = regressor(gate=TreeGate(grow=True)).fit(X, Y)
    again = regressor(gate=first.gate_).fit(X, Y)
    assert again.n_experts_ == first.n_experts_
    assert again.loglik_ == pytest.approx(first.loglik_, abs=0.01)


def test_equal_priors_that_are_given_are_no_start() -> None:
    gate = GaussianGate(means=np.zeros((2, 2)))
    model = regressor(2, gate=gate, n_init=1).fit(X, Y)
    assert model.loglik_ > regressor(1).fit(X, Y).loglik_ + 100


def test_given_gates_that_do_not_fit_say_so() -> None:
    tree = regressor(2, gate="tree").fit(X, Y).gate_
    with pytest.raises(ValueError, match="must have 2 rows each"):
        regressor(2, gate=tree).fit(X[:, :1], Y)
    for prior in ([0.2, 0.3, 0.5], [0.2, 0.3], [-0.2, 1.2]):
        gate = GaussianGate(means=X[:2], prior=np.array(prior))
        with pytest.raises(ValueError, match="prior must hold 2 numbers"):
            regressor(2, gate=gate).fit(X, Y)


# -- chunks and batches


def test_chunks_without_noise_are_no_degenerate_experts() -> None:
    y = np.abs(X[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regressor(2).fit(X, y)
        regressor(2).fit_chunks([(X[:150], y[:150]), (X[150:], y[150:])])


def test_a_chunk_whose_rows_all_have_weight_0_is_left_out() -> None:
    model = regressor(2).fit_chunks([(X, Y), (X[:5], Y[:5] + 100, np.zeros(5))])
    np.testing.assert_allclose(model.predict(X), regressor(2).fit_chunks([(X, Y)]).predict(X))
    model = regressor(2).partial_fit(X, Y)
    before = model.predict(X)
    np.testing.assert_array_equal(model.partial_fit(X[:5], Y[:5] + 100, np.zeros(5)).predict(X), before)


@pytest.mark.parametrize("how", ["fit_chunks", "partial_fit"])
def test_chunks_that_fail_leave_the_old_fit(how: str) -> None:
    model = MixtureOfExpertsClassifier(2, n_init=2, alpha=0.1, random_state=0).fit(X, LABELS)
    before = model.predict(X)
    numbers = np.where(LABELS == "yes", 5, 9)
    if how == "fit_chunks":
        with pytest.raises(ValueError, match="features"):
            model.fit_chunks([(X, numbers), (X[:, :1], numbers)], classes=[5, 9])
    else:
        with pytest.raises(ValueError, match="too few"):
            model.partial_fit(X[:1], numbers[:1], classes=[5, 9])
    assert (model.predict(X) == before).all()


def test_the_likelihood_of_batches_is_that_of_y() -> None:
    model = regressor(2, gate="gaussian").partial_fit(X, Y)
    expected = 2 * model.score_samples(X, Y).sum()  # the batch before its step, for as many rows again
    model.partial_fit(X, Y)
    assert model.loglik_ == pytest.approx(expected)
    assert model.joint_loglik_ < model.loglik_


@pytest.mark.parametrize("how", ["fit_chunks", "partial_fit"])
def test_a_tree_does_not_grow_in_chunks(how: str) -> None:
    model = regressor(gate=TreeGate(grow=True))
    with pytest.raises(ValueError, match="a growing tree needs all rows at once"):
        model.fit_chunks([(X, Y)]) if how == "fit_chunks" else model.partial_fit(X, Y)


# -- inputs


def test_numbers_whose_squares_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match="X holds a number of size"):
        regressor(2).fit(X * 1e160, Y)
    with pytest.raises(ValueError, match="y holds a number of size"):
        regressor(2).fit(X, Y * 1e200)
    missing = np.column_stack([X, np.where(POSITIVE, np.nan, 1e160)])
    with pytest.raises(ValueError, match="X holds a number of size"):
        regressor(2, gate="gaussian", expert_features=[0]).fit(missing, Y)


def test_a_subtask_without_weight_gets_no_expert() -> None:
    subtask = np.where(np.arange(300) < 3, 2, POSITIVE)
    model = regressor(partition="given").fit(X, Y, (np.arange(300) >= 3) * 1.0, subtask=subtask)
    assert model.subtasks_.tolist() == [0, 1]
    assert model.n_experts_ == 2


def test_a_split_does_not_leap_out_of_the_numbers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = regressor(2, expert="student_t", gate="constant", n_init=2, max_iter=20).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model.split_expert(0, X, Y)
