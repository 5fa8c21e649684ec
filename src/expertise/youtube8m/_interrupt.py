"""Ctrl-C and SIGTERM: what waits for the end of a step, what ends a block at once, and what passes by."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it ends what goes on as Ctrl-C does."""


@contextmanager
def interruptible(stream: TextIO | None = None) -> Iterator[threading.Event]:
    """Give an event that Ctrl-C or SIGTERM sets; a second one interrupts at once.

    Outside the main thread, where signals can't be taken, the event is never set.

    Parameters
    ----------
    stream : where Ctrl-C is answered; standard error unless given. SIGTERM comes from a program.
    """
    interrupted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        interrupted.set()
        if number == signal.SIGINT:
            print(
                "stopping after this step; once more stops at once, without saving", file=stream or sys.stderr
            )

    with _handled(note, signal.SIGINT, signal.SIGTERM):
        yield interrupted


@contextmanager
def terminable() -> Iterator[Callable[[], None]]:
    """Have SIGTERM raise `Terminated` in the block; from a call of what is given on, it passes by unheard."""
    deaf = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if not deaf.is_set():
            raise Terminated

    with _handled(end, signal.SIGTERM):
        yield deaf.set


@contextmanager
def forwarded(receive: Callable[[int], None]) -> Iterator[None]:
    """Call ``receive`` with the number of each SIGINT and SIGTERM, which do nothing else in the block."""
    with _handled(lambda number, frame: receive(number), signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals in the block; outside the main thread, where that can't be, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
