"""How good are the models on real records? Trained on parts 0-5, measured on dev, parts 6-7.

Settings were chosen on part 5 with training on parts 0-4 (`--choose` prints that table: the recipe, and the
recipe without each of its parts); dev is reported once. The reference's figures are google/youtube-8m's, on
another split, which was kept back: 11,678 videos of the same kind.
"""

import argparse
import contextlib
import dataclasses
import io
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from expertise.youtube8m import Flags
from expertise.youtube8m.evaluate import evaluate
from expertise.youtube8m.train import train

BEST: dict[str, Any] = {"moe_num_mixtures": 4, "base_learning_rate": 0.012}  # of the README; chosen on part 5
BEST_FLAGS = " ".join(f"--{name}={value}" for name, value in BEST.items())
REFERENCE = [
    ("reference LogisticModel, its defaults", 0.562, 0.728, 0.583, 0.103, 642.0),
    ("reference MoeModel, its defaults", 0.602, 0.738, 0.596, 0.135, 367.0),
    ("reference LogisticModel, batch 256, 20 epochs", 0.709, 0.793, 0.666, 0.271, 7.95),
    ("reference MoeModel, batch 256, 12 epochs, lr .005", 0.674, 0.770, 0.634, 0.204, 21.2),
]


def figures(flags: Flags, held_out: str) -> tuple[float, ...]:
    """Train in a new folder, and evaluate on the files that were held out."""
    with tempfile.TemporaryDirectory() as folder:
        run = dataclasses.replace(flags, train_dir=folder)
        train(run)
        with contextlib.redirect_stdout(io.StringIO()):  # its own table
            result = evaluate(
                Flags(train_dir=folder, eval_data_pattern=held_out, run_once=True, cache_dir=flags.cache_dir)
            )
    return tuple(result[name] for name in ("gap", "hit_at_1", "perr", "map", "loss"))


def row(name: str, values: tuple[float, ...]) -> None:
    gap, hit, perr, ap, loss = values
    print(f"{name:<56}{gap:>8.4f}{hit:>8.4f}{perr:>8.4f}{ap:>8.4f}{loss:>9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("EXPERTISE_DATA", "../shared/data")) / "youtube8m"
    parser.add_argument("--train", default=f"{data}/yt8m_video_u8_part[0-5].npz", help="files to train on")
    parser.add_argument("--dev", default=f"{data}/yt8m_video_u8_part[67].npz", help="files to measure on")
    parser.add_argument("--choose", action="store_true", help="parts 0-4 against part 5, without each part")
    parser.add_argument("--quick", action="store_true", help="the first row only")
    given = parser.parse_args()
    if given.choose:
        given.train, given.dev = f"{data}/yt8m_video_u8_part[0-4].npz", f"{data}/yt8m_video_u8_part5.npz"
    if not list(Path(given.train).parent.glob(Path(given.train).name)):
        print(f"quality: no data like {given.train}; give --train and --dev, or set EXPERTISE_DATA")
        return
    with tempfile.TemporaryDirectory() as cache:
        base = Flags(
            train_data_pattern=given.train,
            feature_names="mean_rgb,mean_audio",
            feature_sizes="1024,128",
            model="MoeModel",
            cache_dir=cache,
        )
        print(f"trained on {Path(given.train).name}, measured on {Path(given.dev).name}")
        print(f"{'':<56}{'GAP':>8}{'Hit@1':>8}{'PERR':>8}{'mAP':>8}{'loss':>9}")
        row(f"MoeModel {BEST_FLAGS}", figures(dataclasses.replace(base, **BEST), given.dev))
        if given.quick:
            return
        if given.choose:
            choose(base, given.dev)
            return
        row("MoeModel", figures(base, given.dev))
        row("LogisticModel", figures(dataclasses.replace(base, model="LogisticModel"), given.dev))
        for model in ("MoeModel", "LogisticModel"):
            change = dataclasses.replace(base, model=model, recipe="reference")
            row(f"{model} --recipe=reference", figures(change, given.dev))
    for name, *values in REFERENCE:
        row(name, tuple(values))


def choose(base: Flags, held_out: str) -> None:
    """The recipe without each of its parts, and with other settings."""
    row("MoeModel", figures(base, held_out))
    row("LogisticModel", figures(dataclasses.replace(base, model="LogisticModel"), held_out))
    for name, value in {
        "--seed": 1,
        "--moe_num_mixtures": 4,
        "--moe_rank": 0,
        "--num_epochs": 7,
        "--recipe": "reference",
    }.items():
        change = dataclasses.replace(base, **{name.lstrip("-"): value})  # type: ignore[arg-type]
        row(f"MoeModel {name}={value}", figures(change, held_out))
    for what, (target, without) in WITHOUT.items():
        with patch(target, without):
            row(f"MoeModel, {what}", figures(base, held_out))


WITHOUT: dict[str, tuple[str, Any]] = {
    "biases start at 0": ("expertise.youtube8m.models.MoeModel.start_at_rates", lambda model, rates: None),
    "a random projection": (
        "expertise.youtube8m.recipe._ridge_projection",
        lambda source, model, projection, *rest: projection.weight_RD / projection.size,
    ),
    "no warm-up, no annealing": ("expertise.youtube8m.recipe.rate_factor", lambda flags, done, total: 1.0),
    "epsilon 1e-8": ("expertise.youtube8m.recipe.EPSILON", 1e-8),
}


if __name__ == "__main__":
    main()
