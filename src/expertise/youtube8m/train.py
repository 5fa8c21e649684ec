"""Training, read from top to bottom."""

import hashlib
import math
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expertise._progress import progress
from expertise.youtube8m import checkpoint, recipe
from expertise.youtube8m._interrupt import interruptible
from expertise.youtube8m.evaluate import evaluate_source, write_evaluation
from expertise.youtube8m.flags import FlagError, Flags, check, choose, compare
from expertise.youtube8m.loading import Classifier, VideoModel, choose_device
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.metrics import VideoMetrics
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import MODELS, AbstractVideoModel
from expertise.youtube8m.optimizers import OPTIMIZERS, staircase
from expertise.youtube8m.readers import VideoSource, open_videos
from expertise.youtube8m.run_log import LOG_STEPS, RunLog, log_forward
from expertise.youtube8m.step import compiler_found, fuse, train_step
from expertise.youtube8m.videos import FeatureSpec, match_files
from expertise.youtube8m.vocabulary import read_vocabulary

COMPILED_ANSWERS = 2e9  # a run of so many answers (videos x classes) is worth the seconds of compiling


@dataclass(frozen=True)
class TrainResult:
    """What became of a run."""

    train_dir: Path
    step: int
    finished: bool
    """False where it was interrupted; the same call goes on from there."""


def train(flags: Flags) -> TrainResult:
    """Train a model on labelled videos, or go on with the run in ``flags.train_dir``.

    Raises
    ------
    FlagError : a flag is wrong, or differs from the run that is to go on.
    RecordError : a record is corrupt.
    CheckpointError : the newest checkpoint can't be read.
    """
    check(flags, "train")
    device = choose_device(flags.device)
    _check_processes(flags)
    model_class = choose("model", flags.model, MODELS)
    optimizer_of = choose("optimizer", flags.optimizer, OPTIMIZERS)
    label_loss = choose("label_loss", flags.label_loss, LOSSES)
    train_dir = Path(flags.train_dir)
    fingerprint = _fingerprint(flags.train_data_pattern)
    earlier = None if flags.start_new_model else _earlier_run(flags, fingerprint)
    source, evaluation_source, model_flags = _open_data(flags)
    model = model_class.from_flags(model_flags).to(device)
    optimizer = optimizer_of(model.parameters())
    if earlier is None:
        state = _first_state(flags, fingerprint, source, model_flags.num_classes)
        recipe.begin(flags, model, optimizer, source)
        checkpoint.clear(train_dir)  # only now: nothing above has found fault with the new run
        train_dir.mkdir(parents=True, exist_ok=True)
        model_flags.write(train_dir / "model_flags.json")
    else:
        folder, state = earlier
        _check_classes(flags, model_flags, ModelFlags.read(train_dir / "model_flags.json"))
        recipe.begin(flags, model, optimizer, None)
        checkpoint.restore(folder, model, optimizer)
        checkpoint.sweep(train_dir)
    classifier = Classifier(model)
    fused = fuse(model, label_loss) if state["compiled"] else None

    step, examples = int(state["step"]), int(state["examples"])
    total, total_examples = _length(flags, source.num_videos, step, examples)
    if step >= total:
        checkpoint.write_json(train_dir / "finished.json", {"step": step})
        print(f"training had ended at step {step}; give more epochs, or --start_new_model", file=sys.stderr)
        return TrainResult(train_dir, step, finished=True)
    (train_dir / "finished.json").unlink(missing_ok=True)
    if step:
        print(f"going on from step {step} in {train_dir}", file=sys.stderr)
    batches = source.batches(
        flags.batch_size,
        num_epochs=flags.num_epochs,
        shuffle=state["shuffle"],
        seed=flags.seed,
        start=examples,
    )

    with (
        RunLog(train_dir, step, state["log_bytes"]) as log,
        progress(f"train {flags.model}", total, "steps", done=step) as meter,
        interruptible() as interrupted,
    ):
        last = False
        while not last:
            batch = next(batches)
            features, labels = batch.features.to(device), batch.labels.to(device)
            if flags.log_device_placement and step == int(state["step"]):
                log_forward(classifier, features, flags.precision, meter)
            rate = learning_rate(flags, examples, total_examples)
            whole = fused if len(batch.ids) == flags.batch_size else None  # another shape compiles anew
            loss, predictions = train_step(
                flags, classifier, optimizer, label_loss, features, labels, rate, whole
            )
            step, examples = step + 1, examples + len(batch.ids)
            meter.advance(1)
            last = step == total or interrupted.is_set()
            saves = last or step % flags.export_model_steps == 0

            if saves or step % LOG_STEPS == 0:
                record = {"step": step, "examples": examples, "epoch": examples / source.num_videos}
                record |= {"learning_rate": rate, **_recent(flags, model, loss, predictions, labels)}
                log.train(record, meter)

            if saves:
                if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
                    raise FloatingPointError(_not_finite(flags, f"a weight is not finite at step {step}"))
                if evaluation_source is not None:
                    video_model = VideoModel(classifier, model_flags, step, device, flags.precision)
                    evaluation = _evaluate(flags, video_model, evaluation_source, interrupted)
                    if evaluation is not None:
                        log.evaluation({"step": step, "data": flags.eval_data_pattern, **evaluation}, meter)
                    last = last or interrupted.is_set()
                state |= {"step": step, "examples": examples, "log_bytes": log.size()}
                checkpoint.save(train_dir, step, model, optimizer, state, model_flags)
                checkpoint.prune(train_dir)

    if step < total:
        print(f"interrupted; step {step} is saved in {train_dir}, the same command goes on", file=sys.stderr)
        return TrainResult(train_dir, step, finished=False)
    checkpoint.write_json(train_dir / "finished.json", {"step": step})
    print(f"trained to step {step}; the model is in {train_dir}", file=sys.stderr)
    return TrainResult(train_dir, step, finished=True)


