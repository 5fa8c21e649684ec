"""Behaviour that was once wrong: each of these cases gave a silent error or a raw message."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsRegressor

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import (
    ClassifierExpert,
    ConstantGate,
    GaussianExpert,
    GaussianGate,
    RegressorExpert,
    SoftmaxGate,
    TreeGate,
    load,
)
from mixture.datasets import regimes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2))
POSITIVE = X[:, 0] > 0
Y = np.where(POSITIVE, 1 + 2 * X[:, 1], -1 - X[:, 1]) + 0.2 * RNG.normal(size=300)
COUNTS = RNG.poisson(np.exp(np.where(POSITIVE, 2 + 0.3 * X[:, 1], -0.3 * X[:, 1])))
SUCCESSES = RNG.binomial(10, 1 / (1 + np.exp(-np.where(POSITIVE, 2 * X[:, 1], -2 * X[:, 1]))))
SHARES = np.column_stack([SUCCESSES, 10 - SUCCESSES])
LABELS = np.where(X[:, 1] * np.where(POSITIVE, 1, -1) > 0.3 * RNG.normal(size=300), "yes", "no")


def regressor(*args: Any, **more: Any) -> MixtureOfExpertsRegressor:
    return MixtureOfExpertsRegressor(*args, **{"random_state": 0, "n_init": 4, **more})


def test_a_fit_ends_the_stream_of_partial_fit() -> None:
    model = regressor(2, gate="constant").partial_fit(X, Y)
    model.fit(X, Y + 100)
    before = model.predict(X[:1])
    np.testing.assert_allclose(model.partial_fit(X, Y + 100).predict(X[:1]), before, atol=1)


@pytest.mark.parametrize(("family", "y"), [("poisson", COUNTS), ("binomial", SHARES)])
def test_the_tree_start_divides_counts(family: str, y: Any) -> None:
    one = regressor(1, expert=family).fit(X, y).loglik_
    assert regressor(2, expert=family, starts=["tree"]).fit(X, y).loglik_ > one + 50


def test_y_must_have_the_columns_of_the_fit() -> None:
    model = regressor(2).fit(X, Y)
    with pytest.raises(ValueError, match="y must have 1 columns, as at the fit; got 2"):
        model.score_samples(X, np.column_stack([Y, Y]))
    model = regressor(2).fit(X, np.column_stack([Y, -Y]))
    with pytest.raises(ValueError, match="y must have 2 columns"):
        model.responsibilities(X, Y)


def test_standard_errors_of_grouped_rows_are_larger_when_groups_are_known_apart() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(60), 5)
    second = np.repeat(rng.random(60) < 0.5, 5)
    y = np.where(second, 1 + 2 * X[:, 1], -1 - X[:, 1]) + 1.5 * rng.normal(size=300)
    model = regressor(2, gate="constant").fit(X, y, groups=group)
    errors = model.standard_errors(X, y, groups=group)
    assert errors.intercept is not None
    # the experts are told apart, so each is a regression of about half of the rows
    np.testing.assert_allclose(errors.intercept, 1.5 / np.sqrt(150), rtol=0.2)
    assert errors.gate_intercept is not None
    prior = model.weights_[0]
    assert errors.gate_intercept[0] == pytest.approx(1 / np.sqrt(60 * prior * (1 - prior)), rel=0.1)
    with pytest.raises(ValueError, match="fitted with groups"):
        model.standard_errors(X, y)


def test_a_fit_that_fails_leaves_the_old_one() -> None:
    model = MixtureOfExpertsClassifier(2, n_init=2, alpha=0.1, random_state=0).fit(X, LABELS)
    before = model.predict(X)
    with pytest.raises(ValueError, match="groups must have the shape"):
        model.fit(np.column_stack([X, X]), np.where(LABELS == "yes", 5, 9), groups=np.arange(3))
    assert (model.predict(X) == before).all()


def test_an_interrupted_fit_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from expertise.mixture import search

    model = regressor(2).fit(X, Y)
    before = model.predict(X)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search.Search, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.column_stack([X, X]), Y)
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("arguments", [{"algorithm": "hard"}, {"gate": "gaussian"}])
def test_the_likelihood_of_chunks_is_that_of_all_rows(arguments: dict[str, str]) -> None:
    data = regimes(20_000, 2)
    model = regressor(2, n_init=2, **arguments)
    model.fit_chunks([(data.X[:10_000], data.y[:10_000]), (data.X[10_000:], data.y[10_000:])])
    assert model.loglik_ == pytest.approx(model.score_samples(data.X, data.y).sum(), rel=1e-9)
    np.testing.assert_allclose(model.weights_, model.gate_proba(data.X).mean(axis=0), atol=1e-9)


def test_what_is_said_of_an_edited_mixture_is_true() -> None:
    model = regressor(2, gate="constant").fit(X, Y).add_expert(X[:5], Y[:5] + 50)
    np.testing.assert_allclose(model.weights_, model.gate_proba(X[:1])[0])
    assert model.cases_.shape == (3,)
    model = regressor(2).fit(X, Y)
    model.refit(X, Y + X[:, 1])
    assert model.loglik_ == pytest.approx(model.score_samples(X, Y + X[:, 1]).sum())
    model.remove_expert(0)
    assert np.isnan(model.loglik_)


def test_editing_does_not_forget_the_offset() -> None:
    offset = 2 * np.random.default_rng(2).normal(size=300)
    y = np.random.default_rng(3).poisson(np.exp(np.where(POSITIVE, 1.0, -0.5) + offset))
    model = regressor(2, expert="poisson").fit(X, y, offset=offset)
    coef = model.coef_.copy()
    with pytest.raises(ValueError, match="fitted with offset"):
        model.refit(X, y)
    np.testing.assert_allclose(model.refit(X, y, offset=offset).coef_, coef, atol=1e-2)


def test_growing_trees_refuse_what_they_would_ignore() -> None:
    gate = TreeGate(grow=True)
    for more in ({"expert": ["gaussian", "student_t"]}, {"n_experts": 3}, {"partition": "inputs"}):
        with pytest.raises(ValueError, match="a growing tree finds its own number of experts"):
            regressor(gate=gate, **more).fit(X, Y)


def test_freezing_the_gate_does_not_change_the_count_of_parameters() -> None:
    model = regressor(2).fit(X, Y)
    count, bic = model.n_parameters_, model.bic(X, Y)
    model.freeze_gate().refit(X, Y)
    assert model.n_parameters_ == count
    assert model.bic(X, Y) == pytest.approx(bic, abs=0.1)


def test_given_centres_may_be_a_start() -> None:
    gate = GaussianGate(means=X[:2], scale=1.0)
    assert regressor(2, gate=gate, n_init=None).fit(X, Y).score(X, Y) > 0.8


def test_fixed_gates_that_do_not_tell_experts_apart_get_ordinary_starts() -> None:
    for gate in (ConstantGate(prior=np.array([0.3, 0.7]), trainable=False), SoftmaxGate(np.zeros((3, 2)))):
        model = regressor(2, gate=gate).fit(X, Y)
        assert np.abs(model.coef_[0] - model.coef_[1]).max() > 0.5
    with pytest.raises(ValueError, match="must hold 2 numbers of at least 0 that sum to 1"):
        regressor(2, gate=ConstantGate(prior=[0.2, 0.3, 0.5])).fit(X, Y)
    with pytest.raises(ValueError, match="must have 3 rows"):
        regressor(2, gate=SoftmaxGate(beta=np.zeros((2, 2)))).fit(X, Y)


@pytest.mark.filterwarnings("ignore:an expert or gate")
def test_classifiers_fitted_elsewhere_keep_their_labels() -> None:
    """Only the gate learns; the classifiers know labels, not codes (Meta-Pi's frozen experts)."""
    first = LogisticRegression().fit(X[POSITIVE], LABELS[POSITIVE])
    second = LogisticRegression().fit(X[~POSITIVE], LABELS[~POSITIVE])
    experts = [ClassifierExpert(first, frozen=True), ClassifierExpert(second, frozen=True)]
    model = MixtureOfExpertsClassifier(expert=experts, random_state=0).fit(X, LABELS)
    assert model.score(X, LABELS) > 0.85
    assert model.experts_[0].estimator is first  # type: ignore[attr-defined]
    other = LogisticRegression().fit(X, np.where(LABELS == "yes", "ja", "no"))
    with pytest.raises(ValueError, match="knows the class 'ja', but y has 'no', 'yes'"):
        MixtureOfExpertsClassifier(expert=[ClassifierExpert(other, frozen=True)] * 2).fit(X, LABELS)


@pytest.mark.filterwarnings("ignore:an expert or gate")
def test_regressors_fitted_elsewhere_are_blended_by_the_gate() -> None:
    experts = [
        RegressorExpert(Ridge(1e-6).fit(X[rows], Y[rows]), frozen=True) for rows in (POSITIVE, ~POSITIVE)
    ]
    model = regressor(expert=experts).fit(X, Y)
    assert model.score(X, Y) > 0.95
    assert np.mean((model.apply(X) == 0) == POSITIVE) > 0.95


def test_partial_fit_can_be_written(tmp_path: Path) -> None:
    model = regressor(2).partial_fit(X, Y)
    model.to_json()
    model.save(tmp_path / "model.skops")
    np.testing.assert_array_equal(load(tmp_path / "model.skops").predict(X), model.predict(X))


def test_shares_have_a_score() -> None:
    model = regressor(2, expert="binomial").fit(X, SHARES)
    assert 0.5 < model.score(X, SHARES) < 1
    assert np.isfinite(cross_val_score(regressor(2, expert="binomial"), X, SHARES, cv=3)).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestRegressor(3, random_state=0),
        KNeighborsRegressor(),
        HistGradientBoostingRegressor(max_iter=3, random_state=0),
    ],
    ids=lambda e: type(e).__name__,
)
def test_interpolating_experts_can_be_saved_and_read(tmp_path: Path, estimator: Any) -> None:
    model = regressor(2, expert=estimator, n_init=1, max_iter=2).fit(X, Y)
    model.save(tmp_path / "model.skops")
    np.testing.assert_array_equal(load(tmp_path / "model.skops").predict(X), model.predict(X))


