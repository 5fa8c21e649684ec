"""tf.train.Example and tf.train.SequenceExample: their wire format, read and written without protobuf.

The schema, in short: Example {Features features = 1}, SequenceExample {Features context = 1; FeatureLists
feature_lists = 2}, Features {map<string, Feature> feature = 1}, FeatureLists {map<string, FeatureList>
feature_list = 1}, FeatureList {repeated Feature feature = 1}, Feature {oneof kind {BytesList = 1; FloatList
= 2; Int64List = 3}}, and each of the three lists {repeated ... value = 1}.

The rules are those of protobuf: fields come in any order, unknown ones are skipped; of two map entries with
the same key the last counts; a message that comes twice is merged; of a oneof the last member counts.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = NDArray[np.float32] | NDArray[np.int64] | list[bytes]
Values = NDArray[np.generic] | Sequence[float] | Sequence[int] | Sequence[bytes] | Sequence[str]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which proto3 does not have
TEXTS, FLOATS, INTEGERS = 1, 2, 3  # fields of Feature: the kinds it may be of
LONGEST, LONGEST_TAG, LONGEST_SIZE = 10, 5, 5  # bytes of a varint, of a tag, of a length


class ExampleError(ValueError):
    """Bytes that are no Example: ``offset`` from the first byte of the record, ``reason``."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(offset, reason)
        self.offset, self.reason = offset, reason

    def __str__(self) -> str:
        return f"byte {self.offset} of the record: {self.reason}"


def parse_example(data: bytes) -> dict[str, Value]:
    """Read a tf.train.Example.

    Returns the value of each feature by its name: a float32 array, an int64 array, or a list of bytes. A
    feature of none of these kinds is left out: TensorFlow takes it for missing.

    Raises
    ------
    ExampleError : the bytes are not an Example.

    >>> parse_example(encode_example({"id": [b"abcd"], "labels": [3, 17]}))
    {'id': [b'abcd'], 'labels': array([ 3, 17])}
    """
    features: dict[str, _Feature] = {}
    for number, wire, at, end in _fields(data, 0, len(data)):
        if number == 1 and wire == BYTES:
            _merge_map(data, at, end, features, _Feature, _merge_feature)
    return _values(features)


def parse_sequence_example(data: bytes) -> tuple[dict[str, Value], dict[str, list[Value]]]:
    """Read a tf.train.SequenceExample: its context like an Example, and the steps of each feature list.

    A step of no kind is an empty list.

    Raises
    ------
    ExampleError : the bytes are not a SequenceExample.
    """
    context: dict[str, _Feature] = {}
    lists: dict[str, list[_Feature]] = {}
    for number, wire, at, end in _fields(data, 0, len(data)):
        if number == 1 and wire == BYTES:
            _merge_map(data, at, end, context, _Feature, _merge_feature)
        elif number == 2 and wire == BYTES:
            _merge_map(data, at, end, lists, list[_Feature], _merge_list)
    return _values(context), {name: [_value(step) for step in steps] for name, steps in lists.items()}


def encode_example(features: Mapping[str, Values]) -> bytes:
    """Write a tf.train.Example: floats, integers (also bools), bytes or text (as UTF-8) under each name.

    An empty list without a type is written as a list of bytes; give an empty array instead.

    Raises
    ------
    ValueError : values that are not one-dimensional, of mixed or other kinds, or out of range.

    >>> encode_example({"a": [1]})
    b'\\n\\x0c\\n\\n\\n\\x01a\\x12\\x05\\x1a\\x03\\n\\x01\\x01'
    """
    return _message(1, _features(features))


def encode_sequence_example(
    context: Mapping[str, Values], feature_lists: Mapping[str, Sequence[Values] | NDArray[np.uint8]]
) -> bytes:
    """Write a tf.train.SequenceExample; see `encode_example`. A feature list is the values of its steps.

    A feature list may also be an array of bytes (steps, size): each row is one value of a step.
    """
    lists = b"".join(_entry(name, _steps(name, steps)) for name, steps in feature_lists.items())
    return _message(1, _features(context)) + _message(2, lists)


