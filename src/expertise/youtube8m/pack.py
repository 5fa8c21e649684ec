"""Own videos as shards: arrays of embeddings, one row a frame, become records of both levels.

    OUTPUT_DIR/frame/train0000.tfrecord    tf.train.SequenceExample: id, labels, the bytes of each frame
    OUTPUT_DIR/video/train0000.tfrecord    tf.train.Example: id, labels, the means of the frames
    OUTPUT_DIR/vocabulary.csv              Index, Name, TrainVideoCount
    OUTPUT_DIR/dataset.json                what is in it, how it was made, and the flags that train on it

The files are read twice: once to check everything, find the scale of each feature and plan the shards, and
once to write them. The plan, and what is written already, lie in OUTPUT_DIR/unfinished until the end, so a
pack that was interrupted goes on where it stopped; dataset.json comes last.
"""

import csv
import fcntl
import glob
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from expertise._files import atomic_file
from expertise.youtube8m.flag_rules import check
from expertise.youtube8m.flags import FlagError, Flags, default
from expertise.youtube8m.formats.npz import LOWEST, STEP
from expertise.youtube8m.packing.inputs import DEFAULT_PARTITION, Inputs, frame_name, video_name
from expertise.youtube8m.packing.plan import Fingerprints, Plan, check_same, request_of, sha256
from expertise.youtube8m.packing.shards import LEVELS, WrittenShard, shard_file, write_shards
from expertise.youtube8m.packing.survey import survey
from expertise.youtube8m.videos import match_files
from expertise.youtube8m.vocabulary import read_vocabulary

DATASET, VOCABULARY, UNFINISHED = "dataset.json", "vocabulary.csv", "unfinished"
MODELS = {"video": "MoeModel", "frame": "GruModel"}  # of the commands that are shown


@dataclass(frozen=True)
class Packed:
    """What was written to ``folder``.

    shards : files of each level. clipped : values that were out of the range of bytes, and set to its ends.
    commands : what trains on it, at video level and at frame level; what infers, where no video to train on
    has a label.
    """

    folder: Path
    videos: int
    frames: int
    classes: int
    shards: int
    clipped: int
    commands: tuple[str, str]

    @property
    def train_command(self) -> str:
        """The command to run next, at video level."""
        return self.commands[0]

    def __str__(self) -> str:
        files = "file" if self.shards == 1 else "files"
        text = (
            f"{self.videos:,} videos with {self.frames:,} frames and {self.classes:,} classes, in "
            f"{self.shards:,} {files} of each level in {self.folder}"
        )
        if self.clipped:
            text += f"; {self.clipped:,} values were out of range and set to its ends, see {DATASET}"
        return f"{text}\nnext, on means of frames:\n  {self.commands[0]}\nor on frames:\n  {self.commands[1]}"


def pack(flags: Flags, *, stream: TextIO | None = None) -> Packed:
    """Write own videos as shards of both levels to ``flags.output_dir``, or go on where that was interrupted.

    Reads --input_data_pattern, --feature_names, --vocabulary, --videos_per_shard and --output_dir. The same
    files and flags give the same bytes, whether it was interrupted or not. What happens is shown on
    ``stream`` (standard error).

    Raises
    ------
    FlagError : a flag is wrong; output_dir is finished, in use, holds other files, or was begun with other
        flags or files.
    ValueError : an input is wrong; it names the file, and where it can the id and the frame.
    """
    check(flags, "pack")
    folder = Path(flags.output_dir).expanduser()
    paths = match_files(flags.input_data_pattern, "input_data_pattern")
    _check_folder(folder)
    inputs = Inputs(paths, flags.feature_names)
    names = read_vocabulary(flags.vocabulary) if flags.vocabulary else ()
    if inputs.label_kind == "number" and not names:
        raise FlagError("the labels are numbers; give their names with --vocabulary (columns Index and Name)")
    with _work_folder(folder) as work:
        sources = Fingerprints.of(paths, stream)
        request = request_of(sources, flags.feature_names, flags.videos_per_shard, flags.vocabulary)
        if (work / "plan.json").exists():
            plan = Plan.read(work / "plan.json")
            check_same(plan.request, request, folder)
        else:
            plan = survey(inputs, names, flags.videos_per_shard, request, stream)
            plan.write(work / "plan.json")
        written = write_shards(inputs, plan, folder, work / "written.jsonl", stream)
        inputs.close()
        sources.check_unchanged()
        _finish(folder, plan, written)
    return Packed(
        folder,
        sum(shard.videos for shard in plan.shards),
        sum(shard.frames for shard in plan.shards),
        len(plan.classes),
        len(plan.shards),
        sum(sum(shard.clipped.values()) for shard in written),
        (_command(folder, plan, "video"), _command(folder, plan, "frame")),
    )


