"""Framing and checksums of TFRecord files: equal to a slow twin, and no corrupt byte goes unseen."""

import gzip
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise._optional import MissingExtraError
from expertise.youtube8m.records import RecordError, read_records, scan_records, write_records

SMALL = [b"first", b"", b"the third record"]
REAL = {"validate0000.tfrecord": 284, "validate0001.tfrecord": 305}
Reader = Callable[..., list[bytes]]


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (reflected polynomial 0x82F63B78)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + masked(packed)


def frame(data: bytes) -> bytes:
    return header(len(data)) + data + masked(data)


def scan(path: Path, skipped: list[RecordError] | None = None) -> list[bytes]:
    return [
        shard.buffer[start : start + size].tobytes()
        for shard in scan_records(path, skipped=skipped)
        for start, size in zip(shard.starts.tolist(), shard.sizes.tolist(), strict=True)
    ]


def read(path: Path, skipped: list[RecordError] | None = None) -> list[bytes]:
    return list(read_records(path, skipped=skipped))


def advised(skipped: RecordError) -> str:
    """What is said of an error that is kept in a list, where it is raised instead."""
    if str(skipped).endswith("; is this a TFRecord file?"):
        return str(skipped)
    return f"{skipped}; fetch the file again, or leave corrupt records out with --skip_corrupt_records"


@pytest.fixture(params=[scan, read], ids=["scan", "read"])
def reader(request: pytest.FixtureRequest) -> Reader:
    found: Reader = request.param
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


