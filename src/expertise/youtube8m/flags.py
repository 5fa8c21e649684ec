"""THE flag table: every flag once, under its own name, with its default, its help and who reads it.

The names and defaults of google/youtube-8m are kept. `Flags` is the table: a field a flag. The command
line, its help, the checks (flag_rules.py), the rules of resuming and the tests all read it. A new flag is one
field here, its one reader, and a line in the changelog.
"""

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from expertise.youtube8m._flag_entry import COMMANDS, FREE, ROLES, SAID, SAME, Entry, FlagError, flag

__all__ = [
    "COMMANDS",
    "ENTRIES",
    "FREE",
    "ROLES",
    "SAID",
    "SAME",
    "TYPES",
    "Entry",
    "FlagError",
    "Flags",
    "default",
    "of_command",
]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """All flags of `expertise youtube8m`. From Python: ``train(Flags(train_data_pattern="..."))``."""

    # fmt: off
    # dataset
    train_data_pattern: str = flag("", "dataset", "train",
        "Files to train on: a pattern like 'DIR/train*.tfrecord', several with commas.",
        required="train", resume=SAID)
    eval_data_pattern: str = flag("", "dataset", "train eval",
        "Files to evaluate on. In train: evaluates at every export, and the best checkpoint is kept.",
        required="eval", resume=SAID)
    input_data_pattern: str = flag("", "dataset", "pack convert infer",
        "Files to read.", required="pack convert infer")
    feature_names: str = flag("mean_rgb", "dataset", "train convert pack",
        "Features to use, with commas: 'mean_rgb,mean_audio'; of frames: 'rgb,audio'. pack: columns or "
        "arrays, all that hold lists of numbers unless given.",
        resume=SAME, defaults={"convert": "mean_rgb,mean_audio", "pack": ""})
    feature_sizes: str = flag("1024", "dataset", "train convert",
        "Length of each feature, in the same order: '1024,128'.",
        resume=SAME, defaults={"convert": "1024,128"})
    vocabulary: str = flag("", "dataset", "train pack",
        "A csv of the classes with columns Index and Name; gives their number and names. pack: is made from "
        "the labels unless given.", resume=SAME)
    num_classes: int = flag(3862, "dataset", "train convert",
        "Number of classes, where no vocabulary is given.", resume=SAME, minimum=1)
    frame_features: bool = flag(False, "dataset", "train",
        "Read frame-level records, for a frame-level model.", resume=SAME)
    segment_labels: bool = flag(False, "dataset", "train eval infer",
        "The 5-frame segments of frame-level records, of which only rated labels count.", resume=SAME)
    max_frames: int = flag(300, "dataset", "train",
        "Frames read of a video, from its start.", resume=SAME, minimum=1)
    num_readers: int = flag(8, "dataset", "train eval infer",
        "Processes that convert or read files; changes the speed, never the set of examples.",
        minimum=1, defaults={"infer": 1})
    cache_dir: str = flag("auto", "dataset", "train eval infer",
        "Folder for the converted records; 'auto' is the user's cache folder, 'none' streams instead.")
    skip_corrupt_records: bool = flag(False, "dataset", "train eval infer convert",
        "Skip, count and report corrupt records. Without it the first one is an error.", resume=SAME)

    # model
    model: str = flag("LogisticModel", "model", "train",
        "The model, by name.", resume=SAME)
    moe_num_mixtures: int = flag(2, "model", "train",
        "Mixtures: experts of a class, beside the dummy that says 0.", resume=SAME, minimum=1)
    moe_rank: int = flag(512, "model", "train",
        "Video-level mixtures: they look at so many values, which one learned projection makes of the "
        "features; 0, or more than there are features: at the features themselves.", resume=SAME, minimum=0)
    moe_l2: float = flag(1e-08, "model", "train",
        "Mixtures: L2 penalty of gate and expert weights.", resume=SAME, minimum=0)
    video_level_classifier_model: str = flag("MoeModel", "model", "train",
        "Frame-level models: the video-level model on top, by name.", resume=SAME)
    dropout: float = flag(0.0, "model", "train",
        "Share of what the video-level model looks at that is set to 0 in training.",
        resume=SAME, minimum=0, maximum=0.95)
    context_gating_rank: int = flag(128, "model", "train",
        "ContextGatedMoeModel: rank of the gates' weights; 0: full weights.", resume=SAME, minimum=0)
    chain_stages: int = flag(2, "model", "train",
        "ChainMoeModel: mixtures, each of which sees the predictions of those before.",
        resume=SAME, minimum=2)
    chain_size: int = flag(256, "model", "train",
        "ChainMoeModel: values that a stage's predictions are projected to.", resume=SAME, minimum=1)
    chain_loss: float = flag(0.2, "model", "train",
        "ChainMoeModel: weight of the label loss of the stages before the last.", resume=SAME, minimum=0)
    input_dropout: float = flag(0.0, "model", "train",
        "SharedExpertMoeModel: share of what the shared network sees that is set to 0 in training.",
        resume=SAME, minimum=0, maximum=0.95)
    shared_expert_size: int = flag(1024, "model", "train",
        "SharedExpertMoeModel: hidden units of the network that all classes share.",
        resume=SAME, minimum=1)
    shared_expert_layers: int = flag(1, "model", "train",
        "SharedExpertMoeModel: layers of that network.", resume=SAME, minimum=1)
    memory_videos: int = flag(0, "model", "train",
        "SharedExpertMoeModel: training videos that are remembered, at most; the nearest of them are one "
        "more expert in evaluation. 0: none.", resume=SAME, minimum=0)
    memory_neighbours: int = flag(60, "model", "train",
        "SharedExpertMoeModel: remembered videos that are asked.", resume=SAME, minimum=1)
    memory_weight: float = flag(0.3, "model", "train",
        "SharedExpertMoeModel: weight of the memory.", resume=SAME, minimum=0, maximum=1)
    memory_temperature: float = flag(0.04, "model", "train",
        "SharedExpertMoeModel: small: the nearest one decides; large: all that are asked count alike.",
        resume=SAME, minimum=0.0001)
    iterations: int = flag(30, "model", "train",
        "DbofModel: frames sampled of a video; 0 takes all.", resume=SAME, minimum=0)
    sample_random_frames: bool = flag(True, "model", "train",
        "DbofModel: sample single frames, not a run of them.", resume=SAME)
    dbof_add_batch_norm: bool = flag(True, "model", "train",
        "DbofModel: batch normalisation; without it, biases.", resume=SAME)
    dbof_cluster_size: int = flag(8192, "model", "train",
        "DbofModel: clusters.", resume=SAME, minimum=1)
    dbof_hidden_size: int = flag(1024, "model", "train",
        "DbofModel: hidden units.", resume=SAME, minimum=1)
    dbof_pooling_method: str = flag("max", "model", "train",
        "DbofModel: how frames become a video.", resume=SAME, choices=("max", "average"))
    dbof_activation: str = flag("sigmoid", "model", "train",
        "DbofModel: activation of clusters and hidden units.",
        resume=SAME, choices=("sigmoid", "relu", "relu6", "tanh"))
    dbof_random_evaluation: bool = flag(False, "model", "train",
        "DbofModel: also sample at random in evaluation, as the reference does; otherwise evenly.",
        resume=SAME)
    lstm_cells: int = flag(1024, "model", "train",
        "LstmModel: cells of a layer.", resume=SAME, minimum=1)
    lstm_layers: int = flag(2, "model", "train",
        "LstmModel: layers.", resume=SAME, minimum=1)
    gru_cells: int = flag(1024, "model", "train",
        "GruModel: cells of a layer.", resume=SAME, minimum=1)
    gru_layers: int = flag(2, "model", "train",
        "GruModel: layers.", resume=SAME, minimum=1)
    netvlad_cluster_size: int = flag(256, "model", "train",
        "NetVladModel: clusters.", resume=SAME, minimum=1)
    netvlad_hidden_size: int = flag(1024, "model", "train",
        "NetVladModel: values of a video, which the classifier sees.", resume=SAME, minimum=1)
    nextvlad_cluster_size: int = flag(128, "model", "train",
        "NeXtVladModel: clusters.", resume=SAME, minimum=1)
    nextvlad_groups: int = flag(8, "model", "train",
        "NeXtVladModel: groups that a frame is divided into; must divide the widened size.",
        resume=SAME, minimum=1)
    nextvlad_expansion: int = flag(2, "model", "train",
        "NeXtVladModel: how much wider a frame becomes before it is divided.", resume=SAME, minimum=1)
    nextvlad_hidden_size: int = flag(1024, "model", "train",
        "NeXtVladModel: values of a video, which the classifier sees.", resume=SAME, minimum=1)
    nextvlad_reduction: int = flag(8, "model", "train",
        "NeXtVladModel: how much narrower the context gate is inside.", resume=SAME, minimum=1)
    attention_heads: int = flag(8, "model", "train",
        "AttentionModel: weighted means of the frames that the classifier sees.", resume=SAME, minimum=1)
    attention_size: int = flag(256, "model", "train",
        "AttentionModel: hidden units of the network that weighs a frame.", resume=SAME, minimum=1)
    frame_moe_experts: int = flag(8, "model", "train",
        "FrameMoeModel: experts that frames are routed to.", resume=SAME, minimum=1)
    frame_moe_k: int = flag(2, "model", "train",
        "FrameMoeModel: experts of a frame.", resume=SAME, minimum=1)
    frame_moe_hidden: int = flag(512, "model", "train",
        "FrameMoeModel: hidden units of an expert.", resume=SAME, minimum=1)
    frame_moe_balance: float = flag(0.01, "model", "train",
        "FrameMoeModel: weight of the load-balance loss.", resume=SAME, minimum=0)

    # training
    start_new_model: bool = flag(False, "training", "train",
        "Delete the run in train_dir and start anew; otherwise it is resumed.")
    batch_size: int = flag(1024, "training", "train eval infer",
        "Videos of a batch.", resume=SAME, minimum=1, defaults={"infer": 512})
    num_epochs: int = flag(5, "training", "train",
        "Every video is seen so often.", resume=SAID, minimum=1)
    max_steps: int | None = flag(None, "training", "train",
        "Stop after so many steps, if the epochs don't end before.", resume=SAID, minimum=1)
    recipe: str = flag("stable", "training", "train",
        "stable: starts at the classes' rates and from a projection that tells them apart, scales the "
        "inputs, warms up and anneals the learning rate. reference: none of this, and full weights.",
        resume=SAME, choices=("stable", "reference"))
    label_loss: str = flag("CrossEntropyLoss", "training", "train",
        "The loss, by name.", resume=SAME)
    optimizer: str = flag("AdamOptimizer", "training", "train",
        "The optimizer, by its TensorFlow or torch name.", resume=SAME)
    base_learning_rate: float = flag(0.01, "training", "train",
        "Learning rate at the start.", resume=SAID, minimum=0)
    learning_rate_decay: float = flag(0.95, "training", "train",
        "Factor on the learning rate after every learning_rate_decay_examples.", resume=SAID, minimum=0)
    learning_rate_decay_examples: float = flag(4_000_000, "training", "train",
        "Examples between two decays.", resume=SAID, minimum=1)
    regularization_penalty: float = flag(1.0, "training", "train",
        "Factor on the model's L2 penalty.", resume=SAME, minimum=0)
    clip_gradient_norm: float = flag(1.0, "training", "train",
        "Largest norm of each variable's gradient; 0 or less does not clip.", resume=SAME)
    ema_decay: float = flag(0.0, "training", "train",
        "Evaluate and export an exponential moving average of the weights: the share of it that stays at a "
        "step, such as 0.999; 0: the weights themselves.", resume=SAME, minimum=0, maximum=0.999999)
    mixup: float = flag(0.0, "training", "train",
        "Video-level models: train on mixtures of two videos, by shares from Beta(a, a); a is this number, "
        "0: no mixing.",
        resume=SAME, minimum=0)
    teacher: str = flag("", "training", "train",
        "Distillation: train_dirs of trained models, with commas, whose mean answer is also learned.",
        resume=SAME)
    teacher_weight: float = flag(0.5, "training", "train",
        "Share of the teachers in what is learned; the labels have the rest.",
        resume=SAME, minimum=0, maximum=1)
    precision: str = flag("fp32", "training", "train eval infer",
        "Matrix products in fp32 or bf16; gate, loss and optimizer stay in fp32.",
        resume=SAME, choices=("fp32", "bf16"))
    compile: str = flag("auto", "training", "train",
        "Compile the element-wise part of the step; auto: in long runs, where a C++ compiler is found.",
        resume=SAME, choices=("auto", "on", "off"))
    seed: int = flag(0, "training", "train sample",
        "Decides everything that is drawn at random.", resume=SAME, minimum=0)
    export_model_steps: int = flag(1000, "training", "train",
        "Steps between two checkpoints, each with an export.", minimum=1)

    # other
    train_dir: str = flag("/tmp/yt8m_model/", "other", "train eval infer export",
        "Folder of the run: checkpoints, flags, log. eval, infer: several with commas are averaged.")
    device: str = flag("auto", "other", "train eval infer",
        "auto takes the GPU if there is one.", choices=("auto", "cpu", "cuda"))
    num_gpu: int = flag(1, "other", "train",
        "Processes, one a GPU; without a GPU it is ignored, which is said.", minimum=0)
    log_device_placement: bool = flag(False, "other", "train",
        "Log every module of the first forward with its device and dtype.")
    run_once: bool = flag(False, "other", "eval",
        "Evaluate the newest checkpoint and end; otherwise follow new ones.")
    top_k: int = flag(20, "other", "eval infer",
        "Predictions of a video that count.", minimum=1)
    output_file: str = flag("", "other", "infer",
        "Where the predictions go; GZIP if the name ends in .gz.", required="infer")
    output_dir: str = flag("", "other", "pack convert export",
        "Folder that is written to; export: train_dir/exported unless given.", required="pack convert")
    videos_per_shard: int = flag(1000, "other", "pack",
        "Videos of a file.", minimum=1)
    output_format: str = flag("", "other", "convert infer export",
        "convert: tfrecord, tfrecord.gz, npz, parquet. infer: csv, parquet (else by output_file). "
        "export: torch, onnx, all (default).")
    input_model_tgz: str = flag("", "other", "infer",
        "Take the model from this archive, not from train_dir.")
    output_model_tgz: str = flag("", "other", "infer",
        "Also write the model as an archive, for input_model_tgz.")
    segment_max_pred: int = flag(100_000, "other", "infer",
        "Segments listed for a class, at most.", minimum=1)
    segment_label_ids_file: str = flag("", "other", "infer",
        "A csv with a column Index: the classes whose segments are listed; all unless given.")
    # fmt: on

    def __post_init__(self) -> None:
        """Put the user's home folder in the place of ~, which shells leave alone behind "--train_dir="."""
        for name in ("train_dir", "vocabulary", "teacher"):
            value = os.fspath(getattr(self, name))
            value = re.sub("(^|,) *~(?=[/,]|$)", lambda found: f"{found[1]}{Path.home()}", value)
            object.__setattr__(self, name, value)


ENTRIES: dict[str, Entry] = {f.name: f.metadata["entry"] for f in fields(Flags)}
TYPES: dict[str, Any] = {f.name: f.type for f in fields(Flags)}


def default(name: str, command: str) -> Any:
    """Give the default of a flag in one command.

    >>> default("batch_size", "train"), default("batch_size", "infer")
    (1024, 512)
    """
    return ENTRIES[name].defaults.get(command, getattr(Flags, name))


def of_command(command: str) -> list[str]:
    """List the names of the flags that a command reads, in the table's order."""
    return [name for name, entry in ENTRIES.items() if command in entry.commands]
