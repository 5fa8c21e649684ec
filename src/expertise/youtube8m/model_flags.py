"""What evaluation and inference need to know of a run: model_flags.json beside the weights."""

import dataclasses
import json
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
    frame_features: bool = False

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
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise FlagError(f"{path} does not hold the flags of a model: {error}") from error
