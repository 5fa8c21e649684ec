"""The commands for tables: from a file to a model, predictions, a page; and all that goes wrong."""

import inspect
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from expertise import cli
from expertise.cli import table as commands
from expertise.table import load_model, streamed
from table.making import bent, same_answers, thin, write


@pytest.fixture(autouse=True, scope="module")
def _thin() -> Iterator[None]:
    with thin():
        yield


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(one) for one in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with one line on standard error; give the line."""
    capsys.readouterr()
    assert run(*arguments) in (1, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    line = error.splitlines()[-1]
    assert line.startswith("expertise: ")
    return line


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(bent(), tmp_path_factory.mktemp("cli") / "cars.csv")


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    path = data.with_name("model.skops")
    assert run("fit", data, "--target=y", "--experts=2", f"--out={path}") == 0
    return path


def test_from_a_file_to_a_page(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("fit", data, "--target=y") == 0  # two experts, as BIC says
    told = capsys.readouterr()
    assert told.out.startswith("cars.csv: 160 rows; predict y (regression)\n")
    assert "held-out rows" in told.out
    assert "The mixture helps" in told.out
    assert told.out.endswith("wrote model.skops; next: expertise report model.skops --out=model.html\n")
    assert "fit: " in told.err  # the progress

    assert run("predict", "model.skops", data) == 0
    assert capsys.readouterr().out == "wrote 160 predictions to predictions.parquet\n"
    found = pq.read_table("predictions.parquet").to_pandas()
    frame = bent()
    expected = load_model("model.skops").predict(frame)
    same_answers(expected, {name: found[name].to_numpy() for name in found})

    assert run("explain", "model.skops", data, "--row=3") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"row 3: y is predicted as {expected['prediction'][3]:.6g}, 90 % between ")
    assert f"who decided: expert {expected['expert'][3]}, with a weight of " in text

    assert run("report", "model.skops") == 0
    assert capsys.readouterr().out == "wrote report.html; open it in a browser\n"
    assert "cars.csv" in Path("report.html").read_text(encoding="utf-8")
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "model.skops",
        "predictions.parquet",
        "report.html",
    ]


def test_every_flag_of_fit_reaches_the_request(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    kept: dict[str, Any] = {}

    class Stop(Exception):  # noqa: N818
        pass

    def keep(path: Path, request: Any, **options: Any) -> Any:
        kept.update(request=request, **options)
        raise Stop

    monkeypatch.setattr("expertise.table.fitting.fit_table", keep)
    flags = (
        "--task=regression --experts=3 --expert=student_t --gate=gaussian --gate-features=x,colour "
        "--weights=w --groups=g --test=0.3 --seed=7 --categories=a --keep=b,c --drop=d --missing=-999,gone "
        "--encoding=latin-1 --no-keep-rows"
    )
    with pytest.raises(Stop):
        cli.main(["fit", str(data), "--target=y", *flags.split(), f"--out={tmp_path / 'm.skops'}"])
    found = kept["request"]
    assert kept["encoding"] == "latin-1"
    assert (found.target, found.task, found.experts, found.expert) == ("y", "regression", 3, ("student_t",))
    assert (found.gate, found.gate_features, found.weights, found.groups) == (
        "gaussian",
        ("x", "colour"),
        "w",
        "g",
    )
    assert (found.test, found.seed, found.keep_rows) == (0.3, 7, False)
    wishes = found.wishes
    assert (wishes.categories, wishes.keep, wishes.drop) == (("a",), ("b", "c"), ("d",))
    assert wishes.missing == ("-999", "gone")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("a", ("a",)),
        (" a , b,, c ", ("a", "b", "c")),
        ('"a, b",c', ("a, b", "c")),
        ('c, "say ""no"""', ("c", 'say "no"')),
    ],
)
def test_lists_of_names(text: str, names: tuple[str, ...]) -> None:
    assert commands._names(text) == names


def test_columns_with_commas_quotes_and_umlauts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = bent(80).rename(
        columns={"x": "länge, cm", "colour": 'the "colour"', "size": "no use", "y": "a b"}
    )
    path = write(frame, tmp_path / "t.csv")
    out = tmp_path / "m.skops"
    flags = ['--drop="no use"', '--gate-features="länge, cm","the ""colour"""', "--target=a b"]
    assert run("fit", path, *flags, "--experts=2", f"--out={out}") == 0
    assert "left out       no use: dropped, as --drop says" in capsys.readouterr().out
    found = load_model(out)
    assert [one.name for one in found.encoder.columns] == ["länge, cm", 'the "colour"', "day", "open"]
    assert run("explain", out, path) == 0
    assert "länge, cm" in capsys.readouterr().out


