"""How much memory does training take? Peak of a whole process, on as many real-sized videos as fit a run."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

VIDEOS = 20_000
CODE = """
import os, resource, sys
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
from expertise.youtube8m import Flags
from expertise.youtube8m.train import train
folder, model, precision, compiled = sys.argv[1:]
train(Flags(
    train_data_pattern=f"{folder}/part*.npz", feature_names="mean_rgb,mean_audio", feature_sizes="1024,128",
    model=model, train_dir=f"{folder}/{model}{precision}{compiled}", cache_dir=f"{folder}/cache", max_steps=6,
    export_model_steps=3, recipe="reference", precision=precision, compile=compiled,
))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="MoeModel in fp32 only")
    quick = parser.parse_args().quick
    cases = [("MoeModel", "fp32", "off"), ("MoeModel", "fp32", "on"), ("MoeModel", "bf16", "off")]
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        np.savez(
            Path(folder) / "part0.npz",
            rgb=random.integers(0, 256, (VIDEOS, 1024), dtype=np.uint8),
            audio=random.integers(0, 256, (VIDEOS, 128), dtype=np.uint8),
            label_ptr=np.arange(VIDEOS + 1, dtype=np.int32) * 3,
            label_idx=(np.arange(3 * VIDEOS) % 3862).astype(np.int16),
            video_id=np.array([f"{n:05x}" for n in range(VIDEOS)]),
            shard=np.zeros(VIDEOS, dtype=np.int16),
        )
        print(f"training, full MoeModel, M=2, D=1152, C=3862, batch 1024, {VIDEOS:,} videos in the cache")
        print(f"{'peak memory':<40}{'GiB':>8}{'target':>8}")
        for model, precision, compiled in cases[:1] if quick else cases:
            done = subprocess.run(
                [sys.executable, "-c", CODE, folder, model, precision, compiled],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
            )  # fmt: skip
            name = f"{model}, {precision}{', compiled' if compiled == 'on' else ''}"
            print(f"{name:<40}{float(done.stdout.split()[-1]):>8.2f}{1.3:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
