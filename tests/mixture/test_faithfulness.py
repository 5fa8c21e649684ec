"""What the product claims of a mixture (rows A1 to A25 of its requirements), one test or more a row."""

import inspect
import re
from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import (
    EstimatorGate,
    FewCasesWarning,
    GaussianExpert,
    GaussianGate,
    RegressorExpert,
    TreeGate,
    em,
)
from expertise.mixture.experts import AbstractExpert
from mixture.datasets import Array, regimes


def matched(found: Any, true: Any, k: int) -> tuple[float, Any]:
    """Match experts to regimes; give the accuracy and, for each regime, its expert."""
    table = np.array([[np.sum((found == e) & (true == r)) for e in range(k)] for r in range(k)])
    rows, experts = linear_sum_assignment(-table)
    return float(table[rows, experts].sum() / len(true)), experts


def same_bytes(a: AbstractExpert, b: AbstractExpert) -> bool:
    ours, theirs = a.to_dict(), b.to_dict()
    return ours == theirs


@pytest.mark.parametrize("k", [2, 4])
def test_a01_each_model_specialises_and_the_gate_finds_its_regime(k: int) -> None:
    train, test = regimes(3000, k, 4, seed=1), regimes(2000, k, 4, seed=2)
    model = MixtureOfExpertsRegressor(k, random_state=0).fit(train.X, train.y)
    accuracy, _ = matched(model.apply(test.X), test.regime, k)
    assert accuracy >= 0.95


def test_a02_the_gate_takes_x_only_and_argmax_is_one_expert_bit_for_bit() -> None:
    data = regimes(600, 2)
    model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    assert list(inspect.signature(model.gate_proba).parameters) == ["X"]
    chosen = model.apply(data.X)
    np.testing.assert_array_equal(chosen, model.gate_proba(data.X).argmax(axis=1))
    picked = model.predict(data.X, pooling="argmax")
    for k in range(2):
        rows = chosen == k
        design = model._expert_design(model._validate(data.X[rows]))
        np.testing.assert_array_equal(picked[rows], model.experts_[k].predict(design))


