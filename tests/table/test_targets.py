"""Targets, weights and groups: what is taken for what, and what is wrong with a row."""

import datetime
import re
from typing import Any

import pyarrow as pa
import pytest

from expertise.table.targets import read_groups, read_target, read_weights, task_of


def column(*items: Any) -> Any:
    return pa.chunked_array([pa.array(items)])


@pytest.mark.parametrize(
    ("array", "task"),
    [
        (column(1.5, 2.5, 3.5), "regression"),
        (column("1.5", "2,5", "NA", "3"), "regression"),
        (column(0, 1, 1), "classification"),
        (column("0", "1", ""), "classification"),
        (column(3.0, None, 7.0), "classification"),  # two numbers
        (column(True, False), "classification"),
        (column("a", "b", "c"), "classification"),
        (column("1", "2", "3", "x"), "classification"),
    ],
)
def test_the_task_follows_from_the_target(array: Any, task: str) -> None:
    assert task_of(array, "auto", ()) == task
    assert task_of(array, "regression", ()) == "regression"
    assert task_of(array, "classification", ()) == "classification"


@pytest.mark.parametrize("array", [column("0", "1", "1"), column(0, 1, 1), column(0.0, 1.0, 1.0)])
def test_labels_that_look_like_numbers_are_the_same_from_every_file(array: Any) -> None:
    y, there = read_target("y", array, "classification", (), source="t")
    assert y.tolist() == ["0", "1", "1"]
    assert there.all()


def test_rows_without_a_target() -> None:
    y, there = read_target("y", column("1", "gone", "3"), "regression", ("gone",), source="t")
    assert there.tolist() == [True, False, True]
    assert y[there].tolist() == [1, 3]
    _, there = read_target("y", column("a", "?", "b"), "classification", (), source="t")
    assert there.tolist() == [True, False, True]
    _, there = read_target("y", column(None, None), "regression", (), source="t", fitted=True)
    assert not there.any()  # to report on rows without a target is no error


MANY = [f"label {i}" for i in range(51)]


@pytest.mark.parametrize(
    ("items", "task", "message"),
    [
        (
            ["1", "2", "x"],
            "regression",
            "t.csv, row 102, column 'y': 'x' is not a finite number; rows count from 0; correct it, or use "
            "--task=classification where the target is a label",
        ),
        ([1.0, float("inf")], "regression", "t.csv, row 101, column 'y': 'inf' is not a finite number"),
        ([4, 4, None], "regression", "--target=y is 4 in every row: nothing to predict"),
        (["a", "a"], "classification", "--target=y is 'a' in every row: nothing to predict"),
        ([None, None], "regression", "--target=y is missing in every row of t.csv"),
        (["", "?"], "classification", "--target=y is missing in every row of t.csv"),
        (MANY, "classification", "--target=y has 51 classes, at most 50 are fitted; if it is a number, use"),
        ([True, False], "regression", "--target=y holds bool, and no numbers; use --task=classification"),
        ([datetime.date(2024, 1, 1)], "regression", "--target=y holds date32[day], and no numbers"),
    ],
)
def test_targets_that_cannot_be_used(items: list[Any], task: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_target("y", column(*items), task, (), source="t.csv", first=100)


def test_a_target_of_an_unknown_type() -> None:
    with pytest.raises(ValueError, match=r"the target holds list<item: int64>; known are numbers, text and"):
        task_of(column([1], [2]), "auto", ())


def test_weights() -> None:
    assert read_weights("w", column("0", "1,5", "2"), (), source="t").tolist() == [0, 1.5, 2]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([1, -2], "t.csv, row 6, column 'w': '-2' is no weight: a number of at least 0; rows count from 0"),
        ([1, None], "t.csv, row 6, column 'w': 'nan' is no weight"),
        (["1", "much"], "t.csv, row 6, column 'w': 'much' is no weight"),
        ([datetime.date(2024, 1, 1)], "--weights=w holds date32[day], and no numbers"),
    ],
)
def test_weights_that_are_none(items: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_weights("w", column(*items), (), source="t.csv", first=5)


def test_groups() -> None:
    assert read_groups("g", column(7.0, 8.0, 7.0), (), "t").tolist() == ["7", "8", "7"]
    with pytest.raises(
        ValueError, match=r"t\.csv, row 1, column 'g': the group is missing; rows count from 0"
    ):
        read_groups("g", column("a", "?", "b"), (), "t.csv")
    with pytest.raises(ValueError, match=r"--groups=g holds list<item: int64>; known are"):
        read_groups("g", column([1], [2]), (), "t.csv")
