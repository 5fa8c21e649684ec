"""One progress bar for all long work: a live bar in a terminal, plain lines where output is piped."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 5.0  # between two plain lines


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Meter:
    """Counts work done; shows share, rate and time left. Made by `progress`."""

    def __init__(self, title: str, total: int | None, unit: str, done: int, stream: TextIO) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = self._first = done
        self._note = ""
        self._shown: tuple[int, str] | None = None
        self._start = self._last_line = time.monotonic()
        self._stream = stream
        self._bar: Progress | None = None
        if stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}"),
                console=Console(file=stream),
            )
            self._task = self._bar.add_task(title, total=total, completed=done, rate="", note="")
            self._bar.start()

    def advance(self, amount: int = 1, note: str | None = None) -> None:
        """Count ``amount`` more units; ``note`` is shown at the end of the line until the next one."""
        self._done += amount
        if note is not None:
            self._note = note
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=self._rate(), note=self._note)
        elif time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._line()

    def say(self, text: str) -> None:
        """Print a line of its own, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Show the final state and stop."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=self._rate(), note=self._note)
            self._bar.stop()
        elif self._shown != (self._done, self._note):
            self._line()

    def _per_second(self) -> float:
        return (self._done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _rate(self) -> str:
        rate = self._per_second()
        return f"{rate:,.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s"

    def _line(self) -> None:
        self._last_line = time.monotonic()
        self._shown = self._done, self._note
        of_all = f"/{self._total:,}" if self._total else ""
        share = f"{self._done:,}{of_all} {self._unit}"
        left = ""
        if self._total and self._done > self._first and self._done < self._total:
            left = f", {_clock((self._total - self._done) / self._per_second())} left"
        note = f" | {self._note}" if self._note else ""
        print(f"{self._title}: {share}, {self._rate()}{left}{note}", file=self._stream, flush=True)


@contextmanager
def progress(
    title: str, total: int | None, unit: str, *, done: int = 0, stream: TextIO | None = None
) -> Iterator[Meter]:
    """Show a progress bar while the block runs.

    Parameters
    ----------
    title : what is being done, in a word or two.
    total : units of work in all, None where unknown.
    unit : what is counted ("videos", "shards").
    done : units that were done before (a resumed run).
    stream : where to write; standard error unless given.
    """
    meter = Meter(title, total, unit, done, stream if stream is not None else sys.stderr)
    try:
        yield meter
    finally:
        meter.close()