def test_a03_prediction_knows_no_y_and_knowing_it_would_cheat() -> None:
    """Overlapping regimes: the responsibility, which has seen y, seems to predict far better."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    second = rng.random(4000) < 1 / (1 + np.exp(-1.5 * X[:, 0]))
    y = np.where(second, 1 + X[:, 1], -1 - X[:, 1]) + 0.2 * rng.normal(size=4000)
    model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(X[:2000], y[:2000])
    assert "y" not in inspect.signature(model.predict).parameters
    X, y = X[2000:], y[2000:]
    honest = np.mean((y - model.predict(X)) ** 2)
    cheat = np.mean((y - (model.responsibilities(X, y) * model.predict_experts(X)).sum(axis=1)) ** 2)
    assert cheat < 0.5 * honest


def test_a04_with_few_cases_one_model_wins_and_with_many_the_mixture() -> None:
    test = regimes(2000, 4, 10, seed=100)

    def error(n: int, model: Any) -> float:
        data = regimes(n, 4, 10, seed=3)
        return float(np.mean((model.fit(data.X, data.y).predict(test.X) - test.y) ** 2) / test.y.var())

    few = MixtureOfExpertsRegressor(2, n_init=3, random_state=0)
    with pytest.warns(FewCasesWarning, match=r"few|fewer"):
        mixture_of_few = error(30, few)
    assert mixture_of_few > error(30, Ridge())
    assert error(3000, MixtureOfExpertsRegressor(4, random_state=0)) < 0.1 * error(3000, LinearRegression())


def test_a05_a_mixture_weighs_experts_case_by_case_and_boosting_does_not() -> None:
    data = regimes(500, 2)
    model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    assert model.gate_proba(data.X).var(axis=0).min() > 0.05
    plain = MixtureOfExpertsRegressor(2, gate="constant", n_init=2, random_state=0).fit(data.X, data.y)
    assert np.ptp(plain.gate_proba(data.X), axis=0).max() == 0
    boosting = GradientBoostingRegressor(n_estimators=3, random_state=0).fit(data.X, data.y)
    # its prediction is the same weighted sum of the trees for every case
    trees = np.column_stack([tree[0].predict(data.X) for tree in boosting.estimators_])
    rest = boosting.predict(data.X) - boosting.init_.predict(data.X)
    np.testing.assert_allclose(trees @ np.full(3, boosting.learning_rate), rest)


def test_a06_hard_experts_learn_nothing_from_rows_they_were_not_picked_for() -> None:
    data = regimes(400, 2)
    model = MixtureOfExpertsRegressor(2, algorithm="hard", n_init=3, random_state=0).fit(data.X, data.y)
    table = model._table_of(data.X, data.y)
    rows, scales = model._rows_of(table)
    inside = em.Model(
        model.gate_.scaled(scales.gate), tuple(e.scaled(scales.expert, scales.y) for e in model.experts_)
    )
    found = em.expectation(inside, rows, hard=True)
    assert set(np.unique(found.row_resp)) == {0.0, 1.0}
    own = found.row_resp[:, 0] == 1
    gradient = inside.experts[0].gradient(rows.take(np.flatnonzero(~own)), found.row_resp[~own, 0])
    assert (gradient == 0).all()
    # whatever happens to the others' targets, the step of expert 0 is the same to the last bit
    other = rows.z.copy()
    other[~own] += 100.0
    step = em.maximisation(inside, em.statistics(inside, rows, found)).experts[0]
    moved = em.maximisation(inside, em.statistics(inside, replace(rows, z=other), found)).experts[0]
    assert same_bytes(step, moved)


def test_a06_soft_experts_learn_by_their_responsibility() -> None:
    """The gradient of log p by an expert's mean is h (y - mu) / sigma^2, case by case."""
    data = regimes(50, 2)
    model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    h = model.responsibilities(data.X, data.y)
    expert = model.experts_[0]
    assert isinstance(expert, GaussianExpert)
    assert expert.beta is not None
    step = 1e-6
    shifted = []
    for sign in (1, -1):
        beta = expert.beta.copy()
        beta[0] += sign * step
        model.experts_[0] = replace(expert, beta=beta)
        shifted.append(model.score_samples(data.X, data.y))
    numeric = (shifted[0] - shifted[1]) / (2 * step)
    model.experts_[0] = expert
    residual = data.y - model.predict_experts(data.X)[:, 0]
    np.testing.assert_allclose(numeric, h[:, 0] * residual / model.sigma_[0] ** 2, rtol=1e-4, atol=1e-4)


def test_a07_experts_are_very_good_somewhere_and_bad_elsewhere() -> None:
    train, test = regimes(3000, 4, 4, seed=1), regimes(2000, 4, 4, seed=2)
    model = MixtureOfExpertsRegressor(4, random_state=0).fit(train.X, train.y)
    _, expert_of = matched(model.apply(test.X), test.regime, 4)
    each = model.predict_experts(test.X)[:, expert_of]
    squares = [(each[test.regime == r] - test.y[test.regime == r, None]) ** 2 for r in range(4)]
    error = np.sqrt([square.mean(axis=0) for square in squares])
    off = error[~np.eye(4, dtype=bool)]
    assert np.diag(error).mean() / off.mean() < 0.2


def test_a09_from_the_nearest_neighbour_to_the_mean() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-3, 3, (60, 2))
    y = np.sin(X[:, 0]) + X[:, 1]
    new = rng.uniform(-3, 3, (200, 2))

    def fitted(width: float) -> MixtureOfExpertsRegressor:
        gate = GaussianGate(means=X, scale=width, trainable=False)
        return MixtureOfExpertsRegressor(expert="constant", gate=gate, max_iter=20).fit(X, y)

    nearest = KNeighborsRegressor(1).fit(X, y).predict(new)
    with pytest.warns(UserWarning, match="expert"):
        local = fitted(1e-5)
    assert local.n_experts_ == 60
    np.testing.assert_allclose(local.predict(new), nearest, atol=1e-12)
    with pytest.warns(UserWarning, match=r"few|fewer"):
        everywhere = fitted(1e6)
    np.testing.assert_allclose(everywhere.predict(new), y.mean(), atol=1e-6)


