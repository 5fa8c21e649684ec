"""What is wrong is said: the argument, the value got, what is allowed, what to do."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import DegenerateExpertWarning, FewCasesWarning, GaussianGate, TreeGate
from mixture.datasets import regimes

DATA = regimes(60, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_experts": 0}, r'n_experts must be a whole number of at least 1, "auto" or None; got 0'),
        ({"n_experts": "some"}, r"n_experts must be .*; got 'some'"),
        ({"alpha": -1}, r"alpha must be a number of at least 0; got -1"),
        ({"gate_alpha": float("nan")}, r"gate_alpha must be a number of at least 0; got nan"),
        ({"variance_floor": "small"}, r"variance_floor must be a number of at least 0; got 'small'"),
        ({"n_init": 0}, r"n_init must be a whole number of at least 1"),
        ({"max_iter": 2.5}, r"max_iter must be a whole number of at least 1; got 2.5"),
        ({"tol": -1e-3}, r"tol must be a number of at least 0; got -0.001"),
        ({"n_jobs": 0}, r"n_jobs must be a whole number other than 0"),
        (
            {"partition": "maping"},
            r"partition='maping' is unknown; known are given, inputs, mapping; did you mean 'mapping'",
        ),
        ({"algorithm": "soft"}, r"algorithm='soft' is unknown; known are em, hard"),
        ({"criterion": "BIC"}, r"criterion='BIC' is unknown; known are aic, bic, cv, icl"),
        ({"starts": "random"}, r"starts must be a list of kinds"),
        ({"starts": ["kmean"]}, r"starts='kmean' is unknown; .*did you mean 'kmeans'"),
        ({"expert": "gausian"}, r"expert='gausian' is unknown; .*did you mean 'gaussian'"),
        ({"expert": "logistic"}, r"expert='logistic' is unknown; known are .*any scikit-learn estimator"),
        ({"expert": 3}, r"expert must be a name"),
        ({"expert": []}, r"expert=\[\] names no expert"),
        (
            {"expert": ["gaussian", "poisson"]},
            r"mixes families of counts \(poisson\) with densities \(gaussian\)",
        ),
        ({"expert": ["gaussian"] * 3, "n_experts": 2}, r"n_experts=2, but expert lists 3"),
        ({"gate": "sofmax"}, r"gate='sofmax' is unknown; .*did you mean 'softmax'"),
        ({"gate": 1}, r"gate must be a name .*, a gate, or a scikit-learn classifier; got 1"),
        (
            {"gate": TreeGate(branching=(2, 2)), "n_experts": 3},
            r"n_experts=3, but the gate or the sub-tasks say 4",
        ),
        ({"gate_features": [7]}, r"gate_features holds 7, but X has the columns 0 to 2"),
        ({"gate_features": ["age"]}, r"gate_features names the column 'age', but X has no column names"),
        ({"expert_features": [0, 0]}, r"expert_features=\[0, 0\] names a column twice"),
        (
            {"expert_features": [1.5]},
            r"expert_features must hold column indices, names, or be a slice; got 1.5",
        ),
        ({"n_experts": 61}, r"n_experts=61 is more than the 60 rows with weight; use fewer experts"),
        ({"partition": "given"}, r'partition="given" needs fit\(X, y, subtask=...\)'),
        ({"n_experts": "auto", "expert": Ridge()}, r"criterion='bic' needs a number of parameters"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureOfExpertsRegressor(**arguments).fit(DATA.X, DATA.y)


def with_value(value: float) -> Any:
    X = DATA.X.copy()
    X[3, 1] = value
    return X


@pytest.mark.parametrize(
    ("X", "y", "more", "message"),
    [
        (
            with_value(np.nan),
            DATA.y,
            {},
            r'NaN in row 3, column 1. gate=.softmax. .*gate="gaussian" can, in columns',
        ),
        (with_value(np.inf), DATA.y, {}, r"contains infinity in row 3, column 1"),
        (DATA.X, with_value(np.nan)[:, 1], {}, r"y contains NaN"),
        (DATA.X[:, 0], DATA.y, {}, r"Expected 2D array, got 1D array instead"),
        (DATA.X, DATA.y[:50], {}, r"inconsistent numbers of samples"),
        (DATA.X, ["a"] * 60, {}, r"y must hold numbers; got .*for labels use a classifier|could not convert"),
        (DATA.X, DATA.y, {"sample_weight": np.zeros(60)}, r"sample_weight sums to zero"),
        (
            DATA.X,
            DATA.y,
            {"sample_weight": -np.ones(60)},
            r"sample_weight must not be negative; got -1.0; use 0",
        ),
        (DATA.X, DATA.y, {"sample_weight": np.ones(3)}, r"sample_weight.shape == \(3,\), expected \(60,\)"),
        (DATA.X, DATA.y, {"sample_weight": np.full(60, np.nan)}, r"sample_weight must be finite"),
        (DATA.X, DATA.y, {"offset": np.ones(3)}, r"offset must have the shape \(60,\)"),
        (DATA.X, DATA.y, {"offset": np.full(60, -np.inf)}, r"offset must be finite; .*an exposure of 0"),
        (
            DATA.X,
            DATA.y,
            {"groups": np.arange(60) // 2},
            r"gate's inputs must be constant within a group, but in group 0",
        ),
        (DATA.X, DATA.y, {"groups": [1, 2]}, r"groups must have the shape \(60,\)"),
        (DATA.X, DATA.y, {"subtask": DATA.regime}, r"subtask was given, but partition='mapping'"),
    ],
)
def test_data(X: Any, y: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureOfExpertsRegressor(n_init=1).fit(X, y, **more)


@pytest.mark.parametrize(
    ("family", "y", "message"),
    [
        ("poisson", DATA.y, r"poisson.*negative|negative.*poisson|smallest"),
        ("poisson", np.abs(DATA.y), r"whole|integer|counts"),
        ("gamma", np.zeros(60), r"positive|above 0"),
        ("binomial", DATA.y, r"\(n, 2\)|successes"),
        ("poisson", np.ones((60, 2)), r"y has 2 columns, but expert='poisson' takes one output"),
        (Ridge(), np.ones((60, 2)), r"y has 2 columns, but expert='estimator' takes one output"),
    ],
)
def test_y_of_the_wrong_kind(family: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureOfExpertsRegressor(expert=family, n_init=1).fit(DATA.X, y)


def test_classifiers_say_what_they_cannot_take() -> None:
    y = DATA.regime + (DATA.X[:, 1] > 0)
    with pytest.raises(ValueError, match="multinomial"):
        MixtureOfExpertsClassifier(expert="logistic").fit(DATA.X, y)
    with pytest.raises(ValueError, match=r"offset was given, but expert=.*takes none"):
        MixtureOfExpertsClassifier(expert=LogisticRegression()).fit(DATA.X, y, offset=np.ones(60))
    with pytest.raises(
        ValueError, match=r"expert='gaussian' is for regression, this is for classification|unknown"
    ):
        MixtureOfExpertsClassifier(expert="gaussian").fit(DATA.X, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        MixtureOfExpertsClassifier().fit(DATA.X, DATA.y)


def test_sparse_inputs_where_they_are_not_taken() -> None:
    X = sparse.csr_array(DATA.X)
    with pytest.raises((ValueError, TypeError), match=r"[Ss]parse"):
        MixtureOfExpertsRegressor(gate="gaussian").fit(X, DATA.y)


def test_prediction_says_what_differs_from_the_fit() -> None:
    model = MixtureOfExpertsRegressor(2, n_init=1, random_state=0).fit(DATA.X, DATA.y)
    with pytest.raises(ValueError, match=r"X has 2 features, but MixtureOfExpertsRegressor is expecting 3"):
        model.predict(DATA.X[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        model.predict(with_value(np.nan))
    with pytest.raises(ValueError, match=r"pooling='mean' is unknown|pooling"):
        model.predict(DATA.X, pooling="mean")
    with pytest.raises(ValueError, match=r"there is no expert 5; the experts are 0 to 1"):
        model.remove_expert(5)
    with pytest.raises(ValueError, match="needs X_old and y_old"):
        model.add_expert(DATA.X, DATA.y)
    with pytest.raises(ValueError, match="two different experts"):
        model.merge_experts(1, 1, DATA.X, DATA.y)
    with pytest.raises(AttributeError, match="softmax gate"):
        MixtureOfExpertsRegressor(gate="gaussian", n_init=1).fit(DATA.X, DATA.y).gate_coef_  # noqa: B018


def test_few_rows_are_warned_of_with_their_number() -> None:
    with pytest.warns(
        FewCasesWarning, match=r"few cases per expert \(expert \d: [\d.]+ cases for 5 parameters"
    ):
        MixtureOfExpertsRegressor(6, n_init=3, random_state=0).fit(DATA.X, DATA.y)
    X = np.random.default_rng(0).normal(size=(25, 8))
    with pytest.warns(
        UserWarning, match=r"25 rows are fewer than the 29 parameters|every start with 2 experts"
    ):
        MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(X, X[:, 0] + X[:, 1] ** 2)


def test_interpolation_is_no_mixture() -> None:
    """Fewer rows than coefficients: every start collapses, so fewer experts are fitted, and it is said."""
    X = np.random.default_rng(0).normal(size=(15, 10))
    with pytest.warns(DegenerateExpertWarning, match=r"every start with 2 experts .* fitted 1 instead"):
        model = MixtureOfExpertsRegressor(2, random_state=0).fit(X, X[:, 0] ** 2)
    assert model.n_experts_ == 1
    assert model.gate_proba(X).shape == (15, 1)


def test_not_converged_is_warned_of() -> None:
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=2"):
        MixtureOfExpertsRegressor(2, n_init=1, max_iter=2, random_state=0).fit(DATA.X, DATA.y)


@pytest.mark.filterwarnings("ignore")
class TestEdges:
    """Odd data that are fitted all the same."""

    def test_a_constant_column(self) -> None:
        X = np.column_stack([DATA.X, np.full(60, 7.0)])
        model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(X, DATA.y)
        plain = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(DATA.X, DATA.y)
        np.testing.assert_allclose(model.predict(X), plain.predict(DATA.X), atol=1e-5)
        assert np.isfinite(model.coef_).all()

    def test_duplicated_rows_and_columns(self) -> None:
        X = np.hstack([DATA.X, DATA.X[:, :1]])
        model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0)
        model.fit(np.vstack([X, X]), np.concatenate([DATA.y, DATA.y]))
        assert model.score(X, DATA.y) > 0.95

    def test_perfectly_separable_classes(self) -> None:
        y = DATA.X[:, 0] > 0
        for expert in ("logistic", "multinomial"):
            model = MixtureOfExpertsClassifier(2, expert=expert, n_init=2, random_state=0).fit(DATA.X, y)
            assert model.score(DATA.X, y) == 1
            assert np.isfinite(model.predict_proba(DATA.X)).all()

    def test_one_class_only(self) -> None:
        model = MixtureOfExpertsClassifier(2, n_init=2, random_state=0).fit(DATA.X, np.full(60, "only"))
        assert set(model.predict(DATA.X)) == {"only"}
        np.testing.assert_allclose(model.predict_proba(DATA.X), 1)

    def test_noise_free_regimes_are_fitted_exactly(self) -> None:
        x = np.linspace(-1, 1, 201)[:, None]
        model = MixtureOfExpertsRegressor(2, random_state=0).fit(x, np.abs(x[:, 0]))
        assert model.n_experts_ == 2
        np.testing.assert_allclose(np.sort(model.coef_[:, 0]), [-1, 1], atol=1e-6)

    def test_a_constant_target(self) -> None:
        model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(DATA.X, np.full(60, 3.0))
        np.testing.assert_allclose(model.predict(DATA.X), 3)

    def test_a_single_column_and_two_rows(self) -> None:
        model = MixtureOfExpertsRegressor(1).fit([[0.0], [1.0]], [1.0, 3.0])
        np.testing.assert_allclose(model.predict([[0.5]]), 2)

    def test_huge_and_tiny_scales(self) -> None:
        X = DATA.X * np.array([1e9, 1e-9, 1.0]) + np.array([1e10, 0, 0])
        model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(X, DATA.y * 1e-12 + 5)
        plain = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(DATA.X, DATA.y)
        correlation = np.corrcoef(model.predict(X), plain.predict(DATA.X))[0, 1]
        assert correlation > 0.9

    def test_nan_is_integrated_out_where_only_the_gate_reads_it(self) -> None:
        data = regimes(400, 2)
        X = data.X.copy()
        X[np.random.default_rng(0).random(400) < 0.3, 0] = np.nan
        model = MixtureOfExpertsRegressor(
            2, gate="gaussian", expert_features=[1, 2], n_init=4, random_state=0
        )
        model.fit(X, data.y)
        assert np.isfinite(model.predict(X)).all()
        with pytest.raises(ValueError, match="NaN in row 0, column 1"):
            model.predict([[0.0, np.nan, 1.0]])
        with pytest.raises(ValueError, match="NaN"):
            MixtureOfExpertsRegressor(2, gate="gaussian").fit(X, data.y)

    def test_a_forest_keeps_the_best_and_says_that_the_objective_fell_if_it_did(self) -> None:
        forest = RandomForestRegressor(10, min_samples_leaf=5, random_state=0)
        model = MixtureOfExpertsRegressor(2, expert=forest, n_init=1, max_iter=10, random_state=0).fit(
            DATA.X, DATA.y
        )
        best = model.objective_history_.max()
        assert any(start["objective"] == pytest.approx(best) for start in model.starts_)
        with pytest.raises(ValueError, match=r"information criteria|number of parameters"):
            model.bic(DATA.X, DATA.y)


def test_gates_that_ask_for_a_number_of_experts() -> None:
    gate = GaussianGate(means=DATA.X[:3], scale=1.0, trainable=False)
    with pytest.raises(ValueError, match="n_experts=2, but the gate or the sub-tasks say 3"):
        MixtureOfExpertsRegressor(2, gate=gate).fit(DATA.X, DATA.y)
