"""Fits: every format gives the same model, held-out rows are not looked at, every task, gate and expert."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, root_mean_squared_error

from expertise.table import Request, TableModel, Wishes, fit_table
from expertise.table.splitting import hold_out
from table.making import bent, fitted, quiet, same_answers, write


def fit_frame(frame: pd.DataFrame, folder: Path, target: str = "y", **asked: Any) -> TableModel:
    return fitted(write(frame, folder / "t.parquet"), target, **asked)


# -- files


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "de.csv", "t.feather", "t.csv.gz", "t.parquet.gz"])
def test_every_format_gives_the_same_model_to_the_bit(
    model: TableModel, frame: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    other = fitted(write(frame, tmp_path / name))
    same_answers(model.predict(frame), other.predict(frame))
    assert other.scores == model.scores
    assert other.verdict == model.verdict


def test_order_of_the_columns_and_their_names_make_no_difference_to_the_answers(tmp_path: Path) -> None:
    frame = bent(80)[["x", "open", "y"]]
    names = {"x": 'a, "b"', "open": "größe in €", "y": "the  target; or | not"}
    plain = fit_frame(frame, tmp_path)
    renamed = frame.rename(columns=names)
    odd = fitted(write(renamed, tmp_path / "odd.csv"), names["y"])
    np.testing.assert_array_equal(plain.predict(frame)["prediction"], odd.predict(renamed)["prediction"])
    assert [column.name for column in odd.encoder.columns] == ['a, "b"', "größe in €"]


def test_two_rows(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("a,y\n1,2\n3,5\n")
    with pytest.raises(ValueError, match=r"--test=0\.2 of 2 rows holds out 0"):
        fitted(path, experts="auto", task="regression")
    model = fitted(path, experts="auto", task="regression", test=0.0)
    assert model.n_experts == 1
    assert model.scores == []
    assert model.helps is None
    assert model.kept is None
    assert np.isfinite(model.predict(pd.DataFrame({"a": [2.0]}))["prediction"]).all()


def test_one_input_and_an_empty_column(tmp_path: Path) -> None:
    frame = bent(80)[["x", "y"]].assign(empty=np.nan, text=None)
    model = fit_frame(frame, tmp_path)
    assert [column.name for column in model.encoder.columns] == ["x"]
    assert model.encoder.left_out == {"empty": "empty", "text": "empty"}
    assert len(model.predict(frame[["x"]])["prediction"]) == 80


@pytest.mark.slow
def test_three_hundred_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 300)), columns=[f"v{i}" for i in range(300)])
    frame["y"] = frame["v0"] + rng.normal(size=200)
    model = fit_frame(frame, tmp_path)
    assert np.isfinite(model.predict(frame)["prediction"]).all()
    assert any("fewer than" in warning or "few cases" in warning for warning in model.warnings)


# -- held-out rows


def test_held_out_rows_are_not_looked_at(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    """Other inputs and targets there give the same model; only its scores are others."""
    test = hold_out(len(frame), 0.2, 0)[1]
    rng = np.random.default_rng(5)
    other = frame.copy()
    for name in ("x", "size", "y"):
        there = test[frame[name].iloc[test].notna()]
        other.loc[there, name] = 100 * rng.random(len(there))
    other.loc[test, "open"] = ~frame["open"].iloc[test]
    for name in ("day", "colour"):
        other.loc[test, name] = frame[name].iloc[rng.permutation(test)].to_numpy()
    changed = fit_frame(other, tmp_path)
    same_answers(model.predict(frame), changed.predict(frame))
    assert [one.fill for one in changed.encoder.columns] == [one.fill for one in model.encoder.columns]
    assert changed.scores != model.scores


def test_missing_values_are_filled_with_what_the_fitted_rows_have(
    model: TableModel, frame: pd.DataFrame
) -> None:
    train = hold_out(len(frame), 0.2, 0)[0]
    columns = {column.name: column for column in model.encoder.columns}
    assert columns["size"].fill == frame["size"].iloc[train].median()
    assert columns["x"].fill == frame["x"].iloc[train].median()
    assert columns["x"].fill != frame["x"].median()
    usual = frame.iloc[:3].assign(size=columns["size"].fill)
    marked = model.encode(frame.iloc[:3].assign(size=np.nan)) - model.encode(usual)
    assert [model.encoder.names[j] for j in np.flatnonzero(marked[0])] == ["size missing"]


def test_scores_are_those_of_the_held_out_rows(model: TableModel, frame: pd.DataFrame) -> None:
    test = hold_out(len(frame), 0.2, 0)[1]
    rows = frame.iloc[test]
    found = model.predict(rows)
    assert [name for name, _ in model.scores] == [
        "mixture",
        "one expert",
        "ridge regression",
        "gradient boosting",
    ]
    mixture = model.scores[0][1]
    assert mixture["RMSE"] == pytest.approx(root_mean_squared_error(rows["y"], found["prediction"]))
    inside = (found["lower"] <= rows["y"]) & (rows["y"] <= found["upper"])
    assert mixture["90 % covered"] == pytest.approx(inside.mean())
    density = model.mixture.score_samples(model.encode(rows), rows["y"].to_numpy())
    assert mixture["log-likelihood"] == pytest.approx(density.mean())
    assert model.kept is not None
    assert model.kept.row.tolist() == test.tolist()
    np.testing.assert_array_equal(model.kept.y, rows["y"])
    np.testing.assert_array_equal(model.encoder.encode(model.kept.values), model.encode(rows))
    assert model.helps is True
    assert model.verdict.startswith("The mixture helps")


def test_rows_can_be_kept_out_of_the_model(tmp_path: Path) -> None:
    model = fit_frame(bent(60), tmp_path, experts=1, keep_rows=False)
    assert model.kept is None
    assert len(model.scores) == 4


def test_rows_without_a_target_are_left_out(tmp_path: Path) -> None:
    frame = bent(100)
    gone = frame.index[::10]
    said: list[str] = []
    path = write(frame.assign(y=frame["y"].where(~frame.index.isin(gone))), tmp_path / "t.parquet")
    model = fit_table(path, Request("y", experts=2), say=said.append)
    assert "10 rows without y are left out" in said[0]
    assert model.kept is not None
    assert not set(model.kept.row) & set(gone)
    np.testing.assert_array_equal(model.kept.y, frame["y"].iloc[model.kept.row])


# -- weights and groups


def test_a_row_of_weight_2_is_fitted_as_two_rows(tmp_path: Path) -> None:
    frame = bent(80).dropna().reset_index(drop=True)  # a median takes each row once, whatever it weighs
    weight = np.random.default_rng(0).integers(0, 3, len(frame))
    weighted = fit_frame(frame.assign(w=weight), tmp_path, experts=1, test=0.0, weights="w")
    twice = fit_frame(frame.loc[np.repeat(frame.index, weight)], tmp_path, experts=1, test=0.0)
    assert "w" not in [column.name for column in weighted.encoder.columns]
    one, other = (model.predict(frame)["prediction"] for model in (weighted, twice))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_weights_that_hold_nothing_out(tmp_path: Path) -> None:
    frame = bent(40).assign(w=0.0)
    train, test = hold_out(40, 0.2, 0)
    with pytest.raises(
        ValueError, match="--weights=w is 0 in every row to fit; use other weights or another"
    ):
        fit_frame(frame.assign(w=np.isin(np.arange(40), test) * 1.0), tmp_path, weights="w")
    with pytest.raises(ValueError, match="--weights=w is 0 in every held-out row"):
        fit_frame(frame.assign(w=np.isin(np.arange(40), train) * 1.0), tmp_path, weights="w")


def test_groups_are_not_split(tmp_path: Path) -> None:
    frame = bent(120).assign(who=np.arange(120) % 12)
    said: list[str] = []
    path = write(frame, tmp_path / "t.parquet")
    model = fit_table(path, Request("y", experts=2, groups="who"), say=said.append)
    assert model.kept is not None
    held = set(frame["who"].iloc[model.kept.row])
    assert len(held) == 2
    assert len(model.kept.row) == frame["who"].isin(held).sum()
    assert "who" not in [column.name for column in model.encoder.columns]
    assert "held out: 20 (20%, by who, seed 0)" in said[1]
    assert "each row has its own expert, because what the gate sees varies inside groups" in said[2]


def test_rows_of_a_group_share_an_expert_where_the_gate_sees_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(30), 5)
    kind = np.where(who % 2, "odd", "even")
    x = rng.normal(size=150)
    frame = pd.DataFrame({"who": who, "kind": kind, "x": x, "y": np.where(who % 2, x, -x)})
    frame["y"] += 0.1 * rng.normal(size=150)
    said: list[str] = []
    path = write(frame, tmp_path / "t.parquet")
    request = Request("y", experts=2, groups="who", gate_features=("kind",))
    model = fit_table(path, request, say=said.append)
    assert "rows of the same who share their expert, and are not split" in "\n".join(said)
    experts = model.predict(frame)["expert"]
    assert len(set(experts[who % 2 == 0])) == len(set(experts[who % 2 == 1])) == 1


# -- tasks


def labelled(labels: list[Any], n: int = 150) -> pd.DataFrame:
    frame = bent(n)
    rng = np.random.default_rng(1)
    score = np.where(frame["x"] > 0, frame["size"].fillna(25) - 25, 25 - frame["size"].fillna(25))
    rank = np.argsort(np.argsort(score + 3 * rng.normal(size=n)))
    frame["y"] = [labels[one * len(labels) // n] for one in rank]
    return frame


@pytest.mark.parametrize("labels", [["no", "yes"], ["a", "b", "c"], [False, True], [10, 20]])
def test_classes(tmp_path: Path, labels: list[Any]) -> None:
    frame = labelled(labels)
    model = fit_frame(frame, tmp_path, task="classification")
    names = sorted(str(label).lower() for label in labels)
    assert model.task == "classification"
    assert list(model.classes) == names
    found = model.predict(frame)
    proba = np.stack([found[f"probability of {name}"] for name in names], axis=1)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert found["prediction"].tolist() == [names[one] for one in proba.argmax(axis=1)]
    assert model.kept is not None
    y = np.array([names.index(str(one).lower()) for one in frame["y"]])
    np.testing.assert_array_equal(model.kept.y, y[model.kept.row])
    test = model.kept.row
    expected = log_loss(y[test], proba[test], labels=range(len(names)))
    assert model.scores[0][1]["log loss"] == pytest.approx(expected)
    assert ("AUC" in model.scores[0][1]) == (len(labels) == 2)


def test_labels_that_look_like_numbers(tmp_path: Path) -> None:
    frame = labelled([0, 1])
    of_csv = fitted(write(frame, tmp_path / "t.csv"))
    of_parquet = fitted(write(frame, tmp_path / "t.parquet"))
    assert of_csv.task == of_parquet.task == "classification"
    assert of_csv.classes == of_parquet.classes == ("0", "1")
    same_answers(of_csv.predict(frame), of_parquet.predict(frame))
    as_numbers = fitted(tmp_path / "t.csv", task="regression")
    assert as_numbers.task == "regression"


def test_a_class_that_only_held_out_rows_have_is_no_one_s_mistake(tmp_path: Path) -> None:
    frame = bent(60)
    frame["y"] = np.where(np.arange(60) % 2, "b", "a")
    frame["who"] = np.arange(60) // 6
    held = hold_out(60, 0.2, 0, groups=frame["who"].astype(str).to_numpy())[1]
    frame.loc[held[:3], "y"] = "new"
    said: list[str] = []
    path = write(frame, tmp_path / "t.parquet")
    model = fit_table(path, Request("y", experts=1, groups="who"), say=said.append)
    assert "3 held-out rows are left out: no fitted row has their class ('new')" in said
    assert model.classes == ("a", "b")
    assert model.kept is not None
    assert not set(model.kept.row) & set(held[:3])
    assert set(model.kept.y) == {0, 1}


def test_rows_to_fit_of_one_class_say_so(tmp_path: Path) -> None:
    frame = bent(60).assign(who=np.arange(60) // 30)
    frame["y"] = np.where(frame["who"] == 0, "a", "b")
    message = r"the rows to fit are all of the class '[ab]'; use another --seed, or more rows or groups"
    with pytest.raises(ValueError, match=message):
        fit_frame(frame, tmp_path, groups="who", test=0.5)


# -- experts and gates


@pytest.mark.parametrize("gate", ["softmax", "gaussian", "constant", "tree"])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_every_gate(tmp_path: Path, gate: str, task: str) -> None:
    frame = bent(100) if task == "regression" else labelled(["p", "q"], 100)
    model = fit_frame(frame, tmp_path, gate=gate)
    assert model.mixture.gate_.name == gate
    found = model.predict(frame)
    np.testing.assert_allclose(found["weight of expert 0"] + found["weight of expert 1"], 1)


@pytest.mark.parametrize("expert", ["gaussian", "student_t", "poisson", "gamma", "constant"])
def test_every_expert_of_numbers(tmp_path: Path, expert: str) -> None:
    frame = bent(100)
    frame["y"] = np.random.default_rng(0).poisson(np.exp(frame["x"].clip(-2, 2))) + (expert == "gamma")
    model = fit_frame(frame, tmp_path, expert=(expert,), task="regression")
    assert [one.name for one in model.mixture.experts_] == [expert, expert]
    found = model.predict(frame)
    assert (found["lower"] <= found["upper"]).all()
    if expert == "poisson":
        assert (found["lower"] == np.round(found["lower"])).all()
        assert (found["prediction"] > 0).all()


@pytest.mark.parametrize("expert", ["multinomial", "logistic", "constant"])
def test_every_expert_of_classes(tmp_path: Path, expert: str) -> None:
    model = fit_frame(labelled(["p", "q"], 100), tmp_path, expert=(expert,))
    assert {one.name for one in model.mixture.experts_} == {expert}


def test_experts_of_different_kinds(tmp_path: Path) -> None:
    model = fit_frame(bent(100), tmp_path, experts="auto", expert=("gaussian", "constant", "student_t"))
    assert [one.name for one in model.mixture.experts_] == ["gaussian", "constant", "student_t"]
    assert ("experts", "3 (as asked), gaussian, constant, student_t") in model.facts


def test_a_target_that_the_experts_cannot_have_names_the_row(tmp_path: Path) -> None:
    frame = bent(50).assign(y=np.arange(50.0))
    frame.loc[37, "y"] = -4.0
    with pytest.raises(ValueError, match=r"'poisson' takes counts.*-4, in row 37"):
        fit_frame(frame, tmp_path, expert=("poisson",))


def test_a_tree_grows(tmp_path: Path) -> None:
    model = fit_frame(bent(150), tmp_path, gate="tree", experts="auto")
    assert model.mixture.gate_.name == "tree"
    assert model.n_experts >= 2


def test_one_expert_is_chosen_where_one_is_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=150), "b": rng.normal(size=150)})
    frame["y"] = frame["a"] - 2 * frame["b"] + rng.normal(size=150)
    model = fit_frame(frame, tmp_path, experts="auto")
    assert model.n_experts == 1
    assert model.verdict.startswith("One expert is enough: more would not pay for their parameters")
    assert ("experts", "1 (chosen by BIC from 1 to 6), gaussian") in model.facts
    asked = fit_frame(frame, tmp_path, experts=1)
    assert asked.verdict.startswith("This is one model and no mixture")


def test_two_regimes_are_found(tmp_path: Path) -> None:
    assert fit_frame(bent(200), tmp_path, experts="auto").n_experts == 2


def test_the_gate_sees_what_it_is_told_to(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    chosen = fit_frame(frame, tmp_path, gate_features=("colour",))
    moved = frame.assign(x=frame["x"] + 3, size=7.0, open=False)
    gates = [chosen.predict(one)["weight of expert 0"] for one in (frame, moved)]
    np.testing.assert_array_equal(*gates)
    repainted = frame.assign(colour="red")
    assert len(set(chosen.predict(repainted)["weight of expert 0"])) == 1
    assert any("sees colour" in value for name, value in chosen.facts if name == "gate")
    with pytest.raises(ValueError, match="--gate-features names 'y', which is not an input"):
        fit_frame(frame, tmp_path, gate_features=("y",))


# -- what is said


def test_what_was_done_is_said(tmp_path: Path) -> None:
    frame = bent(150).assign(id=np.arange(150), same=1, note=[f"n{i}" for i in range(150)])
    said: list[str] = []
    wishes = Wishes(drop=("note",))
    model = fit_table(
        write(frame, tmp_path / "t.csv"), Request("y", experts=2, wishes=wishes), say=said.append
    )
    text = "\n".join(said)
    for line in (
        "t.csv: 150 rows; predict y (regression)",
        "  numbers       2  x, size",
        "  categories    1  colour (4)",
        "  booleans      1  open",
        "  dates         1  day",
        "  left out       id: id-like (a different whole number in each row; --keep=id takes it)",
        "  left out       same: constant",
        "  left out       note: dropped, as --drop says",
        f"  missing        size: {frame['size'].isna().sum()} rows, filled with what is usual, and marked",
        f"  missing        colour: {frame['colour'].isna().sum()} rows, a category of their own",
        "fit: 120 rows; held out: 30 (20%, seed 0)",
        model.verdict,
    ):
        assert line in text.splitlines(), line
    assert re.search(
        r"fitted: 2 experts \(gaussian\), gate softmax; they decide for \d+%, \d+% of the rows", text
    )
    for name, found in model.scores:
        line = next(one for one in said[-1].splitlines() if one.startswith(name.ljust(17)))
        assert f"{found['RMSE']:.4g}" in line
        assert line.count("–") == list(found.values()).count(None)


def test_nothing_is_compared_where_nothing_is_held_out(tmp_path: Path) -> None:
    said: list[str] = []
    path = write(bent(60), tmp_path / "t.csv")
    model = fit_table(path, Request("y", experts=1, test=0), say=said.append)
    assert "fit: 60 rows; none are held out, so nothing is compared" in said
    assert (model.scores, model.verdict, model.helps) == ([], "", None)


def test_warnings_of_the_fit_are_kept_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    path = write(bent(30), tmp_path / "t.csv")
    model = fit_table(path, Request("y", experts=3), say=said.append)
    assert model.warnings
    assert f"warning: {model.warnings[0]}" in said[-1]


def test_the_same_seed_gives_the_same_model(model: TableModel, file: Path, frame: pd.DataFrame) -> None:
    same_answers(model.predict(frame), fitted(file).predict(frame))
    other = fit_table(file, Request("y", experts=2, seed=1), say=quiet)
    assert other.scores != model.scores


def test_standard_errors_stand_beside_the_coefficients(model: TableModel) -> None:
    assert set(model.errors) == {"coef", "intercept", "gate_coef", "gate_intercept"}
    assert model.errors["coef"].shape == (2, len(model.encoder.names))
    assert (model.errors["coef"][:, 0] > 0).all()