def test_a09_one_expert_is_least_squares_and_ridge() -> None:
    data = regimes(200, 2)
    one = MixtureOfExpertsRegressor(1).fit(data.X, data.y)
    linear = LinearRegression().fit(data.X, data.y)
    np.testing.assert_allclose(one.predict(data.X), linear.predict(data.X), atol=1e-10)
    scaled = (data.X - data.X.mean(axis=0)) / data.X.std(axis=0)
    ridge = Ridge(alpha=7.0).fit(scaled, data.y)
    penalised = MixtureOfExpertsRegressor(1, alpha=7.0).fit(data.X, data.y)
    np.testing.assert_allclose(penalised.predict(data.X), ridge.predict(scaled), atol=1e-10)


def crossed(n: int, seed: int) -> tuple[Array, Array]:
    """Three clusters of inputs along x0, while the regimes are divided by the sign of x1."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.choice([-6.0, 0.0, 6.0], n), np.zeros(n)]) + rng.normal(size=(n, 2))
    return X, np.where(X[:, 1] > 0, X[:, 0], -X[:, 0]) + 0.1 * rng.normal(size=n)


def test_a10_partition_by_mapping_finds_regimes_that_clusters_of_inputs_miss() -> None:
    (X, y), (new, truth) = crossed(1500, 0), crossed(1500, 1)
    score = {
        partition: MixtureOfExpertsRegressor(2, partition=partition, random_state=0)
        .fit(X, y)
        .score(new, truth)
        for partition in ("mapping", "inputs")
    }
    assert score["mapping"] > 0.95
    assert score["inputs"] < 0.5
    subtask = np.where(X[:, 1] > 0, "above", "below")
    given = MixtureOfExpertsRegressor(partition="given", random_state=0).fit(X, y, subtask=subtask)
    assert list(given.subtasks_) == ["above", "below"]
    assert given.score(new, truth) > 0.95
    # the gate learned the division from x alone, and expert 0 is the first label's
    assert np.mean(given.apply(new) == (new[:, 1] <= 0)) > 0.97
    np.testing.assert_allclose(given.coef_[0], [1, 0], atol=0.05)


def test_a11_the_named_models_run() -> None:
    data = regimes(400, 4, 4)
    named = {
        "adaptive mixture of local experts": MixtureOfExpertsRegressor(4, n_init=2, random_state=0),
        "hierarchical mixture": MixtureOfExpertsRegressor(
            gate=TreeGate(branching=(2, 2)), n_init=4, random_state=0
        ),
        "localised gate": MixtureOfExpertsRegressor(4, gate="gaussian", n_init=2, random_state=0),
        "mixture of regressions": MixtureOfExpertsRegressor(4, gate="constant", n_init=2, random_state=0),
    }
    linear = LinearRegression().fit(data.X, data.y).score(data.X, data.y)
    for name, model in named.items():
        r2 = model.fit(data.X, data.y).score(data.X, data.y)
        assert (r2 > linear + 0.1) == (name != "mixture of regressions"), name


@pytest.mark.parametrize(
    "family",
    ["gaussian", "student_t", "poisson", "gamma", "constant", Ridge(), ["gaussian", "student_t", Ridge()]],
)
def test_a12_every_family_of_experts_fits_its_own_kind_of_data(family: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2))
    mean = np.exp(np.where(X[:, 0] > 0, 1 + 0.3 * X[:, 1], 2.5 - 0.3 * X[:, 1]))
    y = {"poisson": rng.poisson(mean), "gamma": rng.gamma(20, mean / 20)}.get(
        str(family), np.log(mean) + 0.05 * rng.normal(size=500)
    )
    count = None if isinstance(family, list) else 2
    model = MixtureOfExpertsRegressor(count, expert=family, n_init=3, random_state=0, max_iter=60)
    model.fit(X, y)
    truth = mean if str(family) in ("poisson", "gamma") else np.log(mean)
    assert np.corrcoef(model.predict(X), truth)[0, 1] > (0.9 if family == "constant" else 0.95)


@pytest.mark.parametrize("family", ["logistic", "multinomial", LogisticRegression()])
def test_a12_experts_may_be_classifiers(family: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 2))
    y = np.where((X[:, 0] > 0) == (X[:, 1] > 0), "same", "other")
    model = MixtureOfExpertsClassifier(2, expert=family, n_init=6, random_state=0, alpha=1e-3).fit(X, y)
    assert model.score(X, y) > 0.93
    assert LogisticRegression().fit(X, y).score(X, y) < 0.7


@pytest.mark.parametrize(("degrees", "cart_wins"), [(0, True), (45, False)])
def test_a13_soft_borders_at_any_angle(degrees: float, cart_wins: bool) -> None:
    """A step along a direction: CART wins where the direction is an axis, and loses where it is oblique."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[Array, Array]:
        X = rng.uniform(-1, 1, (n, 2))
        along = np.cos(np.radians(degrees)) * X[:, 0] + np.sin(np.radians(degrees)) * X[:, 1]
        return X, np.sign(along) + 0.2 * rng.normal(size=n)

    (X, y), (new, truth) = draw(300), draw(3000)
    mixture = MixtureOfExpertsRegressor(2, expert="constant", n_init=3, random_state=0).fit(X, y)
    tree = DecisionTreeRegressor(max_leaf_nodes=4 if cart_wins else 12, random_state=0).fit(X, y)
    ours, theirs = mixture.score(new, truth), tree.score(new, truth)
    assert ours > 0.9
    assert (theirs >= ours - 0.005) == cart_wins