def test_predictions_with_what_they_belong_to(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    assert run("predict", model, data, f"--out={out}", "--copy=colour,x", "--coverage=0.5") == 0
    found = pd.read_csv(out)
    assert list(found)[:5] == ["colour", "x", "prediction", "lower", "upper"]
    np.testing.assert_array_equal(found["x"], bent()["x"])
    np.testing.assert_array_equal(found["lower"], load_model(model).predict(bent(), coverage=0.5)["lower"])


def test_new_categories_and_marks_of_missing_values(model: Path, tmp_path: Path, capsys: Any) -> None:
    frame = bent()
    frame.loc[5, "colour"] = "violet"
    frame["size"] = frame["size"].fillna(-999)
    path, out = write(frame, tmp_path / "t.csv"), tmp_path / "p.parquet"
    line = fails(capsys, "predict", model, path, f"--out={out}")
    assert "t.csv, row 5, column 'colour': 'violet' is a category that the fit never saw" in line
    assert not out.exists()
    flags = ("--new-categories=missing", "--missing=-999.0")
    assert run("predict", model, path, f"--out={out}", *flags) == 0
    expected = bent()
    expected.loc[5, "colour"] = None
    found = pq.read_table(out).to_pandas()
    np.testing.assert_array_equal(found["prediction"], load_model(model).predict(expected)["prediction"])
    assert run("explain", model, path, "--row=5,6", *flags) == 0
    assert "size  " in capsys.readouterr().out


@pytest.mark.slow
def test_a_page_of_another_table(model: Path, tmp_path: Path, capsys: Any) -> None:
    path, out = write(bent(50, seed=1), tmp_path / "new.parquet"), tmp_path / "page.html"
    assert run("report", model, path, f"--out={out}") == 0
    assert "50 rows of new.parquet" in out.read_text(encoding="utf-8")


def test_streams(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = write(bent(200), tmp_path / "t.parquet"), tmp_path / "m.skops"
    assert run("fit", path, "--target=y", "--experts=2", "--stream", f"--out={out}") == 0
    assert "streamed: kinds, missing values and baselines are of a sample of" in capsys.readouterr().out
    asked = load_model(out)
    assert run("fit", path, "--target=y", "--experts=2", f"--out={out}") == 0
    assert "streamed" not in capsys.readouterr().out
    monkeypatch.setattr(streamed, "free_memory", lambda: 1000.0)
    assert run("fit", path, "--target=y", "--experts=2", f"--out={out}") == 0
    assert "streamed" in capsys.readouterr().out
    same_answers(asked.predict(bent(200)), load_model(out).predict(bent(200)))


@pytest.mark.slow
def test_a_real_table_with_the_settings_that_users_have(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Athletes: their body fat by measurements, sex and sport; all starts, real boosting."""
    path, out = data_dir / "regimes" / "ais.csv", tmp_path / "ais.skops"
    work = [sys.executable, "-m", "expertise", "fit", str(path), "--target=Bfat", f"--out={out}"]
    done = subprocess.run(work, capture_output=True, text=True, check=True)
    assert "categories    2  sex (2), sport (10)" in done.stdout
    model = load_model(out)
    mixture = model.scores[0][1]["R2"]
    assert mixture is not None
    assert mixture > 0.9
    assert model.verdict in done.stdout
    assert run("explain", out, path, "--row=3") == 0
    assert run("predict", out, path, f"--out={tmp_path / 'p.csv'}") == 0
    assert run("report", out, f"--out={tmp_path / 'p.html'}") == 0


# -- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "fit needs a DATA first; for instance: expertise fit cars.csv --target=price"),
        (["fit", "t.csv"], "fit needs --target=...; for instance: expertise fit cars.csv --target=price"),
        (
            ["fit", "t.csv", "--targt=y"],
            "fit has no flag --targt; the nearest is --target; all are --target, ",
        ),
        (["fit", "t.csv", "u.csv", "--target=y"], "'u.csv' is too much for fit"),
        (["fit", "t.csv", "--target=y", "--target=z"], "--target is given twice, now as 'z'; give it once"),
        (["fit", "t.csv", "--target=y", "--test=half"], "--test: 'half' is not a number"),
        (["fit", "t.csv", "--target=y", "--seed=1.5"], "--seed: '1.5' is not a whole number"),
        (["predict", "--cover=.5"], "predict has no flag --cover; the nearest is --coverage"),
        (["predict", "m.skops"], "predict needs a DATA first; for instance: expertise predict model.skops"),
        (["explain", "m.skops", "t.csv", "--rows=3"], "explain has no flag --rows; the nearest is --row"),
        (["report"], "report needs a MODEL first; for instance: expertise report model.skops"),
        (
            ["fitt", "t.csv"],
            "there is no command 'fitt'; did you mean fit?; known are fit, predict, explain, ",
        ),
        (["--target=y"], "there is no command '--target=y'"),
    ],
)
def test_a_wrong_command_line(capsys: Any, arguments: list[str], message: str) -> None:
    capsys.readouterr()
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "{none}.csv", "--target=y"], "none.csv is not there; give the path of a table"),
        (["fit", "{data}", "--target=z"], "--target=z: cars.csv has no such column"),
        (["fit", "{data}", "--target=y", "--out={tmp}/m.pkl"], "/m.pkl must end in .skops"),
        (["fit", "{data}", "--target=y", "--out={data}/m.skops"], "is no folder that can be written to"),
        (["fit", "{data}", "--target=y", "--experts=few"], "--experts=few is no whole number"),
        (["fit", "{data}", "--target=y", "--stream"], "--stream reads Parquet; cars.csv is none"),
        (["fit", "{data}", "--target=y", "--encoding=utf9"], "--encoding=utf9 is unknown; try utf8"),
        (["predict", "{none}.skops", "{data}"], "none.skops is not there; give the file of a fitted model"),
        (["predict", "{data}", "{data}"], "cars.csv is no skops file"),
        (
            ["predict", "{model}", "{data}", "--out={tmp}/p.txt"],
            "/p.txt must end in one of .parquet, .feather",
        ),
        (
            ["predict", "{model}", "{data}", "--new-categories=no"],
            "--new-categories=no is unknown; known are",
        ),
        (
            ["predict", "{model}", "{data}", "--out={tmp}/p.csv", "--coverage=90"],
            "coverage must be one number",
        ),
        (["explain", "{model}", "{data}", "--row=160"], "--row=160: cars.csv has the rows 0 to 159"),
        (["explain", "{model}", "{data}", "--row=three"], "--row=three is no whole number"),
        (["explain", "{model}", "{data}", "--row="], "--row= names no row; rows count from 0, as --row=0,3"),
        (["report", "{model}", "--out={tmp}/page.pdf"], "/page.pdf must end in .html"),
        (["report", "{tmp}", "{data}", "--out={tmp}/p.html"], "is a folder: a run needs no table, but got"),
    ],
)
def test_a_wrong_value_is_one_line_and_writes_nothing(
    model: Path, data: Path, tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    places = {"model": model, "data": data, "tmp": tmp_path, "none": tmp_path / "none"}
    before = data.read_bytes(), model.read_bytes()
    assert message in fails(capsys, *(one.format(**places) for one in arguments))
    assert list(tmp_path.iterdir()) == []
    assert (data.read_bytes(), model.read_bytes()) == before


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.skops").mkdir()
    assert "it is a folder" in fails(capsys, "fit", data, "--target=y", f"--out={tmp_path / 'm.skops'}")
    monkeypatch.setattr(commands.os, "access", lambda *_: False)
    line = fails(capsys, "fit", data, "--target=y", f"--out={tmp_path / 'new' / 'm.skops'}")
    assert f"cannot be written: {tmp_path} is no folder that can be written to" in line
    assert not (tmp_path / "new").exists()


def test_an_error_in_the_middle_leaves_the_old_model(
    data: Path, model: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.skops"
    out.write_text("the old one")
    for error, code in ((ValueError("no good"), 1), (KeyboardInterrupt(), 130)):

        def stop(*_: Any, error: BaseException = error, **__: Any) -> Any:
            raise error

        monkeypatch.setattr("expertise.table.fitting.judge", stop)
        assert run("fit", data, "--target=y", "--experts=1", f"--out={out}") == code
        told = capsys.readouterr().err.splitlines()[-1]
        assert told == ("expertise: interrupted" if code == 130 else "expertise: no good")
        assert out.read_text() == "the old one"
        assert list(tmp_path.iterdir()) == [out]


def test_ctrl_c_in_a_long_fit(tmp_path: Path) -> None:
    """A process of its own is interrupted while EM runs: it says so, and leaves nothing."""
    frame = bent(20_000)
    path, out = write(frame, tmp_path / "t.parquet"), tmp_path / "m.skops"
    work = [sys.executable, "-m", "expertise", "fit", str(path), "--target=y", "--experts=6", f"--out={out}"]
    with subprocess.Popen(work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:  # the last line before the fit
            if line.startswith("fit: 16,000 rows"):
                break
        time.sleep(0.5)
        assert process.poll() is None, "the fit has ended before it could be interrupted"
        process.send_signal(signal.SIGINT)
        out_rest, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "expertise: interrupted"
    assert "Traceback" not in error + out_rest
    assert [one.name for one in tmp_path.iterdir()] == ["t.parquet"]


def test_without_the_extra_the_extra_is_named(
    data: Path, model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pyarrow", "skops"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            for arguments in (
                ["fit", data, "--target=y"],
                ["predict", model, data],
                ["explain", model, data],
            ):
                line = fails(capsys, *arguments)
                assert f"'{module}'" in line
                assert "pip install 'expertise[table]'" in line


# -- help


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_help_shows_every_flag_and_an_example(
    command: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    cli._app()([command, "--help"])
    shown = capsys.readouterr().out
    for name, parameter in inspect.signature(commands.COMMANDS[command]).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert f"--{name.replace('_', '-')}" in shown, name
    assert f"Example: {commands.EXAMPLES[command]}" in shown
    documented = inspect.getdoc(commands.COMMANDS[command])
    assert documented
    assert documented.splitlines()[0].rstrip(".") in re.sub(r"\s+", " ", shown)


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_examples_name_flags_that_there_are(command: str) -> None:
    example = commands.EXAMPLES[command].split()
    assert example[:2] == ["expertise", command]
    for word in example[2:]:
        if word.startswith("--"):
            flag = word.split("=")[0].lstrip("-").replace("-", "_")
            assert flag in commands.COMMANDS[command].__code__.co_varnames
