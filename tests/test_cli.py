"""The command line: every way to write a flag, every way to write it wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from expertise import cli
from expertise.youtube8m import flags as table
from expertise.youtube8m.flags import Flags


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Flags]:
    """Commands that keep their flags instead of working."""
    kept: dict[str, Any] = {}

    def keep(command: str) -> Any:
        def run(*arguments: Any) -> int:
            kept[command] = arguments[-1]
            kept["folder"] = arguments[0] if len(arguments) > 1 else None
            return 0

        return run

    monkeypatch.setattr(cli.youtube8m, "_RUN", {name: keep(name) for name in table.COMMANDS})
    return kept


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["youtube8m", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    "arguments",
    [
        ["--train_data_pattern=a,b*"],
        ["--train_data_pattern", "a,b*"],
        ["--train-data-pattern=a,b*"],
        ["--train-data-pattern", "a,b*"],
    ],
)
def test_both_spellings_of_a_flag(given: dict[str, Flags], arguments: list[str]) -> None:
    assert run("train", *arguments) == 0
    assert given["train"].train_data_pattern == "a,b*"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--frame_features", True),
        ("--frame-features", True),
        ("--frame_features=True", True),
        ("--frame_features=true", True),
        ("--frame_features=False", False),
        ("--noframe_features", False),
        ("--sample_random_frames=False", False),
        ("--nosample_random_frames", False),
    ],
)
def test_booleans(given: dict[str, Flags], argument: str, value: bool) -> None:
    assert run("train", argument) == 0
    name = argument.lstrip("-").split("=")[0].replace("-", "_").removeprefix("no")
    assert getattr(given["train"], name) is value


def test_types_and_defaults(given: dict[str, Flags]) -> None:
    assert run("train", "--max_steps=7", "--base_learning_rate=1e-3", "--clip_gradient_norm=-1") == 0
    flags = given["train"]
    assert (flags.max_steps, flags.base_learning_rate, flags.clip_gradient_norm) == (7, 0.001, -1.0)
    assert flags.batch_size == 1024
    run("infer", "--input_data_pattern=x")
    assert (given["infer"].batch_size, given["infer"].num_readers) == (512, 1)
    run("sample", "somewhere", "--seed=3")
    assert given["folder"] == Path("somewhere")
    assert given["sample"].seed == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--train_data_patern=x"], "the nearest is --train_data_pattern"),
        (["train", "--batchsize", "3"], "train has no flag --batchsize; the nearest is --batch_size"),
        (["train", "--reader_type=x"], "use --frame_features"),
        (["train", "--top_k=3"], "--top_k is not read by train, but by eval, infer"),
        (["train", "--max_steps=many"], "'many' is not a whole number"),
        (["train", "--batch_size=1.5"], "'1.5' is not a whole number"),
        (["train", "--frame_features", "True"], "did you mean --frame_features=True?"),
        (["train", "file.tfrecord"], "'file.tfrecord' is not a flag"),
        (["trian"], "youtube8m has no command 'trian'; the nearest is train"),
        (["train", "--frame_features=maybe"], "--frame_features: 'maybe' is not True or False"),
        (["train", "--mixup=much"], "--mixup: 'much' is not a number"),
        (["train", "--base-learning-rate=fast"], "--base-learning-rate: 'fast' is not a number"),
        (["train", "--seed=1", "--seed=2"], "--seed is given twice, now as '2'; give it once"),
        (["train", "--seed=1", "--batch_size"], "--batch_size has no value; give one as --batch_size=VALUE"),
        (["sample"], "sample needs the FOLDER to make; for instance: expertise youtube8m sample digits"),
        (["sample", "--output_dir=d"], "--output_dir is not read by sample, but by pack, convert, export"),
        (["sample", "--sed=3"], "sample has no flag --sed; the nearest is --seed"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "--train_data_pattern is required by train"),
        (
            ["train", "--train_data_pattern=/x*", "--frame_features"],
            "--train_data_pattern='/x*': no file matches",
        ),
        (["train", "--train_data_pattern=/no/such*", "--model=MoModel"], "the nearest is MoeModel"),
        (["train", "--train_data_pattern=/no/such*"], "no file matches"),
        (["eval", "--eval_data_pattern=x", "--train_dir=/no/such", "--run_once"], "/no/such"),
        (["infer", "--input_data_pattern=x"], "--output_file is required"),
        (["export", "--train_dir=/no/such"], "/no/such"),
        (["convert", "--input_data_pattern=x"], "--output_dir is required"),
    ],
)
def test_a_wrong_value_ends_with_one_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.startswith("expertise: ")


def test_an_unknown_room(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["youtube9m"])
    assert (
        "there is no command 'youtube9m'; did you mean youtube8m?; known are fit, predict, explain, report"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", table.COMMANDS)
def test_help_shows_every_flag_its_default_and_an_example(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    cli._app()(["youtube8m", command, "--help"])
    shown = capsys.readouterr().out
    for name in table.of_command(command):
        assert f"--{name}" in shown, name
    assert f"Example: expertise youtube8m {command}" in shown
    assert "[default: " in shown


def test_ctrl_c_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(flags: Flags) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.youtube8m._RUN, "infer", interrupted)
    assert run("infer") == 130
    assert capsys.readouterr().err == "expertise: interrupted\n"


def test_help_says_what_the_folder_of_sample_is(capsys: pytest.CaptureFixture[str]) -> None:
    cli._app()(["youtube8m", "sample", "--help"])
    assert "The folder to make; it must not exist, or be empty." in " ".join(capsys.readouterr().out.split())


def test_commands_that_need_torch_name_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("eval", "--eval_data_pattern=x") == 1
    assert "pip install 'expertise[youtube8m]'" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "expertise", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0.1.0"
