"""Training, read from top to bottom."""

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expertise._progress import progress
from expertise.youtube8m import checkpoint, recipe
from expertise.youtube8m._interrupt import interruptible
from expertise.youtube8m.averaged import AveragedModel
from expertise.youtube8m.evaluate import evaluate_source, write_evaluation
from expertise.youtube8m.flag_rules import choose
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.launch import gpus_to_use, joined, run_processes
from expertise.youtube8m.lessons import Lessons
from expertise.youtube8m.loading import Classifier, VideoModel
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.metrics import VideoMetrics
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import MODELS, AbstractModel, build_model
from expertise.youtube8m.optimizers import OPTIMIZERS, staircase
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.readers import VideoSource
from expertise.youtube8m.run_log import LOG_STEPS, RunLog, log_forward
from expertise.youtube8m.run_state import check_classes, earlier_run, fingerprint, first_state, open_data
from expertise.youtube8m.step import Lesson, TrainingNetwork, fuse, train_step


@dataclass(frozen=True)
class TrainResult:
    """What became of a run."""

    train_dir: Path
    step: int
    finished: bool
    """False where it was interrupted; the same call goes on from there."""


def train(flags: Flags) -> TrainResult:
    """Train a model on labelled videos, or go on with the run in ``flags.train_dir``.

    Where torchrun has started this process, it is one of several that train together. With ``flags.num_gpu``
    and so many GPUs, a process for each of them is started and waited for.

    Raises
    ------
    FlagError : a flag is wrong, or differs from the run that is to go on.
    RecordError : a record is corrupt.
    CheckpointError : the newest checkpoint can't be read.
    ProcessError : another process of the run has ended.
    """
    count = gpus_to_use(flags)
    if count > 1:
        run_processes(flags, count)
        train_dir = Path(flags.train_dir)
        step = max(checkpoint.steps_of(train_dir), default=0)
        return TrainResult(train_dir, step, finished=(train_dir / "finished.json").is_file())
    with joined(flags) as processes:
        gpus = [processes.device] if processes.device.type == "cuda" else []
        with torch.random.fork_rng(gpus):
            return _train(flags, processes)


def _train(flags: Flags, processes: Processes) -> TrainResult:
    choose("model", flags.model, MODELS)
    optimizer_of = choose("optimizer", flags.optimizer, OPTIMIZERS)
    label_loss = choose("label_loss", flags.label_loss, LOSSES)
    train_dir, device = Path(flags.train_dir), processes.device
    files = fingerprint(flags.train_data_pattern)
    earlier = None if flags.start_new_model else earlier_run(flags, files, processes)
    found = str(earlier[0].name) if earlier else "not there"
    alike = {"the hash of the files to train on": files, "the checkpoint to go on from": found}
    if flags.eval_data_pattern:  # with other files, some would evaluate one batch more and wait for ever
        alike["the hash of the files to evaluate on"] = fingerprint(
            flags.eval_data_pattern, "eval_data_pattern"
        )
    processes.agree(alike)
    source, evaluation_source, model_flags = open_data(flags, processes)
    model = build_model(model_flags).to(device)
    lessons = Lessons(flags, model_flags, processes)
    optimizer = optimizer_of(model.parameters())
    if earlier is None:
        state = first_state(flags, files, source, model_flags.num_classes, processes)
        recipe.begin(flags, model, optimizer, source)
        processes.wait()  # nothing above has found fault with the new run, in any process
        if processes.first:
            checkpoint.clear(train_dir)
            train_dir.mkdir(parents=True, exist_ok=True)
            model_flags.write(train_dir / "model_flags.json")
        network = processes.wrap(TrainingNetwork(model))  # all start with the first one's weights
        averaged = AveragedModel(model, flags.ema_decay) if flags.ema_decay else None
    else:
        folder, state = earlier
        check_classes(flags, model_flags, ModelFlags.read(train_dir / "model_flags.json"))
        recipe.begin(flags, model, optimizer, None)
        averaged = AveragedModel(model, flags.ema_decay) if flags.ema_decay else None
        checkpoint.restore(folder, model, optimizer, averaged)
        if processes.first:
            checkpoint.sweep(train_dir)
        network = processes.wrap(TrainingNetwork(model))
        _say_whole_batch(flags, int(state.get("processes", 1)), processes)
    shown = averaged.model if averaged else model  # what is evaluated and exported
    fused = fuse(model, label_loss) if state["compiled"] else None

    step, examples = int(state["step"]), int(state["examples"])
    first_step = step  # of this call
    total, total_examples = _length(flags, source.num_videos, step, examples, processes.world)
    if step >= total:
        if processes.first:
            checkpoint.write_json(train_dir / "finished.json", {"step": step})
        processes.say(f"training had ended at step {step}; give more epochs, or --start_new_model")
        return TrainResult(train_dir, step, finished=True)
    if processes.first:
        (train_dir / "finished.json").unlink(missing_ok=True)
    if step:
        processes.say(f"going on from step {step} in {train_dir}")
    whole_size = flags.batch_size * processes.world
    batches = source.batches(
        whole_size,
        num_epochs=flags.num_epochs,
        shuffle=state["shuffle"],
        seed=flags.seed,
        start=examples,
        part=processes.part,
    )

    with (
        RunLog(train_dir, step, state["log_bytes"], silent=not processes.first) as log,
        progress(f"train {flags.model}", total, "steps", done=step, stream=processes.stream) as meter,
        interruptible(processes.stream) as interrupted,
    ):
        last = False
        while not last:
            # so that resuming is exact; torch takes 63 bits
            torch.manual_seed(((flags.seed << 40) + (step << 12) + processes.rank) % (1 << 63))
            batch = next(batches)
            size = min(whole_size, source.num_videos * flags.num_epochs - examples)
            lesson = lessons.of(batch, size)
            if flags.log_device_placement and step == first_step:
                log_forward(Classifier(model), lesson, flags.precision, meter)
            rate = learning_rate(flags, examples, total_examples)
            can_fuse = size == whole_size and lesson.labels.dtype == torch.bool and lesson.rated is None
            loss, predictions = train_step(
                flags,
                network,
                model,
                optimizer,
                label_loss,
                lesson,
                rate,
                fused if can_fuse else None,  # another shape would compile anew
            )
            step, examples = step + 1, examples + size
            if averaged is not None:
                averaged.follow(model, step)
            meter.advance(1)
            last = step == total or processes.any(interrupted.is_set())
            saves = last or step % flags.export_model_steps == 0

            if saves or step % LOG_STEPS == 0:
                record = {"step": step, "examples": examples, "epoch": examples / source.num_videos}
                record["learning_rate"] = rate
                record |= _recent(flags, model, loss, predictions, batch.labels, lesson, processes)
                log.train(record, meter)

            if saves:
                if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
                    raise FloatingPointError(_not_finite(flags, f"a weight is not finite at step {step}"))
                recipe.remember(shown, source, flags)
                if evaluation_source is not None:
                    video_model = VideoModel(Classifier(shown), model_flags, step, device, flags.precision)
                    evaluation = _evaluate(flags, video_model, evaluation_source, interrupted, processes)
                    if evaluation is not None:
                        log.evaluation({"step": step, "data": flags.eval_data_pattern, **evaluation}, meter)
                    last = last or processes.any(interrupted.is_set())
                if processes.first:
                    state |= {"step": step, "examples": examples, "log_bytes": log.size()}
                    state |= {"processes": processes.world}
                    checkpoint.save(train_dir, step, model, optimizer, state, model_flags, averaged)
                    checkpoint.prune(train_dir)
                processes.wait()  # where one ends, all have their files

    if step < total:
        processes.say(f"interrupted; step {step} is saved in {train_dir}, the same command goes on")
        return TrainResult(train_dir, step, finished=False)
    if processes.first:
        checkpoint.write_json(train_dir / "finished.json", {"step": step})
    processes.say(f"trained to step {step}; the model is in {train_dir}")
    return TrainResult(train_dir, step, finished=True)


