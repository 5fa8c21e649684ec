"""The sample of digit clips: the same by seed, true to the images, and no image in two splits."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from expertise.youtube8m.records import parse_example, parse_sequence_example, read_records
from expertise.youtube8m.sample import (
    CLASSES,
    Clip,
    clip_frames,
    draw_clips,
    image_pools,
    labels_of,
    write_sample,
)
from expertise.youtube8m.vocabulary import read_vocabulary

COUNTS = {"train": 60, "validate": 21, "test": 11}
NUMBERS = {f"num_{split}": count for split, count in COUNTS.items()}
SEED = 3
DIGITS = load_digits()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "clips"
    write_sample(path, seed=SEED, **NUMBERS)
    return path


@pytest.fixture(scope="module")
def clips() -> dict[str, list[Clip]]:
    return draw_clips(SEED, COUNTS)


def records(folder: Path, level: str, split: str) -> list[bytes]:
    return [record for path in sorted((folder / level).glob(f"{split}*")) for record in read_records(path)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dequantised(value: Any) -> np.ndarray[Any, Any]:
    """Frames as the rule of YouTube-8M says, in double precision."""
    return np.array([list(step[0]) for step in value]) * (4 / 255) + (4 / 512 - 2)


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", seed=SEED, **NUMBERS)
    write_sample(tmp_path / "other", seed=SEED + 1, **NUMBERS)
    first, again, other = files(folder), files(tmp_path / "again"), files(tmp_path / "other")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_what_is_written(folder: Path, tmp_path: Path) -> None:
    shards = [
        f"{level}/{split}{i:04d}.tfrecord"
        for level in ("frame", "segment", "video")
        for split, count in (("test", 2), ("train", 4), ("validate", 2))
        for i in range(count)
    ]
    assert sorted(files(folder)) == sorted([*shards, "regimes.csv", "vocabulary.csv"])
    summary = write_sample(tmp_path / "new" / "a", num_train=1, num_validate=2, num_test=3)
    assert summary == {
        "folder": str(tmp_path / "new" / "a"),
        "train clips": 1,
        "validate clips": 2,
        "test clips": 3,
        "classes": 13,
        "size": "0 MB",
    }
    assert [len(records(tmp_path / "new" / "a", "video", split)) for split in COUNTS] == [1, 2, 3]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_image_is_in_two_splits(seed: int) -> None:
    pools = image_pools(seed)
    together = np.concatenate([part for parts in pools.values() for part in parts])
    assert sorted(together.tolist()) == list(range(len(DIGITS.target)))
    for parts in pools.values():
        for digit, part in enumerate(parts):
            assert (DIGITS.target[part] == digit).all()
            assert len(part) >= 20
    pixels = {split: DIGITS.data[np.concatenate(parts)] for split, parts in pools.items()}
    seen = {image.tobytes() for image in pixels["train"]}
    assert not any(image.tobytes() in seen for split in ("validate", "test") for image in pixels[split])


def test_clips_show_images_of_their_split_and_all_of_their_digits(clips: dict[str, list[Clip]]) -> None:
    pools = {split: set(np.concatenate(parts).tolist()) for split, parts in image_pools(SEED).items()}
    for split, drawn in clips.items():
        assert len(drawn) == COUNTS[split]
        for clip in drawn:
            assert set(clip.images.tolist()) <= pools[split]
            assert set(DIGITS.target[clip.images].tolist()) == set(clip.digits)
            assert 20 <= len(clip.images) <= 120
            assert 1 <= len(clip.digits) <= 3
            assert list(clip.digits) == sorted(clip.digits)


def test_ids_are_unique_and_of_four_letters(clips: dict[str, list[Clip]]) -> None:
    ids = [clip.id for drawn in clips.values() for clip in drawn]
    assert len(set(ids)) == sum(COUNTS.values())
    assert all(len(video) == 4 and video.isalnum() and video.isascii() for video in ids)


def test_half_of_the_clips_are_inverted(clips: dict[str, list[Clip]]) -> None:
    for split, drawn in clips.items():
        assert sum(clip.inverted for clip in drawn) == COUNTS[split] // 2
        inverted = [clip.inverted for clip in drawn]
        assert inverted != sorted(inverted)  # not one half after the other
        assert any(one == two for one, two in pairwise(inverted))  # and not in turns


def test_classes_are_not_equally_popular() -> None:
    drawn = draw_clips(0, {"train": 1000, "validate": 1, "test": 1})["train"]
    counts = np.bincount([label for clip in drawn for label in clip.labels], minlength=len(CLASSES))[:10]
    assert counts.min() > 10
    assert counts.max() > 4 * counts.min()
    assert {len(clip.digits) for clip in drawn} == {1, 2, 3}


def test_labels() -> None:
    names = {digit: [CLASSES[label] for label in labels_of([digit])] for digit in range(10)}
    assert names == {
        0: ["zero", "even", "with a loop"],
        1: ["one"],
        2: ["two", "even", "prime"],
        3: ["three", "prime"],
        4: ["four", "even"],
        5: ["five", "prime"],
        6: ["six", "even", "with a loop"],
        7: ["seven", "prime"],
        8: ["eight", "even", "with a loop"],
        9: ["nine", "with a loop"],
    }
    assert labels_of([9, 2, 9]) == [2, 9, 10, 11, 12]


def test_bytes_are_the_nearest_to_the_images(clips: dict[str, list[Clip]]) -> None:
    half_a_step = 2 / 255 + 1e-6
    for clip in clips["test"]:
        images = DIGITS.images[clip.images]
        if clip.inverted:
            images = 16 - images
        sums = np.concatenate([images.sum(axis=2), images.sum(axis=1)], axis=1)
        rgb, audio = (dequantised([[frame.tobytes()] for frame in part]) for part in clip_frames(clip))
        assert rgb.shape == (len(clip.images), 64)
        assert audio.shape == (len(clip.images), 16)
        assert np.abs(rgb - (images.reshape(-1, 64) / 8 - 1)).max() <= half_a_step
        assert np.abs(audio - (sums / 64 - 1)).max() <= half_a_step


def test_video_records_are_the_means_of_the_frame_records(folder: Path, clips: dict[str, list[Clip]]) -> None:
    for split, drawn in clips.items():
        videos = [parse_example(data) for data in records(folder, "video", split)]
        frames = [parse_sequence_example(data) for data in records(folder, "frame", split)]
        assert [video["id"] for video in videos] == [[clip.id.encode()] for clip in drawn]
        assert len(frames) == (-(-len(drawn) // 5) if split == "train" else len(drawn))
        assert all(np.array_equal(v["labels"], c.labels) for v, c in zip(videos, drawn, strict=True))
        for video, clip, (context, lists) in zip(videos, drawn, frames, strict=False):
            assert (set(video), set(context)) == (
                {"id", "labels", "mean_rgb", "mean_audio"},
                {"id", "labels"},
            )
            assert context["id"] == video["id"]
            assert np.array_equal(context["labels"], video["labels"])
            assert {name: len(steps) for name, steps in lists.items()} == {
                "rgb": len(clip.images),
                "audio": len(clip.images),
            }
            for name, size in (("rgb", 64), ("audio", 16)):
                mean = np.asarray(video[f"mean_{name}"])
                assert (mean.dtype, mean.shape) == (np.float32, (size,))
                np.testing.assert_allclose(mean, dequantised(lists[name]).mean(axis=0), atol=1e-6)


def test_segments_are_rated_by_what_they_show(folder: Path, clips: dict[str, list[Clip]]) -> None:
    scores = set[float]()
    for split, drawn in clips.items():
        segments = [parse_sequence_example(data) for data in records(folder, "segment", split)]
        frames = [parse_sequence_example(data) for data in records(folder, "frame", split)]
        assert len(segments) == -(-len(drawn) // 5)
        for (context, lists), (plain, same_lists), clip in zip(segments, frames, drawn, strict=False):
            assert lists == same_lists
            assert context["id"] == plain["id"]
            parts = [context[f"segment_{name}"] for name in ("start_times", "end_times", "labels", "scores")]
            rated = list(zip(*(np.asarray(part).tolist() for part in parts), strict=True))
            assert len({(start, label) for start, _, label, _ in rated}) == len(rated)
            assert len({start for start, *_ in rated}) == min(5, len(clip.images) // 5)
            for start, end, label, score in rated:
                assert start % 5 == 0
                assert end == start + 5 <= len(clip.images)
                shown = labels_of(DIGITS.target[clip.images[start:end]].tolist())
                assert score == (label in shown)
                scores.add(score)
            # one class that the clip does not have is rated in each segment
            others = [start for start, _, label, _ in rated if label not in clip.labels]
            assert sorted(others) == sorted({start for start, *_ in rated})
    assert scores == {0.0, 1.0}


def test_the_truth_stands_beside_the_shards(folder: Path, clips: dict[str, list[Clip]]) -> None:
    with (folder / "regimes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {
            "id": clip.id,
            "split": split,
            "inverted": str(int(clip.inverted)),
            "digits": " ".join(str(digit) for digit in clip.digits),
        }
        for split, drawn in clips.items()
        for clip in drawn
    ]


def test_vocabulary(folder: Path, clips: dict[str, list[Clip]]) -> None:
    assert read_vocabulary(folder / "vocabulary.csv") == CLASSES
    with (folder / "vocabulary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        assert int(row["TrainVideoCount"]) == sum(i in clip.labels for clip in clips["train"])
        assert row["Vertical1"] == ("Digits" if i < 10 else "Attributes")


def test_vocabulary_has_the_columns_of_the_real_one(folder: Path, data_dir: Path) -> None:
    with (
        (data_dir / "youtube8m" / "vocabulary.csv").open() as real,
        (folder / "vocabulary.csv").open() as ours,
    ):
        assert ours.readline() == real.readline()


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "a" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    for path in (kept.parent, kept):
        with pytest.raises(ValueError, match=f"{path} exists and is not an empty folder; give a new name"):
            write_sample(path, **NUMBERS)
    assert files(tmp_path) == {"a/kept.txt": b"mine"}


def test_an_empty_folder_is_filled_but_the_current_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(ValueError, match=r"makes its own folder, got the current one .*; give a new name"):
        write_sample(".", **NUMBERS)
    monkeypatch.chdir(tmp_path)
    write_sample("a", num_train=1, num_validate=1, num_test=1)
    assert (tmp_path / "a" / "video" / "train0000.tfrecord").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", list(NUMBERS))
def test_numbers_must_be_positive(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        write_sample(tmp_path / "a", **{**NUMBERS, name: 0})
    assert list(tmp_path.iterdir()) == []


def test_seed_must_not_be_negative(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        write_sample(tmp_path / "a", seed=-1)
