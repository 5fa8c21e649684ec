"""Bull and bear markets: two experts with noise of their own, and a gate that reads what was known before.

Task: the distribution of next month's return of the S&P index, 1901 to June 2023, walking forward: a fit
knows only the years before those that it predicts, every input is known when the month begins. Data: Robert
Shiller's months (github.com/datasets/s-and-p-500), VIX (CBOE, github.com/datasets/finance-vix), recessions
(NBER, through FRED). Shiller's prices are means of daily closes, so neighbouring returns correlate (Working,
Econometrica 1960): each model gets the last return. Compared: the held-out log density of a month, paired
over years. Ridges are those that did best in the blocks of years before the one that is predicted.
"""

import argparse
import csv
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from _tools import Floats, compare, data_file, print_table
from scipy import optimize, stats
from sklearn.metrics import roc_auc_score

from expertise import MixtureOfExpertsRegressor

NAMES = ("last return", "mean of 12", "log vol 3", "log vol 12", "rate", "rate change")
MONTH, LAST = np.timedelta64(1, "M"), np.datetime64("2023-06")  # later rows hold no interest rate
# X, y, ridge -> what predicts a block: (X, y) -> log densities and bear signal; and the number of parameters
Predict = Callable[[Floats, Floats], tuple[Floats, Floats]]
Model = Callable[[Floats, Floats, float], tuple[Predict, int]]


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


def mixture(n_experts: int, products: bool = False, **options: Any) -> Model:
    """Make a model by EM, its experts on the last return; ``products`` adds this times the other inputs."""

    def more(X: Floats) -> Floats:
        return np.hstack([X, X[:, [0]] * X[:, 1:]]) if products else X

    def fit(X: Floats, y: Floats, ridge: float) -> tuple[Predict, int]:
        given = {"expert_features": [0], "gate_alpha" if n_experts > 1 else "alpha": ridge, **options}
        model = MixtureOfExpertsRegressor(n_experts, n_init=3, tol=1e-4, random_state=0, **given)
        bear = int(np.argmax(model.fit(more(X), y).sigma_))
        n = int(model.n_parameters_ or 0)
        return lambda Z, z: (model.score_samples(more(Z), z), model.gate_proba(more(Z))[:, bear]), n

    return fit


def following_noise(X: Floats, y: Floats, ridge: float) -> tuple[Predict, int]:
    """Fit one Student-t line on the last return, whose log noise width is linear in all inputs."""
    mean, scale, q = X.mean(axis=0), X.std(axis=0), X.shape[1]

    def density(b: Floats, Z: Floats, z: Floats) -> tuple[Floats, Floats]:
        Z = (Z - mean) / scale
        width = b[2] + Z @ b[4:]
        return stats.t.logpdf((z - b[0] - b[1] * Z[:, 0]) / np.exp(width), 2 + np.exp(b[3])) - width, width

    start = np.array([y.mean(), 0.0, np.log(y.std()), 1.5, *np.zeros(q)])
    found = optimize.minimize(
        lambda b: ridge * (b[4:] ** 2).sum() - density(b, X, y)[0].sum(), start, method="L-BFGS-B"
    )
    return lambda Z, z: density(found.x, Z, z), q + 4


def markov(X: Floats, y: Floats, ridge: float) -> tuple[Predict, int]:
    """Fit two lines, each with its noise, that take turns by a Markov chain."""
    try:
        from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression
    except ModuleNotFoundError:
        sys.exit("finance.py compares with statsmodels, which is not there: pip install 'expertise[peers]'")

    def chain(X: Floats, y: Floats) -> Any:
        return MarkovRegression(y, k_regimes=2, exog=X[:, [0]], switching_variance=True)

    with warnings.catch_warnings():  # its optimiser may stop a hair short of its limit; the result is used
        warnings.simplefilter("ignore")
        best = chain(X, y).fit(maxiter=500).params

    def predict(Z: Floats, z: Floats) -> tuple[Floats, Floats]:
        passed = chain(np.vstack([X, Z]), np.append(y, z)).filter(best)  # sees each month after predicting it
        return passed.llf_obs[-len(z) :], passed.predicted_marginal_probabilities[
            -len(z) :, np.argmax(best[-2:])
        ]

    return predict, len(best)


MODELS: dict[str, tuple[Model, Sequence[float]]] = {
    "mixture": (mixture(2), (0.01, 0.1)),
    "mixture, Student-t experts": (mixture(2, expert="student_t"), (0.01, 0.1)),
    "same size: one regression": (mixture(1), (0.0,)),
    "equal parameters: one regression": (mixture(1, products=True, expert_features=None), (1.0, 100.0)),
    "one Student-t regression": (mixture(1, expert="student_t"), (0.0,)),
    "one, noise follows the inputs": (following_noise, (1.0, 10.0)),
    "mixture, constant gate": (mixture(2, gate="constant"), (0.0,)),
    "Markov switching": (markov, (0.0,)),
}

TELLING = ("mixture", "mixture, Student-t experts", "one, noise follows the inputs", "Markov switching")


