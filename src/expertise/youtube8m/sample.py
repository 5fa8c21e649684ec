"""A small data set in the form of YouTube-8M that needs no download: clips of handwritten digits.

A clip is 20 to 120 frames, each one image of scikit-learn's digits (8 x 8 pixels, values 0 to 16), of one to
three digits that change from scene to scene. rgb is the 64 pixels, audio the sums of the 8 rows and the 8
columns. Its labels are the digits shown, and what they have in common with others: even, prime, with a loop.
Half of the clips show inverted images: a second regime, in which a bright pixel means the opposite. Which
clips these are is written to regimes.csv, as truth about the data, never an input.
"""

import csv
import os
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expertise._files import atomic_folder
from expertise._progress import progress
from expertise.youtube8m.examples import Values
from expertise.youtube8m.formats.npz import VALUES, quantise
from expertise.youtube8m.records import encode_example, encode_sequence_example, write_records

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ATTRIBUTES = {"even": (0, 2, 4, 6, 8), "prime": (2, 3, 5, 7), "with a loop": (0, 6, 8, 9)}
CLASSES = (*DIGITS, *ATTRIBUTES)
POPULARITY = np.array([10, 1, 7, 3, 5, 2, 4, 8, 1, 6]) / 47  # of each digit, when those of a clip are drawn

SHARES = {"train": 0.7, "validate": 0.15, "test": 0.15}  # of the images of each digit
SHARDS = {"train": 4, "validate": 2, "test": 2}
FRAMES = (20, 120)  # of a clip: one a second
SCENE = (3, 6)  # frames that show the same digit; three of the longest fit the shortest clip
SEGMENT = 5  # frames
RATED = 5  # segments of a clip that have labels, at most
FRAME_LEVEL = 5  # one in so many clips has segments; of the clips to train on, also frames
ID_LETTERS = string.digits + string.ascii_lowercase
WHITE = 16  # the brightest pixel


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip. ``digits`` in rising order; ``images`` are the numbers of scikit-learn's images, by frame."""

    id: str
    digits: tuple[int, ...]
    inverted: bool
    images: NDArray[np.int64]

    @property
    def labels(self) -> list[int]:
        """Classes of all digits that the clip shows."""
        return labels_of(self.digits)


def labels_of(digits: Iterable[int]) -> list[int]:
    """The classes of these digits: they themselves, and the attributes that at least one of them has.

    >>> [CLASSES[label] for label in labels_of([7, 8])]
    ['seven', 'eight', 'even', 'prime', 'with a loop']
    """
    shown = set(digits)
    attributes = (
        len(DIGITS) + i for i, having in enumerate(ATTRIBUTES.values()) if not shown.isdisjoint(having)
    )
    return [*sorted(shown), *attributes]


def image_pools(seed: int) -> dict[str, list[NDArray[np.int64]]]:
    """The images of each split, by digit: disjoint, so that no image of a test clip was seen in training."""
    rng = np.random.default_rng([seed, 0])
    pools: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SHARES}
    cuts = np.cumsum(list(SHARES.values()))[:-1]
    for digit in range(len(DIGITS)):
        images = rng.permutation(np.flatnonzero(_images()[1] == digit))
        for split, part in zip(SHARES, np.split(images, (cuts * len(images)).astype(int)), strict=True):
            pools[split].append(part)
    return pools


