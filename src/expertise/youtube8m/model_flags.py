"""What evaluation and inference need to know of a run: model_flags.json beside the weights."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from expertise.youtube8m._flag_entry import FlagError
from expertise.youtube8m.flags import ENTRIES, TYPES, Flags
from expertise.youtube8m.frames import FrameReading

OPTIONS = tuple(name for name, entry in ENTRIES.items() if entry.role == "model" and name != "model")


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """What evaluation and inference need of a run: kept as model_flags.json beside the weights.

    Parameters
    ----------
    input_scale : factor on the features of a video-level model.
    value_scale : root mean square that the values which a frame-level model gives to its video-level model
        are scaled to; 0: they stay as they are.
    frame_features, segment_labels, max_frames : what is read.
    options : the table's flags of the role "model", as the model takes them; its other flags say nothing.
    """

    model: str
    feature_names: tuple[str, ...]
    feature_sizes: tuple[int, ...]
    num_classes: int
    class_names: tuple[str, ...]
    label_loss: str = "CrossEntropyLoss"
    input_scale: float = 1.0
    value_scale: float = 0.0
    frame_features: bool = False
    segment_labels: bool = False
    max_frames: int = 300
    options: Flags = field(default_factory=lambda: Flags(moe_rank=0))

    @property
    def input_size(self) -> int:
        """Number of features of a video or a frame, all together."""
        return sum(self.feature_sizes)

    def reading(self, segments: Literal["", "rated", "all"] = "") -> FrameReading | None:
        """What to read of frame-level records; None: the model is video-level."""
        return FrameReading(self.max_frames, segments) if self.frame_features else None

    def write(self, path: Path) -> None:
        """Write as JSON to a path that must not be read meanwhile."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        values["options"] = {name: getattr(self.options, name) for name in OPTIONS}
        path.write_text(json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` has written.

        Raises
        ------
        FlagError : the file is not there, or not what `write` writes.
        """
        if not path.is_file():
            raise FlagError(f"{path} is not there: is this the folder of a run (--train_dir) or an export?")
        try:
            values = json.loads(path.read_text())
            for name in ("feature_names", "feature_sizes", "class_names"):
                values[name] = tuple(values[name])
            values["options"] = _read_options(values.get("options", {}))
            flags = cls(**values)
            flags._check()
        except (ValueError, TypeError, KeyError) as error:
            raise FlagError(f"{path} does not hold the flags of a model: {error}") from error
        return flags

    def _check(self) -> None:
        """Raise ValueError where a value can't be: the file may come from anywhere."""
        texts = (self.model, self.label_loss, *self.feature_names, *self.class_names)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name is not a text")
        whole = (*self.feature_sizes, self.num_classes, self.max_frames)
        if not all(type(number) is int and 1 <= number < 2**31 for number in whole):
            raise ValueError("a size or a number of classes or frames is not a whole number over 0")
        if len(self.feature_names) != len(self.feature_sizes) or not self.feature_names:
            raise ValueError("there are not as many feature names as sizes")
        if len(self.class_names) not in (0, self.num_classes):
            raise ValueError(f"{len(self.class_names)} class names for {self.num_classes} classes")
        if not (math.isfinite(self.input_scale) and math.isfinite(self.value_scale)):
            raise ValueError("input_scale or value_scale is not finite")
        if type(self.frame_features) is not bool or type(self.segment_labels) is not bool:
            raise ValueError("frame_features and segment_labels must be true or false")


def _read_options(values: dict[str, Any]) -> Flags:
    """Check the model's own flags by the table: names, types and ranges."""
    for name, value in values.items():
        if name not in OPTIONS:
            raise ValueError(f"no model has the flag {name!r}")
        entry, kind = ENTRIES[name], TYPES[name]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{name} is {value!r}, not of type {kind.__name__}")
        if entry.choices and value not in entry.choices:
            raise ValueError(f"{name} is {value!r}; it can be {', '.join(entry.choices)}")
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < 2**31):
            raise ValueError(f"{name} is {value!r}, which is too large")
        if entry.minimum is not None and not value >= entry.minimum:
            raise ValueError(f"{name} is {value!r}; it must be at least {entry.minimum:g}")
        if entry.maximum is not None and not value <= entry.maximum:
            raise ValueError(f"{name} is {value!r}; it must be at most {entry.maximum:g}")
    return Flags(**{"moe_rank": 0, **values})
