"""Mean average precision of segments, as in the 2019 challenge, gathered batch by batch.

Letters: B segments of a batch, C classes.

MAP@K = 1/C sum_c 1/N_c sum_{k=1..K} P_c(k) rel_c(k), K = 100,000: each class ranks the segments that were
rated for it by their score; P_c(k) is the precision among the k best, rel_c(k) whether the k-th shows the
class, N_c how many of them do (Kaggle, "The 3rd YouTube-8M Video Understanding Challenge", evaluation).
Classes without a positive are left out of the mean, and counted.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from expertise.youtube8m._ranking import precisions_of_hits, ranking_keys
from expertise.youtube8m.metrics import Matrix, NoLabelError

DEPTH = 100_000  # K of the challenge


class SegmentsPerClass(NamedTuple):
    """What each class contributed: ``average_precision`` (C,), NaN without a positive; ``positives`` (C,) and
    ``ratings`` (C,).
    """

    average_precision: npt.NDArray[np.float64]
    positives: npt.NDArray[np.int64]
    ratings: npt.NDArray[np.int64]


class _Entries(NamedTuple):
    """Rated entries, flat: score, whether the segment shows the class, class."""

    scores: npt.NDArray[np.floating]
    hits: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.unsignedinteger]


class SegmentMetrics:
    """MAP@K of rated segments over any number of batches.

    Memory grows by the ratings (7 bytes each for float32 scores and up to 65,536 classes) and nothing
    else. The result depends neither on batches nor on the order: segments of equal score count with the mean
    over all their orders.

    Parameters
    ----------
    num_classes : number of classes C.
    depth : K, how many of the best segments of each class count.

    >>> metrics = SegmentMetrics(num_classes=2)
    >>> rated = np.array([[True, False], [True, False], [False, False]])
    >>> scores = np.array([[0.9, 0.5], [0.4, 0.5], [0.6, 0.5]])
    >>> metrics.update(scores, rated & [[False], [True], [True]], rated)
    >>> metrics.compute()["map"]  # the third segment was not rated: the hit is the second of two
    0.5
    """

    def __init__(self, num_classes: int, depth: int = DEPTH) -> None:
        for name, value in (("num_classes", num_classes), ("depth", depth)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.num_classes = int(num_classes)
        self.depth = int(depth)
        self._class_type = np.min_scalar_type(num_classes - 1)
        self._pools: list[_Entries] = []
        self._num_segments = 0

    def update(self, predictions: Matrix, labels: Matrix, rated: Matrix) -> None:
        """Add a batch.

        Parameters
        ----------
        predictions : (B, C) scores of any floating type. Larger is surer.
        labels : bool (B, C), whether the segment shows the class; says nothing where it is not rated.
        rated : bool (B, C), whether somebody has looked for the class in the segment.

        Raises
        ------
        ValueError : a wrong shape or type, or a score that is NaN.
        """
        scores_BC = self._checked("predictions", predictions)
        labels_BC, rated_BC = self._checked("labels", labels), self._checked("rated", rated)
        if not len(scores_BC) == len(labels_BC) == len(rated_BC):
            raise ValueError(
                "predictions, labels and rated must have one row for each segment, got "
                f"{len(scores_BC)}, {len(labels_BC)} and {len(rated_BC)} rows"
            )
        if wrong := np.isnan(scores_BC).any(axis=1).nonzero()[0].tolist():
            raise ValueError(
                f"predictions must be numbers, got NaN in row {wrong[0]}; has the training diverged?"
            )
        rows, classes = np.nonzero(rated_BC)
        self._num_segments += len(scores_BC)
        self._pools.append(
            _Entries(scores_BC[rows, classes], labels_BC[rows, classes], classes.astype(self._class_type))
        )

    def merge(self, other: "SegmentMetrics") -> None:
        """Add what ``other`` has seen: another process, other segments. ``other`` stays as it is."""
        for name in ("num_classes", "depth"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"{name} must be the same in merged metrics, got {mine} and {theirs}")
        self._num_segments += other._num_segments
        self._pools.extend(other._pools)

    def compute(self) -> dict[str, float | int]:
        """Give map and the numbers that belong to it.

        num_classes_in_map have a positive rating, num_classes_without_positive only others; num_segments were
        added, with num_ratings in all.

        Raises
        ------
        ValueError : no segment was added.
        NoLabelError : none was rated, or no rating is positive.
        """
        average_precision, positives, ratings = self.per_class()
        return {
            "map": float(np.nanmean(average_precision)),
            "num_classes_in_map": int(np.count_nonzero(positives)),
            "num_classes_without_positive": int(np.count_nonzero((ratings > 0) & (positives == 0))),
            "num_segments": self._num_segments,
            "num_ratings": int(ratings.sum()),
        }

    def per_class(self) -> SegmentsPerClass:
        """Give the average precision, positives and ratings of every class; raises as `compute` does."""
        if not self._num_segments:
            raise ValueError(
                "there are no metrics yet: call update(predictions, labels, rated) before compute()"
            )
        self._pools = [_Entries(*map(np.concatenate, zip(*self._pools, strict=True)))]
        scores, hits, classes = self._pools[0]
        ratings = np.bincount(classes, minlength=self.num_classes)
        positives = np.bincount(classes[hits], minlength=self.num_classes)
        if not positives.any():
            raise NoLabelError(
                f"none of the {self._num_segments:,} segments has a positive rating ({len(scores):,} ratings "
                "in all), so there is nothing to measure; of the 2019 data, the validate partition is rated"
            )
        of_class, precisions = precisions_of_hits(ranking_keys(scores, hits, classes), self.depth)
        sums = np.bincount(of_class, weights=precisions, minlength=self.num_classes)
        with np.errstate(invalid="ignore"):  # 0/0 is the NaN of a class without a positive
            return SegmentsPerClass(sums / positives, positives, ratings)

    def _checked(self, name: str, matrix: Matrix) -> npt.NDArray[Any]:
        tensor = torch.as_tensor(matrix).detach().cpu()
        if tensor.ndim != 2 or tensor.shape[1] != self.num_classes:
            raise ValueError(
                f"{name} must have the shape (segments, {self.num_classes}), one column for each class, "
                f"got {tuple(tensor.shape)}"
            )
        if name == "predictions" and not tensor.is_floating_point():
            raise ValueError(f"predictions must be floating-point scores, got {tensor.dtype}")
        if name != "predictions" and tensor.dtype != torch.bool:
            raise ValueError(f"{name} must be bool, got {tensor.dtype}")
        return (tensor if tensor.dtype in (torch.bool, torch.float64) else tensor.float()).numpy()
