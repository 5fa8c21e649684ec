"""THE flag table: every flag once, under its own name, with its default, its help and who reads it.

The names and defaults of google/youtube-8m are kept. `Flags` is the table: a field a flag. The command
line, its help, the checks, the rules of resuming and the tests all read it. A new flag is one field here,
its one reader, and a line in the changelog.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

COMMANDS = ("sample", "convert", "train", "eval", "infer", "export")
ROLES = ("dataset", "model", "training", "other")

# What a resumed run does with a flag that has another value than before.
SAME = "same"  # refuse: the weights would belong to no one run
SAID = "said"  # take the new value, and say so
FREE = "free"  # where and how fast, never what


class FlagError(ValueError):
    """A flag has a value that it can't have; the message says which are allowed."""


@dataclass(frozen=True)
class Entry:
    """What the table says of one flag, beside its name, type and default."""

    role: str
    commands: tuple[str, ...]
    help: str
    resume: str = FREE
    planned: str = ""
    """Why the flag does nothing yet; a value other than the default is then an error that says so."""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    required: tuple[str, ...] = ()
    """The commands that can't do without it."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of single commands that differ from the common one."""


def _flag(default: Any, role: str, commands: str, help: str, **rest: Any) -> Any:  # noqa: A002
    rest["required"] = tuple(rest.get("required", "").split())
    entry = Entry(role=role, commands=tuple(commands.split()), help=help, **rest)
    return field(default=default, metadata={"entry": entry})


