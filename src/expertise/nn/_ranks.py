"""Counts that are added over the processes of a data-parallel run."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

# A process group of torch.distributed; True: the default one; None or False: this process alone.
Group = distributed.ProcessGroup | bool | None


def sum_over_ranks(counts: Sequence[Tensor], group: Group) -> tuple[list[Tensor], int]:
    """Add whole numbers over the ranks of a process group, all in one exchange.

    Parameters
    ----------
    counts : int64, (n,) each, in the same order and of the same shapes on every rank.
    group : a process group, True for the default one, or None for this process alone.

    Returns
    -------
    the sums, on the devices of the counts; the number of ranks.

    Raises
    ------
    ValueError : torch.distributed has not been started.
    """
    if group is None or group is False:
        return list(counts), 1
    if not distributed.is_available() or not distributed.is_initialized():
        raise ValueError(
            f"group={group!r} needs torch.distributed; call torch.distributed.init_process_group first, or "
            "leave group=None to count in this process alone"
        )
    chosen = group if isinstance(group, distributed.ProcessGroup) else None
    together = torch.cat([one.to(counts[0].device) for one in counts])
    distributed.all_reduce(together, group=chosen)
    parts = together.split([len(one) for one in counts])
    sums = [part.to(one.device) for part, one in zip(parts, counts, strict=True)]
    return sums, distributed.get_world_size(chosen)
