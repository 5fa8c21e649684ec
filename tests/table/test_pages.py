"""The record of a page: its numbers are the model's own, by other ways; the page is whole or not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expertise.report.record import MixtureRecord
from expertise.table import TableModel, pages, write_page
from expertise.table.columns import DAY
from table.making import bent, fitted, write


def of(model: TableModel) -> MixtureRecord:
    assert model.kept is not None
    return pages.record(model, model.kept, "held-out rows")


@pytest.fixture(scope="module")
def shown(model: TableModel) -> MixtureRecord:
    return of(model)


def test_the_record_holds_what_the_model_says(
    model: TableModel, shown: MixtureRecord, frame: pd.DataFrame
) -> None:
    rows = frame.iloc[model.kept.row]  # type: ignore[union-attr]
    X = model.encode(rows)
    np.testing.assert_array_equal(shown.gate, model.mixture.gate_proba(X))
    np.testing.assert_array_equal(shown.experts, model.mixture.predict_experts(X))
    np.testing.assert_array_equal(shown.prediction, model.mixture.predict(X))
    np.testing.assert_array_equal(shown.intervals, model.mixture.predict_interval(X, 0.9))
    np.testing.assert_array_equal(shown.y, rows["y"])
    assert shown.responsibilities is not None
    np.testing.assert_array_equal(
        shown.responsibilities, model.mixture.responsibilities(X, rows["y"].to_numpy())
    )
    assert shown.row_names == tuple(f"row {row}" for row in rows.index)
    assert [column.name for column in shown.columns] == ["x", "size", "colour", "day", "open"]
    np.testing.assert_array_equal(shown.columns[0].values, rows["x"])
    assert (shown.verdict, shown.helps) == (model.verdict, model.helps)
    assert [(one.name, one.values) for one in shown.scores] == model.scores
    assert [one.is_mixture for one in shown.scores] == [True, False, False, False]


def test_coverage_is_what_counting_gives(model: TableModel, shown: MixtureRecord) -> None:
    assert shown.coverage is not None
    assert shown.cdf is not None
    X = model.encoder.encode(model.kept.values)  # type: ignore[union-attr]
    for level, found in shown.coverage:
        low, high = model.mixture.predict_interval(X, level).T
        assert found == np.mean((low <= shown.y) & (shown.y <= high)), level
    np.testing.assert_allclose(shown.cdf, model.mixture.predict_distribution(X).cdf(shown.y))


def test_the_last_frame_is_the_fitted_mixture(model: TableModel, shown: MixtureRecord) -> None:
    last = shown.frames[-1]
    np.testing.assert_allclose(last.weights, shown.gate[shown.shown], atol=1e-12)
    X = model.encoder.encode(model.kept.values)  # type: ignore[union-attr]
    density = model.mixture.score_samples(X, shown.y)
    assert last.log_likelihood == pytest.approx(density.mean())
    resp = shown.responsibilities
    assert resp is not None
    for k in range(2):
        squared = (shown.experts[:, k] - shown.y) ** 2
        assert last.errors[k] == pytest.approx(np.sqrt(np.average(squared, weights=resp[:, k])))
    iterations = [one.iteration for one in shown.frames]
    assert iterations == sorted(set(iterations))


def test_profiles_and_the_map_by_a_slow_loop(model: TableModel, shown: MixtureRecord) -> None:
    rows = model.kept.values  # type: ignore[union-attr]

    def averaged(settings: dict[int, float]) -> tuple[Any, Any, Any]:
        moved = rows.copy()
        for column, value in settings.items():
            moved[:, column] = value
            if model.encoder.columns[column].name == "day":  # each row keeps its day of the week
                for i, own in enumerate(rows[:, column]):
                    near = value + DAY * np.arange(-3, 4)
                    moved[i, column] = near[(near // DAY - own // DAY) % 7 == 0][0]
        X = model.encoder.encode(moved)
        gate, experts = model.mixture.gate_proba(X), model.mixture.predict_experts(X)
        return gate.mean(axis=0), experts.mean(axis=0), model.mixture.predict(X).mean()

    assert shown.profiles[0].column == 0  # x moves the gate most
    for profile in shown.profiles:
        if profile.axis is not None:  # a cycle of the calendar: see test_cycles.py
            continue
        for i in (0, len(profile.at) // 2, -1):
            gate, experts, prediction = averaged({profile.column: profile.at[i]})
            np.testing.assert_allclose(profile.gate[i], gate)
            np.testing.assert_allclose(profile.experts[i], experts)
            np.testing.assert_allclose(profile.prediction[i], prediction)
    found = shown.gate_map
    assert found is not None
    assert found.gate.shape == (len(found.y), len(found.x), 2)
    for i, j in ((0, 0), (len(found.y) - 1, 0), (0, len(found.x) - 1)):
        gate, _, _ = averaged({found.x_column: found.x[j], found.y_column: found.y[i]})
        np.testing.assert_allclose(found.gate[i, j], gate)


def test_coefficients_are_those_of_the_model(model: TableModel, shown: MixtureRecord) -> None:
    experts, gate = shown.coefficients
    assert experts.names == ("intercept", *model.encoder.names)
    np.testing.assert_allclose(experts.values[1:], model.mixture.coef_.T)
    np.testing.assert_allclose(experts.values[0], model.mixture.intercept_)
    np.testing.assert_array_equal(experts.errors[1:], model.errors["coef"].T)
    np.testing.assert_allclose(gate.values[1:], model.mixture.gate_coef_.T)
    assert gate.what == "gate"


def test_the_most_uncertain_rows_come_first(shown: MixtureRecord) -> None:
    entropy = -(shown.gate * np.log(shown.gate)).sum(axis=1)
    assert (np.diff(entropy[shown.uncertain]) <= 0).all()
    assert sorted(shown.uncertain) == list(range(len(shown.gate)))


# -- the formula: what the what-if panel computes is what the model says


def softmax(eta: list[float]) -> list[float]:
    power = [float(np.exp(one - max(eta))) for one in eta]
    return [one / sum(power) for one in power]


def linear(beta: list[list[float]], z: list[float]) -> list[float]:
    return [beta[0][m] + sum(one * beta[i + 1][m] for i, one in enumerate(z)) for m in range(len(beta[0]))]


def feature(one: dict[str, Any], value: float) -> float:
    if one["kind"] == "missing":
        return float(np.isnan(value))
    if one["kind"] == "level":
        return float(value == one["level"])
    value = one["fill"] if np.isnan(value) else value
    if one["kind"] == "value":
        return value
    if one["kind"] == "year":
        return 1970 + value / 31_556_952
    turn = 2 * np.pi * value / one["period"]
    return float(np.sin(turn) if one["phase"] == "sin" else np.cos(turn))


def gate_of(gate: dict[str, Any], z: list[float]) -> list[float]:
    if gate["kind"] == "softmax":
        return softmax(linear(gate["beta"], z))
    if gate["kind"] == "constant":
        return softmax(gate["log_prior"])
    if gate["kind"] == "gaussian":
        eta = []
        for k, prior in enumerate(gate["log_prior"]):
            off = np.array(z) - gate["means"][k]
            distance = sum(
                off[i] * gate["precisions"][k][i][j] * off[j] for i in range(len(z)) for j in range(len(z))
            )
            eta.append(prior - (distance + gate["log_dets"][k]) / 2)
        return softmax(eta)
    weights = [1.0] * gate["n_experts"]
    for node in gate["nodes"]:
        for child, share in enumerate(softmax(linear(node["beta"], z))):
            for expert in node["leaves"][child]:
                weights[expert] *= share
    return weights


def answer_of(expert: dict[str, Any], z: list[float], classes: int) -> list[float]:
    if expert["link"] == "constant":
        return list(np.atleast_1d(expert["values"]))
    eta = linear(expert["beta"], z)
    links: dict[str, Callable[[list[float]], list[float]]] = {
        "softmax": softmax,
        "identity": list,
        "exp": lambda eta: [float(np.exp(one)) for one in eta],
        "logistic": lambda eta: [1 / (1 + np.exp(eta[0])), 1 / (1 + np.exp(-eta[0]))],
    }
    return links[expert["link"]](eta)


def by_hand(formula: dict[str, Any], row: list[float]) -> tuple[list[float], list[float]]:
    x = [
        feature(one, value)
        for column, value in zip(formula["columns"], row, strict=True)
        for one in column["features"]
    ]
    gate = gate_of(formula["gate"], [x[i] for i in formula["gate_columns"]])
    z = [x[i] for i in formula["expert_columns"]]
    answers = [answer_of(one, z, formula["classes"]) for one in formula["experts"]]
    mixture = [sum(g * one[v] for g, one in zip(gate, answers, strict=True)) for v in range(len(answers[0]))]
    return gate, mixture


@pytest.mark.parametrize(
    ("labels", "asked"),
    [
        ([], {"gate": "softmax"}),
        ([], {"gate": "gaussian"}),
        ([], {"gate": "constant"}),
        ([], {"gate": "tree", "experts": 3}),
        ([], {"gate_features": ("colour", "day")}),
        ([], {"expert": ("gaussian", "constant")}),
        (["0", "1"], {"expert": ("logistic",)}),
        (["a", "b", "c"], {}),
        (["a", "b", "c"], {"expert": ("constant",)}),
        ([], {"expert": ("poisson",)}),
    ],
    ids=str,
)
def test_the_formula_gives_what_the_model_predicts(
    tmp_path: Path, labels: list[str], asked: dict[str, Any]
) -> None:
    frame = bent(100)
    if labels:
        cut = pd.qcut(frame["x"] + frame["open"], len(labels), labels=labels)
        frame["y"] = cut.astype(str)
    elif "poisson" in asked.get("expert", ()):
        frame["y"] = np.random.default_rng(0).poisson(np.exp(frame["x"].clip(-2, 2)))
    task = "classification" if labels else "regression"
    count = {} if len(asked.get("expert", ())) > 1 else {"experts": 2}
    asked = {**count, **asked} if count else {"experts": "auto", **asked}
    model = fitted(write(frame, tmp_path / "t.parquet"), task=task, **asked)
    formula = of(model).formula
    assert formula is not None
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(25):
        row = [
            float(rng.integers(len(one.levels))) if one.kind == "category" else rng.uniform(one.low, one.high)
            for one in model.encoder.columns
        ]
        gaps = [one.kind != "category" and rng.random() < 0.3 for one in model.encoder.columns]
        rows.append([np.nan if gap else value for gap, value in zip(gaps, row, strict=True)])
    X = model.encoder.encode(np.array(rows))
    expected = model.mixture.predict_proba(X) if labels else model.mixture.predict(X)[:, None]
    for i, row in enumerate(rows):
        gate, mixture = by_hand(formula, row)
        np.testing.assert_allclose(gate, model.mixture.gate_proba(X)[i], atol=1e-9)
        np.testing.assert_allclose(mixture, expected[i], rtol=1e-7, atol=1e-9)


# -- the page


@pytest.mark.slow
def test_a_page_of_held_out_rows_and_of_a_table(
    model: TableModel, frame: pd.DataFrame, file: Path, tmp_path: Path
) -> None:
    page = write_page(model, tmp_path / "held.html")
    text = page.read_text(encoding="utf-8")
    assert "32 held-out rows of bent.parquet" in text
    assert "</html>" in text
    text = write_page(model, tmp_path / "table.html", file).read_text(encoding="utf-8")
    assert "160 rows of bent.parquet" in text


@pytest.mark.parametrize("target", ["there", "gaps", "empty", "not there"])
def test_rows_of_a_table_with_and_without_a_target(
    model: TableModel, frame: pd.DataFrame, tmp_path: Path, target: str
) -> None:
    other = frame.copy()
    if target == "gaps":
        other.loc[::2, "y"] = np.nan
    elif target == "empty":
        other["y"] = np.nan
    elif target == "not there":
        other = other.drop(columns="y")
    path = write(other, tmp_path / "t.csv")
    rows, _ = pages._rows_of(model, path, "error", (), "utf8")
    found = pages.record(model, rows, "t")
    assert len(found.gate) == (80 if target == "gaps" else 160)
    assert (found.y is None) == (target in ("empty", "not there"))
    if found.y is None:
        assert found.coverage is None
        assert found.responsibilities is None
        assert found.frames == ()
    else:
        np.testing.assert_array_equal(found.y, other["y"].dropna())
        assert found.row_names[1] == ("row 3" if target == "gaps" else "row 1")


def test_more_rows_than_a_page_shows_are_a_sample(
    model: TableModel, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "KEPT", 50)
    rows, _ = pages._rows_of(model, write(frame, tmp_path / "t.csv"), "error", (), "utf8")
    assert (len(rows.values), rows.of) == (50, 160)
    np.testing.assert_array_equal(rows.y, frame["y"].iloc[rows.row])


def test_what_a_page_cannot_be_made_of(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    bare = fitted(write(bent(50), tmp_path / "t.csv"), experts=1, keep_rows=False)
    message = r"the model keeps no rows \(it was fitted with --test=0 or --no-keep-rows\); give a table to"
    with pytest.raises(ValueError, match=message):
        write_page(bare, out)
    path = write(frame.assign(colour="violet"), tmp_path / "new.csv")
    with pytest.raises(ValueError, match=r"new\.csv, row 0, column 'colour': 'violet' is a category"):
        write_page(model, out, path)
    path = write(frame.assign(y="much"), tmp_path / "new.csv")
    with pytest.raises(ValueError, match=r"new\.csv, row 0, column 'y': 'much' is not a finite number"):
        write_page(model, out, path)
    assert not out.exists()


def test_a_class_that_the_fit_never_saw(tmp_path: Path) -> None:
    frame = bent(60).assign(y=lambda one: np.where(one["x"] > 0, "p", "q"))
    model = fitted(write(frame, tmp_path / "t.csv"), experts=1)
    frame.loc[7, "y"] = "r"
    path = write(frame, tmp_path / "new.csv")
    message = r"new\.csv, row 7, column 'y': 'r' is a class the fit never saw; known are 'p', 'q'"
    with pytest.raises(ValueError, match=message):
        write_page(model, tmp_path / "page.html", path)


def test_ctrl_c_leaves_the_old_page(
    model: TableModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    out.write_text("the old one")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pages.showing, "profiles", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_page(model, out)
    assert out.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [out]
