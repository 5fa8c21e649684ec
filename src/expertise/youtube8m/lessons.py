"""From a batch to what a step learns: the device, mixtures of two videos, and what teachers say.

Letters of shapes: B batch, D features, C classes.
"""

from pathlib import Path

import torch
from torch import Tensor

from expertise.youtube8m.ensemble import split_paths
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import VideoModel, load_model
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.processes import Processes
from expertise.youtube8m.reading.source import Batch
from expertise.youtube8m.step import Lesson


class Lessons:
    """Makes lessons of batches, as the flags say.

    Parameters
    ----------
    flags, model_flags : of the run.
    processes : this process among those of the run.

    Raises
    ------
    FlagError : mixup and frames, or a teacher that does not fit the run.
    """

    def __init__(self, flags: Flags, model_flags: ModelFlags, processes: Processes) -> None:
        if flags.mixup and flags.frame_features:
            raise FlagError(
                f"--mixup={flags.mixup:g}: frames of two videos are not mixed; "
                "leave it at 0 with --frame_features"
            )
        self._flags, self._processes = flags, processes
        paths = split_paths(flags.teacher) if flags.teacher else []
        self._teachers = [_teacher(path, flags, model_flags, processes.device) for path in paths]

    def of(self, batch: Batch, size: int) -> Lesson:
        """Make the lesson of a batch, or of this process's part of one, which has ``size`` videos in all."""
        device, flags = self._processes.device, self._flags
        features, labels = batch.features.to(device), batch.labels.to(device)
        lengths = None if batch.lengths is None else batch.lengths.to(device)
        rated = None if batch.rated is None else batch.rated.to(device)
        if flags.mixup:
            features, labels = mixed(features, labels, flags.mixup)
        if self._teachers and len(batch):
            answer_BC = self._answer(features, lengths)
            labels = torch.lerp(labels.float(), answer_BC, flags.teacher_weight)
        return Lesson(features, lengths, labels, rated, size / self._processes.world)

    @torch.no_grad()
    def _answer(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Give the mean of what the teachers say, (B, C). It stays on the device."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self._flags.precision == "bf16"):
            said = [teacher.module(features, lengths) for teacher in self._teachers]
        return torch.stack(said).mean(0)


def mixed(features_BD: Tensor, labels_BC: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix every video with another one: x = s x_i + (1 - s) x_j, y likewise, s from Beta(alpha, alpha).

    mixup: Zhang et al. 2018 (arXiv:1710.09412), section 2, with a share s for each video. The features are
    raw, and are normalised afterwards. torch's own random numbers decide.
    """
    B = len(features_BD)
    shares = torch.distributions.Beta(alpha, alpha).sample((B, 1))
    s_B1 = shares.to(features_BD.device)
    other = torch.randperm(B).to(features_BD.device)
    mixed_BD = torch.lerp(features_BD[other], features_BD, s_B1)
    return mixed_BD, torch.lerp(labels_BC[other].float(), labels_BC.float(), s_B1)


def _teacher(path: str, flags: Flags, model_flags: ModelFlags, device: torch.device) -> VideoModel:
    if not path:
        raise FlagError(f"--teacher={flags.teacher}: there is nothing beside a comma; give a train_dir there")
    try:
        teacher = load_model(path, device=device.type, precision=flags.precision)
    except FlagError as error:
        raise FlagError(f"--teacher={flags.teacher}: {str(error).removeprefix('--train_dir=')}") from error
    for name in ("frame_features", "feature_names", "feature_sizes", "num_classes", "class_names"):
        its, ours = getattr(teacher.flags, name), getattr(model_flags, name)
        if its != ours:
            raise FlagError(
                f"--teacher={flags.teacher}: the model in {Path(path)} has {name} {_short(its)}, "
                f"this run has {_short(ours)}; a teacher must see the same features and know the same classes"
            )
    return teacher


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
