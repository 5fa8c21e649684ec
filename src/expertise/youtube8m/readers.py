"""Batches of labelled videos as torch tensors, from a cache or straight from the shards."""

from collections.abc import Iterator
from typing import TextIO

from expertise.youtube8m.cache import cache_folder, open_cache
from expertise.youtube8m.formats import format_of, no_frames
from expertise.youtube8m.frames import FrameReading
from expertise.youtube8m.reading.cached import CachedVideos
from expertise.youtube8m.reading.source import Batch, Shuffle, VideoSource, check_stream
from expertise.youtube8m.reading.streaming import StreamedVideos
from expertise.youtube8m.videos import FeatureSpec, check_num_classes, match_files

__all__ = [
    "Batch",
    "CachedVideos",
    "Shuffle",
    "StreamedVideos",
    "VideoSource",
    "open_videos",
    "read_batches",
]


def open_videos(
    pattern: str,
    spec: FeatureSpec,
    num_classes: int,
    *,
    frames: FrameReading | None = None,
    cache_dir: str = "auto",
    num_readers: int = 8,
    skip_corrupt: bool = False,
    flag: str = "train_data_pattern",
    stream: TextIO | None = None,
) -> VideoSource:
    """Open all videos that a pattern matches; the first time they are converted to a cache.

    Parameters
    ----------
    frames : what to read of frame-level records; None for video-level ones.
    cache_dir : a folder, "auto" (the user's cache folder) or "none" (no cache: read the files every time).
    num_readers : files that are read or converted at once; it changes nothing but the speed.
    skip_corrupt : leave out corrupt records and say how many; else the first one raises RecordError.
    flag : what the pattern is called in error messages.
    stream : where progress is shown; standard error unless given.
    """
    if num_readers < 1:
        raise ValueError(f"--num_readers={num_readers} is not allowed; give 1 or more")
    check_num_classes(num_classes)
    files = match_files(pattern, flag)
    for path in files:  # a format that cannot be read is said before any work is done
        if not format_of(path).has_frames and frames is not None:
            raise no_frames(path)
    if cache_folder(cache_dir) is None:
        return StreamedVideos(
            files,
            spec,
            num_classes,
            frames=frames,
            num_readers=num_readers,
            skip_corrupt=skip_corrupt,
            stream=stream,
        )
    cache = open_cache(
        files,
        spec,
        num_classes,
        cache_dir,
        frames=frames is not None,
        num_workers=num_readers,
        skip_corrupt=skip_corrupt,
        stream=stream,
    )
    return CachedVideos(cache, spec, num_classes, frames)


def read_batches(
    pattern: str,
    *,
    feature_names: str | None = None,
    feature_sizes: str = "1024,128",
    num_classes: int = 3862,
    frame_features: bool = False,
    max_frames: int = 300,
    segment_labels: bool = False,
    batch_size: int = 1024,
    num_epochs: int | None = 1,
    shuffle: bool = False,
    seed: int = 0,
    cache_dir: str = "auto",
    num_readers: int = 8,
    skip_corrupt_records: bool = False,
) -> Iterator[Batch]:
    """Read videos for your own torch code: batches of ids, features (B, D) and labels (B, C).

    ::

        from expertise.youtube8m import read_batches
        for batch in read_batches("/data/train*.tfrecord", shuffle=True, num_epochs=5):
            loss = my_loss(my_model(batch.features), batch.labels.float())

    Files may be TFRecord, .npz or Parquet. The first time they are converted to a cache in ``cache_dir``, see
    `open_videos`; batches and epochs are those of `VideoSource.batches`.

    Parameters
    ----------
    feature_names : "mean_rgb,mean_audio" unless given; of frame-level records "rgb,audio".
    frame_features : read frame-level records (TFRecord only): features are bytes (B, L, D), padded with 0
        behind the ``lengths`` (B,) of the videos, each cut at ``max_frames``.
        ``dequantize`` and ``frame_mask`` of expertise.youtube8m.frames make numbers of them.
    segment_labels : read the rated segments of frame-level records, 5 frames each; ``rated`` (B, C) says
        which labels count.
    """
    if segment_labels and not frame_features:
        raise ValueError("segment_labels=True reads frame-level records; give frame_features=True too")
    frames = FrameReading(max_frames, "rated" if segment_labels else "") if frame_features else None
    names = (
        ("rgb,audio" if frame_features else "mean_rgb,mean_audio") if feature_names is None else feature_names
    )
    spec = FeatureSpec.parse(names, feature_sizes)
    check_stream(batch_size, num_epochs, "none", seed, 0)
    source = open_videos(
        pattern,
        spec,
        num_classes,
        frames=frames,
        cache_dir=cache_dir,
        num_readers=num_readers,
        skip_corrupt=skip_corrupt_records,
        flag="pattern",
    )
    mode = source.default_shuffle() if shuffle else "none"
    return source.batches(batch_size, num_epochs=num_epochs, shuffle=mode, seed=seed)
