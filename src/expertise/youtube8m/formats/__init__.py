"""File formats of labelled videos: the table that --output_format and the ends of file names choose from."""

from difflib import get_close_matches
from pathlib import Path

from expertise.youtube8m.formats._abstract import AbstractFormat, no_frames
from expertise.youtube8m.formats.npz import NpzFormat
from expertise.youtube8m.formats.parquet import ParquetFormat
from expertise.youtube8m.formats.tfrecord import TFRecordFormat

__all__ = ["FORMATS", "AbstractFormat", "format_of", "get_format", "no_frames", "stem_of"]

FORMATS: dict[str, AbstractFormat] = {
    "tfrecord": TFRecordFormat(".tfrecord"),
    "tfrecord.gz": TFRecordFormat(".tfrecord.gz"),
    "npz": NpzFormat(),
    "parquet": ParquetFormat(),
}


def get_format(name: str) -> AbstractFormat:
    """The format of that name. Raises ValueError, which lists all names and the nearest, for another."""
    if name in FORMATS:
        return FORMATS[name]
    near = get_close_matches(name, FORMATS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"output_format={name!r} is not known; the formats are {', '.join(FORMATS)}{hint}")


def format_of(path: Path) -> AbstractFormat:
    """The format that the end of the file's name says; a name without one is TFRecord.

    Raises ValueError, which lists the known ends, for another.
    """
    return FORMATS[_name_and_stem(path)[0]]


def stem_of(path: Path) -> str:
    """The file's name without the end that says its format."""
    return _name_and_stem(path)[1]


def _name_and_stem(path: Path) -> tuple[str, str]:
    for name, member in sorted(FORMATS.items(), key=lambda item: -len(item[1].suffix)):
        if path.name.endswith(member.suffix):
            return name, path.name.removesuffix(member.suffix)
    # TensorFlow also numbers shards behind the end: train.tfrecord-00000-of-00010
    if not path.suffix or ".tfrecord" in path.name:
        return "tfrecord", path.name
    suffixes = ", ".join(member.suffix for member in FORMATS.values())
    raise ValueError(
        f"{path}: the format of a file is known by its name's end, one of {suffixes} (none: TFRecord), "
        f"not by {path.suffix!r}"
    )
