"""Training, read from top to bottom."""

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expertise._progress import progress
from expertise.youtube8m import checkpoint
from expertise.youtube8m._interrupt import interruptible
from expertise.youtube8m.evaluate import evaluate_source, write_evaluation
from expertise.youtube8m.flags import FlagError, Flags, check, choose, compare
from expertise.youtube8m.loading import Classifier, VideoModel, choose_device
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.metrics import VideoMetrics
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import MODELS, AbstractVideoModel
from expertise.youtube8m.optimizers import OPTIMIZERS, clip_each, staircase
from expertise.youtube8m.readers import VideoSource, open_videos
from expertise.youtube8m.run_log import LOG_STEPS, RunLog, log_first_forward
from expertise.youtube8m.videos import FeatureSpec, match_files
from expertise.youtube8m.vocabulary import read_vocabulary


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
    train_dir = Path(flags.train_dir)
    if flags.start_new_model:
        checkpoint.clear(train_dir)

    source, evaluation_source, model_flags = _open_data(flags)
    model = choose("model", flags.model, MODELS).from_flags(model_flags).to(device)
    optimizer = choose("optimizer", flags.optimizer, OPTIMIZERS)(model.parameters())
    label_loss = choose("label_loss", flags.label_loss, LOSSES)
    state = _begin_or_resume(flags, source, model, optimizer)
    model_flags.write(train_dir / "model_flags.json")
    classifier = Classifier(model)

    step = int(state["step"])
    total = math.ceil(source.num_videos * flags.num_epochs / flags.batch_size)
    total = total if flags.max_steps is None else min(total, flags.max_steps)
    if step >= total:
        print(f"training had ended at step {step}; give more epochs, or --start_new_model", file=sys.stderr)
        return TrainResult(train_dir, step, finished=True)
    batches = source.batches(
        flags.batch_size,
        num_epochs=flags.num_epochs,
        shuffle=state["shuffle"],
        seed=flags.seed,
        start=step * flags.batch_size,
    )

    with (
        RunLog(train_dir, step, state["log_bytes"]) as log,
        progress(f"train {flags.model}", total, "steps", done=step) as meter,
        interruptible() as interrupted,
    ):
        if flags.log_device_placement:
            log_first_forward(classifier, meter)
        while step < total and not interrupted.is_set():
            batch = next(batches)
            features, labels = batch.features.to(device), batch.labels.to(device)
            rate = learning_rate(flags, step * flags.batch_size)
            loss, predictions = train_step(flags, classifier, optimizer, label_loss, features, labels, rate)
            step += 1
            meter.advance(1)
            last = step == total or interrupted.is_set()

            if step % LOG_STEPS == 0 or last:
                examples = (step - 1) * flags.batch_size + len(batch.ids)
                record = {"step": step, "examples": examples, "epoch": examples / source.num_videos}
                record |= {"learning_rate": rate, **_recent(flags, model, loss, predictions, labels)}
                log.train(record, meter)

            if step % flags.export_model_steps == 0 or last:
                if evaluation_source is not None and not interrupted.is_set():
                    video_model = VideoModel(classifier, model_flags, step, device, flags.precision)
                    evaluation = evaluate_source(video_model, evaluation_source, flags.batch_size)
                    write_evaluation(train_dir, evaluation)
                    log.evaluation({"step": step, **evaluation.metrics}, meter)
                state |= {"step": step, "log_bytes": log.size()}
                checkpoint.save(train_dir, step, model, optimizer, state, model_flags)
                checkpoint.prune(train_dir)

    if step < total:
        print(f"interrupted; step {step} is saved in {train_dir}, the same command goes on", file=sys.stderr)
        return TrainResult(train_dir, step, finished=False)
    checkpoint.write_json(train_dir / "finished.json", {"step": step})
    print(f"trained to step {step}; the model is in {train_dir}", file=sys.stderr)
    return TrainResult(train_dir, step, finished=True)


def learning_rate(flags: Flags, examples: int) -> float:
    """Give the learning rate after so many examples."""
    return staircase(
        flags.base_learning_rate, flags.learning_rate_decay, flags.learning_rate_decay_examples, examples
    )


