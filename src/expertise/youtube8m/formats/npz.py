"""The .npz form: features quantised to bytes, labels as ragged rows; a quarter of the size of TFRecord.

Arrays: one uint8 (n, size) array for each feature, called like the feature without "mean_" (rgb, audio);
label_ptr int32 (n + 1), label_idx int16 (int32 where the classes need it); video_id bytes (n). The rule of
YouTube-8M for the bytes: value = byte * 4 / 255 + 4 / 512 - 2.
"""

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from expertise._files import atomic_file
from expertise.youtube8m.formats._abstract import AbstractFormat, chunk_rows, report
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos, concatenate, label_faults, unique_labels

STEP = 4.0 / 255.0
LOWEST = 4.0 / 512.0 - 2.0
VALUES = (np.arange(256) * STEP + LOWEST).astype(np.float32)
# what zipfile and NumPy raise; RuntimeError where a broken flag says that the file is encrypted
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, RuntimeError)
DEFLATE_RATIO = 1032  # the most that deflate can shrink; a head that promises more is lying


class NpzFormat(AbstractFormat):
    """Videos whose features are quantised to bytes, in one .npz file. The whole file is read at once."""

    suffix = ".npz"

    def estimate_rows(self, path: Path, spec: FeatureSpec) -> int:
        """The number of videos that the head of the file gives; 0 where it cannot be read."""
        try:
            with zipfile.ZipFile(path) as archive:
                return int(_head(archive, "label_ptr", path)[0][0]) - 1
        except UNREADABLE:
            return 0

    def read(
        self,
        path: Path,
        spec: FeatureSpec,
        num_classes: int,
        skipped: list[RecordError] | None = None,
        scratch: NDArray[np.float32] | None = None,
    ) -> Iterator[Videos]:
        """Read the videos in chunks; see AbstractFormat.read."""
        try:
            arrays = _load(path, spec)
        except RecordError as error:
            report(error, skipped)
            return
        ids: list[str] = arrays["video_id"]
        step = chunk_rows(spec) if scratch is None else len(scratch)
        for first in range(0, len(ids), step):
            last = min(first + step, len(ids))
            out = np.empty((last - first, spec.total), dtype=np.float32) if scratch is None else scratch
            features = out[: last - first]
            for name, columns in spec.slices.items():
                features[:, columns] = VALUES[arrays[_key(name)][first:last]]
            ptr = arrays["label_ptr"][first : last + 1]
            labels = arrays["label_idx"][ptr[0] : ptr[-1]]
            videos = Videos(ids[first:last], features, ptr - ptr[0], labels)
            bad = label_faults(videos.label_ptr, labels, num_classes)
            for row, reason in bad.items():
                report(RecordError(path, 0, f"video {first + row} ({ids[first + row]!r}): {reason}"), skipped)
            videos = videos.without(list(bad))
            ptr, labels = unique_labels(videos.label_ptr, videos.labels)
            yield Videos(videos.ids, videos.features, ptr, labels)

    def write(self, path: Path, chunks: Iterable[Videos], spec: FeatureSpec) -> int:
        """Quantise every value to the nearest byte and write the file; return the number of videos."""
        quantised: list[NDArray[np.uint8]] = []

        def kept() -> Iterator[Videos]:
            for chunk in chunks:
                quantised.append(quantise(chunk.features))
                yield Videos(chunk.ids, np.empty((0, spec.total), np.float32), chunk.label_ptr, chunk.labels)

        videos = concatenate(kept(), spec)
        values = np.concatenate([np.empty((0, spec.total), np.uint8), *quantised])
        labels = videos.labels.astype(np.int16 if videos.labels.max(initial=0) < 2**15 else np.int32)
        arrays: dict[str, Any] = {_key(name): values[:, part] for name, part in spec.slices.items()}
        arrays["label_ptr"] = videos.label_ptr.astype(np.int32)
        arrays["label_idx"] = labels
        # bytes of NumPy end at their last non-zero byte, so an id must not end in a zero
        arrays["video_id"] = np.array([video.encode() for video in videos.ids] or [b""], dtype=bytes)[
            : len(videos)
        ]
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return len(videos)

    def clipped(self, features: NDArray[np.float32]) -> int:
        """Values farther than half a step outside the bytes' range."""
        low, high = LOWEST - STEP / 2, LOWEST + 255.5 * STEP
        return int(np.count_nonzero((features < low) | (features > high)))


