"""Segments: the challenge's figure, one evaluation for both, training by it, and the submission."""

import copy
import csv
import dataclasses
import gzip
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import reference
from expertise.youtube8m import checkpoint, recipe, submission
from expertise.youtube8m.evaluate import evaluate, evaluate_source
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.infer import infer
from expertise.youtube8m.loading import Classifier, VideoModel
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.measure import measure
from expertise.youtube8m.metrics import NoLabelError, VideoMetrics
from expertise.youtube8m.models import build_model
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.readers import open_videos
from expertise.youtube8m.records import encode_sequence_example, write_records
from expertise.youtube8m.run_state import open_data
from expertise.youtube8m.segment_metrics import SegmentMetrics
from expertise.youtube8m.submission import BestSegments, read_class_ids, write_csv, write_parquet
from expertise.youtube8m.train import train
from youtube8m.segment_making import (
    NAMES,
    SPEC,
    C,
    best_segments,
    one_batch,
    run_flags,
    segment_average_precisions,
    write_frame_export,
    write_shards,
)


def measured(
    predictions: Any, labels: Any, rated: Any, depth: int = 100_000, cuts: tuple[int, ...] = ()
) -> SegmentMetrics:
    metrics = SegmentMetrics(np.shape(predictions)[1], depth)
    for start, end in itertools.pairwise([0, *cuts, len(predictions)]):
        metrics.update(predictions[start:end], labels[start:end], rated[start:end])
    return metrics


def random_case(seed: int, B: int = 40, classes: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels, rated = rng.random((B, classes)) < 0.4, rng.random((B, classes)) < 0.5
    labels[0, 0] = rated[0, 0] = True
    return rng.random((B, classes)), labels, rated


# ---- the figure


@pytest.mark.parametrize("depth", [1, 3, 10, 100_000])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_map_is_that_of_the_slow_twin(depth: int, kind: type) -> None:
    predictions, labels, rated = random_case(0)
    predictions = predictions.astype(kind)
    labels[:, 3] = False
    rated[:, 4] = False
    metrics = measured(predictions, labels, rated, depth, cuts=(3, 3, 17))
    by_class = segment_average_precisions(predictions, labels, rated, depth)
    assert set(by_class) == {0, 1, 2, 5, 6}
    found = metrics.compute()
    assert found == {
        "map": pytest.approx(sum(by_class.values()) / 5, abs=1e-12),
        "num_classes_in_map": 5,
        "num_classes_without_positive": 1,
        "num_segments": 40,
        "num_ratings": rated.sum(),
    }
    precisions, positives, ratings = metrics.per_class()
    assert {c: ap for c, ap in enumerate(precisions) if not np.isnan(ap)} == pytest.approx(by_class)
    np.testing.assert_array_equal(positives, (labels & rated).sum(axis=0))
    np.testing.assert_array_equal(ratings, rated.sum(axis=0))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_equal_scores_count_with_the_mean_over_their_orders_at_any_depth(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=size, max_size=size))
    hits = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    depth = data.draw(st.integers(1, 7))
    means = [
        segment_average_precisions(
            [[scores[i]] for i in order], [[hits[i]] for i in order], [[True]] * size, depth
        )[0]
        for order in itertools.permutations(range(size))
    ]
    column, shown = np.array(scores)[:, None], np.array(hits)[:, None]
    found = measured(column, shown, np.ones_like(shown), depth).compute()["map"]
    assert found == pytest.approx(sum(means) / len(means), abs=1e-12)


def test_where_all_is_rated_it_is_the_map_of_videos_over_all_their_entries() -> None:
    predictions, labels, rated = random_case(1)
    videos = VideoMetrics(7, top_k=7)
    videos.update(predictions, labels)
    found = measured(predictions, labels, rated | True).compute()
    assert found["map"] == pytest.approx(videos.compute()["map"], abs=1e-12)


