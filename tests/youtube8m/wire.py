"""Messages of tf.train.Example and SequenceExample byte by byte, also in forms that no writer here makes."""

from pathlib import Path
from typing import Any

import numpy as np

from expertise.youtube8m.records import Shard


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(key: str, feature: bytes) -> bytes:
    return message(1, message(1, key.encode()) + message(2, feature))


def floats(values: Any, packed: bool = True) -> bytes:
    parts = [np.float32(value).tobytes() for value in values]
    if packed:
        return message(2, message(1, b"".join(parts)))
    return message(2, b"".join(b"\x0d" + part for part in parts))


def integers(values: Any, packed: bool = True) -> bytes:
    if packed:
        return message(3, message(1, b"".join(map(varint, values))))
    return message(3, b"".join(b"\x08" + varint(value) for value in values))


def text(value: bytes) -> bytes:
    return message(1, message(1, value))


def shard_of(records: list[bytes]) -> Shard:
    """As `scan_records` would give it: with framing around the data."""
    starts, data = [], bytearray()
    for one in records:
        starts.append(len(data) + 12)
        data += bytes(12) + one + bytes(4)
    return Shard(
        Path("some.tfrecord"),
        np.frombuffer(bytes(data), dtype=np.uint8),
        np.array(starts, dtype=np.int64),
        np.array([len(one) for one in records], dtype=np.int64),
    )
