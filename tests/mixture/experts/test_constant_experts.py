"""Experts that ignore x: weighted means, variances and frequencies."""

from typing import Any

import numpy as np
import pytest

from expertise.mixture.experts import ConstantClassExpert, ConstantExpert, ExpertSettings
from mixture.helpers import iterated, make_rows, updated

X = np.arange(8.0).reshape(4, 2)


def test_mean_and_variance_by_hand() -> None:
    sample = make_rows(X, np.array([1.0, 2.0, 3.0, 10.0]))
    inside = updated(ConstantExpert().bound(ExpertSettings()), sample.rows, np.array([1.0, 1.0, 2.0, 0.0]))
    expert: Any = inside.unscaled(sample.x, sample.y)
    assert expert.location[0] == pytest.approx(9 / 4)
    assert expert.sigma[0] ** 2 == pytest.approx(
        ((1 - 2.25) ** 2 + (2 - 2.25) ** 2 + 2 * (3 - 2.25) ** 2) / 4
    )
    assert expert.predict(sample.design).tolist() == pytest.approx([2.25] * 4)


def test_a_variance_at_the_floor_is_said() -> None:
    sample = make_rows(X, np.array([1.0, 2.0, 3.0, 10.0]))
    expert: Any = updated(
        ConstantExpert().bound(ExpertSettings(variance_floor=1e-4)), sample.rows, np.eye(4)[2]
    )
    assert expert.sigma[0] == pytest.approx(1e-2)
    assert expert.degenerate() == "its variance is at the floor"


def test_frequencies_by_hand_and_a_class_that_is_not_there() -> None:
    sample = make_rows(X, np.array([0, 1, 1, 3]))
    blank = ConstantClassExpert().bound(ExpertSettings(n_outputs=4))
    expert: Any = iterated(blank, sample.rows, np.array([1.0, 0.5, 0.5, 2.0]), 3)
    np.testing.assert_allclose(expert.proba, [0.25, 0.25, 0.0, 0.5], atol=1e-9)
    assert expert.proba[2] > 0
    assert expert.predict(sample.design).shape == (4, 4)
    densities = ConstantClassExpert.log_densities([expert], sample.rows)[:, 0]
    np.testing.assert_allclose(densities, np.log([0.25, 0.25, 0.25, 0.5]), atol=1e-9)


def test_classes_without_rows_are_alike() -> None:
    sample = make_rows(X, np.array([0, 1, 1, 3]))
    blank = ConstantClassExpert().bound(ExpertSettings(n_outputs=4))
    born: Any = updated(blank, sample.rows, np.zeros(4))
    np.testing.assert_allclose(born.proba, 0.25)


def test_any_y_is_accepted() -> None:
    ConstantExpert.check_y(np.array([-1.5, 2.0]))
    ConstantClassExpert.check_y(np.array([0, 9]))
