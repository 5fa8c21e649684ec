"""Files from one format to another, and back."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertise.youtube8m.convert import Conversion, convert
from expertise.youtube8m.formats import FORMATS, format_of
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos, concatenate
from youtube8m.making import NUM_CLASSES, SPEC, as_dict, make_videos, write_files


def run(pattern: Path | str, folder: Path, name: str, **options: Any) -> Conversion:
    return convert(str(pattern), folder, name, SPEC, NUM_CLASSES, stream=io.StringIO(), **options)


def read(path: Path, spec: FeatureSpec = SPEC, num_classes: int = NUM_CLASSES) -> Videos:
    return concatenate(format_of(path).read(path, spec, num_classes), spec)


@pytest.mark.parametrize("name", ["parquet", "tfrecord.gz"])
def test_there_and_back_keeps_every_bit(tmp_path: Path, name: str) -> None:
    files = write_files(tmp_path, [20, 0, 7])
    done = run(tmp_path / "*.tfrecord", tmp_path / "there", name)
    assert [path.name for path in done.outputs] == [f"part0{i}{FORMATS[name].suffix}" for i in range(3)]
    assert (done.videos, done.skipped, done.clipped) == (27, 0, 0)
    assert str(done) == "27 videos in 3 files"
    run(tmp_path / "there" / "*", tmp_path / "back", "tfrecord")
    for path in files:
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["tfrecord", "parquet"])
def test_bytes_stay_the_same_through_floats(tmp_path: Path, name: str) -> None:
    (path,) = write_files(tmp_path, [30], ".npz")
    run(path, tmp_path / "there", name)
    run(tmp_path / "there" / "*", tmp_path / "back", "npz")
    with np.load(path) as first, np.load(tmp_path / "back" / path.name) as second:
        assert set(first) == set(second)
        for key in first:
            assert first[key].dtype == second[key].dtype
            np.testing.assert_array_equal(first[key], second[key])


def test_official_part_to_records_and_back(tmp_path: Path, data_dir: Path) -> None:
    part = data_dir / "youtube8m" / "yt8m_video_u8_part0.npz"
    spec = FeatureSpec.parse("mean_rgb,mean_audio", "1024,128")
    for pattern, folder, name in (
        (part, tmp_path / "records", "tfrecord"),
        (tmp_path / "records" / "*", tmp_path / "back", "npz"),
    ):
        done = convert(str(pattern), folder, name, spec, 3862, stream=io.StringIO())
        assert (done.videos, done.clipped) == (5889, 0)
    with np.load(part) as first, np.load(tmp_path / "back" / part.name) as second:
        for key in second:
            np.testing.assert_array_equal(first[key], second[key])
            assert first[key].dtype == second[key].dtype
        assert set(first) - set(second) == {"shard"}


def test_values_that_do_not_fit_bytes_are_counted_and_said(tmp_path: Path) -> None:
    videos = make_videos(10)
    videos.features[3, :4] = [5, -5, 2.01, -1.99]
    FORMATS["tfrecord"].write(tmp_path / "a.tfrecord", [videos], SPEC)
    done = run(tmp_path / "a.tfrecord", tmp_path / "out", "npz")
    assert done.clipped == 2
    assert "2 values were out of range" in str(done)
    found = read(done.outputs[0])
    assert found.features[3, :2].tolist() == [2.0078125, -1.9921875]
    np.testing.assert_allclose(found.features[:3], videos.features[:3], atol=2.001 / 255)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    files = write_files(tmp_path, [4, 4])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part01.npz").write_text("mine")
    with pytest.raises(ValueError, match=r"part01\.npz exists; give another --output_dir"):
        run(tmp_path / "*.tfrecord", tmp_path / "out", "npz")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["part01.npz"]
    with pytest.raises(ValueError, match=r"part00\.tfrecord exists"):
        run(files[0], tmp_path, "tfrecord")


def test_two_inputs_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_files(tmp_path / folder, [4])
    with pytest.raises(
        ValueError, match=r"a/part00\.tfrecord and .*b/part00\.tfrecord would both be written to"
    ):
        run(tmp_path / "*" / "*.tfrecord", tmp_path / "out", "npz")


def test_corrupt_records(tmp_path: Path) -> None:
    files = write_files(tmp_path, [9, 9])
    expected = as_dict(read(files[0])) | as_dict(read(files[1]))
    data = bytearray(files[1].read_bytes())
    data[-30] ^= 1
    files[1].write_bytes(data)
    with pytest.raises(RecordError, match=str(files[1])):
        run(tmp_path / "*.tfrecord", tmp_path / "stopped", "parquet")
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["part00.parquet"]
    told = io.StringIO()
    done = convert(
        f"{tmp_path}/*.tfrecord",
        tmp_path / "out",
        "parquet",
        SPEC,
        NUM_CLASSES,
        skip_corrupt=True,
        stream=told,
    )
    assert (done.videos, done.skipped) == (17, 1)
    assert "1 corrupt records skipped" in str(done)
    assert "skipped 1 corrupt record:" in told.getvalue()
    found = as_dict(read(done.outputs[0])) | as_dict(read(done.outputs[1]))
    assert found.items() < expected.items()


def test_unknown_format_and_no_file(tmp_path: Path) -> None:
    write_files(tmp_path, [1])
    with pytest.raises(ValueError, match="output_format='csv' is not known"):
        run(tmp_path / "*.tfrecord", tmp_path / "out", "csv")
    with pytest.raises(ValueError, match=r"--input_data_pattern=.*no file matches"):
        run(tmp_path / "*.npz", tmp_path / "out", "npz")
