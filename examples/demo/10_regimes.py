"""Four regimes: four experts find them, and a manager that sees only the inputs picks the right one.

In each regime the target is another linear function of ten inputs. Where the borders of the regimes are is
told to nobody: the mixture gets inputs and target, as every other model here. Prints who is good at what, how
often the manager is right, three single cases beside the constant weights of an ensemble, and what happens
when there are few data.

Needs: core
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.ensemble import GradientBoostingRegressor, StackingRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import DegenerateExpertWarning, FewCasesWarning

Array = npt.NDArray[np.float64]
INPUTS, REGIMES, NOISE = 10, 4, 0.1
FEW, MANY, TEST, DRAWS = 50, 3000, 5000, 5


class Cases(NamedTuple):
    """X (n, 10), y (n,), and the true regime (n,), which no model is given."""

    X: Array
    y: Array
    regime: npt.NDArray[np.intp]


def draw(n: int, seed: Sequence[int]) -> Cases:
    """Draw cases of the one task: four regions with flat borders, a linear function in each."""
    task = np.random.default_rng(0)
    borders, coef = task.normal(size=(INPUTS, REGIMES)), task.normal(size=(INPUTS + 1, REGIMES))
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, INPUTS))
    regime = (X @ borders).argmax(axis=1)
    means = X @ coef[1:] + coef[0]
    return Cases(X, means[np.arange(n), regime] + NOISE * rng.normal(size=n), regime)


def fit(cases: Cases, seed: int) -> tuple[MixtureOfExpertsRegressor, bool]:
    """Fit four linear experts and a softmax gate; say too whether the fit warned that the cases are few."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # three starts and not ten, for time: with many cases all searches that were tried end alike
        model = MixtureOfExpertsRegressor(REGIMES, n_init=3, random_state=seed).fit(cases.X, cases.y)
    told = (FewCasesWarning, DegenerateExpertWarning)
    return model, any(issubclass(one.category, told) for one in caught)


def rmse(predicted: Array, y: Array) -> float:
    return float(np.sqrt(((predicted - y) ** 2).mean()))


def errors(model: MixtureOfExpertsRegressor, cases: Cases) -> Array:
    """Compute the RMSE of every expert alone in every regime, (experts, regimes)."""
    answers = model.predict_experts(cases.X)
    here = [cases.regime == r for r in range(REGIMES)]
    return np.array([[rmse(answers[at, k], cases.y[at]) for at in here] for k in range(REGIMES)])


def match(error: Array) -> npt.NDArray[np.intp]:
    """Give for each regime its expert: one to one, with the least sum of errors."""
    expert, regime = linear_sum_assignment(error)
    return np.asarray(expert[np.argsort(regime)])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    widths = [max(len(row[j]) for row in (head, *rows)) for j in range(len(head))]
    for row in (head, *rows):
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join(("  " + row[0].ljust(widths[0]), *cells)))


def specialists(error: Array) -> None:
    """Print what each expert can do: ``error`` with the experts in the order of their regimes."""
    print(f"\n1. What each expert alone can do (RMSE on new cases; the noise is {NOISE})")
    names = [f"regime {r}" for r in range(REGIMES)]
    table(["", *names], [[f"expert {k}", *(f"{e:.3f}" for e in row)] for k, row in enumerate(error)])
    own, other = error.diagonal(), error[~np.eye(REGIMES, dtype=bool)]
    print(
        f"  In its own regime an expert errs by {own.min():.3f} to {own.max():.3f}, "
        f"elsewhere by {other.min():.2f} to {other.max():.2f}."
    )


def manager(picked: npt.NDArray[np.intp], regime: npt.NDArray[np.intp]) -> None:
    """Print how often the gate's first choice is the expert of the true regime."""
    print("\n2. Whom the manager picks, who sees the inputs only (share of the new cases of each regime)")
    share = np.array([np.bincount(picked[regime == r], minlength=REGIMES) for r in range(REGIMES)])
    share = share / share.sum(axis=1, keepdims=True)
    rows = [[f"regime {r}", *(f"{s:.3f}" for s in row)] for r, row in enumerate(share)]
    table(["", *(f"expert {k}" for k in range(REGIMES))], rows)
    print(f"  The manager's accuracy is {(picked == regime).mean():.3f}.")


def ensembles(train: Cases) -> tuple[StackingRegressor, GradientBoostingRegressor]:
    """Fit the two usual ways to join models, stacking and boosting."""
    kinds = [
        ("linear", Ridge(1e-3)),
        ("tree", DecisionTreeRegressor(min_samples_leaf=10, random_state=0)),
        ("5-NN", KNeighborsRegressor(5)),
    ]
    stack = StackingRegressor(kinds, LinearRegression(positive=True), cv=3).fit(train.X, train.y)
    return stack, GradientBoostingRegressor(max_depth=4, random_state=0).fit(train.X, train.y)