def learning_rate(flags: Flags, examples: int, total_examples: int) -> float:
    """Give the learning rate after so many examples: the flags' staircase, times the recipe's factor."""
    stair = staircase(
        flags.base_learning_rate, flags.learning_rate_decay, flags.learning_rate_decay_examples, examples
    )
    return stair * recipe.rate_factor(flags, examples, total_examples)


def _length(flags: Flags, num_videos: int, step: int, examples: int) -> tuple[int, int]:
    """Give the last step of the run, and the examples seen by then."""
    left = max(0, num_videos * flags.num_epochs - examples)
    steps_left = math.ceil(left / flags.batch_size)
    if flags.max_steps is not None and step + steps_left > flags.max_steps:
        steps_left = max(0, flags.max_steps - step)
        left = steps_left * flags.batch_size
    return step + steps_left, examples + left


def _check_processes(flags: Flags) -> None:
    gpus = torch.cuda.device_count()
    if flags.num_gpu > 1 and gpus == 0:
        print(f"--num_gpu={flags.num_gpu} is ignored: torch finds no GPU here", file=sys.stderr)
    elif flags.num_gpu > 1:
        raise FlagError(f"--num_gpu={flags.num_gpu}: training in several processes is not built yet; take 1")


def _open_data(flags: Flags) -> tuple[VideoSource, VideoSource | None, ModelFlags]:
    """Open the records to train on and to evaluate on, and say what the model is for."""
    class_names = read_vocabulary(flags.vocabulary) if flags.vocabulary else ()
    spec = FeatureSpec.parse(flags.feature_names, flags.feature_sizes)
    rank, input_scale = recipe.shape(flags, spec.total)
    model_flags = ModelFlags(
        model=flags.model,
        feature_names=spec.names,
        feature_sizes=spec.sizes,
        num_classes=len(class_names) or flags.num_classes,
        class_names=class_names,
        label_loss=flags.label_loss,
        moe_num_mixtures=flags.moe_num_mixtures,
        moe_l2=flags.moe_l2,
        moe_rank=rank,
        input_scale=input_scale,
    )

    def source(flag: str) -> VideoSource:
        return open_videos(
            getattr(flags, flag),
            spec,
            model_flags.num_classes,
            cache_dir=flags.cache_dir,
            num_readers=flags.num_readers,
            skip_corrupt=flags.skip_corrupt_records,
            flag=flag,
        )

    training = source("train_data_pattern")
    evaluation = source("eval_data_pattern") if flags.eval_data_pattern else None
    for flag, opened in (("train_data_pattern", training), ("eval_data_pattern", evaluation)):
        if opened is not None and not opened.label_counts.any():
            raise FlagError(
                f"--{flag}={getattr(flags, flag)}: none of the {opened.num_videos:,} videos has a label; "
                "the test partition has none, take train or validate"
            )
    return training, evaluation, model_flags