def test_it_is_the_average_precision_of_scikit_learn_where_no_scores_are_equal() -> None:
    predictions, labels, rated = random_case(6)
    precisions = measured(predictions, labels, rated).per_class().average_precision
    for c in range(7):
        known = average_precision_score(labels[rated[:, c], c], predictions[rated[:, c], c])
        assert precisions[c] == pytest.approx(known, abs=1e-12)


def test_what_is_not_rated_changes_nothing() -> None:
    predictions, labels, rated = random_case(2)
    whole = measured(predictions, labels, rated).compute()
    assert measured(np.where(rated, predictions, 1.0), labels | ~rated, rated).compute() == whole


def test_neither_order_nor_batches_nor_merging_change_the_figure() -> None:
    predictions, labels, rated = random_case(3)
    predictions = np.round(predictions, 1)
    whole = measured(predictions, labels, rated, 9).compute()
    order = np.random.default_rng(0).permutation(40)
    assert measured(predictions[order], labels[order], rated[order], 9).compute() == pytest.approx(whole)
    first = measured(predictions[:13], labels[:13], rated[:13], 9)
    second = measured(predictions[13:], labels[13:], rated[13:], 9, cuts=(1, 20))
    before = second.compute()
    first.merge(second)
    assert first.compute() == pytest.approx(whole)
    assert second.compute() == before


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_every_floating_type_is_ranked_as_its_own_values(kind: torch.dtype) -> None:
    predictions, labels, rated = random_case(4)
    rounded = torch.from_numpy(predictions).to(kind)
    assert measured(rounded, labels, rated).compute() == pytest.approx(
        measured(rounded.double().numpy(), labels, rated).compute(), abs=1e-12
    )


def test_memory_grows_by_the_ratings_only() -> None:
    predictions, labels, rated = random_case(5, B=100, classes=300)
    metrics = measured(predictions, labels, rated, cuts=(50,))
    held = sum(array.nbytes for pool in metrics._pools for array in pool)
    assert held == rated.sum() * (8 + 1 + 2)  # float64 score, hit, class as uint16


GOOD, TRUE = np.full((2, 3), 0.5), np.ones((2, 3), dtype=bool)


@pytest.mark.parametrize(
    ("predictions", "labels", "rated", "message"),
    [
        (GOOD[0], TRUE, TRUE, r"predictions must have the shape \(segments, 3\).* got \(3,\)"),
        (GOOD, np.ones((2, 4), dtype=bool), TRUE, r"labels must have the shape .* got \(2, 4\)"),
        (GOOD, TRUE, TRUE[:1], "got 2, 2 and 1 rows"),
        (TRUE, TRUE, TRUE, "predictions must be floating-point scores, got torch.bool"),
        (GOOD, TRUE * 1.0, TRUE, "labels must be bool, got torch.float64"),
        (GOOD, TRUE, TRUE * 1, "rated must be bool, got torch.int64"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), TRUE, TRUE, "NaN in row 1; has the training diverged"),
    ],
)
def test_bad_batches_are_refused(predictions: Any, labels: Any, rated: Any, message: str) -> None:
    metrics = measured(GOOD, TRUE, TRUE)
    before = metrics.compute()
    with pytest.raises(ValueError, match=message):
        metrics.update(predictions, labels, rated)
    assert metrics.compute() == before


def test_nothing_to_measure_and_bad_settings_are_said() -> None:
    with pytest.raises(ValueError, match=r"call update\(predictions, labels, rated\) before compute\(\)"):
        SegmentMetrics(3).compute()
    with pytest.raises(
        NoLabelError, match=r"none of the 2 segments has a positive rating \(6 ratings in all\)"
    ):
        measured(GOOD, ~TRUE, TRUE).compute()
    with pytest.raises(
        NoLabelError, match=r"none of the 2 segments has a positive rating \(0 ratings in all\)"
    ):
        measured(GOOD, TRUE, ~TRUE).compute()
    with pytest.raises(ValueError, match="depth must be a whole number of at least 1, got 0"):
        SegmentMetrics(3, 0)
    with pytest.raises(ValueError, match="depth must be the same in merged metrics, got 100000 and 5"):
        SegmentMetrics(3).merge(SegmentMetrics(3, 5))


