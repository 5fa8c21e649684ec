"""What evaluation and inference need to know of a run: model_flags.json beside the weights."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from expertise.youtube8m.flags import FlagError


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """What evaluation and inference need of a run: kept as model_flags.json beside the weights."""

    model: str
    feature_names: tuple[str, ...]
    feature_sizes: tuple[int, ...]
    num_classes: int
    class_names: tuple[str, ...]
    label_loss: str = "CrossEntropyLoss"
    moe_num_mixtures: int = 2
    moe_l2: float = 1e-8
    moe_rank: int = 0
    input_scale: float = 1.0

    @property
    def input_size(self) -> int:
        """Number of features of a video, all together."""
        return sum(self.feature_sizes)

    def write(self, path: Path) -> None:
        """Write as JSON to a path that must not be read meanwhile."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

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
        whole = (*self.feature_sizes, self.num_classes, self.moe_num_mixtures, self.moe_rank + 1)
        if not all(type(number) is int and 1 <= number < 2**31 for number in whole):
            raise ValueError("a size or a number of classes, mixtures or ranks is not a whole number over 0")
        if len(self.feature_names) != len(self.feature_sizes) or not self.feature_names:
            raise ValueError("there are not as many feature names as sizes")
        if len(self.class_names) not in (0, self.num_classes):
            raise ValueError(f"{len(self.class_names)} class names for {self.num_classes} classes")
        if not (math.isfinite(self.input_scale) and math.isfinite(self.moe_l2)):
            raise ValueError("input_scale or moe_l2 is not finite")
