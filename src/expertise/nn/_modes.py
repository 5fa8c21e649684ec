"""What kind of pass is this: a first forward, or one that activation checkpointing repeats?"""

import torch


def recomputing() -> bool:
    """Say whether this forward runs inside a backward pass, to recompute what was not kept.

    Whatever counts in forward must not count such a pass again. In compiled code the answer is no: there the
    compiler repeats operations, not this code.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._current_graph_task_id() != -1
