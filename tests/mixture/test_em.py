"""The engine: sums that add, threads, weights, groups, invariances, hard EM, starts, degenerate fits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import GaussianExpert, em, search, starts
from expertise.mixture._checking import DEFAULT_STARTS
from expertise.mixture.rows import Design, Scaling
from expertise.mixture.sums import Sums
from mixture.datasets import regimes


def inside(model: Any, X: Any, y: Any, **more: Any) -> tuple[em.Model, Any]:
    """Give a fitted model in standardised columns, and its rows."""
    table = model._table_of(X, y, **more)
    rows, scales = model._rows_of(table)
    parts = tuple(expert.scaled(scales.expert, scales.y) for expert in model.experts_)
    return em.Model(model.gate_.scaled(scales.gate), parts), rows


def fitted(**more: Any) -> MixtureOfExpertsRegressor:
    data = regimes(300, 2)
    return MixtureOfExpertsRegressor(**{"n_experts": 2, "n_init": 2, "random_state": 0, **more}).fit(
        data.X, data.y
    )


@pytest.mark.parametrize("gate", ["softmax", "constant", "gaussian", "tree"])
@pytest.mark.parametrize("expert", ["gaussian", "student_t", "poisson", "gamma"])
def test_the_sum_of_shards_is_the_sum_of_the_whole(gate: str, expert: str) -> None:
    data = regimes(200, 2)
    y = np.round(np.abs(data.y) + 1) if expert in ("poisson", "gamma") else data.y
    model = MixtureOfExpertsRegressor(2, gate=gate, expert=expert, n_init=1, max_iter=5, random_state=0)
    with pytest.warns(ConvergenceWarning, match="max_iter=5"):
        model.fit(data.X, y)
    here, rows = inside(model, data.X, y)

    def sums(part: Any) -> em.Pass:
        return em.statistics(here, part, em.expectation(here, part))

    whole = sums(rows)
    shards = [sums(rows.take(np.arange(start, 200, 3))) for start in range(3)]
    total = shards[0] + shards[1] + shards[2]
    assert total.value == pytest.approx(whole.value, rel=1e-10)
    pairs = [(whole.gate, total.gate), *zip(whole.experts, total.experts, strict=True)]
    for ours, theirs in pairs:
        assert isinstance(ours, Sums)
        assert isinstance(theirs, Sums)
        for name, value in ours.items():
            np.testing.assert_allclose(
                theirs[name], value, rtol=1e-10, atol=1e-10 * (1 + np.abs(value).max())
            )


def test_threads_and_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    data = regimes(3000, 2)
    monkeypatch.setattr(em.InMemory, "__init__", _small_chunks)
    one = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    many = MixtureOfExpertsRegressor(2, n_init=2, random_state=0, n_jobs=3).fit(data.X, data.y)
    monkeypatch.undo()
    whole = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    np.testing.assert_array_equal(one.coef_, many.coef_)
    np.testing.assert_array_equal(one.objective_history_, many.objective_history_)
    np.testing.assert_allclose(one.coef_, whole.coef_, rtol=1e-6)


def _small_chunks(self: em.InMemory, rows: Any, size: int = 257) -> None:
    self.rows, self.total_weight, self._size = rows, float(rows.gate_weight.sum()), 257


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), gate=st.sampled_from(["softmax", "constant", "gaussian"]))
def test_a_weight_of_two_is_the_row_twice_and_the_order_does_not_matter(seed: int, gate: str) -> None:
    data = regimes(60, 2, seed=seed)
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 3, 60).astype(float)
    order = rng.permutation(int(weight.sum()))
    model = MixtureOfExpertsRegressor(2, gate=gate, n_init=3, random_state=0)
    weighted = model.fit(data.X, data.y, sample_weight=weight).predict(data.X)
    rows = np.repeat(np.arange(60), weight.astype(int))[order]
    twice = model.fit(data.X[rows], data.y[rows]).predict(data.X)
    np.testing.assert_array_equal(weighted, twice)


def test_float_weights_scale_the_likelihood() -> None:
    data = regimes(200, 2)
    weight = np.random.default_rng(0).uniform(0.1, 3, 200)
    model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(data.X, data.y, sample_weight=weight)
    each = model.score_samples(data.X, data.y)
    assert model.loglik_ == pytest.approx((weight * each).sum())
    np.testing.assert_allclose(model.score_samples(data.X, data.y, sample_weight=weight), weight * each)
    assert model.bic(data.X, data.y, sample_weight=weight) == pytest.approx(
        -2 * model.loglik_ + model.n_parameters_ * np.log(weight.sum())
    )


@pytest.mark.parametrize("gate", ["softmax", "constant", "gaussian", "tree"])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_shift_and_scale_of_every_column_do_not_matter(gate: str, alpha: float) -> None:
    data = regimes(300, 2)
    model = MixtureOfExpertsRegressor(2, gate=gate, alpha=alpha, n_init=2, random_state=0).fit(data.X, data.y)
    shift, scale = np.array([2000.0, -5.0, 0.0]), np.array([40.0, 1e-4, 1e3])
    moved = MixtureOfExpertsRegressor(2, gate=gate, alpha=alpha, n_init=2, random_state=0)
    moved.fit(data.X * scale + shift, 7 * data.y - 100)
    np.testing.assert_allclose(
        moved.predict(data.X * scale + shift), 7 * model.predict(data.X) - 100, rtol=1e-4, atol=1e-3
    )
    assert moved.loglik_ == pytest.approx(model.loglik_ - 300 * np.log(7), abs=1e-2)


def test_the_order_of_experts_does_not_matter() -> None:
    data = regimes(300, 4, 4)
    model = MixtureOfExpertsRegressor(4, n_init=3, random_state=0).fit(data.X, data.y)
    here, rows = inside(model, data.X, data.y)
    order = [2, 0, 3, 1]
    beta = here.gate.beta[:, order]  # type: ignore[attr-defined]
    there = em.Model(
        replace(here.gate, beta=beta - beta[:, [-1]]),  # type: ignore[call-arg]
        tuple(here.experts[k] for k in order),
    )
    source = em.InMemory(rows)
    step, other = (em.maximise(m, source, max_iter=3, tol=0.0) for m in (here, there))
    assert other.objective == pytest.approx(step.objective, rel=1e-9)
    np.testing.assert_allclose(other.count, step.count[order], rtol=1e-6)


def test_one_step_of_em_against_double_loops() -> None:
    """Responsibilities and the Gaussian M-step, row by row, by the textbook."""
    data = regimes(40, 2)
    model = MixtureOfExpertsRegressor(2, n_init=1, max_iter=3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        model.fit(data.X, data.y)
    g, mu = model.gate_proba(data.X), model.predict_experts(data.X)
    h = np.empty((40, 2))
    for i in range(40):
        for k in range(2):
            z = (data.y[i] - mu[i, k]) / model.sigma_[k]
            h[i, k] = g[i, k] * np.exp(-(z**2) / 2) / model.sigma_[k]
        h[i] /= h[i].sum()
    np.testing.assert_allclose(model.responsibilities(data.X, data.y), h, atol=1e-12)
    here, rows = inside(model, data.X, data.y)
    step = em.maximisation(here, em.statistics(here, rows, em.expectation(here, rows)))
    ones = np.column_stack([np.ones(40), data.X])
    scales = Scaling.of(data.X, np.ones(40)), Scaling.of(data.y[:, None], np.ones(40))
    for k in range(2):
        root = np.sqrt(h[:, k])[:, None]
        beta = np.linalg.lstsq(ones * root, data.y * root[:, 0], rcond=None)[0]
        sigma = np.sqrt((h[:, k] * (data.y - ones @ beta) ** 2).sum() / h[:, k].sum())
        expert = step.experts[k].unscaled(*scales)
        assert isinstance(expert, GaussianExpert)
        np.testing.assert_allclose(np.ravel(expert.beta), beta, rtol=1e-8)
        np.testing.assert_allclose(expert.sigma, sigma, rtol=1e-8)


def test_groups_share_their_expert() -> None:
    """L = sum over groups of log sum_k g_k prod_i p_k(y_i), by explicit loops; h is shared."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 5)
    second = np.repeat(rng.random(60) < 0.4, 5)
    X = rng.normal(size=(300, 1))
    y = np.where(second, 1 + X[:, 0], -X[:, 0]) + 0.8 * rng.normal(size=300)
    weight = rng.uniform(0.5, 2, 300)
    model = MixtureOfExpertsRegressor(2, gate="constant", n_init=4, random_state=0)
    model.fit(X, y, sample_weight=weight, groups=group)
    prior, mu = np.exp(model.gate_intercept_), model.predict_experts(X)
    prior /= prior.sum()
    log_p = -0.5 * ((y[:, None] - mu) / model.sigma_) ** 2 - np.log(model.sigma_) - 0.5 * np.log(2 * np.pi)
    total = 0.0
    for one in range(60):
        rows = group == one
        total += float(logsumexp(np.log(prior) + (weight[rows, None] * log_p[rows]).sum(axis=0)))
    assert model.loglik_ == pytest.approx(total, abs=1e-8)
    h = model.responsibilities(X, y, sample_weight=weight, groups=group)
    assert (h == np.repeat(h[::5], 5, axis=0)).all()
    assert np.mean((h.argmax(axis=1) == h.argmax(axis=1)[second][0]) == second) > 0.95
    # the order of the rows does not matter
    order = rng.permutation(300)
    again = MixtureOfExpertsRegressor(2, gate="constant", n_init=4, random_state=0)
    again.fit(X[order], y[order], sample_weight=weight[order], groups=group[order])
    assert again.loglik_ == pytest.approx(model.loglik_, abs=1e-4)


