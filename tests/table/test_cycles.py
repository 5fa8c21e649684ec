"""Dates on the page: a coarse grid draws no waves that are not there; the cycles that it hides are shown."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expertise.report._mixture_gate import profiles
from expertise.report.record import Column as ShownColumn
from expertise.table import pages, showing
from expertise.table.columns import DAY, WEEK, YEAR, Column
from expertise.table.cycles import CYCLES, hidden, placed
from table.making import fitted, thin, write

HOUR = DAY / 24
DATES = pd.date_range("2024-01-01", periods=400, freq="D").to_numpy().astype("datetime64[s]").astype(float)
COLUMN = Column("day", "date", float(DATES[200]), DATES[0], DATES[-1], True, waves=(YEAR, WEEK))


@pytest.fixture(autouse=True, scope="module")
def _thin() -> Iterator[None]:
    with thin():
        yield


def of_calendar(name: str, moment: float) -> int:
    """The slot by the standard library's calendar."""
    time = datetime.fromtimestamp(moment, UTC)
    return {"month": time.month - 1, "day of the week": time.weekday(), "hour": time.hour // 3}[name]


@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.name)
def test_slots_are_those_of_the_calendar(cycle: Any) -> None:
    moments = np.random.default_rng(0).integers(0, 2_000_000_000, 2000).astype(float)
    found = cycle.slot(moments)
    expected = np.array([of_calendar(cycle.name, moment) for moment in moments])
    # twelfths of a mean year are no months to the day
    assert (found == expected).mean() >= (0.9 if cycle.name == "month" else 1.0)
    assert np.isnan(cycle.slot(np.array([np.nan]))[0])
    assert len(cycle.slots) == found.max() + 1


@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.name)
def test_a_moment_moves_within_its_own_cycle(cycle: Any) -> None:
    moments = np.random.default_rng(1).integers(0, 2_000_000_000, 500).astype(float)
    length = cycle.period / len(cycle.slots)
    for slot in range(len(cycle.slots)):
        moved = cycle.moved(moments, slot)
        assert (cycle.slot(moved) == slot).mean() > 0.99  # on a border between two, rounding decides
        assert np.abs(moved - moments).max() < cycle.period
        np.testing.assert_allclose(
            (moved - moments) / length, np.round((moved - moments) / length), atol=1e-6
        )


def test_a_coarse_grid_leaves_the_day_of_the_week() -> None:
    """A few points a year would fall on another day of the week each time, and draw a wave of their own."""
    shown = ShownColumn("day", "date", (), DATES, float(DATES[200]), 1.0, 1.0)
    at = showing.grid(shown, showing.POINTS)
    assert (at % DAY == 0).all()
    assert [cycle.name for cycle in hidden(COLUMN, at)] == ["day of the week"]
    found = placed(COLUMN, at, DATES)
    assert found.shape == (25, 400)
    np.testing.assert_array_equal(found % WEEK, np.tile(DATES % WEEK, (25, 1)))
    assert np.abs(found - at[:, None]).max() <= WEEK / 2
    gone = placed(COLUMN, at, np.array([np.nan]))
    np.testing.assert_array_equal(gone[:, 0], at)


def test_a_grid_of_years_leaves_the_season() -> None:
    years = np.linspace(0, 30 * YEAR, 25)
    assert [cycle.name for cycle in hidden(COLUMN, years)] == ["month", "day of the week"]
    found = placed(COLUMN, years, DATES)
    assert np.abs(np.sin(2 * np.pi * found / YEAR) - np.sin(2 * np.pi * DATES / YEAR)).max() < 1e-6


def test_a_fine_grid_hides_nothing() -> None:
    fine = np.linspace(DATES[0], DATES[0] + 5 * DAY, 25)
    assert hidden(COLUMN, fine) == []
    assert (placed(COLUMN, fine, DATES) == fine[:, None]).all()


def test_a_law_of_the_weekend_is_shown_by_the_days_of_the_week(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 420
    day = pd.date_range("2024-01-01", periods=n, freq="D")
    x, weekend = rng.normal(size=n), np.arange(n) % 7 >= 5  # the first day is a Monday
    frame = pd.DataFrame(
        {"day": day, "x": x, "y": np.where(weekend, 5 - 3 * x, 3 * x) + 0.1 * rng.normal(size=n)}
    )
    model = fitted(write(frame, tmp_path / "t.parquet"), order="day")
    assert model.kept is not None
    record = pages.record(model, model.kept, "t")
    along, week = (one for one in record.profiles if record.columns[one.column].name == "day")
    assert week.axis is not None
    assert (week.axis.name, week.axis.levels[5]) == ("day, day of the week", "Saturday")
    rows = model.kept.values
    for slot in (0, 5):  # by a loop over the rows: the same week, another day
        moved = rows.copy()
        for i, own in enumerate(rows[:, model.encoder.number("day")]):
            monday = own - datetime.fromtimestamp(own, UTC).weekday() * DAY
            moved[i, model.encoder.number("day")] = monday + slot * DAY
        gate = model.mixture.gate_proba(model.encoder.encode(moved)).mean(axis=0)
        np.testing.assert_allclose(week.gate[slot], gate)
    lead = week.gate.argmax(axis=1)
    assert len(set(lead[:5])) == 1
    assert lead[5] == lead[6] != lead[0]
    assert np.ptp(along.gate, axis=0).max() < 0.1, "the weeks are alike"
    title = f"By day, day of the week: expert {lead[0]} leads at 5 of 7 levels, expert {lead[5]} at Saturday"
    assert any(figure.title.startswith(title) for figure in profiles(record))


def test_a_cycle_that_moves_nothing_is_not_shown(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 420
    day, x = pd.date_range("2024-01-01", periods=n, freq="D"), rng.normal(size=n)
    frame = pd.DataFrame({"day": day, "x": x, "y": np.where(x > 0, 3 * x, -x) + 0.1 * rng.normal(size=n)})
    model = fitted(write(frame, tmp_path / "t.parquet"), order="day")
    assert model.kept is not None
    assert WEEK in model.encoder.columns[model.encoder.number("day")].waves
    assert all(one.axis is None for one in pages.record(model, model.kept, "t").profiles)
