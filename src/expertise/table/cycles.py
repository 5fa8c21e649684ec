"""Dates on the page: what a few points along the time cannot show, the week for instance; and how to show it.

Letters: m points of a grid, s rows.
"""

from dataclasses import dataclass

import numpy as np

from expertise.table.columns import DAY, WEEK, YEAR, Column
from expertise.table.values import Floats

STEPS = 4  # of a grid, that a cycle needs to be seen on it


@dataclass(frozen=True)
class Cycle:
    """A cycle of the calendar in slots of equal length; its first one begins at ``origin``, in seconds."""

    name: str
    period: float
    origin: float
    slots: tuple[str, ...]

    def slot(self, x: Floats) -> Floats:
        """Give the number of the slot of each moment; NaN where it is missing."""
        return np.floor((x - self.origin) % self.period / self.period * len(self.slots))

    def moved(self, x: Floats, slot: int) -> Floats:
        """Put each moment into another slot of its own week (day, year)."""
        return np.asarray(x + (slot - self.slot(x)) * self.period / len(self.slots))


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
HOURS = tuple(f"{hour} to {hour + 3} h" for hour in range(0, 24, 3))
CYCLES = (
    Cycle("month", YEAR, 0.0, MONTHS),  # twelfths of the mean year: a day early or late
    Cycle("day of the week", WEEK, 4 * DAY, DAYS),  # 1970-01-05 was a Monday
    Cycle("hour", DAY, 0.0, HOURS),
)


def hidden(column: Column, at: Floats) -> list[Cycle]:
    """Give the cycles in which a date can vary, and for which a grid (m,) along the time is too coarse."""
    step = float(np.ptp(at)) / max(1, len(at) - 1)
    return [cycle for cycle in CYCLES if cycle.period in column.waves and cycle.period < STEPS * step]


def placed(column: Column, at: Floats, own: Floats) -> Floats:
    """Give what the values (s,) of rows become at each point (m,) of a grid: (m, s).

    A date goes to the grid's, but keeps its own place in the cycles that the grid hides: a few points would
    show a wave that is not there.
    """
    period = max((cycle.period for cycle in hidden(column, at)), default=0.0)
    if not period:
        return np.repeat(at[:, None], len(own), axis=1)
    kept = own + np.round((at[:, None] - own) / period) * period
    return np.where(np.isnan(kept), at[:, None], kept)
