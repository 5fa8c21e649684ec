"""Parquet: columns id (text), labels (list of int32), and one list of float32 for each feature."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expertise._files import atomic_file
from expertise._optional import require
from expertise.youtube8m.formats._abstract import AbstractFormat, chunk_rows, report
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import (
    FeatureSpec,
    Videos,
    label_faults,
    pointers,
    unique_labels,
    value_faults,
)


class ParquetFormat(AbstractFormat):
    """Videos as rows of a Parquet file, features bit-exact."""

    suffix = ".parquet"

    def estimate_rows(self, path: Path, spec: FeatureSpec) -> int:
        """The number of videos that the foot of the file gives; 0 where it cannot be read."""
        pyarrow, parquet = _packages()
        try:
            return int(parquet.read_metadata(path).num_rows)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
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
        pyarrow, parquet = _packages()
        first = 0
        try:
            with parquet.ParquetFile(path, page_checksum_verification=True) as file:
                columns = _columns(path, file.schema_arrow, spec)
                for batch in file.iter_batches(chunk_rows(spec), columns=columns):
                    yield _videos(path, batch, first, spec, num_classes, skipped)
                    first += batch.num_rows
                if first != file.metadata.num_rows:
                    raise RecordError(path, 0, f"{first} rows, but its foot says {file.metadata.num_rows}")
        except RecordError as error:
            report(error, skipped)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            report(RecordError(path, 0, f"not a readable Parquet file: {error}"), skipped)

    def write(self, path: Path, chunks: Iterable[Videos], spec: FeatureSpec) -> int:
        """Write one row group for each chunk; return the number of videos."""
        pyarrow, parquet = _packages()
        fields = [("id", pyarrow.string()), ("labels", pyarrow.list_(pyarrow.int32()))]
        fields += [
            (name, pyarrow.list_(pyarrow.float32(), size))
            for name, size in zip(spec.names, spec.sizes, strict=True)
        ]
        count = 0
        with atomic_file(path) as temporary:
            # byte streams of the same digit of all floats shrink better than the floats one by one
            floats = [f"{name}.list.element" for name in spec.names]
            with parquet.ParquetWriter(
                temporary,
                pyarrow.schema(fields),
                compression="zstd",
                use_dictionary=["labels.list.element"],
                use_byte_stream_split=floats,
                write_page_checksum=True,
            ) as writer:
                for chunk in chunks:
                    writer.write_batch(_batch(chunk, spec))
                    count += len(chunk)
        return count

    def clipped(self, features: NDArray[np.float32]) -> int:
        """None: Parquet holds every float32."""
        return 0


def _packages() -> tuple[Any, Any]:
    return require("pyarrow", "youtube8m"), require("pyarrow.parquet", "youtube8m")


def _batch(videos: Videos, spec: FeatureSpec) -> Any:
    pyarrow, _ = _packages()
    columns = [
        pyarrow.array(videos.ids, pyarrow.string()),
        pyarrow.ListArray.from_arrays(
            pyarrow.array(videos.label_ptr.astype(np.int32)), pyarrow.array(videos.labels)
        ),
    ]
    for part in spec.slices.values():
        values = np.ascontiguousarray(videos.features[:, part]).reshape(-1)
        columns.append(pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values), part.stop - part.start))
    return pyarrow.record_batch(columns, names=["id", "labels", *spec.names])


def _columns(path: Path, schema: Any, spec: FeatureSpec) -> list[str]:
    """The columns to read. Raises RecordError where one is missing or has another type."""
    pyarrow, _ = _packages()
    types = pyarrow.types

    def is_list(kind: Any, of: Any) -> bool:
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(lists and of(kind.value_type))

    wanted = {"id": "text", **dict.fromkeys(spec.names, "a list of floats")}
    if "labels" in schema.names:
        wanted["labels"] = "a list of integers"
    for name, expected in wanted.items():
        if name not in schema.names:
            raise RecordError(path, 0, f"no column {name!r}; the columns are {', '.join(schema.names)}")
        kind = schema.field(name).type
        fits = {
            "text": types.is_string(kind) or types.is_large_string(kind),
            "a list of floats": is_list(kind, types.is_floating),
            "a list of integers": is_list(kind, types.is_integer),
        }
        if not fits[expected]:
            raise RecordError(path, 0, f"column {name!r} is {kind}, expected {expected}")
    return list(wanted)


def _videos(
    path: Path,
    batch: Any,
    first: int,
    spec: FeatureSpec,
    num_classes: int,
    skipped: list[RecordError] | None,
) -> Videos:
    """One chunk of rows, the bad ones reported; ``first`` is the row of the file where it starts."""
    n = batch.num_rows
    bad: dict[int, str] = {}
    ids = batch.column("id").to_pylist()
    features = np.zeros((n, spec.total), dtype=np.float32)
    for name, part in spec.slices.items():
        size = part.stop - part.start
        sizes, values = _lists(batch.column(name))
        fits = sizes == size
        for row in np.flatnonzero(~fits).tolist():
            bad[row] = f"feature {name!r} has {sizes[row]} values, expected {size}; check --feature_sizes"
        # nulls among the values come as NaN, and are found below as such
        features[fits, part] = values[np.repeat(fits, sizes)].reshape(-1, size)
    label_sizes, wide = np.zeros(n, dtype=np.int64), np.empty(0, dtype=np.int64)
    if "labels" in batch.schema.names:
        label_sizes, wide = _lists(batch.column("labels"))
        wide = np.nan_to_num(wide, nan=-1).astype(np.int64)
    ptr = pointers(label_sizes)
    bad = value_faults(features, spec) | label_faults(ptr, wide, num_classes) | bad
    bad |= {row: "it has no id" for row, video in enumerate(ids) if video is None}
    for row, reason in sorted(bad.items()):
        report(RecordError(path, 0, f"row {first + row} ({ids[row]!r}): {reason}"), skipped)
    videos = Videos(ids, features, ptr, wide.astype(np.int32))
    videos = videos.without(list(bad))
    ptr, labels = unique_labels(videos.label_ptr, videos.labels)
    return Videos(videos.ids, videos.features, ptr, labels)


def _lists(column: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The number of values in each row (0 for a null row), and all values."""
    pyarrow, _ = _packages()
    compute = require("pyarrow.compute", "youtube8m")
    sizes = compute.fill_null(compute.list_value_length(column), 0)
    values = column.flatten()
    return sizes.cast(pyarrow.int64()).to_numpy(zero_copy_only=False), values.to_numpy(zero_copy_only=False)
