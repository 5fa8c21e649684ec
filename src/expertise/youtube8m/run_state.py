"""Where a run begins or goes on: its data, its model's flags, and the state that a checkpoint keeps."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from expertise.youtube8m import checkpoint, recipe
from expertise.youtube8m.flag_rules import compare
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import FRAME_MODELS
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.readers import VideoSource, open_videos
from expertise.youtube8m.step import compiler_found
from expertise.youtube8m.videos import FeatureSpec, match_files
from expertise.youtube8m.vocabulary import read_vocabulary

COMPILED_ANSWERS = 2e9  # a run of so many answers (videos x classes) is worth the seconds of compiling


def open_data(flags: Flags, processes: Processes) -> tuple[VideoSource, VideoSource | None, ModelFlags]:
    """Open the records to train on and to evaluate on, and say what the model is for.

    Raises
    ------
    FlagError : a frame-level model without frames, or the other way round; there are no labels; train_dir is
        no folder.
    """
    _check_pairing(flags)
    if Path(flags.train_dir).exists() and not Path(flags.train_dir).is_dir():
        raise FlagError(f"--train_dir={flags.train_dir} is a file; give a folder, which may not be there yet")
    class_names = read_vocabulary(flags.vocabulary) if flags.vocabulary else ()
    spec = FeatureSpec.parse(flags.feature_names, flags.feature_sizes)
    scales = recipe.scales(flags, spec.total)
    model_flags = ModelFlags(
        model=flags.model,
        feature_names=spec.names,
        feature_sizes=spec.sizes,
        num_classes=len(class_names) or flags.num_classes,
        class_names=class_names,
        label_loss=flags.label_loss,
        input_scale=scales.input_scale,
        value_scale=scales.value_scale,
        frame_features=flags.frame_features,
        segment_labels=flags.segment_labels,
        max_frames=flags.max_frames,
        options=replace(flags, moe_rank=scales.rank),
    )
    frames = FrameReading(flags.max_frames, "rated" if flags.segment_labels else "")

    def source(flag: str) -> VideoSource:
        return open_videos(
            getattr(flags, flag),
            spec,
            model_flags.num_classes,
            frames=frames if flags.frame_features else None,
            cache_dir=flags.cache_dir,
            num_readers=flags.num_readers,
            skip_corrupt=flags.skip_corrupt_records,
            flag=flag,
            stream=processes.stream,
        )

    with processes.one_by_one():  # the first one converts, the others find the cache
        training = source("train_data_pattern")
        evaluation = source("eval_data_pattern") if flags.eval_data_pattern else None
    for flag, opened in (("train_data_pattern", training), ("eval_data_pattern", evaluation)):
        if opened is not None and not opened.label_counts.any():
            raise FlagError(
                f"--{flag}={getattr(flags, flag)}: none of the {opened.num_videos:,} videos has a label; "
                "the test partition has none, take train or validate"
            )
    remembered = min(flags.memory_videos, training.num_videos)  # a memory has the size of what is in it
    options = replace(model_flags.options, memory_videos=remembered)
    return training, evaluation, replace(model_flags, options=options)


def _check_pairing(flags: Flags) -> None:
    frame_level = flags.model in FRAME_MODELS
    if frame_level and not flags.frame_features:
        raise FlagError(
            f"--model={flags.model} is a frame-level model; give --frame_features, with frame-level records "
            "and --feature_names=rgb,audio"
        )
    if flags.frame_features and not frame_level:
        raise FlagError(
            f"--frame_features with --model={flags.model}, a video-level model; take one of "
            f"{', '.join(FRAME_MODELS)} (with --video_level_classifier_model={flags.model} on top), or leave "
            "--frame_features out"
        )
    if flags.memory_videos and flags.frame_features:
        raise FlagError(
            f"--memory_videos={flags.memory_videos}: only a video-level model by itself remembers videos; "
            "leave it at 0 with --frame_features"
        )
    if flags.segment_labels and not flags.frame_features:
        raise FlagError("--segment_labels needs --frame_features: segments are pieces of frame-level records")


def earlier_run(flags: Flags, files: str, processes: Processes) -> tuple[Path, dict[str, Any]] | None:
    """Find the newest checkpoint in train_dir and its state; None where the run is new.

    Raises
    ------
    FlagError : the run was made with other flags, or other files.
    """
    steps = checkpoint.steps_of(Path(flags.train_dir))
    if not steps:
        return None
    folder = steps[max(steps)]
    state = checkpoint.read_state(folder)
    before = dict(state["flags"])
    if state["data"] == files:  # the same files at another place are the same data
        before.pop("train_data_pattern")
    elif before["train_data_pattern"] == flags.train_data_pattern:
        raise FlagError(
            f"the files of --train_data_pattern={flags.train_data_pattern} have changed since {folder} "
            "was saved; restore them, or begin anew with --start_new_model"
        )
    before.pop("vocabulary")  # the classes themselves are compared, when they are known
    before.pop("num_classes")
    if state["streams"] != (flags.cache_dir == "none"):
        raise FlagError(
            f"the run in {flags.train_dir} began with --cache_dir={before['cache_dir']}, now "
            f"{flags.cache_dir}: streaming and a cache have other orders of the videos; stay with the one, "
            "or begin anew with --start_new_model"
        )
    for line in compare(before, flags):
        processes.say(line)
    return folder, state | {"flags": asdict(flags)}


def check_classes(flags: Flags, now: ModelFlags, before: ModelFlags) -> None:
    """Raise FlagError where the classes are others than before."""
    if (now.num_classes, now.class_names) != (before.num_classes, before.class_names):
        flag = "vocabulary" if flags.vocabulary else "num_classes"
        raise FlagError(
            f"--{flag}={getattr(flags, flag)}: {now.num_classes} classes; the run in {flags.train_dir} has "
            f"{before.num_classes}, or other names. Give those, or begin anew with --start_new_model"
        )


def first_state(
    flags: Flags, files: str, source: VideoSource, num_classes: int, processes: Processes
) -> dict[str, Any]:
    """Give the state of a run that has not made a step."""
    state = {
        "step": 0,
        "examples": 0,
        "flags": asdict(flags),
        "data": files,
        "shuffle": source.default_shuffle(),
        "log_bytes": 0,
        "streams": flags.cache_dir == "none",
        "compiled": _compiles(flags, source.num_videos, num_classes, processes),
    }
    agreed: dict[str, Any] = processes.collect(state)[0]  # what memory or compiler there is may differ
    return agreed


def _compiles(flags: Flags, num_videos: int, num_classes: int, processes: Processes) -> bool:
    """Decide whether the run compiles its step. It is kept with the run: the last bits depend on it."""
    found = compiler_found(processes.device)
    if flags.compile == "on" and not found:
        raise FlagError("--compile=on: there is no C++ compiler (g++, or the one that CXX names); take auto")
    examples = num_videos * flags.num_epochs
    examples = examples if flags.max_steps is None else min(examples, flags.max_steps * flags.batch_size)
    long = examples * num_classes >= COMPILED_ANSWERS
    return flags.compile == "on" or (flags.compile == "auto" and found and long)


def fingerprint(pattern: str, flag: str = "train_data_pattern") -> str:
    """Give a hash of the names and sizes of the files of a flag: what makes them the same data."""
    files = [f"{file.name} {file.stat().st_size}" for file in match_files(pattern, flag)]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
