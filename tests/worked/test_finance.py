"""The worked example of bull and bear markets: no leak, its models are densities, what its page claims."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import integrate

from worked.running import assert_page_shows, run_example, script_of

pytest.importorskip("statsmodels")


@pytest.fixture
def finance(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script_of("finance", monkeypatch)


def made(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and returns whose noise follows the second input."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5))
    return X, 0.3 * X[:, 0] + rng.normal(0, np.where(X[:, 1] > 0.5, 4.0, 1.0))


def figures(printed: str) -> dict[str, float]:
    """Give the log density of each model in the first table."""
    rows = (re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()[1:8])
    return {name: float(cells[1]) for name, *cells in rows}


def test_inputs_know_nothing_of_their_month_or_later(finance: ModuleType) -> None:
    prices = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.04, 60)))
    X, y = finance.known_before(prices)
    assert X.shape == (len(prices) - 13, 4)
    returns = 100 * np.diff(np.log(prices))
    np.testing.assert_allclose(y, returns[12:])
    np.testing.assert_allclose(X[:, 0], returns[11:-1])
    np.testing.assert_allclose(X[5, 1], returns[5:17].mean())
    later = prices.copy()
    later[40:] *= 3  # the first return that this changes is that into price 40, row 40 - 13
    moved, changed = finance.known_before(later)
    np.testing.assert_array_equal(moved[: 40 - 12], X[: 40 - 12])
    assert changed[40 - 13] != y[40 - 13]


def test_repeated_prices_keep_inputs_finite(finance: ModuleType) -> None:
    assert np.isfinite(finance.known_before(np.ones(30))[0]).all()


@pytest.mark.parametrize(
    "name", ["mixture", "equal parameters: one, noise follows", "mixture, constant gate"]
)
def test_predictions_are_densities(finance: ModuleType, name: str) -> None:
    model, ridges = finance.MODELS[name]
    X, y = made()
    values = np.linspace(-80, 80, 4001)
    density, _, n = model(X, y, np.repeat(X[:1], len(values), axis=0), values, ridges[0])
    assert n > 3
    assert integrate.simpson(np.exp(density), x=values) == pytest.approx(1, abs=2e-3)


def test_the_bear_is_the_expert_with_the_wider_noise(finance: ModuleType) -> None:
    X, y = made()
    _, bear, n = finance.mixture(X, y, X, y, 0.01)
    assert n == 2 * 3 + 6
    assert bear[X[:, 1] > 1].mean() > 0.8 > 0.3 > bear[X[:, 1] < 0].mean()
    _, width, same = finance.following_noise(X, y, X, y, 1.0)
    assert same == n
    assert np.corrcoef(width, X[:, 1])[0, 1] > 0.9


def test_the_markov_chain_predicts_a_month_from_those_before(finance: ModuleType) -> None:
    rng = np.random.default_rng(0)
    noisy = (np.arange(300) // 50) % 2 == 1
    X, y = rng.normal(size=(300, 1)), rng.normal(0, np.where(noisy, 4.0, 1.0))
    density, bear, n = finance.markov(X[:200], y[:200], X[200:], y[200:], 0.0)
    assert n == 8
    assert bear[60:].mean() > 0.8 > 0.3 > bear[10:50].mean()
    last = y[200:].copy()
    last[-1] += 30
    again = finance.markov(X[:200], y[:200], X[200:], last, 0.0)
    np.testing.assert_allclose(again[1], bear)  # what is said of the last month does not use it
    np.testing.assert_allclose(again[0][:-1], density[:-1])
    assert again[0][-1] < density[-1] - 5


def test_a_walk_trains_on_the_years_before_each_block_alone(
    finance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []

    def model(X: np.ndarray, y: np.ndarray, Z: np.ndarray, z: np.ndarray, ridge: float) -> Any:
        seen.append((int(X.max()), ridge))
        return np.full(len(z), -ridge), Z[:, 0], 1

    monkeypatch.setitem(finance.MODELS, "made", (model, (2.0, 1.0)))
    year = np.repeat(np.arange(1990, 2000), 12)
    density, bear, _ = finance.walk(
        "made", year[:, None].astype(float), np.zeros(120), year, (1993, 1995, 1998)
    )
    assert seen == [(1992, 2.0), (1992, 1.0), (1994, 2.0), (1994, 1.0), (1997, 2.0), (1997, 1.0)]
    np.testing.assert_array_equal(bear, year[year >= 1995])
    np.testing.assert_array_equal(density, -1.0)  # the ridge that did best before


def test_the_quick_run_prints_all(data_dir: Path) -> None:
    printed = run_example("finance", data_dir, "--quick")
    assert len(figures(printed)) == 7
    assert printed.count(" minus ") == 10
    for part in ("highest log density:", "Markov switching", "row 0: predicted", "mixture + VIX"):
        assert part in printed


@pytest.mark.slow
def test_the_whole_run_is_that_of_the_page(data_dir: Path) -> None:
    printed = run_example("finance", data_dir)
    assert_page_shows("finance.md", printed, 0.006)
    density = figures(printed)
    for other in ("same size: one regression", "mixture, constant gate"):
        assert density["mixture"] > density[other] + 0.02
        assert re.search(rf"^mixture minus {re.escape(other)}: .* mixture wins$", printed, re.M)
    # no better than the single model of equal parameters, and the page says so
    equal = "equal parameters: one, noise follows"
    assert max(density, key=lambda name: density[name]) == equal
    for other in (equal, "Markov switching", "one Student-t regression", "mixture, Student-t experts"):
        assert re.search(rf"^mixture minus {re.escape(other)}: .* no difference that", printed, re.M)
    assert "mixture + VIX wins" in printed
    auc = {m[1].strip(): float(m[2]) for m in re.finditer(r"^(\S.*?)\s{2,}(0\.\d{3})$", printed, re.M)}
    assert auc["Markov switching"] > auc["mixture"] > 0.7
