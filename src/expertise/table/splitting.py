"""Which rows are held out."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from expertise.table.values import Floats

Rows = npt.NDArray[np.intp]


def hold_out(
    n: int, share: float, seed: int, *, classes: npt.NDArray[Any] | None = None, groups: Any = None
) -> tuple[Rows, Rows]:
    """Give the rows to fit and the rows held out, both sorted.

    Groups stay whole. Classes keep their shares where there are rows enough; a class of one row is fitted.

    Raises
    ------
    ValueError : too few rows (or groups) to hold some out.
    """
    if not share:
        return np.arange(n), np.arange(0)
    sets = n if groups is None else len(np.unique(groups))
    held = round(share * sets)
    if held < 1 or sets - held < 1:
        what = "rows" if groups is None else "groups"
        raise ValueError(
            f"--test={share:g} of {sets} {what} holds out {held}, and leaves {sets - held}; use another, "
            "or --test=0 to fit all rows and compare nothing"
        )
    if groups is not None:
        split = GroupShuffleSplit(1, test_size=held, random_state=seed)
        train, test = next(split.split(np.zeros(n), groups=groups))
        return np.sort(train), np.sort(test)
    every = np.arange(n)
    alone = np.zeros(n, bool)
    if classes is not None:
        _, code, count = np.unique(classes, return_inverse=True, return_counts=True)
        alone = count[code] < 2
        enough = min(held, n - held - alone.sum()) >= max((count > 1).sum(), 1)
        if alone.sum() >= n - held:  # they would be all rows to fit, or more
            alone = np.zeros(n, bool)
        if enough:
            train, test = train_test_split(
                every[~alone], test_size=held, random_state=seed, stratify=code[~alone]
            )
            return np.sort(np.concatenate([train, every[alone]])), np.sort(test)
    train, test = train_test_split(every[~alone], test_size=held, random_state=seed)
    return np.sort(np.concatenate([train, every[alone]])), np.sort(test)


def hold_out_last(order: Floats, share: float) -> tuple[Rows, Rows]:
    """Give the rows to fit and, held out, the last ones by ``order`` (n,), both sorted by number.

    Rows of the same moment stay together, so a few more than the share may be held out.

    Raises
    ------
    ValueError : nothing would be held out, or nothing left to fit.
    """
    held = round(share * len(order))
    later = order >= np.sort(order)[-held] if held else np.zeros(len(order), bool)
    if later.all() or not later.any():
        raise ValueError(
            f"--test={share:g} of {len(order)} rows in their order holds out {int(later.sum())}, and leaves "
            f"{int((~later).sum())} (rows of the same moment stay together); use another"
        )
    return np.flatnonzero(~later), np.flatnonzero(later)
