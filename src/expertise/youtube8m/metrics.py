"""Hit@1, PERR, mAP and GAP of video labels, gathered batch by batch.

Letters: B videos of a batch, C classes, K entries kept of each video.

The formulas are those of the YouTube-8M code (Abu-El-Haija et al., "YouTube-8M: A Large-Scale Video
Classification Benchmark", arXiv:1609.08675, section 5.2, and the code's average_precision_calculator).
Only the K best entries of a video enter the average precisions, but every label counts as a positive.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from expertise.youtube8m._ranking import one_list, precisions_of_hits, ranking_keys

Matrix: TypeAlias = torch.Tensor | npt.NDArray[Any]


class NoLabelError(ValueError):
    """No video, or no segment, has a label: there is nothing to measure."""


class PerClass(NamedTuple):
    """What each class contributed: ``average_precision`` (C,), NaN without a positive; ``positives`` (C,)."""

    average_precision: npt.NDArray[np.float64]
    positives: npt.NDArray[np.int64]


class _Entries(NamedTuple):
    """The best entries of some videos, flat: score, whether it is a label, class."""

    scores: npt.NDArray[np.floating]
    hits: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.unsignedinteger]


class VideoMetrics:
    """The four metrics of YouTube-8M over any number of batches.

    Memory grows by the ``top_k`` best entries of each video (7 bytes an entry for float32 scores and up to
    65,536 classes) and by nothing else. The result does not depend on how the videos are cut into batches,
    nor on their order: entries of equal score count with the mean over all their orders.

    Parameters
    ----------
    num_classes : number of classes C.
    top_k : how many of the best entries of each video enter GAP and mAP; all of them if C is smaller.

    >>> metrics = VideoMetrics(num_classes=3)
    >>> metrics.update(np.array([[0.9, 0.5, 0.1]]), np.array([[False, True, False]]))
    >>> metrics.compute()["gap"]  # the label is the second of all entries: precision 1/2
    0.5
    """

    def __init__(self, num_classes: int, top_k: int = 20) -> None:
        for name, value in (("num_classes", num_classes), ("top_k", top_k)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.num_classes = int(num_classes)
        self.top_k = int(top_k)
        self._class_type = np.min_scalar_type(num_classes - 1)
        self._pools: list[_Entries] = []
        self._positives = np.zeros(num_classes, dtype=np.int64)
        self._num_videos = 0
        self._hits_at_1 = 0
        self._perr = 0.0
        self._averages: tuple[float, npt.NDArray[np.float64]] | None = None

    def update(self, predictions: Matrix, labels: Matrix) -> None:
        """Add a batch.

        Parameters
        ----------
        predictions : (B, C) scores of any floating type, on any device. Larger is surer; PERR counts only
            scores above 0.
        labels : (B, C) bool, or numbers that are 0 or 1.

        Raises
        ------
        ValueError : a wrong shape or type, a score that is NaN, a label that is neither 0 nor 1.
        """
        scores_BC = self._checked_predictions(predictions)
        labels_BC, marked = self._checked_labels(labels)
        if len(scores_BC) != len(labels_BC):
            raise ValueError(
                f"predictions and labels must have one row for each video, got {len(scores_BC)} rows of "
                f"predictions and {len(labels_BC)} of labels"
            )
        if not len(scores_BC):
            return
        top_BK, classes_BK = _largest(scores_BC, min(self.top_k, self.num_classes))
        if np.isnan(top_BK[:, 0]).any():  # topk puts NaN before every number, so this sees all of them
            row = int(np.flatnonzero(np.isnan(top_BK[:, 0]))[0])
            raise ValueError(f"predictions must be numbers, got NaN in row {row}; has the training diverged?")
        hits_BK = np.take_along_axis(labels_BC, classes_BK, axis=1)
        rows, classes = np.divmod(marked, self.num_classes)
        count_B = np.bincount(rows, minlength=len(labels_BC))

        self._averages = None
        self._num_videos += len(labels_BC)
        self._positives += np.bincount(classes, minlength=self.num_classes)
        self._hits_at_1 += int(hits_BK[:, 0].sum())
        self._perr += _sum_of_perr(scores_BC, labels_BC, count_B, top_BK, hits_BK)
        self._pools.append(
            _Entries(top_BK.ravel(), hits_BK.ravel(), classes_BK.astype(self._class_type).ravel())
        )

    def merge(self, other: "VideoMetrics") -> None:
        """Add what ``other`` has seen: another process, other videos. ``other`` stays as it is."""
        for name in ("num_classes", "top_k"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"{name} must be the same in merged metrics, got {mine} and {theirs}")
        self._averages = None
        self._num_videos += other._num_videos
        self._positives += other._positives
        self._hits_at_1 += other._hits_at_1
        self._perr += other._perr
        self._pools.extend(other._pools)

    @property
    def has_labels(self) -> bool:
        """Whether a video with a label was added: without one there is nothing to compute."""
        return bool(self._positives.any())

    def compute(self) -> dict[str, float | int]:
        """Give hit_at_1, perr, map, gap, num_classes_in_map (classes with a positive) and num_videos.

        Raises
        ------
        ValueError : no video was added.
        NoLabelError : none of them has a label.
        """
        gap, average_precision = self._average_precisions()
        return {
            "hit_at_1": self._hits_at_1 / self._num_videos,
            "perr": self._perr / self._num_videos,
            "map": float(np.nanmean(average_precision)),
            "gap": gap,
            "num_classes_in_map": int(np.count_nonzero(self._positives)),
            "num_videos": self._num_videos,
        }

    def per_class(self) -> PerClass:
        """Give the average precision and the number of positives of every class; raises as `compute` does."""
        return PerClass(self._average_precisions()[1].copy(), self._positives.copy())

    def _average_precisions(self) -> tuple[float, npt.NDArray[np.float64]]:
        """Return GAP and the average precision by class; kept until the next batch."""
        if not self._num_videos:
            raise ValueError("there are no metrics yet: call update(predictions, labels) before compute()")
        if not self._positives.any():
            raise NoLabelError(
                f"none of the {self._num_videos} videos has a label, so there is nothing to measure; "
                "the test partition of YouTube-8M carries no labels, evaluate on train or validate"
            )
        if self._averages is None:
            self._pools = [_Entries(*map(np.concatenate, zip(*self._pools, strict=True)))]
            scores, hits, classes = self._pools[0]
            keys = ranking_keys(scores, hits, classes)
            of_class, precisions = precisions_of_hits(keys)
            sums = np.bincount(of_class, weights=precisions, minlength=self.num_classes)
            _, precisions = precisions_of_hits(one_list(keys))
            gap = float(precisions.sum()) / int(self._positives.sum())
            with np.errstate(invalid="ignore"):  # 0/0 is the NaN of a class without a positive
                self._averages = gap, sums / self._positives
        return self._averages

    def _checked_predictions(self, predictions: Matrix) -> torch.Tensor:
        tensor = torch.as_tensor(predictions).detach()
        self._check_shape("predictions", tensor.shape)
        if not tensor.is_floating_point():
            raise ValueError(f"predictions must be floating-point scores, got {tensor.dtype}")
        return tensor

    def _checked_labels(self, labels: Matrix) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """Return the labels as bool, and where they are True in the flattened matrix."""
        # NumPy rather than torch: one thread is enough for these, and waking the others costs more
        values_BC = _to_numpy(torch.as_tensor(labels))
        self._check_shape("labels", values_BC.shape)
        labels_BC = values_BC if values_BC.dtype == np.bool_ else values_BC != 0
        marked = np.flatnonzero(labels_BC)
        values = values_BC.reshape(-1)[marked]
        if (values != 1).any():
            wrong = values[values != 1][0].item()
            raise ValueError(f"labels must be bool, or numbers that are 0 or 1, got {wrong!r}")
        return labels_BC, marked

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != self.num_classes:
            raise ValueError(
                f"{name} must have the shape (videos, {self.num_classes}), one column for each class, "
                f"got {tuple(shape)}"
            )


def _largest(scores_BC: torch.Tensor, k: int) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
    """Return the k largest scores of each row, descending, and their columns."""
    values, columns = torch.topk(scores_BC, k, dim=1)
    return _to_numpy(values if values.dtype is torch.float64 else values.float()), _to_numpy(columns)


def _to_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _sum_of_perr(
    scores_BC: torch.Tensor,
    labels_BC: npt.NDArray[np.bool_],
    count_B: npt.NDArray[np.int64],
    top_BK: npt.NDArray[np.floating],
    hits_BK: npt.NDArray[np.bool_],
) -> float:
    """Sum over videos the precision among the n best scores, where n is the number of labels of the video."""
    many = np.flatnonzero(count_B > top_BK.shape[1])
    total = 0.0
    if many.size:  # more labels than entries were kept: look again, further down, at these rows only
        of_rows = scores_BC[torch.from_numpy(many).to(scores_BC.device)]
        top, classes = _largest(of_rows, int(count_B[many].max()))
        total = _precision_at(count_B[many], top, np.take_along_axis(labels_BC[many], classes, axis=1))
        count_B = count_B.copy()
        count_B[many] = 0
    return total + _precision_at(count_B, top_BK, hits_BK)


def _precision_at(
    count_B: npt.NDArray[np.int64], top_BK: npt.NDArray[np.floating], hits_BK: npt.NDArray[np.bool_]
) -> float:
    counted = hits_BK & (np.arange(top_BK.shape[1]) < count_B[:, None]) & (top_BK > 0)
    return float((counted.sum(axis=1) / np.maximum(count_B, 1)).sum())
