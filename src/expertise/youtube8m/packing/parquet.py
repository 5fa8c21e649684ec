"""Own frames in a Parquet file: one row a frame, a list column for each feature."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expertise._optional import require
from expertise.youtube8m.packing.rows import (
    ONE_KIND,
    RESERVED,
    AbstractTable,
    Feature,
    Rows,
    as_features,
    checked_ids,
    fault,
)
from expertise.youtube8m.videos import pointers


class ParquetTable(AbstractTable):
    """Columns id (text), frame, labels, partition, and a column of lists of numbers for each feature.

    Of the file, a row group is held in memory.
    """

    def __init__(self, path: Path) -> None:
        """Read the schema, and of lists without a fixed size the first row.

        Raises
        ------
        ValueError : no Parquet file, no id, or a column of another type than it must have.
        """
        self.path = path
        with _readable(path), _parquet().ParquetFile(path) as file:
            schema = file.schema_arrow
            self.num_rows = int(file.metadata.num_rows)
            group_rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            self._starts = pointers(group_rows)[:-1]
            if "id" not in schema.names:
                raise ValueError(f"{path}: no column 'id'; there are {', '.join(schema.names) or 'none'}")
            for name in set(RESERVED) & set(schema.names):
                _check(path, name, schema.field(name).type)
            lists = [
                field.name
                for field in schema
                if field.name not in RESERVED and _is_list(field.type) and _is_number(field.type.value_type)
            ]
            self.features = {name: _feature(file, name, schema.field(name).type) for name in lists}
            self.left_out = tuple(name for name in schema.names if name not in (*lists, *RESERVED))
            self._keys = [name for name in RESERVED if name in schema.names]
            self.label_kind = _kind(schema.field("labels").type) if "labels" in schema.names else ""

    def read(self, names: tuple[str, ...], first: int = 0) -> Iterator[Rows]:
        """See AbstractTable.read."""
        group = max(0, int(np.searchsorted(self._starts, first, side="right")) - 1)
        start = int(self._starts[group]) if len(self._starts) else 0
        with (
            _readable(self.path),
            _parquet().ParquetFile(self.path, page_checksum_verification=True) as file,
        ):
            batches = file.iter_batches(
                self.step(names),
                row_groups=range(group, len(self._starts)),
                columns=[*self._keys, *names],
            )
            for batch in batches:
                skipped = min(batch.num_rows, max(0, first - start))
                if skipped < batch.num_rows:
                    yield self._rows(batch.slice(skipped), start + skipped, names)
                start += batch.num_rows

    def close(self) -> None:
        """Nothing is kept between two reads."""

    def _rows(self, batch: Any, first: int, names: tuple[str, ...]) -> Rows:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        ids = checked_ids(self.path, first, columns["id"].to_pylist())
        frames = None
        if "frame" in columns:
            if columns["frame"].null_count:
                row = int(np.flatnonzero(columns["frame"].is_null())[0])
                raise fault(
                    self.path, first + row, f"(id {ids[row]!r}): its frame is null; number all frames"
                )
            frames = columns["frame"].to_numpy(zero_copy_only=False).astype(np.int64)
        return Rows(
            self.path,
            first,
            ids,
            frames,
            columns["labels"].to_pylist() if "labels" in columns else None,
            columns["partition"].to_pylist() if "partition" in columns else None,
            {name: self._matrix(name, columns[name], ids, frames, first) for name in names},
        )

    def _matrix(
        self,
        name: str,
        column: Any,
        ids: NDArray[np.object_],
        frames: NDArray[np.int64] | None,
        first: int,
    ) -> NDArray[Any]:
        """The lists of a feature as (n, D); nulls among the values become NaN, and are found as such."""
        compute, size = require("pyarrow.compute", "youtube8m"), self.features[name].size
        sizes = compute.fill_null(compute.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(sizes != size)[:1].tolist():
            frame = "" if frames is None else f", frame {frames[row]}"
            has = "is null" if sizes[row] < 0 else f"has {sizes[row]} values"
            raise fault(
                self.path,
                first + row,
                f"feature {name!r} of id {ids[row]!r}{frame} {has}; all others have {size}",
            )
        values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(ids), size)
        return as_features(values)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file it was that pyarrow could not read."""
    try:
        yield
    except (require("pyarrow", "youtube8m").ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from error


def _parquet() -> Any:
    return require("pyarrow.parquet", "youtube8m")


def _types() -> Any:
    return require("pyarrow", "youtube8m").types


def _is_list(kind: Any) -> bool:
    types = _types()
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    return bool(_types().is_floating(kind) or _types().is_integer(kind))


def _is_text(kind: Any) -> bool:
    if _types().is_dictionary(kind):  # what pandas makes of categories
        kind = kind.value_type
    return bool(_types().is_string(kind) or _types().is_large_string(kind))


def _kind(labels: Any) -> str:
    value = labels.value_type if _is_list(labels) else labels
    return "number" if _types().is_integer(value) else "text"


def _check(path: Path, name: str, kind: Any) -> None:
    """Raise ValueError where one of the reserved columns has not the type that it must have."""
    value = kind.value_type if _is_list(kind) else kind
    right, expected = {
        "id": (_is_text(kind), "text"),
        "frame": (_types().is_integer(kind), "whole numbers"),
        "labels": (_is_text(value) or _types().is_integer(value), f"{ONE_KIND}; or lists of these"),
        "partition": (_is_text(kind), "text"),
    }[name]
    if not right:
        raise ValueError(f"{path}: column {name!r} is {kind}, but must hold {expected}")


def _feature(file: Any, name: str, kind: Any) -> Feature:
    """Size and type of a feature; of lists without a fixed size that of the first row counts."""
    is_bytes = bool(_types().is_uint8(kind.value_type))
    if _types().is_fixed_size_list(kind):
        return Feature(int(kind.list_size), is_bytes)
    batch = next(file.iter_batches(1, columns=[name]), None)
    first = None if batch is None or not batch.num_rows else batch.column(0)[0].as_py()
    return Feature(len(first or ()), is_bytes)
