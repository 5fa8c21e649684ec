"""What do the metrics cost over finding the best 20 of each video? Target: at most 1.5 times torch.topk.

Run: python benchmarks/metrics.py [--data FOLDER] [--batches N] [--repeats N]

Both sides see the same matrices (1,024 videos x 3,862 classes) in the same run, batch by batch in turn. With
--data the labels are those of real videos (FOLDER is the one of the YouTube-8M parts as .npz); the scores are
always made up, larger for labels.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from expertise.youtube8m.metrics import VideoMetrics

BATCH, CLASSES, TOP_K, TARGET = 1024, 3862, 20, 1.5


def made_up_labels(batches: int) -> np.ndarray:
    """Three labels a video on average, like the real ones."""
    return np.random.default_rng(0).random((batches * BATCH, CLASSES)) < 3 / CLASSES


def real_labels(folder: Path, batches: int) -> np.ndarray:
    labels = np.zeros((batches * BATCH, CLASSES), dtype=bool)
    with np.load(folder / "yt8m_video_u8_part6.npz") as part:
        ptr, idx = part["label_ptr"].astype(np.int64), part["label_idx"]
    videos = min(len(ptr) - 1, len(labels))
    rows = np.repeat(np.arange(videos), np.diff(ptr[: videos + 1]))
    labels[rows, idx[: ptr[videos]]] = True
    return labels


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Metrics over torch.topk.")
    parser.add_argument("--data", type=Path, help="folder of yt8m_video_u8_part6.npz")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()

    labels = real_labels(options.data, options.batches) if options.data else made_up_labels(options.batches)
    noise = np.random.default_rng(1).normal(-6, 2, labels.shape).astype(np.float32)
    scores = torch.sigmoid(torch.from_numpy(noise + 4 * labels))
    batches = list(zip(torch.split(scores, BATCH), torch.split(torch.from_numpy(labels), BATCH), strict=True))
    metrics = VideoMetrics(CLASSES, TOP_K)

    topk_times, update_times = [], []
    for _ in range(options.repeats):
        topk_time = update_time = 0.0
        for predictions, truth in batches:
            topk_time += seconds(lambda p=predictions: torch.topk(p, TOP_K, dim=1))  # type: ignore[misc]
            update_time += seconds(lambda p=predictions, t=truth: metrics.update(p, t))  # type: ignore[misc]
        topk_times.append(topk_time)
        update_times.append(update_time)
    compute_time = seconds(metrics.compute)
    ratio = statistics.median(u / t for u, t in zip(update_times, topk_times, strict=True))

    videos = options.batches * BATCH
    source = "labels of real videos" if options.data else "made-up labels"
    table = Table(title=f"metrics, {BATCH} x {CLASSES}, {source}, {torch.get_num_threads()} threads")
    for column in ("what", "ms a batch", "videos/s", "ratio", "target"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, times, share, target in (
        ("torch.topk alone", topk_times, "1.00", ""),
        ("VideoMetrics.update", update_times, f"{ratio:.2f}", f"<= {TARGET}"),
    ):
        middle = statistics.median(times)
        table.add_row(what, f"{1e3 * middle / options.batches:.2f}", f"{videos / middle:,.0f}", share, target)
    pooled = videos * options.repeats
    table.add_row(f"compute() once, {pooled:,} videos", f"{1e3 * compute_time:.0f} in all", "", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
