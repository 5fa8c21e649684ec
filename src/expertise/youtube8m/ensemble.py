"""Several trained models that answer as one: the average of what they say.

Letters: B videos of a batch, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.loading import VideoModel, load_model
from expertise.youtube8m.model_flags import ModelFlags

AVERAGE = "log_odds"  # the row of AVERAGES that eval and infer take
_SMALLEST = 1e-12  # a member that says less than this does not outvote all others together
_BELOW_ONE = 1.0 - 2.0**-24  # the largest float32 under 1
_ALIKE = ("frame_features", "feature_names", "feature_sizes", "num_classes", "class_names", "label_loss")


def mean_probability(answers: Sequence[Tensor]) -> Tensor:
    """Give the arithmetic mean of probabilities (B, C).

    >>> mean_probability([torch.tensor([[0.1]]), torch.tensor([[0.5]])]).item()
    0.30000001192092896
    """
    return torch.stack(list(answers)).mean(0)


def mean_log_odds(answers: Sequence[Tensor]) -> Tensor:
    """Give the probability (B, C) whose log-odds are the mean of the log-odds of these.

    It is the normalised geometric mean of the answers yes and no: the logarithmic opinion pool of Genest and
    Zidek, "Combining Probability Distributions", Statistical Science 1986, eq. 3.11.

    >>> round(mean_log_odds([torch.tensor([[0.1]]), torch.tensor([[0.5]])]).item(), 4)
    0.25
    """
    total = torch.zeros_like(answers[0])
    for p_BC in answers:
        p_BC = p_BC.clamp(_SMALLEST, _BELOW_ONE)  # NaN stays NaN, for the metrics to find
        total += p_BC.log() - torch.log1p(-p_BC)
    return torch.sigmoid(total / len(answers))


AVERAGES: Mapping[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "log_odds": mean_log_odds,
    "probabilities": mean_probability,
}


@dataclass(frozen=True)
class Ensemble:
    """Trained models of the same features and classes, asked together.

    Parameters
    ----------
    members : two or more, on one device.
    names : of the members: where they come from.
    average : how answers become one, a key of `AVERAGES`.

    Raises
    ------
    ValueError : there are not two members, or not a name for each; ``average`` is not known.
    FlagError : two members read other features, know other classes, or have learned by other losses.
    """

    members: tuple[VideoModel, ...]
    names: tuple[str, ...]
    average: str = AVERAGE

    def __post_init__(self) -> None:
        if len(self.members) < 2 or len(self.members) != len(self.names):
            raise ValueError(
                f"members must be two models or more, with a name for each, got {len(self.members)} members "
                f"and {len(self.names)} names"
            )
        if self.average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {self.average!r}")
        for member, name in zip(self.members[1:], self.names[1:], strict=True):
            _check_alike((self.names[0], self.members[0].flags), (name, member.flags))

    @property
    def flags(self) -> ModelFlags:
        """What all members read and know: the flags of the first."""
        return self.members[0].flags

    @property
    def step(self) -> int:
        """The largest step of a member."""
        return max(member.step for member in self.members)

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return self.members[0].device

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, see `VideoModel`."""
        return self.members[0].class_names

    def predict(self, features: np.ndarray | Tensor, lengths: np.ndarray | Tensor | None = None) -> Tensor:
        """Give the average probability of every class, float32 (B, C), on the CPU; as `VideoModel`."""
        return self.answers(features, lengths)[0]

    def answers(
        self, features: np.ndarray | Tensor, lengths: np.ndarray | Tensor | None = None
    ) -> list[Tensor]:
        """Give the average, and behind it what each member says; float32 (B, C), on the CPU."""
        said = [member.predict(features, lengths) for member in self.members]
        return [AVERAGES[self.average](said), *said]


Predictor: TypeAlias = VideoModel | Ensemble


def split_paths(text: str) -> list[str]:
    """Split a flag of one or more paths at its commas; a path that is there may hold commas itself.

    >>> split_paths("runs/a, runs/b")
    ['runs/a', 'runs/b']
    """
    parts, found = text.split(","), list[str]()
    while parts:
        joined = (n for n in range(len(parts), 1, -1) if Path(",".join(parts[:n]).strip()).exists())
        taken = next(joined, 1)
        found.append(",".join(parts[:taken]).strip())
        parts = parts[taken:]
    return found


def load_models(
    text: str, *, device: str = "auto", precision: str = "fp32", flag: str = "train_dir"
) -> Predictor:
    """Load the model of a path, or of several with commas to be averaged.

    Parameters
    ----------
    text : folders of runs, single exports or archives, see `load_model`.
    flag : what the paths are called in error messages.

    Raises
    ------
    FlagError : a path is empty, stands there twice, or holds no model; or the models do not fit together.
    CheckpointError : weights can't be read.
    """
    paths = split_paths(text)
    if len(paths) == 1:
        return load_model(paths[0], device=device, precision=precision)
    if "" in paths:
        raise FlagError(f"--{flag}={text}: there is nothing beside a comma; give a path for each model")
    resolved = [Path(path).resolve() for path in paths]
    if twice := [path for path in paths if resolved.count(Path(path).resolve()) > 1]:
        raise FlagError(f"--{flag}={text}: {twice[0]} stands there twice; give each model once")
    members = tuple(load_model(path, device=device, precision=precision) for path in paths)
    return Ensemble(members, tuple(paths))


def _check_alike(first: tuple[str, ModelFlags], other: tuple[str, ModelFlags]) -> None:
    (name, flags), (other_name, others) = first, other
    for field in _ALIKE + (("max_frames",) if flags.frame_features else ()):
        its, theirs = getattr(flags, field), getattr(others, field)
        if its != theirs:
            raise FlagError(
                f"the models in {name} and {other_name} can't be averaged: {field} is {_short(its)} in the "
                f"first and {_short(theirs)} in the second; all must read the same features, know the same "
                "classes and have the same label loss"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
