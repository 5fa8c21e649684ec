"""Inference: the reference's CSV, Parquet, archives of models, and files that are whole or not there."""

import csv
import gzip
import itertools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from expertise.youtube8m import checkpoint
from expertise.youtube8m import infer as module
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.infer import best_classes, format_lines, infer
from expertise.youtube8m.loading import load_model
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import build_model
from expertise.youtube8m.readers import read_batches
from expertise.youtube8m.records import RecordError, encode_example, write_records


def write_export(train_dir: Path, step: int, name: str = "MoeModel") -> None:
    flags = ModelFlags(
        model=name,
        feature_names=("mean_rgb", "mean_audio"),
        feature_sizes=(6, 2),
        num_classes=5,
        class_names=(),
    )
    model = build_model(flags)
    model.reset(torch.Generator().manual_seed(step), scale=20.0)
    checkpoint.save(train_dir, step, model, torch.optim.SGD(model.parameters()), {}, flags)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one export, of step 4."""
    write_export(tmp_path / "run", 4)
    return tmp_path / "run"


def infer_flags(tiny: Any, run: Path, output: str, **changes: Any) -> Flags:
    values = {
        "train_dir": str(run),
        "input_data_pattern": tiny.validate,
        "output_file": str(run.parent / output),
        "cache_dir": str(tiny.folder / "cache"),
        "num_readers": 1,
        "device": "cpu",
        "batch_size": 64,
        "top_k": 3,
    }
    return Flags(**(values | changes))


def expected(tiny: Any, run: Path) -> tuple[list[str], torch.Tensor]:
    batches = read_batches(
        tiny.validate, feature_sizes="6,2", num_classes=5, batch_size=1000, cache_dir="none"
    )
    batch = next(iter(batches))
    return batch.ids, load_model(run, device="cpu").predict(batch.features)


def parse(text: str) -> dict[str, list[tuple[int, float]]]:
    header, *lines = text.splitlines()
    assert header == "VideoId,LabelConfidencePairs"
    result = {}
    for line in lines:
        video, pairs = line.split(",")
        words = pairs.split(" ")
        result[video] = [(int(c), float(score)) for c, score in zip(words[::2], words[1::2], strict=True)]
    assert len(result) == len(lines)
    return result


def check_pairs(
    rows: dict[str, list[tuple[int, float]]], ids: list[str], predictions: torch.Tensor, top_k: int
) -> None:
    assert list(rows) == ids
    for pairs, row in zip(rows.values(), predictions.tolist(), strict=True):
        best = sorted(range(5), key=lambda c, row=row: -row[c])[:top_k]
        assert [c for c, _ in pairs] == best
        assert [score for _, score in pairs] == pytest.approx([row[c] for c in best], rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"batch_size": 1}, {"cache_dir": "none", "num_readers": 2}])
def test_csv(tiny: Any, run: Path, changes: dict[str, Any]) -> None:
    assert infer(infer_flags(tiny, run, "out.csv", **changes)) == 200
    text = (run.parent / "out.csv").read_text()
    assert text.endswith("\n")
    check_pairs(parse(text), *expected(tiny, run), top_k=3)


def test_a_name_of_no_known_end_is_csv(tiny: Any, run: Path) -> None:
    infer(infer_flags(tiny, run, "predictions"))
    check_pairs(parse((run.parent / "predictions").read_text()), *expected(tiny, run), top_k=3)


def test_gzip_holds_the_same_bytes_and_is_the_same_every_time(tiny: Any, run: Path) -> None:
    for name in ("out.csv", "out.csv.gz", "again.csv.gz"):
        infer(infer_flags(tiny, run, name))
    zipped = (run.parent / "out.csv.gz").read_bytes()
    assert gzip.decompress(zipped) == (run.parent / "out.csv").read_bytes()
    assert zipped == (run.parent / "again.csv.gz").read_bytes()


@pytest.mark.parametrize(("output", "output_format"), [("out.parquet", ""), ("out.data", "parquet")])
@pytest.mark.parametrize("row_group", [70, 1000])
def test_parquet(
    tiny: Any, run: Path, monkeypatch: pytest.MonkeyPatch, output: str, output_format: str, row_group: int
) -> None:
    monkeypatch.setattr(module, "_ROW_GROUP", row_group)
    assert infer(infer_flags(tiny, run, output, output_format=output_format)) == 200
    file = pq.ParquetFile(run.parent / output)
    assert file.metadata.num_row_groups == (2 if row_group == 70 else 1)
    table = file.read()
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "string",
        "labels": "list<element: int32>",
        "scores": "list<element: float>",
    }
    columns = table.to_pydict()
    rows = {
        video: list(zip(labels, scores, strict=True))
        for video, labels, scores in zip(columns["id"], columns["labels"], columns["scores"], strict=True)
    }
    check_pairs(rows, *expected(tiny, run), top_k=3)


def test_csv_may_be_asked_for_under_any_name(tiny: Any, run: Path) -> None:
    infer(infer_flags(tiny, run, "out.parquet", output_format="csv"))
    assert len(parse((run.parent / "out.parquet").read_text())) == 200


def test_top_k_beyond_the_classes_gives_all_and_says_so(
    tiny: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infer(infer_flags(tiny, run, "out.csv", top_k=20))
    check_pairs(parse((run.parent / "out.csv").read_text()), *expected(tiny, run), top_k=5)
    assert "--top_k=20: the model has 5 classes, all are written" in capsys.readouterr().err


def test_the_newest_export_is_taken_without_its_checkpoint(tiny: Any, run: Path) -> None:
    write_export(run, 10)
    infer(infer_flags(tiny, run, "out.csv"))
    newest = parse((run.parent / "out.csv").read_text())
    check_pairs(newest, *expected(tiny, run / "export" / "step_10"), top_k=3)
    for folder in ("checkpoints", "export/step_4"):
        for file in (run / folder).rglob("*.*"):
            file.unlink()
    infer(infer_flags(tiny, run, "again.csv"))
    assert parse((run.parent / "again.csv").read_text()) == newest


def test_an_archive_of_the_model_predicts_the_same_anywhere(tiny: Any, run: Path) -> None:
    archive = run.parent / "model.tgz"
    infer(infer_flags(tiny, run, "out.csv", output_model_tgz=str(archive)))
    first = archive.read_bytes()
    with tarfile.open(archive) as tar:
        assert sorted(tar.getnames()) == ["step_4/model.safetensors", "step_4/model_flags.json"]
        assert {member.mtime for member in tar} == {0}
    infer(infer_flags(tiny, run, "out.csv", output_model_tgz=str(archive)))
    assert archive.read_bytes() == first
    elsewhere = infer_flags(tiny, run, "again.csv", input_model_tgz=str(archive), train_dir="/nowhere")
    assert infer(elsewhere) == 200
    assert (run.parent / "again.csv").read_bytes() == (run.parent / "out.csv").read_bytes()


def test_precision_is_that_of_the_flag(tiny: Any, run: Path) -> None:
    for precision in ("fp32", "bf16"):
        infer(infer_flags(tiny, run, f"{precision}.csv", precision=precision, top_k=5))
    full, half = (parse((run.parent / f"{p}.csv").read_text()) for p in ("fp32", "bf16"))
    assert full != half
    for video, pairs in full.items():
        assert dict(half[video]) == pytest.approx(dict(pairs), abs=0.05)


def test_an_older_output_is_replaced_only_by_a_whole_one(
    tiny: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run.parent / "out.csv"
    output.write_text("older")
    calls = itertools.count()

    def breaks(predictions: torch.Tensor, top_k: int) -> Any:
        if next(calls) == 2:
            raise OSError("the disk is full")
        assert output.read_text() == "older"
        return best_classes(predictions, top_k)

    monkeypatch.setattr(module, "best_classes", breaks)
    with pytest.raises(OSError, match="the disk is full"):
        infer(infer_flags(tiny, run, "out.csv"))
    assert output.read_text() == "older"
    assert sorted(path.name for path in run.parent.iterdir()) == ["out.csv", "run"]
    infer(infer_flags(tiny, run, "out.csv"))
    assert len(parse(output.read_text())) == 200


@pytest.mark.parametrize("batch_size", [64, 200])  # with 200 there is no next batch that could notice
def test_an_error_while_writing_is_raised(
    tiny: Any, run: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    def breaks(*arguments: Any) -> str:
        raise OSError("the disk is full")

    monkeypatch.setattr(module, "format_lines", breaks)
    with pytest.raises(OSError, match="the disk is full"):
        infer(infer_flags(tiny, run, "out.csv", batch_size=batch_size))
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_corrupt_records_stop_it_unless_skipped(tiny: Any, run: Path, tmp_path: Path) -> None:
    features = {"mean_rgb": np.ones(6, np.float32), "mean_audio": np.ones(2, np.float32)}
    shard = tmp_path / "bad.tfrecord"
    write_records(shard, [encode_example({"id": [f"v{i}"], **features}) for i in range(3)])
    content = bytearray(shard.read_bytes())
    content[20] ^= 1  # inside the first record
    shard.write_bytes(content)
    flags = {"input_data_pattern": str(shard), "cache_dir": "none"}
    with pytest.raises(RecordError):
        infer(infer_flags(tiny, run, "out.csv", **flags))
    assert infer(infer_flags(tiny, run, "out.csv", **flags, skip_corrupt_records=True)) == 2
    assert list(parse((tmp_path / "out.csv").read_text())) == ["v1", "v2"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_lines_are_those_of_the_old_code(data: st.DataObject) -> None:
    B, K = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 5))
    scores = data.draw(hnp.arrays(np.float32, (B, K), elements=st.floats(0, 1, width=32)))
    classes = data.draw(hnp.arrays(np.int64, (B, K), elements=st.integers(0, 5000)))
    letters = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=',"')
    ids = data.draw(st.lists(st.text(letters, max_size=6), min_size=B, max_size=B))
    assert format_lines(ids, scores, classes) == "".join(
        video + "," + " ".join(f"{int(c)} {float(s):g}" for c, s in zip(cs, ss, strict=True)) + "\n"
        for video, cs, ss in zip(ids, classes, scores, strict=True)
    )


def test_ids_that_would_break_a_line_are_quoted() -> None:
    ids = ["a,b", 'say "x"', "two\nlines", "plain", "%s %i"]
    text = format_lines(ids, np.full((5, 1), 0.5, np.float32), np.arange(5)[:, None])
    assert [row[0] for row in csv.reader(text.splitlines(keepends=True))] == ids


def test_nan_is_said() -> None:
    predictions = torch.tensor([[0.1, 0.2], [0.3, torch.nan]])
    with pytest.raises(ValueError, match="the model predicts NaN"):
        best_classes(predictions, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_file": ""}, "--output_file is required by infer"),
        ({"input_data_pattern": ""}, "--input_data_pattern is required by infer"),
        ({"input_data_pattern": "/nowhere/*"}, "--input_data_pattern='/nowhere/.*no file matches"),
        ({"train_dir": "/nowhere"}, "--train_dir=/nowhere does not exist"),
        ({"output_file": "/tmp"}, "--output_file=/tmp is a folder; give the name of a file"),
        ({"output_format": "json"}, "--output_format='json' is not known; known are csv, parquet"),
        ({"output_file": "x.parquet.gz"}, "--output_file=x.parquet.gz: Parquet is compressed inside"),
        ({"input_model_tgz": "/nowhere.tgz"}, "--input_model_tgz=/nowhere.tgz: there is no such file"),
        ({"top_k": 0}, "--top_k=0: must be at least 1"),
        ({"segment_labels": True}, "--segment_labels: MoeModel in .* is a video-level model"),
    ],
)
def test_wrong_flags_are_named(tiny: Any, run: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infer(infer_flags(tiny, run, "out.csv", **changes))
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_an_archive_is_not_copied(tiny: Any, run: Path) -> None:
    archive = run.parent / "model.tgz"
    infer(infer_flags(tiny, run, "out.csv", output_model_tgz=str(archive)))
    both = {"input_model_tgz": str(archive), "output_model_tgz": str(run.parent / "copy.tgz")}
    with pytest.raises(ValueError, match="--output_model_tgz with --input_model_tgz would copy an archive"):
        infer(infer_flags(tiny, run, "out.csv", **both))


def test_an_input_is_never_overwritten(tiny: Any, run: Path) -> None:
    shard = tiny.folder / "validate0000.tfrecord"
    before = shard.read_bytes()
    with pytest.raises(ValueError, match=r"validate0000.tfrecord is one of the input files"):
        infer(infer_flags(tiny, run, "out.csv", output_file=str(shard)))
    assert shard.read_bytes() == before
