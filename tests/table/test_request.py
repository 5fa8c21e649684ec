"""Requests: every argument is checked by name before any work is done."""

import re
from typing import Any

import numpy as np
import pytest

from expertise.mixture import TreeGate
from expertise.table import Request, Wishes
from expertise.table.columns import Column, Encoder

NAMES = ["price", "size", "colour", "id", "weight"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"target": "prize"},
            "--target=prize: t.csv has no such column; did you mean 'price'?; it has 'price', ",
        ),
        ({"target": "zzz"}, "--target=zzz: t.csv has no such column; it has 'price', 'size', 'colour', "),
        ({"weights": "wait"}, "--weights=wait: t.csv has no such column; did you mean 'weight'?"),
        ({"groups": "g"}, "--groups=g: t.csv has no such column"),
        ({"weights": "price"}, "--target, --weights and --groups must differ; got price, price"),
        (
            {"gate_features": ("sise",)},
            "--gate-features=sise: t.csv has no such column; did you mean 'size'?",
        ),
        ({"wishes": Wishes(categories=("x",))}, "--categories=x: t.csv has no such column"),
        ({"wishes": Wishes(keep=("x",))}, "--keep=x: t.csv has no such column"),
        ({"wishes": Wishes(drop=("x",))}, "--drop=x: t.csv has no such column"),
        ({"test": 1.0}, "--test=1 must be a share from 0 to under 1; 0.2 holds a fifth out"),
        ({"test": -0.1}, "--test=-0.1 must be a share"),
        ({"test": float("nan")}, "--test=nan must be a share"),
        ({"seed": -1}, "--seed=-1 must be a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed=4294967296 must be a whole number"),
        ({"experts": 0}, "--experts=0 must be auto or a whole number of at least 1"),
        ({"task": "ranking"}, "--task=ranking is unknown; known are auto, regression, classification"),
        (
            {"expert": ("gauss",)},
            "--expert=gauss is unknown; known are constant, gamma, gaussian, logistic, ",
        ),
        ({"expert": ("estimator",)}, "--expert=estimator is unknown"),
        ({"expert": ("binomial",)}, "--expert=binomial is unknown"),
        ({"expert": ("gaussian", "gamma"), "experts": 3}, "--experts=3, but --expert names 2, one an expert"),
        ({"gate": "soft"}, "--gate=soft is unknown; known are constant, gaussian, softmax, tree"),
        ({"gate": "estimator"}, "--gate=estimator is unknown"),
    ],
)
def test_every_argument_is_checked(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Request(**{"target": "price", **asked}).check(NAMES, "t.csv")


@pytest.mark.parametrize(
    ("task", "expert", "allowed"),
    [
        ("regression", "logistic", "constant, gamma, gaussian, poisson, student_t"),
        ("classification", "poisson", "constant, logistic, multinomial"),
    ],
)
def test_experts_are_for_one_task(task: str, expert: str, allowed: str) -> None:
    message = f"--expert={expert} is not for {task}; known are {allowed}"
    with pytest.raises(ValueError, match=message):
        Request("y", expert=(expert,)).check_task(task)


def test_experts_that_cannot_have_the_target_name_the_row() -> None:
    y, there = np.array([3.0, np.nan, -2.0]), np.array([True, False, True])
    with pytest.raises(ValueError, match=r"'poisson' takes counts.*-2, in row 2"):
        Request("y", expert=("poisson",)).check_target(y, there, "regression")
    with pytest.raises(ValueError, match=r"'gamma' takes numbers above 0.*-2, in row 2"):
        Request("y", expert=("gaussian", "gamma")).check_target(y, there, "regression")
    Request("y", expert=("student_t",)).check_target(y, there, "regression")


ENCODER = Encoder(
    (
        Column("size", "number", 0, 0, 1, marks_missing=True),
        Column("colour", "category", 0, 0, 2, True, ("a", "b", "c")),
        Column("x", "number", 0, 0, 1),
    ),
    {"id": "id-like", "c": "constant"},
)


def test_the_gate_sees_whole_columns_of_the_table() -> None:
    assert Request("y").gate_columns(ENCODER) is None
    assert Request("y", gate_features=("colour",)).gate_columns(ENCODER) == [2, 3]
    assert Request("y", gate_features=("x", "size")).gate_columns(ENCODER) == [0, 1, 4]


@pytest.mark.parametrize(("name", "reason"), [("id", "id-like"), ("c", "constant"), ("y", "not an input")])
def test_a_gate_feature_must_be_an_input(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"--gate-features names '{name}', which is {reason}"):
        Request("y", gate_features=(name,)).gate_columns(ENCODER)


def test_arguments_of_the_estimator() -> None:
    one = Request("y", experts=3, expert=("student_t",), gate="gaussian", seed=7).arguments(ENCODER)
    assert (one["n_experts"], one["expert"], one["gate"], one["random_state"]) == (
        3,
        "student_t",
        "gaussian",
        7,
    )
    assert Request("y").arguments(ENCODER)["expert"] is None
    several = Request("y", expert=("gaussian", "constant")).arguments(ENCODER)
    assert (several["n_experts"], several["expert"]) == (None, ["gaussian", "constant"])
    grown = Request("y", gate="tree").arguments(ENCODER)
    assert isinstance(grown["gate"], TreeGate)
    assert grown["n_experts"] is None
    assert Request("y", gate="tree", experts=4).arguments(ENCODER)["gate"] == "tree"
