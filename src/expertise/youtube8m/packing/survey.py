"""The first reading of own frames: checks everything, measures the features, and plans the shards.

Letters: L frames, D values of a feature.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from expertise._progress import progress
from expertise.youtube8m.packing.inputs import DEFAULT_PARTITION, Inputs, OwnVideo
from expertise.youtube8m.packing.plan import Plan, PlannedFeature, PlannedShard
from expertise.youtube8m.packing.rows import fault

REACH = 2.0  # largest magnitude that bytes hold, to within half a step
CLIPPED = 1e-4  # the share of a feature's values that may be larger, at most
PENDING = 1 << 20  # values that are counted at once
SHIFT = 16  # the bits of a float32 that a magnitude is not counted by: 7 of 23 digits are left
PARTITION = re.compile("[a-z]+")


class Magnitudes:
    """Counts how large the values of a feature are, by the first bits of their magnitudes, within 1 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << (31 - SHIFT), dtype=np.int64)
        self._largest = 0.0
        self._pending: list[NDArray[np.float32]] = []
        self._size = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count some values, which are finite."""
        self._pending.append(values.reshape(-1))
        self._size += values.size
        if self._size >= PENDING:
            self._count()

    def _count(self) -> None:
        if self._pending:
            magnitudes = np.abs(np.concatenate(self._pending))
            bins = magnitudes.view(np.uint32) >> SHIFT
            self._counts += np.bincount(bins, minlength=len(self._counts))
            self._largest = max(self._largest, float(magnitudes.max(initial=0)))
            self._pending, self._size = [], 0

    def factor(self) -> float:
        """What brings all values but `CLIPPED` of those that are not 0 into the range of bytes.

        >>> magnitudes = Magnitudes()
        >>> magnitudes.add(np.array([[0.5, -4.0], [0.0, 1.0]], dtype=np.float32))
        >>> magnitudes.factor()
        0.5
        """
        self._count()
        counts = self._counts.copy()
        counts[0] = 0  # zeros, and what is as good as zero
        above = counts[::-1].cumsum()[::-1] - counts  # values in higher bins
        bin_ = int(np.argmax((above <= CLIPPED * counts.sum()) & (counts > 0)))
        edge = np.array([(bin_ + 1 << SHIFT) - 1], dtype=np.uint32).view(np.float32)
        return REACH / min(float(edge[0]), self._largest)


@dataclass
class Classes:
    """The classes: given by a vocabulary, or found in the labels.

    given : names in the order of their indices; empty where they are found. counts : videos to train on that
    have each label.
    """

    given: tuple[str, ...]
    counts: Counter[Any] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._index = indices(self.given)
        self._twice = {name for name, count in Counter(map(str.strip, self.given)).items() if count > 1}

    def add(self, video: OwnVideo) -> None:
        """Count the labels of a video. Raises ValueError at one that the vocabulary has not."""
        for label in video.labels:
            if self.given:
                self._check(video, label)
            self.counts[label] += video.partition == DEFAULT_PARTITION

    def _check(self, video: OwnVideo, label: Any) -> None:
        if isinstance(label, int):
            if not 0 <= label < len(self.given):
                raise _fault(
                    video, f"label {label} is outside 0..{len(self.given) - 1}, the Index of --vocabulary"
                )
        elif label not in self._index:
            nearest = difflib.get_close_matches(label, self._index, 1, 0.0)
            raise _fault(video, f"label {label!r} is not in --vocabulary; the nearest is {nearest[0]!r}")
        elif label in self._twice:
            raise _fault(
                video, f"label {label!r} stands in --vocabulary more than once; give labels by Index"
            )

    def table(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Names and counts, by index: the given order, or the most frequent first and then by name."""
        if not self.given:
            ordered = sorted(self.counts, key=lambda name: (-self.counts[name], name))
            return tuple(ordered), tuple(self.counts[name] for name in ordered)
        totals = [self.counts[i] for i in range(len(self.given))]
        for name, index in self._index.items():
            totals[index] += self.counts[name]
        return self.given, tuple(totals)


