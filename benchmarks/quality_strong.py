"""The stronger video-level mixtures on real records: one model, the average of three, and every vertical.

Trained on parts 0-5, measured on dev, parts 6-7. The settings were chosen on part 5 with training on parts
0-4. Runs are kept in --out, so that a second call only measures.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from expertise.youtube8m import Flags
from expertise.youtube8m.evaluate import evaluate
from expertise.youtube8m.train import train

SHARED: dict[str, Any] = {
    "model": "SharedExpertMoeModel",
    "base_learning_rate": 0.006,
    "batch_size": 512,
    "clip_gradient_norm": 0.0,
    "input_dropout": 0.2,
    "memory_videos": 40_000,
    "compile": "on",
}
RUNS: dict[str, dict[str, Any]] = {
    "one": {**SHARED, "num_epochs": 6, "dropout": 0.5},
    "two": {
        **SHARED,
        "num_epochs": 5,
        "dropout": 0.4,
        "shared_expert_size": 768,
        "shared_expert_layers": 2,
        "moe_num_mixtures": 1,
    },
    "three": {**SHARED, "num_epochs": 6, "dropout": 0.5, "moe_num_mixtures": 1, "seed": 1},
    "moe": {"model": "MoeModel", "moe_num_mixtures": 4, "base_learning_rate": 0.012},
    "logistic": {"model": "LogisticModel"},
}
AVERAGED = ("one", "two", "three")
BY_VERTICAL = ("logistic", "moe", "one")


def words(settings: dict[str, Any]) -> str:
    """Settings as flags, without the model."""
    return " ".join(f"--{name}={value}" for name, value in settings.items() if name != "model")


def measured(folders: str, dev: str, cache: str) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):  # its own table
        flags = Flags(train_dir=folders, eval_data_pattern=dev, run_once=True, cache_dir=cache)
        return evaluate(flags)


def row(name: str, figures: dict[str, Any]) -> None:
    values = [figures[key] for key in ("gap", "hit_at_1", "perr", "map", "loss")]
    print(
        f"{name:<34}" + "".join(f"{value:>8.4f}" for value in values[:-1]) + f"{values[-1]:>9.2f}", flush=True
    )


def by_vertical(out: Path, vocabulary: Path) -> None:
    """The mean average precision of the classes of each vertical, model by model."""
    with vocabulary.open(newline="", encoding="utf-8") as file:
        verticals = {int(line["Index"]): line["Vertical1"] for line in csv.DictReader(file)}
    found: dict[str, dict[str, list[float]]] = {}
    videos: dict[str, int] = defaultdict(int)
    for name in BY_VERTICAL:
        newest = max((out / name / "evaluation").glob("step_*.json"), key=lambda file: file.stat().st_mtime)
        found[name] = defaultdict(list)
        for entry in json.loads(newest.read_text())["classes"]:
            if entry["positives"]:
                vertical = verticals[entry["index"]]
                found[name][vertical].append(entry["average_precision"])
                videos[vertical] += entry["positives"] if name == BY_VERTICAL[0] else 0
    print(f"\n{'vertical':<24}{'classes':>8}{'labels':>8}" + "".join(f"{name:>10}" for name in BY_VERTICAL))
    for vertical in sorted(videos, key=lambda one: -videos[one]):
        means = [float(np.mean(found[name][vertical])) for name in BY_VERTICAL]
        classes = len(found[BY_VERTICAL[0]][vertical])
        print(
            f"{vertical:<24}{classes:>8}{videos[vertical]:>8}" + "".join(f"{mean:>10.3f}" for mean in means)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("EXPERTISE_DATA", "../shared/data")) / "youtube8m"
    parser.add_argument("--train", default=f"{data}/yt8m_video_u8_part[0-5].npz", help="files to train on")
    parser.add_argument("--dev", default=f"{data}/yt8m_video_u8_part[67].npz", help="files to measure on")
    parser.add_argument("--out", type=Path, help="folder of the runs; they are thrown away without it")
    parser.add_argument(
        "--quick", action="store_true", help="nothing: the shortest of these runs takes minutes"
    )
    given = parser.parse_args()
    if given.quick or not list(Path(given.train).parent.glob(Path(given.train).name)):
        print(f"quality_strong: left out (--quick), or no data like {given.train}; see --train and --dev")
        return
    with tempfile.TemporaryDirectory() as temporary:
        out, cache = given.out or Path(temporary), str((given.out or Path(temporary)) / "cache")
        common: dict[str, Any] = {
            "feature_names": "mean_rgb,mean_audio",
            "feature_sizes": "1024,128",
            "cache_dir": cache,
        }
        print(f"trained on {Path(given.train).name}, measured on {Path(given.dev).name}")
        for name, settings in RUNS.items():
            print(f"{name:<9} {settings['model']} {words(settings)}", flush=True)
            train(Flags(train_dir=str(out / name), train_data_pattern=given.train, **common, **settings))
        print(f"{'':<34}{'GAP':>8}{'Hit@1':>8}{'PERR':>8}{'mAP':>8}{'loss':>9}")
        for name in RUNS:
            row(name, measured(str(out / name), given.dev, cache))
        row("one, two and three", measured(",".join(str(out / name) for name in AVERAGED), given.dev, cache))
        by_vertical(out, Path(given.dev).parent / "vocabulary.csv")


if __name__ == "__main__":
    main()
