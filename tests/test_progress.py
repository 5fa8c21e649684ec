"""The progress bar tells rate and time left, also where output is piped."""

import io
import re

import pytest

from expertise import _progress
from expertise._progress import progress


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(_progress.time, "monotonic", lambda: self.now)


def test_piped_output_is_plain_lines_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), io.StringIO()
    with progress("train", 1000, "videos", stream=output) as meter:
        for _ in range(4):
            clock.now += 3.0
            meter.advance(150, note="loss 1.5")
    lines = output.getvalue().splitlines()
    assert lines[0] == "train: 300/1,000 videos, 50 videos/s, 0:14 left | loss 1.5"
    assert lines[1] == "train: 600/1,000 videos, 50 videos/s, 0:08 left | loss 1.5"
    assert len(lines) == 2  # where it stopped is what was shown last: not said twice


def test_the_end_is_shown_even_if_it_came_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), io.StringIO()
    with progress("convert", 3, "files", stream=output) as meter:
        clock.now += 1.0
        meter.advance(3)
    assert output.getvalue().splitlines() == ["convert: 3/3 files, 3 files/s"]


def test_a_resumed_run_counts_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), io.StringIO()
    with progress("train", 1000, "steps", done=900, stream=output) as meter:
        clock.now += 10.0
        meter.advance(50)
    assert output.getvalue().splitlines()[0] == "train: 950/1,000 steps, 5 steps/s, 0:10 left"


def test_an_unknown_total(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), io.StringIO()
    with progress("read", None, "records", stream=output) as meter:
        clock.now += 3600.0
        meter.advance(7200)
        meter.say("a line of its own")
    assert output.getvalue().splitlines()[:2] == ["read: 7,200 records, 2 records/s", "a line of its own"]


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    output = Terminal()
    with progress("train", 10, "steps", stream=output) as meter:
        meter.advance(10, note="GAP 0.5")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue())
    assert "100%" in shown
    assert "GAP 0.5" in shown
