"""What differs between videos of one row of features and videos of frames: how they are read and listed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.cache import Cache
from expertise.youtube8m.formats import format_of
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.reading.frame_examples import Examples, segments_of, whole_videos
from expertise.youtube8m.reading.frame_videos import FrameVideos, Ints, Ratings, Views, join_frames
from expertise.youtube8m.reading.tables import FrameTable, Table, VideoTable
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos, concatenate

Chunk = TypeVar("Chunk", Videos, FrameVideos)

_NO_RATING = (
    "; --segment_labels takes records with segment_start_times, segment_labels and segment_scores: give such "
    "ones, or leave it out"
)


class Level(ABC, Generic[Chunk]):
    """Video level or frame level. Chunks are what files give.

    what : what the examples are called. why_none : what to say and to do where data have none of them.
    """

    what = "video"
    why_none = ""

    @abstractmethod
    def read(self, path: Path, num_classes: int, skipped: list[RecordError] | None) -> Iterator[Chunk]:
        """Read a file; see AbstractFormat.read."""

    @abstractmethod
    def join(self, chunks: Sequence[Chunk]) -> Chunk:
        """Make one chunk of several."""

    @abstractmethod
    def nbytes(self, chunk: Chunk) -> int:
        """Bytes of the features of a chunk."""

    @abstractmethod
    def table(self, chunk: Chunk) -> Table:
        """The examples of a chunk."""

    @abstractmethod
    def cached(self, cache: Cache) -> Table:
        """The examples of a cache."""


class VideoLevel(Level[Videos]):
    """Videos with one row of features."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec

    def read(self, path: Path, num_classes: int, skipped: list[RecordError] | None) -> Iterator[Videos]:
        """Read a file of any format."""
        return format_of(path).read(path, self._spec, num_classes, skipped)

    def join(self, chunks: Sequence[Videos]) -> Videos:
        """Copy several chunks into one."""
        return concatenate(chunks, self._spec)

    def nbytes(self, chunk: Videos) -> int:
        """Bytes of the features of a chunk."""
        return chunk.features.nbytes

    def table(self, chunk: Videos) -> Table:
        """The videos of a chunk."""
        return VideoTable(chunk.features, None, chunk.label_ptr, chunk.labels, _names(chunk.ids))

    def cached(self, cache: Cache) -> Table:
        """The videos of a cache."""
        # without the overhead of np.memmap at every access
        features = np.asarray(cache.features, dtype=np.float32)
        return VideoTable(features, cache.rows, cache.label_ptr, cache.labels, cache.ids)


class FrameLevel(Level[FrameVideos]):
    """Videos with frames, or segments of them, as ``reading`` says."""

    def __init__(self, spec: FeatureSpec, reading: FrameReading) -> None:
        self._spec, self._reading = spec, reading
        self.what = {"": "video", "rated": "rated segment", "all": "segment"}[reading.segments]
        self.why_none = _NO_RATING if reading.segments == "rated" else ""

    def read(self, path: Path, num_classes: int, skipped: list[RecordError] | None) -> Iterator[FrameVideos]:
        """Read a TFRecord file."""
        return format_of(path).read_frames(path, self._spec, num_classes, skipped)

    def join(self, chunks: Sequence[FrameVideos]) -> FrameVideos:
        """List the videos of several chunks; the frames stay where they are."""
        return join_frames(chunks)

    def nbytes(self, chunk: FrameVideos) -> int:
        """Bytes of the frames of a chunk."""
        return chunk.num_rows * self._spec.total

    def table(self, chunk: FrameVideos) -> Table:
        """The videos of a chunk, or their segments."""
        examples = self._examples(chunk.lengths, chunk.label_ptr, chunk.labels, chunk.ratings)
        return FrameTable(examples, chunk.frames.__getitem__, _names(chunk.ids), self.nbytes(chunk))

    def cached(self, cache: Cache) -> Table:
        """The videos of a cache, or their segments."""
        assert cache.rows is not None
        assert cache.lengths is not None
        assert cache.ratings is not None
        features = np.asarray(cache.features, dtype=np.uint8)
        firsts, lengths = cache.rows, cache.lengths

        def frames_of(video: int) -> Views:
            return (features[firsts[video] : firsts[video] + lengths[video]],)

        examples = self._examples(lengths, cache.label_ptr, cache.labels, cache.ratings)
        return FrameTable(examples, frames_of, cache.ids, int(lengths.sum()) * self._spec.total)

    def _examples(
        self, lengths: Ints, label_ptr: Ints, labels: NDArray[np.int32], ratings: Ratings
    ) -> Examples:
        if self._reading.segments:
            return segments_of(lengths, ratings, unrated=self._reading.segments == "all")
        return whole_videos(self._reading.max_frames, lengths, label_ptr, labels)


def _names(ids: list[str]) -> Callable[[Ints], list[str]]:
    return lambda rows: [ids[row] for row in rows.tolist()]


def level_of(spec: FeatureSpec, reading: FrameReading | None) -> Level[Any]:
    """The level that ``reading`` means; None: video level."""
    return VideoLevel(spec) if reading is None else FrameLevel(spec, reading)