# ---- the folder


def _check_folder(folder: Path) -> None:
    """Raise FlagError unless the folder is new, empty, or of a pack that was interrupted."""
    if (folder / DATASET).exists():
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)  # the pack ended just before it was removed
        raise FlagError(
            f"--output_dir={folder} holds a finished pack ({DATASET}); give another folder, or remove it"
        )
    if folder.exists() and not folder.is_dir():
        raise FlagError(f"--output_dir={folder} is a file; give the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / UNFINISHED).is_dir():
        raise FlagError(f"--output_dir={folder} holds other files; give a new folder, or an empty one")


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """Give the folder of what must survive an interruption; locked, and removed once the pack is finished."""
    work = folder / UNFINISHED
    new = not folder.exists()
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FlagError(
                f"--output_dir={folder}: another pack is writing there; wait for its end"
            ) from None
        _check_folder(folder)  # the other one may have ended meanwhile
        try:
            yield work
        finally:
            if (folder / DATASET).exists() or not (work / "plan.json").exists():
                shutil.rmtree(work)
                if new and not any(folder.iterdir()):
                    folder.rmdir()


def _finish(folder: Path, plan: Plan, written: Sequence[WrittenShard]) -> None:
    """Write what stands beside the shards; dataset.json last, which says that the pack is whole."""
    for cut_off in folder.glob(".*.part"):
        cut_off.unlink()
    with (
        atomic_file(folder / VOCABULARY) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["Index", "Name", "TrainVideoCount"])
        for index, (name, count) in enumerate(zip(plan.classes, plan.train_counts, strict=True)):
            rows.writerow([index, name, count])
    values = _described(folder, plan, written)
    with atomic_file(folder / DATASET) as temporary:
        temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _described(folder: Path, plan: Plan, written: Sequence[WrittenShard]) -> dict[str, Any]:
    """What dataset.json says; its paths are relative, so that the folder may be moved."""
    clipped: Counter[str] = Counter()
    for one in written:
        clipped.update(one.clipped)
    return {
        "version": plan.request["version"],
        "classes": len(plan.classes),
        "frames_of_the_longest_video": plan.longest,
        "bytes": "value = (byte * scale + offset) / factor; factor null: the input had bytes",
        "features": [
            {
                "name": feature.name,
                "size": feature.size,
                "factor": feature.factor,
                "scale": STEP,
                "offset": LOWEST,
                "clipped": clipped[feature.name],
            }
            for feature in plan.features
        ],
        "partitions": {
            name: {
                "videos": sum(shard.videos for shard in plan.shards if shard.partition == name),
                "frames": sum(shard.frames for shard in plan.shards if shard.partition == name),
            }
            for name in plan.partitions
        },
        "train_flags": {level: _data_flags(Path(), plan, level) for level in LEVELS},
        "inputs": plan.request["inputs"],
        "sha256": {
            VOCABULARY: sha256(folder / VOCABULARY),
            **{
                shard_file(Path(), level, shard.name).as_posix(): getattr(shard, level)
                for level in LEVELS
                for shard in written
            },
        },
    }


# ---- what to run next


def _data_flags(folder: Path, plan: Plan, level: str) -> list[str]:
    """The flags that train on the records of one level."""
    name_of = frame_name if level == "frame" else video_name
    flags = [f"--train_data_pattern={_pattern(folder, level, DEFAULT_PARTITION)}"]
    if "validate" in plan.partitions:
        flags.append(f"--eval_data_pattern={_pattern(folder, level, 'validate')}")
    if level == "frame":
        flags.append("--frame_features")
        if plan.longest > default("max_frames", "train"):
            flags.append(f"--max_frames={plan.longest}")
    return [
        *flags,
        f"--feature_names={','.join(name_of(feature.name) for feature in plan.features)}",
        f"--feature_sizes={','.join(str(feature.size) for feature in plan.features)}",
        f"--vocabulary={folder / VOCABULARY}",
    ]


def _pattern(folder: Path, level: str, partition: str) -> str:
    """The files of a partition; not those of another one whose name begins alike."""
    shards = shard_file(Path(), level, f"{partition}[0-9]*")
    return str(Path(glob.escape(str(folder))) / shards)


def _command(folder: Path, plan: Plan, level: str) -> str:
    """What trains on the records; where none is to train on, what infers their classes."""
    if any(plan.train_counts):
        words = ["train", *_data_flags(folder, plan, level), f"--model={MODELS[level]}", "--train_dir=run"]
    else:
        pattern = Path(glob.escape(str(folder))) / level / "*.tfrecord"
        words = [
            "infer",
            f"--input_data_pattern={pattern}",
            "--train_dir=run",
            "--output_file=predictions.csv",
        ]
    return " ".join(["expertise youtube8m", *map(shlex.quote, words)])