@pytest.mark.parametrize(
    "arguments",
    [
        {"partition": "given"},
        {"expert": ["gaussian", "gaussian"]},
        {"gate": TreeGate(branching=(2, 2))},
        {"gate": TreeGate(grow=True)},
    ],
)
def test_auto_says_what_it_cannot_be_combined_with(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'n_experts="auto" cannot be combined with'):
        regressor("auto", **arguments).fit(X, Y, subtask=POSITIVE if "partition" in arguments else None)


def test_the_table_of_candidates_counts_as_the_model_does() -> None:
    model = regressor("auto", gate="gaussian", max_experts=2).fit(X, Y)
    assert model.selection_ is not None
    (chosen,) = [line for line in model.selection_ if line["chosen"]]
    assert chosen["bic"] == pytest.approx(model.bic(X, Y), abs=1e-6)


def test_constant_experts_read_no_column_so_the_gate_may_miss_any() -> None:
    holes = X.copy()
    holes[::7, 1] = np.nan
    model = regressor(2, gate="gaussian", expert="constant").fit(holes, Y)
    assert np.isfinite(model.predict(holes)).all()
    assert np.isfinite(
        regressor(2, gate="gaussian", expert="constant", partition="inputs").fit(holes, Y).loglik_
    )


def test_given_experts_are_checked() -> None:
    with pytest.raises(ValueError, match="frozen, but has no parameters to keep"):
        regressor(expert=[GaussianExpert(frozen=True), "gaussian"]).fit(X, Y)
    wide = regressor(1).fit(np.column_stack([X, X]), Y).experts_[0]
    with pytest.raises(ValueError, match="was fitted to 4 columns, but the experts here see 2"):
        regressor(expert=[wide, "gaussian"]).fit(X, Y)