def test_a14_a_probabilistic_model_joins_them() -> None:
    data = regimes(800, 2, noise=0.5)
    model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(data.X, data.y)
    X, y = data.X[:5], data.y[:5]
    g, mu, s2 = model.gate_proba(X), model.predict_experts(X), model.sigma_**2
    mean = (g * mu).sum(axis=1)
    predicted = model.predict_distribution(X)
    np.testing.assert_allclose(predicted.mean(), mean)
    np.testing.assert_allclose(predicted.var(), (g * (s2 + mu**2)).sum(axis=1) - mean**2)
    density = (g * stats.norm.pdf(y[:, None], mu, model.sigma_)).sum(axis=1)
    np.testing.assert_allclose(model.score_samples(X, y), np.log(density))
    for q in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(predicted.cdf(model.predict_quantile(X, q)), q, atol=1e-9)
    inside = model.predict_interval(data.X, coverage=0.9)
    assert 0.87 < np.mean((data.y >= inside[:, 0]) & (data.y <= inside[:, 1])) < 0.93
    many = model.sample(np.repeat(X[:1], 4000, axis=0), random_state=0)

    def cdf(values: Array) -> Array:
        return model.predict_distribution(np.repeat(X[:1], len(values), axis=0)).cdf(values)

    assert stats.kstest(many, cdf).pvalue > 0.01


class Counting(RegressorMixin, BaseEstimator):
    """A regressor that counts the rows it is asked about."""

    asked: ClassVar[Counter[str]] = Counter()

    def __init__(self, name: str = "", value: float = 0.0) -> None:
        self.name = name
        self.value = value

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None) -> "Counting":
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Array) -> Array:
        Counting.asked[self.name] += len(X)
        return np.full(len(X), self.value)


def test_a15_pooling_asks_only_the_experts_that_count() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1))
    y = np.select([X[:, 0] < -0.5, X[:, 0] < 0.5], [-1.0, 0.0], 1.0) + 0.1 * rng.normal(size=300)
    experts = [RegressorExpert(Counting(str(v), v)) for v in (-1.0, 0.0, 1.0)]
    model = MixtureOfExpertsRegressor(expert=experts, n_init=2, random_state=0, max_iter=30).fit(X, y)
    g = model.gate_proba(X)
    values = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(model.predict(X), g @ values)
    Counting.asked.clear()
    np.testing.assert_array_equal(model.predict(X, pooling="argmax"), values[g.argmax(axis=1)])
    assert sum(Counting.asked.values()) == 300
    assert Counting.asked == Counter(values[g.argmax(axis=1)].astype(str).tolist())
    Counting.asked.clear()
    pooled = model.predict(X, pooling="top_k", k=2)
    # one of the two largest may have a weight of 0
    assert sum(Counting.asked.values()) == (np.sort(g, axis=1)[:, 1:] > 0).sum() > 450
    kept = np.where(g >= np.sort(g, axis=1)[:, [-2]], g, 0.0)
    np.testing.assert_allclose(pooled, (kept / kept.sum(axis=1, keepdims=True)) @ values, atol=1e-12)


