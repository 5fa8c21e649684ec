"""The runs against the papers: every script prints the relations that it is about, losses too."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from papers import PAPERS, load, said, table

SCRIPTS = sorted(file.stem for file in PAPERS.glob("*.py"))


# -- the localised gate


@pytest.mark.slow
def test_the_gaussian_gate_is_better_where_its_assumption_holds() -> None:
    rows = table(said("localised_gate"))
    conditional = {name: numbers[0] for name, numbers in rows.items()}
    assert conditional["clusters: gaussian"] > conditional["clusters: softmax"]
    assert conditional["clusters: gaussian"] > conditional["clusters: gaussian, tied"]
    assert conditional["planes: gaussian"] < conditional["planes: softmax"], "the loss is printed too"
    for data in ("clusters", "planes"):
        assert min(conditional[f"{data}: gaussian"], conditional[f"{data}: softmax"]) > (
            conditional[f"{data}: one linear"] + 0.5
        )
    assert rows["clusters: gaussian"][1] > rows["clusters: gaussian, tied"][1] + 1, "joint likelihood"
    assert np.isnan(rows["clusters: softmax"][1]), "a softmax gate has no joint likelihood"
    assert all(numbers[3] > 0 for numbers in rows.values()), "the time of a fit is printed"


@pytest.mark.slow
def test_missing_inputs_are_better_integrated_out_than_filled_in() -> None:
    rows = table(said("localised_gate"))
    integrated = rows["holes: gaussian, integrated"]
    for filled in ("gaussian", "softmax"):
        other = rows[f"holes: {filled}, means filled in"]
        assert integrated[0] > other[0]
        assert integrated[2] > other[2]
    assert integrated[0] < rows["clusters: gaussian"][0], "what is missing is lost"


def test_holes_are_in_the_columns_of_the_gate_alone() -> None:
    script = load("localised_gate")
    (X, y), (whole, same) = script.holes(2000, 1, 0), script.clusters(2000, 1, 0)
    lost = np.isnan(X)
    assert not lost[:, : script.READ].any()
    np.testing.assert_allclose(lost[:, script.READ :].mean(axis=0), script.MISSING, atol=0.05)
    np.testing.assert_array_equal(X[~lost], whole[~lost])
    np.testing.assert_array_equal(y, same)


# -- the hierarchical mixture


@pytest.mark.slow
def test_the_hierarchical_mixture_on_the_simulated_arm() -> None:
    text = said("hierarchical")
    linear, cart, hme, mlp = table(text)["own arm"][2:]
    assert hme < 0.7 * linear
    assert hme < 0.7 * cart
    assert mlp < hme, "the net wins here, and this is said"
    assert "own arm: MLP < HME" in text
    for name in ("kin8nm", "puma8NH"):
        assert f"{name}: SKIPPED, no /there is no such folder/uci/{name}.csv; set EXPERTISE_DATA" in text
    assert table(text)["paper, its arm"] == [15000, 5000, 0.31, 0.17, 0.10, 0.09]
    assert "no target" in text


@pytest.mark.slow
def test_the_hierarchical_mixture_on_public_arms(data_dir: Path) -> None:
    text = said("hierarchical", str(data_dir))
    rows = table(text)
    for name in ("kin8nm", "puma8NH"):
        linear, cart, hme, _ = rows[name][2:]
        assert hme < 0.9 * min(linear, cart)
    assert rows["kin8nm"][2:][3] < rows["kin8nm"][2:][2], "the net wins on kin8nm"
    assert "SKIPPED" not in text


def energy(script: ModuleType, q: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Kinetic energy of the arm from the velocities of its point masses, one after the other."""
    total = 0.5 * script.ROTOR * (velocity**2).sum(axis=1)
    where = np.zeros((len(q), 2))
    for i in range(4):
        angle, turning = q[:, : i + 1].sum(axis=1), velocity[:, : i + 1].sum(axis=1)
        where = where + script.LENGTHS[i] * turning[:, None] * np.stack(
            [-np.sin(angle), np.cos(angle)], axis=1
        )
        total += 0.5 * script.MASSES[i] * (where**2).sum(axis=1)
    return total