def test_groups_with_a_gate_on_what_groups_have_in_common() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(80), 4)
    age = np.repeat(rng.normal(size=80), 4)
    X = np.column_stack([age, rng.normal(size=320)])
    y = np.where(age > 0, X[:, 1], -X[:, 1]) + 0.5 * rng.normal(size=320)
    model = MixtureOfExpertsRegressor(2, gate_features=[0], n_init=4, random_state=0)
    model.fit(X, y, groups=group)
    assert np.mean((model.apply(X) == model.apply([[3.0, 0.0]])[0]) == (age > 0)) > 0.95


def test_hard_em_maximises_the_classification_likelihood() -> None:
    data = regimes(400, 2)
    model = MixtureOfExpertsRegressor(2, algorithm="hard", n_init=3, random_state=0).fit(data.X, data.y)
    here, rows = inside(model, data.X, data.y)
    joint = here.log_densities(rows) + here.gate.log_joint(rows.gate)
    assert model.objective_history_[-1] == pytest.approx(joint.max(axis=1).sum() - here.penalty(), rel=1e-6)
    assert model.score(data.X, data.y) > 0.95


def test_several_outputs() -> None:
    data = regimes(400, 2)
    Y = np.column_stack([data.y, -2 * data.y + 1, data.X[:, 1]])
    for family in ("gaussian", "student_t"):
        model = MixtureOfExpertsRegressor(2, expert=family, n_init=3, random_state=0).fit(data.X, Y)
        assert model.predict(data.X).shape == (400, 3)
        assert model.coef_.shape == (2, 3, 3)
        assert model.sigma_.shape == (2, 3)
        assert model.predict_interval(data.X[:5]).shape == (5, 3, 2)
        assert model.score_samples(data.X, Y).sum() == pytest.approx(model.loglik_, abs=1e-6)


