"""What kind of pass is this: a first forward, or one that activation checkpointing repeats?"""

import torch
from torch import Tensor


def recomputing() -> bool:
    """Say whether this forward runs inside a backward pass, to recompute what was not kept.

    Whatever counts in forward must not count such a pass again.
    """
    return torch._C._current_graph_task_id() != -1


# An operation of its own, so that compiled code asks too, and asks when it runs.
@torch.library.custom_op("expertise::add_load", mutates_args=("load_E",))
def add_load(load_E: Tensor, more_E: Tensor) -> None:
    """Add to ``load_E`` (E,) in place, unless this forward is a recomputation."""
    if not recomputing():
        load_E.add_(more_E)


@add_load.register_fake
def _(load_E: Tensor, more_E: Tensor) -> None:
    return None
