"""TFRecord files: the framing of records and their checksums. What is inside a record: examples.py.

A record is its length (uint64), the masked CRC-32C of these eight bytes, the data, and the masked CRC-32C of
the data, all little-endian. A file holds records one after the other, or is the GZIP of such a file.
"""

import gzip
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from expertise._files import atomic_file
from expertise._optional import require
from expertise.youtube8m.examples import (
    ExampleError,
    Value,
    encode_example,
    encode_sequence_example,
    parse_example,
    parse_sequence_example,
)

__all__ = [
    "ExampleError",
    "RecordError",
    "Shard",
    "Value",
    "encode_example",
    "encode_sequence_example",
    "parse_example",
    "parse_sequence_example",
    "read_records",
    "scan_records",
    "write_records",
]

GZIP_MAGIC = b"\x1f\x8b"
HEADER = struct.Struct("<QI")  # length, its masked checksum
FOOTER = struct.Struct("<I")  # masked checksum of the data
LARGEST = 2**31 - 1  # bytes of a protobuf message: a longer record cannot be one
PIECE = 2**20  # bytes that are read at once: a length is not believed before so many bytes came
_NO_RECORDS = "; is this a TFRecord file?"  # is said of a first record that is none
GZIP_BYTES = 2**26  # of decompressed records that are held together
LARGE = 2**14  # bytes from which a view is cheaper than a copy

AnyPath = str | os.PathLike[str]
Crc = Callable[[Any], int]


class RecordError(ValueError):
    """A corrupt record: ``path`` of the file, ``offset`` in bytes (before compression), ``reason``."""

    def __init__(self, path: AnyPath, offset: int, reason: str) -> None:
        super().__init__(str(path), offset, reason)
        self.path, self.offset, self.reason = Path(path), offset, reason

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Shard:
    """A scanned file, or a part of one. Record i is ``buffer[starts[i] : starts[i] + sizes[i]]``.

    buffer : uint8, the whole file or a part of it (decompressed); starts, sizes : int64, one for each record.
    before : bytes of the file that come before the buffer.
    """

    path: Path
    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    before: int = 0

    def take(self, rows: slice | NDArray[np.int64]) -> "Shard":
        """Only some of the records."""
        return replace(self, starts=self.starts[rows], sizes=self.sizes[rows])

    def error(self, row: int, reason: str) -> RecordError:
        """What to say of a record whose content is wrong."""
        return RecordError(self.path, self.before + int(self.starts[row]) - HEADER.size, reason)


def scan_records(path: AnyPath, *, skipped: list[RecordError] | None = None) -> Iterator[Shard]:
    """Find the records of a file and verify all checksums.

    A plain file is one Shard. It is memory-mapped, so it must not shrink while the Shard is in use. A GZIP
    file is decompressed into memory, in Shards of GZIP_BYTES, or a little more.

    Parameters
    ----------
    skipped : where given, errors are appended to it and the records concerned left out: one record where its
        data are wrong, the rest of the file where a length is wrong or the file ends too early.

    Raises
    ------
    RecordError : the first corrupt record, unless ``skipped`` is given.
    OSError : the file cannot be read.
    """
    path = Path(path)
    crc = _crc32c()
    with path.open("rb") as file:
        if _is_gzip(file, crc):
            yield from _scan_gzip(file, path, crc, skipped)
            return
        size = os.fstat(file.fileno()).st_size
        # an empty file cannot be mapped
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    buffer = np.frombuffer(data, dtype=np.uint8)
    starts, sizes, found, last = _walk(data, buffer, path, crc)
    footers = buffer[(starts + sizes)[:, None] + np.arange(FOOTER.size)].view("<u4").ravel()
    computed = _mask(found)
    wrong = np.flatnonzero(computed != footers)
    errors = [
        _wrong_data(path, int(starts[i]) - HEADER.size, int(footers[i]), int(computed[i])) for i in wrong
    ]
    errors += [last] if last else []
    if errors and skipped is None:
        raise _advised(errors[0])
    if skipped is not None:
        skipped.extend(errors)
    if wrong.size:
        starts, sizes = np.delete(starts, wrong), np.delete(sizes, wrong)
    yield Shard(path, buffer, starts, sizes)


