"""Checks of what is given beside X: y, offset, sample weights, groups, probabilities."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class Groups(NamedTuple):
    """Rows that share their expert.

    ``first`` (G,) is the first row of each group, ``member`` (n,) the group of each row; groups in the
    order of np.unique.
    """

    first: Rows
    member: Rows

    def sums(self, values: Floats) -> Floats:
        """Add up the rows of each group, (n, K) -> (G, K)."""
        columns = [np.bincount(self.member, column, len(self.first)) for column in values.T]
        return np.stack(columns, axis=1)


def as_floats(name: str, values: Any) -> Floats:
    """Make an array of finite floats, or say what is not one."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must hold numbers; got {values!r:.100}") from None
    if not np.isfinite(array).all():
        bad = array[~np.isfinite(array)][0]
        raise ValueError(f"{name} must be finite; got {bad}; drop or impute these rows first")
    return array


def check_length(name: str, length: int, n: int) -> None:
    """Say so when an array has another number of rows than X."""
    if length != n:
        raise ValueError(f"{name} must have one entry for each of the {n} rows of X; got {length}")


def check_column(name: str, values: Any, n: int) -> Floats:
    """Check one finite number for each row of X, (n,)."""
    array = as_floats(name, values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have the shape ({n},), one number a row; got the shape {array.shape}")
    check_length(name, len(array), n)
    return array


def check_sample_weight(sample_weight: Any, n: int) -> Floats | None:
    """Check one finite weight >= 0 for each row of X; None stays None."""
    if sample_weight is None:
        return None
    weight = check_column("sample_weight", sample_weight, n)
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative; got {weight.min()}; use 0 to leave a row out")
    return weight


def check_fit_weight(sample_weight: Any, n: int, *, some: bool = True) -> Floats:
    """Check the weights of a fit, one >= 0 for each row; None gives ones. With ``some`` not all may be 0."""
    if sample_weight is None:
        return np.ones(n)
    weight = np.asarray(sample_weight, dtype=float)
    if weight.ndim == 0:
        weight = np.full(n, float(weight))
    if weight.ndim != 1:
        raise ValueError(
            f"Sample weights must be 1D: sample_weight must have the shape ({n},); got {weight.shape}"
        )
    if len(weight) != n:
        raise ValueError(
            f"sample_weight.shape == {weight.shape}, expected ({n},): one weight for each row of X"
        )
    if not np.isfinite(weight).all():
        raise ValueError("sample_weight must be finite; got NaN or infinity; use 0 to leave a row out")
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative; got {weight.min()}; use 0 to leave a row out")
    if some and weight.sum() <= 0:
        raise ValueError(
            "sample_weight sums to zero, so there is nothing to fit; give some row a positive weight"
        )
    return weight


def check_groups(groups: Any, n: int) -> Groups | None:
    """Check one label of a group for each row of X; None stays None."""
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.ndim != 1:
        raise ValueError(f"groups must have the shape ({n},), one label a row; got the shape {labels.shape}")
    check_length("groups", len(labels), n)
    _, first, member = np.unique(labels, return_index=True, return_inverse=True)
    return Groups(first, member)


def check_probability(name: str, value: Any) -> Floats:
    """Check numbers from 0 to 1."""
    array = as_floats(name, value)
    outside = array[(array < 0) | (array > 1)]
    if outside.size:
        raise ValueError(f"{name} must be from 0 to 1; got {outside.flat[0]:g}; 10 percent is 0.1")
    return array


def check_coverage(coverage: Any) -> float:
    """Check the share of cases that an interval is to cover, over 0 and up to 1."""
    if np.ndim(coverage) != 0 or not float(as_floats("coverage", coverage)) > 0 or coverage > 1:
        raise ValueError(
            f"coverage must be one number over 0 and up to 1; got {coverage!r}; 90 percent is 0.9"
        )
    return float(coverage)


def weighted(log_density: Floats, weight: Floats | None) -> Floats:
    """Multiply each row of log densities by its weight; a row of weight 0 counts 0, even at -inf."""
    if weight is None:
        return log_density
    column = weight.reshape(-1, *[1] * (log_density.ndim - 1))
    with np.errstate(invalid="ignore"):
        return np.where(column == 0, 0.0, column * log_density)
