"""A tiny data set that a model can learn: 600 videos, features of sizes 6 and 2, five classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertise.youtube8m.flags import Flags
from expertise.youtube8m.records import encode_example, write_records


@dataclass(frozen=True)
class Tiny:
    """Where the shards are, and flags that train on them."""

    folder: Path

    @property
    def train(self) -> str:
        return str(self.folder / "train*.tfrecord")

    @property
    def validate(self) -> str:
        return str(self.folder / "validate*.tfrecord")

    def flags(self, train_dir: Path, **changes: Any) -> Flags:
        values: dict[str, Any] = {
            "train_dir": str(train_dir),
            "train_data_pattern": self.train,
            "feature_names": "mean_rgb,mean_audio",
            "feature_sizes": "6,2",
            "num_classes": 5,
            "model": "MoeModel",
            "batch_size": 64,
            "num_epochs": 2,
            "cache_dir": str(self.folder / "cache"),
            "num_readers": 1,
            "device": "cpu",
        }
        return Flags(**(values | changes))


def write_tiny(folder: Path, name: str, videos: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((5, 8))
    records = []
    for number in range(videos):
        x = random.standard_normal(8).astype(np.float32)
        scores = directions @ x
        labels = sorted({int(scores.argmax()), *np.flatnonzero(scores > 3).tolist()})
        records.append(
            encode_example(
                {"id": [f"{name[:1]}{number:03d}"], "labels": labels, "mean_rgb": x[:6], "mean_audio": x[6:]}
            )
        )
    half = videos // 2
    write_records(folder / f"{name}0000.tfrecord", records[:half])
    write_records(folder / f"{name}0001.tfrecord", records[half:])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Shards of 600 videos to train on and 200 to validate on."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, "train", 600, 1)
    write_tiny(folder, "validate", 200, 2)
    (folder / "vocabulary.csv").write_text("Index,Name\n" + "".join(f"{c},name {c}\n" for c in range(5)))
    return Tiny(folder)