FRAMES = "frame-level models are not built yet; video-level models read video-level records"
SEGMENTS = "segment training, evaluation and inference are not built yet"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """All flags of `expertise youtube8m`. From Python: ``train(Flags(train_data_pattern="..."))``."""

    # fmt: off
    # dataset
    train_data_pattern: str = _flag("", "dataset", "train",
        "Files to train on: a pattern like 'DIR/train*.tfrecord', several with commas.", required="train")
    eval_data_pattern: str = _flag("", "dataset", "train eval",
        "Files to evaluate on. In train: evaluates at every export, and the best checkpoint is kept.",
        required="eval", resume=SAID)
    input_data_pattern: str = _flag("", "dataset", "convert infer",
        "Files to read.", required="convert infer")
    feature_names: str = _flag("mean_rgb", "dataset", "train convert",
        "Features to use, with commas: 'mean_rgb,mean_audio'.",
        resume=SAME, defaults={"convert": "mean_rgb,mean_audio"})
    feature_sizes: str = _flag("1024", "dataset", "train convert",
        "Length of each feature, in the same order: '1024,128'.",
        resume=SAME, defaults={"convert": "1024,128"})
    vocabulary: str = _flag("", "dataset", "train",
        "A csv of the classes with columns Index and Name; gives their number and names.", resume=SAME)
    num_classes: int = _flag(3862, "dataset", "train convert",
        "Number of classes, where no vocabulary is given.", resume=SAME, minimum=1)
    frame_features: bool = _flag(False, "dataset", "train",
        "Read frame-level records.", planned=FRAMES, resume=SAME)
    segment_labels: bool = _flag(False, "dataset", "train eval infer",
        "Read segment-labelled records.", planned=SEGMENTS, resume=SAME)
    max_frames: int = _flag(300, "dataset", "train",
        "Frames read of a video.", planned=FRAMES, resume=SAME, minimum=1)
    num_readers: int = _flag(8, "dataset", "train eval infer",
        "Processes that convert or read files; changes the speed, never the set of examples.",
        minimum=1, defaults={"infer": 1})
    cache_dir: str = _flag("auto", "dataset", "train eval infer",
        "Folder for the converted records; 'auto' is the user's cache folder, 'none' streams instead.")
    skip_corrupt_records: bool = _flag(False, "dataset", "train eval infer convert",
        "Skip, count and report corrupt records. Without it the first one is an error.", resume=SAME)

    # model
    model: str = _flag("LogisticModel", "model", "train",
        "The model, by name.", resume=SAME)
    moe_num_mixtures: int = _flag(2, "model", "train",
        "MoeModel: experts of a class, beside the dummy that says 0.", resume=SAME, minimum=1)
    moe_rank: int = _flag(512, "model", "train",
        "MoeModel: gates and experts look at so many values, which one learned projection makes of the "
        "features; 0, or more than there are features: at the features themselves.", resume=SAME, minimum=0)
    moe_l2: float = _flag(1e-08, "model", "train",
        "MoeModel: L2 penalty of gate and expert weights.", resume=SAME, minimum=0)
    video_level_classifier_model: str = _flag("MoeModel", "model", "train",
        "Frame-level models: the classifier on top.", planned=FRAMES, resume=SAME)
    iterations: int = _flag(30, "model", "train",
        "Frames sampled by DbofModel.", planned=FRAMES, resume=SAME)
    sample_random_frames: bool = _flag(True, "model", "train",
        "Sample single frames, not a run of them.", planned=FRAMES, resume=SAME)
    dbof_add_batch_norm: bool = _flag(True, "model", "train",
        "DbofModel: batch normalisation.", planned=FRAMES, resume=SAME)
    dbof_cluster_size: int = _flag(8192, "model", "train",
        "DbofModel: clusters.", planned=FRAMES, resume=SAME)
    dbof_hidden_size: int = _flag(1024, "model", "train",
        "DbofModel: hidden units.", planned=FRAMES, resume=SAME)
    dbof_pooling_method: str = _flag("max", "model", "train",
        "DbofModel: max or average over frames.", planned=FRAMES, resume=SAME)
    dbof_activation: str = _flag("sigmoid", "model", "train",
        "DbofModel: activation.", planned=FRAMES, resume=SAME)
    lstm_cells: int = _flag(1024, "model", "train",
        "LstmModel: cells of a layer.", planned=FRAMES, resume=SAME)
    lstm_layers: int = _flag(2, "model", "train",
        "LstmModel: layers.", planned=FRAMES, resume=SAME)

    # training
    start_new_model: bool = _flag(False, "training", "train",
        "Delete the run in train_dir and start anew; otherwise it is resumed.")
    batch_size: int = _flag(1024, "training", "train eval infer",
        "Videos of a batch.", resume=SAME, minimum=1, defaults={"infer": 512})
    num_epochs: int = _flag(5, "training", "train",
        "Every video is seen so often.", resume=SAID, minimum=1)
    max_steps: int | None = _flag(None, "training", "train",
        "Stop after so many steps, if the epochs don't end before.", resume=SAID, minimum=1)
    recipe: str = _flag("stable", "training", "train",
        "stable: starts at the classes' rates and from a projection that tells them apart, scales the "
        "inputs, warms up and anneals the learning rate. reference: none of this, and full weights.",
        resume=SAME, choices=("stable", "reference"))
    label_loss: str = _flag("CrossEntropyLoss", "training", "train",
        "The loss, by name.", resume=SAME)
    optimizer: str = _flag("AdamOptimizer", "training", "train",
        "The optimizer, by its TensorFlow or torch name.", resume=SAME)
    base_learning_rate: float = _flag(0.01, "training", "train",
        "Learning rate at the start.", resume=SAID, minimum=0)
    learning_rate_decay: float = _flag(0.95, "training", "train",
        "Factor on the learning rate after every learning_rate_decay_examples.", resume=SAID, minimum=0)
    learning_rate_decay_examples: float = _flag(4_000_000, "training", "train",
        "Examples between two decays.", resume=SAID, minimum=1)
    regularization_penalty: float = _flag(1.0, "training", "train",
        "Factor on the model's L2 penalty.", resume=SAME, minimum=0)
    clip_gradient_norm: float = _flag(1.0, "training", "train",
        "Largest norm of each variable's gradient; 0 or less does not clip.", resume=SAME)
    precision: str = _flag("fp32", "training", "train eval infer",
        "Matrix products in fp32 or bf16; gate, loss and optimizer stay in fp32.",
        resume=SAME, choices=("fp32", "bf16"))
    compile: str = _flag("auto", "training", "train",
        "Compile the element-wise part of the step; auto: in long runs, where a C++ compiler is found.",
        resume=SAME, choices=("auto", "on", "off"))
    seed: int = _flag(0, "training", "train sample",
        "Decides everything that is drawn at random.", resume=SAME, minimum=0)
    export_model_steps: int = _flag(1000, "training", "train",
        "Steps between two checkpoints, each with an export.", minimum=1)

    # other
    train_dir: str = _flag("/tmp/yt8m_model/", "other", "train eval infer export",
        "Folder of the run: checkpoints, flags, log.")
    device: str = _flag("auto", "other", "train eval infer",
        "auto takes the GPU if there is one.", choices=("auto", "cpu", "cuda"))
    num_gpu: int = _flag(1, "other", "train",
        "Processes, one a GPU; without a GPU it is ignored, which is said.", minimum=0)
    log_device_placement: bool = _flag(False, "other", "train",
        "Log every module of the first forward with its device and dtype.")
    run_once: bool = _flag(False, "other", "eval",
        "Evaluate the newest checkpoint and end; otherwise follow new ones.")
    top_k: int = _flag(20, "other", "eval infer",
        "Predictions of a video that count.", minimum=1)
    output_file: str = _flag("", "other", "infer",
        "Where the predictions go; GZIP if the name ends in .gz.", required="infer")
    output_dir: str = _flag("", "other", "convert export",
        "Folder that is written to; export: train_dir/exported unless given.", required="convert")
    output_format: str = _flag("", "other", "convert infer export",
        "convert: tfrecord, tfrecord.gz, npz, parquet. infer: csv, parquet (else by output_file). "
        "export: torch, onnx, all (default).")
    input_model_tgz: str = _flag("", "other", "infer",
        "Take the model from this archive, not from train_dir.")
    output_model_tgz: str = _flag("", "other", "infer",
        "Also write the model as an archive, for input_model_tgz.")
    segment_max_pred: int = _flag(100_000, "other", "infer",
        "Segments listed for a class.", planned=SEGMENTS)
    segment_label_ids_file: str = _flag("", "other", "infer",
        "Classes of the segment task.", planned=SEGMENTS)
    # fmt: on