def test_the_twin_gives_the_published_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_written_bytes_equal_the_twin(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.tfrecord"
    assert write_records(path, iter(SMALL)) == 3
    assert path.read_bytes() == b"".join(map(frame, SMALL))


def test_compressed_files_hold_the_same_bytes_and_no_time(tmp_path: Path) -> None:
    paths = [tmp_path / "a.tfrecord.gz", tmp_path / "b.tfrecord.gz"]
    for path in paths:
        assert write_records(path, SMALL) == 3
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert gzip.decompress(first) == b"".join(map(frame, SMALL))


@settings(deadline=None, max_examples=60)
@given(records=st.lists(st.binary(max_size=200)), zipped=st.booleans())
def test_what_is_written_is_read(folder: Path, records: list[bytes], zipped: bool) -> None:
    path = folder / ("a.gz" if zipped else "a")
    assert write_records(path, records) == len(records)
    assert scan(path) == read(path) == records


@pytest.mark.parametrize("size", [2**14 - 1, 2**14, 2**14 + 1, 2**20 - 4, 2**20, 3 * 2**20 + 7])
@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_large_records(tmp_path: Path, reader: Reader, size: int, name: str) -> None:
    records = [bytes(range(256)) * (size // 256) + bytes(size % 256), b"after"]
    write_records(tmp_path / name, records)
    assert reader(tmp_path / name) == records


@pytest.mark.parametrize(("name", "count"), REAL.items())
def test_real_shards(data_dir: Path, tmp_path: Path, reader: Reader, name: str, count: int) -> None:
    source = data_dir / "youtube8m" / name
    records = reader(source)
    assert len(records) == count
    write_records(tmp_path / name, records)
    assert (tmp_path / name).read_bytes() == source.read_bytes()


def test_places_of_a_shard_count_decompressed_bytes(tmp_path: Path) -> None:
    for name in ("a", "a.gz"):
        write_records(tmp_path / name, SMALL)
        [shard] = scan_records(tmp_path / name)
        assert shard.path == tmp_path / name
        assert shard.buffer.tobytes() == b"".join(map(frame, SMALL))
        assert shard.starts.tolist() == [12, 33, 49]
        assert shard.sizes.tolist() == [5, 0, 16]


def test_of_a_large_gzip_one_part_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expertise.youtube8m.records.GZIP_BYTES", 200)
    records = [bytes([number]) * (number % 7) for number in range(100)]
    for name in ("a", "a.gz"):
        write_records(tmp_path / name, records)
    [plain] = scan_records(tmp_path / "a")
    parts = list(scan_records(tmp_path / "a.gz"))
    assert len(parts) == 10
    assert max(len(part.buffer) for part in parts) < 250
    assert b"".join(part.buffer.tobytes() for part in parts) == plain.buffer.tobytes()
    assert scan(tmp_path / "a.gz") == records
    places = [part.error(row, "").offset for part in parts for row in range(len(part.starts))]
    assert places == [plain.error(row, "").offset for row in range(100)]


def test_an_empty_file_has_no_records(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").write_bytes(gzip.compress(b""))
    assert reader(tmp_path / "a") == reader(tmp_path / "b") == []


def test_gzip_is_told_by_its_first_bytes_not_by_the_name(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(frame(b"one")) + gzip.compress(frame(b"two")))
    assert reader(path) == [b"one", b"two"]


@pytest.mark.parametrize("size", [0x8B1F, 0x088B1F])
def test_a_length_that_looks_like_gzip(tmp_path: Path, reader: Reader, size: int) -> None:
    path = tmp_path / "a.tfrecord"
    write_records(path, [bytes(size)])
    assert path.read_bytes().startswith(b"\x1f\x8b")
    assert reader(path) == [bytes(size)]


# ---- corrupt files


def borders(records: list[bytes]) -> list[int]:
    """Where each record's frame begins, and the end."""
    ends = [0]
    for record in records:
        ends.append(ends[-1] + len(record) + 16)
    return ends


def test_truncation_at_every_byte(tmp_path: Path, reader: Reader) -> None:
    path, whole, starts = tmp_path / "a", b"".join(map(frame, SMALL)), borders(SMALL)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        complete = sum(end <= size for end in starts[1:])
        if size == starts[complete]:
            assert reader(path) == SMALL[:complete]
            continue
        with pytest.raises(RecordError, match="truncated") as caught:
            reader(path)
        assert (caught.value.path, caught.value.offset) == (path, starts[complete])
        skipped: list[RecordError] = []
        assert reader(path, skipped) == SMALL[:complete]
        assert [advised(error) for error in skipped] == [str(caught.value)]


def test_every_flipped_bit(tmp_path: Path, reader: Reader) -> None:
    path, whole, starts = tmp_path / "a", b"".join(map(frame, SMALL)), borders(SMALL)
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        hit = sum(end <= bit // 8 for end in starts[1:])
        with pytest.raises(RecordError, match="checksum") as caught:
            reader(path)
        assert (caught.value.path, caught.value.offset) == (path, starts[hit])
        skipped: list[RecordError] = []
        in_header = bit // 8 < starts[hit] + 12
        assert reader(path, skipped) == SMALL[:hit] + ([] if in_header else SMALL[hit + 1 :])
        assert [advised(error) for error in skipped] == [str(caught.value)]


def test_truncated_gzip_at_every_byte(tmp_path: Path, reader: Reader) -> None:
    path, whole = tmp_path / "a", gzip.compress(b"".join(map(frame, SMALL)))
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(RecordError) as caught:
            reader(path)
        assert caught.value.path == path
        assert caught.value.offset in borders(SMALL)
        skipped: list[RecordError] = []
        kept = reader(path, skipped)
        assert kept == SMALL[: len(kept)]
        assert [advised(error) for error in skipped] == [str(caught.value)]


def test_every_flipped_bit_of_a_gzip(tmp_path: Path, reader: Reader) -> None:
    path, whole = tmp_path / "a", gzip.compress(b"".join(map(frame, SMALL)))
    seen = set()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        skipped: list[RecordError] = []
        kept = reader(path, skipped)
        if skipped:
            with pytest.raises(RecordError):
                reader(path)
            assert all(record in SMALL for record in kept)
            assert all(error.path == path and error.offset in borders(SMALL) for error in skipped)
        else:  # GZIP's header has bits that say nothing about the data
            assert kept == SMALL
        seen.add(bool(skipped))
    assert seen == {False, True}


def test_two_wrong_records_are_both_told(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a"
    wrong = header(3) + b"abc" + b"\0\0\0\0"
    path.write_bytes(frame(b"one") + wrong + frame(b"three") + wrong + frame(b"five") + b"\1")
    skipped: list[RecordError] = []
    assert reader(path, skipped) == [b"one", b"three", b"five"]
    assert [error.offset for error in skipped] == [19, 59, 98]
    with pytest.raises(RecordError) as caught:
        reader(path)
    assert caught.value.offset == 19


def test_a_wrong_record_before_a_broken_end_comes_first(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a"
    path.write_bytes(header(3) + b"abc" + b"\0\0\0\0" + b"too short")
    with pytest.raises(RecordError, match="data") as caught:
        reader(path)
    assert caught.value.offset == 0


@pytest.mark.parametrize("length", [12, 2**20, 2**31 - 1, 2**31, 2**60, 2**63, 2**64 - 1])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_absurd_lengths_allocate_nothing(
    tmp_path: Path, reader: Reader, length: int, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(pack(frame(b"good") + header(length) + b"short"))
    (tmp_path / "warm").write_bytes(frame(b"good"))
    reader(tmp_path / "warm")
    tracemalloc.start()
    try:
        with pytest.raises(RecordError) as caught:
            reader(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.offset == 20
    assert str(length) in caught.value.reason or str(length + 4) in caught.value.reason
    assert peak < 4 * 2**20


def test_a_gzip_that_grows_but_holds_no_records_is_not_unpacked(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(bytes(2**26), 1))
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match="is this a TFRecord file"):
            reader(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_reading_one_by_one_needs_the_memory_of_one(tmp_path: Path, name: str) -> None:
    write_records(tmp_path / name, (bytes(2**18) for _ in range(100)))
    tracemalloc.start()
    try:
        assert sum(map(len, read_records(tmp_path / name))) == 100 * 2**18
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23


def test_the_message_names_file_byte_and_reason(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"these are not records")
    with pytest.raises(RecordError) as caught:
        reader(path)
    start = f"{path}, byte 0: the checksum of the record's length is wrong (stored 0x"
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("; is this a TFRecord file?")
    assert f"computed 0x{int.from_bytes(masked(b'these ar'), 'little'):08x}" in str(caught.value)


def test_a_corrupt_record_comes_with_what_to_do(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a.tfrecord"
    write_records(path, [b"first", b"second"])
    content = path.read_bytes()
    for wrong in (content[:-1], content[:25], content[:-5] + b"?" + content[-4:]):
        path.write_bytes(wrong)
        with pytest.raises(RecordError, match=r"; fetch the file again, or .* --skip_corrupt_records$"):
            reader(path)
        skipped: list[RecordError] = []
        reader(path, skipped)
        assert [error.offset for error in skipped] == [21]
        assert "--skip_corrupt_records" not in str(skipped[0])
    path.write_bytes(b"short")
    with pytest.raises(RecordError, match=r"a header has 12; is this a TFRecord file\?$"):
        reader(path)


def test_a_missing_file_is_named(tmp_path: Path, reader: Reader) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        reader(tmp_path / "absent")


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "delete", "repeat", "length"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**64 - 1),
    ),
    min_size=1,
    max_size=3,
)


def mutate(data: bytes, mutations: list[tuple[str, float, int]]) -> bytes:
    """Change ``data`` at a share of its length, by a number that each kind of change reads in its way."""
    for kind, share, number in mutations:
        at = int(share * len(data))
        match kind:
            case "flip" if data:
                data = data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "insert":
                data = data[:at] + number.to_bytes(8, "little")[: 1 + number % 8] + data[at:]
            case "delete":
                data = data[:at] + data[at + 1 + number % 40 :]
            case "repeat":
                data = data[:at] + data[max(0, at - number % 6000) :]
            case "length":
                data = data[:at] + header(number >> number % 64) + data[at:]
    return data


@settings(deadline=None, max_examples=200)
@given(mutations=MUTATIONS, at_border=st.booleans(), zipped=st.booleans())
def test_mutated_real_records(
    folder: Path,
    data_dir: Path,
    mutations: list[tuple[str, float, int]],
    at_border: bool,
    zipped: bool,
) -> None:
    records = scan(data_dir / "youtube8m" / "validate0000.tfrecord")[:3]
    whole = b"".join(map(frame_fast, records))
    if at_border:  # changes of the second record's frame, not only of its middle
        ends = borders(records)
        data = whole[: ends[1]] + mutate(whole[ends[1] :], mutations)
    else:
        data = mutate(whole, mutations)
    path = folder / "mutated"
    path.write_bytes(gzip.compress(data, 1) if zipped else data)
    outcomes = []
    for reader in (scan, read):
        skipped: list[RecordError] = []
        outcomes.append((reader(path, skipped), [str(error) for error in skipped]))
        if skipped:
            with pytest.raises(RecordError) as caught:
                reader(path)
            assert str(caught.value) == advised(skipped[0])
        else:
            assert reader(path) == outcomes[-1][0]
        assert all(error.path == path and 0 <= error.offset <= len(data) for error in skipped)
        assert [error.offset for error in skipped] == sorted({error.offset for error in skipped})
    assert outcomes[0] == outcomes[1]
    kept, errors = outcomes[0]
    # what is kept stands there with its checksums: a record, or the length of one behind an inserted length
    assert all(frame_fast(record) in data for record in kept)
    assert all(record in records for record in kept if len(record) != 8)
    assert errors or b"".join(map(frame_fast, kept)) == data


def frame_fast(data: bytes) -> bytes:
    """`frame` with the C code's checksum, which the tests above compare with the twin's."""
    from google_crc32c import value

    crc = value(data)
    mask = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return header(len(data)) + data + struct.pack("<I", mask)


# ---- writing


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_records(path, SMALL)

    def broken() -> "list[bytes]":
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_records(path, (record for _ in range(2) for record in broken()))
    assert read(path) == SMALL
    assert list(tmp_path.iterdir()) == [path]


def test_records_must_be_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="records must be bytes, but number 1 is str"):
        write_records(tmp_path / "a", [b"good", "text"])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_without_the_checksum_package_the_extra_is_named(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "a", SMALL)
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(MissingExtraError, match=r"expertise\[youtube8m\]"):
        reader(tmp_path / "a")