def indices(names: Sequence[str]) -> dict[str, int]:
    """The index of each class by its name, spaces around it left out."""
    return {name.strip(): index for index, name in enumerate(names)}


class _Shards:
    """Fills the shards of each partition in the order of the input."""

    def __init__(self, videos_per_shard: int) -> None:
        self._most = videos_per_shard
        self.found: dict[str, list[PlannedShard]] = {}

    def add(self, video: OwnVideo) -> None:
        shards = self.found.setdefault(video.partition, [])
        frames = len(video.frames)
        if not shards or shards[-1].videos == self._most:
            shards.append(PlannedShard(video.partition, len(shards), 1, frames, video.start, video.end))
        else:
            last = shards[-1]
            shards[-1] = PlannedShard(
                last.partition, last.number, last.videos + 1, last.frames + frames, last.start, video.end
            )


def survey(
    inputs: Inputs,
    vocabulary: tuple[str, ...],
    videos_per_shard: int,
    request: Mapping[str, Any],
    stream: TextIO | None = None,
) -> Plan:
    """Read all videos once, and plan what is written.

    Raises
    ------
    ValueError : an id comes again after others, a value is not finite, a frame is all zeros, a label is not
        in the vocabulary, a partition's name is wrong, or no video has a label and there is no vocabulary.
    """
    classes, shards = Classes(vocabulary), _Shards(videos_per_shard)
    magnitudes = {name: Magnitudes() for name, feature in inputs.features.items() if not feature.is_bytes}
    longest = 0
    with progress("checking", inputs.num_rows, "frames", stream=stream) as meter:
        if left_out := inputs.tables[0].left_out:
            meter.say(f"left out, because not rows of numbers: {', '.join(left_out)}")
        for video in _checked(inputs):
            for name, counted in magnitudes.items():
                _check_values(video, name)
                counted.add(video.features[name])
            classes.add(video)
            shards.add(video)
            longest = max(longest, len(video.frames))
            meter.advance(len(video.frames))
    names, counts = classes.table()
    if not names:
        raise ValueError(
            f"no video has a label; give them as 'labels' beside 'id' in {inputs.tables[0].path}, or "
            "--vocabulary of the model for which these videos are"
        )
    return Plan(
        request,
        tuple(
            PlannedFeature(name, feature.size, None if feature.is_bytes else magnitudes[name].factor())
            for name, feature in inputs.features.items()
        ),
        names,
        counts,
        longest,
        tuple(sorted((one for own in shards.found.values() for one in own), key=lambda one: one.start)),
    )


def _checked(inputs: Inputs) -> Iterator[OwnVideo]:
    """All videos, each id once. Raises ValueError at one that comes again, and at a wrong partition."""
    seen: set[str] = set()
    for video in inputs.videos():
        if video.id in seen:
            raise _fault(
                video,
                "the id stood before other ids already; sort the rows so that those of an id stand together, "
                "and give no id in two files",
            )
        seen.add(video.id)
        if not PARTITION.fullmatch(video.partition):
            raise _fault(video, f"partition {video.partition!r} is not allowed; use the letters a to z alone")
        yield video


def _check_values(video: OwnVideo, name: str) -> None:
    """Raise ValueError at a frame with a value that is not finite, or with zeros alone."""
    values = video.features[name]
    finite = np.isfinite(values)
    if not finite.all():
        frame, column = divmod(int(np.argmin(finite)), values.shape[1])
        raise _fault(
            video,
            f"frame {video.frames[frame]}: value {column} of feature {name!r} is {values[frame, column]} as "
            "float32, not finite; leave the frame out, or give all values a finite number",
        )
    zero = ~values.any(axis=1)
    if zero.any():
        frame = int(np.argmax(zero))
        raise _fault(
            video,
            f"frame {video.frames[frame]}: all values of feature {name!r} are 0, which says nothing; leave "
            "the frame out (padding is added in training), or the feature by --feature_names",
        )


def _fault(video: OwnVideo, reason: str) -> ValueError:
    return fault(video.path, video.start.row, f"id {video.id!r}: {reason}")
