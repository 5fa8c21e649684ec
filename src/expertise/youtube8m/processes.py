"""The processes of one training run, and what they tell each other. One process is the usual case."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TextIO

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process among all of a run.

    Parameters
    ----------
    rank, world : its number, from 0, and how many there are.
    device : where it works.
    stream : where it shows progress: standard error, or nowhere, of all but the first.
    """

    rank: int
    world: int
    device: torch.device
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    @classmethod
    def one(cls, device: torch.device) -> Self:
        """Give a run of one process."""
        return cls(0, 1, device)

    @property
    def part(self) -> tuple[int, int]:
        """What this process takes of every batch; see `VideoSource.batches`."""
        return self.rank, self.world

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def any(self, value: bool) -> bool:
        """Tell whether it is so in any process: all of them then do the same."""
        if self.world == 1:
            return value
        return bool(self.total(torch.tensor(int(value), device=self.device)).item())

    def collect(self, value: Any) -> list[Any]:
        """Give the values of all processes, by rank, to each of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Let the first process of each machine go through the block, then the others."""
        local = int(os.environ.get("LOCAL_RANK", self.rank)) if self.world > 1 else 0
        if local != 0:
            self.wait()
        yield
        if self.world > 1 and local == 0:
            self.wait()

    def wrap(self, network: nn.Module) -> nn.Module:
        """Make the gradients of a network the means over all processes."""
        if self.world == 1:
            return network
        # buffers are the same everywhere already: batch normalisation sees the frames of all processes
        return DistributedDataParallel(network, broadcast_buffers=False)

    def say(self, text: str) -> None:
        """Print a line on the stream."""
        print(text, file=self.stream, flush=True)
