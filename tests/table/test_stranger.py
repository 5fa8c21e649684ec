"""What a newcomer meets: tables as people have them, and words that lead on."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from expertise import cli
from expertise.mixture import DegenerateExpertWarning, FewCasesWarning
from expertise.table import (
    Request,
    TableModel,
    Wishes,
    fit_table,
    predict_file,
    read_table,
    saying,
    write_page,
)
from expertise.table.pages import record
from expertise.table.scoring import MIXTURE, ONE, Held, difference, verdict
from expertise.table.streamed import fit_streamed
from table.making import bent, fitted, quiet, write

RNG = np.random.default_rng(5)


def said(path: Path, target: str = "y", **asked: object) -> str:
    """Give all that a fit of two experts tells."""
    lines: list[str] = []
    fit_table(path, Request(target, **{"experts": 2, **asked}), say=lines.append)  # type: ignore[arg-type]
    return "\n".join(lines)


def numbers(n: int = 60) -> pd.DataFrame:
    x = RNG.uniform(0, 10, n).round(3)
    return pd.DataFrame({"x": x, "y": np.where(x > 5, x, 10 - x) + 0.1 * RNG.normal(size=n)})


# -- what the target is


def test_codes_of_classes_are_taken_as_an_amount_but_not_in_silence(tmp_path: Path) -> None:
    table = numbers().assign(kind=np.arange(60) % 4)
    path = write(table, tmp_path / "t.csv")
    hint = "kind holds 4 different whole numbers, and is taken as an amount"
    assert hint in said(path, "kind")
    assert "--task=classification" in said(path, "kind")
    assert hint not in said(path, "kind", task="regression")
    assert hint not in said(path, "kind", expert=("poisson",))
    assert "different whole numbers" not in said(path, "y")
    lines: list[str] = []
    fit_streamed(write(table, tmp_path / "t.parquet"), Request("kind", experts=2), say=lines.append)
    assert any(hint in line for line in lines)


# -- what a random split tells


def test_rows_in_the_order_of_time_are_warned_of(tmp_path: Path) -> None:
    table = bent(80)  # a day each
    warning = "the rows stand in the order of day"
    for name, rows in (("up", table), ("down", table[::-1])):
        model = fitted(write(rows, tmp_path / f"{name}.csv"))
        assert any(warning in one for one in model.warnings)
    mixed = fitted(write(table.sample(frac=1, random_state=0), tmp_path / "mixed.csv"))
    assert not any(warning in one for one in mixed.warnings)
    (advice,) = (one for one in fitted(write(table, tmp_path / "d.csv")).warnings if warning in one)
    assert advice.endswith("For that: --order=day")
    followed = fitted(write(table, tmp_path / "followed.csv"), order="day")
    assert not any(warning in one for one in followed.warnings)
    whole = fitted(write(table, tmp_path / "whole.csv"), test=0)
    assert not any(warning in one for one in whole.warnings)


def test_rows_of_a_group_are_one_piece_of_evidence() -> None:
    a, weight = np.array([3.0, 3.1, 2.9, -1.0]), np.ones(4)
    groups = np.array(["p", "p", "p", "q"])
    mean, low, high = difference(a, np.zeros(4), weight, groups)
    parts = np.array([(a[:3] - 2).sum(), a[3] - 2]) / 4  # by hand: one sum a group
    half = stats.t.ppf(0.975, 1) * np.sqrt((parts**2).sum() * 2 / (2 - 1))
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half))
    alone = np.arange(4)  # groups of one row: as without
    assert difference(a, np.zeros(4), weight, alone) == pytest.approx(difference(a, np.zeros(4), weight))
    assert difference(a, np.zeros(4), weight, np.zeros(4)) == (2, -np.inf, np.inf)


def test_a_verdict_counts_groups() -> None:
    y, n = np.zeros(40), 40
    better = Held(MIXTURE, np.r_[np.full(36, 0.1), np.full(4, 1.4)])
    worse = Held(ONE, np.ones(n))
    assert verdict([better, worse], y, np.ones(n), 2).helps
    groups = np.repeat([0, 1], [36, 4])
    judged = verdict([better, worse], y, np.ones(n), 2, groups=groups)
    assert not judged.helps
    assert "40 held-out rows of 2 groups" in judged.text


def test_one_row_or_one_group_is_no_verdict() -> None:
    y = np.zeros(8)
    better, worse = Held(MIXTURE, np.linspace(0.1, 0.2, 8)), Held(ONE, np.ones(8))
    for rows, groups, what in ((1, None, "1 held-out row,"), (8, y, "8 held-out rows of 1 group,")):
        models = [Held(one.name, one.prediction[:rows]) for one in (better, worse)]
        judged = verdict(models, y[:rows], np.ones(rows), 2, groups=groups)
        assert judged.helps is False
        assert judged.text.startswith("Whether the mixture helps cannot be told: RMSE 0.1")
        assert f" on {what} against 1 of one expert; so few say nothing of chance." in judged.text


def test_copied_columns_may_have_a_dictionary_in_each_batch(
    model: TableModel, frame: pd.DataFrame, tmp_path: Path
) -> None:
    path, out = tmp_path / "d.parquet", tmp_path / "p.feather"
    names = [f"note {i // 40}" for i in range(len(frame))]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    kind = pa.dictionary(pa.int32(), pa.string())
    schema = table.schema.append(pa.field("note", kind))
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        for i in range(0, len(frame), 40):  # Arrow gives each row group its own dictionary
            part = pa.array(names[i : i + 40]).dictionary_encode()
            file.write_table(table.slice(i, 40).append_column("note", part).cast(schema))
    predict_file(model, path, out, copy=["note"], say=quiet)
    assert pyarrow.feather.read_table(out)["note"].to_pylist() == names


def test_a_list_is_not_copied_to_a_csv(model: TableModel, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = write(frame.assign(parts=[[1, 2]] * len(frame)), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"--copy=parts holds list<.*, which a CSV cannot"):
        predict_file(model, path, tmp_path / "p.csv", copy=["parts"], say=quiet)
    predict_file(model, path, tmp_path / "p.parquet", copy=["parts"], say=quiet)
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet")["parts"].to_pylist() == [[1, 2]] * len(frame)


def test_small_errors_do_not_hide_narrow_intervals() -> None:
    y = RNG.normal(size=80)
    one = Held(ONE, y + 1.0)

    def judged(half: float) -> str:
        guess = y + 0.1 * RNG.normal(size=80)
        interval = np.stack([guess - half, guess + half], axis=1)
        return verdict([Held(MIXTURE, guess, interval=interval), one], y, np.ones(80), 2).text

    assert "The mixture helps" in judged(0.05)
    assert "But do not trust its intervals: those of 90% hold" in judged(0.05)
    assert "intervals" not in judged(0.3)


def test_warnings_speak_of_flags(tmp_path: Path) -> None:
    table = pd.DataFrame(RNG.normal(size=(40, 8)), columns=list("abcdefgy"))
    model = fitted(write(table, tmp_path / "few.csv"), experts=3)
    assert any("--experts" in one for one in model.warnings)
    assert not any("n_experts" in one or "alpha" in one for one in model.warnings)
    x = RNG.uniform(-3, 3, 120).round(3)  # with no noise, six experts end at the floor of the variance
    table = pd.DataFrame({"x": x, "y": np.where(x > 0, 3 * x, -2 * x)})
    for warning in fitted(write(table, tmp_path / "exact.csv"), experts=6).warnings:
        assert warning.endswith("more rows, fewer --experts, or fewer inputs (--drop) may do better")
        assert not any(word in warning for word in ("n_experts", "alpha", "max_iter or", "variance_floor"))


@pytest.mark.parametrize("kind", [DegenerateExpertWarning, FewCasesWarning, ConvergenceWarning])
def test_advice_of_a_warning_is_that_of_the_command(kind: type[Warning]) -> None:
    texts = {
        DegenerateExpertWarning: "fitted 3 instead. More rows, alpha > 0 or fewer n_experts would avoid this",
        FewCasesWarning: "few cases per expert (expert 0: 2 cases for 3); compare with n_experts=1",
        ConvergenceWarning: "EM did not converge in max_iter=9 iterations; raise max_iter or tol=0.1",
    }
    found = saying.of_warning(kind(texts[kind]))
    assert found.endswith("; more rows, fewer --experts, or fewer inputs (--drop) may do better")
    assert not any(word in found for word in ("n_experts", "alpha", "raise"))


# -- what stands in the file


def test_spaces_around_names_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a, b ,"c, d"\n1, 2, 3\n')
    assert read_table(path).column_names == ["a", "b", "c, d"]
    path.write_text("a, a\n1, 2\n")
    with pytest.raises(ValueError, match="more than one column named 'a'"):
        read_table(path)


@pytest.mark.parametrize("row", [1, 150_000])
def test_a_short_row_is_named_wherever_it_is(tmp_path: Path, row: int) -> None:
    lines = ["a,b"] + ["1.25,2.25"] * 200_000
    lines[row + 1] = "1"
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"counted from 0, without the header, this is row {row}$"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("x", "y", "t.csv, row 7, column 'x': 1e+31 is too large; numbers up to 1e+30 are fitted"),
        ("y", "y", "t.csv, row 7, column 'y': 1e+31 is too large; numbers up to 1e+30 are fitted"),
    ],
)
def test_a_number_that_overflows_is_named(tmp_path: Path, name: str, target: str, message: str) -> None:
    table = numbers()
    table.loc[7, name] = 1e31
    with pytest.raises(ValueError, match="^" + message.replace("+", r"\+")):
        fitted(write(table, tmp_path / "t.csv"), target)


def test_dressed_numbers_are_told_how_to_be_written(tmp_path: Path) -> None:
    table = numbers()
    table["price"] = [f"${1000 * value:,.2f}" for value in table["x"]]
    path = write(table, tmp_path / "t.csv")
    written = f"{1000 * table['x'][0]:.2f}"
    hint = f"where '{table['price'][0]}' is a number, write {written}"
    assert f"id-like (60 different values in 60 rows; --keep=price takes it; {hint})" in said(path)
    for task in ("auto", "regression"):
        with pytest.raises(ValueError) as error:
            fitted(path, "price", task=task)
        assert hint in str(error.value)
    table["price"] = table["x"].astype(str)
    table.loc[3, "price"] = "1,234"
    with pytest.raises(ValueError, match=r"row 3, column 'price'.*where '1,234' is a number, write 1234$"):
        fitted(write(table, tmp_path / "t.csv"))


def test_the_target_cannot_be_dropped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--drop names the target 'y', which is no input"):
        fitted(write(numbers(), tmp_path / "t.csv"), wishes=Wishes(drop=("y",)))


# -- the page


def test_a_page_says_which_rows_were_scored(model: TableModel, file: Path, tmp_path: Path) -> None:
    assert model.kept is not None
    own = record(model, model.kept, "rows")
    assert own.measured == ""
    assert record(model, replace(model.kept, of=len(model.kept.y) + 1), "some").measured != ""

    other = write(bent(50, seed=3).drop(columns="y"), tmp_path / "new.csv")
    page = write_page(model, tmp_path / "new.html", other).read_text(encoding="utf8")
    assert "On held-out rows of bent.parquet." in page
    assert "On 50 rows of new.csv" not in page
    assert "has the name of the table of the fit" not in page
    page = write_page(model, tmp_path / "same.html", file).read_text(encoding="utf8")
    assert "bent.parquet has the name of the table of the fit. Rows that the fit saw make errors" in page


# -- the commands


def test_the_next_command_names_a_table_where_the_model_keeps_no_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(numbers(), tmp_path / "t.csv"), tmp_path / "m.skops"
    for flags, table in (([], ""), (["--test=0"], f" {path}"), (["--no-keep-rows"], f" {path}")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["fit", str(path), "--target=y", "--experts=1", f"--out={out}", *flags])
        assert ended.value.code == 0
        page = out.with_suffix(".html")
        assert capsys.readouterr().out.endswith(f"next: expertise report {out}{table} --out={page}\n")


def test_one_expert_is_not_they(tmp_path: Path) -> None:
    path = write(numbers(), tmp_path / "t.csv")
    assert "fitted: 1 expert (gaussian); it decides for all rows" in said(path, experts=1)
    assert "fitted: 2 experts (gaussian), gate softmax; they decide for " in said(path)


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    path, out = write(numbers(), tmp_path / "t.csv"), tmp_path / "m.skops"
    fit_table(path, Request("y", experts=1), say=quiet).save(out)
    command = [sys.executable, "-m", "expertise", "explain", str(out), str(path), "--row=0,1,2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        error = process.stderr.read()
        assert process.wait(60) == 141
    assert error == ""
