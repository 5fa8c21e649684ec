"""The flag table: frozen, and every rule that is read from it."""

import json
from pathlib import Path

import pytest

from expertise.youtube8m import flags as table
from expertise.youtube8m.flag_rules import check, choose, compare, unknown_flag
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import MODELS
from youtube8m import flag_page

# name: default. The first block is google/youtube-8m's, the second what it lacked.
REFERENCE = {
    "train_dir": "/tmp/yt8m_model/",
    "train_data_pattern": "",
    "feature_names": "mean_rgb",
    "feature_sizes": "1024",
    "frame_features": False,
    "segment_labels": False,
    "model": "LogisticModel",
    "start_new_model": False,
    "num_gpu": 1,
    "batch_size": 1024,
    "label_loss": "CrossEntropyLoss",
    "regularization_penalty": 1.0,
    "base_learning_rate": 0.01,
    "learning_rate_decay": 0.95,
    "learning_rate_decay_examples": 4000000,
    "num_epochs": 5,
    "max_steps": None,
    "export_model_steps": 1000,
    "num_readers": 8,
    "optimizer": "AdamOptimizer",
    "clip_gradient_norm": 1.0,
    "log_device_placement": False,
    "eval_data_pattern": "",
    "run_once": False,
    "top_k": 20,
    "input_data_pattern": "",
    "input_model_tgz": "",
    "output_file": "",
    "output_model_tgz": "",
    "segment_max_pred": 100000,
    "segment_label_ids_file": "",
    "moe_num_mixtures": 2,
    "iterations": 30,
    "dbof_add_batch_norm": True,
    "sample_random_frames": True,
    "dbof_cluster_size": 8192,
    "dbof_hidden_size": 1024,
    "dbof_pooling_method": "max",
    "dbof_activation": "sigmoid",
    "video_level_classifier_model": "MoeModel",
    "lstm_cells": 1024,
    "lstm_layers": 2,
}
ADDED = {
    "vocabulary": "",
    "num_classes": 3862,
    "max_frames": 300,
    "cache_dir": "auto",
    "skip_corrupt_records": False,
    "moe_l2": 1e-8,
    "moe_rank": 512,
    "recipe": "stable",
    "precision": "fp32",
    "compile": "auto",
    "seed": 0,
    "device": "auto",
    "output_dir": "",
    "output_format": "",
    "dropout": 0.0,
    "context_gating_rank": 128,
    "chain_stages": 2,
    "chain_size": 256,
    "chain_loss": 0.2,
    "input_dropout": 0.0,
    "shared_expert_size": 1024,
    "shared_expert_layers": 1,
    "memory_videos": 0,
    "memory_neighbours": 60,
    "memory_weight": 0.3,
    "memory_temperature": 0.04,
    "dbof_random_evaluation": False,
    "gru_cells": 1024,
    "gru_layers": 2,
    "netvlad_cluster_size": 256,
    "netvlad_hidden_size": 1024,
    "nextvlad_cluster_size": 128,
    "nextvlad_groups": 8,
    "nextvlad_expansion": 2,
    "nextvlad_hidden_size": 1024,
    "nextvlad_reduction": 8,
    "attention_heads": 8,
    "attention_size": 256,
    "frame_moe_experts": 8,
    "frame_moe_k": 2,
    "frame_moe_hidden": 512,
    "frame_moe_balance": 0.01,
    "ema_decay": 0.0,
    "mixup": 0.0,
    "teacher": "",
    "teacher_weight": 0.5,
    "videos_per_shard": 1000,
}
BY_COMMAND = {("infer", "batch_size"): 512, ("infer", "num_readers"): 1}


def test_the_table_is_frozen() -> None:
    assert {name: getattr(Flags, name) for name in table.ENTRIES} == REFERENCE | ADDED


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = {"~/run": "/home/me/run", "~": "/home/me", "a,~/b, ~/c": "a,/home/me/b,/home/me/c"}
    for value, expected in (given | {name: name for name in ("a~/b", "~x/run", "a/~/b", "a, b")}).items():
        for name in ("train_dir", "vocabulary", "teacher"):
            assert getattr(Flags(**{name: value}), name) == expected


def test_defaults_of_single_commands_are_the_references() -> None:
    for (command, name), value in BY_COMMAND.items():
        assert table.default(name, command) == value
    assert table.default("batch_size", "eval") == 1024
    assert table.default("num_readers", "eval") == 8


def test_the_page_of_the_flags_is_made_from_the_table() -> None:
    assert flag_page.PAGE.read_text() == flag_page.page(), "run python tests/youtube8m/flag_page.py"


