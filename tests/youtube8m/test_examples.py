"""The wire format of Example and SequenceExample: what protobuf says, or an error; never anything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.youtube8m.examples import (
    ExampleError,
    encode_example,
    encode_sequence_example,
    parse_example,
    parse_sequence_example,
)
from expertise.youtube8m.records import read_records
from youtube8m.example_schema import Example, SequenceExample, example_of, same, sequence_of

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32)
VALUES = st.one_of(
    st.lists(st.binary(max_size=6), max_size=4),
    st.lists(FLOAT32, max_size=4).map(lambda floats: np.array(floats, dtype=np.float32)),
    st.lists(INT64, max_size=4).map(lambda integers: np.array(integers, dtype=np.int64)),
)
NAMES = st.one_of(st.sampled_from(["id", "labels", "mean_rgb"]), st.text(max_size=4))
FEATURES = st.dictionaries(NAMES, VALUES, max_size=4)
LISTS = st.dictionaries(NAMES, st.lists(VALUES, max_size=3), max_size=3)


def tag(number: int, wire: int) -> bytes:
    return bytes([number << 3 | wire])


def varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return tag(number, 2) + varint(len(content)) + content


def example(*entries: bytes) -> bytes:
    """An Example of raw map entries."""
    return field(1, b"".join(field(1, entry) for entry in entries))


def feature(kind: int, content: bytes, name: bytes = b"x") -> bytes:
    """An Example of one feature, whose list is given raw: 1 bytes, 2 floats, 3 integers."""
    return example(field(1, name) + field(2, field(kind, content)))


# ---- both directions against protobuf


@settings(deadline=None)
@given(features=FEATURES)
def test_protobuf_reads_what_is_encoded(features: dict[str, Any]) -> None:
    assert same(example_of(encode_example(features)), features)


@settings(deadline=None)
@given(features=FEATURES)
def test_what_protobuf_encodes_is_read(features: dict[str, Any]) -> None:
    message = Example.FromString(encode_example(features))
    assert same(parse_example(message.SerializeToString()), features)


@settings(deadline=None)
@given(context=FEATURES, lists=LISTS)
def test_sequences_in_both_directions(context: dict[str, Any], lists: dict[str, Any]) -> None:
    data = encode_sequence_example(context, lists)
    assert same(sequence_of(data), (context, lists))
    assert same(
        parse_sequence_example(SequenceExample.FromString(data).SerializeToString()), (context, lists)
    )


@settings(deadline=None)
@given(features=FEATURES)
def test_encoding_is_protobufs_own(features: dict[str, Any]) -> None:
    """Byte for byte, where there is one feature (the order of a map is free)."""
    for name, value in features.items():
        data = encode_example({name: value})
        assert data == Example.FromString(data).SerializeToString()


@pytest.mark.parametrize("name", ["validate0000.tfrecord", "validate0001.tfrecord"])
def test_real_records(data_dir: Path, name: str) -> None:
    for data in read_records(data_dir / "youtube8m" / name):
        found = parse_example(data)
        assert same(found, example_of(data))
        assert same(example_of(encode_example(found)), found)
        assert {name: len(value) for name, value in found.items() if name != "labels"} == {
            "id": 1,
            "mean_rgb": 1024,
            "mean_audio": 128,
        }


# ---- the rules of the wire format, one by one


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (example(), {}),
        # values one by one, packed, and both
        (feature(2, tag(1, 5) + b"\0\0\x80?" + tag(1, 5) + b"\0\0\0@"), {"x": np.float32([1, 2])}),
        (feature(2, field(1, b"\0\0\x80?") + tag(1, 5) + b"\0\0\0@"), {"x": np.float32([1, 2])}),
        (feature(3, tag(1, 0) + b"\x05" + field(1, b"\x06\xac\x02")), {"x": np.int64([5, 6, 300])}),
        (feature(3, field(1, b"\xff" * 9 + b"\x01")), {"x": np.int64([-1])}),
        (feature(3, field(1, b"\x80" * 9 + b"\x01")), {"x": np.int64([-(2**63)])}),
        (feature(3, field(1, b"\x85\x80\x00")), {"x": np.int64([5])}),
        # empty lists keep their kind; a feature of no kind is missing
        (feature(1, b""), {"x": []}),
        (feature(2, b""), {"x": np.float32([])}),
        (feature(3, b""), {"x": np.int64([])}),
        (feature(3, field(1, b"")), {"x": np.int64([])}),
        (example(field(1, b"x") + field(2, b"")), {}),
        (example(field(1, b"x")), {}),
        # value before key, and no key
        (example(field(2, field(1, field(1, b"v"))) + field(1, b"x")), {"x": [b"v"]}),
        (example(field(2, field(1, field(1, b"v")))), {"": [b"v"]}),
        # of two entries with the same key the last one counts, even if it is of no kind
        (feature(1, field(1, b"a")) + feature(1, field(1, b"b")), {"x": [b"b"]}),
        (feature(1, field(1, b"a")) + feature(3, field(1, b"\1"), b"y"), {"x": [b"a"], "y": np.int64([1])}),
        (feature(1, field(1, b"a")) + example(field(1, b"x")), {}),
        # a message that comes twice is merged; of two kinds the last one counts
        (
            example(field(1, b"x") + 2 * field(2, field(3, field(1, b"\1\2")))),
            {"x": np.int64([1, 2, 1, 2])},
        ),
        (
            example(field(1, b"x") + field(2, field(3, field(1, b"\1")) + field(3, field(1, b"\2")))),
            {"x": np.int64([1, 2])},
        ),
        (
            example(field(1, b"x") + field(2, field(3, field(1, b"\1")) + field(1, field(1, b"t")))),
            {"x": [b"t"]},
        ),
        (
            example(field(1, b"x") + field(2, b"".join(field(kind, field(1, b"\1")) for kind in (3, 1, 3)))),
            {"x": np.int64([1])},
        ),
        # unknown fields of every wire type, at every level, and known numbers of another type
        (tag(9, 0) + b"\x80\x01" + field(1, b"") + tag(9, 1) + bytes(8) + tag(1, 5) + bytes(4), {}),
        (field(1, tag(7, 0) + b"\5" + field(9, b"abc") + tag(1, 0) + b"\1"), {}),
        (example(field(1, b"x") + field(2, field(9, b"?") + tag(1, 0) + b"\1")), {}),
        (feature(1, tag(1, 0) + b"\1" + field(2, b"?") + field(1, b"v")), {"x": [b"v"]}),
        (feature(2, tag(1, 0) + b"\1" + tag(1, 1) + bytes(8)), {"x": np.float32([])}),
        (feature(3, tag(1, 5) + bytes(4) + field(1, b"\7")), {"x": np.int64([7])}),
        # a tag and a length that are longer than they need to be
        (b"\x8a\x00\x80\x00" + feature(1, b""), {"x": []}),
    ],
)
def test_rules(data: bytes, expected: dict[str, Any]) -> None:
    assert same(parse_example(data), expected)
    assert same(example_of(data), expected)


def test_a_step_of_no_kind_keeps_its_place() -> None:
    steps = field(1, field(1, field(1, b"a"))) + field(1, b"") + field(1, field(1, field(1, b"b")))
    data = field(2, field(1, field(1, b"rgb") + field(2, steps)))
    assert parse_sequence_example(data) == ({}, {"rgb": [[b"a"], [], [b"b"]]})
    assert same(parse_sequence_example(data), sequence_of(data))


def test_arrays_are_the_callers_own() -> None:
    data = encode_example({"a": np.float32([1, 2]), "b": [1]})
    for value in parse_example(data).values():
        assert isinstance(value, np.ndarray)
        value += 1
    assert same(parse_example(data), {"a": np.float32([1, 2]), "b": np.int64([1])})


# ---- corrupt bytes


@pytest.mark.parametrize(
    ("data", "offset", "reason"),
    [
        (b"\x0a", 1, "the message ends within a number"),
        (b"\x0a\x05ab", 0, "field 1 needs 5 bytes, but 2 are left"),
        (b"\x0a\xff\xff\xff\xff\x0f", 0, "field 1 needs 4294967295 bytes, but 0 are left"),
        (b"\x0a\xff\xff\xff\xff\xff\x0f", 1, "a number of more than 35 bits"),
        (b"\x00\x01", 0, "0 is not the number of a field"),
        (b"\xff\xff\xff\xff\x7f\x01", 0, "4294967295 is not the number of a field"),
        (b"\x0b\x0c", 0, "wire type 3 does not occur in an Example"),
        (b"\x0f", 0, "wire type 7 does not occur in an Example"),
        (b"\x0d\x00\x00", 0, "field 1 needs 4 bytes, but 2 are left"),
        (b"\x09" + bytes(7), 0, "field 1 needs 8 bytes, but 7 are left"),
        (feature(2, field(1, b"12345")), 13, "a list of floats has 5 bytes, which is not a multiple of 4"),
        (feature(3, field(1, b"\x80")), 13, "the message ends within a number"),
        (feature(3, field(1, b"\x80" * 10 + b"\1")), 13, "a number of more than 64 bits"),
        (feature(3, field(1, b"\xff" * 9 + b"\2")), 13, "a number of more than 64 bits"),
        (feature(1, b"", b"\xff\xfe"), 6, "the name of a feature is not UTF-8 text: b'\\xff\\xfe'"),
        (example(field(1, b"x") + field(3, b"?")), 9, "field 3 of type 2 does not occur in a map"),
    ],
)
@pytest.mark.parametrize("parse", [parse_example, parse_sequence_example])
def test_corrupt_bytes_are_named(
    parse: Callable[[bytes], Any], data: bytes, offset: int, reason: str
) -> None:
    with pytest.raises(ExampleError) as caught:
        parse(data)
    assert (caught.value.offset, caught.value.reason) == (offset, reason)
    assert str(caught.value) == f"byte {offset} of the record: {reason}"


def agrees(parse: Callable[[bytes], Any], oracle: Callable[[bytes], Any], data: bytes) -> bool:
    """Whether protobuf reads the same; False after an error, which must lie within the data."""
    try:
        found = parse(data)
    except ExampleError as error:
        if not 0 <= error.offset <= len(data):
            raise AssertionError(f"offset {error.offset} of {len(data)} bytes") from error
        return False
    try:
        expected = oracle(data)
    except DecodeError as error:
        raise AssertionError(f"protobuf refuses what was read as {found}") from error
    assert same(found, expected)
    return True


PIECES = [b"\x80", b"\xff", b"\x00", b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x0d", b"\x20\x05", b"\x8a\x00"]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "insert", "delete", "repeat", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    max_size=4,
)


def change(data: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    for kind, share, number in changes:
        at = int(share * len(data))
        match kind:
            case "flip" if data:
                data = data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :]
            case "set":
                data = data[:at] + bytes([number]) + data[at + 1 :]
            case "insert":
                data = data[:at] + PIECES[number % len(PIECES)] + data[at:]
            case "delete":
                data = data[:at] + data[at + 1 + number % 3 :]
            case "repeat":
                data = data[:at] + data[max(0, at - number % 24) :]
            case "cut":
                data = data[:at]
    return data


@settings(deadline=None, max_examples=400)
@given(features=FEATURES, changes=CHANGES)
def test_mutated_examples(features: dict[str, Any], changes: list[tuple[str, float, int]]) -> None:
    agrees(parse_example, example_of, change(encode_example(features), changes))


@settings(deadline=None, max_examples=300)
@given(context=FEATURES, lists=LISTS, changes=CHANGES)
def test_mutated_sequences(
    context: dict[str, Any], lists: dict[str, Any], changes: list[tuple[str, float, int]]
) -> None:
    agrees(parse_sequence_example, sequence_of, change(encode_sequence_example(context, lists), changes))


@settings(deadline=None, max_examples=200)
@given(changes=CHANGES, near=st.booleans(), row=st.integers(0, 283))
def test_mutated_real_records(
    data_dir: Path, changes: list[tuple[str, float, int]], near: bool, row: int
) -> None:
    """As if their checksums had been computed anew. Near the start, where lengths and names are."""
    data = list(read_records(data_dir / "youtube8m" / "validate0000.tfrecord"))[row]
    split = 48 if near else len(data)
    agrees(parse_example, example_of, change(data[:split], changes) + data[split:])


def test_truncation_at_every_byte() -> None:
    context: dict[str, Any] = {"id": [b"abcd"], "labels": [3, 300], "score": [0.5]}
    whole = encode_sequence_example(context, {"rgb": [[b"12"], [b"34"]]})
    read = [agrees(parse_sequence_example, sequence_of, whole[:size]) for size in range(len(whole) + 1)]
    # nothing at all, the context alone, and the whole
    assert [size for size, good in enumerate(read) if good] == [0, len(encode_example(context)), len(whole)]


def test_every_flipped_bit() -> None:
    whole = encode_example({"id": [b"abcd"], "labels": [3, -1], "mean": [0.5, 2.0]})
    read = 0
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        read += agrees(parse_example, example_of, bytes(data))
    assert 0 < read < 8 * len(whole)


# ---- what may be encoded


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, -2], np.int64([1, -2])),
        ([True, False], np.int64([1, 0])),
        (np.array([True]), np.int64([1])),
        (np.array([7], dtype=np.uint8), np.int64([7])),
        ([np.int16(-4)], np.int64([-4])),
        (np.array([], dtype=np.int32), np.int64([])),
        ([0.1, 2], np.float32([0.1, 2])),
        ([np.inf, -np.inf], np.float32([np.inf, -np.inf])),
        (np.array([0.5], dtype=np.float16), np.float32([0.5])),
        (np.arange(6, dtype=">f8")[::2], np.float32([0, 2, 4])),
        (["ä", b"\xff"], ["ä".encode(), b"\xff"]),
        (("a",), [b"a"]),
        ([], []),
    ],
)
def test_kinds_of_values(given: Any, expected: Any) -> None:
    assert same(parse_example(encode_example({"x": given})), {"x": expected})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("abcd", "feature 'x' must be a list of values, got 'abcd'; put it into a list"),
        (b"abcd", "feature 'x' must be a list of values, got b'abcd'; put it into a list"),
        ([1, "a"], "feature 'x' must be one-dimensional and all floats, all integers, or all bytes or text"),
        ([None], r"all bytes or text; got \[None\]"),
        ([[1], [2, 3]], r"one-dimensional .* got \[\[1\], \[2, 3\]\]"),
        (np.zeros((2, 2)), "feature 'x' must be one-dimensional"),
        (np.array(3), "feature 'x' must be one-dimensional"),
        (np.array([b"a"]), "feature 'x' must be one-dimensional and all floats"),
        ([2**63], "feature 'x' has the value 9223372036854775808, which is no int64"),
        ([2**63, -1], "feature 'x' has the value 9223372036854775808, which is no int64"),
        (np.array([2**64 - 1], dtype=np.uint64), "has the value 18446744073709551615, which is no int64"),
        ([-(2**63) - 1], "feature 'x' has the value -9223372036854775809, which is no int64"),
        ([1e39], "feature 'x' has values that are too large for float32"),
    ],
)
def test_values_that_cannot_be_encoded(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_example({"x": given})
    with pytest.raises(ValueError, match=message):
        encode_sequence_example({}, {"x": [given]})


@settings(max_examples=50)
@given(shape=st.tuples(st.integers(0, 5), st.integers(1, 300)), seed=st.integers(0, 9))
def test_an_array_of_bytes_is_written_as_its_rows(shape: tuple[int, int], seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    rows = [[frame.tobytes()] for frame in frames]
    assert encode_sequence_example({}, {"rgb": frames}) == encode_sequence_example({}, {"rgb": rows})


@pytest.mark.parametrize("wrong", [np.zeros((2, 3), dtype=np.int64), np.zeros(3, dtype=np.uint8)])
def test_an_array_of_frames_must_be_bytes_of_two_axes(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"'rgb' must be an array of bytes \(steps, size\), got"):
        encode_sequence_example({}, {"rgb": wrong})