def test_a16_gate_and_experts_may_see_different_inputs() -> None:
    data = regimes(600, 2)
    model = MixtureOfExpertsRegressor(
        2, gate_features=[0], expert_features=slice(1, 3), n_init=3, random_state=0
    ).fit(data.X, data.y)
    moved = data.X.copy()
    moved[:, 1:] += 5
    np.testing.assert_array_equal(model.gate_proba(moved), model.gate_proba(data.X))
    moved = data.X.copy()
    moved[:, 0] += 5
    np.testing.assert_array_equal(model.predict_experts(moved), model.predict_experts(data.X))
    assert model.coef_.shape == (2, 2)
    assert model.gate_coef_.shape == (2, 1)
    # what the gate does not see it cannot divide by
    blind = MixtureOfExpertsRegressor(
        2, gate_features=[2], expert_features=slice(1, 3), n_init=3, random_state=0
    ).fit(data.X, data.y)
    assert blind.loglik_ < model.loglik_ - 50


def test_a17_parameters_are_addressed_frozen_and_trained_group_by_group() -> None:
    data = regimes(500, 2)
    model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    before, gate = list(model.experts_), model.gate_.to_dict()
    model.freeze_expert(0).freeze_gate().refit(data.X, data.y + 1.0)
    assert model.experts_[0].to_dict() == {**before[0].to_dict(), "frozen": True}
    assert model.gate_.to_dict() == {**gate, "trainable": False}
    assert not same_bytes(model.experts_[1], before[1])
    model.freeze_expert(0, frozen=False).freeze_expert(1).freeze_gate(frozen=False)
    second = model.experts_[1].to_dict()
    model.refit(data.X, data.y)
    assert model.experts_[1].to_dict() == second
    assert model.gate_.to_dict() != gate


def third_domain(n: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) + np.array([0.0, 8.0, 0.0])
    return X, 3 - 2 * X[:, 2] + 0.1 * rng.normal(size=n)


def test_a18_an_expert_for_a_new_domain_leaves_the_others_byte_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = regimes(1500, 2, seed=1), third_domain(200, 2)
    old_test, new_test = regimes(1000, 2, seed=5), third_domain(300, 6)
    work: list[int] = []
    real = em.statistics
    monkeypatch.setattr(
        em, "statistics", lambda m, rows, found: work.append(len(rows)) or real(m, rows, found)
    )
    model = MixtureOfExpertsRegressor(2, gate_alpha=1e-4, n_init=5, random_state=0).fit(old.X, old.y)
    work.clear()
    both = np.vstack([old.X, new[0]]), np.concatenate([old.y, new[1]])
    full = MixtureOfExpertsRegressor(3, gate_alpha=1e-4, n_init=5, random_state=0).fit(*both)
    of_refit = sum(work)
    before, old_r2 = list(model.experts_), model.score(old_test.X, old_test.y)
    assert model.score(*new_test) < 0.5
    work.clear()
    model.add_expert(*new, X_old=old.X[:300], y_old=old.y[:300])
    assert sum(work) < 0.2 * of_refit
    assert all(same_bytes(a, b) for a, b in zip(before, model.experts_[:2], strict=True))
    assert model.n_experts_ == 3
    assert model.score(*new_test) > 0.9
    assert abs(model.score(old_test.X, old_test.y) - old_r2) < 0.01
    assert full.score(*new_test) > 0.9
    # and away again
    model.remove_expert(2)
    assert all(same_bytes(a, b) for a, b in zip(before, model.experts_, strict=True))