def test_generators_are_seeds() -> None:
    one = regressor(2, random_state=np.random.default_rng(5)).fit(X, Y)
    same = regressor(2, random_state=np.random.default_rng(5)).fit(X, Y)
    np.testing.assert_array_equal(one.coef_, same.coef_)


def test_experts_are_added_to_sparse_inputs() -> None:
    rows = sparse.csr_array(X)
    model = regressor(2).fit(rows, Y)
    model.add_expert(rows[:50], Y[:50] + 20, X_old=rows[50:], y_old=Y[50:])
    assert model.n_experts_ == 3


@pytest.mark.filterwarnings("ignore:an expert or gate")
def test_an_offset_that_no_expert_reads_is_refused_at_prediction() -> None:
    model = regressor(2, expert=Ridge(), max_iter=10).fit(X, Y)
    with pytest.raises(ValueError, match="offset was given, but expert='estimator' takes none"):
        model.predict(X, offset=np.ones(300))


def test_the_summary_of_a_tree_shows_it() -> None:
    text = regressor(gate=TreeGate(branching=(2,))).fit(X, Y).summary()
    assert "tree of gates:" in text
    assert text.count("expert 0") >= 2


def test_student_t_finds_its_degrees_of_freedom_from_any_start() -> None:
    rng = np.random.default_rng(4)
    y = np.where(POSITIVE, 1 + 2 * X[:, 1], -1 - X[:, 1]) + 0.3 * rng.standard_t(3, 300)
    fits = [
        regressor(2, expert="student_t", starts=[kind], tol=1e-7).fit(X, y) for kind in ("tree", "nested")
    ]
    assert fits[0].loglik_ == pytest.approx(fits[1].loglik_, abs=2e-3)
