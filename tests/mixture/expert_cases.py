"""A target, rows and options that suit each family of experts, for the contract that all of them keep."""

from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from expertise.mixture.experts import AbstractExpert, ClassifierExpert, ExpertSettings, RegressorExpert
from expertise.mixture.rows import Array
from mixture.helpers import Sample, improved, make_rows, updated

Family = type[AbstractExpert]
N = 120


def target(family: Family, rng: np.random.Generator, X: Array, offset: Array | None = None) -> Any:
    """Draw y as the family likes it, with an effect of the first column."""
    eta = 0.4 + 0.7 * (X[:, 0] - 3) / 2 + (0 if offset is None else offset)
    n = len(X)
    if family.task == "classification":
        codes = (eta + rng.logistic(size=n) > 0.4).astype(int)
        return codes if family.name == "logistic" else codes + (rng.random(n) < 0.3)
    drawn: dict[str, Any] = {
        "poisson": lambda: rng.poisson(np.exp(eta)),
        "gamma": lambda: rng.gamma(2.5, np.exp(eta) / 2.5),
        "binomial": lambda: successes_and_failures(rng, eta),
    }
    return drawn.get(family.name, lambda: 5 + 3 * (eta + rng.standard_t(4, n)))()


def successes_and_failures(rng: np.random.Generator, eta: Array) -> Any:
    trials = rng.integers(1, 9, len(eta))
    successes = rng.binomial(trials, 1 / (1 + np.exp(-eta)))
    return np.column_stack([successes, trials - successes])


def inputs(rng: np.random.Generator, n: int = N) -> Array:
    return np.column_stack([rng.normal(3, 2, n), 100 * rng.normal(size=n), rng.random(n) < 0.4])


def sample_of(family: Family, seed: int = 0, n: int = N, *, with_offset: bool = False) -> Sample:
    rng = np.random.default_rng(seed)
    X = inputs(rng, n)
    offset = 0.3 * rng.normal(size=n) if family.takes_offset and with_offset else None
    return make_rows(X, target(family, rng, X, offset), offset=offset)


def blank(family: Family, **settings: Any) -> AbstractExpert:
    """Give the expert before its fit, with the mixture's settings."""
    estimators: dict[Family, Any] = {
        RegressorExpert: LinearRegression(),
        ClassifierExpert: make_pipeline(StandardScaler(), LogisticRegression()),
    }
    make: Any = family
    expert: AbstractExpert = make(estimators[family]) if family in estimators else make()
    outputs = 3 if family.task == "classification" and family.name != "logistic" else 1
    return expert.bound(ExpertSettings(**{"n_outputs": outputs, "random_state": 3} | settings))


def some_resp(n: int, k: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).dirichlet(np.ones(k), n)


def fitted(family: Family, sample: Sample, times: int = 3, **settings: Any) -> AbstractExpert:
    resp = some_resp(len(sample.rows), 2)[:, 0]
    expert = updated(blank(family, **settings), sample.rows, resp)
    for _ in range(times):
        expert = improved(expert, sample.rows, resp) if family.additive else expert
    return expert
