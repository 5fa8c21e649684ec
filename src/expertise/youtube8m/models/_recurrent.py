"""What recurrent models share: the state after a video's last frame, and a loop over frames for exports.

Letters of shapes: B batch, L frames, D features, G values of all gates, H cells.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops import scan

States = tuple[Tensor, ...]
Step = Callable[[States, Tensor], tuple[States, Tensor]]


def last_states(h_BLH: Tensor, lengths_B: Tensor) -> Tensor:
    """Give the state after the last real frame (B, H), float32 at least; 0 for a video without frames.

    A state depends on no later frame, so padding may run: it comes behind.

    >>> h_BLH = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    >>> last_states(h_BLH, torch.tensor([2, 0])).tolist()
    [[2.0], [0.0]]
    """
    last_B11 = (lengths_B - 1).clamp(min=0)[:, None, None]
    h_BH = h_BLH.gather(1, last_B11.expand(-1, 1, h_BLH.shape[2])).squeeze(1)
    return h_BH.to(torch.promote_types(h_BH.dtype, torch.float32)) * (lengths_B > 0).unsqueeze(1)


def scan_frames(step: Step, gates_BLG: Tensor, start: States) -> Tensor:
    """Run a cell over the frames by the one loop that torch.export and ONNX take for any number of frames.

    The fused kernels are faster, but an export of them holds for one number of frames only.

    Parameters
    ----------
    step : takes the states and a frame's gates (B, G), gives the new states and the output (B, H). None of
        these may share memory.
    gates_BLG : what the gates see of each frame.
    start : the states before the first frame.

    Returns
    -------
    The outputs (B, L, H).
    """
    _, h_LBH = scan(step, start, gates_BLG.transpose(0, 1))
    h_BLH: Tensor = h_LBH.transpose(0, 1)
    return h_BLH
