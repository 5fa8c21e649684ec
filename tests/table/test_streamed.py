"""Streams: every row once, the same split in every pass, and what a fit in memory gives."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from expertise.mixture import MixtureOfExpertsRegressor
from expertise.table import Request, TableModel, Wishes, load_model, reading, request, streamed
from expertise.table.streamed import Chunks, Reservoir, Survey, fit_streamed, must_stream
from table.making import bent, quiet, same_answers, write


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 70 rows, so that a small file is a stream."""
    monkeypatch.setattr(reading, "BATCH", 70)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(bent(400), tmp_path / "t.parquet")


def asked(**options: Any) -> Request:
    return Request("y", **{"experts": 2, **options})


def stream(path: Path, **options: Any) -> TableModel:
    return fit_streamed(path, asked(**options), say=quiet)


def chunks_of(path: Path, model: TableModel, wanted: Request) -> Chunks:
    names = reading.parquet_size(path)[1]
    return Chunks(path, names, model.encoder, wanted, model.task, path.name)


# -- which rows


def test_chunks_are_the_rows_that_are_not_held_out(path: Path) -> None:
    frame = pd.read_parquet(path)
    model = stream(path)
    chunks = chunks_of(path, model, asked())
    first, second = ([np.column_stack([X, y]) for X, y, _ in chunks] for _ in range(2))
    assert len(first) == 6
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.kept is not None
    assert model.kept.of == len(model.kept.row)
    fitted = np.delete(np.arange(400), model.kept.row)
    np.testing.assert_array_equal(np.vstack(first)[:, -1], frame["y"].iloc[fitted])
    np.testing.assert_array_equal(model.kept.y, frame["y"].iloc[model.kept.row])
    assert 50 < len(model.kept.row) < 110  # a fifth of 400, more or less
    other_seed = stream(path, seed=1).kept
    assert other_seed is not None
    assert other_seed.row.tolist() != model.kept.row.tolist()


def test_a_reservoir_is_uniform() -> None:
    rng = np.random.default_rng(0)
    count = np.zeros(50)
    for _ in range(800):
        reservoir = Reservoir(10)
        for start in range(0, 50, 8):
            rows = np.arange(start, min(start + 8, 50))
            batch = pa.table({"row": rows})
            reservoir.offer(batch, rng.random(len(rows)), rows, rows % 5 != 0)
        table, rows = reservoir.taken()
        assert table["row"].to_pylist() == rows.tolist()
        assert len(set(rows)) == 10
        count[rows] += 1
    meant = np.arange(50) % 5 != 0
    assert count[~meant].sum() == 0
    expected = 800 * 10 / 40
    spread = ((count[meant] - expected) ** 2 / expected).sum() * 39 / 30  # draws without replacement
    assert 0.001 < stats.chi2.sf(spread, 39) < 0.999


def test_a_reservoir_larger_than_what_is_offered_holds_it_all() -> None:
    reservoir = Reservoir(100)
    reservoir.offer(
        pa.table({"a": [1, 2, 3]}), np.array([0.3, 0.1, 0.2]), np.arange(3), np.array([1, 0, 1], bool)
    )
    table, rows = reservoir.taken()
    assert (table["a"].to_pylist(), rows.tolist()) == ([1, 3], [0, 2])


def test_the_survey_counts_every_row(path: Path) -> None:
    frame = pd.read_parquet(path)
    gone = np.arange(0, 400, 7)
    frame.loc[gone, "y"] = np.nan
    write(frame, path)
    found = Survey.of(path, list(frame.columns), 400, asked(), "t")
    assert found.without_target == len(gone)
    assert found.n_fitted + found.n_held + found.without_target == 400
    assert (found.fitted.num_rows, found.held.num_rows) == (found.n_fitted, found.n_held)
    assert not set(found.held_rows) & set(gone)


# -- what is fitted