@pytest.mark.parametrize("family", ["gaussian", "student_t", "poisson"])
def test_sparse_inputs_give_what_dense_ones_give(family: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)) * (rng.random((300, 4)) < 0.6)
    y = np.where(X[:, 0] > 0, X[:, 1], -X[:, 1]) + 0.2 * rng.normal(size=300)
    y = rng.poisson(np.exp(y)) if family == "poisson" else y
    model = MixtureOfExpertsRegressor(2, expert=family, starts=["random"], n_init=3, random_state=0, tol=1e-9)
    dense = model.fit(X, y).predict(X)
    loglik = model.loglik_
    rows = sparse.csr_array(X)
    np.testing.assert_allclose(model.fit(rows, y).predict(rows), dense, atol=2e-3)
    assert model.loglik_ == pytest.approx(loglik, abs=1e-3)
    assert model.gate_proba(rows).shape == (300, 2)


def test_float32_is_fitted_in_double_precision() -> None:
    data = regimes(300, 2)
    model = MixtureOfExpertsRegressor(2, n_init=2, random_state=0)
    double = model.fit(data.X, data.y).predict(data.X)
    single = model.fit(data.X.astype(np.float32), data.y.astype(np.float32)).predict(
        data.X.astype(np.float32)
    )
    np.testing.assert_allclose(single, double, atol=1e-3)