def test_the_arm_gains_the_energy_that_its_torques_put_in() -> None:
    """The equations of motion against the conservation of energy, by a central difference in time."""
    script = load("hierarchical")
    rng = np.random.default_rng(0)
    q, velocity, torque = (rng.uniform(-2, 2, (50, 4)) for _ in range(3))
    step = 1e-5
    bent = step * script.accelerations(q, velocity, torque)
    gained = energy(script, q + step * velocity, velocity + bent)
    gained -= energy(script, q - step * velocity, velocity - bent)
    power = (torque * velocity).sum(axis=1) - script.DAMPING * (velocity**2).sum(axis=1)
    np.testing.assert_allclose(gained / (2 * step), power, rtol=1e-6, atol=1e-6)


def test_a_resting_arm_without_torque_stays_at_rest() -> None:
    zero = np.zeros((3, 4))
    q = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_array_equal(load("hierarchical").accelerations(q, zero, zero), zero)


# -- oblique splits


@pytest.mark.slow
def test_cart_wins_along_the_axes_and_falls_behind_across_them() -> None:
    rows = table(said("oblique_splits"))
    mixture, cart, boosted, linear = range(4)
    assert rows["flat, 0"][cart] > rows["flat, 0"][mixture], "CART wins at 0 degrees"
    assert rows["flat, 45"][mixture] > rows["flat, 45"][cart] + 0.1
    assert rows["flat, 45"][mixture] > rows["flat, 45"][boosted] + 0.05
    assert "flat regimes: the mixture loses at 0;" in said("oblique_splits")
    for kind in ("flat", "steep"):
        turned = np.subtract(rows[f"{kind}, 0"], rows[f"{kind}, 45"])
        assert abs(turned[mixture]) < 0.05 < 0.1 < turned[cart]
        assert rows[f"{kind}, 0"][mixture] > rows[f"{kind}, 0"][linear]


def test_the_border_turns_by_its_angle() -> None:
    """Without slopes the two levels stand on the two sides of a plane whose normal has the angle."""
    script = load("oblique_splits")
    for angle in script.ANGLES:
        X, y = script.draw(4000, angle, 0.0, 0, 0)
        normal = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        np.testing.assert_array_equal(y > 0, X[:, :2] @ normal > 0)


# -- data hunger


@pytest.mark.slow
def test_few_data_are_for_one_model() -> None:
    text = said("data_hunger")
    rows = table(text)
    mixture, by_bic, by_cv, linear = range(4)
    assert rows["N=50"][mixture] > rows["N=50"][linear]
    assert rows["N=50"][by_bic] <= 1.05 * rows["N=50"][linear]
    assert rows["N=50"][by_cv] <= 1.05 * rows["N=50"][linear]
    assert rows["N=400"][mixture] < 0.5 * rows["N=400"][linear]
    assert "mixture: loses to one linear model at N=50\n" in text
    (few,) = (line for line in text.splitlines() if line.startswith("N=50 "))
    assert few.endswith("1 of 1"), "the fit to few data warned"


# -- from one nearest neighbour to the mean


@pytest.mark.slow
def test_the_ends_are_the_neighbour_the_mean_and_least_squares() -> None:
    rows = table(said("one_nn_to_mean"))
    for name in (
        "least width and 1-NN",
        "largest width and the mean of y",
        "one linear expert and least squares",
    ):
        assert rows[name][0] < 1e-12, name
    widths = {float(name[2:]): numbers for name, numbers in rows.items() if name.startswith("w=")}
    errors = np.array([widths[width] for width in sorted(widths)])
    np.testing.assert_allclose(errors[-1], errors[-1, 0], atol=1e-3, err_msg="a width without end: the mean")
    np.testing.assert_allclose(errors[:, 0], errors[-1, 0], atol=1e-3, err_msg="one constant: the mean")
    full = errors[:, -1]
    assert full.min() < 0.7 * min(full[0], full[-1]), "between the ends is better than both"


# -- all of them


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_short_and_stands_in_the_readme(name: str) -> None:
    text = (PAPERS / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert "--quick" in text
    assert f"## {name}.py" in (PAPERS / "README.md").read_text(encoding="utf-8")
