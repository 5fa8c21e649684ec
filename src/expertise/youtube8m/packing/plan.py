"""What a pack is going to write: found by a first reading of all files, and kept so that it can go on."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from expertise._files import atomic_file
from expertise._progress import progress
from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.packing.inputs import Place

VERSION = 1  # of the plan and of what is written; a change refuses to go on
PIECE = 1 << 20


@dataclass(frozen=True)
class PlannedFeature:
    """size : values of a frame. factor : they are multiplied by it before they become bytes; None: they are
    bytes already.
    """

    name: str
    size: int
    factor: float | None


@dataclass(frozen=True)
class PlannedShard:
    """The videos of one partition from row ``start`` to before row ``end``."""

    partition: str
    number: int
    videos: int
    frames: int
    start: Place
    end: Place

    @property
    def name(self) -> str:
        """Of the file, at both levels: partition0000."""
        return f"{self.partition}{self.number:04d}"


@dataclass(frozen=True)
class Plan:
    """request : what it was made of; a pack goes on only where this is the same. classes : their names.
    train_counts : how many videos to train on have each. longest : frames of the longest video. shards : in
    the order of their first rows.
    """

    request: Mapping[str, Any]
    features: tuple[PlannedFeature, ...]
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    longest: int
    shards: tuple[PlannedShard, ...]

    @property
    def partitions(self) -> tuple[str, ...]:
        """Their names, in alphabetical order."""
        return tuple(sorted({shard.partition for shard in self.shards}))

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read what `write` has written."""
        values = json.loads(path.read_text(encoding="utf-8"))
        shards = (
            PlannedShard(**{**shard, "start": Place(*shard["start"]), "end": Place(*shard["end"])})
            for shard in values["shards"]
        )
        return cls(
            values["request"],
            tuple(PlannedFeature(**feature) for feature in values["features"]),
            tuple(values["classes"]),
            tuple(values["train_counts"]),
            values["longest"],
            tuple(shards),
        )


@dataclass(frozen=True)
class Fingerprints:
    """What the input files are. entries : name, size and SHA-256 of each. times : when each was changed."""

    paths: tuple[Path, ...]
    entries: tuple[dict[str, Any], ...]
    times: tuple[int, ...]

    @classmethod
    def of(cls, paths: Sequence[Path], stream: TextIO | None = None) -> "Fingerprints":
        """Read all files once."""
        sizes = [path.stat().st_size for path in paths]
        times = tuple(path.stat().st_mtime_ns for path in paths)
        entries = []
        with progress("fingerprints", sum(sizes) // 10**6, "MB", stream=stream) as meter:
            for path, size in zip(paths, sizes, strict=True):
                entries.append({"name": path.name, "bytes": size, "sha256": sha256(path)})
                meter.advance(size // 10**6)
        return cls(tuple(paths), tuple(entries), times)

    def check_unchanged(self) -> None:
        """Raise ValueError where a file was changed since."""
        for path, entry, time in zip(self.paths, self.entries, self.times, strict=True):
            stat = path.stat()
            if (stat.st_size, stat.st_mtime_ns) != (entry["bytes"], time):
                raise ValueError(
                    f"{path} was changed while it was packed; remove the folder of --output_dir, and pack "
                    "again"
                )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def request_of(
    inputs: Fingerprints, feature_names: str, videos_per_shard: int, vocabulary: str
) -> dict[str, Any]:
    """All that the output depends on, in the form that JSON gives back."""
    return {
        "version": VERSION,
        "feature_names": feature_names,
        "videos_per_shard": videos_per_shard,
        "vocabulary": sha256(Path(vocabulary)) if vocabulary else "",
        "inputs": list(inputs.entries),
    }


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise FlagError where a pack that was begun cannot go on; it names all that differs."""
    changed = [
        f"--{flag} was {before[flag]!r}, now {now[flag]!r}"
        for flag in ("feature_names", "videos_per_shard")
        if before[flag] != now[flag]
    ]
    if before["vocabulary"] != now["vocabulary"]:
        changed.append("--vocabulary holds other classes")
    if before["version"] != now["version"]:
        changed.append("another version of expertise began it")
    old, new = ({entry["name"]: entry for entry in one["inputs"]} for one in (before, now))
    changed += [f"{name} has changed" for name in old.keys() & new.keys() if old[name] != new[name]]
    changed += [f"{name} is gone" for name in old.keys() - new.keys()]
    changed += [f"{name} is new" for name in new.keys() - old.keys()]
    if not changed and before["inputs"] != now["inputs"]:
        changed.append("the input files have another order")
    if changed:
        raise FlagError(
            f"the pack in {folder} can't go on: {'; '.join(sorted(changed))}. Restore what it began with, or "
            "remove the folder, or give another --output_dir"
        )
