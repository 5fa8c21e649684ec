"""Who is held out: every row once, groups whole, classes in their shares, the same every time."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.table.splitting import hold_out


@settings(max_examples=80, deadline=None)
@given(n=st.integers(2, 60), share=st.floats(0.02, 0.9), seed=st.integers(0, 5), kinds=st.integers(1, 60))
def test_every_row_is_fitted_or_held_out(n: int, share: float, seed: int, kinds: int) -> None:
    held = round(share * n)
    if not 1 <= held < n:
        with pytest.raises(ValueError, match="holds out"):
            hold_out(n, share, seed)
        return
    classes = np.random.default_rng(seed).integers(0, kinds, n)
    for given_classes in (None, classes):
        train, test = hold_out(n, share, seed, classes=given_classes)
        assert sorted([*train, *test]) == list(range(n))
        assert len(test) == held
        again = hold_out(n, share, seed, classes=given_classes)
        assert again[0].tolist() == train.tolist()


def test_nothing_held_out() -> None:
    train, test = hold_out(5, 0, 0)
    assert train.tolist() == [0, 1, 2, 3, 4]
    assert len(test) == 0


def test_another_seed_is_another_split() -> None:
    assert hold_out(100, 0.2, 0)[1].tolist() != hold_out(100, 0.2, 1)[1].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole(seed: int) -> None:
    groups = np.random.default_rng(seed).choice(list("abcdefghij"), 200)
    train, test = hold_out(200, 0.3, seed, groups=groups)
    assert set(groups[train]) & set(groups[test]) == set()
    assert len(set(groups[test])) == 3
    assert sorted([*train, *test]) == list(range(200))


@pytest.mark.parametrize("seed", range(5))
def test_classes_keep_their_shares(seed: int) -> None:
    classes = np.repeat(["a", "b", "c"], [100, 60, 40])
    _, test = hold_out(200, 0.2, seed, classes=classes)
    assert [int((classes[test] == one).sum()) for one in "abc"] == [20, 12, 8]


def test_a_class_of_one_row_is_fitted() -> None:
    classes = np.array(["a"] * 20 + ["b"] * 20 + ["once"])
    for seed in range(10):
        assert 40 in hold_out(41, 0.2, seed, classes=classes)[0]


@pytest.mark.parametrize(
    ("n", "share", "message"),
    [
        (2, 0.2, "--test=0.2 of 2 rows holds out 0, and leaves 2; use another, or --test=0 to fit all rows"),
        (3, 0.99, "--test=0.99 of 3 rows holds out 3, and leaves 0; use another"),
    ],
)
def test_too_few_rows(n: int, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        hold_out(n, share, 0)


def test_too_few_groups() -> None:
    with pytest.raises(ValueError, match=r"--test=0\.2 of 2 groups holds out 0, and leaves 2"):
        hold_out(100, 0.2, 0, groups=np.repeat([0, 1], 50))
