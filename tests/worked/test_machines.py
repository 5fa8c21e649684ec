"""The worked example of the two machines: its models and measures, and what its page claims."""

import re
from math import comb
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from worked.running import ROOT, assert_page_shows, run_example, script_of

pytest.importorskip("torch")


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script_of("machines", monkeypatch)


def tables(part: str) -> dict[str, list[float]]:
    """Give the rows of the first table of a machine: RMSE, log-likelihood, coverage, width, parameters."""
    lines = part.splitlines()[2:10]
    return {
        name: [float(cell) for cell in cells.split() if cell != "-"]
        for name, cells in (re.split(r"\s{2,}", line, maxsplit=1) for line in lines)
    }


def test_the_products_begin_with_the_inputs_and_are_as_many_as_the_size_says(machines: ModuleType) -> None:
    Z = np.random.default_rng(0).normal(size=(5, 3))
    seen = machines.products(Z, 4)
    np.testing.assert_array_equal(seen[:, :3], Z)
    assert seen.shape == (5, comb(3 + 4, 3) - 1)
    np.testing.assert_allclose(seen[:, 3], Z[:, 0] ** 2)


def test_a_model_of_the_mean_gets_the_width_of_its_residuals_or_of_its_quantile_fits(
    machines: ModuleType,
) -> None:
    from sklearn.dummy import DummyRegressor

    y = np.random.default_rng(0).normal(3, 2, 4000)
    X = np.zeros((4000, 1))
    plain = machines.WithNoise(DummyRegressor())
    plain.fit(X, y)
    assert plain.predict_distribution(X[:1]).std() == pytest.approx(y.std())
    quantiles = [DummyRegressor(strategy="quantile", quantile=q) for q in (0.05, 0.95)]
    apart = machines.WithNoise(DummyRegressor(), *quantiles)
    apart.fit(X, 2 * y)
    assert apart.predict_distribution(X[:1]).std() == pytest.approx(4, rel=0.05)
    crossed = machines.WithNoise(DummyRegressor(), *quantiles[::-1])
    crossed.fit(X, y)
    assert crossed.predict_distribution(X[:1]).std() == pytest.approx(y.std())


def test_the_measures_are_those_of_a_normal_distribution(machines: ModuleType) -> None:
    from sklearn.dummy import DummyRegressor

    y = np.random.default_rng(1).normal(0, 2, 20_000)
    model, X = machines.WithNoise(DummyRegressor()), np.zeros((20_000, 1))
    model.fit(X, y)
    rmse, log_density, coverage, width = machines.measure(model, X, y)
    assert rmse == pytest.approx(2, rel=0.02)
    assert log_density == pytest.approx(-0.5 * np.log(2 * np.pi * np.e * rmse**2), abs=1e-6)
    assert coverage == pytest.approx(0.9, abs=0.01)
    assert width == pytest.approx(2 * 1.645 * rmse, rel=0.001)


def test_single_models_have_no_fewer_parameters_than_their_mixture(machines: ModuleType) -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(400, 2))
    found = machines.fit_all(Z, np.abs(Z[:, 0]) + rng.normal(0, 0.1, 400), 2, 1)
    size = {name: parameters for name, (_, _, parameters) in found.items()}
    assert size[machines.EQUAL_EM] >= size[machines.EM] > size[machines.ONE_EM] > size[machines.RIDGE]
    assert size[machines.EQUAL_NN] >= size[machines.NN] > size[machines.ONE_NN]
    for name in (machines.ONE_NN, machines.EQUAL_NN):
        network = found[name][0]
        counted = sum(one.numel() for one in network.experts_[0].parameters()) + network.sigma_.size
        assert size[name] == counted
    ridge = found[machines.EQUAL_EM][0].mean[-1]
    assert size[machines.EQUAL_EM] == ridge.coef_.size + 2  # and the constant and the width
    seen = machines.products(Z, 2)
    gate = found[machines.EM][0].gate_proba(seen)
    seen[:, 2:] = 0  # the gate sees the inputs alone
    np.testing.assert_array_equal(found[machines.EM][0].gate_proba(seen), gate)


def test_the_quick_run_prints_all_tables(data_dir: Path) -> None:
    parts = run_example("machines", data_dir, "--quick").strip().split("\n\n")
    assert [part.split(":")[0] for part in parts] == ["kin8nm", "power_plant"]
    for part in parts:
        assert len(tables(part)) == 8
        assert part.count(" minus ") == 12
        assert "decided by expert 1" in part
        assert re.search(r"wins by RMSE, .* by log-likelihood$", part)


def test_the_script_is_short() -> None:
    assert len((ROOT / "examples" / "worked" / "machines.py").read_text().splitlines()) < 150


@pytest.mark.slow
def test_the_claims_of_the_page(data_dir: Path) -> None:
    printed = run_example("machines", data_dir)
    arm, plant = printed.strip().split("\n\n")
    assert_page_shows("machines.md", arm, 0.05)
    assert_page_shows("machines.md", plant, 0.5)

    em, one_em, equal_em, networks, one_network, equal_network, _, trees = tables(arm).values()
    # RMSE: on the smooth law EM beats the polynomials and the trees, and loses to networks
    assert em[0] < min(one_em[0] - 0.07, equal_em[0] - 0.01, trees[0] - 0.03)
    assert em[0] < 0.09
    assert networks[0] < em[0] - 0.004
    assert "networks by gradient minus one expert: network: -" in arm
    assert networks[0] > equal_network[0] + 0.001, "the page says that one wide network wins"
    assert em[1] > max(one_em[1] + 0.6, equal_em[1] + 0.15, trees[1] + 0.3)
    assert one_network[1] + 0.02 < networks[1] < equal_network[1] - 0.02
    assert all(0.86 < model[2] < 0.93 for model in (em, networks))
    assert em[3] < 0.9 * equal_em[3], "narrower intervals of the same coverage"
    rows = re.findall(r"^decided by expert (\d).*?\d  +(\d\.\d\d .*)$", arm, re.MULTILINE)
    assert len(rows) == 12
    for k, cells in rows[:8]:  # who decides is the best of all experts there
        errors = [float(cell) for cell in cells.split()]
        assert min(errors) == errors[int(k)]
        assert sorted(errors)[1] > 1.2 * errors[int(k)]

    em, one_em, equal_em, networks, one_network, equal_network, _, trees = tables(plant).values()
    assert trees[0] < min(em[0], networks[0], equal_em[0]) - 0.5, "trees win on the rough law"
    assert trees[1] > max(em[1], networks[1])
    assert equal_em[0] < em[0] - 0.1, "the page says that the polynomial of degree 6 is nearer than EM"
    assert em[1] > equal_em[1] + 0.03
    assert networks[1] > max(one_network[1], equal_network[1]) + 0.03