def read_records(path: AnyPath, *, skipped: list[RecordError] | None = None) -> Iterator[bytes]:
    """Give the records of a file one by one, in bounded memory, checksums verified.

    ``skipped`` and errors are those of `scan_records`.
    """
    path = Path(path)
    crc = _crc32c()
    with path.open("rb") as raw:
        for start, _, body in _good_frames(raw, path, crc, skipped):
            if start >= 0:
                yield body[: -FOOTER.size]


def write_records(path: AnyPath, records: Iterable[bytes]) -> int:
    """Write records to a file, whole or not at all; return their number.

    The file is compressed where its name ends in ``.gz``.
    """
    path = Path(path)
    crc = _crc32c()
    count = 0
    with atomic_file(path) as temporary, _writer(temporary, zipped=path.name.endswith(".gz")) as file:
        for count, record in enumerate(records, start=1):
            if not isinstance(record, bytes):
                raise ValueError(f"records must be bytes, but number {count - 1} is {type(record).__name__}")
            if len(record) > LARGEST:
                raise ValueError(f"record {count - 1} has {len(record)} bytes; at most {LARGEST} are allowed")
            length = struct.pack("<Q", len(record))
            file.write(
                b"".join((length, FOOTER.pack(_mask(crc(length))), record, FOOTER.pack(_mask(crc(record)))))
            )
    return count


def _crc32c() -> Crc:
    crc: Crc = require("google_crc32c", "youtube8m").value
    return crc


def _mask(crc: Any) -> Any:
    """TFRecord's masking of one or many checksums: rotated right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _is_gzip(file: IO[bytes], crc: Crc) -> bool:
    """Whether the file is compressed; the length of a plain record may look like GZIP's first bytes."""
    head = file.read(HEADER.size)
    file.seek(0)
    if not head.startswith(GZIP_MAGIC):
        return False
    return len(head) < HEADER.size or HEADER.unpack(head)[1] != _mask(crc(head[:8]))


def _length(header: bytes, path: Path, offset: int, crc: Crc) -> int:
    """The length in a record's header, if its checksum is right."""
    if len(header) < HEADER.size:
        hint = _NO_RECORDS if offset == 0 else ""
        raise RecordError(
            path, offset, f"truncated: {len(header)} bytes are left, a header has {HEADER.size}{hint}"
        )
    length, stored = HEADER.unpack(header)
    right = _mask(crc(header[:8]))
    if stored != right:
        hint = _NO_RECORDS if offset == 0 else ""
        reason = f"the checksum of the record's length is wrong ({_differ(stored, right)}){hint}"
        raise RecordError(path, offset, reason)
    if length > LARGEST:
        raise RecordError(path, offset, f"a record of {length} bytes; at most {LARGEST} are possible")
    return int(length)


def _truncated(path: Path, offset: int, length: int, left: int) -> RecordError:
    needed = length + FOOTER.size
    return RecordError(path, offset, f"truncated: the record needs {needed} more bytes, {left} are left")


def _wrong_data(path: Path, offset: int, stored: int, right: int) -> RecordError:
    return RecordError(path, offset, f"the checksum of the record's data is wrong ({_differ(stored, right)})")


def _advised(error: RecordError) -> RecordError:
    """The same error with what to do, for where it is not skipped."""
    if error.reason.endswith(_NO_RECORDS):
        return error
    reason = f"{error.reason}; fetch the file again, or leave corrupt records out with --skip_corrupt_records"
    return RecordError(error.path, error.offset, reason)


def _differ(stored: int, right: int) -> str:
    return f"stored {stored:#010x}, computed {right:#010x}"


