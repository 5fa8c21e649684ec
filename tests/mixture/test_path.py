"""The recorded iterations of a fit, and the formula of a fitted mixture."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import GaussianGate, TreeGate, from_json
from expertise.mixture.fitting import thinned

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (300, 3))
Y = {
    "numbers": np.where(X[:, 0] > 0, 2 * X[:, 1], -X[:, 2]) + 0.1 * rng.normal(size=300),
    "counts": rng.poisson(np.exp(np.where(X[:, 0] > 0, 1 + X[:, 1], -X[:, 1]))).astype(float),
    "positive": rng.gamma(3, np.exp(X[:, 1] * np.sign(X[:, 0])) / 3),
    "two": (X[:, 1] * np.sign(X[:, 0]) + 0.3 * rng.normal(size=300) > 0).astype(int),
    "three": np.digitize(X[:, 1] * np.sign(X[:, 0]) + 0.3 * rng.normal(size=300), [-0.4, 0.4]),
}
Y["shares"] = np.column_stack([Y["counts"], np.full(300, 3.0)])
REGRESSORS = {
    "gaussian": "numbers",
    "student_t": "numbers",
    "constant": "numbers",
    "poisson": "counts",
    "gamma": "positive",
    "binomial": "shares",
}
CLASSIFIERS = {"multinomial": "three", "logistic": "two", "constant": "three"}
GATES: dict[str, Any] = {
    "softmax": "softmax",
    "constant": "constant",
    "gaussian": "gaussian",
    "tied": GaussianGate(covariance="tied"),
    "diag": GaussianGate(covariance="diag"),
    "centres": GaussianGate(means=X[:2], scale=np.array([0.5, 0.7]), trainable=False),
    "tree": TreeGate(tree=[[1, 2], 0]),
}


def softmax(logits: list[float]) -> np.ndarray:
    odds = np.exp(np.array(logits) - max(logits))
    return odds / odds.sum()


def by_formula(formula: dict[str, Any], x: np.ndarray) -> Any:
    """Compute a prediction from the plain numbers alone, one row at a time."""
    gate = formula["gate"]
    z = np.array([x[j] for j in formula["gate_columns"]])
    one = np.append(1.0, z)
    if gate["kind"] == "softmax":
        weights = softmax([float(one @ column) for column in np.array(gate["beta"]).T])
    elif gate["kind"] == "constant":
        weights = softmax(gate["log_prior"])
    elif gate["kind"] == "gaussian":
        parts = zip(gate["log_prior"], gate["means"], gate["precisions"], gate["log_dets"], strict=True)
        weights = softmax(
            [a - 0.5 * ((z - m) @ np.array(p) @ (z - m) + det) for a, m, p, det in map(_arrays, parts)]
        )
    else:
        weights = np.ones(gate["n_experts"])
        for node in gate["nodes"]:
            shares = softmax([float(one @ column) for column in np.array(node["beta"]).T])
            for share, leaves in zip(shares, node["leaves"], strict=True):
                weights[leaves] *= share
    x_expert = np.append(1.0, [x[j] for j in formula["expert_columns"]])
    return weights @ np.array([said(expert, x_expert, formula["classes"]) for expert in formula["experts"]])


def _arrays(part: Any) -> Any:
    return part[0], np.array(part[1]), part[2], part[3]


def said(expert: dict[str, Any], x: np.ndarray, classes: int) -> Any:
    if expert["link"] == "constant":
        return expert["values"]
    eta = x @ np.array(expert["beta"])
    if expert["link"] == "softmax":
        return softmax(eta.tolist())
    if expert["link"] == "logistic":
        p = 1 / (1 + np.exp(-eta[0]))
        return [1 - p, p] if classes else p
    return np.exp(eta[0]) if expert["link"] == "exp" else eta[0]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("expert", REGRESSORS)
def test_the_formula_of_a_regressor_gives_its_predictions(gate: str, expert: str) -> None:
    settings = {"max_iter": 15, "n_init": 1, "tol": 1e3}
    K = 2 if gate == "centres" else 3
    model = MixtureOfExpertsRegressor(
        K, expert=expert, gate=GATES[gate], random_state=0, alpha=0.1, **settings
    ).fit(X, Y[REGRESSORS[expert]])
    new = rng.uniform(-2, 2, (20, 3))
    found = [by_formula(model.formula(), x) for x in new]
    np.testing.assert_allclose(found, model.predict(new), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gate", ["softmax", "gaussian", "tree"])
@pytest.mark.parametrize("expert", CLASSIFIERS)
def test_the_formula_of_a_classifier_gives_its_probabilities(gate: str, expert: str) -> None:
    settings = {"max_iter": 15, "n_init": 1, "tol": 1e3}
    model = MixtureOfExpertsClassifier(
        3, expert=expert, gate=GATES[gate], gate_features=[0, 2], random_state=0, alpha=0.1, **settings
    ).fit(X, Y[CLASSIFIERS[expert]])
    new = rng.uniform(-2, 2, (20, 3))
    found = [by_formula(model.formula(), x) for x in new]
    np.testing.assert_allclose(found, model.predict_proba(new), rtol=1e-9, atol=1e-9)


def test_parts_without_a_formula_have_none() -> None:
    model = MixtureOfExpertsRegressor(2, expert=["gaussian", Ridge()], n_init=1, random_state=0)
    assert model.fit(X, Y["numbers"]).formula() is None
    assert MixtureOfExpertsRegressor(1).fit(X, X[:, :2]).formula() is None


def test_the_path_leads_to_the_fitted_mixture_and_its_likelihood_rises() -> None:
    model = MixtureOfExpertsRegressor(2, random_state=0, keep_path=True).fit(X, Y["numbers"])
    np.testing.assert_array_equal(model.at_step(-1).predict(X), model.predict(X))
    steps = [model.at_step(i) for i in range(len(model.path_))]
    ll = [float(step.score_samples(X, Y["numbers"]).sum()) for step in steps]
    assert len(ll) > 5
    assert np.diff(ll).min() > -1e-6
    assert ll[-1] == pytest.approx(model.loglik_)
    assert ll[-1] > ll[0] + 10
    assert len(model.objective_history_) >= len(ll)


def test_every_iteration_is_kept_where_there_are_few() -> None:
    model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0, keep_path=True).fit(X, Y["numbers"])
    assert 2 < len(model.path_) < 60
    assert [iteration for iteration, _, _ in model.path_] == list(range(len(model.path_)))
    assert len(model.path_) == len(model.objective_history_)


def test_long_paths_are_thinned_to_the_first_ones_and_the_last() -> None:
    kept = thinned(1000, 60)
    assert 50 <= len(kept) <= 60
    assert kept[:10] == list(range(10))
    assert kept[-1] == 999
    assert (np.diff(kept) > 0).all()
    assert thinned(3, 60) == [0, 1, 2]
    assert thinned(0, 60) == []


def test_the_path_is_kept_by_auto_and_by_chunks() -> None:
    auto = MixtureOfExpertsRegressor("auto", max_experts=3, n_init=3, random_state=0, keep_path=True)
    auto.fit(X, Y["numbers"])
    np.testing.assert_array_equal(auto.at_step(-1).predict(X), auto.predict(X))
    chunks = MixtureOfExpertsRegressor(2, n_init=3, random_state=0, keep_path=True)
    chunks.fit_chunks([(X[:150], Y["numbers"][:150]), (X[150:], Y["numbers"][150:])])
    np.testing.assert_array_equal(chunks.at_step(-1).predict(X), chunks.predict(X))


def test_without_a_path_a_step_is_an_error_that_says_how_to_get_one() -> None:
    model = MixtureOfExpertsRegressor(2, n_init=1, random_state=0).fit(X, Y["numbers"])
    assert model.path_ == []
    with pytest.raises(ValueError, match="keep_path=True"):
        model.at_step(0)
    kept = MixtureOfExpertsRegressor(2, n_init=1, random_state=0, keep_path=True).fit(X, Y["numbers"])
    with pytest.raises(ValueError, match="keep_path=True"):
        from_json(kept.to_json()).at_step(0)


def test_the_path_shown_is_a_long_one_of_those_that_end_as_well() -> None:
    kept = MixtureOfExpertsRegressor(2, random_state=0, keep_path=True).fit(X, Y["numbers"])
    plain = MixtureOfExpertsRegressor(2, random_state=0).fit(X, Y["numbers"])
    ended = [start for start in kept.starts_ if start["continued"] and not start["degenerate"]]
    equal = [one for one in ended if one["objective"] > plain.objective_history_[-1] - 1e-5 * len(X)]
    assert kept.starts_[0]["n_iter"] == max(one["n_iter"] for one in equal) == kept.n_iter_
    assert kept.loglik_ == pytest.approx(plain.loglik_, abs=1e-5 * len(X))
