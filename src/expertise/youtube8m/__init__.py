"""The training system for labelled videos: the working successor of google/youtube-8m.

>>> from expertise.youtube8m import Flags
>>> Flags(train_data_pattern="train*.tfrecord", model="MoeModel").batch_size
1024

The commands are functions of Flags, each in the module of its name: ``from expertise.youtube8m.train import
train``. Names load on first use, so that flags and records need no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expertise.youtube8m.flags import Flags
    from expertise.youtube8m.loading import VideoModel, load_model
    from expertise.youtube8m.readers import Batch, read_batches
    from expertise.youtube8m.sample import write_sample

_HOME = {
    "Batch": "readers",
    "Flags": "flags",
    "VideoModel": "loading",
    "load_model": "loading",
    "read_batches": "readers",
    "write_sample": "sample",
}

__all__ = ["Batch", "Flags", "VideoModel", "load_model", "read_batches", "write_sample"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