def walk(name: str, X: Floats, y: Floats, year: Floats, starts: Sequence[int]) -> tuple[Floats, Floats, int]:
    """Predict each block of years from all before; the first block only chooses the ridge."""
    (model, ridges), kept, n = MODELS[name], [], 0
    total = np.zeros(len(ridges))
    for start, end in zip(starts, [*starts[1:], 9999], strict=True):
        train, test, said = year < start, (year >= start) & (year < end), []
        for ridge in ridges:
            predict, n = model(X[train], y[train], ridge)
            said.append(predict(X[test], y[test]))
        if start > starts[0]:
            kept.append(said[int(np.argmax(total))])
        total += [density.sum() for density, _ in said]
    return np.concatenate([d for d, _ in kept]), np.concatenate([bear for _, bear in kept]), n


def versus(ours: str, others: Sequence[str], done: dict[str, Any], year: Floats) -> None:
    """Print the comparisons over means of years."""
    mean = {
        name: [density[year == one].mean() for one in np.unique(year)] for name, (density, *_) in done.items()
    }
    for other in others:
        print(compare(ours, other, np.array(mean[ours]), np.array(mean[other]), lower_is_better=False))


def whole_record(quick: bool) -> None:
    """Print densities since 1901, recessions, and what the experts became."""
    prices, rates = (read("sp500_monthly_shiller.csv", "Date", c) for c in ("SP500", "Long Interest Rate"))
    months = np.array([month for month in prices if month <= LAST])
    rate = np.array([rates[month] for month in months])
    X, y = known_before(np.array([prices[month] for month in months]))
    X, months = np.column_stack([X, rate[12:-1], rate[12:-1] - rate[:-13]]), months[13:]
    year = months.astype("datetime64[Y]").astype(int) + 1970
    starts = (1886, 1936) if quick else (1886, *range(1901, 2024, 5))
    done = {name: walk(name, X, y, year, starts) for name in MODELS}
    test = year >= starts[1]
    late = year[test] >= 1946
    rows = {name: (str(n), d.mean(), d[~late].mean(), d[late].mean()) for name, (d, _, n) in done.items()}
    print_table(("parameters", "log density", "to 1945", "from 1946"), rows)
    versus("mixture", list(MODELS)[2:], done, year[test])
    versus("mixture, Student-t experts", list(MODELS)[2:], done, year[test])
    print(f"highest log density: {max(done, key=lambda name: done[name][0].mean())}")

    recession = read("us_recession_nber_monthly.csv", "DATE", "USREC")
    known = np.isin(months[test], list(recession))
    truth = [recession[month] for month in months[test][known]]
    signals = {name: bear[known] for name, (_, bear, _) in done.items() if name in TELLING}
    signals["volatility of 3 months alone"] = X[test, 2][known]
    print("\nAUC for the recessions of 1954-2019, from what each model said before the month")
    print_table(("AUC",), {name: (roc_auc_score(truth, bear),) for name, bear in signals.items()})

    model = MixtureOfExpertsRegressor(2, expert_features=[0], gate_alpha=0.01, n_init=3, random_state=0)
    model.fit(X[year < 2006], y[year < 2006])
    print("\nthe experts of the years to 2005, in per cent a month")
    each = (model.intercept_, model.coef_[:, 0], model.sigma_, model.weights_)
    order = dict(zip(("bull", "bear"), np.argsort(model.sigma_), strict=True))
    experts = {name: [float(one[k]) for one in each] for name, k in order.items()}
    print_table(("intercept", "per last return", "noise", "mean weight"), experts)
    case = months == np.datetime64("2008-11")
    print(f"November 2008: {y[case][0]:.1f}; expert {order['bear']} is the bear")
    print(replace(model.explain(X[case]), feature_names=NAMES))


def with_vix(quick: bool) -> None:
    """Print densities of 2005 to June 2026 with and without the VIX of the day before the month."""
    prices, vix = read("sp500_monthly_shiller.csv", "Date", "SP500"), read("vix_daily.csv", "DATE", "CLOSE")
    X, y = known_before(np.array(list(prices.values())))
    months = np.array(list(prices))[13:]
    rows = np.array([month - MONTH in vix for month in months])
    fear = np.log([vix[month - MONTH] for month in months[rows]])
    year = months[rows].astype("datetime64[Y]").astype(int) + 1970
    done, starts = {}, (2000, 2005) if quick else (2000, *range(2005, 2027, 2))
    for name in ("mixture", "one, noise follows the inputs"):
        done[name] = walk(name, X[rows], y[rows], year, starts)
        done[f"{name} + VIX"] = walk(name, np.column_stack([X[rows], fear]), y[rows], year, starts)
    print("\n2005 to June 2026, from February 1990 on")
    print_table(("parameters", "log density"), {name: (str(n), d.mean()) for name, (d, _, n) in done.items()})
    versus("mixture + VIX", ("mixture", "one, noise follows the inputs + VIX"), done, year[year >= 2005])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one block of years instead of 25")
    asked = parser.parse_args()
    whole_record(asked.quick)
    with_vix(asked.quick)
