"""The estimator gate: any classifier on soft targets, with and without weights, out of fold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from expertise.mixture.gates import EstimatorGate, GateSettings, SoftmaxGate
from expertise.mixture.gates._weighing import row_codes
from expertise.mixture.rows import Array, Design
from mixture.gates_helpers import GateRows, gate_rows, objective, statistics


def learned(gate: EstimatorGate, rows: GateRows) -> EstimatorGate:
    gate = gate.started(rows.resp.shape[1], rows.design, rows.settings)
    return gate.update(statistics(gate, rows))


def prior(gate: EstimatorGate, rows: GateRows) -> Array:
    return np.asarray(np.exp(gate.log_gate(rows.design)))


def standardised(rows: GateRows) -> GateRows:
    """Let the estimator see standardised columns too."""
    return replace(rows, design=Design(rows.design.x, rows.design.x[:, 1:]))


@pytest.mark.parametrize("pipeline", [False, True])
def test_logistic_regression_is_the_softmax_gate(pipeline: bool) -> None:
    rows = standardised(gate_rows(weighted=True))
    model: Any = LogisticRegression(C=1.0, tol=1e-9, max_iter=10000)
    gate = learned(EstimatorGate(make_pipeline("passthrough", model) if pipeline else model), rows)
    total = float(rows.weight.sum())
    soft: Any = SoftmaxGate().started(4, rows.design, GateSettings(alpha=1 / total, total_weight=total))
    for _ in range(20):
        soft = soft.update(statistics(soft, rows))
    np.testing.assert_allclose(prior(gate, rows), np.exp(soft.log_gate(rows.design)), atol=1e-4)


def test_a_pipeline_passes_weights_to_its_last_step() -> None:
    rows = gate_rows()
    model = make_pipeline(StandardScaler(), LogisticRegression())
    before = objective(EstimatorGate(model).started(4, rows.design, rows.settings), rows)
    assert objective(learned(EstimatorGate(model), rows), rows) > before + 1


def test_without_sample_weight_rows_are_drawn_by_weight() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat([[0.0], [1.0]], 2000, axis=0) + rng.normal(0, 1e-3, (4000, 1))
    share = np.where(x < 0.5, 0.8, 0.3)
    rows = replace(gate_rows(), design=Design.of(x), weight=np.ones(4000), resp=np.hstack([share, 1 - share]))
    gate = EstimatorGate(KNeighborsClassifier(1000), out_of_fold=False)
    found = prior(learned(gate, rows), rows)
    np.testing.assert_allclose(found[:, 0], share[:, 0], atol=0.05)


def test_draws_repeat_by_seed() -> None:
    rows = gate_rows()
    gate = EstimatorGate(KNeighborsClassifier(10))
    assert (prior(learned(gate, rows), rows) == prior(learned(gate, rows), rows)).all()


def test_the_estimator_given_is_not_fitted() -> None:
    model = DecisionTreeClassifier()
    learned(EstimatorGate(model), gate_rows())
    assert not hasattr(model, "tree_")


def test_rows_of_negligible_weight_are_left_out() -> None:
    class Counting(LogisticRegression):  # type: ignore[misc]
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            self.rows_ = len(X)
            return super().fit(X, y, sample_weight)

    rows = gate_rows(n_experts=2)
    share = np.full((160, 2), 0.5)
    share[:100] = [1 - 1e-12, 1e-12]
    gate = learned(EstimatorGate(Counting()), rows.with_resp(share))
    assert gate.fitted[0].rows_ == 160 + 60


def test_an_expert_with_all_the_weight_makes_the_answer_constant() -> None:
    rows = gate_rows()
    gate = learned(EstimatorGate(LogisticRegression()), rows.with_resp(np.eye(4)[np.full(160, 2)]))
    np.testing.assert_allclose(prior(gate, rows), np.eye(4)[np.full(160, 2)], atol=1e-9)
    assert np.isfinite(gate.log_gate(rows.design)).all()


def test_an_expert_that_nobody_saw_gets_the_smallest_prior() -> None:
    rows = gate_rows()
    share = np.eye(4)[np.random.default_rng(0).integers(0, 2, 160) * 2 + 1]
    found = prior(learned(EstimatorGate(LogisticRegression()), rows.with_resp(share)), rows)
    np.testing.assert_allclose(found[:, [0, 2]], 1e-10, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1)


# -- out of fold


def noise(n: int = 400) -> GateRows:
    """Responsibilities that have nothing to do with the inputs."""
    rows = gate_rows(n, n_experts=2, weighted=False)
    return rows.with_resp(np.eye(2)[np.random.default_rng(3).integers(0, 2, n)])


def test_a_tree_in_fold_copies_its_targets_and_out_of_fold_does_not() -> None:
    rows = noise()
    tree = DecisionTreeClassifier(random_state=0)
    copied = prior(learned(EstimatorGate(tree, out_of_fold=False), rows), rows)
    honest = prior(learned(EstimatorGate(tree), rows), rows)
    np.testing.assert_allclose(copied, rows.resp, atol=1e-9)
    agreement = (honest.argmax(axis=1) == rows.resp.argmax(axis=1)).mean()
    assert 0.4 < agreement < 0.6


def test_rows_of_the_fit_are_answered_by_a_model_that_did_not_see_them() -> None:
    rows = noise(60)
    gate = learned(EstimatorGate(KNeighborsClassifier(1), folds=4), rows)
    assert len(gate.fitted) == 5
    x = rows.design.raw
    fold = row_codes(x) % np.uint64(4)
    found = prior(gate, rows)
    for i in range(60):
        others = np.flatnonzero(fold != fold[i])
        nearest = others[((x[others] - x[i]) ** 2).sum(axis=1).argmin()]
        np.testing.assert_allclose(found[i], rows.resp[nearest], atol=1e-9)


def test_other_rows_are_answered_by_the_model_that_saw_all() -> None:
    rows = noise(60)
    gate = learned(EstimatorGate(KNeighborsClassifier(1)), rows)
    near = Design.of(rows.design.raw * (1 + 1e-9))
    np.testing.assert_allclose(np.exp(gate.log_gate(near)), rows.resp, atol=1e-9)


def test_equal_rows_stand_in_the_same_fold_in_any_form() -> None:
    x = np.random.default_rng(0).integers(-1, 2, (300, 3)).astype(float)
    kinds = np.unique(x, axis=0)
    codes = row_codes(x)
    assert len(np.unique(codes)) == len(kinds)
    assert (codes == row_codes(sp.csr_matrix(x))).all()
    assert (codes == row_codes(x.astype(np.float32))).all()
    assert (codes == row_codes(x + 0.0)).all()
    assert (row_codes(-np.zeros((1, 2))) == row_codes(np.zeros((1, 2)))).all()


def test_folds_are_of_like_size() -> None:
    codes = row_codes(np.random.default_rng(0).normal(size=(5000, 2)))
    counts = np.bincount((codes % np.uint64(5)).astype(int))
    assert counts.min() > 900
    assert counts.max() < 1100


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (LogisticRegression(), 1),
        (RandomForestClassifier(5), 6),
        (make_pipeline(StandardScaler(), DecisionTreeClassifier()), 6),
    ],
)
def test_which_classifiers_are_judged_out_of_fold(model: Any, wanted: int) -> None:
    assert len(learned(EstimatorGate(model), noise(60)).fitted) == wanted


def test_a_single_row_can_be_fitted_out_of_fold() -> None:
    rows = gate_rows(n_experts=2).take(slice(0, 1))
    found = prior(learned(EstimatorGate(DecisionTreeClassifier()), rows), rows)
    assert np.isfinite(found).all()


# -- errors


class Silent(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any) -> Any:
        return self


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, r"EstimatorGate needs a scikit-learn classifier; got estimator=None"),
        ({"estimator": LogisticRegression}, r"give an object such as LogisticRegression\(\)"),
        ({"estimator": LinearSVC()}, r"estimator=LinearSVC\(\) has no predict_proba, which a gate needs"),
        ({"estimator": Silent()}, r"wrap it in CalibratedClassifierCV"),
        (
            {"estimator": LogisticRegression(), "folds": 1},
            r"folds=1 must be 2 or more; out_of_fold=False turns",
        ),
        ({"estimator": LogisticRegression(), "trainable": False}, r"has learned nothing yet; fit a mixture"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        EstimatorGate(**options).started(2, gate_rows().design, GateSettings())


def test_json_cannot_hold_a_classifier() -> None:
    with pytest.raises(
        ValueError, match=r"gate=LogisticRegression is a scikit-learn estimator, which JSON cannot"
    ):
        EstimatorGate(LogisticRegression()).to_dict()
