"""Multinomial experts against statsmodels and scikit-learn, and with classes missing or separable."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression

from expertise.mixture import _logit
from expertise.mixture.experts import ExpertSettings, LogisticExpert, MultinomialExpert
from expertise.mixture.rows import Array
from mixture.helpers import improved, iterated, loglik, make_rows, objective, updated

N = 300
RNG = np.random.default_rng(21)
X = np.column_stack([RNG.normal(1990, 10, N), RNG.normal(size=N)])
LOGITS = np.column_stack([0.08 * (X[:, 0] - 1990), X[:, 1], np.zeros(N)])
Y = (LOGITS + RNG.gumbel(size=(N, 3))).argmax(axis=1)
SAMPLE = make_rows(X, Y)


def blank(n_classes: int = 3, alpha: float = 0.0) -> MultinomialExpert:
    return MultinomialExpert().bound(ExpertSettings(alpha=alpha, n_outputs=n_classes))


def fit(expert: Any, rows: Any, weight: Array | None = None) -> Any:
    return iterated(expert, rows, np.ones(len(rows)) if weight is None else weight)


def test_it_is_statsmodels_mnlogit() -> None:
    expert = fit(blank(), SAMPLE.rows)
    peer = sm.MNLogit(Y, sm.add_constant(X)).fit(disp=0, tol=1e-10, maxiter=200)
    beta = expert.unscaled(SAMPLE.x, SAMPLE.y).beta
    np.testing.assert_allclose(beta[:, 1:] - beta[:, [0]], peer.params, rtol=1e-6, atol=1e-7)
    assert (beta[:, -1] == 0).all()
    assert loglik(expert, SAMPLE.rows) == pytest.approx(peer.llf, abs=1e-6)


def test_its_ridge_is_that_of_scikit_learn() -> None:
    expert = fit(blank(alpha=5.0), SAMPLE.rows)
    peer = LogisticRegression(C=1 / 5, tol=1e-12, max_iter=2000).fit(SAMPLE.rows.expert.x[:, 1:], Y)
    np.testing.assert_allclose(
        expert.predict(SAMPLE.rows.expert), peer.predict_proba(SAMPLE.rows.expert.x[:, 1:]), atol=1e-5
    )


def test_with_two_classes_it_is_the_logistic_expert() -> None:
    y = (Y > 0).astype(int)
    sample = make_rows(X, y)
    weight = RNG.uniform(0.1, 2, N)
    many, two = (fit(e, sample.rows, weight) for e in (blank(2), LogisticExpert().bound(ExpertSettings())))
    np.testing.assert_allclose(
        many.predict(sample.rows.expert), two.predict(sample.rows.expert), rtol=1e-5, atol=1e-8
    )


def test_the_order_of_the_classes_does_not_matter() -> None:
    order = np.array([2, 0, 1])
    one, other = fit(blank(alpha=2.0), SAMPLE.rows), fit(blank(alpha=2.0), make_rows(X, order[Y]).rows)
    proba = other.predict(SAMPLE.rows.expert)
    np.testing.assert_allclose(proba[:, order], one.predict(SAMPLE.rows.expert), atol=1e-8)


@pytest.mark.parametrize("only", [0, 1, 2])
def test_one_class_only_gives_constant_probabilities(only: int) -> None:
    sample = make_rows(X, np.full(N, only))
    expert = fit(blank(), sample.rows)
    assert np.isfinite(expert.beta).all()
    proba = expert.predict(sample.rows.expert)
    assert (proba[:, only] > 1 - 1e-4).all()
    np.testing.assert_allclose(proba, np.tile(proba[0], (N, 1)), atol=1e-8)


def test_separable_classes_have_a_maximum() -> None:
    y = np.digitize(X[:, 1], [-0.5, 0.5])
    sample = make_rows(X, y)
    expert: Any = updated(blank(), sample.rows, np.ones(N))
    values = []
    for _ in range(300):
        expert = improved(expert, sample.rows, np.ones(N))
        values.append(objective(expert, sample.rows, np.ones(N)))
    assert values[-1] == pytest.approx(values[-2], abs=1e-8)
    assert -0.05 < loglik(expert, sample.rows) < 0


def test_the_bound_for_many_coefficients_reaches_the_same_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit(blank(alpha=1.0), SAMPLE.rows)
    monkeypatch.setattr(_logit, "LARGE", 0)
    slow: Any = blank(alpha=1.0)
    before = -np.inf
    for _ in range(400):
        slow = updated(slow, SAMPLE.rows, np.ones(N))
        after = objective(slow, SAMPLE.rows, np.ones(N))
        assert after >= before - 1e-9 * abs(after)  # a bound needs no halving
        before = after
    np.testing.assert_allclose(slow.beta, expected.beta, atol=1e-5)


def test_any_codes_are_accepted() -> None:
    MultinomialExpert.check_y(np.array([0, 4, 2]))
