"""scikit-learn estimators as experts: weights, held-out predictions, noise, frozen ones, and small parts."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from expertise.mixture.experts import ClassifierExpert, ExpertSettings, GaussianExpert, RegressorExpert
from expertise.mixture.experts._fitting import fold_of, interpolates, resampled, weight_parameter
from expertise.mixture.sums import Stack
from mixture.helpers import loglik, make_rows, updated

N = 150
RNG = np.random.default_rng(41)
X = np.column_stack([RNG.normal(1990, 10, N), RNG.normal(size=N)])
Y = 0.5 * (X[:, 0] - 1990) + X[:, 1] + RNG.normal(size=N)
CODES = np.digitize(Y, [-3.0, 3.0])
SAMPLE = make_rows(X, Y)
CLASSES = make_rows(X, CODES)
ONES = np.ones(N)


def bound(expert: Any, **given: Any) -> Any:
    return expert.bound(ExpertSettings(**({"n_outputs": 3} | given)))


def test_linear_regression_is_the_gaussian_expert() -> None:
    resp = RNG.uniform(0, 1, N)
    one: Any = updated(bound(RegressorExpert(LinearRegression())), SAMPLE.rows, resp)
    other: Any = updated(bound(GaussianExpert()), SAMPLE.rows, resp)
    there = other.unscaled(SAMPLE.x, SAMPLE.y)
    np.testing.assert_allclose(one.model.coef_, there.beta[1:, 0], rtol=1e-8)
    assert one.sigma == pytest.approx(there.sigma[0], rel=1e-8)
    assert loglik(one, SAMPLE.rows) == pytest.approx(loglik(other, SAMPLE.rows), rel=1e-10)
    np.testing.assert_allclose(one.predict(SAMPLE.design), there.predict(SAMPLE.design), rtol=1e-8)
    np.testing.assert_allclose(one.distribution(SAMPLE.design).std(), one.sigma)


def test_a_forest_is_judged_by_models_that_did_not_see_the_row() -> None:
    forest = RandomForestRegressor(10, random_state=0)
    held: Any = updated(bound(RegressorExpert(forest)), SAMPLE.rows, ONES)
    seen: Any = updated(bound(RegressorExpert(forest, out_of_fold=False)), SAMPLE.rows, ONES)
    assert held.sigma > 1.5 * seen.sigma
    assert held.held_out.shape == (N,)
    assert seen.held_out is None
    # by hand: the fold that holds row 7 is left out of the model that predicts it
    fold = fold_of(SAMPLE.rows.index, N, 5, 0)
    rest = fold != fold[7]
    by_hand = RandomForestRegressor(10, random_state=0).fit(X[rest], Y[rest], sample_weight=ONES[rest])
    assert held.held_out[7] == pytest.approx(by_hand.predict(X[[7]])[0], rel=1e-12)
    residual = Y - held.held_out
    assert held.sigma == pytest.approx(np.sqrt(np.mean(residual**2)))
    density = RegressorExpert.log_densities([held], SAMPLE.rows)[7, 0]
    assert density == pytest.approx(
        -0.5 * (residual[7] / held.sigma) ** 2 - np.log(held.sigma) - 0.5 * np.log(2 * np.pi)
    )


def test_rows_that_were_not_fitted_get_the_full_model() -> None:
    expert: Any = updated(
        bound(RegressorExpert(DecisionTreeRegressor())), SAMPLE.rows.take(slice(0, 100)), ONES[:100]
    )
    densities = RegressorExpert.log_densities([expert], SAMPLE.rows)[:, 0]  # rows 100 on are new
    full = expert.model.predict(X)
    means = np.where(np.arange(N) < 100, np.append(expert.held_out, np.zeros(N - 100)), full)
    expected = -0.5 * ((Y - means) / expert.sigma) ** 2 - np.log(expert.sigma) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(densities, expected, rtol=1e-12)
    new = replace(SAMPLE.rows, index=np.full(N, -1))
    fresh = RegressorExpert.log_densities([expert], new)[:, 0]
    assert (
        fresh[:100] == -np.log(expert.sigma) - 0.5 * np.log(2 * np.pi)
    ).all()  # the tree knows them by heart


def test_chunks_in_any_order_make_the_same_expert() -> None:
    expert = bound(RegressorExpert(KNeighborsRegressor(3), out_of_fold=True))
    first, second = SAMPLE.rows.take(slice(0, 60)), SAMPLE.rows.take(slice(60, N))
    parts = [
        RegressorExpert.statistics([expert], rows, np.ones((len(rows), 1)))[0] for rows in (second, first)
    ]
    assert isinstance(parts[0], Stack)
    assert isinstance(parts[1], Stack)
    mixed = expert.update(parts[0] + parts[1])
    whole: Any = updated(expert, SAMPLE.rows, ONES)
    np.testing.assert_allclose(mixed.held_out, whole.held_out, rtol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (RandomForestRegressor(), True),
        (HistGradientBoostingRegressor(), True),
        (KNeighborsRegressor(), True),
        (GaussianProcessRegressor(), True),
        (SVR(), True),
        (SVR(kernel="linear"), False),
        (Ridge(), False),
        (GaussianNB(), False),
        (make_pipeline(StandardScaler(), DecisionTreeRegressor()), True),
        (make_pipeline(StandardScaler(), Ridge()), False),
        (GridSearchCV(DecisionTreeRegressor(), {"max_depth": [1]}), True),
        (GridSearchCV(Ridge(), {"alpha": [1]}), False),
    ],
    ids=str,
)
def test_which_estimators_interpolate(estimator: Any, expected: bool) -> None:
    assert interpolates(estimator) is expected


def test_weights_go_to_the_last_step_of_a_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), LinearRegression())
    assert weight_parameter(pipeline) == "linearregression__sample_weight"
    resp = RNG.uniform(0, 1, N)
    one: Any = updated(bound(RegressorExpert(pipeline)), SAMPLE.rows, resp)
    other: Any = updated(bound(RegressorExpert(LinearRegression())), SAMPLE.rows, resp)
    np.testing.assert_allclose(one.predict(SAMPLE.design), other.predict(SAMPLE.design), rtol=1e-9)


def test_resampling_counts_are_the_expected_ones_rounded() -> None:
    weight = RNG.gamma(0.5, size=1000)
    count = np.bincount(resampled(weight, 3), minlength=1000)
    assert count.sum() == 1000
    assert (np.abs(count - 1000 * weight / weight.sum()) < 1).all()
    np.testing.assert_array_equal(resampled(np.full(50, 0.3), 1), np.arange(50))
    np.testing.assert_array_equal(resampled(weight, 3), resampled(weight, 3))


def test_without_a_parameter_for_weights_rows_are_drawn_by_weight() -> None:
    one_sided = (X[:, 1] > 0).astype(float)
    expert: Any = updated(
        bound(RegressorExpert(KNeighborsRegressor(1), out_of_fold=False)), SAMPLE.rows, one_sided
    )
    assert expert.model.n_samples_fit_ == int(one_sided.sum())  # weights of 0 and 1: each row once
    assert expert.sigma == pytest.approx(1e-3 * Y.std())  # its own nearest neighbour
    assert expert.degenerate() == "its variance is at the floor"


def test_a_seed_makes_the_fit_repeatable() -> None:
    forest = RandomForestRegressor(5)  # no random_state of its own
    one, same, other = (
        updated(bound(RegressorExpert(forest), random_state=seed), SAMPLE.rows, ONES).predict(SAMPLE.design)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert forest.random_state is None  # the one given is left alone


def test_sparse_inputs_reach_the_estimator() -> None:
    sample = make_rows(X, Y, sparse=True)
    one: Any = updated(bound(RegressorExpert(Ridge(alpha=1e-8))), sample.rows, ONES)
    other: Any = updated(bound(RegressorExpert(Ridge(alpha=1e-8))), SAMPLE.rows, ONES)
    np.testing.assert_allclose(one.predict(sample.design), other.predict(SAMPLE.design), rtol=1e-4, atol=1e-3)


def test_a_frozen_regressor_is_used_as_it_is() -> None:
    given = LinearRegression().fit(X, Y + 100)
    expert = bound(RegressorExpert(given, frozen=True))
    assert not expert.is_fitted  # how wide its noise is, nobody knows yet
    rows = SAMPLE.rows
    ready = expert.with_noise_from(rows)
    assert ready.is_fitted
    assert ready.sigma == pytest.approx(np.sqrt(np.mean((Y - given.predict(X)) ** 2)))
    np.testing.assert_array_equal(ready.predict(SAMPLE.design), given.predict(X))
    resp = RNG.uniform(0, 1, N)
    again: Any = updated(expert, rows, resp)  # only the noise follows the responsibilities
    assert again.sigma == pytest.approx(np.sqrt(np.average((Y - given.predict(X)) ** 2, weights=resp)))
    np.testing.assert_array_equal(again.predict(SAMPLE.design), given.predict(X))
    assert bound(RegressorExpert(given, frozen=True, sigma=2.0)).is_fitted


def test_a_frozen_classifier_is_fitted_at_once() -> None:
    given = GaussianNB().fit(X, CODES)
    expert = bound(ClassifierExpert(given, frozen=True))
    assert expert.is_fitted
    np.testing.assert_allclose(expert.predict(CLASSES.design), given.predict_proba(X), atol=1e-5)


def test_classes_that_were_not_seen_get_the_smallest_probability() -> None:
    resp = (CODES != 1).astype(float)
    expert: Any = updated(bound(ClassifierExpert(GaussianNB()), n_outputs=4), CLASSES.rows, resp)
    proba = expert.predict(CLASSES.design)
    assert proba.shape == (N, 4)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(proba[:, [1, 3]], 1e-6, rtol=1e-5)
    by_hand = GaussianNB().fit(X[resp > 0], CODES[resp > 0]).predict_proba(X)
    np.testing.assert_allclose(proba[:, [0, 2]], by_hand, atol=1e-5)


def test_a_classifier_is_judged_out_of_fold() -> None:
    for estimator in (RandomForestClassifier(10), KNeighborsClassifier(1), DecisionTreeClassifier()):
        expert: Any = updated(bound(ClassifierExpert(estimator)), CLASSES.rows, ONES)
        assert expert.held_out.shape == (N, 3)
        inside = loglik(expert, CLASSES.rows)
        known = updated(bound(ClassifierExpert(estimator, out_of_fold=False)), CLASSES.rows, ONES)
        assert inside < loglik(known, CLASSES.rows) - 10


@pytest.mark.parametrize("rows", [[], [3], [3, 9]])
def test_few_rows_give_a_constant(rows: list[int]) -> None:
    resp = np.zeros(N)
    resp[rows] = 1.0
    for out_of_fold in (False, True):
        tree: Any = updated(bound(RegressorExpert(Ridge(), out_of_fold=out_of_fold)), SAMPLE.rows, resp)
        assert np.isfinite(loglik(tree, SAMPLE.rows))
        if len(rows) == 1:
            np.testing.assert_allclose(tree.predict(SAMPLE.design), Y[3])
        expert: Any = updated(
            bound(ClassifierExpert(LogisticRegression(), out_of_fold=out_of_fold)), CLASSES.rows, resp
        )
        assert np.isfinite(loglik(expert, CLASSES.rows))


def test_fewer_rows_than_neighbours_give_their_mean() -> None:
    resp = (np.arange(N) < 4).astype(float)
    for pooled in (KNeighborsRegressor(5), make_pipeline(StandardScaler(), KNeighborsRegressor(5))):
        expert: Any = updated(bound(RegressorExpert(pooled)), SAMPLE.rows, resp)
        np.testing.assert_allclose(expert.predict(SAMPLE.design), Y[:4].mean())


def test_one_class_with_weight_gives_that_class() -> None:
    resp = (CODES == 2).astype(float)
    expert: Any = updated(bound(ClassifierExpert(LogisticRegression())), CLASSES.rows, resp)
    np.testing.assert_allclose(expert.predict(CLASSES.design)[:, 2], 1, atol=1e-5)


def test_rows_of_negligible_weight_are_left_out() -> None:
    seen: list[int] = []

    class Counting(LinearRegression):  # type: ignore[misc]
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            seen.append(len(y))
            return super().fit(X, y, sample_weight)

    resp = np.where(np.arange(N) < 40, 1.0, 1e-9)
    updated(bound(RegressorExpert(Counting())), SAMPLE.rows, resp)
    assert seen == [40]


def test_between_two_forests_there_is_nothing() -> None:
    one, other = RegressorExpert(Ridge()), RegressorExpert(Ridge(2.0))
    assert one.between(other, 0.5) is other
    assert one.n_parameters is None


def test_a_constant_target_has_a_width() -> None:
    sample = make_rows(X, np.full(N, 3.0))
    expert: Any = updated(bound(RegressorExpert(Ridge()), variance_floor=0.0), sample.rows, ONES)
    assert expert.sigma > 0
    assert np.isfinite(loglik(expert, sample.rows))


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        (
            RegressorExpert(),
            "estimator must be a scikit-learn estimator, got None; "
            "write RegressorExpert(Ridge()) for example",
        ),
        (
            RegressorExpert(Ridge(), folds=1),
            "folds must be at least 2, got 1; for none give out_of_fold=False",
        ),
        (
            RegressorExpert(Ridge(), frozen=True),
            "frozen=True needs an estimator that is fitted already, got Ridge(); "
            "call its fit first, or leave frozen=False",
        ),
        (
            ClassifierExpert(LinearSVC()),
            "estimator must have predict_proba, LinearSVC() has none; wrap it in "
            "sklearn.calibration.CalibratedClassifierCV",
        ),
    ],
)
def test_what_is_refused(expert: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        expert.bound(ExpertSettings())


def test_there_is_no_json() -> None:
    message = "expert Ridge has no JSON form; save the mixture with skops instead, or use a built-in expert"
    with pytest.raises(ValueError, match=re.escape(message)):
        RegressorExpert(Ridge()).to_dict()


def test_any_numbers_are_accepted() -> None:
    RegressorExpert.check_y(np.array([-1.5, 2.0]))
    ClassifierExpert.check_y(np.array([0, 9]))
