"""Bull and bear markets: two experts with noise of their own, and a gate that reads what was known before.

The return of next month, walking forward. Data: R. Shiller's months of the S&P index, VIX, NBER's recessions.
"""

import argparse
import csv
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from _tools import Floats, compare, data_file, print_table
from scipy import optimize, stats
from sklearn.metrics import roc_auc_score

from expertise import MixtureOfExpertsRegressor
from expertise._optional import require

NAMES = ("expert 0", "expert 1")
INPUTS = ("last return", "mean of 12", "log vol 3", "log vol 12", "rate", "rate change")


def read(name: str, date: str, value: str) -> dict[Any, float]:
    """Give the last value of each month of a file, in order."""
    with data_file(f"finance/{name}").open(encoding="utf-8") as file:
        return {np.datetime64(row[date][:7]): float(row[value]) for row in csv.DictReader(file)}


def known_before(prices: Floats) -> tuple[Floats, Floats]:
    """Give inputs (months, 4) from the 12 returns before each month, and its return in per cent."""
    returns = 100 * np.diff(np.log(prices))
    past = np.lib.stride_tricks.sliding_window_view(returns, 12)[:-1]  # row t ends before return t + 12
    # .25 keeps the log finite: the exchange was closed in 1914, and prices repeat
    calm = [0.5 * np.log(0.25 + (past[:, -months:] ** 2).mean(axis=1)) for months in (3, 12)]
    return np.column_stack([past[:, -1], past.mean(axis=1), *calm]), returns[12:]


def mixture(X: Floats, y: Floats, Z: Floats, z: Floats, ridge: float, experts: int = 2, **more: Any) -> Any:
    """Fit by EM, the experts on the last return; the bear is the expert with the wider noise."""
    more = {"expert_features": [0], "gate_alpha" if experts > 1 else "alpha": ridge, **more}
    model = MixtureOfExpertsRegressor(experts, n_init=3, tol=1e-4, random_state=0, **more).fit(X, y)
    return model.score_samples(Z, z), model.gate_proba(Z)[:, np.argmax(model.sigma_)], model.n_parameters_


def following_noise(X: Floats, y: Floats, Z: Floats, z: Floats, ridge: float) -> Any:
    """Fit one Student-t regression: its mean linear in what past returns say, its log width in all."""

    def density(b: Floats, A: Floats, values: Floats) -> tuple[Floats, Floats]:
        A = np.column_stack([np.ones(len(A)), (A - X.mean(axis=0)) / X.std(axis=0)])
        width = A @ b[6:]
        return stats.t.logpdf(values, 2 + np.exp(b[0]), A[:, :5] @ b[1:6], np.exp(width)), width

    start = np.array([1.5, y.mean(), *np.zeros(4), np.log(y.std()), *np.zeros(X.shape[1])])
    best = optimize.minimize(lambda b: ridge * (b[7:] ** 2).sum() - density(b, X, y)[0].sum(), start).x
    return *density(best, Z, z), len(best)


def markov(X: Floats, y: Floats, Z: Floats, z: Floats, ridge: float) -> Any:
    """Fit two lines that take turns by a Markov chain, which sees each month after predicting it."""
    switching = require("statsmodels.tsa.regime_switching.markov_regression", "peers")
    chain = partial(switching.MarkovRegression, k_regimes=2, switching_variance=True)
    with warnings.catch_warnings(action="ignore"):  # its optimiser may stop a hair short of its limit
        best = chain(y, exog=X[:, [0]]).fit(maxiter=500).params
    passed = chain(np.append(y, z), exog=np.vstack([X, Z])[:, [0]]).filter(best)
    bear = passed.predicted_marginal_probabilities[:, np.argmax(best[-2:])]
    return passed.llf_obs[-len(z) :], bear[-len(z) :], len(best)


OURS, EQUAL, MARKOV = "mixture", "equal parameters: one, noise follows", "Markov switching"
# X, y, later X, later y, ridge -> log densities of later y, a signal of the bear, number of parameters
MODELS: dict[str, tuple[Callable[..., Any], Sequence[float]]] = {
    OURS: (mixture, (0.01, 0.1)),
    "same size: one regression": (partial(mixture, experts=1), (0.0,)),
    EQUAL: (following_noise, (1.0, 10.0)),
    "one Student-t regression": (partial(mixture, experts=1, expert="student_t"), (0.0,)),
    "mixture, Student-t experts": (partial(mixture, expert="student_t"), (0.01, 0.1)),
    "mixture, constant gate": (partial(mixture, gate="constant"), (0.0,)),
    MARKOV: (markov, (0.0,)),
}