def test_a18_replaced_split_and_merged_experts_leave_the_others_byte_equal() -> None:
    data = regimes(900, 4, 4)
    model = MixtureOfExpertsRegressor(4, random_state=0).fit(data.X, data.y)
    before, score = list(model.experts_), model.score(data.X, data.y)
    model.replace_expert(1, data.X, data.y, expert="student_t")
    assert model.experts_[1].name == "student_t"
    assert all(model.experts_[k] is before[k] for k in (0, 2, 3))
    assert model.score(data.X, data.y) > score - 0.02
    model.replace_expert(1, expert=before[1])
    assert model.score(data.X, data.y) == pytest.approx(score, abs=1e-12)
    model.split_expert(2, data.X, data.y)
    assert model.n_experts_ == 5
    assert all(same_bytes(model.experts_[k], before[k]) for k in (0, 1, 3))
    assert model.score(data.X, data.y) > score - 0.01
    model.merge_experts(2, 4, data.X, data.y)
    assert model.n_experts_ == 4
    assert all(same_bytes(model.experts_[k], before[k]) for k in (0, 1, 3))
    assert model.score(data.X, data.y) > score - 0.01


def test_a19_a_new_speaker_from_five_examples_of_each_class() -> None:
    """Speakers stand apart in the first input; for each, other inputs mean the four classes."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 2.5, (3, 4, 2))

    def say(speaker: int, times: int) -> tuple[Array, Any]:
        y = np.repeat(np.arange(4), times)
        at = centres[speaker, y] + 0.4 * rng.normal(size=(len(y), 2))
        return np.column_stack([6.0 * speaker + 0.3 * rng.normal(size=len(y)), at]), y

    parts = [say(speaker, 60) for speaker in (0, 1)]
    X, y = np.vstack([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    model = MixtureOfExpertsClassifier(2, alpha=0.1, gate_alpha=1e-4, n_init=5, random_state=0).fit(X, y)
    before, old = list(model.experts_), model.score(X, y)
    test = say(2, 50)
    assert model.score(*test) < 0.7
    model.add_expert(*say(2, 5), X_old=X, y_old=y)
    assert model.score(*test) > 0.9
    assert abs(model.score(X, y) - old) < 0.01
    assert all(same_bytes(a, b) for a, b in zip(before, model.experts_[:2], strict=True))


def test_a20_experts_of_no_use_are_dropped_and_the_loss_is_shown() -> None:
    data = regimes(900, 2, noise=0.3)
    model = MixtureOfExpertsRegressor(5, n_init=3, random_state=0).fit(data.X, data.y)
    begin = model.score_samples(data.X, data.y).mean()
    removed = model.prune(data.X, data.y, tolerance=0.05)
    assert len(removed) == 5 - model.n_experts_ > 0
    assert removed[-1]["loss"] <= 0.05
    lost = begin - model.score_samples(data.X, data.y).mean()
    assert lost == pytest.approx(removed[-1]["loss"], abs=1e-9)
    assert model.weights_.sum() == pytest.approx(1)
    assert model.gate_proba(data.X).shape == (900, model.n_experts_)


def test_a21_gates_and_experts_combine_freely() -> None:
    data = regimes(300, 2)
    for gate in ("softmax", "gaussian", "tree", EstimatorGate(LogisticRegression())):
        for expert in ("gaussian", "student_t", Ridge()):
            model = MixtureOfExpertsRegressor(
                2, gate=gate, expert=expert, n_init=3, max_iter=40, random_state=0
            )
            assert model.fit(data.X, data.y).score(data.X, data.y) > 0.9, (gate, expert)


def test_a24_explain_says_who_decided_and_why() -> None:
    data = regimes(600, 2)
    model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(data.X, data.y)
    told = model.explain(data.X[:3])
    np.testing.assert_array_equal(told.chosen, model.apply(data.X[:3]))
    assert (np.abs(told.gate_effects).argmax(axis=1) == 0).all()
    text = str(told)
    assert re.search(r"expert \d decided with weight", text)
    assert "x0 = " in text


def test_a25_the_summary_says_what_it_costs() -> None:
    data = regimes(300, 2)
    model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    text = model.summary()
    # gate 4, experts 4 + 1 each; one of them runs for a case
    assert re.search(r"parameters\s+14\b", text)
    assert re.search(r"active per prediction\s+9\b", text)
    assert re.search(r"fit time\s+[\d.]+ s", text)
    assert model.n_parameters_ == 14