def test_one_expert_is_least_squares(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "ALPHA", 0.0)
    model = stream(path, experts=1, test=0.0)
    frame = pd.read_parquet(path)
    X = np.column_stack([np.ones(400), model.encode(frame)])
    expected = X @ np.linalg.lstsq(X, frame["y"].to_numpy(), rcond=None)[0]
    np.testing.assert_allclose(model.predict(frame)["prediction"], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gate", ["softmax", "gaussian", "constant", "tree"])
def test_a_stream_is_fitted_as_well_as_memory(path: Path, gate: str) -> None:
    wanted = asked(gate=gate, gate_features=("x",))
    model = fit_streamed(path, wanted, say=quiet)
    parts = list(chunks_of(path, model, wanted))
    X, y = np.vstack([one[0] for one in parts]), np.concatenate([one[1] for one in parts])
    inside = MixtureOfExpertsRegressor(**wanted.arguments(model.encoder)).fit(X, y)
    assert model.mixture.joint_loglik_ / len(y) == pytest.approx(inside.joint_loglik_ / len(y), abs=1e-3)


def test_a_sample_smaller_than_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds and the number of experts are of 90 rows; the mixture is of all of them."""
    whole = stream(path)
    monkeypatch.setattr(streamed, "SAMPLE", 90)
    monkeypatch.setattr(streamed, "HELD", 30)
    said: list[str] = []
    model = fit_streamed(path, asked(), say=said.append)
    assert (
        "streamed: kinds, missing values and baselines are of a sample of 90 rows, scores of 30 held-out ones"
        in said
    )
    assert model.kept is not None
    assert whole.kept is not None
    assert len(model.kept.row) == 30
    assert model.kept.of == len(whole.kept.row)
    assert set(model.kept.row) <= set(whole.kept.row)
    frame = pd.read_parquet(path)
    apart = model.predict(frame)["prediction"] - whole.predict(frame)["prediction"]
    assert np.abs(apart).max() < 0.1  # what stands for a missing value is of the sample


def test_the_number_of_experts_is_chosen_on_the_sample(path: Path) -> None:
    model = stream(path, experts="auto")
    assert model.n_experts == 2
    assert model.mixture.n_experts == 2
    assert len(model.scores) == 4
    assert model.helps is True


def test_experts_of_different_kinds(path: Path) -> None:
    model = stream(path, experts="auto", expert=("gaussian", "student_t"))
    assert [one.name for one in model.mixture.experts_] == ["gaussian", "student_t"]


@pytest.mark.parametrize("labels", [["no", "yes"], ["a", "b", "c"], [0, 1]])
def test_classes_in_a_stream(tmp_path: Path, labels: list[Any]) -> None:
    """The rows are sorted by class: no batch has all of them."""
    frame = bent(300)
    rank = np.argsort(np.argsort(frame["x"] + 0.5 * np.random.default_rng(0).normal(size=300)))
    code = rank * len(labels) // 300
    frame["y"] = [labels[one] for one in code]
    frame = frame.iloc[np.argsort(code, kind="stable")].reset_index(drop=True)
    model = stream(write(frame, tmp_path / "t.parquet"))
    assert model.task == "classification"
    assert model.classes == tuple(str(one) for one in labels)
    found = model.predict(frame)
    assert np.mean(found["prediction"] == frame["y"].astype(str)) > 0.7
    assert model.kept is not None
    codes = np.array([labels.index(one) for one in frame["y"]])
    np.testing.assert_array_equal(model.kept.y, codes[model.kept.row])


def test_two_numbers_in_the_first_batches_are_not_all(tmp_path: Path) -> None:
    frame = bent(300).assign(y=np.arange(300) // 60.0)
    assert stream(write(frame, tmp_path / "t.parquet"), experts=1).task == "regression"
    frame["y"] = frame["y"] > 2
    assert (
        stream(write(frame.assign(y=frame["y"] * 1), tmp_path / "t.parquet"), experts=1).task
        == "classification"
    )


def test_batches_without_a_target_or_a_weight(tmp_path: Path) -> None:
    frame = bent(300).assign(w=1.0)
    frame.loc[:150, "y"] = np.nan
    frame.loc[200:280, "w"] = 0.0
    model = stream(write(frame, tmp_path / "t.parquet"), experts=1, weights="w")
    part = frame.drop(columns="w").loc[[*range(151, 200), *range(281, 300)]]
    assert "w" not in [one.name for one in model.encoder.columns]
    apart = model.predict(part)["prediction"] - part["y"]
    assert np.abs(apart.mean()) < 0.5


def test_a_category_that_the_sample_lacks_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "SAMPLE", 60)
    frame = bent(400)
    frame["colour"] = frame["colour"].fillna("red")
    frame.loc[[50, 350], "colour"] = ["violet", "pink"]
    model = stream(write(frame, tmp_path / "t.parquet"))
    assert len(model.scores) == 4


def test_a_streamed_model_on_disk(path: Path, tmp_path: Path) -> None:
    model = stream(path)
    model.save(tmp_path / "m.skops")
    frame = pd.read_parquet(path)
    same_answers(model.predict(frame), load_model(tmp_path / "m.skops").predict(frame))


# -- what is wrong


@pytest.mark.parametrize(
    ("name", "value", "options", "message"),
    [
        ("x", np.inf, {}, "t.parquet, row 333, column 'x': 'inf' is not a finite number"),
        ("y", np.inf, {}, "t.parquet, row 333, column 'y': 'inf' is not a finite number"),
        ("w", -1.0, {"weights": "w"}, "t.parquet, row 333, column 'w': '-1' is no weight"),
    ],
)
def test_a_wrong_value_is_named_by_its_row_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float, options: Any, message: str
) -> None:
    monkeypatch.setattr(streamed, "SAMPLE", 50)
    monkeypatch.setattr(streamed, "HELD", 20)
    frame = bent(400).assign(w=1.0)
    frame.loc[333, name] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        stream(write(frame, tmp_path / "t.parquet"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "open"}, "--groups=open needs all rows at once, and --stream reads them in turn"),
        (
            {"gate": "tree", "experts": "auto"},
            "--gate=tree needs --experts=N with --stream: a tree grows on all",
        ),
        ({"test": 2.0}, "--test=2 must be a share"),
        ({"weights": "wait"}, "--weights=wait: t.parquet has no such column"),
        ({"expert": ("logistic",)}, "--expert=logistic is not for regression"),
        (
            {"wishes": Wishes(drop=("x", "size", "colour", "day", "open"))},
            "has no column of inputs that is of",
        ),
    ],
)
def test_requests_that_a_stream_cannot_serve(path: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        stream(path, **options)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(300, np.nan), "t.parquet has no row to fit: y is missing in all of them"),
        (np.full(300, 3.0), "--target=y is 3 in every row: nothing to predict"),
        (np.full(300, "a"), "--target=y is 'a' in every row: nothing to predict"),
        (
            np.array([f"label {i // 5}" for i in range(300)]),
            "classes, at most 50 are fitted; if it is a number",
        ),
    ],
)
def test_targets_that_a_stream_cannot_predict(tmp_path: Path, y: Any, message: str) -> None:
    """No batch of 70 rows has more than 15 of the 60 labels."""
    with pytest.raises(ValueError, match=re.escape(message)):
        stream(write(bent(300).assign(y=y), tmp_path / "t.parquet"))


def test_other_files_are_not_streamed(tmp_path: Path) -> None:
    for name in ("t.csv", "t.feather", "t.parquet.gz"):
        with pytest.raises(ValueError, match=f"--stream reads Parquet; {name} is none"):
            stream(write(bent(50), tmp_path / name))
    with pytest.raises(ValueError, match=r"none\.parquet is not there"):
        stream(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet has no rows"):
        stream(write(bent(50).iloc[:0], tmp_path / "t.parquet"))


def test_a_stream_is_needed_where_memory_is_short(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = 400 * 6 * 8 * streamed.COPIES
    monkeypatch.setattr(streamed, "free_memory", lambda: numbers / streamed.SHARE + 1)
    assert not must_stream(path)
    monkeypatch.setattr(streamed, "free_memory", lambda: numbers / streamed.SHARE - 1)
    assert must_stream(path)
    assert not must_stream(write(bent(400), tmp_path / "t.csv"))
    assert not must_stream(write(bent(400), tmp_path / "t.parquet.gz"))


def test_free_memory_where_the_system_tells_less(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < streamed.free_memory() < 2**50

    def unreadable(self: Path, **_: Any) -> str:
        raise FileNotFoundError(self)

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert 2**20 < streamed.free_memory() < 2**50
    monkeypatch.setattr(streamed.os, "sysconf", unknown)
    assert streamed.free_memory() == float("inf")