def walk(name: str, X: Floats, y: Floats, year: Floats, starts: Sequence[int]) -> tuple[Floats, Floats, int]:
    """Predict each block of years from all before; the first block only chooses the ridge."""
    (model, ridges), kept = MODELS[name], []
    total = np.zeros(len(ridges))
    for start, end in zip(starts, [*starts[1:], 9999], strict=True):
        old, new = year < start, (year >= start) & (year < end)
        said = [model(X[old], y[old], X[new], y[new], ridge) for ridge in ridges]
        if start > starts[0]:
            kept.append(said[int(np.argmax(total))])
        total += [density.sum() for density, *_ in said]
    return np.concatenate([d for d, *_ in kept]), np.concatenate([bear for _, bear, _ in kept]), kept[0][2]


def report(done: dict[str, Any], ours: str, year: Floats) -> None:
    """Print mean log densities, and compare means of years."""
    print_table(("parameters", "log density"), {name: (str(n), d.mean()) for name, (d, _, n) in done.items()})
    years = [year == one for one in np.unique(year)]
    means = {name: np.array([d[one].mean() for one in years]) for name, (d, *_) in done.items()}
    for other in [name for name in done if name != ours]:
        print(compare(ours, other, means[ours], means[other], lower_is_better=False))
    print(f"highest log density: {max(done, key=lambda name: done[name][0].mean())}")


def main(quick: bool) -> None:
    prices, rates = (read("sp500_monthly_shiller.csv", "Date", c) for c in ("SP500", "Long Interest Rate"))
    X, y = known_before(np.array([*prices.values()]))
    before, months = np.array([*prices])[12:-1], np.array([*prices])[13:]
    year = months.astype("datetime64[Y]").astype(int) + 1970
    # to March 1953 the file draws lines between Januaries, and so knows the next: take that of a year before
    past = {m: m.astype("M8[Y]").astype("M8[M]") - 12 for m in prices if m < np.datetime64("1953-04")}
    rate = np.array([rates.get(past.get(month, month), rates[month]) for month in prices])
    rows = months <= np.datetime64("2023-06")  # no later rates in the file
    all_inputs = np.column_stack([X, rate[12:-1], rate[12:-1] - rate[:-13]])
    starts = (1886, 1936) if quick else (1886, *range(1901, 2024, 5))
    done = {name: walk(name, all_inputs[rows], y[rows], year[rows], starts) for name in MODELS}
    test = rows & (year >= starts[1])
    report(done, OURS, year[test])
    recession = read("us_recession_nber_monthly.csv", "DATE", "USREC")
    signal = {n: done[n][1] for n in (OURS, EQUAL, MARKOV)} | {"volatility of 3 months alone": X[test, 2]}
    known = np.isin(months[test], [*recession])
    truth = [recession[month] for month in months[test][known]]
    print("\nAUC for the recessions of 1954-2019, from what each model said before the month")
    print_table(("AUC",), {name: (roc_auc_score(truth, one[known]),) for name, one in signal.items()})
    old, case = year < 2006, months == np.datetime64("2008-11")
    model = MixtureOfExpertsRegressor(2, expert_features=[0], gate_alpha=0.01, n_init=3, random_state=0)
    model.fit(all_inputs[old], y[old])
    print("\nthe experts of the years to 2005, in per cent a month")
    each = np.column_stack([model.intercept_, model.coef_[:, 0], model.sigma_, model.weights_])
    print_table(("intercept", "per last return", "noise", "mean weight"), dict(zip(NAMES, each, strict=True)))
    told = replace(model.explain(all_inputs[case]), feature_names=INPUTS)
    print(f"November 2008: {y[case][0]:.1f}", told, sep="\n")
    vix = read("vix_daily.csv", "DATE", "CLOSE")
    starts = (2000, 2005) if quick else (2000, *range(2005, 2027, 2))
    rows = np.isin(before, [*vix])
    with_vix = np.column_stack([X[rows], np.log([vix[month] for month in before[rows]])])
    done = {name: walk(name, X[rows], y[rows], year[rows], starts) for name in [*MODELS][:3]}
    done |= {f"{name} + VIX": walk(name, with_vix, y[rows], year[rows], starts) for name in (OURS, EQUAL)}
    print("\n2005 to June 2026, from February 1990 on")
    report(done, f"{OURS} + VIX", year[rows & (year >= 2005)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one block of years instead of 25")
    main(parser.parse_args().quick)
