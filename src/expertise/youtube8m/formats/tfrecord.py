"""TFRecord files of tf.train.Example, as YouTube-8M is distributed; also compressed by GZIP."""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.formats._abstract import AbstractFormat, chunk_rows
from expertise.youtube8m.reading.columns import parse_videos
from expertise.youtube8m.reading.frame_records import parse_frame_video, parse_frames
from expertise.youtube8m.reading.frame_videos import FrameVideos
from expertise.youtube8m.records import RecordError, encode_example, scan_records, write_records
from expertise.youtube8m.videos import FeatureSpec, Videos

GZIP_MAGIC = b"\x1f\x8b"
HEADER, FRAMING = 12, 16  # bytes of a record before its data, and around it
SAMPLE = 1 << 18  # bytes that tell how well a file is compressed
FIRST_BYTES = 8 << 20  # a first record that is longer tells nothing about the others
FRAME_BYTES = 32 << 20  # of the records of a chunk of frame-level videos


class TFRecordFormat(AbstractFormat):
    """Records with id, labels and one float list for each feature, or one list of frames for each."""

    has_frames = True

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def estimate_rows(self, path: Path, spec: FeatureSpec) -> int:
        """The size of the file over that of its first record; 0 where that cannot be read."""
        size, head = _head(path)
        first = _first_size(head)
        # a first record that is larger than the file is corrupt, a smaller one than its floats another kind
        smallest = FRAMING + 4 * spec.total
        return int(size // max(first if first <= size else 0, smallest))

    def estimate_frames(self, path: Path, spec: FeatureSpec) -> int:
        """The size of the file over the bytes of a frame in its first record; 0 where that cannot be read."""
        size, head = _head(path)
        first = _first_size(head)
        try:
            _, views = parse_frame_video(head[HEADER : HEADER + first - FRAMING], spec)
        except ValueError:  # reading will say what is wrong
            return int(size // spec.total)
        return int(size * len(views[0]) // first)

    def read(
        self,
        path: Path,
        spec: FeatureSpec,
        num_classes: int,
        skipped: list[RecordError] | None = None,
        scratch: NDArray[np.float32] | None = None,
    ) -> Iterator[Videos]:
        """Read the videos in chunks, checksums verified; see AbstractFormat.read."""
        step = chunk_rows(spec)
        for shard in scan_records(path, skipped=skipped):
            for first in range(0, len(shard.starts), step):
                part = shard.take(slice(first, first + step))
                yield from parse_videos(part, spec, num_classes, skipped, scratch)

    def read_frames(
        self,
        path: Path,
        spec: FeatureSpec,
        num_classes: int,
        skipped: list[RecordError] | None = None,
    ) -> Iterator[FrameVideos]:
        """Read frame-level videos in chunks, checksums verified; see AbstractFormat.read_frames."""
        for shard in scan_records(path, skipped=skipped):
            chunks = np.cumsum(shard.sizes) // FRAME_BYTES
            for rows in np.split(np.arange(len(chunks)), np.flatnonzero(np.diff(chunks)) + 1):
                yield parse_frames(shard.take(rows), spec, num_classes, skipped)

    def write(self, path: Path, chunks: Iterable[Videos], spec: FeatureSpec) -> int:
        """Write one Example for each video; return their number."""
        return write_records(path, (record for chunk in chunks for record in encode_videos(chunk, spec)))

    def clipped(self, features: NDArray[np.float32]) -> int:
        """None: floats are kept bit by bit."""
        return 0


def _head(path: Path) -> tuple[int, bytes]:
    """About the size of the file without compression, and its first record; nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            if not head.startswith(GZIP_MAGIC):
                return size, head + file.read(min(FIRST_BYTES, _first_size(head)))
            file.seek(0)  # as if the rest of it shrank like its head
            unpacked = gzip.GzipFile(fileobj=file)
            head = unpacked.read(SAMPLE)
            size = size * len(head) // file.tell()
            return size, head + unpacked.read(min(FIRST_BYTES, max(0, _first_size(head) - len(head))))
    except (OSError, EOFError, zlib.error):
        return 0, b""


def _first_size(head: bytes) -> int:
    """Bytes of the first record with its framing; those of a long one where ``head`` is too short to tell."""
    return FRAMING + int.from_bytes(head[:8], "little") if len(head) >= 8 else FIRST_BYTES


def encode_videos(videos: Videos, spec: FeatureSpec) -> Iterator[bytes]:
    """One tf.train.Example for each video."""
    ends = videos.label_ptr.tolist()
    for row, video in enumerate(videos.ids):
        values = videos.features[row]
        yield encode_example(
            {
                "id": [video.encode()],
                "labels": videos.labels[ends[row] : ends[row + 1]].astype(np.int64),
                **{name: values[part] for name, part in spec.slices.items()},
            }
        )
