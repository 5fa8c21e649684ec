"""Small sets of videos for the tests of this folder."""

from pathlib import Path

import numpy as np

from expertise.youtube8m.formats import format_of
from expertise.youtube8m.videos import FeatureSpec, Videos, pointers

SPEC = FeatureSpec.parse("mean_rgb,mean_audio", "6,2")
NUM_CLASSES = 20


def make_videos(n: int, seed: int = 0, spec: FeatureSpec = SPEC, prefix: str = "v") -> Videos:
    """n videos with 0 to 4 labels each; their ids are all different."""
    rng = np.random.default_rng(seed)
    labels = [np.sort(rng.permutation(NUM_CLASSES)[: rng.integers(0, 5)]) for _ in range(n)]
    return Videos(
        [f"{prefix}{seed}-{i}" for i in range(n)],
        rng.uniform(-1.9, 1.9, (n, spec.total)).astype(np.float32),
        pointers([len(own) for own in labels]),
        np.concatenate([np.empty(0), *labels]).astype(np.int32),
    )


def write_files(folder: Path, sizes: list[int], suffix: str = ".tfrecord") -> list[Path]:
    """One file for each size, with that many videos."""
    paths = []
    for number, size in enumerate(sizes):
        path = folder / f"part{number:02d}{suffix}"
        format_of(path).write(path, [make_videos(size, seed=number)], SPEC)
        paths.append(path)
    return paths


def as_dict(videos: Videos) -> dict[str, tuple[bytes, list[int]]]:
    """Features and labels of each video by its id."""
    return {
        video: (
            videos.features[row].tobytes(),
            videos.labels[videos.label_ptr[row] : videos.label_ptr[row + 1]].tolist(),
        )
        for row, video in enumerate(videos.ids)
    }
