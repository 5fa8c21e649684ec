"""Any scikit-learn classifier on soft targets: every row once for each expert, weighted by responsibility."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from expertise.mixture.rows import Array, IntArray

NEGLIGIBLE = 1e-8  # share of the largest weight below which a row is dropped
COPYING = ("sklearn.tree", "sklearn.ensemble", "sklearn.neighbors", "sklearn.gaussian_process")

Codes = npt.NDArray[np.uint64]


def copies_targets(estimator: Any) -> bool:
    """Say whether a classifier can repeat the targets it was fitted on: trees, forests, neighbours.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> copies_targets(LogisticRegression()), copies_targets(DecisionTreeClassifier())
    (False, True)
    """
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    return type(last).__module__.startswith(COPYING)


def fit_soft(estimator: Any, x: Any, resp: Array, seed: int) -> Any:
    """Fit a clone on rows (n, d) with responsibilities (n, K); labels are the numbers of the experts.

    A classifier without ``sample_weight`` gets n rows drawn by weight instead. Where one expert has all the
    weight, the answer is constant.
    """
    row, label = np.nonzero(resp > NEGLIGIBLE * resp.max(initial=0.0))
    weight = resp[row, label]
    if len(np.unique(label)) < 2:
        return DummyClassifier().fit(np.zeros((max(len(label), 1), 1)), label if len(label) else [0])
    model = clone(estimator)
    name = _weight_name(model)
    if name is not None:
        return model.fit(x[row], label, **{name: weight})
    drawn = _drawn(weight, len(resp), np.random.default_rng(seed))
    if len(np.unique(label[drawn])) < 2:  # a rare expert may miss all draws
        drawn = np.append(drawn, [np.flatnonzero(label == k)[0] for k in np.unique(label)])
    return model.fit(x[row[drawn]], label[drawn])


def _weight_name(model: Any) -> str | None:
    """Give the name under which fit takes sample weights, or None."""
    if isinstance(model, Pipeline):
        step, last = model.steps[-1]
        return f"{step}__sample_weight" if has_fit_parameter(last, "sample_weight") else None
    return "sample_weight" if has_fit_parameter(model, "sample_weight") else None


def _drawn(weight: Array, size: int, rng: np.random.Generator) -> IntArray:
    """Draw so many by weight, one in each equal part of the total: with equal weights, one of each row."""
    ends = weight.cumsum()
    # a draw of its own in each part: with one for all, the period of the labels within rows would show
    points = (rng.random(size) + np.arange(size)) / size * ends[-1]
    return np.asarray(np.minimum(np.searchsorted(ends, points, side="right"), len(weight) - 1))


def probabilities(model: Any, x: Any, n_labels: int) -> Array:
    """Give the probabilities of labels 0 .. n_labels - 1: (n, n_labels); 0 for labels it never saw."""
    found = np.zeros((x.shape[0], n_labels))
    if x.shape[0]:
        constant = isinstance(model, DummyClassifier)  # made on no columns
        found[:, model.classes_] = model.predict_proba(np.zeros((x.shape[0], 1)) if constant else x)
    return found


def row_codes(x: Any) -> Codes:
    """Give every row (n, d) a number made of its values, the same for equal rows, dense or sparse: (n,).

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> codes = row_codes(x)
    >>> bool(codes[0] == codes[2]), bool(codes[0] == codes[1])
    (True, False)
    >>> bool((codes == row_codes(sparse.csr_array(x))).all())
    True
    """
    total = np.zeros(x.shape[0], np.uint64)
    if sparse.issparse(x):
        entries = sparse.coo_array(x)
        np.add.at(total, entries.coords[0], _mixed(entries.data, entries.coords[1]))
    else:
        values = np.asarray(x, float)
        for j in range(values.shape[1]):
            total += _mixed(values[:, j], np.array([j]))
    return _spread(total)


def _mixed(values: Any, column: npt.NDArray[Any]) -> Codes:
    """Mix values with their column; 0 counts nothing, so that sparse rows agree with dense ones."""
    numbers = np.ascontiguousarray(values, float)
    place = _spread((np.asarray(column, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return np.where(numbers == 0, np.uint64(0), _spread(numbers.view(np.uint64) ^ place))


def _spread(codes: Codes) -> Codes:
    """Spread the bits (the finaliser of splitmix64)."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))
