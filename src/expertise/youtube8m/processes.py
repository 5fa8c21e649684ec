"""The processes of one training run, and what they tell each other. One process is the usual case."""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TextIO

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from expertise.youtube8m.flags import FlagError


class ProcessError(ConnectionError):
    """Another process of the run has ended, or can't be reached; the message says which, and what to do."""


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
        """Add up a tensor over all processes, in place, on the device where it is."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def any(self, value: bool) -> bool:
        """Tell whether it is so in any process: all of them then do the same.

        It is asked at every step, so it stays on the CPU: a GPU would have to finish the step first.
        """
        if self.world == 1:
            return value
        return bool(self.total(torch.tensor(int(value))).item())

    def collect(self, value: Any) -> list[Any]:
        """Give the values of all processes, by rank, to each of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def agree(self, mine: Mapping[str, object]) -> None:
        """Check that all processes have the same values.

        Raises
        ------
        FlagError : some differ; the message names the keys, and who has what.
        """
        first, *others = self.collect(dict(mine))
        wrong = [
            f"{key} is {first[key]!r} in process 0 and {other[key]!r} in process {rank}"
            for rank, other in enumerate(others, 1)
            for key in first
            if other[key] != first[key]
        ]
        if wrong:
            raise FlagError(
                f"{'; '.join(wrong)}. All processes of a run must be given the same flags, the same data and "
                "the same train_dir, on a disk that all machines share"
            )

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any(False)

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Let the first process of each machine go through the block; when all these have, the others."""
        local = int(os.environ.get("LOCAL_RANK", self.rank)) if self.world > 1 else 0
        if local != 0:
            self.wait()
        yield
        if local == 0:
            self.wait()

    def wrap(self, network: nn.Module) -> nn.Module:
        """Make the gradients of a network the means over all processes; give all the first one's weights.

        The reference sums the gradients of its towers, so that clipping bites the sooner the more there are.
        With the mean, a step is that of one process with the whole batch.
        """
        if self.world == 1:
            return network
        with warnings.catch_warnings():  # newer torch has another name for broadcast_buffers
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            # buffers follow what all processes have seen together, so they are alike; a memory is large
            return DistributedDataParallel(network, gradient_as_bucket_view=True, broadcast_buffers=False)

    def say(self, text: str) -> None:
        """Print a line on the stream."""
        print(text, file=self.stream, flush=True)