# ---- one evaluation for both


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Records with labels of the videos and ratings of segments."""
    return write_shards(tmp_path_factory.mktemp("segments"), "validate", 40)


def eval_flags(train_dir: Path, pattern: str, **changes: Any) -> Flags:
    values = {"eval_data_pattern": pattern, "segment_labels": True, "run_once": True}
    return run_flags(train_dir, Path(pattern).parent, **(values | changes))


@pytest.mark.parametrize("changes", [{}, {"batch_size": 7}, {"cache_dir": "none"}])
@pytest.mark.parametrize("trained_on_segments", [False, True])
def test_both_are_evaluated_in_one_go(
    pattern: str, tmp_path: Path, changes: dict[str, Any], trained_on_segments: bool
) -> None:
    model = write_frame_export(tmp_path, 3, segment_labels=trained_on_segments)
    found = evaluate(eval_flags(tmp_path, pattern, top_k=2, **changes))

    videos = one_batch(pattern, FrameReading(20))
    predictions, truth = model.predict(videos.features, videos.lengths), videos.labels.tolist()
    assert found["gap"] == pytest.approx(reference.gap(predictions.tolist(), truth, top_k=2), rel=1e-5)
    assert found["hit_at_1"] == reference.hit_at_1(predictions.tolist(), truth)

    segments = one_batch(pattern, FrameReading(20, "rated"))
    assert segments.rated is not None
    predictions = model.predict(segments.features, segments.lengths)
    by_class = segment_average_precisions(
        predictions.tolist(), segments.labels.tolist(), segments.rated.tolist()
    )
    loss = LOSSES["CrossEntropyLoss"](predictions, segments.labels, segments.rated).item()
    assert found["segments"] == {
        "loss": pytest.approx(loss, rel=1e-5),
        "map": pytest.approx(sum(by_class.values()) / len(by_class), rel=1e-5),
        "num_classes_in_map": len(by_class),
        "num_classes_without_positive": C - len(by_class),
        "num_segments": len(segments.ids),
        "num_ratings": int(segments.rated.sum()),
    }

    written = json.loads((tmp_path / "evaluation" / "step_3.json").read_text())
    classes = written["segments"].pop("classes")
    assert {entry["index"]: entry["average_precision"] for entry in classes} == pytest.approx(by_class)
    assert [entry["ratings"] for entry in classes] == segments.rated.sum(0).tolist()
    assert [entry["name"] for entry in classes] == list(NAMES)
    assert written.pop("segments") == found.pop("segments") | {"top_k": 100_000}
    assert len(written.pop("classes")) == C
    assert written == {**found, "data_pattern": pattern, "top_k": 2}


def test_one_cache_serves_both_and_without_the_flag_only_videos_count(
    pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frame_export(tmp_path / "run", 3, segment_labels=True)
    cache = {"cache_dir": str(tmp_path / "cache")}
    both = evaluate(eval_flags(tmp_path / "run", pattern, **cache))
    printed = capsys.readouterr().out
    assert "step 3, 40 videos" in printed
    assert f"{both['segments']['num_segments']} segments" in printed
    assert all(f"{value:.4f}" in printed for value in (both["gap"], both["map"], both["segments"]["map"]))
    assert "segment mAP@100,000 is over" in printed
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
    videos = evaluate(eval_flags(tmp_path / "run", pattern, segment_labels=False, **cache))
    assert videos == {key: value for key, value in both.items() if key != "segments"}
    assert "segment mAP" not in capsys.readouterr().out


@pytest.mark.parametrize("cache_dir", ["cache", "none"])
def test_videos_without_labels_leave_the_segments(
    tmp_path: Path, cache_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frame_export(tmp_path / "run", 3)
    unlabelled = write_shards(tmp_path, "validate", 20, labelled=False)
    cache_dir = cache_dir if cache_dir == "none" else str(tmp_path / cache_dir)
    found = evaluate(eval_flags(tmp_path / "run", unlabelled, cache_dir=cache_dir))
    assert set(found) == {"step", "segments"}
    captured = capsys.readouterr()
    assert "no video has a label: only segments are evaluated" in captured.err
    assert "Hit@1" not in captured.out
    written = json.loads((tmp_path / "run" / "evaluation" / "step_3.json").read_text())
    assert set(written) == {"step", "data_pattern", "segments"}


@pytest.mark.parametrize("cache_dir", ["cache", "none"])
def test_records_without_ratings_are_an_error(tmp_path: Path, cache_dir: str) -> None:
    write_frame_export(tmp_path / "run", 3)
    unrated = write_shards(tmp_path, "validate", 20, rated=False)
    cache_dir = cache_dir if cache_dir == "none" else str(tmp_path / cache_dir)
    with pytest.raises(ValueError, match=r"segment"):
        evaluate(eval_flags(tmp_path / "run", unrated, cache_dir=cache_dir))
    assert not (tmp_path / "run" / "evaluation").exists()


@pytest.mark.parametrize("cache_dir", ["cache", "none"])
def test_negative_ratings_alone_are_an_error(tmp_path: Path, cache_dir: str) -> None:
    write_frame_export(tmp_path / "run", 3)
    frames = {"rgb": [[bytes(6)]] * 7, "audio": [[bytes(2)]] * 7}
    context = {"id": ["v"], "labels": [1], "segment_start_times": [0], "segment_labels": [2]}
    negative = encode_sequence_example({**context, "segment_scores": np.zeros(1, np.float32)}, frames)
    write_records(tmp_path / "validate.tfrecord", [negative])
    cache_dir = cache_dir if cache_dir == "none" else str(tmp_path / cache_dir)
    with pytest.raises(NoLabelError, match="none of the 1 segments has a positive rating"):
        evaluate(eval_flags(tmp_path / "run", str(tmp_path / "validate.tfrecord"), cache_dir=cache_dir))


class Together:
    """Stands for the processes of a run, which are threads here."""

    def __init__(self, rank: int, world: int, shared: list[Any], barrier: threading.Barrier) -> None:
        self.part, self.world, self.device = (rank, world), world, torch.device("cpu")
        self._shared, self._barrier = shared, barrier

    def collect(self, value: Any) -> list[Any]:
        self._shared[self.part[0]] = value
        self._barrier.wait(timeout=60)
        values = copy.deepcopy(self._shared)  # what comes from elsewhere is another object
        self._barrier.wait(timeout=60)
        return values


@pytest.mark.parametrize("segments", ["", "rated"])
def test_several_processes_find_what_one_finds(pattern: str, tmp_path: Path, segments: Any) -> None:
    model = write_frame_export(tmp_path, 3)
    source = open_videos(pattern, SPEC, C, frames=FrameReading(20, segments), cache_dir="none", num_readers=1)
    whole = evaluate_source(model, source, 16)
    assert whole.unit == ("segments" if segments else "videos")
    shared: list[Any] = [None] * 3
    barrier = threading.Barrier(3)
    found: list[Any] = [None] * 3

    def work(rank: int) -> None:
        together: Any = Together(rank, 3, shared, barrier)
        found[rank] = evaluate_source(model, source, 13, processes=together)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for one in found:
        assert one.metrics == pytest.approx(whole.metrics, rel=1e-5)


def test_a_nan_is_said(pattern: str, tmp_path: Path) -> None:
    model = write_frame_export(tmp_path, 3)
    with torch.no_grad():
        next(model.module.parameters()).fill_(torch.nan)
    source = open_videos(pattern, SPEC, C, frames=FrameReading(20, "rated"), cache_dir="none", num_readers=1)
    with pytest.raises(ValueError, match="NaN in row 0; has the training diverged"):
        measure(model, source, 16)


# ---- training


@pytest.mark.parametrize("cache_dir", ["cache", "none"])
def test_ratings_are_counted_class_by_class(pattern: str, tmp_path: Path, cache_dir: str) -> None:
    cache_dir = cache_dir if cache_dir == "none" else str(tmp_path)
    for segments in ("rated", "all", ""):
        reading = FrameReading(20, segments)
        source = open_videos(pattern, SPEC, C, frames=reading, cache_dir=cache_dir, num_readers=1)
        batch = one_batch(pattern, reading)
        rated = torch.ones_like(batch.labels) if batch.rated is None else batch.rated
        np.testing.assert_array_equal(source.rated_counts, rated.sum(0))
        np.testing.assert_array_equal(source.label_counts, batch.labels.sum(0))


def train_flags(train_dir: Path, pattern: str, **changes: Any) -> Flags:
    values: dict[str, Any] = {
        "train_data_pattern": pattern,
        "eval_data_pattern": pattern,
        "feature_names": "rgb,audio",
        "feature_sizes": "6,2",
        "num_classes": C,
        "frame_features": True,
        "segment_labels": True,
        "model": "FrameLevelLogisticModel",
        "max_steps": 4,
        "export_model_steps": 2,
    }
    return run_flags(train_dir, Path(pattern).parent, **(values | changes))


def test_training_on_segments_is_judged_by_their_map(
    pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(train_flags(tmp_path, pattern))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    records = [line for line in lines if line["kind"] == "eval"]
    assert [record["step"] for record in records] == [2, 4]
    assert all(record["decides"] == "map" and "gap" not in record for record in records)
    assert f"segment mAP {records[0]['map']:.3f}" in capsys.readouterr().err
    written = json.loads((tmp_path / "evaluation" / "step_4.json").read_text())
    assert written["segments"]["map"] == records[1]["map"]
    again = evaluate(eval_flags(tmp_path, pattern))
    assert again["segments"]["map"] == pytest.approx(records[1]["map"], rel=1e-5)

    records[0]["map"], records[1]["map"] = 0.9, 0.8
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert checkpoint.best_step(tmp_path) == 2


def test_the_log_of_training_looks_at_ratings_only(pattern: str, tmp_path: Path) -> None:
    flags = train_flags(tmp_path, pattern, batch_size=500, num_epochs=1, eval_data_pattern="")
    one = Processes.one(torch.device("cpu"))
    source, _, model_flags = open_data(flags, one)
    start = build_model(model_flags)
    recipe.begin(flags, start, torch.optim.SGD(start.parameters()), source)
    batch = one_batch(pattern, FrameReading(300, "rated"))
    assert batch.rated is not None
    model = VideoModel(Classifier(start).eval(), model_flags, 0, one.device)
    predictions = model.predict(batch.features, batch.lengths)
    rows = (predictions * batch.rated).tolist()

    train(flags)  # one step, of all segments
    [record] = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (record["step"], record["examples"]) == (1, len(batch.ids))
    expected = LOSSES["CrossEntropyLoss"](predictions, batch.labels, batch.rated).item()
    assert record["loss"] == pytest.approx(expected, rel=1e-4)
    assert record["hit_at_1"] == pytest.approx(reference.hit_at_1(rows, batch.labels.tolist()))
    assert record["gap"] == pytest.approx(reference.gap(rows, batch.labels.tolist()), rel=1e-4)


def test_older_logs_are_judged_by_gap(tmp_path: Path) -> None:
    records = [{"kind": "eval", "step": step, "data": "d", "gap": gap} for step, gap in ((1, 0.5), (2, 0.25))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert checkpoint.best_step(tmp_path) == 1


def test_labels_that_nobody_rated_teach_nothing(tmp_path: Path) -> None:
    # class 4 is rated nowhere: its weights must stay those of the start, as its gradient is 0
    rng = np.random.default_rng(0)
    records = []
    for number in range(32):
        lists = {
            name: [[rng.integers(0, 256, size).astype(np.uint8).tobytes()] for _ in range(6)]
            for name, size in zip(SPEC.names, SPEC.sizes, strict=True)
        }
        context = {
            "id": [f"v{number}"],
            "labels": [4],
            "segment_start_times": [0],
            "segment_labels": [number % 4],
        }
        score = np.array([number // 4 % 2], np.float32)
        records.append(encode_sequence_example({**context, "segment_scores": score}, lists))
    write_records(tmp_path / "train.tfrecord", records)
    flags = train_flags(tmp_path / "run", str(tmp_path / "train.tfrecord"), regularization_penalty=0.0)
    biases = []
    for steps in (1, 4):
        train(dataclasses.replace(flags, max_steps=steps, start_new_model=True, num_epochs=9))
        weights = checkpoint.load_file(tmp_path / "run" / "export" / f"step_{steps}" / "model.safetensors")
        biases.append(next(value for name, value in weights.items() if value.shape == (C,)))
    assert biases[0][4] == biases[1][4] == pytest.approx(np.log(0.1 / 0.9), abs=1e-5)  # (0 + 1) / (0 + 10)
    assert not torch.equal(biases[0][:4], biases[1][:4])


# ---- the submission


def infer_flags(train_dir: Path, pattern: str, output: Path, **changes: Any) -> Flags:
    values = {"input_data_pattern": pattern, "output_file": str(output), "segment_labels": True}
    return run_flags(train_dir, Path(pattern).parent, **(values | changes))


def parse(text: str) -> dict[int, list[str]]:
    header, *lines = text.splitlines()
    assert header == "Class,Segments"
    rows = [line.split(",") for line in lines]
    return {int(index): segments.split(" ") for index, segments in rows}


@pytest.mark.parametrize("rated", [True, False])
@pytest.mark.parametrize("changes", [{}, {"batch_size": 1}, {"cache_dir": "none", "num_readers": 2}])
def test_csv_lists_the_best_segments_of_every_class(
    tmp_path: Path, rated: bool, changes: dict[str, Any]
) -> None:
    model = write_frame_export(tmp_path / "run", 3)
    shards = write_shards(tmp_path, "test", 20, labelled=False, rated=rated)
    batch = one_batch(shards, FrameReading(20, "all"))
    assert infer(infer_flags(tmp_path / "run", shards, tmp_path / "out.csv", **changes)) == len(batch.ids)
    scores = model.predict(batch.features, batch.lengths).tolist()
    found = parse((tmp_path / "out.csv").read_text())
    assert found == best_segments(batch.ids, scores, range(C), 100_000)
    if not rated:  # every part of a video is there
        starts = [int(one.split(":")[1]) for one in batch.ids if one.startswith("t000:")]
        assert starts == list(range(0, 5 * len(starts), 5))


def test_the_submission_is_worth_what_evaluation_says(tmp_path: Path, pattern: str) -> None:
    # as the judges do it: of each list, the segments that were rated for its class
    write_frame_export(tmp_path / "run", 3)
    found = evaluate(eval_flags(tmp_path / "run", pattern))
    infer(infer_flags(tmp_path / "run", pattern, tmp_path / "out.csv"))
    batch = one_batch(pattern, FrameReading(20, "rated"))
    assert batch.rated is not None
    place = {segment: row for row, segment in enumerate(batch.ids)}
    precisions = []
    for index, segments in parse((tmp_path / "out.csv").read_text()).items():
        rows = [place[one] for one in segments if one in place and batch.rated[place[one], index]]
        hits = batch.labels[rows, index].tolist()
        if any(hits):
            precisions.append(reference.average_precision(list(range(len(hits), 0, -1)), hits, sum(hits)))
    assert found["segments"]["map"] == pytest.approx(sum(precisions) / len(precisions), rel=1e-9)


def test_segment_max_pred_and_segment_label_ids_file(tmp_path: Path, pattern: str) -> None:
    model = write_frame_export(tmp_path / "run", 3)
    (tmp_path / "ids.csv").write_text("Name,Index\nfish,2\ncats,0\n")
    ids_file = {"segment_label_ids_file": str(tmp_path / "ids.csv")}
    infer(infer_flags(tmp_path / "run", pattern, tmp_path / "out.csv", segment_max_pred=4, **ids_file))
    batch = one_batch(pattern, FrameReading(20, "all"))
    scores = model.predict(batch.features, batch.lengths).tolist()
    found = parse((tmp_path / "out.csv").read_text())
    assert list(found) == [0, 2]
    assert found == best_segments(batch.ids, scores, [0, 2], 4)


def test_gzip_holds_the_same_bytes(tmp_path: Path, pattern: str) -> None:
    write_frame_export(tmp_path / "run", 3)
    for name in ("out.csv", "out.csv.gz", "again.csv.gz"):
        infer(infer_flags(tmp_path / "run", pattern, tmp_path / name))
    zipped = (tmp_path / "out.csv.gz").read_bytes()
    assert gzip.decompress(zipped) == (tmp_path / "out.csv").read_bytes()
    assert zipped == (tmp_path / "again.csv.gz").read_bytes()


@pytest.mark.parametrize("row_group", [10, 10_000])
def test_parquet_has_a_row_for_each_place(
    tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch, row_group: int
) -> None:
    monkeypatch.setattr(submission, "_ROW_GROUP", row_group)
    model = write_frame_export(tmp_path / "run", 3)
    infer(infer_flags(tmp_path / "run", pattern, tmp_path / "out.parquet", segment_max_pred=7))
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert file.metadata.num_row_groups == (3 if row_group == 10 else 1)
    kinds = {field.name: str(field.type) for field in file.schema_arrow}
    assert kinds == {"class": "int32", "video": "string", "start": "int32", "score": "float"}
    rows = file.read().to_pylist()
    batch = one_batch(pattern, FrameReading(20, "all"))
    scores = model.predict(batch.features, batch.lengths)
    expected = best_segments(batch.ids, scores.tolist(), range(C), 7)
    assert len(rows) == 7 * C
    for row, (index, segment) in zip(rows, ((c, one) for c in expected for one in expected[c]), strict=True):
        assert (row["class"], f"{row['video']}:{row['start']}") == (index, segment)
        assert row["score"] == pytest.approx(scores[batch.ids.index(segment), index].item(), rel=1e-5)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_lists_are_those_of_the_slow_twin_whatever_waits(data: st.DataObject) -> None:
    n, limit = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 12))
    scores = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1e-9, 0.25, 0.5, 1.0]), min_size=n * 4, max_size=n * 4)),
        dtype=np.float32,
    ).reshape(n, 4)
    classes = sorted(data.draw(st.sets(st.integers(0, 3), min_size=1)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    ids = [f"ü{i % 7}:{i}" for i in range(n)]
    best = BestSegments(np.array(classes), limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission, "_BLOCK_BYTES", data.draw(st.sampled_from([1, 100, 1 << 20])))
        for start, end in itertools.pairwise([0, *cuts, n]):
            best.update(ids[start:end], torch.from_numpy(scores[start:end]))
    segments = best.segments()
    names = [
        segments.text[a : b - 1].tobytes().decode() for a, b in itertools.pairwise(segments.ptr.tolist())
    ]
    assert names == ids
    found = {}
    for index, numbers, values in best.lists():
        np.testing.assert_array_equal(values, scores[numbers, index])
        found[index] = [ids[number] for number in numbers]
    assert found == best_segments(ids, scores.tolist(), classes, limit)


def test_lists_do_not_grow_beyond_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_BLOCK_BYTES", 2_000)
    best = BestSegments(np.arange(10), 20)
    generator = torch.Generator().manual_seed(0)
    for batch in range(100):
        best.update([f"v{batch}:{i}" for i in range(50)], torch.rand(50, 10, generator=generator))
        assert sum(len(keys) for lists in best._lists for keys in lists) <= 10 * (20 * 1.25 + 50)


def test_a_diverged_model_is_said() -> None:
    with pytest.raises(ValueError, match="the model predicts NaN"):
        BestSegments(np.arange(2), 5).update(["v:0"], torch.tensor([[0.5, torch.nan]]))


@pytest.mark.parametrize("video", ["two words", "a,b", 'a"b', "a\nb"])
def test_ids_that_would_break_the_csv_are_refused(tmp_path: Path, video: str) -> None:
    best = BestSegments(np.arange(2), 5)
    best.update(["plain:0", f"{video}:5"], torch.tensor([[0.1, 0.2], [0.3, 0.1]]))
    with pytest.raises(ValueError, match=r"in its id, which the csv .* --output_format=parquet"):
        write_csv(tmp_path / "out.csv", best, zipped=False)
    write_parquet(tmp_path / "out.parquet", best, zipped=False)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["class"], row["video"], row["start"]) for row in rows] == [
        (0, video, 5),
        (0, "plain", 0),
        (1, "plain", 0),
        (1, video, 5),
    ]


def test_an_older_output_is_replaced_only_by_a_whole_one(
    tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frame_export(tmp_path / "run", 3)
    output = tmp_path / "out.csv"
    output.write_text("older")

    def breaks(*arguments: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(submission, "ragged_rows", breaks)
    with pytest.raises(OSError, match="the disk is full"):
        infer(infer_flags(tmp_path / "run", pattern, output))
    assert output.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "run"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "ids.csv: there is no such file; give a csv with the column Index"),
        ("Number\n3\n", r"no column Index; there are \['Number'\]"),
        ("Index\n", "lists no class"),
        ("Index\n3\nx\n", "line 3: Index is 'x'; it must be a class of the model, .* from 0 to 4"),
        ("Index\n5\n", "line 2: Index is '5'; it must be a class of the model"),
        ("Index\n-1\n", "line 2: Index is '-1'; it must be"),
        ("Index\n3\n3\n", "line 3: Index 3 stands there twice"),
    ],
)
def test_a_wrong_ids_file_is_named(tmp_path: Path, pattern: str, text: str | None, message: str) -> None:
    write_frame_export(tmp_path / "run", 3)
    if text is not None:
        (tmp_path / "ids.csv").write_text(text)
    flags = infer_flags(
        tmp_path / "run", pattern, tmp_path / "out.csv", segment_label_ids_file=str(tmp_path / "ids.csv")
    )
    with pytest.raises(FlagError, match="--segment_label_ids_file=.*" + message):
        infer(flags)
    assert not (tmp_path / "out.csv").exists()


def test_the_classes_of_the_challenge_are_places_in_the_vocabulary(data_dir: Path) -> None:
    folder = data_dir / "youtube8m"
    ids = read_class_ids(folder / "segment_label_ids.csv", 3862)
    assert len(ids) == 1000

    def names(file: str) -> dict[int, str]:
        with (folder / file).open(newline="", encoding="utf-8") as lines:
            return {int(row["Index"]): row["KnowledgeGraphId"] for row in csv.DictReader(lines)}

    segment_names, video_names = names("segment_vocabulary.csv"), names("vocabulary.csv")
    assert segment_names == {index: video_names[index] for index in ids.tolist()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_max_pred": 0}, "--segment_max_pred=0: must be at least 1"),
        ({"segment_labels": False, "segment_label_ids_file": "x"}, "=x lists classes of segments; give"),
        ({"output_file": "x.parquet.gz"}, "Parquet is compressed inside"),
    ],
)
def test_wrong_flags_are_named(tmp_path: Path, pattern: str, changes: dict[str, Any], message: str) -> None:
    write_frame_export(tmp_path / "run", 3)
    with pytest.raises(FlagError, match=message):
        infer(dataclasses.replace(infer_flags(tmp_path / "run", pattern, tmp_path / "out.csv"), **changes))
