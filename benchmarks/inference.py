"""What does `infer`, end to end, cost over the forward passes alone? Target: at most 1.3 times.

Run: python benchmarks/inference.py [--data FOLDER] [--videos N] [--repeats N] [--precision fp32|bf16]

Both sides use the same MoeModel (2 mixtures, 1,152 features, 3,862 classes; untrained, which costs the same),
the same videos and batches of 512, in turn in one run. The forward passes have their batches in memory.
`infer` opens the model, reads the videos, finds the 20 best classes and writes the file: from the cache (as
when the videos were read before) to CSV, to GZIP and to Parquet, and streaming from the TFRecord file itself.
With --data the videos are those of yt8m_video_u8_part6.npz in FOLDER, else made up. The ratio of processor
time is for machines that others use at the same time, where the clock says little.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from expertise.youtube8m import checkpoint
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.infer import infer
from expertise.youtube8m.loading import load_model
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import build_model
from expertise.youtube8m.records import encode_example, write_records

BATCH, CLASSES, TARGET = 512, 3862, 1.3
SIZES = {"mean_rgb": 1024, "mean_audio": 128}


def made_up_features(videos: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(videos, sum(SIZES.values()))).astype(np.float32)


def real_features(folder: Path, videos: int) -> np.ndarray:
    with np.load(folder / "yt8m_video_u8_part6.npz") as part:
        quantised = np.concatenate([part["rgb"][:videos], part["audio"][:videos]], axis=1)
    return quantised.astype(np.float32) * np.float32(4 / 255) + np.float32(4 / 512 - 2)


def write_shard(file: Path, features: np.ndarray) -> None:
    rgb = SIZES["mean_rgb"]
    write_records(
        file,
        (
            encode_example(
                {"id": [f"{i:04x}"], "labels": [0], "mean_rgb": row[:rgb], "mean_audio": row[rgb:]}
            )
            for i, row in enumerate(features)
        ),
    )


def write_model(train_dir: Path) -> None:
    flags = ModelFlags(
        model="MoeModel",
        feature_names=tuple(SIZES),
        feature_sizes=tuple(SIZES.values()),
        num_classes=CLASSES,
        class_names=(),
    )
    model = build_model(flags)
    model.reset(torch.Generator().manual_seed(0), scale=20.0)
    checkpoint.save(train_dir, 1, model, torch.optim.SGD(model.parameters()), {}, flags)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Time by the clock, and time of all processors."""
    start, start_cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.perf_counter() - start, time.process_time() - start_cpu


def main() -> None:
    parser = argparse.ArgumentParser(description="infer over the forward passes alone.")
    parser.add_argument("--data", type=Path, help="folder of yt8m_video_u8_part6.npz")
    parser.add_argument("--videos", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()

    videos = options.videos
    features = real_features(options.data, videos) if options.data else made_up_features(videos)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shard(folder / "videos.tfrecord", features)
        write_model(folder / "run")
        model = load_model(folder / "run", device="cpu", precision=options.precision)
        batches = torch.split(torch.from_numpy(features), BATCH)

        def run(output: str, cache: str) -> Callable[[], object]:
            flags = Flags(
                train_dir=str(folder / "run"),
                input_data_pattern=str(folder / "videos.tfrecord"),
                output_file=str(folder / output),
                cache_dir=cache,
                batch_size=BATCH,
                num_readers=1,
                device="cpu",
                precision=options.precision,
            )
            return lambda: infer(flags)

        cache = str(folder / "cache")
        sides: dict[str, Callable[[], object]] = {
            "forward passes alone": lambda: [model.predict(batch) for batch in batches],
            "infer, cached, CSV": run("out.csv", cache),
            "infer, cached, CSV in GZIP": run("out.csv.gz", cache),
            "infer, cached, Parquet": run("out.parquet", cache),
            "infer, streaming, CSV": run("streamed.csv", "none"),
        }
        for work in sides.values():
            seconds(work)  # the first use fills the cache, loads libraries, wakes threads
        times = [{side: seconds(work) for side, work in sides.items()} for _ in range(options.repeats)]

    title = f"inference, {len(features):,} videos, {options.precision}, {torch.get_num_threads()} threads"
    table = Table(title=title)
    for column in ("what", "seconds", "videos/s", "ratio", "target", "cpu ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    forward = next(iter(sides))
    for side in sides:
        middle = statistics.median(row[side][0] for row in times)
        clock, cpu = (
            f"{statistics.median(row[side][i] / row[forward][i] for row in times):.2f}" for i in (0, 1)
        )
        target = "" if side == forward else f"<= {TARGET}"
        table.add_row(side, f"{middle:.2f}", f"{len(features) / middle:,.0f}", clock, target, cpu)
    Console().print(table)


if __name__ == "__main__":
    main()
