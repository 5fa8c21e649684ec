"""Models on disk: read as they were written, to the bit; what is no model is refused, and runs nothing."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from skops import io as skops

import expertise.table.model
from expertise.mixture import MixtureOfExpertsRegressor
from expertise.table import TableModel, load_model
from table.making import bent, fitted, same_answers, write


@pytest.fixture(scope="module")
def saved(model: TableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.skops"
    model.save(path)
    return path


def test_a_model_comes_back_as_it_was(model: TableModel, saved: Path, frame: pd.DataFrame) -> None:
    again = load_model(saved)
    same_answers(model.predict(frame), again.predict(frame))
    for name in ("task", "target", "encoder", "source", "facts", "scores", "verdict", "helps", "warnings"):
        assert getattr(again, name) == getattr(model, name), name
    assert set(again.errors) == set(model.errors)
    for name, value in model.errors.items():
        np.testing.assert_array_equal(again.errors[name], value)
    assert again.kept is not None
    assert model.kept is not None
    for name, value in vars(model.kept).items():
        np.testing.assert_array_equal(getattr(again.kept, name), value)
    assert len(again.mixture.path_) == len(model.mixture.path_)


@pytest.mark.parametrize("gate", ["gaussian", "tree", "constant"])
def test_every_gate_and_classes_come_back(tmp_path: Path, gate: str) -> None:
    frame = bent(90).assign(y=lambda one: np.where(one["x"] + one["open"] > 0, "größer", "b, c"))
    model = fitted(write(frame, tmp_path / "t.csv"), gate=gate)
    model.save(tmp_path / "m.skops")
    again = load_model(tmp_path / "m.skops")
    assert again.classes == ("b, c", "größer")
    same_answers(model.predict(frame), again.predict(frame))


def test_frames_and_tables_are_answered_alike(model: TableModel, frame: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(frame)
    same_answers(model.predict(frame), model.predict(table))
    same_answers(model.predict(frame), model.predict(frame[frame.columns[::-1]].assign(more="x")))
    same_answers(model.predict(frame), model.predict(frame.drop(columns="y")))
    text = pa.table({name: table[name].cast(pa.string()) for name in ("x", "size", "colour", "day", "open")})
    same_answers(model.predict(frame), model.predict(text))  # what a CSV would hold
    written = table.set_column(2, "colour", table["colour"].dictionary_encode())
    same_answers(model.predict(frame), model.predict(written))


def test_what_an_answer_holds(model: TableModel, frame: pd.DataFrame) -> None:
    found = model.predict(frame)
    weights = [f"weight of expert {k}" for k in range(2)]
    assert list(found) == ["prediction", "lower", "upper", "expert", *weights]
    gate = np.stack([found[name] for name in weights], axis=1)
    np.testing.assert_allclose(gate.sum(axis=1), 1)
    np.testing.assert_array_equal(found["expert"], gate.argmax(axis=1))
    X = model.encode(frame)
    np.testing.assert_array_equal(found["prediction"], model.mixture.predict(X))
    np.testing.assert_array_equal(gate, model.mixture.gate_proba(X))
    wide = model.predict(frame, coverage=0.99)
    assert (wide["lower"] < found["lower"]).all()
    assert (wide["upper"] > found["upper"]).all()
    with pytest.raises(ValueError, match=r"coverage must be one number over 0 and up to 1; got 1\.5"):
        model.predict(frame, coverage=1.5)


def test_a_boolean_may_stand_where_the_fit_saw_numbers(model: TableModel, frame: pd.DataFrame) -> None:
    as_numbers = frame.assign(open=frame["open"].astype(int))
    same_answers(model.predict(frame), model.predict(as_numbers))


# -- what is no model


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    hit = tmp_path / "hit"
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Bomb(hit)))
    with pytest.raises(ValueError, match=r"model\.skops is no skops file"):
        load_model(path)
    assert not hit.exists()


class Foreign:
    """A type that nobody has called safe."""

    touched = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).touched = True


def test_a_foreign_type_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    foreign = Foreign()
    foreign.value = 3  # type: ignore[attr-defined]
    path.write_bytes(skops.dumps({"expertise table": 1, "version": "0", "encoder": foreign}))
    with pytest.raises(ValueError, match=r"holds types that are not known to be safe: .*Foreign"):
        load_model(path)
    assert not Foreign.touched


def test_another_kind_of_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mixture.skops"
    x = np.linspace(-1, 1, 50)[:, None]
    MixtureOfExpertsRegressor(1).fit(x, x[:, 0]).save(path)
    message = "holds a MixtureOfExpertsRegressor, and no model of a table; expertise fit writes one"
    with pytest.raises(ValueError, match=message):
        load_model(path)
    path.write_bytes(skops.dumps({"a": 1}))
    with pytest.raises(ValueError, match="holds a dict, and no model of a table"):
        load_model(path)


def test_a_newer_file_asks_for_a_newer_version(
    model: TableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expertise.table.model, "FORMAT", 2)
    monkeypatch.setattr(expertise.table.model, "__version__", "9.9")
    model.save(tmp_path / "m.skops")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"was written by expertise 9\.9, this is .*; use the newer one"):
        load_model(tmp_path / "m.skops")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_cut_short(saved: Path, tmp_path: Path, share: float) -> None:
    content = saved.read_bytes()
    (tmp_path / "m.skops").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"m\.skops is no skops file"):
        load_model(tmp_path / "m.skops")


@pytest.mark.parametrize("share", np.linspace(0.01, 0.99, 25).round(2).tolist())
def test_a_damaged_file(
    model: TableModel, saved: Path, tmp_path: Path, frame: pd.DataFrame, share: float
) -> None:
    """What is changed is noticed, or makes no difference (the date of a part, say)."""
    content = bytearray(saved.read_bytes())
    at = int(share * len(content))
    content[at : at + 8] = bytes(255 - one for one in content[at : at + 8])
    path = tmp_path / "m.skops"
    path.write_bytes(content)
    try:
        found = load_model(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        same_answers(model.predict(frame), found.predict(frame))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.skops is not there; give the file of a fitted model"):
        load_model(tmp_path / "none.skops")


def test_a_save_that_fails_leaves_the_old_file(
    model: TableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.skops"
    path.write_text("the old one")

    def interrupted(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save(path)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]