# ---- reading


@dataclass(slots=True)
class _Feature:
    """A Feature as far as it is read: its kind (0: none), and its values as bytes, in any division."""

    kind: int = 0
    parts: list[bytes] = field(default_factory=list)


_T = TypeVar("_T")


def _values(features: dict[str, _Feature]) -> dict[str, Value]:
    return {name: _value(feature) for name, feature in features.items() if feature.kind}


def _value(feature: _Feature) -> Value:
    if feature.kind == FLOATS:
        return np.frombuffer(b"".join(feature.parts), dtype="<f4").astype(np.float32)
    if feature.kind == INTEGERS:
        return np.frombuffer(b"".join(feature.parts), dtype=np.uint64).astype(np.int64)
    return feature.parts


def _merge_map(
    data: bytes,
    at: int,
    end: int,
    found: dict[str, _T],
    new: Callable[[], _T],
    merge: Callable[[bytes, int, int, _T], None],
) -> None:
    """Read Features or FeatureLists: messages whose field 1 is a map."""
    for number, wire, start, stop in _fields(data, at, end):
        if number != 1 or wire != BYTES:
            continue
        key, value = "", new()  # what protobuf takes where an entry lacks one of them
        for part, kind, first, last in _fields(data, start, stop):
            if part == 1 and kind == BYTES:
                key = _text(data, first, last)
            elif part == 2 and kind == BYTES:
                merge(data, first, last, value)
            else:  # the implementations of protobuf disagree: some keep such an entry, some drop it
                raise ExampleError(first, f"field {part} of type {kind} does not occur in a map")
        found[key] = value


def _merge_list(data: bytes, at: int, end: int, steps: list[_Feature]) -> None:
    for number, wire, start, stop in _fields(data, at, end):
        if number == 1 and wire == BYTES:
            steps.append(_Feature())
            _merge_feature(data, start, stop, steps[-1])


def _merge_feature(data: bytes, at: int, end: int, feature: _Feature) -> None:
    for number, wire, start, stop in _fields(data, at, end):
        if wire == BYTES and number in _PARTS:
            if feature.kind != number:
                feature.kind, feature.parts = number, []
            for first, kind, begin, until in _fields(data, start, stop):
                if first == 1:
                    feature.parts += _PARTS[number](data, kind, begin, until)


def _texts(data: bytes, wire: int, at: int, end: int) -> list[bytes]:
    return [data[at:end]] if wire == BYTES else []


def _floats(data: bytes, wire: int, at: int, end: int) -> list[bytes]:
    if wire == BYTES and (end - at) % 4:
        raise ExampleError(at, f"a list of floats has {end - at} bytes, which is not a multiple of 4")
    return [data[at:end]] if wire in (BYTES, FIXED32) else []


def _integers(data: bytes, wire: int, at: int, end: int) -> list[bytes]:
    if wire not in (BYTES, VARINT):
        return []
    numbers = array("Q")
    while at < end:
        number, at = _varint(data, at, end, LONGEST)
        numbers.append(number)
    return [numbers.tobytes()]


# how each kind reads a field of number 1 in its list; values may be packed or not
_PARTS: dict[int, Callable[[bytes, int, int, int], list[bytes]]] = {
    TEXTS: _texts,
    FLOATS: _floats,
    INTEGERS: _integers,
}


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, first byte of the value and the byte behind it, of each field of a message."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end, LONGEST_TAG)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise ExampleError(start, f"{number} is not the number of a field")
        if wire == BYTES:
            size, at = _varint(data, at, end, LONGEST_SIZE)
        elif wire == VARINT:
            size = _varint(data, at, end, LONGEST)[1] - at
        elif wire == FIXED32:
            size = 4
        elif wire == FIXED64:
            size = 8
        else:
            raise ExampleError(start, f"wire type {wire} does not occur in an Example")
        if size > end - at:
            raise ExampleError(start, f"field {number} needs {size} bytes, but {end - at} are left")
        yield number, wire, at, at + size
        at += size


