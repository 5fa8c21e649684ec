"""What every file format of labelled videos answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.reading.frame_videos import FrameVideos
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos

MOST_ROWS, MOST_BYTES = 2048, 32 << 20  # of a chunk


class AbstractFormat(ABC):
    """One file format.

    suffix : what its files are called when they are written. has_frames : whether they may be frame-level.
    """

    suffix: str
    has_frames = False

    @abstractmethod
    def estimate_rows(self, path: Path, spec: FeatureSpec) -> int:
        """About how many videos the file holds, from its size or head alone; nothing is allocated by it."""

    @abstractmethod
    def read(
        self,
        path: Path,
        spec: FeatureSpec,
        num_classes: int,
        skipped: list[RecordError] | None = None,
        scratch: NDArray[np.float32] | None = None,
    ) -> Iterator[Videos]:
        """Read the videos in their order, in chunks of at most `chunk_rows`.

        Raises RecordError at the first thing that is wrong. With a list ``skipped``, corrupt videos are left
        out instead, and their errors are appended to it. With ``scratch``, float32 (k, D), a reader may give
        smaller chunks, whose features lie there and are gone when the next chunk is asked for: a little
        memory that is used again stays in the processor's cache.
        """

    def estimate_frames(self, path: Path, spec: FeatureSpec) -> int:
        """About how many frames all videos of the file have, from its first bytes alone."""
        raise no_frames(path)

    def read_frames(
        self,
        path: Path,
        spec: FeatureSpec,
        num_classes: int,
        skipped: list[RecordError] | None = None,
    ) -> Iterator[FrameVideos]:
        """Read frame-level videos in their order, in chunks; ``skipped`` as in `read`.

        Raises ValueError where the format holds only videos without their frames.
        """
        raise no_frames(path)

    @abstractmethod
    def write(self, path: Path, chunks: Iterable[Videos], spec: FeatureSpec) -> int:
        """Write the videos to a file, whole or not at all; return their number."""

    @abstractmethod
    def clipped(self, features: NDArray[np.float32]) -> int:
        """How many of the values are outside what this format can hold, and are clipped to it."""


def no_frames(path: Path) -> ValueError:
    """What to say of a file that cannot be read with --frame_features."""
    return ValueError(
        f"{path}: a {path.suffix} file has no frames; --frame_features reads TFRecord files "
        "(.tfrecord, .tfrecord.gz) of tf.train.SequenceExample"
    )


def chunk_rows(spec: FeatureSpec) -> int:
    """How many videos are held at once, at most, however large the file."""
    return max(1, min(MOST_ROWS, MOST_BYTES // (4 * spec.total)))


def report(error: RecordError, skipped: list[RecordError] | None) -> None:
    """Raise the error, or keep it where corrupt records are skipped."""
    if skipped is None:
        raise error
    skipped.append(error)
