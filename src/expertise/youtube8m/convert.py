"""Files of videos from one format to another, one file for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from expertise._progress import progress
from expertise.youtube8m.cache import report_skipped
from expertise.youtube8m.formats import format_of, get_format, stem_of
from expertise.youtube8m.records import RecordError
from expertise.youtube8m.videos import FeatureSpec, Videos, check_num_classes, match_files


@dataclass(frozen=True)
class Conversion:
    """What was done. outputs : the files written; videos : how many they hold; skipped : corrupt records left
    out; clipped : values that the new format cannot hold, set to its nearest.
    """

    outputs: tuple[Path, ...]
    videos: int
    skipped: int
    clipped: int

    def __str__(self) -> str:
        text = f"{self.videos:,} videos in {len(self.outputs)} files"
        if self.skipped:
            text += f"; {self.skipped:,} corrupt records skipped"
        if self.clipped:
            text += f"; {self.clipped:,} values were out of range and set to the nearest that the format has"
        return text


def convert(
    input_data_pattern: str,
    output_dir: str | Path,
    output_format: str,
    spec: FeatureSpec,
    num_classes: int,
    *,
    skip_corrupt: bool = False,
    stream: TextIO | None = None,
) -> Conversion:
    """Write every file that the pattern matches to ``output_dir``, under the same name, in another format.

    Formats are "tfrecord", "tfrecord.gz", "npz" (features rounded to bytes) and "parquet". A file is written
    whole or not at all; nothing is overwritten.

    Raises
    ------
    ValueError : an unknown format, an output that is there already, or two inputs with the same name.
    RecordError : a corrupt record, unless ``skip_corrupt``.
    """
    check_num_classes(num_classes)
    target = get_format(output_format)
    files = match_files(input_data_pattern, "input_data_pattern")
    outputs = _outputs(files, Path(output_dir).expanduser(), target.suffix)
    skipped: list[RecordError] | None = [] if skip_corrupt else None
    videos = clipped = 0

    def chunks(path: Path) -> Iterator[Videos]:
        nonlocal clipped
        for chunk in format_of(path).read(path, spec, num_classes, skipped):
            clipped += target.clipped(chunk.features)
            yield chunk
            meter.advance(len(chunk))

    total = sum(format_of(path).estimate_rows(path, spec) for path in files)
    with progress("converting", total, "videos", stream=stream) as meter:
        for path, output in outputs.items():
            videos += target.write(output, chunks(path), spec)
        report_skipped(len(skipped or []), [str(error) for error in skipped or []], meter.say)
    return Conversion(tuple(outputs.values()), videos, len(skipped or []), clipped)


def _outputs(files: list[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """Where each file goes. Raises ValueError where that is not free."""
    outputs: dict[Path, Path] = {}
    inputs: dict[Path, Path] = {}
    for path in files:
        output = folder / (stem_of(path) + suffix)
        if output in inputs:
            raise ValueError(
                f"--input_data_pattern: {inputs[output]} and {path} would both be written to {output}; "
                "convert them one after the other, to two folders"
            )
        if output.exists():
            raise ValueError(f"{output} exists; give another --output_dir, or remove it first")
        inputs[output] = path
        outputs[path] = output
    return outputs
