"""How the processes of a run come to be: one, those that torchrun starts, or one for each GPU."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from expertise.youtube8m import checkpoint
from expertise.youtube8m import flags as table
from expertise.youtube8m._interrupt import Terminated, forwarded, terminable
from expertise.youtube8m._watch import Farewell, Peer, Watch
from expertise.youtube8m.flag_rules import check
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import choose_device
from expertise.youtube8m.processes import ProcessError, Processes

JOIN = timedelta(minutes=10)  # that the processes of a run have to come
PATIENCE = timedelta(days=365)  # of what they do together: who is missing, the watch finds, not the clock
_FIND_SECONDS = 3.0  # until a process that has ended on this machine is found
_FIND_FAR_SECONDS = 40.0  # on another one
_SETTLE_SECONDS = (
    0.5  # torchrun ends the others when one has ended: its SIGTERM shall come while it is unheard
)
_END_SECONDS = 60.0  # that the other processes have to end, when one has failed
_INTERRUPTED = 130  # the exit code of a process that Ctrl-C has ended
_PARENT = "EXPERTISE_PARENT"  # in the environment of processes for --num_gpu: who started them
_runs = itertools.count()  # of this process: one after the other, each with its own part of the store


@contextmanager
def joined(flags: Flags) -> Iterator[Processes]:
    """Join the processes of a run for as long as the block runs. Where torchrun started none, there is one.

    An error that the first process raises too ends the others in silence (SystemExit), so it is said once.

    Raises
    ------
    FlagError : a flag is wrong, or differs between the processes.
    ProcessError : another process has ended, or does not answer.
    """
    if not _has_others():
        check(flags, "train")
        if flags.num_gpu > 1 and "RANK" not in os.environ:
            why = "--device=cpu" if flags.device == "cpu" else "torch finds no GPU here"
            print(f"--num_gpu={flags.num_gpu} is ignored: {why}", file=sys.stderr)
        yield Processes.one(choose_device(flags.device))
        return
    with terminable() as pass_by, Path(os.devnull).open("w") as nowhere:
        store, peers, rank = _meet()
        wakes = threading.current_thread() is threading.main_thread()
        own = store.clone()  # type: ignore[attr-defined] # torch's stubs lack it
        parent = int(os.environ.get(_PARENT, "0"))
        watch = Watch(own, peers, rank, partial(_advised, flags=flags), wakes=wakes, parent=parent)
        watch.start()
        try:
            device = _begin(flags, store, rank, len(peers))
            processes = Processes(rank, len(peers), device, sys.stderr if rank == 0 else nowhere)
            processes.agree(_must_agree(flags, device))
            yield processes
            pass_by()
            watch.stop()
            watch.leave(Farewell())
            if rank == 0:  # the store may be in this process, so it leaves last
                for other in range(1, len(peers)):
                    watch.farewell(other, _FIND_SECONDS)
        except BaseException as error:
            pass_by()
            verdict = _verdict(watch, peers, rank, error, flags)
            if verdict is error:
                raise
            raise verdict from error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            watch.stop()


def _has_others() -> bool:
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _meet() -> tuple[Store, list[Peer], int]:
    """Find the other processes.

    Returns
    -------
    The store that all share, all of them, and the rank of this one.
    """
    try:
        shared, rank, world = _shared_store()
        store = PrefixStore(f"expertise/{next(_runs)}", shared)
        Watch.announce(store, Peer.here(rank))
        store.wait([f"here/{other}" for other in range(world)], JOIN)
        return store, [Peer(**json.loads(store.get(f"here/{other}"))) for other in range(world)], rank
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ProcessError(
            f"not all of the {os.environ['WORLD_SIZE']} processes of the run have come to {where} within "
            f"{JOIN.seconds // 60} minutes ({' '.join(str(error).split())}); start all again, with torchrun, "
            "and see what they say"
        ) from error


@cache
def _shared_store() -> tuple[Store, int, int]:
    """Give the store of torchrun or of the first process, rank and world; kept, as other runs may follow."""
    store, rank, world = next(iter(rendezvous("env://", timeout=JOIN)))
    return store, rank, world


def _begin(flags: Flags, store: Store, rank: int, world: int) -> torch.device:
    """Choose the device, and start what the processes exchange tensors with."""
    check(flags, "train")
    device = choose_device(flags.device)
    if device.type == "cuda":
        local, gpus = int(os.environ.get("LOCAL_RANK", rank)), torch.cuda.device_count()
        if local >= gpus:
            raise FlagError(
                f"process {local} of this machine (LOCAL_RANK) finds no GPU for itself, there are {gpus}; "
                f"start {gpus} processes a machine, or give --device=cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    # flags, figures and signals of several processes stay on the CPU, gradients where they are
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend, store=PrefixStore("group", store), rank=rank, world_size=world, timeout=PATIENCE
    )
    return device


def _must_agree(flags: Flags, device: torch.device) -> dict[str, object]:
    """Give what all processes must have been given; where files are may differ by machine."""
    places = {"train_data_pattern", "eval_data_pattern", "vocabulary", "teacher"}
    lasting = {name for name in table.of_command("train") if table.ENTRIES[name].resume != table.FREE}
    together = {"start_new_model", "export_model_steps", "log_device_placement"}
    return {f"--{name}": getattr(flags, name) for name in sorted((lasting | together) - places)} | {
        "--device": device.type,
        "--cache_dir=none": flags.cache_dir == "none",
        "whether --eval_data_pattern is given,": flags.eval_data_pattern != "",
    }


# ---- when a process fails


def _verdict(watch: Watch, peers: list[Peer], rank: int, error: BaseException, flags: Flags) -> BaseException:
    """Say what this process ends with, and tell the others why it leaves."""
    name = watch.name(peers[rank])
    finding = _finding(watch, peers, rank, error)
    if finding:
        watch.leave(Farewell(finding))
        first = watch.farewell(0, 0.0)
        time.sleep(_SETTLE_SECONDS)
        if rank != 0 and first is not None and first.error:
            return SystemExit(1)  # the first process says it
        return ProcessError(_advised(finding, flags))
    if isinstance(error, KeyboardInterrupt):
        watch.leave(Farewell(f"{name} was interrupted"))
        return error if rank == 0 else SystemExit(_INTERRUPTED)
    own = f"{type(error).__name__}: {error}"
    watch.leave(Farewell(f"{name} has ended: {own}", own))
    first = watch.farewell(0, _FIND_SECONDS) if rank != 0 else None
    return SystemExit(1) if first is not None and first.error == own else error


def _finding(watch: Watch, peers: list[Peer], rank: int, error: BaseException) -> str:
    """Say which other process is behind an error; empty where none is."""
    if isinstance(error, Terminated):
        return watch.finding(_FIND_SECONDS)
    if isinstance(error, KeyboardInterrupt):
        return ""
    # torch's operations on all processes raise RuntimeError, of no narrower kind
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return ""
    near = all(peer.near(peers[rank]) for peer in peers)
    return watch.finding(_FIND_SECONDS if near else _FIND_FAR_SECONDS)


def _advised(finding: str, flags: Flags) -> str:
    """Add to a finding where the run can be taken up."""
    steps = checkpoint.steps_of(Path(flags.train_dir))
    if not steps:
        return f"{finding}; there is no checkpoint yet, the same command begins anew"
    step = max(steps)
    again = "the same command without --start_new_model" if flags.start_new_model else "the same command"
    return f"{finding}; the last checkpoint is {steps[step]} (step {step}), {again} goes on from there"


# ---- one process for each GPU


def gpus_to_use(flags: Flags) -> int:
    """Give how many processes `--num_gpu` asks for; 1 where there is no GPU, or torchrun started this one.

    Raises
    ------
    FlagError : there are fewer GPUs.
    """
    if "RANK" in os.environ or flags.num_gpu <= 1 or flags.device == "cpu":
        return 1
    gpus = torch.cuda.device_count()
    if gpus and flags.num_gpu > gpus:
        raise FlagError(
            f"--num_gpu={flags.num_gpu}: torch finds {gpus} GPU{'s' if gpus > 1 else ''} here; give at most "
            f"{gpus}, or start processes on several machines with torchrun"
        )
    return flags.num_gpu if gpus else 1


def run_processes(flags: Flags, count: int) -> None:
    """Train in so many processes on this machine, with torchrun's environment, and wait for their end.

    Ctrl-C and SIGTERM go to each of them once.

    Raises
    ------
    FlagError : a flag is wrong.
    ProcessError : a process has failed; it has said why.
    """
    check(flags, "train")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    threads = max(1, (os.cpu_count() or 1) // count)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # it is here
        "TORCHELASTIC_RESTART_COUNT": "0",
        _PARENT: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    command = [sys.executable, "-m", "expertise", "youtube8m", "train", *_arguments(flags)]
    children: list[subprocess.Popen[bytes]] = []
    try:
        with forwarded(lambda number: _signal(children, number)):
            for rank in range(count):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # a session of its own: a terminal's Ctrl-C would reach it twice
                children.append(
                    subprocess.Popen(command, env={**os.environ, **shared, **own}, start_new_session=True)
                )
            _wait(children)
    finally:
        _signal(children, signal.SIGKILL)
        codes = [child.wait() for child in children]
    failed = [f"process {rank} of {count} with code {code}" for rank, code in enumerate(codes) if code]
    if failed and set(codes) - {0, _INTERRUPTED}:
        raise ProcessError(f"training has failed, see above; ended have {', '.join(failed)}")


def _arguments(flags: Flags) -> list[str]:
    """Write flags as a command line; defaults are left out."""
    arguments = []
    for name in table.of_command("train"):
        value = getattr(flags, name)
        if value == table.default(name, "train"):
            continue
        if isinstance(value, bool):
            arguments.append(f"--{'' if value else 'no'}{name}")
        else:
            arguments.append(f"--{name}={value}")
    return arguments


def _signal(children: list["subprocess.Popen[bytes]"], number: int) -> None:
    for child in children:
        child.send_signal(number)  # nothing, where it has ended


def _wait(children: list["subprocess.Popen[bytes]"]) -> None:
    """Wait until all have ended, or for some time after one has failed."""
    until = float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < until:
        if until == float("inf") and any(
            child.returncode not in (None, 0, _INTERRUPTED) for child in children
        ):
            until = time.monotonic() + _END_SECONDS
        time.sleep(0.1)
