"""Whether the parts of a record fit together: a page must not be drawn from a record that does not."""

from typing import Any

import numpy as np

from expertise.report.record import MixtureRecord


def check(record: MixtureRecord) -> None:
    """Refuse a record whose shapes or numbers contradict one another.

    Raises
    ------
    ValueError
        Says which part it is, what it is, and what it must be.
    """
    if record.gate.ndim != 2 or not record.gate.size:
        raise ValueError(f"gate must have the shape (n, K) with at least one row; got {record.gate.shape}")
    n, k = record.gate.shape
    v = len(record.classes)
    if (record.task == "classification") != (v > 0):
        raise ValueError(
            f"classes must be named for classification, and only there; got task {record.task!r} and "
            f"{v} classes"
        )
    each = (n, v) if v else (n,)
    _shape("experts", record.experts, (n, k, v) if v else (n, k))
    _shape("prediction", record.prediction, each)
    _shape("y", record.y, (n,))
    _shape("responsibilities", record.responsibilities, (n, k))
    _shape("intervals", record.intervals, (n, 2))
    _shape("cdf", record.cdf, (n,))
    for column in record.columns:
        _shape(f"values of column {column.name!r}", column.values, (n,))
    if len(record.row_names) != n:
        raise ValueError(f"row_names must name the {n} rows of gate; got {len(record.row_names)} names")
    if not np.allclose(record.gate.sum(1), 1, atol=1e-6):
        raise ValueError("gate must have weights that sum to 1 in every row")
    for name, numbers in (("uncertain", record.uncertain), ("shown", record.shown)):
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= n):
            raise ValueError(
                f"{name} must be numbers of rows from 0 to {n - 1}; got {numbers.min()} to {numbers.max()}"
            )
    _check_curves(record, k)
    _check_frames(record, k)


def _check_curves(record: MixtureRecord, k: int) -> None:
    d = len(record.columns)
    for profile in record.profiles:
        if not 0 <= profile.column < d:
            raise ValueError(f"profiles must be of columns 0 to {d - 1}; got column {profile.column}")
        _shape(f"gate of the profile of column {profile.column}", profile.gate, (len(profile.at), k))
    found = record.gate_map
    if found is not None:
        if not (0 <= found.x_column < d and 0 <= found.y_column < d):
            raise ValueError(
                f"gate_map must be of columns 0 to {d - 1}; got {found.x_column} and {found.y_column}"
            )
        _shape("gate of gate_map", found.gate, (len(found.y), len(found.x), k))
    for one in record.coefficients:
        _shape(f"errors of the coefficients of {one.what!r}", one.errors, one.values.shape)
        if len(one.names) != len(one.values):
            raise ValueError(
                f"names of the coefficients of {one.what!r} must be {len(one.values)}, one a row of values; "
                f"got {len(one.names)}"
            )


def _check_frames(record: MixtureRecord, k: int) -> None:
    for frame in record.frames:
        _shape(f"weights of the frame of iteration {frame.iteration}", frame.weights, (len(record.shown), k))
    if not record.frames:
        return
    last = record.frames[-1].weights
    ends = [one[record.shown] for one in (record.gate, record.responsibilities) if one is not None]
    apart = min(float(np.abs(last - end).max(initial=0.0)) for end in ends)
    if apart > 1e-4:
        raise ValueError(
            "the last of frames must be the fitted mixture, so that its weights are gate[shown], or "
            f"responsibilities[shown] of a gate that sees nothing; they are up to {apart:.3g} apart"
        )


def _shape(name: str, value: Any, wanted: tuple[int, ...]) -> None:
    if value is not None and np.shape(value) != wanted:
        raise ValueError(f"{name} must have the shape {wanted}; got {np.shape(value)}")
