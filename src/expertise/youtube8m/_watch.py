"""Whether the other processes of a run live, so that none waits for one that will never come.

A collective operation waits for all processes, for hours where one of them converts records. That one of them
has died is found here, by a thread that looks once a second:

- of a process on this machine, the system tells whether it has ended or was stopped, however busy it is;
- of one on another machine, its beats tell: numbers that it writes into a store which all processes share;
- that the process has died which started these for `--num_gpu`, their own parent tells: it is another then.

Silence is counted in looks of one's own, not in seconds: a machine that slept has not looked either.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from torch.distributed.distributed_c10d import Store

from expertise.youtube8m.reading.cache_folder import boot

LOOK_SECONDS = 1.0
SILENT_LOOKS = 30
GRACE_SECONDS = 10.0  # that the main thread has to end by itself, once a process is found missing
STORE_SECONDS = 5.0  # that the store has to answer
LOST_STORE = 6  # questions in a row that it has left open


@dataclass(frozen=True)
class Peer:
    """A process of the run.

    machine : the same for all whose process ids mean the same; empty where the system does not tell.
    started : when the process began, in ticks of the machine, so that its id is not taken for another's.
    """

    rank: int
    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def here(cls, rank: int) -> Self:
        """Give this process."""
        pid = os.getpid()
        try:
            machine = f"{boot()} {Path('/proc/self/ns/pid').readlink()}"
        except OSError:
            machine = ""
        return cls(rank, socket.gethostname(), machine, pid, _stat(pid)[1])

    def near(self, other: "Peer") -> bool:
        """Whether the other one can be looked at from here."""
        return bool(self.machine) and self.machine == other.machine

    @property
    def has_ended(self) -> bool:
        """Of a near one: whether it has. One that nobody has waited for yet (a zombie) has ended too."""
        state, started = _stat(self.pid)
        return state in ("", "Z", "X") or started != self.started

    @property
    def is_stopped(self) -> bool:
        """Of a near one: whether a signal has stopped it. A debugger may: it shows as another state."""
        return _stat(self.pid)[0] == "T"


def _stat(pid: int) -> tuple[str, str]:
    """State and start time of a process, both empty where there is none (proc(5), /proc/PID/stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


@dataclass(frozen=True)
class Farewell:
    """What a process says as it leaves the run.

    finding : which process has failed, and how; empty where none has.
    error : its own error, by name and text; empty where it has none.
    """

    finding: str = ""
    error: str = ""


class Watch:
    """Looks after the other processes of a run, from `start` until `leave`.

    When one is missing, the finding is kept for the main thread, which mostly fails at the same moment,
    because what it waits for breaks off; it gets a SIGTERM too (``wakes``). Where it hangs all the same, the
    process says the finding and exits. Nothing is lost by that: what it was writing has no name yet.

    Parameters
    ----------
    store : a client of the store that all processes share; nobody else may use it.
    peers : all processes, by rank.
    rank : of this one.
    last_words : makes of a finding what is said where the process exits.
    wakes : whether SIGTERM is handled in this process, so that it may be sent.
    parent : id of the process that started this one and shall outlive it; 0: none has to.
    look_seconds, silent_looks, grace_seconds : see the constants.
    """

    def __init__(
        self,
        store: Store,
        peers: Sequence[Peer],
        rank: int,
        last_words: Callable[[str], str],
        *,
        wakes: bool,
        parent: int = 0,
        look_seconds: float = LOOK_SECONDS,
        silent_looks: int = SILENT_LOOKS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._store, self._peers, self._rank = store, list(peers), rank
        self._last_words, self._wakes, self._parent = last_words, wakes, parent
        self._look_seconds, self._silent_looks = look_seconds, silent_looks
        self._grace_seconds = grace_seconds
        self._lock = threading.Lock()  # of the store
        self._lost = 0  # questions in a row that the store has not answered
        self._looks = 0
        self._beats = [""] * len(self._peers)
        self._farewells = [""] * len(self._peers)
        self._silence = [0] * len(self._peers)
        self._finding = ""
        self._found, self._stopped = threading.Event(), threading.Event()
        store.set_timeout(timedelta(seconds=STORE_SECONDS))
        self._thread = threading.Thread(target=self._watch, name="watch the processes", daemon=True)

    @staticmethod
    def announce(store: Store, peer: Peer) -> None:
        """Write what all others wait for before they make their watch."""
        store.set(f"beat/{peer.rank}", "0")
        store.set(f"left/{peer.rank}", "")
        store.set(f"here/{peer.rank}", json.dumps(asdict(peer)))

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def finding(self, seconds: float) -> str:
        """Say which process is missing, and how; empty where none is found missing in so many seconds."""
        self._found.wait(seconds)
        return self._finding

    def farewell(self, rank: int, seconds: float) -> Farewell | None:
        """Give what a process has said as it left; None where it says nothing in so many seconds."""
        until = time.monotonic() + seconds
        while True:
            self._ask()
            if text := self._farewells[rank]:
                return Farewell(**json.loads(text))
            if time.monotonic() >= until:
                return None
            time.sleep(self._look_seconds / 10)

    def leave(self, farewell: Farewell) -> None:
        """Say good-bye: nobody shall miss this process."""
        with suppress(RuntimeError), self._lock:
            self._store.set(f"left/{self._rank}", json.dumps(asdict(farewell)))

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(self._look_seconds)  # it may be waiting for the store

    def _watch(self) -> None:
        while not self._stopped.wait(self._look_seconds):
            before = list(self._beats)
            if self._lost < LOST_STORE:  # on one machine the system alone tells enough
                self._looks += 1
                with suppress(RuntimeError), self._lock:
                    self._store.set(f"beat/{self._rank}", str(self._looks))
                self._ask()
            self._finding = self._judged(before)
            if self._finding:
                self._found.set()
                self._end()
                return

    def _ask(self) -> None:
        """Read what all processes have written."""
        ranks = range(len(self._peers))
        keys = [f"{kind}/{rank}" for kind in ("beat", "left") for rank in ranks]
        try:
            with self._lock:
                values = [value.decode() for value in self._store.multi_get(keys)]
        except RuntimeError:  # the store has gone, or is stopped
            self._lost += 1
            return
        self._lost = 0
        self._beats, self._farewells = values[: len(self._peers)], values[len(self._peers) :]

    def _judged(self, beats_before: Sequence[str]) -> str:
        """Say what is wrong; empty where nothing is."""
        here = self._peers[self._rank]
        others = [(peer, self._farewells[peer.rank]) for peer in self._peers if peer is not here]
        # who left tells most: a process that is missed by many was named by the first who missed it
        for _, said in others:
            if said and (finding := Farewell(**json.loads(said)).finding):
                return finding
        if self._parent and os.getppid() != self._parent:
            return f"the process that started the run (pid {self._parent}) has ended"
        for peer, said in others:
            if said:
                continue
            if peer.near(here):
                if peer.has_ended:
                    return f"{self.name(peer)} has ended"
                silent = peer.is_stopped
            else:
                silent = self._lost == 0 and self._beats[peer.rank] == beats_before[peer.rank]
                if self._lost >= LOST_STORE:
                    return "the store that the processes share, on the first one's machine, does not answer"
            self._silence[peer.rank] = self._silence[peer.rank] + 1 if silent else 0
            if self._silence[peer.rank] >= self._silent_looks:
                seconds = self._silent_looks * self._look_seconds
                return f"{self.name(peer)} has not answered for {seconds:g} seconds"
        return ""

    def name(self, peer: Peer) -> str:
        """Give how messages call a process."""
        where = "" if peer.host == self._peers[self._rank].host else f" on {peer.host}"
        return f"process {peer.rank} of {len(self._peers)} (pid {peer.pid}{where})"

    def _end(self) -> None:
        """See that the process ends, whatever the main thread is doing."""
        if self._wakes and not self._stopped.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
        if not self._stopped.wait(self._grace_seconds):
            print(f"expertise: {self._last_words(self._finding)}", file=sys.stderr, flush=True)
            os._exit(1)
