"""Chunks and batches: the same solution as in memory, from sources that are read again and again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import ParquetChunks
from mixture.datasets import Array, regimes


class Counted:
    """A source of chunks that counts how often it was read."""

    def __init__(self, X: Array, y: Any, size: int, weight: Array | None = None) -> None:
        self.X, self.y, self.size, self.weight, self.passes = X, y, size, weight, 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self.passes += 1
        for start in range(0, len(self.X), self.size):
            part = slice(start, start + self.size)
            more = () if self.weight is None else (self.weight[part],)
            yield (self.X[part], self.y[part], *more)


@pytest.mark.parametrize("gate", ["softmax", "constant", "gaussian", "tree"])
def test_chunks_reach_what_memory_reaches(gate: str) -> None:
    data = regimes(4000, 2)
    whole = MixtureOfExpertsRegressor(2, gate=gate, n_init=4, random_state=0, tol=1e-9).fit(data.X, data.y)
    source = Counted(data.X, data.y, 600)
    chunked = MixtureOfExpertsRegressor(2, gate=gate, n_init=4, random_state=0, tol=1e-9).fit_chunks(source)
    assert chunked.joint_loglik_ == pytest.approx(whole.joint_loglik_, abs=1e-3)
    np.testing.assert_allclose(chunked.predict(data.X), whole.predict(data.X), atol=5e-3)
    # one pass to measure, one for the first chunk, one an iteration, and two to say how it is
    assert source.passes <= chunked.n_iter_ + 6


def test_more_rows_than_the_sample_of_the_starts() -> None:
    data = regimes(40_000, 2)
    chunked = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit_chunks(Counted(data.X, data.y, 5000))
    whole = MixtureOfExpertsRegressor(2, n_init=2, random_state=0).fit(data.X, data.y)
    assert chunked.loglik_ == pytest.approx(whole.loglik_, abs=0.5)
    assert chunked.score_samples(data.X, data.y).sum() == pytest.approx(chunked.loglik_, rel=1e-6)


def test_weights_in_chunks() -> None:
    data = regimes(1000, 2)
    weight = np.random.default_rng(0).integers(0, 3, 1000).astype(float)
    chunked = MixtureOfExpertsRegressor(2, n_init=3, random_state=0, tol=1e-9)
    chunked.fit_chunks(Counted(data.X, data.y, 300, weight))
    whole = MixtureOfExpertsRegressor(2, n_init=3, random_state=0, tol=1e-9)
    whole.fit(data.X, data.y, sample_weight=weight)
    assert chunked.loglik_ == pytest.approx(whole.loglik_, abs=1e-3)


def test_parquet_is_a_source(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    data = regimes(2000, 2)
    columns = {"a": data.X[:, 0], "b": data.X[:, 1], "c": data.X[:, 2], "w": np.ones(2000), "y": data.y}
    parquet.write_table(arrow.table(columns), tmp_path / "rows.parquet", row_group_size=500)
    source = ParquetChunks(tmp_path / "rows.parquet", "y", weight="w", chunk_rows=700)
    assert source.features == ["a", "b", "c"]
    model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit_chunks(source)
    assert model.score(data.X, data.y) > 0.98
    with pytest.raises(ValueError, match=r"has no column 'z'; it has a, b, c, w, y"):
        ParquetChunks(tmp_path / "rows.parquet", "z")


def test_classifiers_in_chunks_need_all_labels() -> None:
    data = regimes(1500, 2)
    y = np.where(data.y > 0, "up", "down")
    source = Counted(data.X, y, 400)
    with pytest.raises(ValueError, match="classes must name all labels"):
        MixtureOfExpertsClassifier(2).fit_chunks(source)
    model = MixtureOfExpertsClassifier(2, n_init=3, alpha=1e-2, random_state=0)
    model.fit_chunks(source, classes=["up", "down"])
    assert list(model.classes_) == ["down", "up"]
    assert model.score(data.X, y) > 0.9


def test_what_cannot_be_streamed_is_said() -> None:
    data = regimes(200, 2)
    source = [(data.X, data.y)]
    with pytest.raises(ValueError, match="keeps all rows, which chunks are there to avoid"):
        MixtureOfExpertsRegressor(2, expert=Ridge()).fit_chunks(source)
    with pytest.raises(ValueError, match="iterator, which ends after one pass"):
        MixtureOfExpertsRegressor(2).fit_chunks(iter(source))
    with pytest.raises(ValueError, match="gave no chunk"):
        MixtureOfExpertsRegressor(2).fit_chunks([])
    with pytest.raises(ValueError, match=r"chunks need .* a number of experts"):
        MixtureOfExpertsRegressor("auto").fit_chunks(source)
    with pytest.raises(ValueError, match="NaN"):
        MixtureOfExpertsRegressor(2).fit_chunks([(data.X * np.nan, data.y)])


@pytest.mark.parametrize("gate", ["softmax", "constant", "gaussian"])
def test_partial_fit_comes_near_the_fit(gate: str) -> None:
    data, test = regimes(6000, 2), regimes(2000, 2, seed=9)
    online = MixtureOfExpertsRegressor(2, gate=gate, n_init=3, random_state=0)
    for start in range(0, 6000, 500):
        part = slice(start, start + 500)
        online.partial_fit(data.X[part], data.y[part])
    whole = MixtureOfExpertsRegressor(2, gate=gate, n_init=3, random_state=0).fit(data.X, data.y)
    gap = whole.score_samples(test.X, test.y).mean() - online.score_samples(test.X, test.y).mean()
    assert gap < 0.05
    assert online.n_experts_ == 2


def test_partial_fit_follows_a_change() -> None:
    """The line of one regime moves; stepwise EM forgets the old one."""
    data = regimes(8000, 2)
    y = data.y + np.where(data.regime == 1, 4.0, 0.0) * (np.arange(8000) >= 2000)
    online = MixtureOfExpertsRegressor(2, n_init=3, random_state=0)
    for start in range(0, 8000, 400):
        online.partial_fit(data.X[start : start + 400], y[start : start + 400])
    late = slice(7000, 8000)
    assert online.score(data.X[late], y[late]) > 0.9


def test_partial_fit_of_counts_and_classes() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    rate = np.exp(np.where(X[:, 0] > 0, 1.5 + 0.3 * X[:, 1], 0.2 - 0.3 * X[:, 1]))
    y = rng.poisson(rate)
    counts = MixtureOfExpertsRegressor(2, expert="poisson", n_init=3, random_state=0)
    classes = MixtureOfExpertsClassifier(2, n_init=3, alpha=1.0, random_state=0)
    for start in range(0, 4000, 400):
        part = slice(start, start + 400)
        counts.partial_fit(X[part], y[part])
        classes.partial_fit(X[part], y[part] > 2, classes=[False, True])
    assert np.corrcoef(counts.predict(X), rate)[0, 1] > 0.97
    assert classes.score(X, y > 2) > 0.8
