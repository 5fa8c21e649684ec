"""Do 90 % intervals hold 90 % of new rows, and how likely are new rows? On published splits of UCI data.

Run: python benchmarks/intervals.py [--quick] [--only NAME ...] [--n-jobs N]

The recipe, all of it from public calls. A tenth of the training rows is put aside. Of the rest, five mixtures
are fitted on four of five folds each; their predictive distributions are averaged, which is again a mixture,
of all their experts (`pooled`). A single mixture is too sure of itself where it has few rows; five that
disagree are not. Candidates are compared by the mean log-likelihood of the rows put aside: first with one
member each, then the best few with all five. `raw` is the central 90 % interval of the pooled distribution.
`calibrated` asks the same distribution for the level at which its central intervals held 90 % of the rows put
aside (conformal prediction on distributions: Chernozhukov, Wuthrich & Zhu 2021). That would be exact but for
the choice between candidates on the same rows.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.model_selection import KFold, train_test_split

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import _data
from benchmarks.accuracy import Candidate

from expertise.core import MixtureDistribution

COVERAGE, LOW, HIGH = 0.9, 0.88, 0.92
# splits in all, and the candidates: more experts where there are more rows
SETS: dict[str, tuple[int, list[Candidate]]] = {
    "concrete": (
        20,
        [
            *(Candidate("linear", k, 1.0, 1e-3) for k in (1, 4)),
            *(Candidate("spline", k, 1.0, 1e-3) for k in (1, 2, 4, 6, 8)),
            *(Candidate("square", k, 1.0, 1e-3) for k in (2, 4)),
        ],
    ),
    "power_plant": (
        20,
        [*(Candidate("spline", k, 1.0) for k in (1, 4, 8)), *(Candidate("square", k, 1.0) for k in (4, 8))],
    ),
    "kin8nm": (
        10,
        [*(Candidate("square", k, 1.0) for k in (1, 8, 16)), Candidate("spline", 8, 1.0)],
    ),
}
FINALISTS = {"concrete": 5, "power_plant": 2, "kin8nm": 2}
DROPOUT = {"concrete": (4.83, -2.94), "power_plant": (4.01, -2.81), "kin8nm": (0.079, 1.14)}


class Result(NamedTuple):
    """What one split gave."""

    name: str
    rmse: float
    single: float
    raw: float
    calibrated: float
    loglik: float
    chosen: str
    seconds: float


def pooled(members: Sequence[Any], X: _data.Array) -> MixtureDistribution:
    """Average the members' predictive distributions: a mixture of all their experts."""
    inputs = [member[:-1].transform(X) for member in members]
    each = list(zip(members, inputs, strict=True))
    weights = np.hstack([member[-1].gate_proba(x) for member, x in each]) / len(members)
    return MixtureDistribution(
        weights, [one for member, x in each for one in member[-1].expert_distributions(x)]
    )


def committee(
    candidates: Sequence[Candidate], finalists: int, fitted: tuple[Any, Any], aside: tuple[Any, Any]
) -> tuple[Candidate, list[Any]]:
    """Choose the candidate whose five members, pooled, give the rows put aside the largest likelihood."""
    X, y = fitted
    folds = [train for train, _ in KFold(5, shuffle=True, random_state=0).split(X)]

    def member(candidate: Candidate, m: int) -> Any:
        return candidate.model(X.shape[1], m).fit(X[folds[m]], y[folds[m]])

    def likelihood(members: list[Any]) -> float:
        return float(pooled(members, aside[0]).logpdf(aside[1]).mean())

    running = [(candidate, [member(candidate, 0)]) for candidate in candidates]
    running = sorted(running, key=lambda one: -likelihood(one[1]))[:finalists]
    grown = [
        (candidate, [*first, *(member(candidate, m) for m in range(1, 5))]) for candidate, first in running
    ]
    return max(grown, key=lambda one: likelihood(one[1]))


def centred(distribution: MixtureDistribution, y: Any) -> _data.Array:
    """Give the coverage of the smallest central interval that holds y, for each row."""
    return np.asarray(2 * np.abs(distribution.cdf(y) - 0.5))


def split(name: str, X: _data.Array, y: _data.Array, test: Any, seed: int) -> Result:
    """Fit and choose on the training rows of a split, and measure on its test rows."""
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    fit_X, aside_X, fit_y, aside_y = train_test_split(X[~test], y[~test], test_size=0.1, random_state=seed)
    chosen, members = committee(SETS[name][1], FINALISTS[name], (fit_X, fit_y), (aside_X, aside_y))
    needed = np.sort(centred(pooled(members, aside_X), aside_y))
    level = needed[min(int(np.ceil(COVERAGE * (len(needed) + 1))), len(needed)) - 1]
    new, truth = pooled(members, X[test]), y[test]
    one = pooled(members[:1], X[test])

    def held(distribution: MixtureDistribution, coverage: float) -> float:
        low, high = distribution.interval(coverage)
        return float(np.mean((low <= truth) & (truth <= high)))

    return Result(
        name,
        rmse=float(np.sqrt(np.mean((new.mean() - truth) ** 2))),
        single=held(one, COVERAGE),
        raw=held(new, COVERAGE),
        calibrated=held(new, float(level)),
        loglik=float(new.logpdf(truth).mean()),
        chosen=str(chosen),
        seconds=time.perf_counter() - begun,
    )


def print_line(name: str, own: list[Result]) -> None:
    """Print the means over splits, and what was chosen."""

    def mean(field: str) -> float:
        return float(np.mean([getattr(one, field) for one in own]))

    inside = "reached" if LOW <= mean("calibrated") <= HIGH else "missed"
    rmse, loglik = DROPOUT[name]
    print(
        f"{name:<14}{len(own):>7}{100 * mean('single'):>8.1f}{100 * mean('raw'):>8.1f}"
        f"{100 * mean('calibrated'):>12.1f} {inside:<8}{mean('loglik'):>8.3f}{loglik:>9.2f}"
        f"{mean('rmse'):>9.4g}{rmse:>9g}"
    )
    picks = ", ".join(f"{pick} ({n})" for pick, n in Counter(one.chosen for one in own).most_common())
    print(f"    chosen: {picks}. {sum(one.seconds for one in own):.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few splits")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=SETS, help="these data sets")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    quick = {"concrete": 4, "power_plant": 1, "kin8nm": 1}
    names = given.only or list(SETS)
    run: Callable[..., Any] = delayed(split)
    jobs = []
    for name in reversed(names):  # the longest first
        try:
            X, y, mask = _data.published(name)
        except _data.MissingDataError as error:
            print(f"{name}: left out, {error}")
            continue
        splits = quick[name] if given.quick else SETS[name][0]
        jobs += [run(name, X, y, test, seed) for seed, test in enumerate(mask.T[:splits])]
    results: list[Result] = Parallel(n_jobs=given.n_jobs)(jobs)
    if not results:
        return
    print("test rows inside 90 % intervals, mean over splits; aim 88 to 92, calibrated")
    print(
        f"{'':<14}{'splits':>7}{'single':>8}{'raw':>8}{'calibrated':>12} {'':<8}{'loglik':>8}{'dropout':>9}"
        f"{'RMSE':>9}{'dropout':>9}"
    )
    for name in names:
        own = [result for result in results if result.name == name]
        if own:
            print_line(name, own)
    print("loglik: mean log-likelihood of the test rows. dropout: published figures of MC-dropout.")


if __name__ == "__main__":
    main()