def test_every_entry_is_whole() -> None:
    for name, entry in table.ENTRIES.items():
        assert entry.role in table.ROLES, name
        assert entry.commands, name
        assert set(entry.commands) <= set(table.COMMANDS), name
        assert entry.help.endswith("."), name
        assert entry.resume in (table.SAME, table.SAID, table.FREE), name
        assert set(entry.required) <= set(entry.commands), name


def test_commands_read_what_the_reference_reads() -> None:
    assert {"train_dir", "eval_data_pattern", "batch_size", "num_readers", "run_once", "top_k"} <= set(
        table.of_command("eval")
    )
    assert "model" not in table.of_command("eval"), "it comes from model_flags.json"
    assert {"input_data_pattern", "output_file", "top_k", "input_model_tgz"} <= set(table.of_command("infer"))


@pytest.mark.parametrize(
    ("flags", "command", "message"),
    [
        (Flags(), "train", "--train_data_pattern is required by train"),
        (Flags(), "eval", "--eval_data_pattern is required by eval"),
        (Flags(input_data_pattern="x"), "infer", "--output_file is required by infer"),
        (Flags(train_data_pattern="x", batch_size=0), "train", "--batch_size=0: must be at least 1"),
        (Flags(train_data_pattern="x", base_learning_rate=float("nan")), "train", "must be a finite number"),
        (Flags(train_data_pattern="x", clip_gradient_norm=float("inf")), "train", "must be a finite number"),
        (Flags(train_data_pattern="x", seed=2**64), "train", "must be less than 2\\^62"),
        (Flags(train_data_pattern="x", precision="fp8"), "train", "allowed are fp32, bf16"),
        (Flags(train_data_pattern="x", lstm_cells=0), "train", "--lstm_cells=0: must be at least 1"),
        (Flags(train_data_pattern="x", dropout=1.0), "train", "--dropout=1.0: must be at most 0.95"),
    ],
)
def test_wrong_values_are_named(flags: Flags, command: str, message: str) -> None:
    with pytest.raises(FlagError, match=message):
        check(flags, command)


def test_defaults_pass_every_command() -> None:
    for command in table.COMMANDS:
        needed = {name: "x" for name, entry in table.ENTRIES.items() if command in entry.required}
        check(Flags(**needed), command)


def test_unknown_flags() -> None:
    assert unknown_flag("train_data_patern", "train").endswith("nearest is --train_data_pattern")
    assert unknown_flag("noframe_feature", "train").endswith("nearest is --frame_features")
    assert "use --frame_features" in unknown_flag("reader_type", "train")
    assert unknown_flag("top_k", "train") == "--top_k is not read by train, but by eval, infer"


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(FlagError, match=r"known are LogisticModel, MoeModel, .*; the nearest is MoeModel"):
        choose("model", "MoeModle", MODELS)


def test_what_must_stay_the_same_is_refused_with_both_values() -> None:
    before = {"batch_size": 1024, "model": "MoeModel", "num_epochs": 5}
    with pytest.raises(FlagError, match=r"--batch_size was 1024, now 512.*--start_new_model"):
        compare(before, Flags(batch_size=512, model="MoeModel"))


def test_what_may_change_is_said() -> None:
    assert compare({"num_epochs": 5, "num_readers": 8}, Flags(num_epochs=7, num_readers=2)) == [
        "--num_epochs was 5, now 7: taken"
    ]


def test_model_flags_keep_everything(tmp_path: Path) -> None:
    flags = ModelFlags(
        model="MoeModel", feature_names=("mean_rgb", "mean_audio"), feature_sizes=(64, 16), num_classes=2,
        class_names=("a", "b"), options=Flags(moe_num_mixtures=5, dropout=0.5),
    )  # fmt: skip
    flags.write(tmp_path / "model_flags.json")
    assert ModelFlags.read(tmp_path / "model_flags.json") == flags
    assert flags.input_size == 80


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not hold"),
        ('{"model": 1}', "does not hold"),
        (None, "is not there"),
        ("[]", "does not hold"),
    ],
)
def test_model_flags_that_can_not_be_read(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "model_flags.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FlagError, match=message):
        ModelFlags.read(path)


def test_model_flags_with_an_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "model_flags.json"
    values = {"model": "M", "feature_names": [], "feature_sizes": [], "num_classes": 1, "class_names": []}
    path.write_text(json.dumps({**values, "surprise": 1}))
    with pytest.raises(FlagError, match="surprise"):
        ModelFlags.read(path)