def _varint(data: bytes, at: int, end: int, longest: int) -> tuple[int, int]:
    """The number that begins at byte ``at``, and the place behind it."""
    value = shift = 0
    for place in range(at, min(end, at + longest)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, place + 1
        shift += 7
    else:
        if end < at + longest:
            raise ExampleError(at, "the message ends within a number")
    raise ExampleError(at, f"a number of more than {min(7 * longest, 64)} bits")


def _text(data: bytes, at: int, end: int) -> str:
    try:
        return data[at:end].decode()
    except UnicodeDecodeError:
        raise ExampleError(at, f"the name of a feature is not UTF-8 text: {data[at:end][:40]!r}") from None


# ---- writing


def _features(features: Mapping[str, Values]) -> bytes:
    return b"".join(_entry(name, _feature(name, values)) for name, values in features.items())


def _steps(name: str, steps: Sequence[Values] | NDArray[np.uint8]) -> bytes:
    """All steps of a feature list."""
    if not isinstance(steps, np.ndarray):
        return b"".join(_message(1, _feature(name, values)) for values in steps)
    if steps.dtype != np.uint8 or steps.ndim != 2:
        raise ValueError(
            f"feature list {name!r} must be an array of bytes (steps, size), got {steps.dtype} {steps.shape}"
        )
    row = bytes(steps.shape[1])
    head = _message(1, _message(TEXTS, _message(1, row)))  # the same before each row
    whole = np.empty((len(steps), len(head)), dtype=np.uint8)
    whole[:] = np.frombuffer(head, dtype=np.uint8)
    whole[:, len(head) - len(row) :] = steps
    return whole.tobytes()


def _entry(name: str, value: bytes) -> bytes:
    return _message(1, _message(1, name.encode()) + _message(2, value))


def _feature(name: str, values: Values) -> bytes:
    kind, content = _content(name, values)
    return _message(kind, content)


def _content(name: str, values: Values) -> tuple[int, bytes]:
    """The kind of a feature, and its list as a message."""
    if isinstance(values, str | bytes):
        raise ValueError(
            f"feature {name!r} must be a list of values, got {values[:40]!r}; put it into a list"
        )
    if not isinstance(values, np.ndarray):
        texts = [value for value in values if isinstance(value, str | bytes)]
        if len(texts) == len(values):
            contents = (text.encode() if isinstance(text, str) else text for text in texts)
            return TEXTS, b"".join(_message(1, content) for content in contents)
        if all(isinstance(value, int) for value in values):
            return INTEGERS, _integer_list(name, [int(value) for value in values])
    try:
        numbers = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        numbers = np.empty(0, dtype=object)
    if numbers.ndim == 1 and numbers.dtype.kind in "iub":
        return INTEGERS, _integer_list(name, numbers.tolist())
    if numbers.ndim == 1 and numbers.dtype.kind == "f":
        return FLOATS, _float_list(name, numbers)
    raise ValueError(
        f"feature {name!r} must be one-dimensional and all floats, all integers, or all bytes or text; "
        f"got {values!r:.80}"
    )


def _integer_list(name: str, numbers: list[int]) -> bytes:
    for number in (min(numbers, default=0), max(numbers, default=0)):
        if not -(1 << 63) <= number < 1 << 63:
            raise ValueError(f"feature {name!r} has the value {number}, which is no int64")
    return _packed(b"".join(map(_encode_varint, numbers)))


def _float_list(name: str, numbers: NDArray[np.floating]) -> bytes:
    with np.errstate(over="ignore"):
        floats = numbers.astype("<f4")
    if floats.dtype != numbers.dtype and np.isinf(floats).sum() != np.isinf(numbers).sum():
        raise ValueError(f"feature {name!r} has values that are too large for float32")
    return _packed(floats.tobytes())


def _packed(values: bytes) -> bytes:
    return _message(1, values) if values else b""


def _message(number: int, content: bytes) -> bytes:
    """Field ``number`` (below 16) that holds ``content``."""
    return bytes((number << 3 | BYTES,)) + _encode_varint(len(content)) + content


def _encode_varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= (1 << 64) - 1  # negative ones as two's complement: ten bytes
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