def _walk(
    data: mmap.mmap | bytes, buffer: NDArray[np.uint8], path: Path, crc: Crc
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], RecordError | None]:
    """Starts, sizes and checksums (as computed, not masked) of all records, and what ended the walk early.

    This is the loop that conversion spends its time in: slices, because they cost less than anything of
    NumPy's, and headers that were verified before are looked up.
    """
    starts, sizes, found = list[int](), list[int](), list[int]()
    verified = dict[bytes, int]()
    offset, end = 0, len(data)
    try:
        while offset < end:
            start = offset + 12
            header = data[offset:start]
            length = verified.get(header)
            if length is None:
                length = verified[header] = _length(header, path, offset, crc)
            stop = start + length
            if stop + 4 > end:
                raise _truncated(path, offset, length, end - start)
            found.append(crc(data[start:stop] if length < LARGE else buffer[start:stop]))
            starts.append(start)
            sizes.append(length)
            offset = stop + 4
        last = None
    except RecordError as error:
        last = error
    return *(np.array(part, dtype=np.int64) for part in (starts, sizes, found)), last  # type: ignore[return-value]


def _scan_gzip(file: IO[bytes], path: Path, crc: Crc, skipped: list[RecordError] | None) -> Iterator[Shard]:
    """Decompress record by record: what is no record ends it before it fills the memory."""
    buffer, before = bytearray(), 0
    starts, sizes = list[int](), list[int]()

    def shard() -> Shard:
        own = np.frombuffer(buffer, dtype=np.uint8)
        return Shard(path, own, np.array(starts, dtype=np.int64), np.array(sizes, dtype=np.int64), before)

    for start, header, body in _good_frames(file, path, crc, skipped):
        if len(buffer) >= GZIP_BYTES:
            yield shard()
            before += len(buffer)
            buffer, starts, sizes = bytearray(), [], []
        buffer += header
        buffer += body
        if start >= 0:
            starts.append(start - before)
            sizes.append(len(body) - FOOTER.size)
    yield shard()


def _good_frames(
    raw: IO[bytes], path: Path, crc: Crc, skipped: list[RecordError] | None
) -> Iterator[tuple[int, bytes, bytes]]:
    """Start of the data, header, and data with footer of each record; the start is -1 where it is skipped."""
    try:
        for offset, header, body in _frames(raw, path, crc):
            right = _mask(crc(body[: -FOOTER.size]))
            (stored,) = FOOTER.unpack_from(body, len(body) - FOOTER.size)
            start = offset + HEADER.size
            if stored != right:
                error = _wrong_data(path, offset, stored, right)
                if skipped is None:
                    raise error  # which is advised below
                skipped.append(error)
                start = -1
            yield start, header, body
    except RecordError as error:
        if skipped is None:
            raise _advised(error) from error
        skipped.append(error)


def _frames(raw: IO[bytes], path: Path, crc: Crc) -> Iterator[tuple[int, bytes, bytes]]:
    """Offset, header, and data with footer of each record of a plain or compressed file."""
    zipped = _is_gzip(raw, crc)
    with gzip.GzipFile(fileobj=raw, mode="rb") if zipped else raw as file:
        end = None if zipped else os.fstat(raw.fileno()).st_size
        offset = 0
        while header := _pull(file, HEADER.size, path, offset):
            length = _length(header, path, offset, crc)
            start = offset + HEADER.size
            if end is not None and start + length + FOOTER.size > end:
                raise _truncated(path, offset, length, end - start)
            body = _pull(file, length + FOOTER.size, path, offset)
            if len(body) < length + FOOTER.size:
                raise _truncated(path, offset, length, len(body))
            yield offset, header, body
            offset = start + len(body)


def _pull(file: IO[bytes] | gzip.GzipFile, size: int, path: Path, offset: int) -> bytes:
    """Read ``size`` bytes, or fewer at the end of the file."""
    pieces = []
    try:
        while size and (piece := file.read(min(size, PIECE))):
            pieces.append(piece)
            size -= len(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(path, offset, f"the GZIP data are corrupt or truncated here: {error}") from error
    return b"".join(pieces)


@contextmanager
def _writer(path: Path, *, zipped: bool) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with path.open("wb", buffering=PIECE) as file:
        if not zipped:
            yield file
            return
        # no name and no time inside: the same records make the same file
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            yield packed
