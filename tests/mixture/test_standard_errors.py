"""Standard errors from the observed information, against least squares and a bootstrap."""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import Ridge

from expertise import MixtureOfExpertsRegressor
from mixture.datasets import regimes


def test_one_expert_has_the_errors_of_least_squares() -> None:
    data = regimes(200, 2, noise=0.7)
    model = MixtureOfExpertsRegressor(1).fit(data.X, data.y)
    errors = model.standard_errors(data.X, data.y)
    ols = sm.OLS(data.y, sm.add_constant(data.X)).fit()
    ml = ols.bse * np.sqrt(ols.df_resid / 200)  # maximum likelihood divides by n
    np.testing.assert_allclose(errors.intercept, [ml[0]], rtol=1e-4)
    np.testing.assert_allclose(errors.coef, [ml[1:]], rtol=1e-4)


def test_one_poisson_expert_has_the_errors_of_a_glm() -> None:
    rng = np.random.default_rng(0)
    X, hours = rng.normal(size=(300, 2)) * [1, 10], rng.uniform(1, 5, 300)
    y = rng.poisson(hours * np.exp(0.5 + 0.3 * X[:, 0] - 0.02 * X[:, 1]))
    model = MixtureOfExpertsRegressor(1, expert="poisson").fit(X, y, offset=np.log(hours))
    errors = model.standard_errors(X, y, offset=np.log(hours))
    glm = sm.GLM(y, sm.add_constant(X), family=sm.families.Poisson(), offset=np.log(hours)).fit()
    np.testing.assert_allclose(errors.intercept, [glm.bse[0]], rtol=1e-3)
    np.testing.assert_allclose(errors.coef, [glm.bse[1:]], rtol=1e-3)


@pytest.mark.slow
def test_a_mixture_has_the_errors_of_its_bootstrap() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, 600)
    second = rng.random(600) < 1 / (1 + np.exp(-3 * x))
    y = np.where(second, 3 + x, -2 * x) + 0.5 * rng.normal(size=600)
    X = x[:, None]
    model = MixtureOfExpertsRegressor(2, n_init=4, random_state=0).fit(X, y)
    errors = model.standard_errors(X, y)
    order = np.argsort(model.intercept_)
    draws = []
    for seed in range(150):
        rows = np.random.default_rng(seed).integers(0, 600, 600)
        again = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(X[rows], y[rows])
        k = np.argsort(again.intercept_)
        gate = again.gate_coef_[k[0], 0] - again.gate_coef_[k[1], 0]
        draws.append([*again.intercept_[k], *again.coef_[k, 0], gate])
    spread = np.std(draws, axis=0)
    assert errors.coef is not None
    assert errors.intercept is not None
    assert errors.gate_coef is not None
    ours = [*errors.intercept[order], *errors.coef[order, 0], errors.gate_coef[0, 0]]
    np.testing.assert_allclose(ours, spread, rtol=0.25)


def test_gates_and_experts_without_parameters_say_so() -> None:
    data = regimes(200, 2)
    model = MixtureOfExpertsRegressor(2, expert=Ridge(), n_init=1, max_iter=5, random_state=0)
    with pytest.warns(UserWarning, match=r"objective fell|did not converge"):
        model.fit(data.X, data.y)
    with pytest.raises(ValueError, match="'estimator' has none"):
        model.standard_errors(data.X, data.y)