def single_cases(model: MixtureOfExpertsRegressor, g: Array, train: Cases, test: Cases) -> None:
    """Print three new cases: two clear ones, and the one about which the gate is least decided.

    ``g`` holds the gate's weights (n, experts) of the new cases, experts in the order of their regimes.
    """
    stack, boost = ensembles(train)
    top = np.sort(g, axis=1)
    clear = [int(np.argmax(np.where(test.regime == r, g[:, r], -1))) for r in (0, 1)]
    chosen = [*clear, int(np.argmin(top[:, -1] - top[:, -2]))]
    names = [f"case {case} (regime {test.regime[case]})" for case in chosen]

    print("\n3. Three new cases. Weights of the experts | of stacked models | of each boosted tree")
    fixed = [*(f"{w:.2f}" for w in stack.final_estimator_.coef_), "|", f"{boost.learning_rate:.2f}"]
    rows = [[name, *(f"{w:.2f}" for w in g[i]), "|", *fixed] for name, i in zip(names, chosen, strict=True)]
    kinds = [kind for kind, _ in stack.estimators]
    table(["", *(f"expert {k}" for k in range(REGIMES)), "|", *kinds, "|", "tree"], rows)
    spread = g.std(axis=0)
    print(
        "  The weights of stacking and boosting are the same for every case; those of the experts\n"
        f"  vary over the new cases with standard deviations of {spread.min():.2f} to {spread.max():.2f}."
    )

    answers = {
        "weighted sum": model.predict(test.X),
        "argmax": model.predict(test.X, pooling="argmax"),
        "stacking": stack.predict(test.X),
        "boosting": boost.predict(test.X),
    }
    rows = [
        [name, f"{test.y[i]:.2f}", f"expert {g[i].argmax()}", *(f"{a[i]:.2f}" for a in answers.values())]
        for name, i in zip(names, chosen, strict=True)
    ]
    overall = ["RMSE on all new cases", "", "", *(f"{rmse(a, test.y):.3f}" for a in answers.values())]
    print()
    table(["Their answers", "true y", "chosen", *answers], [*rows, overall])
    best = min(answers, key=lambda name: rmse(answers[name], test.y))
    most, unsure = top[chosen[-1], -1], chosen[-1]
    right = "right" if g[unsure].argmax() == test.regime[unsure] else "wrong"
    print(
        f"  Over all new cases the {best} errs least. The gate is least sure of case {unsure}: it gives\n"
        f"  its first choice {most:.2f}, and that choice is {right}."
    )


def few_and_many(test: Cases) -> None:
    """Print the test errors of the mixture and of one linear model, with few cases and with many."""
    print(f"\n4. Few data and many: squared error on new cases / variance of y, median of {DRAWS} draws")
    rows, said = [], []
    for n in (FEW, MANY):
        both, kept, warned = np.empty((DRAWS, 2)), [], 0
        for i in range(DRAWS):
            train = draw(n, [n, i])
            model, told = fit(train, i)
            kept.append(model.n_experts_)
            warned += told
            line = LinearRegression().fit(train.X, train.y)
            both[i] = [rmse(one.predict(test.X), test.y) ** 2 / test.y.var() for one in (model, line)]
        wins = int((both[:, 0] < both[:, 1] - 1e-9).sum())  # a mixture of one expert is the linear model
        mixture, linear = np.median(both, axis=0)
        experts = " ".join(map(str, kept))
        cells = (f"{mixture:.3f}", f"{linear:.3f}", f"{wins} of {DRAWS}", experts, f"{warned} of {DRAWS}")
        rows.append([f"N={n:,}", *cells])
        winner, best, other = (
            ("the mixture", mixture, linear) if mixture < linear else ("one linear model", linear, mixture)
        )
        said.append(f"With {n:,} cases {winner} wins, {best:.3f} against {other:.3f}.")
    head = ["", "mixture", "one linear model", "mixture better", "experts kept", "fits that warned"]
    table(head, rows)
    print("  " + "\n  ".join(said))


def main() -> None:
    """Fit the mixture, and print what it learned."""
    train, test = draw(MANY, [MANY, 0]), draw(TEST, [TEST])
    print(
        f"{REGIMES} regimes, {INPUTS} inputs, {MANY:,} cases to learn from, {TEST:,} new ones. "
        "Nobody is told the regime."
    )
    model, _ = fit(train, 0)
    order = match(errors(model, train))
    specialists(errors(model, test)[order])
    manager(np.argsort(order)[model.apply(test.X)], test.regime)
    single_cases(model, model.gate_proba(test.X)[:, order], train, test)
    few_and_many(test)


if __name__ == "__main__":
    with threadpool_limits(1):  # the matrices are small: threads would wait for one another
        main()