def draw_clips(seed: int, counts: dict[str, int]) -> dict[str, list[Clip]]:
    """Draw ``counts[split]`` clips of each split."""
    pools = image_pools(seed)
    rng = np.random.default_rng([seed, 1])
    numbers = rng.choice(len(ID_LETTERS) ** 4, sum(counts.values()), replace=False).tolist()
    ids = iter(
        ["".join(ID_LETTERS[n // len(ID_LETTERS) ** i % len(ID_LETTERS)] for i in range(4)) for n in numbers]
    )
    clips: dict[str, list[Clip]] = {}
    for place, split in enumerate(SHARES):
        rng = np.random.default_rng([seed, 2, place])
        inverted = rng.permutation(counts[split]) % 2 == 1
        clips[split] = [_draw_clip(rng, next(ids), pools[split], bool(other)) for other in inverted]
    return clips


def clip_frames(clip: Clip) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The frames of a clip as bytes: rgb (frames, 64) and audio (frames, 16)."""
    rgb, audio = _quantised(clip.inverted)
    return rgb[clip.images], audio[clip.images]


def write_sample(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    num_train: int = 6000,
    num_validate: int = 1000,
    num_test: int = 1000,
) -> dict[str, str | int]:
    """Write the sample to a new folder, whole or not at all; return what was written.

    The folder gets video/, frame/ and segment/ with the shards of train, validate and test, vocabulary.csv,
    and regimes.csv. Of the clips to train on, one in five has frames; of all clips, one in five has segments.
    The same seed gives the same bytes.

    Raises
    ------
    ValueError : the folder is there and holds something, is the current one, or a number is not positive.
    """
    counts = {"train": num_train, "validate": num_validate, "test": num_test}
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f"num_{split} must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    path = _new_folder(folder)
    clips = draw_clips(seed, counts)
    with atomic_folder(path) as temporary:
        with progress("sample", sum(counts.values()), "clips") as meter:
            for place, (split, drawn) in enumerate(clips.items()):
                rng = np.random.default_rng([seed, 3, place])  # which segments are rated
                few = drawn[: -(-len(drawn) // FRAME_LEVEL)]
                seen = few if split == "train" else drawn
                _write_shards(temporary / "frame", split, [frame_record(clip) for clip in seen])
                _write_shards(temporary / "segment", split, [segment_record(clip, rng) for clip in few])
                _write_shards(temporary / "video", split, [video_record(clip) for clip in drawn])
                meter.advance(len(drawn))
        _write_vocabulary(temporary / "vocabulary.csv", clips["train"])
        _write_regimes(temporary / "regimes.csv", clips)
        size = sum(file.stat().st_size for file in temporary.rglob("*") if file.is_file())
    return {
        "folder": str(path),
        **{f"{split} clips": count for split, count in counts.items()},
        "classes": len(CLASSES),
        "size": f"{size / 1e6:.0f} MB",
    }


def video_record(clip: Clip) -> bytes:
    """Its tf.train.Example: the means of the dequantised frames."""
    rgb, audio = clip_frames(clip)
    return encode_example(
        {
            "id": [clip.id],
            "labels": clip.labels,
            "mean_rgb": VALUES[rgb].mean(axis=0, dtype=np.float64),
            "mean_audio": VALUES[audio].mean(axis=0, dtype=np.float64),
        }
    )


def frame_record(clip: Clip) -> bytes:
    """Its tf.train.SequenceExample: the bytes of each frame."""
    return encode_sequence_example({"id": [clip.id], "labels": clip.labels}, _frame_lists(clip))


def segment_record(clip: Clip, rng: np.random.Generator) -> bytes:
    """Its frames, and for some segments drawn which classes they show (score 1) and do not show (score 0).

    Rated are the classes of the clip, and one other.
    """
    starts, labels, scores = list[int](), list[int](), list[float]()
    segments = len(clip.images) // SEGMENT
    for segment in np.sort(rng.choice(segments, min(RATED, segments), replace=False)).tolist():
        start = SEGMENT * segment
        shown = labels_of(_images()[1][clip.images[start : start + SEGMENT]].tolist())
        other = int(rng.choice(np.setdiff1d(np.arange(len(CLASSES)), clip.labels)))
        for label in sorted([*clip.labels, other]):
            starts.append(start)
            labels.append(label)
            scores.append(float(label in shown))
    context: dict[str, Values] = {
        "id": [clip.id],
        "labels": clip.labels,
        "segment_labels": labels,
        "segment_start_times": starts,
        "segment_end_times": [start + SEGMENT for start in starts],
        "segment_scores": scores,
    }
    return encode_sequence_example(context, _frame_lists(clip))


# ---- images


@cache
def _images() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All images (1797, 8, 8), and the digit that each of them shows."""
    from sklearn.datasets import load_digits  # takes a second or two to import

    digits = load_digits()
    return digits.images.astype(np.int64), digits.target.astype(np.int64)


@cache
def _quantised(inverted: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All images and the sums of their rows and columns, scaled to -1 .. 1, as bytes."""
    images = WHITE - _images()[0] if inverted else _images()[0]
    sums = np.concatenate([images.sum(axis=2), images.sum(axis=1)], axis=1)
    pixels = images.reshape(len(images), -1)
    half, half_sum = WHITE / 2, images.shape[1] * WHITE / 2
    return (
        quantise((pixels / half - 1).astype(np.float32)),
        quantise((sums / half_sum - 1).astype(np.float32)),
    )


def _draw_clip(rng: np.random.Generator, video: str, pools: list[NDArray[np.int64]], inverted: bool) -> Clip:
    count = int(rng.integers(1, 4))
    digits = rng.choice(len(DIGITS), count, replace=False, p=POPULARITY)
    frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    scenes = -(-frames // SCENE[0])
    # each digit has one of the first scenes, so that all of them are shown
    of_scene = np.concatenate([digits, rng.choice(digits, scenes)])
    lengths = rng.integers(SCENE[0], SCENE[1] + 1, len(of_scene))
    shown = np.repeat(of_scene, lengths)[:frames]
    sizes = np.array([len(pool) for pool in pools])
    picked = rng.integers(0, sizes[shown])
    images = np.array([pools[digit][i] for digit, i in zip(shown.tolist(), picked.tolist(), strict=True)])
    return Clip(video, tuple(sorted(digits.tolist())), inverted, images)


def _frame_lists(clip: Clip) -> dict[str, NDArray[np.uint8]]:
    rgb, audio = clip_frames(clip)
    return {"rgb": rgb, "audio": audio}


# ---- files


def _new_folder(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder).resolve()
    if path == Path.cwd():
        raise ValueError(f"the sample makes its own folder, got the current one ({path}); give a new name")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} exists and is not an empty folder; give a new name, or remove it")
    return path


def _write_shards(folder: Path, split: str, records: list[bytes]) -> None:
    shards = min(SHARDS[split], len(records))
    ends = [i * len(records) // shards for i in range(shards + 1)]
    for i in range(shards):
        write_records(folder / f"{split}{i:04d}.tfrecord", records[ends[i] : ends[i + 1]])


def _write_vocabulary(path: Path, clips: list[Clip]) -> None:
    counts = np.bincount([label for clip in clips for label in clip.labels], minlength=len(CLASSES))
    header = "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3"
    rows = (
        [i, count, "", name, "", "Attributes" if name in ATTRIBUTES else "Digits", "", ""]
        for i, (name, count) in enumerate(zip(CLASSES, counts.tolist(), strict=True))
    )
    _write_csv(path, header, rows)


def _write_regimes(path: Path, clips: dict[str, list[Clip]]) -> None:
    rows = (
        [clip.id, split, int(clip.inverted), " ".join(map(str, clip.digits))]
        for split, drawn in clips.items()
        for clip in drawn
    )
    _write_csv(path, "id,split,inverted,digits", rows)


def _write_csv(path: Path, header: str, rows: Iterable[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)
