"""How the processes of a run come to be: one, or those that torchrun starts, or one a GPU."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import choose_device
from expertise.youtube8m.processes import Processes


@contextmanager
def joined(flags: Flags) -> Iterator[Processes]:
    """Join the processes of a run for as long as the block runs."""
    if "RANK" not in os.environ:
        gpus = torch.cuda.device_count()
        if flags.num_gpu > 1 and gpus == 0:
            print(f"--num_gpu={flags.num_gpu} is ignored: torch finds no GPU here", file=sys.stderr)
        elif flags.num_gpu > 1:
            raise FlagError(f"--num_gpu={flags.num_gpu}: not yet")
        yield Processes.one(choose_device(flags.device))
        return
    dist.init_process_group("gloo")
    try:
        rank = dist.get_rank()
        with Path(os.devnull).open("w") as nowhere:
            yield Processes(
                rank, dist.get_world_size(), torch.device("cpu"), sys.stderr if rank == 0 else nowhere
            )
    finally:
        dist.destroy_process_group()
