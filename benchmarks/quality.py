"""How good are the models on real records? Trained on parts 0-5, measured on dev, parts 6-7.

Settings were chosen on part 5 with training on parts 0-4 (`--choose` prints that table: the recipe, and the
model with other ranks and seeds); dev is reported once. The reference's figures are google/youtube-8m's, on
another split, which was kept back: 11,678 videos of the same kind.
"""

import argparse
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from expertise.youtube8m import Flags
from expertise.youtube8m.evaluate import evaluate
from expertise.youtube8m.train import train

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
        result = evaluate(
            Flags(train_dir=folder, eval_data_pattern=held_out, run_once=True, cache_dir=flags.cache_dir)
        )
    return tuple(result[name] for name in ("gap", "hit_at_1", "perr", "map", "loss"))


def row(name: str, values: tuple[float, ...]) -> None:
    gap, hit, perr, ap, loss = values
    print(f"{name:<52}{gap:>8.4f}{hit:>8.4f}{perr:>8.4f}{ap:>8.4f}{loss:>9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = os.environ.get("EXPERTISE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data) / "youtube8m")
    parser.add_argument("--choose", action="store_true", help="parts 0-4 against part 5, with ablations")
    parser.add_argument("--quick", action="store_true", help="MoeModel only")
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"quality: no data in {given.data}; set EXPERTISE_DATA")
        return
    train_parts, held_out = ("[0-4]", "5") if given.choose else ("[0-5]", "[67]")
    with tempfile.TemporaryDirectory() as cache:
        base = Flags(
            train_data_pattern=str(given.data / f"yt8m_video_u8_part{train_parts}.npz"),
            feature_names="mean_rgb,mean_audio",
            feature_sizes="1024,128",
            model="MoeModel",
            cache_dir=cache,
        )
        pattern = str(given.data / f"yt8m_video_u8_part{held_out}.npz")
        print(
            f"trained on parts {train_parts}, measured on part {held_out}; all other flags at their defaults"
        )
        print(f"{'':<52}{'GAP':>8}{'Hit@1':>8}{'PERR':>8}{'mAP':>8}{'loss':>9}")
        row("MoeModel", figures(base, pattern))
        if given.quick:
            return
        row("LogisticModel", figures(dataclasses.replace(base, model="LogisticModel"), pattern))
        for name, change in ablations().items() if given.choose else defaults().items():
            row(name, figures(dataclasses.replace(base, **change), pattern))
    if given.choose:
        return
    for name, *values in REFERENCE:
        row(name, tuple(values))


def defaults() -> dict[str, dict[str, Any]]:
    return {
        "MoeModel --recipe=reference": {"recipe": "reference"},
        "LogisticModel --recipe=reference": {"recipe": "reference", "model": "LogisticModel"},
    }


def ablations() -> dict[str, dict[str, Any]]:
    return {
        "MoeModel --moe_rank=0": {"moe_rank": 0},
        "MoeModel --moe_rank=256": {"moe_rank": 256},
        "MoeModel --moe_rank=768": {"moe_rank": 768},
        "MoeModel --seed=1": {"seed": 1},
        "MoeModel --precision=bf16": {"precision": "bf16"},
        "MoeModel --recipe=reference": {"recipe": "reference"},
    }


if __name__ == "__main__":
    main()
