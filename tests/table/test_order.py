"""The last rows held out: by dates or numbers, moments whole, judged by what rows in an order tell."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from expertise.table import Request, Wishes, explain_rows, fit_table
from expertise.table.scoring import difference, telling
from expertise.table.splitting import hold_out_last
from expertise.table.streamed import fit_streamed
from table.making import bent, fitted, quiet, write


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.floats(0.05, 0.9))
def test_no_fitted_row_is_later_than_a_held_out_one(moments: list[int], share: float) -> None:
    order = np.array(moments, float)
    held = round(share * len(order))
    latest = np.sort(order)[::-1]
    if not held or latest[held - 1] == latest[-1]:
        with pytest.raises(ValueError, match="rows of the same moment stay together"):
            hold_out_last(order, share)
        return
    train, test = hold_out_last(order, share)
    assert sorted([*train, *test]) == list(range(len(order)))
    assert order[train].max() < order[test].min()
    assert len(test) >= held
    assert (order[test] > order[test].min()).sum() < held, "one moment at most reaches over the share"


# -- how much rows in an order tell


def autoregressive(r: float, n: int, seed: int) -> Any:
    """Numbers that follow their past by r, about 0 in the long run."""
    found = np.zeros(n + 100)
    for i, push in enumerate(np.random.default_rng(seed).normal(size=n + 99)):
        found[i + 1] = r * found[i] + push
    return found[100:]


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_rows_that_follow_their_past_tell_less(r: float) -> None:
    found = telling(autoregressive(r, 200_000, 0)) / 200_000
    assert found == pytest.approx((1 - r) / (1 + r), rel=0.03)


@pytest.mark.parametrize(("r", "most"), [(0.0, 40), (0.6, 45), (0.9, 55)])
def test_a_difference_that_is_none_is_seldom_found(r: float, most: int) -> None:
    """Of 1,000 comparisons of equals 25 should call the first one better; hundreds would if rows counted."""
    n, time = 100, np.arange(100)
    found = {True: 0, False: 0}
    for seed in range(1000):
        apart = autoregressive(r, n, seed)
        for in_order in found:
            found[in_order] += difference(apart, np.zeros(n), np.ones(n), time, in_order=in_order)[2] < 0
    assert found[True] < most
    assert found[False] > 100 or r < 0.5


def test_a_clear_difference_is_found_in_order_too() -> None:
    found = 0
    for seed in range(200):
        apart = np.random.default_rng(seed).normal(size=100) - 0.4
        found += difference(apart, np.zeros(100), np.ones(100), np.arange(100), in_order=True)[2] < 0
    assert found > 180


def test_moments_are_put_in_order_and_rows_of_one_count_together() -> None:
    rng = np.random.default_rng(0)
    apart, weight, time = autoregressive(0.8, 300, 1), rng.random(300), np.repeat(np.arange(100.0), 3)
    whole = difference(apart, np.zeros(300), weight, time, in_order=True)
    mixed = rng.permutation(300)
    again = difference(apart[mixed], np.zeros(300), weight[mixed], time[mixed], in_order=True)
    assert again == pytest.approx(whole)
    parts = np.array([(weight * (apart - whole[0]))[time == one].sum() for one in range(100)]) / weight.sum()
    count = telling(parts)
    half = stats.t.ppf(0.975, count - 1) * np.sqrt(100 / 99 * 100 / count * (parts**2).sum())
    assert whole == pytest.approx((whole[0], whole[0] - half, whole[0] + half))
    heavier = np.concatenate([weight, np.zeros(50)])  # rows of no weight, at moments of their own
    longer = np.append(time, np.arange(100, 150))
    further = difference(np.append(apart, rng.normal(size=50)), np.zeros(350), heavier, longer, in_order=True)
    assert further == pytest.approx(whole)


@pytest.mark.parametrize("shape", ["csv", "parquet", "day first", "number"])
def test_the_last_rows_are_held_out(tmp_path: Path, shape: str) -> None:
    frame = bent(100).sample(frac=1, random_state=1).reset_index(drop=True)
    place = frame["day"].rank().to_numpy() - 1
    since = "2024-03-21"
    if shape == "day first":
        frame["day"] = frame["day"].dt.strftime("%d/%m/%Y")
    elif shape == "number":
        frame["day"], since = place, "80"
    said: list[str] = []
    path = write(frame, tmp_path / ("t.parquet" if shape == "parquet" else "t.csv"))
    model = fit_table(path, Request("y", experts=2, order="day"), say=said.append)
    assert model.kept is not None
    assert sorted(place[model.kept.row]) == list(range(80, 100))
    assert f"fit: 80 rows; held out: 20 (20%, day from {since} on)" in said
    assert ("rows", f"80 fitted, 20 held out, day from {since} on (seed 0)") in model.facts
    assert re.search(
        r"on 20 held-out rows in their order, as telling as \d+ in no order, against", model.verdict
    )


def test_the_column_of_the_order_need_not_be_an_input(tmp_path: Path) -> None:
    model = fitted(write(bent(60), tmp_path / "t.csv"), order="day", wishes=Wishes(drop=("day",)))
    assert "day" not in [column.name for column in model.encoder.columns]
    assert model.kept is not None
    assert model.kept.row.tolist() == list(range(48, 60))


def test_a_class_that_comes_later_is_said(tmp_path: Path) -> None:
    frame = bent(60)
    frame["y"] = ["a", "b"] * 25 + ["a", "c"] * 5
    said: list[str] = []
    fit_table(write(frame, tmp_path / "t.csv"), Request("y", experts=1, order="day"), say=said.append)
    assert "5 held-out rows are left out: no fitted row has their class ('c')" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "dya"}, "--order=dya: t.parquet has no such column; did you mean 'day'?"),
        ({"order": "y"}, "--order=y is the target; give the column that tells the time"),
        ({"order": "colour"}, "--order=colour holds a category, as '"),
        (
            {"order": "size"},
            "column 'size': it is missing, and so is the place of the row in the order",
        ),
        ({"order": "day", "groups": "colour"}, "--order=day holds out the last rows, and --groups=colour"),
        ({"order": "day", "test": 0}, "--order=day is how rows are held out, and --test=0 holds out none"),
        ({"order": "same"}, "--test=0.2 of 60 rows in their order holds out 60, and leaves 0 (rows of the"),
    ],
)
def test_orders_that_cannot_be(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = write(bent(60).assign(same=1), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=re.escape(message)):
        fitted(path, **options)


def test_a_stream_has_no_order(tmp_path: Path) -> None:
    path = write(bent(60), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="--order=day needs all rows at once, and --stream reads them in"):
        fit_streamed(path, Request("y", order="day"), say=quiet)


# -- dates that can be read in two ways


@pytest.mark.parametrize(
    ("form", "since"),
    [
        ("%Y-%m-%d %H:%M:%S+02:00", "2024-03-20T22:00:00"),
        ("%Y-%m-%dT%H:%M:%S-0500", "2024-03-21T05:00:00"),
        ("%d.%m.%Y %H:%M", "2024-03-21"),
        ("%m/%d/%Y %H:%M", "2024-03-21"),
        ("%Y%m%d", "20240321"),
    ],
)
def test_ways_to_write_a_moment(tmp_path: Path, form: str, since: str) -> None:
    frame = bent(100)
    frame["day"] = frame["day"].dt.strftime(form)
    said: list[str] = []
    fit_table(write(frame, tmp_path / "t.csv"), Request("y", experts=1, order="day"), say=said.append)
    assert f"fit: 80 rows; held out: 20 (20%, day from {since} on)" in said


def test_months_are_dates(tmp_path: Path) -> None:
    frame = bent(100)
    frame["day"] = [f"{2001 + i // 12}-{i % 12 + 1:02d}" for i in range(100)]
    model = fitted(write(frame, tmp_path / "t.csv"), order="day", experts=1)
    assert "day from 2007-09-01 on" in dict(model.facts)["rows"]


def test_held_out_rows_are_out_of_reach_and_may_lack_a_target(tmp_path: Path) -> None:
    frame = bent(100)
    frame.loc[[98, 99], "y"] = None  # the future: nothing is known of it, not even when
    frame.loc[99, "day"] = pd.NaT
    path = write(frame, tmp_path / "t.parquet")
    model = fitted(path, order="day", experts=1)
    day = model.encoder.columns[model.encoder.number("day")]
    assert (day.text(day.low), day.text(day.high)) == ("2024-01-01", "2024-03-18")
    assert "extrapolated: day is 2024-04-07 (the fit had 2024-01-01 to 2024-03-18)" in explain_rows(
        model, path, [97]
    )


@pytest.mark.parametrize("day_first", [False, True])
def test_day_and_month_are_told_apart_or_it_is_said(tmp_path: Path, day_first: bool) -> None:
    frame = bent(60)
    frame["day"] = ["03/04/2024", "05/06/2024", "12/01/2024"] * 20
    said: list[str] = []
    wanted = Request("y", experts=1, wishes=Wishes(day_first=day_first))
    model = fit_table(write(frame, tmp_path / "t.csv"), wanted, say=said.append)
    day = model.encoder.columns[model.encoder.number("day")]
    assert day.text(day.low) == ("2024-01-12" if day_first else "2024-03-04")
    asked = "dates          day: read as month/day/year; day/month/year is possible too: --day-first"
    assert (asked in said[0]) == (not day_first)


def test_a_day_over_twelve_says_how_dates_are_written(tmp_path: Path) -> None:
    frame = bent(60)
    for first, form in (("01/13/2024", "%m/%d/%Y"), ("13/01/2024", "%d/%m/%Y")):
        frame["day"] = [first, "03/04/2024", "05/06/2024"] * 20
        said: list[str] = []
        model = fit_table(write(frame, tmp_path / "t.csv"), Request("y", experts=1), say=said.append)
        assert model.encoder.columns[model.encoder.number("day")].form == form
        assert "is possible too" not in said[0]
