"""Frame-level videos in memory, and the ratings of their segments.

Letters: n videos, L frames of a video, D features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.videos import pointers, ragged_rows

UNRATED = -1  # label of a segment's start that stands in a record without a rating
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Views = tuple[Bytes, ...]  # the frames of a video as arrays (L, size) which, side by side, are (L, D)


@dataclass(frozen=True)
class Ratings:
    """Ratings of segments. Those of video i are the entries ``ptr[i]:ptr[i + 1]`` of the other arrays.

    ptr : int64 (n + 1,). starts : int32, first frame of the segment. labels : int32, the class that was
    rated; UNRATED where a segment is only named. hits : bool, whether the segment shows the class.
    """

    ptr: Ints
    starts: NDArray[np.int32]
    labels: NDArray[np.int32]
    hits: NDArray[np.bool_]

    def take(self, videos: Ints) -> "Ratings":
        """Those of some videos, in that order."""
        where, ptr = ragged_rows(self.ptr, videos)
        return Ratings(ptr, self.starts[where], self.labels[where], self.hits[where])

    @classmethod
    def join(cls, parts: "Sequence[Ratings]") -> "Ratings":
        """Those of several sets of videos, one after the other."""
        sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(part.ptr) for part in parts)])
        starts, labels, hits = (
            np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
            for name, kind in (("starts", np.int32), ("labels", np.int32), ("hits", np.bool_))
        )
        return cls(pointers(sizes), starts, labels, hits)


@dataclass(frozen=True)
class FrameVideos:
    """Some frame-level videos. The labels of video i are ``labels[label_ptr[i]:label_ptr[i + 1]]``.

    ids : n strings. frames : the views of each video; they may lie in a file that is mapped into memory.
    lengths : int64 (n,), frames of each video. label_ptr : int64 (n + 1,). labels : int32.
    """

    ids: list[str]
    frames: list[Views]
    lengths: Ints
    label_ptr: Ints
    labels: NDArray[np.int32]
    ratings: Ratings

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Ints) -> "FrameVideos":
        """Only the videos ``rows``, in that order."""
        where, ptr = ragged_rows(self.label_ptr, rows)
        listed = rows.tolist()
        return FrameVideos(
            [self.ids[row] for row in listed],
            [self.frames[row] for row in listed],
            self.lengths[rows],
            ptr,
            self.labels[where],
            self.ratings.take(rows),
        )

    @property
    def num_rows(self) -> int:
        """How many rows of a cache the videos take: one for each frame."""
        return int(self.lengths.sum())

    def pieces(self, scratch: Bytes) -> Iterator[Bytes]:
        """All frames, one video after the other, in pieces (k, D); each is gone when the next is asked for.

        ``scratch``, uint8 (rows, D), is where they are put together.
        """
        filled = 0
        for views, length in zip(self.frames, self.lengths.tolist(), strict=True):
            first = 0
            while first < length:
                count = min(length - first, len(scratch) - filled)
                copy_frames(views, first, scratch[filled : filled + count])
                first, filled = first + count, filled + count
                if filled == len(scratch):
                    yield scratch
                    filled = 0
        if filled:
            yield scratch[:filled]

    def index(self) -> dict[str, NDArray[np.generic]]:
        """All that a cache keeps of the videos but ids and frames."""
        return {
            "frame_sizes": self.lengths,
            "label_sizes": np.diff(self.label_ptr),
            "labels": self.labels,
            "rating_sizes": np.diff(self.ratings.ptr),
            "rating_starts": self.ratings.starts,
            "rating_labels": self.ratings.labels,
            "rating_hits": self.ratings.hits,
        }


def copy_frames(views: Views, first: int, out: Bytes) -> None:
    """Copy the frames from ``first`` on to ``out``, uint8 (l, D), until it is full."""
    left = 0
    for view in views:
        right = left + view.shape[1]
        out[:, left:right] = view[first : first + len(out)]
        left = right


def join_frames(chunks: Sequence[FrameVideos]) -> FrameVideos:
    """Make one of several chunks; the frames stay where they are."""
    if len(chunks) == 1:
        return chunks[0]
    sizes = [np.diff(chunk.label_ptr) for chunk in chunks]
    return FrameVideos(
        [video for chunk in chunks for video in chunk.ids],
        [views for chunk in chunks for views in chunk.frames],
        np.concatenate([np.empty(0, np.int64), *(chunk.lengths for chunk in chunks)]),
        pointers(np.concatenate([np.empty(0, np.int64), *sizes])),
        np.concatenate([np.empty(0, np.int32), *(chunk.labels for chunk in chunks)]),
        Ratings.join([chunk.ratings for chunk in chunks]),
    )
