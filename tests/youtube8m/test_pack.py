"""Own frames as shards of both levels: what goes in comes out, in whatever form, whatever happens meanwhile.

Letters: L frames, D values of a feature.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from expertise import cli
from expertise.youtube8m import Flags, read_batches
from expertise.youtube8m import pack as pack_module
from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.formats.npz import LOWEST, STEP
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.pack import Packed, pack
from expertise.youtube8m.packing import rows as _pack_rows
from expertise.youtube8m.packing import shards as _pack_shards
from expertise.youtube8m.packing.inputs import Inputs, Place
from expertise.youtube8m.packing.survey import CLIPPED, REACH, Magnitudes
from expertise.youtube8m.readers import open_videos
from expertise.youtube8m.records import parse_example, parse_sequence_example, read_records, scan_records
from expertise.youtube8m.videos import FeatureSpec

HALF_STEP = STEP / 2 * 1.001


@dataclass(frozen=True)
class Video:
    """A video as its owner has it. features : (L, D) each."""

    id: str
    labels: tuple[str, ...]
    partition: str
    features: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))


def make(lengths: Sequence[int], seed: int = 0, prefix: str = "v") -> list[Video]:
    """Videos with two features, of numbers and of bytes, and up to three labels; in two partitions."""
    rng = np.random.default_rng(seed)
    return [
        Video(
            f"{prefix}{number}",
            tuple(f"class {c}" for c in sorted(rng.permutation(5)[: rng.integers(1, 4)].tolist())),
            "validate" if number % 3 == 2 else "train",
            {
                "rgb": rng.normal(0, 30, (length, 4)).astype(np.float32),
                "mean_audio": rng.integers(0, 256, (length, 3), dtype=np.uint8),
            },
        )
        for number, length in enumerate(lengths)
    ]


def columns(videos: Sequence[Video], drop: Sequence[str] = ()) -> dict[str, Any]:
    """The rows of videos as arrays of one length."""
    found: dict[str, Any] = {
        "id": np.array([video.id for video in videos for _ in range(len(video))]),
        "frame": np.array([frame for video in videos for frame in range(len(video))]),
        "labels": np.array([";".join(video.labels) for video in videos for _ in range(len(video))]),
        "partition": np.array([video.partition for video in videos for _ in range(len(video))]),
    }
    for name in videos[0].features:
        found[name] = np.concatenate([video.features[name] for video in videos])
    return {name: values for name, values in found.items() if name not in drop}


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def write_parquet(path: Path, arrays: dict[str, Any], row_group: int = 7, fixed: bool = False) -> Path:
    pyarrow = pytest.importorskip("pyarrow")

    table = {}
    for name, values in arrays.items():
        if getattr(values, "ndim", 1) == 2:
            flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
            ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
            table[name] = (
                pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
                if fixed
                else pyarrow.ListArray.from_arrays(pyarrow.array(ends), flat)
            )
        else:
            table[name] = pyarrow.array(list(values) if isinstance(values, list) else values)
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(table), path, row_group_size=row_group)
    return path


def run(pattern: Path | str, folder: Path, **changes: Any) -> Packed:
    flags = Flags(input_data_pattern=str(pattern), output_dir=str(folder), feature_names="")
    return pack(replace(flags, **changes), stream=io.StringIO())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in the folder and what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def described(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return found


def class_names(folder: Path) -> list[str]:
    with (folder / "vocabulary.csv").open(newline="") as file:
        return [row["Name"] for row in csv.DictReader(file)]


def packed_frames(folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, NDArray[np.uint8]]]]:
    """Shard, context and frames (L, D) of every frame-level record, shard by shard."""
    for shard in sorted((folder / "frame").iterdir()):
        for record in read_records(shard):
            context, lists = parse_sequence_example(record)
            frames = {
                name: np.stack([np.frombuffer(step[0], np.uint8) for step in steps])  # type: ignore[arg-type]
                for name, steps in lists.items()
            }
            yield shard.name, dict(context), frames


def check_pack(folder: Path, videos: Sequence[Video], per_shard: int) -> None:
    """Every video stands in the right shard, with its labels, frames to half a step, and their means."""
    names = class_names(folder)
    factors = {feature["name"]: feature["factor"] for feature in described(folder)["features"]}
    left = {video.id: video for video in videos}
    counts: dict[str, int] = {}
    means = {}
    for shard in sorted((folder / "video").iterdir()):
        for record in read_records(shard):
            example = parse_example(record)
            means[example["id"][0]] = example
    in_order = {p: [v.id for v in videos if v.partition == p] for p in {v.partition for v in videos}}
    for shard_name, context, frames in packed_frames(folder):
        video = left.pop(context["id"][0].decode())
        place = counts.setdefault(video.partition, 0)
        counts[video.partition] += 1
        assert shard_name == f"{video.partition}{place // per_shard:04d}.tfrecord"
        assert in_order[video.partition][place] == video.id, "the order is that of the input"
        assert [names[label] for label in context["labels"]] == sorted(video.labels, key=names.index)
        for name, values in video.features.items():
            found = frames.pop(name.removeprefix("mean_"))
            dequantised = found * STEP + LOWEST
            if factors[name] is None:
                np.testing.assert_array_equal(found, values)
            else:
                wanted = np.clip(values * np.float64(factors[name]), LOWEST, LOWEST + 255 * STEP)
                np.testing.assert_allclose(dequantised, wanted, atol=HALF_STEP)
            mean = means[video.id.encode()][f"mean_{name.removeprefix('mean_')}"]
            np.testing.assert_allclose(mean, dequantised.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert not frames
        np.testing.assert_array_equal(means[video.id.encode()]["labels"], context["labels"])
    assert not left


# ---- there and back


def test_both_levels_hold_what_was_given(tmp_path: Path) -> None:
    videos = make([3, 1, 12, 5, 2, 8, 1])
    done = run(write_npz(tmp_path / "a.npz", columns(videos)), tmp_path / "out", videos_per_shard=2)
    check_pack(tmp_path / "out", videos, 2)
    assert (done.videos, done.frames, done.classes, done.shards) == (7, 32, 5, 4)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "frame",
        "video",
        "vocabulary.csv",
        "dataset.json",
    }


def test_the_records_are_read_by_the_readers(tmp_path: Path) -> None:
    videos = make([3, 1, 12, 5, 2, 8, 1])
    run(write_npz(tmp_path / "a.npz", columns(videos)), tmp_path / "out")
    (batch,) = read_batches(
        str(tmp_path / "out/video/*"),
        feature_names="mean_rgb,mean_audio",
        feature_sizes="4,3",
        num_classes=5,
        cache_dir="none",
    )
    source = open_videos(
        str(tmp_path / "out/frame/*"),
        FeatureSpec.parse("rgb,audio", "4,3"),
        5,
        frames=FrameReading(),
        cache_dir="none",
    )
    (frames,) = source.batches(100)
    assert batch.ids == frames.ids
    assert sorted(batch.ids) == sorted(video.id for video in videos)
    assert frames.lengths is not None
    assert (batch.labels == frames.labels).all()
    for row, length in enumerate(frames.lengths.tolist()):
        mean = (frames.features[row, :length].numpy() * STEP + LOWEST).mean(axis=0)
        np.testing.assert_allclose(batch.features[row], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fixed", [True, False])
def test_parquet_and_npz_give_the_same_shards(tmp_path: Path, fixed: bool) -> None:
    arrays = columns(make([3, 1, 12, 5, 2, 8, 1]))
    run(write_npz(tmp_path / "a.npz", arrays), tmp_path / "npz", videos_per_shard=3)
    run(write_parquet(tmp_path / "a.parquet", arrays, fixed=fixed), tmp_path / "parquet", videos_per_shard=3)
    one, other = contents(tmp_path / "npz"), contents(tmp_path / "parquet")
    assert one.pop("dataset.json") != other.pop("dataset.json"), "the inputs are others"
    assert one == other


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=3),
    kinds=st.lists(st.booleans(), min_size=3, max_size=3),
    row_group=st.integers(1, 12),
    chunk=st.integers(1, 8),
    per_shard=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_any_number_of_frames_videos_and_files(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[list[int]],
    kinds: list[bool],
    row_group: int,
    chunk: int,
    per_shard: int,
    seed: int,
) -> None:
    """Files of both kinds, row groups and chunks that cut videos, frames out of order."""
    folder = tmp_path_factory.mktemp("ragged")
    rng = np.random.default_rng(seed)
    videos = []
    for number, own in enumerate(lengths):
        part = make(own, seed + number, prefix=f"f{number}-")
        videos += part
        arrays = columns(part)
        ends = np.cumsum(own)
        order = np.concatenate([rng.permutation(n) + end - n for n, end in zip(own, ends, strict=True)])
        arrays = {name: values[order] for name, values in arrays.items()}
        if kinds[number]:
            write_npz(folder / f"{number}.npz", arrays)
        else:
            write_parquet(folder / f"{number}.parquet", arrays, row_group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pack_rows, "MOST_ROWS", chunk)
        done = run(
            f"{folder}/*.npz,{folder}/*.parquet" if len(set(kinds[: len(lengths)])) > 1 else f"{folder}/*",
            folder / "out",
            videos_per_shard=per_shard,
        )
    check_pack(folder / "out", videos, per_shard)
    assert done.frames == sum(map(sum, lengths))


def test_without_frame_the_order_of_the_rows_counts(tmp_path: Path) -> None:
    videos = make([4, 3])
    for drop in (["frame"], []):
        run(write_npz(tmp_path / "a.npz", columns(videos, drop)), tmp_path / f"out{len(drop)}")
    one, other = contents(tmp_path / "out0"), contents(tmp_path / "out1")
    del one["dataset.json"], other["dataset.json"]
    assert one == other


def test_numbers_of_any_type_and_features_by_name(tmp_path: Path) -> None:
    videos = make([2, 3])
    arrays = columns(videos)
    arrays["half"] = arrays["rgb"].astype(np.float16)
    arrays["whole"] = arrays["rgb"].astype(np.int32) + 1000
    path = write_npz(tmp_path / "a.npz", arrays | {"aside": np.arange(len(arrays["id"]))})
    run(path, tmp_path / "out", feature_names="whole,half")
    assert [feature["name"] for feature in described(tmp_path / "out")["features"]] == ["whole", "half"]
    check_pack(
        tmp_path / "out",
        [
            replace(
                video,
                features={
                    "whole": video.features["rgb"].astype(np.int32) + 1000,
                    "half": video.features["rgb"].astype(np.float16).astype(np.float32),
                },
            )
            for video in videos
        ],
        1000,
    )


def test_what_is_no_feature_is_said(tmp_path: Path) -> None:
    arrays = {"id": ["u", "v"], "x": np.ones((2, 2)), "labels": ["a", "b"], "seconds": [1.0, 2.0]}
    told = io.StringIO()
    flags = Flags(
        input_data_pattern=str(write_npz(tmp_path / "a.npz", arrays)),
        output_dir=str(tmp_path / "out"),
        feature_names="",
    )
    pack(flags, stream=told)
    assert "left out, because not rows of numbers: seconds\n" in told.getvalue()
    assert "packing: 2/2 videos" in told.getvalue()


def test_categories_are_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    arrays = columns(make([3, 1, 12, 5]))
    run(write_npz(tmp_path / "a.npz", arrays), tmp_path / "plain")
    coded = arrays | {
        name: pyarrow.array(arrays[name]).dictionary_encode() for name in ("id", "labels", "partition")
    }
    run(write_parquet(tmp_path / "a.parquet", coded), tmp_path / "coded")
    one, other = contents(tmp_path / "plain"), contents(tmp_path / "coded")
    del one["dataset.json"], other["dataset.json"]
    assert one == other


def test_a_read_from_the_middle_gives_the_same_videos(tmp_path: Path) -> None:
    """What a shard needs is read from its first row to its last, also within a row group."""
    paths = [
        write_npz(tmp_path / "a.npz", columns(make([3, 2, 4], 1, "a"))),
        write_parquet(tmp_path / "b.parquet", columns(make([5, 1, 6, 2], 2, "b")), row_group=4),
    ]
    inputs = Inputs(paths, "")
    everything = list(inputs.videos())
    places = [video.start for video in everything] + [Place(2, 0)]
    for i in range(len(everything)):
        for j in range(i + 1, len(everything) + 1):
            end = everything[j - 1].end
            found = list(inputs.videos(places[i], end))
            assert [video.id for video in found] == [video.id for video in everything[i:j]]
            for one, other in zip(found, everything[i:j], strict=True):
                np.testing.assert_array_equal(one.features["rgb"], other.features["rgb"])


# ---- bytes


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False), min_size=1, max_size=40),
    st.integers(1, 500),
)
def test_the_factor_brings_nearly_all_values_into_the_range(values: list[float], repeats: int) -> None:
    magnitudes = np.abs(np.repeat(np.array(values, dtype=np.float32), repeats))
    if not magnitudes.any():
        return
    counted = Magnitudes()
    for part in np.array_split(magnitudes, 3):
        counted.add(part)
    factor = counted.factor()
    some = np.sort(magnitudes[magnitudes > 0].astype(np.float64))
    assert (some * factor > REACH * 1.0001).mean() <= CLIPPED
    least = some[int(np.ceil((1 - CLIPPED) * len(some))) - 1]  # no smaller magnitude would do
    assert REACH / factor <= least * 1.01 or factor == REACH / some[-1]


def test_rare_outliers_are_clipped_and_counted(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 1, (40_000, 2)).astype(np.float32)
    values[17] = [1e6, -1e6]
    arrays = {"id": np.repeat(np.arange(400).astype(str), 100), "x": values, "labels": ["a"] * 40_000}
    done = run(write_npz(tmp_path / "a.npz", arrays), tmp_path / "out")
    (feature,) = described(tmp_path / "out")["features"]
    assert 2 <= done.clipped == feature["clipped"] <= CLIPPED * values.size
    assert 3 < REACH / feature["factor"] < 6, "the outliers do not decide the scale"
    assert f"{done.clipped} values were out of range" in str(done)
    _, _, frames = next(packed_frames(tmp_path / "out"))
    assert frames["x"][17].tolist() == [255, 0]


def test_all_values_fit_where_none_is_far_out(tmp_path: Path) -> None:
    arrays = {"id": ["a", "b"], "x": np.array([[-0.03, 0.015], [0.02, 0.03]]), "labels": ["u", "v"]}
    done = run(write_npz(tmp_path / "a.npz", arrays), tmp_path / "out")
    assert done.clipped == 0
    assert "out of range" not in str(done)
    assert [frames["x"].tolist() for _, _, frames in packed_frames(tmp_path / "out")] == [
        [[0, 191]],
        [[212, 255]],
    ]


# ---- labels


def test_the_vocabulary_is_made_of_the_labels_most_frequent_first(tmp_path: Path) -> None:
    labels = ["b", "c; b", "", "a;;b ", "c", "z"]
    arrays = {
        "id": list("uvwxyt"),
        "x": np.ones((6, 2)),
        "labels": labels,
        "partition": ["train"] * 5 + ["test"],
    }
    run(write_npz(tmp_path / "a.npz", arrays), tmp_path / "out")
    assert (
        tmp_path / "out/vocabulary.csv"
    ).read_text() == "Index,Name,TrainVideoCount\n0,b,3\n1,c,2\n2,a,1\n3,z,0\n"
    found = {c["id"][0].decode(): c["labels"].tolist() for _, c, _ in packed_frames(tmp_path / "out")}
    assert found == {"u": [0], "v": [0, 1], "w": [], "x": [0, 2], "y": [1], "t": [3]}


@pytest.mark.parametrize("kind", ["text", "numbers", "lists of text", "lists of numbers"])
def test_a_vocabulary_gives_the_indices(tmp_path: Path, kind: str) -> None:
    (tmp_path / "names.csv").write_text('Index,Name\n1,"a, b"\n0,c;d\n2,e\n')
    labels: dict[str, Any] = {
        "text": ["a, b", "e", "a, b"],
        "numbers": [1, 2, 1],
        "lists of text": [["c;d", "a, b"], ["e"], None],
        "lists of numbers": [[1, 0], [2, 2], []],
    }
    arrays = {"id": list("uvw"), "x": np.ones((3, 2)), "labels": labels[kind]}
    if kind.startswith("lists"):
        path = write_parquet(tmp_path / "a.parquet", arrays)
        expected = [[0, 1], [2], []]
    else:
        path = write_npz(tmp_path / "a.npz", arrays)
        expected = [[1], [2], [1]]
    run(path, tmp_path / "out", vocabulary=str(tmp_path / "names.csv"))
    assert class_names(tmp_path / "out") == ["c;d", "a, b", "e"]
    assert [c["labels"].tolist() for _, c, _ in packed_frames(tmp_path / "out")] == expected


def test_videos_without_labels_are_for_inference(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("Index,Name\n0,a\n")
    path = write_npz(tmp_path / "a.npz", {"id": ["u"], "x": np.ones((1, 2))})
    done = run(path, tmp_path / "out", vocabulary=str(tmp_path / "names.csv"))
    assert shlex.split(done.train_command)[:3] == ["expertise", "youtube8m", "infer"]
    with pytest.raises(
        ValueError, match=r"no video has a label; give them as 'labels' beside 'id'.*--vocabulary"
    ):
        run(path, tmp_path / "other")


# ---- what it says


def test_the_commands_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "a.npz", columns(make([5] * 30)))
    cli_run("pack", "--input_data_pattern=a.npz", "--output_dir=my [data]")
    flags = described(tmp_path / "my [data]")["train_flags"]
    assert "--feature_names=mean_rgb,mean_audio" in flags["video"]
    assert {"--feature_names=rgb,audio", "--feature_sizes=4,3", "--frame_features"} <= set(flags["frame"])
    videos, frames = pack_commands("a.npz", "other [data]")
    cli_run(*videos[2:], "--max_steps=2", "--batch_size=8", "--cache_dir=none")
    assert (tmp_path / "run" / "finished.json").exists()
    assert json.loads((tmp_path / "run" / "model_flags.json").read_text())["class_names"] == class_names(
        tmp_path / "other [data]"
    )
    few = ("--max_steps=2", "--batch_size=8", "--cache_dir=none", "--gru_cells=4")
    cli_run(*frames[2:], "--start_new_model", *few)
    assert json.loads((tmp_path / "run" / "model_flags.json").read_text())["frame_features"] is True


def cli_run(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["youtube8m", *words])
    assert ended.value.code == 0


def pack_commands(pattern: str, folder: str) -> list[list[str]]:
    return [shlex.split(command) for command in run(pattern, Path(folder)).commands]


def test_long_videos_and_partitions_are_in_the_flags(tmp_path: Path) -> None:
    arrays = {"id": ["a"] * 400 + ["b"], "x": np.ones((401, 2)), "labels": ["c"] * 401}
    arrays["partition"] = ["train"] * 400 + ["trainer"]
    done = run(write_npz(tmp_path / "a.npz", arrays), tmp_path / "out")
    assert "--max_frames=400" in done.commands[1]
    assert "--max_frames" not in done.commands[0]
    assert "--eval_data_pattern" not in done.commands[0]
    (pattern,) = (w for w in shlex.split(done.commands[1]) if w.startswith("--train_data_pattern="))
    assert [p.name for p in Path("/").glob(pattern.split("=")[1][1:])] == ["train0000.tfrecord"]


def test_all_files_are_in_the_checksums(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", columns(make([3] * 5)))
    run(path, tmp_path / "out", videos_per_shard=2)
    files = contents(tmp_path / "out")
    told = described(tmp_path / "out")
    del files["dataset.json"]
    assert told["sha256"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert told["inputs"] == [
        {
            "name": "a.npz",
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    ]
    assert told["partitions"] == {
        "train": {"videos": 4, "frames": 12},
        "validate": {"videos": 1, "frames": 3},
    }
    for name in files:
        if name.endswith(".tfrecord"):
            [shard] = scan_records(tmp_path / "out" / name)
            assert len(shard.starts) <= 2


# ---- interruptions


def interrupted_at(call: int, error: BaseException) -> Callable[..., Any]:
    """`write_records` that fails in the middle of the file that it writes at this call."""
    calls = 0
    real = _pack_shards.write_records

    def write(path: Path, records: Any) -> int:
        nonlocal calls
        calls += 1

        def some() -> Iterator[bytes]:
            for number, record in enumerate(records):
                if calls == call and number == 1:
                    raise error
                yield record

        return real(path, some())

    return write


@pytest.mark.parametrize("kind", ["npz", "parquet"])
@pytest.mark.parametrize("call", range(1, 9))
def test_an_interrupted_pack_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, kind: str
) -> None:
    arrays = columns(make([3, 1, 12, 5, 2, 8, 1, 4, 2]))
    path = (write_npz if kind == "npz" else write_parquet)(tmp_path / f"a.{kind}", arrays)
    whole = run(path, tmp_path / "whole", videos_per_shard=2)
    with monkeypatch.context() as patch:
        patch.setattr(_pack_shards, "write_records", interrupted_at(call, KeyboardInterrupt()))
        try:
            run(path, tmp_path / "out", videos_per_shard=2)
        except KeyboardInterrupt:
            assert not (tmp_path / "out/dataset.json").exists()
            for shard in (tmp_path / "out").rglob("*.tfrecord"):
                assert (
                    shard.read_bytes()
                    == (tmp_path / "whole" / shard.relative_to(tmp_path / "out")).read_bytes()
                )
            again = run(path, tmp_path / "out", videos_per_shard=2)
            assert replace(again, folder=whole.folder, commands=whole.commands) == whole
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_killed_pack_goes_on_and_writes_only_what_is_missing(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", columns(make([4] * 12)))
    run(path, tmp_path / "whole", videos_per_shard=2)
    code = f"""