def test_offsets_are_added_to_the_predictor() -> None:
    rng = np.random.default_rng(0)
    X, hours = rng.normal(size=(400, 1)), rng.uniform(1, 10, 400)
    rate = np.exp(np.where(X[:, 0] > 0, 1.0, -0.5))
    y = rng.poisson(rate * hours)
    model = MixtureOfExpertsRegressor(2, expert="poisson", n_init=3, random_state=0)
    model.fit(X, y, offset=np.log(hours))
    np.testing.assert_allclose(
        model.predict(X, offset=np.log(3 * hours)), 3 * model.predict(X, offset=np.log(hours)), rtol=1e-10
    )
    assert np.corrcoef(model.predict(X), rate)[0, 1] > 0.95
    gaussian = MixtureOfExpertsRegressor(1).fit(X, X[:, 0] + hours, offset=hours)
    np.testing.assert_allclose(gaussian.predict(X), X[:, 0], atol=1e-8)


@pytest.mark.parametrize("kind", starts.START_KINDS)
def test_every_kind_of_start_divides_the_rows(kind: str) -> None:
    data = regimes(300, 3, 3)
    model = MixtureOfExpertsRegressor(3, starts=[kind], n_init=3, random_state=0).fit(data.X, data.y)
    kinds = {start["kind"] for start in model.starts_}
    assert kinds == {kind}
    assert len(model.starts_) == (1 if kind in starts.REPEATABLE else 3)
    assert model.score(data.X, data.y) > 0.9


def test_all_starts_are_reported_and_the_best_is_taken() -> None:
    data = regimes(200, 3, 3)
    model = MixtureOfExpertsRegressor(3, expert="student_t", n_init=12, random_state=0).fit(data.X, data.y)
    kinds = [start["kind"] for start in model.starts_]
    assert {"nested (constant gate)", "nested (gaussian)", "nested (2 experts)"} <= set(kinds)
    assert len(kinds) == 12
    best = max(start["objective"] for start in model.starts_ if not start["degenerate"])
    assert model.objective_history_[-1] == pytest.approx(best)
    assert sum(start["continued"] for start in model.starts_) == round(search.CONTINUED * 12)
    assert set(DEFAULT_STARTS) == {*starts.START_KINDS, "nested"}


def test_the_same_seed_gives_the_same_fit_and_another_seed_other_starts() -> None:
    one, same, other = fitted(), fitted(), fitted(random_state=1)
    np.testing.assert_array_equal(one.coef_, same.coef_)
    assert [s["objective"] for s in one.starts_] == [s["objective"] for s in same.starts_]
    assert [s["objective"] for s in one.starts_] != [s["objective"] for s in other.starts_]


def test_a_spike_does_not_win_by_its_likelihood() -> None:
    """Five rows exactly in line: a narrow expert there has a higher likelihood, and explains nothing."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 80)
    y = np.where(x > 0, 2 * x, -x) + 0.3 * rng.normal(size=80)
    x[:5] = np.linspace(-0.9, 0.9, 5)
    y[:5] = 0.5 + 1e-4 * rng.normal(size=5)
    for seed in range(4):
        model = MixtureOfExpertsRegressor(2, n_init=20, random_state=seed).fit(x[:, None], y)
        assert model.sigma_.min() > 0.1


def test_a_tail_that_no_expert_explains_does_not_break_the_e_step() -> None:
    model = fitted()
    h = model.responsibilities([[0.0, 0.0, 0.0]], [1e150])
    assert np.isfinite(h).all()
    assert h.sum() == pytest.approx(1)


@given(st.integers(1, 4), st.integers(0, 50), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_gram_matrices_equal_loops(columns: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, weights = rng.normal(size=(n, columns)), rng.random((n, 3))
    design = Design.of(X)
    expected = np.zeros((3, columns + 1, columns + 1))
    for i in range(n):
        row = np.append(1.0, X[i])
        for r in range(3):
            expected[r] += weights[i, r] * np.outer(row, row)
    np.testing.assert_allclose(design.gram(weights), expected, atol=1e-12)
    np.testing.assert_allclose(Design.of(sparse.csr_array(X)).gram(weights), expected, atol=1e-12)


def test_classifier_likelihood_is_that_of_its_probabilities() -> None:
    data = regimes(300, 3, 3)
    y = np.array(["low", "mid", "high"])[np.digitize(data.y, [-1, 1])]
    model = MixtureOfExpertsClassifier(2, n_init=3, random_state=0).fit(data.X, y)
    proba = model.predict_proba(data.X)
    codes = np.searchsorted(model.classes_, y)
    assert model.loglik_ == pytest.approx(np.log(proba[np.arange(300), codes]).sum(), abs=1e-8)
    assert list(model.classes_) == ["high", "low", "mid"]