def train_step(
    flags: Flags,
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    label_loss: Callable[[Tensor, Tensor], Tensor],
    features_BD: Tensor,
    labels_BC: Tensor,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """Do one step: predict, differentiate, penalise, clip variable by variable, update.

    Returns
    -------
    The label loss before the step, and the predictions (B, C).
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(features_BD.device.type, torch.bfloat16, enabled=flags.precision == "bf16"):
        predictions_BC = classifier(features_BD)
    loss = label_loss(predictions_BC, labels_BC)
    loss.backward()
    for weight, l2 in classifier.model.penalized():
        # the gradient of penalty * l2 / 2 * sum w^2, by hand: autograd would make copies of w for it
        if weight.grad is not None and flags.regularization_penalty * l2 > 0:
            weight.grad.add_(weight.detach(), alpha=flags.regularization_penalty * l2)
    clip_each(classifier.parameters(), flags.clip_gradient_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.detach(), predictions_BC.detach()


def _check_processes(flags: Flags) -> None:
    gpus = torch.cuda.device_count()
    if flags.num_gpu > 1 and gpus == 0:
        print(f"--num_gpu={flags.num_gpu} is ignored: torch finds no GPU here", file=sys.stderr)
    elif flags.num_gpu > 1:
        raise FlagError(f"--num_gpu={flags.num_gpu}: training in several processes is not built yet; take 1")


def _open_data(flags: Flags) -> tuple[VideoSource, VideoSource | None, ModelFlags]:
    """Open the records to train on and to evaluate on, and say what the model is for."""
    for flag, known in (("model", MODELS), ("optimizer", OPTIMIZERS), ("label_loss", LOSSES)):
        choose(flag, getattr(flags, flag), known)  # a misspelt name should not wait for the records
    class_names = read_vocabulary(flags.vocabulary) if flags.vocabulary else ()
    spec = FeatureSpec.parse(flags.feature_names, flags.feature_sizes)
    model_flags = ModelFlags(
        model=flags.model,
        feature_names=spec.names,
        feature_sizes=spec.sizes,
        num_classes=len(class_names) or flags.num_classes,
        class_names=class_names,
        label_loss=flags.label_loss,
        moe_num_mixtures=flags.moe_num_mixtures,
        moe_l2=flags.moe_l2,
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

    return (
        source("train_data_pattern"),
        source("eval_data_pattern") if flags.eval_data_pattern else None,
        model_flags,
    )


def _begin_or_resume(
    flags: Flags, source: VideoSource, model: AbstractVideoModel, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Start a run, or put the newest checkpoint in place. Gives the run's state."""
    train_dir = Path(flags.train_dir)
    fingerprint = _fingerprint(flags.train_data_pattern)
    steps = checkpoint.steps_of(train_dir)
    if not steps:
        train_dir.mkdir(parents=True, exist_ok=True)
        model.reset(torch.Generator(device=next(model.parameters()).device).manual_seed(flags.seed))
        return {
            "step": 0,
            "flags": asdict(flags),
            "data": fingerprint,
            "shuffle": source.default_shuffle(),
            "log_bytes": 0,
        }
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
    for line in compare(before, flags):
        print(line, file=sys.stderr)
    checkpoint.restore(folder, model, optimizer)
    (train_dir / "finished.json").unlink(missing_ok=True)
    print(f"going on from step {state['step']} in {train_dir}", file=sys.stderr)
    return state | {"flags": asdict(flags)}


def _fingerprint(pattern: str) -> str:
    files = [f"{file.name} {file.stat().st_size}" for file in match_files(pattern, "train_data_pattern")]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def _recent(
    flags: Flags, model: AbstractVideoModel, loss: Tensor, predictions: Tensor, labels: Tensor
) -> dict[str, float]:
    """Give the figures of the batch just trained on."""
    if not math.isfinite(loss.item()):
        raise FloatingPointError(
            f"the loss is {loss.item()}; the last checkpoint stands. A smaller --base_learning_rate "
            f"(now {flags.base_learning_rate:g}) or --clip_gradient_norm=1 keeps it finite"
        )
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
