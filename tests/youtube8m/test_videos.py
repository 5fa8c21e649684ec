"""Feature specifications, file patterns, and ragged arrays of labels."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertise.youtube8m.videos import (
    FeatureSpec,
    check_num_classes,
    concatenate,
    match_files,
    pointers,
    ragged_rows,
    split_text,
    unique_labels,
    value_faults,
)
from youtube8m.making import make_videos


def test_spec_knows_its_columns() -> None:
    spec = FeatureSpec.parse(" mean_rgb , mean_audio", "1024, 128")
    assert spec.names == ("mean_rgb", "mean_audio")
    assert spec.total == 1152
    assert spec.slices == {"mean_rgb": slice(0, 1024), "mean_audio": slice(1024, 1152)}


@pytest.mark.parametrize(
    ("names", "sizes", "message"),
    [
        ("a,b", "3", "has 2 names, but --feature_sizes='3' has 1 sizes"),
        ("a", "x", "'x' is not a whole number from 1"),
        ("a", "0", "'0' is not a whole number"),
        ("a", "-4", "'-4' is not a whole number"),
        ("a", "2000000", "'2000000' is not a whole number from 1 to 1048576"),
        ("a,a", "1,1", "names a more than once"),
        ("a,", "1,1", "has an empty name"),
        ("", "", "has an empty name"),
        ("mean_rgb,labels", "1,1", "labels is read anyway"),
    ],
)
def test_spec_says_what_is_wrong(names: str, sizes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureSpec.parse(names, sizes)


def test_files_are_sorted_and_each_there_once(tmp_path: Path) -> None:
    for name in ("b1.tfrecord", "a2.tfrecord", "a1.tfrecord", "other.txt"):
        (tmp_path / name).touch()
    found = match_files(f"{tmp_path}/a*.tfrecord, {tmp_path}/*.tfrecord", "train_data_pattern")
    assert [path.name for path in found] == ["a1.tfrecord", "a2.tfrecord", "b1.tfrecord"]


def test_names_may_hold_commas_and_brackets(tmp_path: Path) -> None:
    odd, plain = tmp_path / "a, b[1]", tmp_path / "c"
    for folder in (odd, plain):
        folder.mkdir()
        for name in ("x1", "x2"):
            (folder / name).touch()
    here = str(odd).replace("[", "[[]")
    for pattern, expected in (
        (f"{odd}/x1", [odd / "x1"]),
        (f"{here}/x*", [odd / "x1", odd / "x2"]),
        (f"{plain}/x*,{here}/x*,{odd}/x1", [odd / "x1", odd / "x2", plain / "x1", plain / "x2"]),
        (f"{odd}/x2,{plain}/x1", [odd / "x2", plain / "x1"]),
    ):
        assert match_files(pattern, "train_data_pattern") == expected
    with pytest.raises(ValueError, match=r"no file matches .*/a'; check the path"):
        match_files(f"{odd}/y", "train_data_pattern")


def test_no_file_is_an_error_that_names_flag_and_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").touch()
    with pytest.raises(ValueError, match=r"--eval_data_pattern=.*no file matches .*/b\*'"):
        match_files(f"{tmp_path}/a*,{tmp_path}/b*", "eval_data_pattern")
    with pytest.raises(ValueError, match="--train_data_pattern is empty"):
        match_files("", "train_data_pattern")
    with pytest.raises(ValueError, match="it is a folder; try"):
        match_files(str(tmp_path), "train_data_pattern")


@pytest.mark.parametrize("number", [0, -3, 2**31])
def test_number_of_classes_is_checked(number: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes={number} is not allowed"):
        check_num_classes(number)


ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8)


@given(ROWS)
def test_unique_labels_keep_the_first_mention(rows: list[list[int]]) -> None:
    labels = np.array([label for row in rows for label in row], dtype=np.int32)
    ptr, kept = unique_labels(pointers([len(row) for row in rows]), labels)
    assert [kept[a:b].tolist() for a, b in itertools.pairwise(ptr)] == [
        list(dict.fromkeys(row)) for row in rows
    ]
    assert kept.dtype == np.int32


@given(ROWS, st.data())
def test_ragged_rows_take_any_rows(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    flat = np.array([value for row in rows for value in row], dtype=np.int64)
    where, ptr = ragged_rows(pointers([len(row) for row in rows]), np.array(chosen, dtype=np.int64))
    assert [flat[where][a:b].tolist() for a, b in itertools.pairwise(ptr)] == [rows[row] for row in chosen]


@given(st.lists(st.text(max_size=5), max_size=5))
def test_split_text_gives_the_texts_back(texts: list[str]) -> None:
    data = [text.encode() for text in texts]
    assert split_text(b"".join(data), pointers([len(part) for part in data])) == texts


def test_take_and_concatenate() -> None:
    videos = make_videos(9)
    spec = FeatureSpec.parse("mean_rgb,mean_audio", "6,2")
    parts = [videos.take(np.array(rows)) for rows in ([0, 1], [2], [3, 4, 5, 6, 7, 8])]
    whole = concatenate(parts, spec)
    assert whole.ids == videos.ids
    for name in ("features", "label_ptr", "labels"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(videos, name))
    empty = concatenate([], spec)
    assert (len(empty), empty.features.shape, empty.label_ptr.tolist()) == (0, (0, 8), [0])


def test_values_that_are_not_finite_are_named() -> None:
    spec = FeatureSpec.parse("a,b", "2,3")
    features = np.zeros((4, 5), dtype=np.float32)
    features[1, 3], features[3, 0] = np.nan, -np.inf
    assert value_faults(features, spec) == {
        1: "value 1 of feature 'b' is nan, not finite",
        3: "value 0 of feature 'a' is -inf, not finite",
    }
    # finite values whose sum is not
    assert value_faults(np.full((2, 5), 3e38, dtype=np.float32), spec) == {}