def learning_rate(flags: Flags, examples: int, total_examples: int) -> float:
    """Give the learning rate after so many examples: the flags' staircase, times the recipe's factor."""
    stair = staircase(
        flags.base_learning_rate, flags.learning_rate_decay, flags.learning_rate_decay_examples, examples
    )
    return stair * recipe.rate_factor(flags, examples, total_examples)


def _length(flags: Flags, num_videos: int, step: int, examples: int, world: int) -> tuple[int, int]:
    """Give the last step of the run, and the examples seen by then."""
    left = max(0, num_videos * flags.num_epochs - examples)
    batch = flags.batch_size * world
    steps_left = math.ceil(left / batch)
    if flags.max_steps is not None and step + steps_left > flags.max_steps:
        steps_left = max(0, flags.max_steps - step)
        left = steps_left * batch
    return step + steps_left, examples + left


def _say_whole_batch(flags: Flags, before: int, processes: Processes) -> None:
    """Say where the batch of a run that goes on is another, because the number of processes is."""
    if before != processes.world:
        processes.say(
            f"the run had {before} process{'es' if before > 1 else ''}, now {processes.world}: a step now "
            f"takes {flags.batch_size * processes.world:,} videos, before {flags.batch_size * before:,}"
        )


def _evaluate(
    flags: Flags,
    model: VideoModel,
    source: VideoSource,
    interrupted: threading.Event,
    processes: Processes,
) -> dict[str, Any] | None:
    """Evaluate and write it down; None where an interruption came first, which must not wait for the end."""

    def advance(videos: int) -> None:
        if processes.any(interrupted.is_set()):
            raise InterruptedError

    try:
        evaluation = evaluate_source(model, source, flags.batch_size, advance=advance, processes=processes)
    except InterruptedError:
        return None
    if processes.first:
        write_evaluation(flags.train_dir, evaluation, flags.eval_data_pattern)
    return evaluation.metrics


def _recent(
    flags: Flags,
    model: AbstractModel,
    loss: Tensor,
    predictions: Tensor,
    labels: Tensor,
    lesson: Lesson,
    processes: Processes,
) -> dict[str, float]:
    """Give the figures of the batch just trained on, over all processes; ``labels`` are the videos' own."""
    mean_loss = processes.total(loss.clone()).item() / processes.world
    if not math.isfinite(mean_loss):
        raise FloatingPointError(_not_finite(flags, f"the loss is {mean_loss}"))
    metrics = VideoMetrics(predictions.shape[1])
    metrics.update(predictions if lesson.rated is None else predictions * lesson.rated, labels)
    whole = VideoMetrics(predictions.shape[1])
    for one in processes.collect(metrics):
        whole.merge(one)
    result = whole.compute() if whole.has_labels else {"hit_at_1": 0.0, "gap": 0.0}
    squares = sum(l2 / 2 * weight.detach().square().sum().item() for weight, l2 in model.penalized())
    return {
        "loss": mean_loss,
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
