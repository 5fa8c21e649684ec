"""The examples that a reading makes of frame-level videos: they themselves, or segments of them.

Letters: n videos, m examples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m.frames import SEGMENT_FRAMES
from expertise.youtube8m.reading.frame_videos import UNRATED, Ints, Ratings
from expertise.youtube8m.videos import pointers


@dataclass(frozen=True)
class Examples:
    """Videos or segments of videos.

    videos, starts, lengths : int64 (m,), of each example its video, first frame and number of frames.
    label_ptr, labels : ragged rows of the classes that it has. rated_ptr, rated : those that were rated; None
    where all classes count.
    """

    videos: Ints
    starts: Ints
    lengths: Ints
    label_ptr: Ints
    labels: NDArray[np.int32]
    rated_ptr: Ints | None = None
    rated: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.videos)


def whole_videos(max_frames: int, lengths: Ints, label_ptr: Ints, labels: NDArray[np.int32]) -> Examples:
    """Every video as one example, which ends after ``max_frames``."""
    n = len(lengths)
    return Examples(
        np.arange(n), np.zeros(n, dtype=np.int64), np.minimum(lengths, max_frames), label_ptr, labels
    )


def segments_of(lengths: Ints, ratings: Ratings, *, unrated: bool) -> Examples:
    """The segments of videos, in the order of their starts; of two ratings of the same class the last counts.

    With ``unrated`` also those which no rating has, and of a video that names no segment all: one after the
    other, the last may be shorter.

    >>> ratings = Ratings(np.array([0, 2]), np.array([7, 7]), np.array([3, 4]), np.array([True, False]))
    >>> found = segments_of(np.array([9]), ratings, unrated=False)
    >>> found.starts.tolist(), found.lengths.tolist(), found.labels.tolist(), found.rated.tolist()
    ([7], [2], [3], [3, 4])
    """
    n = len(lengths)
    videos = np.repeat(np.arange(n), np.diff(ratings.ptr))
    span = int(max(ratings.starts.max(initial=0), lengths.max(initial=0))) + 1
    keys = videos * span + ratings.starts  # in the order of videos, and of starts in them
    is_rated = ratings.labels != UNRATED
    if unrated:
        silent = np.flatnonzero(np.diff(ratings.ptr) == 0)
        windows = -(-lengths[silent] // SEGMENT_FRAMES)
        where = np.arange(windows.sum()) - np.repeat(pointers(windows)[:-1], windows)
        made = np.repeat(silent, windows) * span + where * SEGMENT_FRAMES
        segments = np.unique(np.concatenate([keys, made]))
    else:
        segments = np.unique(keys[is_rated])
    keys, labels, hits = keys[is_rated], ratings.labels[is_rated], ratings.hits[is_rated]
    order = np.lexsort((labels, keys))  # stable, so that the last of equals is the last in the record
    keys, labels, hits = keys[order], labels[order], hits[order]
    last = np.ones(len(keys), dtype=bool)
    last[:-1] = (keys[1:] != keys[:-1]) | (labels[1:] != labels[:-1])
    rows, labels, hits = np.searchsorted(segments, keys[last]), labels[last], hits[last]
    videos, starts = np.divmod(segments, span)
    m = len(segments)
    return Examples(
        videos,
        starts,
        np.minimum(lengths[videos] - starts, SEGMENT_FRAMES),
        pointers(np.bincount(rows[hits], minlength=m)),
        labels[hits],
        pointers(np.bincount(rows, minlength=m)),
        labels,
    )