def quantise(features: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The nearest byte of each value; values outside the range go to its ends.

    >>> quantise(np.array([-1.9921875, 0.0, 9.0], dtype=np.float32)).tolist()
    [0, 127, 255]
    """
    quantised: NDArray[np.uint8] = np.clip(np.rint((features - LOWEST) / STEP), 0, 255).astype(np.uint8)
    return quantised


def _key(feature: str) -> str:
    return feature.removeprefix("mean_")


def _head(archive: zipfile.ZipFile, key: str, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that the array's head gives; an error where the file cannot hold that much."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if key not in names:
        raise RecordError(path, 0, f"no array {key!r} in this .npz file; it has {', '.join(names) or 'none'}")
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as file:
        shape, _, dtype = _read_head(file)
        size = math.prod(shape) * dtype.itemsize + file.tell()
    if dtype.hasobject:
        raise RecordError(path, 0, f"array {key!r} holds Python objects, which are not read")
    if info.file_size != size or size > DEFLATE_RATIO * (path.stat().st_size + 1):
        raise RecordError(
            path, 0, f"array {key!r} says it has shape {shape}, which its {info.file_size} bytes do not fit"
        )
    return shape, dtype


def _read_head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"array head of version {version} is not known")


def _load(path: Path, spec: FeatureSpec) -> dict[str, Any]:
    """All arrays of the file that are needed, with shapes and types checked. Raises RecordError."""
    keys = ["video_id", "label_ptr", "label_idx", *map(_key, spec.names)]
    try:
        with zipfile.ZipFile(path) as archive:
            for key in keys:
                _head(archive, key, path)
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {key: file[key] for key in keys}
    except RecordError:
        raise
    except UNREADABLE as error:
        raise RecordError(path, 0, f"not a readable .npz file: {error}") from error
    _check(path, arrays, spec)
    arrays["label_ptr"] = arrays["label_ptr"].astype(np.int64)
    arrays["label_idx"] = arrays["label_idx"].astype(np.int32)
    arrays["video_id"] = _ids(path, arrays["video_id"])
    return arrays


def _check(path: Path, arrays: dict[str, Any], spec: FeatureSpec) -> None:
    n = len(arrays["video_id"]) if arrays["video_id"].ndim == 1 else -1
    for name, size in zip(spec.names, spec.sizes, strict=True):
        array = arrays[_key(name)]
        if array.dtype != np.uint8 or array.shape != (n, size):
            raise RecordError(
                path,
                0,
                f"array {_key(name)!r} is {array.dtype} {array.shape}, expected uint8 {(n, size)}; "
                f"check --feature_sizes",
            )
    ptr, labels = arrays["label_ptr"], arrays["label_idx"]
    integers = np.issubdtype(ptr.dtype, np.integer) and np.issubdtype(labels.dtype, np.integer)
    if not integers or ptr.shape != (n + 1,) or labels.ndim != 1:
        raise RecordError(path, 0, f"label_ptr is {ptr.dtype} {ptr.shape}, expected integers {(n + 1,)}")
    steps = np.diff(ptr.astype(np.int64))
    if ptr[0] != 0 or ptr[-1] != len(labels) or (steps < 0).any():
        raise RecordError(
            path, 0, f"label_ptr does not rise from 0 to the {len(labels)} entries of label_idx"
        )


def _ids(path: Path, ids: NDArray[Any]) -> list[str]:
    if ids.dtype.kind not in "SU":
        raise RecordError(path, 0, f"array 'video_id' is {ids.dtype}, expected bytes or text")
    try:
        return [video.decode() if isinstance(video, bytes) else str(video) for video in ids.tolist()]
    except UnicodeDecodeError as error:
        raise RecordError(path, 0, f"a video id is not UTF-8 text: {error}") from error
