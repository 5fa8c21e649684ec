"""Every file format gives back what was written, and says what is wrong with a file."""

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expertise.youtube8m.formats import FORMATS, format_of, get_format, stem_of
from expertise.youtube8m.formats.npz import VALUES, quantise
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos, concatenate
from youtube8m.making import NUM_CLASSES, SPEC, as_dict, make_videos, write_files

OFFICIAL = FeatureSpec.parse("mean_rgb,mean_audio", "1024,128")


def read(path: Path, spec: FeatureSpec = SPEC, num_classes: int = NUM_CLASSES, **options: Any) -> Videos:
    return concatenate(format_of(path).read(path, spec, num_classes, **options), spec)


def on_the_grid(videos: Videos) -> Videos:
    """The videos with features that bytes can hold."""
    return Videos(videos.ids, VALUES[quantise(videos.features)], videos.label_ptr, videos.labels)


@pytest.fixture(params=sorted(FORMATS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("n", [0, 1, 37])
def test_round_trip(tmp_path: Path, name: str, n: int) -> None:
    videos = on_the_grid(make_videos(n))
    path = tmp_path / f"a{FORMATS[name].suffix}"
    parts = [videos.take(np.arange(n // 3)), videos.take(np.arange(n // 3, n))]
    assert FORMATS[name].write(path, parts, SPEC) == n
    found = read(path)
    assert found.ids == videos.ids
    assert as_dict(found) == as_dict(videos)
    assert FORMATS[name].estimate_rows(path, SPEC) == pytest.approx(n, abs=1 + n // 5)


def test_large_files_come_in_chunks(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expertise.youtube8m.formats._abstract.MOST_ROWS", 10)
    videos = on_the_grid(make_videos(37))
    path = tmp_path / f"a{FORMATS[name].suffix}"
    FORMATS[name].write(path, [videos], SPEC)
    for scratch in (None, np.empty((4, SPEC.total), dtype=np.float32)):
        found: dict[str, tuple[bytes, list[int]]] = {}
        for chunk in FORMATS[name].read(path, SPEC, NUM_CLASSES, None, scratch):
            assert len(chunk) <= (10 if scratch is None or name == "parquet" else 4)
            found |= as_dict(chunk)
        assert found == as_dict(videos)


def test_ids_may_be_any_text(tmp_path: Path, name: str) -> None:
    videos = on_the_grid(make_videos(4))
    videos = Videos(["äöü", "", "a,b c", "x" * 300], videos.features, videos.label_ptr, videos.labels)
    path = tmp_path / f"a{FORMATS[name].suffix}"
    FORMATS[name].write(path, [videos], SPEC)
    assert read(path).ids == videos.ids


def test_a_flipped_bit_never_gives_wrong_videos(tmp_path: Path, name: str) -> None:
    videos = on_the_grid(make_videos(20))
    path = tmp_path / f"a{FORMATS[name].suffix}"
    FORMATS[name].write(path, [videos], SPEC)
    whole, right = path.read_bytes(), as_dict(videos)
    for place in np.linspace(0, len(whole) - 1, 300, dtype=int).tolist():
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        skipped: list[RecordError] = []
        found = as_dict(read(path, skipped=skipped))
        assert found.items() <= right.items()
        assert skipped or found == right


def test_a_label_outside_the_classes(tmp_path: Path, name: str) -> None:
    videos = make_videos(30)
    path = tmp_path / f"a{FORMATS[name].suffix}"
    FORMATS[name].write(path, [videos], SPEC)
    with pytest.raises(RecordError, match=r"label \d+ is outside 0\.\.3, .*--num_classes"):
        read(path, num_classes=4)
    skipped: list[RecordError] = []
    found = read(path, num_classes=4, skipped=skipped)
    good = {video: value for video, value in as_dict(videos).items() if max(value[1], default=0) < 4}
    assert found.ids == list(good)
    assert len(skipped) == 30 - len(good) > 0


def test_a_feature_of_another_size(tmp_path: Path, name: str) -> None:
    path = write_files(tmp_path, [5], FORMATS[name].suffix)[0]
    with pytest.raises(RecordError, match=r"expected .*7.*check --feature_sizes"):
        read(path, FeatureSpec.parse("mean_rgb,mean_audio", "7,2"))


def test_a_feature_that_is_not_there(tmp_path: Path, name: str) -> None:
    path = write_files(tmp_path, [5], FORMATS[name].suffix)[0]
    with pytest.raises(RecordError, match=r"no (feature|array|column) '(mean_)?flow'"):
        read(path, FeatureSpec.parse("mean_rgb,mean_flow", "6,2"))


def test_a_file_cut_anywhere_is_an_error_or_fewer_videos(tmp_path: Path, name: str) -> None:
    path = write_files(tmp_path, [6], FORMATS[name].suffix)[0]
    whole = path.read_bytes()
    videos = as_dict(read(path))
    cut = tmp_path / f"cut{FORMATS[name].suffix}"
    for size in [*range(0, len(whole), 23), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        assert FORMATS[name].estimate_rows(cut, SPEC) <= 100
        if size == 0 and name.startswith("tfrecord"):
            continue  # a file without records
        if name == "tfrecord" and size % (len(whole) // 6) == 0:
            continue  # cut between two records
        with pytest.raises(RecordError) as caught:
            read(cut)
        assert str(cut) in str(caught.value)
        left: list[RecordError] = []
        rest = as_dict(read(cut, skipped=left))
        assert left
        assert rest.items() <= videos.items()


def test_formats_by_name() -> None:
    assert get_format("npz") is FORMATS["npz"]
    with pytest.raises(ValueError, match=r"'parket' is not known; .* npz, parquet; did you mean 'parquet'"):
        get_format("parket")


@pytest.mark.parametrize(
    ("file", "expected", "stem"),
    [
        ("train0000.tfrecord", "tfrecord", "train0000"),
        ("train0000.tfrecord.gz", "tfrecord.gz", "train0000"),
        ("train.tfrecord-00000-of-00010", "tfrecord", "train.tfrecord-00000-of-00010"),
        ("train0000", "tfrecord", "train0000"),
        ("a.b.npz", "npz", "a.b"),
        ("a.parquet", "parquet", "a"),
    ],
)
def test_formats_by_the_end_of_the_name(file: str, expected: str, stem: str) -> None:
    assert format_of(Path(file)) is FORMATS[expected]
    assert stem_of(Path(file)) == stem


def test_an_unknown_end_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"x.csv: .* one of \.tfrecord, .*\.parquet .* not by '\.csv'"):
        format_of(Path("x.csv"))


# ---- npz


def test_bytes_follow_the_rule_of_youtube8m() -> None:
    assert VALUES[0] == -1.9921875
    assert VALUES[255] == 2.0078125
    np.testing.assert_array_equal(quantise(VALUES), np.arange(256))
    near = np.array([-9, 9, VALUES[7] + 0.007, VALUES[7] - 0.007], dtype=np.float32)
    assert quantise(near).tolist() == [0, 255, 7, 7]


def test_values_that_bytes_cannot_hold_are_counted() -> None:
    features = np.array([[-2.01, -1.995, 2.01, 2.02, 0.0]], dtype=np.float32)
    assert FORMATS["npz"].clipped(features) == 2
    assert FORMATS["parquet"].clipped(features) == FORMATS["tfrecord"].clipped(features) == 0


def test_official_bytes_equal_official_records(data_dir: Path) -> None:
    """The first shard is the head of part 0, but for the rounding to bytes."""
    folder = data_dir / "youtube8m"
    part = next(FORMATS["npz"].read(folder / "yt8m_video_u8_part0.npz", OFFICIAL, 3862))
    rows = 0
    for number in (0, 1):
        shard = read(folder / f"validate000{number}.tfrecord", OFFICIAL, 3862)
        same = part.take(np.arange(rows, rows + len(shard)))
        rows += len(shard)
        assert shard.ids == same.ids
        assert np.abs(shard.features - same.features).max() <= 2 / 255 + 1e-6
        np.testing.assert_array_equal(shard.label_ptr, same.label_ptr)
        np.testing.assert_array_equal(shard.labels, same.labels)
    assert rows == 589


def npz_with(tmp_path: Path, **changes: Any) -> Path:
    arrays = {
        "rgb": np.zeros((3, 6), np.uint8),
        "audio": np.zeros((3, 2), np.uint8),
        "label_ptr": np.array([0, 1, 1, 2]),
        "label_idx": np.array([4, 5]),
        "video_id": np.array([b"a", b"b", b"c"]),
    }
    path = tmp_path / "a.npz"
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": np.zeros((3, 6), np.float32)}, "array 'rgb' is float32"),
        ({"rgb": np.zeros((2, 6), np.uint8)}, r"array 'rgb' is uint8 \(2, 6\), expected uint8 \(3, 6\)"),
        ({"label_ptr": np.array([0, 2, 1, 2])}, "label_ptr does not rise"),
        ({"label_ptr": np.array([0, 1, 1, 3])}, "label_ptr does not rise"),
        ({"label_ptr": np.array([0, 1, 2])}, "label_ptr is int64"),
        ({"label_ptr": np.array([0.0, 1, 1, 2])}, "label_ptr is float64"),
        ({"video_id": np.array([1, 2, 3])}, "'video_id' is int64, expected bytes or text"),
        ({"video_id": np.array([b"a", b"\xff", b"c"])}, "is not UTF-8"),
        ({"video_id": None}, "no array 'video_id'"),
        ({"video_id": np.array([None, "b", "c"], dtype=object)}, "holds Python objects, which are not read"),
    ],
)
def test_npz_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read(npz_with(tmp_path, **changes))
    assert len(read(npz_with(tmp_path))) == 3


def test_npz_that_promises_more_than_it_has(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**13, 6)})
    path = npz_with(tmp_path, rgb=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("rgb.npy", head.getvalue() + bytes(18))
    with pytest.raises(
        RecordError, match=r"'rgb' says it has shape .10000000000000, 6., which its .* do not fit"
    ):
        read(path)


# ---- Parquet


def table_with(tmp_path: Path, **changes: Any) -> Path:
    columns = {
        "id": pa.array(["a", "b", "c"]),
        "labels": pa.array([[4], [], [5, 4, 5]], pa.list_(pa.int32())),
        "mean_rgb": pa.array([[0.5] * 6] * 3, pa.list_(pa.float32())),
        "mean_audio": pa.array([[0.5] * 2] * 3, pa.list_(pa.float32(), 2)),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({k: v for k, v in (columns | changes).items() if v is not None}), path)
    return path


def test_parquet_of_others(tmp_path: Path) -> None:
    videos = read(table_with(tmp_path))
    assert videos.label_ptr.tolist() == [0, 1, 1, 3]
    assert videos.labels.tolist() == [4, 5, 4]
    wide = pa.array([[0.25] * 6] * 3, pa.large_list(pa.float64()))
    assert read(table_with(tmp_path, mean_rgb=wide)).features[0].tolist() == [0.25] * 6 + [0.5] * 2
    assert read(table_with(tmp_path, labels=None)).label_ptr.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": pa.array([1, 2, 3])}, "column 'id' is int64, expected text"),
        ({"id": None}, "no column 'id'; the columns are labels, mean_rgb, mean_audio"),
        ({"id": pa.array(["a", None, "c"])}, r"row 1 \(None\): it has no id"),
        ({"mean_rgb": pa.array([1.0, 2, 3])}, "column 'mean_rgb' is double, expected a list of floats"),
        ({"labels": pa.array([[1.0], [], []])}, "expected a list of integers"),
        ({"labels": pa.array([[1], [99], []])}, r"row 1 \('b'\): label 99 is outside"),
        ({"labels": pa.array([[1], [None, 2], []])}, r"row 1 \('b'\): label -1 is outside"),
        ({"mean_rgb": pa.array([[0.5] * 6, [0.5] * 6, [0.5] * 5])}, r"row 2 .*has 5 values, expected 6"),
        ({"mean_rgb": pa.array([[0.5] * 6, None, [0.5] * 6])}, r"row 1 .*has 0 values, expected 6"),
        ({"mean_rgb": pa.array([[0.5] * 6, [None] * 6, [0.5] * 6])}, r"row 1 .*is nan, not finite"),
        (
            {"mean_audio": pa.array([[0.5] * 2, None, [0.25] * 2], pa.list_(pa.float32(), 2))},
            r"row 1 .*has 0 values, expected 2",
        ),
    ],
)
def test_parquet_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = table_with(tmp_path, **changes)
    with pytest.raises(RecordError, match=message):
        read(path)
    skipped: list[RecordError] = []
    rows = read(path, skipped=skipped)
    assert len(rows) in (0, 2)  # all, or the one row
    assert len(skipped) == 1


# ---- estimates never believe what they read


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_an_absurd_length_promises_no_rows(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(pack(b"\xff" * 7 + b"\x7f" + bytes(1000)))
    assert FORMATS["tfrecord"].estimate_rows(path, SPEC) <= 1016 // (16 + 4 * SPEC.total)
    with pytest.raises(RecordError):
        read(path)
