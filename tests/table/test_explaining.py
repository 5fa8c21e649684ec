"""Explanations: effects by a slow loop over rows and columns; words that say what the numbers say."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expertise.table import TableModel, explain_rows
from expertise.table.explaining import explanation, moved, typical
from table.making import bent, fitted, write


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> TableModel:
    frame = bent(120).assign(y=lambda one: np.where(one["x"] + one["open"] > 0, "large", "small"))
    return fitted(write(frame, tmp_path_factory.mktemp("classes") / "t.parquet"))


def slow(model: TableModel, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put one column of one row after the other to its typical value, and ask the model again."""
    gate, expert = np.zeros(values.shape), np.zeros(values.shape)
    for i in range(len(values)):
        X = model.encoder.encode(values[[i]])
        k = int(np.argmax(model.mixture.gate_proba(X)))
        v = int(np.argmax(model.mixture.predict_proba(X))) if model.classes else None
        for j, column in enumerate(model.encoder.columns):
            other = values[[i]].copy()
            other[0, j] = column.fill
            Z = model.encoder.encode(other)
            gate[i, j] = model.mixture.gate_proba(X)[0, k] - model.mixture.gate_proba(Z)[0, k]
            here, there = model.mixture.predict_experts(X)[0, k], model.mixture.predict_experts(Z)[0, k]
            expert[i, j] = here - there if v is None else here[v] - there[v]
    return gate, expert


@pytest.mark.parametrize("which", ["model", "classes"])
def test_effects_by_a_slow_loop(which: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    rows = model.kept.values[:12].copy()
    rows[0] = np.where(
        [one.kind == "category" for one in model.encoder.columns], rows[0], np.nan
    )  # all missing
    gate, expert = moved(model, rows)
    expected = slow(model, rows)
    assert gate.shape == (12, 5)
    np.testing.assert_allclose(gate, expected[0], atol=1e-12)
    np.testing.assert_allclose(expert, expected[1], atol=1e-10)
    assert np.abs(gate[:, 0]).max() > 0.1  # x decides


def test_the_typical_row_is_moved_by_nothing(model: TableModel) -> None:
    usual = typical(model)[None]
    for effect in moved(model, usual):
        assert (effect == 0).all()
    text = explanation(model, usual, 0)
    assert text.count("  nothing: no input alone makes a difference") == 2


def test_words_say_the_numbers(model: TableModel, frame: pd.DataFrame, file: Path) -> None:
    found = model.predict(frame.iloc[[3]])
    gate, expert = moved(model, model.encoder.read(_table(frame.iloc[[3]]), source="t"))
    lines = explain_rows(model, file, [3]).splitlines()
    k = int(found["expert"][0])
    assert lines[0] == (
        f"row 3: y is predicted as {found['prediction'][0]:.6g}, 90 % between {found['lower'][0]:.6g} and "
        f"{found['upper'][0]:.6g}"
    )
    sure = found[f"weight of expert {k}"][0]
    assert lines[1].startswith(f"who decided: expert {k}, with a weight of {sure:.2f}")
    assert lines[1].endswith("the gate is not sure") == (sure < 0.8)
    experts = model.mixture.predict_experts(model.encode(frame.iloc[[3]]))[0]
    for j in range(2):
        assert (
            lines[2 + j]
            == f"  expert {j}: weight {found[f'weight of expert {j}'][0]:.2f}, says {experts[j]:.6g}"
        )
    assert lines[4] == f"what moved the gate to expert {k} (weight, against the usual value of the input):"
    at = lines.index(f"what moved expert {k}:")
    for effect, part in ((gate[0], lines[5:at]), (expert[0], lines[at + 1 :])):
        order = [model.encoder.columns[j].name for j in np.argsort(-np.abs(effect), kind="stable")]
        named = [line.split()[0] for line in part]
        assert named == order[: len(named)]
        for line in part:
            j = model.encoder.number(line.split()[0])
            column = model.encoder.columns[j]
            assert f"{effect[j]:+.4g}  because it is " in line
            assert line.endswith(f"usual is {column.text(column.fill)}")


def _table(frame: pd.DataFrame) -> object:
    import pyarrow

    return pyarrow.Table.from_pandas(frame)


def test_a_class_is_explained_by_its_probability(classes: TableModel) -> None:
    assert classes.kept is not None
    row = classes.kept.values[[0]]
    label = classes.answer(classes.encoder.encode(row))["prediction"][0]
    text = explanation(classes, row, 5)
    assert text.startswith(f"row 5: y is predicted as {label}\n")
    assert re.search(rf"  expert 0: weight [\d.]+, says [\d.e-]+ for {label}\n", text)
    assert re.search(rf"what moved expert \d for {label}:", text)


def test_several_rows_and_a_wrong_value_elsewhere(
    model: TableModel, frame: pd.DataFrame, tmp_path: Path
) -> None:
    wrong = frame.assign(colour=frame["colour"].where(frame.index != 9, "violet"))
    path = write(wrong, tmp_path / "t.csv")
    text = explain_rows(model, path, [4, 0])
    assert [one.split(":")[0] for one in text.split("\n\n")] == ["row 4", "row 0"]
    with pytest.raises(ValueError, match=r"t\.csv, row 9, column 'colour': 'violet' is a category"):
        explain_rows(model, path, [9])
    assert "colour" in explain_rows(model, path, [9], new="missing")


@pytest.mark.parametrize("row", [-1, 160])
def test_a_row_that_is_not_there(model: TableModel, file: Path, row: int) -> None:
    message = rf"--row={row}: bent\.parquet has the rows 0 to 159; rows count from 0"
    with pytest.raises(ValueError, match=message):
        explain_rows(model, file, [row])


def test_a_row_of_decimal_commas(tmp_path: Path) -> None:
    frame = bent(80)[["x", "y"]].round(3)
    frame.loc[5, "x"] = 1.234
    path = write(frame, tmp_path / "de.csv")
    assert "because it is 1.234, usual is" in explain_rows(fitted(path), path, [5])