ENTRIES: dict[str, Entry] = {f.name: f.metadata["entry"] for f in fields(Flags)}
TYPES: dict[str, Any] = {f.name: f.type for f in fields(Flags)}

# Flags of the old help or of older versions that do not exist: what to use instead.
GONE = {"reader_type": "use --frame_features for frame-level records; video-level is the default"}


def default(name: str, command: str) -> Any:
    """Give the default of a flag in one command.

    >>> default("batch_size", "train"), default("batch_size", "infer")
    (1024, 512)
    """
    return ENTRIES[name].defaults.get(command, getattr(Flags, name))


def of_command(command: str) -> list[str]:
    """List the names of the flags that a command reads, in the table's order."""
    return [name for name, entry in ENTRIES.items() if command in entry.commands]


def unknown_flag(name: str, command: str) -> str:
    """Say what is wrong with a flag that a command does not read, and what may have been meant.

    >>> unknown_flag("batchsize", "train")
    'train has no flag --batchsize; the nearest is --batch_size'
    """
    if name in GONE:
        return f"--{name} does not exist: {GONE[name]}"
    if name in ENTRIES:
        return f"--{name} is not read by {command}, but by {', '.join(ENTRIES[name].commands)}"
    known = of_command(command)
    bare = name.removeprefix("no")
    nearest = difflib.get_close_matches(name, known, 1, 0.0) or difflib.get_close_matches(bare, known, 1, 0.0)
    return f"{command} has no flag --{name}; the nearest is --{nearest[0]}"


def choose(flag: str, value: str, known: Mapping[str, Any]) -> Any:
    """Give ``known[value]``; where it is not there, list what is known, the nearest first.

    Raises
    ------
    FlagError : ``value`` is not a key of ``known``.
    """
    if value in known:
        return known[value]
    nearest = difflib.get_close_matches(value, known, 1, 0.0)
    hint = f"; the nearest is {nearest[0]}" if nearest else ""
    raise FlagError(f"--{flag}={value!r} is not known; known are {', '.join(known)}{hint}")


def check(flags: Flags, command: str) -> None:
    """Check what can be checked of single flags, for one command.

    Raises
    ------
    FlagError : a required flag is missing, a value is out of its range, or its part is not built yet.
    """
    for name in of_command(command):
        entry, value = ENTRIES[name], getattr(flags, name)
        if command in entry.required and value == "":
            raise FlagError(f"--{name} is required by {command}: {entry.help}")
        if entry.planned and value != default(name, command):
            raise FlagError(
                f"--{name}={value}: {entry.planned}; leave the flag at {default(name, command)!r}"
            )
        if entry.choices and value not in entry.choices:
            raise FlagError(f"--{name}={value!r}: allowed are {', '.join(entry.choices)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise FlagError(f"--{name}={value}: must be a finite number")
        if isinstance(value, int) and abs(value) >= 2**62:
            raise FlagError(f"--{name}={value}: must be less than 2^62")
        if entry.minimum is not None and value is not None and not value >= entry.minimum:
            raise FlagError(f"--{name}={value}: must be at least {entry.minimum:g}")


def compare(before: Mapping[str, Any], now: Flags) -> list[str]:
    """Compare the flags of an earlier run with those that are to go on with it.

    Returns
    -------
    One line for each flag that is taken with its new value.

    Raises
    ------
    FlagError : a flag that must stay the same has changed; all of them are named.
    """
    changed = {
        name: (before[name], getattr(now, name))
        for name in of_command("train")
        if name in before and before[name] != getattr(now, name)
    }
    wrong = [
        f"--{name} was {old!r}, now {new!r}"
        for name, (old, new) in changed.items()
        if ENTRIES[name].resume == SAME
    ]
    if wrong:
        raise FlagError(
            f"the run in {now.train_dir} can't go on with other flags: {'; '.join(wrong)}. "
            "Give the old values, another --train_dir, or --start_new_model to begin anew"
        )
    return [
        f"--{name} was {old!r}, now {new!r}: taken"
        for name, (old, new) in changed.items()
        if ENTRIES[name].resume == SAID
    ]