import os
from expertise.youtube8m import Flags
from expertise.youtube8m.packing import shards as _pack_shards
from expertise.youtube8m.pack import pack
real, calls = _pack_shards.write_records, []
def write(path, records):
    calls.append(path)
    def some():
        for record in records:
            yield record
            if len(calls) == 4:
                os._exit(9)
    return real(path, some())
_pack_shards.write_records = write
paths = dict(input_data_pattern={str(path)!r}, output_dir={str(tmp_path / "out")!r})
pack(Flags(**paths, feature_names="", videos_per_shard=2))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 9
    first = tmp_path / "out/frame/train0000.tfrecord"
    assert first.exists()
    assert list((tmp_path / "out/video").glob(".*.part")), "the kill left a file half-written"
    before = first.stat().st_mtime_ns
    run(path, tmp_path / "out", videos_per_shard=2)
    assert first.stat().st_mtime_ns == before
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pack that was interrupted in its third file."""
    path = write_npz(tmp_path / "a.npz", columns(make([4] * 8)))
    with monkeypatch.context() as patch:
        patch.setattr(_pack_shards, "write_records", interrupted_at(3, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path / "out", videos_per_shard=2)
    return path


def test_a_shard_that_was_damaged_meanwhile_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = begun(tmp_path, monkeypatch)
    run(path, tmp_path / "whole", videos_per_shard=2)
    shard = tmp_path / "out/video/train0000.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with (tmp_path / "out/unfinished/written.jsonl").open("a") as lines:
        lines.write('{"name": "tra')  # a crash in the middle of a line
    run(path, tmp_path / "out", videos_per_shard=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_it_goes_on_only_with_the_same_files_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = begun(tmp_path, monkeypatch)
    before = contents(tmp_path / "out")
    (tmp_path / "names.csv").write_text("Index,Name\n" + "".join(f"{i},class {i}\n" for i in range(5)))
    with pytest.raises(
        FlagError,
        match=r"can't go on: --feature_names was '', now 'rgb'; --videos_per_shard was 2, now 3; "
        r"--vocabulary holds other classes\. Restore",
    ):
        run(
            path,
            tmp_path / "out",
            videos_per_shard=3,
            feature_names="rgb",
            vocabulary=str(tmp_path / "names.csv"),
        )
    write_npz(path, columns(make([4] * 8, seed=1)))
    write_npz(tmp_path / "b.npz", columns(make([4], prefix="w")))
    with pytest.raises(FlagError, match=r"can't go on: a\.npz has changed; b\.npz is new\."):
        run(tmp_path / "*.npz", tmp_path / "out", videos_per_shard=2)
    assert contents(tmp_path / "out") == before


def test_a_file_that_changes_while_it_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_npz(tmp_path / "a.npz", columns(make([4] * 3)))
    real = pack_module.write_shards

    def late(*arguments: Any) -> Any:
        os.utime(path, (1, 1))
        return real(*arguments)

    monkeypatch.setattr(pack_module, "write_shards", late)
    with pytest.raises(ValueError, match=r"a\.npz was changed while it was packed; remove the folder"):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()


def test_a_finished_or_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", columns(make([4] * 3)))
    run(path, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(FlagError, match=r"out holds a finished pack \(dataset\.json\); give another folder"):
        run(path, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    with pytest.raises(FlagError, match="holds other files; give a new folder, or an empty one"):
        run(path, tmp_path)
    with pytest.raises(FlagError, match=r"a\.npz is a file; give the name of a folder"):
        run(path, path)


def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begun(tmp_path, monkeypatch)
    with (tmp_path / "out/unfinished/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FlagError, match="another pack is writing there; wait for its end"):
            run(path, tmp_path / "out", videos_per_shard=2)
    run(path, tmp_path / "out", videos_per_shard=2)


# ---- what is wrong with the input


def change(name: str, rows: Sequence[int], value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(arrays: dict[str, Any]) -> None:
        values = arrays[name].astype(object) if arrays[name].dtype.kind == "U" else arrays[name]
        values[list(rows)] = value
        arrays[name] = values.astype(str) if values.dtype == object else values

    return apply


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "an id that comes again": (
        change("id", [5], "v0"),
        r"row 5: id 'v0': the id stood before other ids already; sort the rows",
    ),
    "an empty id": (change("id", [4], ""), r"row 4: its id is ''; give every row the id of its video"),
    "an id of two lines": (change("id", [4], "a\nb"), r"row 4: its id is 'a\\nb'; .* in printable letters$"),
    "a frame twice": (change("frame", [4], 0), r"row 4: id 'v1' has frame 0 twice"),
    "labels that change": (
        change("labels", [4], "other"),
        r"row 4: column 'labels' of id 'v1' says 'other' at frame 1, but .* before; all frames of an id must",
    ),
    "a partition that changes": (
        change("partition", [4], "test"),
        r"row 4: column 'partition' of id 'v1' says 'test' at frame 1, but 'train' before",
    ),
    "a partition with a digit": (
        change("partition", [3, 4], "train2"),
        r"row 3: id 'v1': partition 'train2' is not allowed; use the letters a to z alone",
    ),
    "NaN": (
        change("rgb", [4], np.nan),
        r"row 3: id 'v1': frame 1: value 0 of feature 'rgb' is nan as float32, not finite; leave the frame",
    ),
    "infinity": (
        change("rgb", [2], np.inf),
        r"id 'v0': frame 2: value 0 of feature 'rgb' is inf as float32, not finite",
    ),
    "zeros": (
        change("rgb", [4], 0),
        r"row 3: id 'v1': frame 1: all values of feature 'rgb' are 0, which says nothing; leave the",
    ),
}


@pytest.mark.parametrize("kind", ["npz", "parquet"])
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_row_is_named(tmp_path: Path, what: str, kind: str) -> None:
    arrays = columns(make([3, 2, 2]))
    spoil, message = WRONG[what]
    spoil(arrays)
    path = (write_npz if kind == "npz" else write_parquet)(tmp_path / f"a.{kind}", arrays)
    with pytest.raises(ValueError, match=message) as caught:
        run(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists(), "nothing is left of a pack that never began"


def test_frames_that_say_the_same_in_another_order_agree(tmp_path: Path) -> None:
    arrays = {"id": ["u", "u"], "x": np.ones((2, 2)), "labels": ["b;a", "a; b"]}
    run(write_npz(tmp_path / "a.npz", arrays), tmp_path / "out")
    ((_, context, _),) = packed_frames(tmp_path / "out")
    assert context["labels"].tolist() == [0, 1]


def test_an_id_in_two_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_npz(tmp_path / f"{name}.npz", columns(make([2])))
    with pytest.raises(ValueError, match=r"b\.npz, row 0: id 'v0': .*give no id in two files"):
        run(tmp_path / "*.npz", tmp_path / "out")


ARRAYS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no id": ({"id": None}, {}, r"a\.npz: no array 'id'; there are x, labels"),
    "a packed file": (
        {"id": None, "video_id": ["u"], "label_ptr": [0]},
        {},
        "this file is packed already: give it to train",
    ),
    "ids of numbers": (
        {"id": [1, 2]},
        {},
        r"'id' is int64 \(2,\), but must have one axis, and hold text; make",
    ),
    "frames of fractions": ({"frame": [0.5, 1]}, {}, "'frame' is float64 .* and hold whole numbers"),
    "labels of fractions": (
        {"labels": [0.5, 1]},
        {},
        "'labels' is float64 .* and hold text .several with ';'",
    ),
    "partitions of numbers": ({"partition": [1, 2]}, {}, "'partition' is int64"),
    "objects": (
        {"labels": np.array([["a"], ["b", "c"]], dtype=object)},
        {},
        "'labels' holds Python objects, which are not read; make text of them",
    ),
    "another length": (
        {"y": np.ones((3, 2))},
        {},
        "array 'y' has 3 rows, but 'id' has 2; every array has one row",
    ),
    "no feature": ({"x": None}, {}, "no features; a feature is a 2-D array"),
    "no numbers": (
        {"x": np.ones((2, 2)) > 0},
        {"feature_names": "x"},
        "no features; a feature is a 2-D array",
    ),
    "no value": ({"x": np.ones((2, 0))}, {}, "feature 'x' has 0 values in its first row; 1 to"),
    "no row": (
        {"id": np.array([], dtype=str), "x": np.ones((0, 2)), "labels": np.array([], str)},
        {},
        "there is no row in",
    ),
    "an unknown feature": ({}, {"feature_names": "y"}, r"--feature_names='y' is not known; known are x"),
    "a name with a comma": (
        {"x": None, "a,b": np.ones((2, 2))},
        {},
        "a feature is called 'a,b'; give a name without",
    ),
    "two names that become one": (
        {"mean_x": np.ones((2, 2))},
        {},
        r"the features x, mean_x would all be 'x' in the records; choose one",
    ),
    "numbers without names": (
        {"labels": [1, 2]},
        {},
        "the labels are numbers; give their names with --vocabulary",
    ),
    "no file": ({}, {"input_data_pattern": "/nowhere/*"}, "--input_data_pattern=.*no file matches"),
    "no pattern": ({}, {"input_data_pattern": ""}, "--input_data_pattern is required by pack"),
    "no shard": ({}, {"videos_per_shard": 0}, "--videos_per_shard=0: must be at least 1"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_wrong_arrays_and_flags(tmp_path: Path, what: str) -> None:
    changes, flags, message = ARRAYS[what]
    arrays: dict[str, Any] = {"id": ["u", "v"], "x": np.ones((2, 2)), "labels": ["a", "b"]} | changes
    path = write_npz(tmp_path / "a.npz", {name: v for name, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        run(flags.pop("input_data_pattern", path), tmp_path / "out", **dict(flags))
    assert not (tmp_path / "out").exists()


COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": None}, r"a\.parquet: no column 'id'; there are x, labels"),
    "ids of numbers": ({"id": [1, 2]}, "column 'id' is int64, but must hold text"),
    "a null id": ({"id": ["u", None]}, "row 1: its id is None"),
    "a null frame": ({"frame": [0, None]}, r"row 1: \(id 'v'\): its frame is null; number all frames"),
    "frames of text": ({"frame": ["a", "b"]}, "column 'frame' is string, but must hold whole numbers"),
    "labels of fractions": (
        {"labels": [0.5, 0.1]},
        "column 'labels' is double, but must hold text .*or lists",
    ),
    "ragged": ({"x": [[1.0, 2.0], [3.0]]}, "row 1: feature 'x' of id 'v' has 1 values; all others have 2"),
    "a null list": ({"x": [[1.0, 2.0], None]}, "row 1: feature 'x' of id 'v' is null; all others have 2"),
    "a null value": (
        {"x": [[1.0, 2.0], [None, 2.0]]},
        "id 'v': frame 0: value 0 of feature 'x' is nan as float32, not finite",
    ),
    "no feature": ({"x": None}, "no features; a feature is a 2-D array"),
}


@pytest.mark.parametrize("what", COLUMNS)
def test_wrong_columns(tmp_path: Path, what: str) -> None:
    changes, message = COLUMNS[what]
    table: dict[str, Any] = {"id": ["u", "v"], "x": [[1.0, 2.0], [3.0, 4.0]], "labels": ["a", "b"]} | changes
    path = write_parquet(tmp_path / "a.parquet", {name: v for name, v in table.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        run(path, tmp_path / "out")


@pytest.mark.parametrize("suffix", ["npz", "parquet", "csv"])
def test_files_of_another_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text("id,x\n")
    message = "is neither .npz nor .parquet" if suffix == "csv" else f"not a readable .{suffix} file"
    with pytest.raises(
        ValueError, match=rf"(?i)a\.{suffix}.*{message.replace('.parquet file', 'parquet file')}"
    ):
        run(path, tmp_path / "out")


def test_files_that_differ(tmp_path: Path) -> None:
    def second(**arrays: Any) -> None:
        write_npz(tmp_path / "b.npz", {"id": ["w"], "labels": ["a"], **arrays})
        run(tmp_path / "*.npz", tmp_path / "out")

    write_npz(tmp_path / "a.npz", {"id": ["u"], "x": np.ones((1, 2)), "labels": ["a"]})
    with pytest.raises(ValueError, match=r"feature 'x' is 3 numbers in .*b\.npz, but 2 numbers in .*a\.npz"):
        second(x=np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"feature 'x' is 2 bytes \(uint8\) in .*b\.npz, but 2 numbers in"):
        second(x=np.ones((1, 2), np.uint8))
    with pytest.raises(
        ValueError, match=r"b\.npz has no feature 'x', which .*a\.npz has; name those that all"
    ):
        second(z=np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"b\.npz also has the feature 'z', which .*a\.npz has not"):
        second(x=np.ones((1, 2)), z=np.ones((1, 2)))
    with pytest.raises(
        ValueError, match=r"labels are text in .*a\.npz, but numbers in .*b\.npz; give one kind"
    ):
        second(x=np.ones((1, 2)), labels=[1])


def test_labels_that_the_vocabulary_has_not(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("Index,Name\n0,guitar\n1,piano\n2,drum\n3,drum\n")

    def labelled(label: Any) -> None:
        path = write_npz(tmp_path / "a.npz", {"id": ["u"], "x": np.ones((1, 2)), "labels": [label]})
        run(path, tmp_path / "out", vocabulary=str(tmp_path / "names.csv"))

    with pytest.raises(
        ValueError, match=r"id 'u': label 'gitar' is not in --vocabulary; the nearest is 'guitar'"
    ):
        labelled("gitar")
    with pytest.raises(
        ValueError, match=r"label 'drum' stands in --vocabulary more than once; give labels by Index"
    ):
        labelled("drum")
    with pytest.raises(ValueError, match=r"label 4 is outside 0\.\.3, the Index of --vocabulary"):
        labelled(4)