def _earlier_run(flags: Flags, fingerprint: str) -> tuple[Path, dict[str, Any]] | None:
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
    if state["data"] == fingerprint:  # the same files at another place are the same data
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
        print(line, file=sys.stderr)
    return folder, state | {"flags": asdict(flags)}


def _check_classes(flags: Flags, now: ModelFlags, before: ModelFlags) -> None:
    if (now.num_classes, now.class_names) != (before.num_classes, before.class_names):
        flag = "vocabulary" if flags.vocabulary else "num_classes"
        raise FlagError(
            f"--{flag}={getattr(flags, flag)}: {now.num_classes} classes; the run in {flags.train_dir} has "
            f"{before.num_classes}, or other names. Give those, or begin anew with --start_new_model"
        )


def _evaluate(
    flags: Flags, model: VideoModel, source: VideoSource, interrupted: threading.Event
) -> dict[str, Any] | None:
    """Evaluate and write it down; None where an interruption came first, which must not wait for the end."""

    def advance(videos: int) -> None:
        if interrupted.is_set():
            raise InterruptedError

    try:
        evaluation = evaluate_source(model, source, flags.batch_size, advance=advance)
    except InterruptedError:
        return None
    write_evaluation(flags.train_dir, evaluation, flags.eval_data_pattern)
    return evaluation.metrics


def _first_state(flags: Flags, fingerprint: str, source: VideoSource, num_classes: int) -> dict[str, Any]:
    """Give the state of a run that has not made a step."""
    return {
        "step": 0,
        "examples": 0,
        "flags": asdict(flags),
        "data": fingerprint,
        "shuffle": source.default_shuffle(),
        "log_bytes": 0,
        "streams": flags.cache_dir == "none",
        "compiled": _compiles(flags, source.num_videos, num_classes),
    }


def _compiles(flags: Flags, num_videos: int, num_classes: int) -> bool:
    """Decide whether the run compiles its step. It is kept with the run: the last bits depend on it."""
    found = compiler_found(choose_device(flags.device))
    if flags.compile == "on" and not found:
        raise FlagError("--compile=on: there is no C++ compiler (g++, or the one that CXX names); take auto")
    examples = num_videos * flags.num_epochs
    examples = examples if flags.max_steps is None else min(examples, flags.max_steps * flags.batch_size)
    long = examples * num_classes >= COMPILED_ANSWERS
    return flags.compile == "on" or (flags.compile == "auto" and found and long)


def _fingerprint(pattern: str) -> str:
    files = [f"{file.name} {file.stat().st_size}" for file in match_files(pattern, "train_data_pattern")]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def _recent(
    flags: Flags, model: AbstractVideoModel, loss: Tensor, predictions: Tensor, labels: Tensor
) -> dict[str, float]:
    """Give the figures of the batch just trained on."""
    if not math.isfinite(loss.item()):
        raise FloatingPointError(_not_finite(flags, f"the loss is {loss.item()}"))
    result = {"hit_at_1": 0.0, "gap": 0.0}  # of a batch without a label
    if labels.any():
        metrics = VideoMetrics(predictions.shape[1])
        metrics.update(predictions, labels)
        result = metrics.compute()
    squares = sum(l2 / 2 * weight.detach().square().sum().item() for weight, l2 in model.penalized())
    return {
        "loss": loss.item(),
        "regularization": flags.regularization_penalty * squares,
        "hit_at_1": result["hit_at_1"],
        "gap": result["gap"],
    }


def _not_finite(flags: Flags, what: str) -> str:
    return (
        f"{what}; the last checkpoint stands. A smaller --base_learning_rate (now "
        f"{flags.base_learning_rate:g}), --moe_l2 or --regularization_penalty, or --clip_gradient_norm=1, "
        "keeps it finite"
    )
