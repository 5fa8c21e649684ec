"""Frame-level videos: what is read of them, and how their bytes become numbers.

Letters: B batch, L frames, D features.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

SEGMENT_FRAMES = 5  # of a segment of the 2019 challenge; one frame a second
SCALE, SHIFT = 4.0 / 255.0, 4.0 / 512.0 - 2.0  # of the official rule that made bytes of the features

Segments = Literal["", "rated", "all"]


@dataclass(frozen=True)
class FrameReading:
    """What to read of frame-level records.

    max_frames : of a video; what is behind them is left out. Segments lie anywhere in the video.
    segments : "" for whole videos. "rated": the segments with a rated label. "all": the segments whose starts
        the records give, and where a record gives none, one after the other over the whole video.

    Raises ValueError where one of them is not allowed.
    """

    max_frames: int = 300
    segments: Segments = ""

    def __post_init__(self) -> None:
        if self.max_frames < 1:
            raise ValueError(f"max_frames={self.max_frames} is not allowed; give 1 or more")
        if self.segments not in get_args(Segments):
            known = ", ".join(map(repr, get_args(Segments)))
            raise ValueError(f"segments={self.segments!r} is not known; it is one of {known}")


def frame_mask(lengths_B: Tensor, num_frames: int) -> Tensor:
    """Which frames are real ones and no padding, bool (B, L).

    >>> frame_mask(torch.tensor([1, 2]), 2).tolist()
    [[True, False], [True, True]]
    """
    return torch.arange(num_frames, device=lengths_B.device) < lengths_B.unsqueeze(1)


def dequantize(frames_BLD: Tensor) -> Tensor:
    """Make float32 of bytes: v 4/255 + 4/512 - 2. Floats stay as they are.

    >>> dequantize(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
    [-1.9921875, 2.0078125]
    """
    if frames_BLD.dtype != torch.uint8:
        return frames_BLD.float()
    return frames_BLD.float().mul_(SCALE).add_(SHIFT)
