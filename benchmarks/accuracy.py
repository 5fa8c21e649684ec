"""How accurate are mixtures beside single models? Each row a data set, each column a model.

Run: python benchmarks/accuracy.py [--quick] [--only NAME ...] [--n-jobs N]

Regression: RMSE, averaged over the folds of KFold(5, shuffle=True, random_state=0); kin8nm on the first of
its published splits. Classification: accuracy over StratifiedKFold(5, shuffle=True, random_state=0).
Everything is chosen inside the training rows of a fold, never on its test rows.

Ours, `plain`: one mixture with linear experts; GridSearchCV takes K and the ridges. `bagged` and `boosted`:
that mixture in BaggingRegressor (20) and AdaBoostRegressor (10). `chosen`, which the aims are for: a race
between the declared candidates (`CANDIDATES`), every one a mixture of this package, of one expert or more,
with experts that are linear in the inputs, in splines, in squares and products, or in a random part of an RBF
kernel; the gate sees the inputs alone. A candidate is a committee: its members are fitted on four of five
folds, for several ways of dealing the rows, and answer together. The rows that a member did not see decide,
and the best two or three committees answer together where that is better by the same rows.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn.ensemble import AdaBoostRegressor, BaggingRegressor
from sklearn.kernel_approximation import Nystroem
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import PolynomialFeatures, SplineTransformer, StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import _data

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

# one short start a member: its committee makes up for a poor one
SHORT: dict[str, Any] = {"n_init": 1, "max_iter": 40, "tol": 1e-4, "starts": ("kmeans_xy",)}
FINALISTS = 3  # at most so many answer together: with few rows the choice of one is a matter of luck
LARGE = 1000  # rows from which a fold is enough to choose by, and there may be more experts


class Candidate(NamedTuple):
    """A mixture that may be chosen: what its experts see, how many there are, ridges, and what else."""

    features: str
    n_experts: int
    alpha: float
    gate_alpha: float = 1e-10
    more: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        smooth = "" if self.gate_alpha < 1e-6 else f" gate {self.gate_alpha:g}"
        more = "".join(f" {value}" for _, value in self.more)
        return f"{self.features} K={self.n_experts} ridge {self.alpha:g}{smooth}{more}"

    def model(self, columns: int, seed: int, task: str = "regression") -> Any:
        """Make the mixture for inputs with so many columns."""
        kind: Any = MixtureOfExpertsRegressor if task == "regression" else MixtureOfExpertsClassifier
        mixture = kind(
            self.n_experts,
            alpha=self.alpha,
            gate_alpha=self.gate_alpha,
            gate_features=list(range(columns)),
            random_state=seed,
            **{**SHORT, **dict(self.more)},
        )
        return make_pipeline(StandardScaler(), expanded(self.features, columns, seed), mixture)


def expanded(features: str, columns: int, seed: int) -> Any:
    """Put further columns behind the inputs, for the experts."""
    if features == "linear":
        return "passthrough"
    further: dict[str, Any] = {
        "spline": SplineTransformer(n_knots=6, include_bias=False),
        "square": PolynomialFeatures(2, include_bias=False),
        "kernel": Nystroem(gamma=1 / columns, n_components=50, random_state=seed),
    }
    return make_union("passthrough", further[features])


CANDIDATES = [
    *(Candidate("linear", k, 1.0) for k in (1, 2, 3, 4, 6, 8)),
    *(Candidate("linear", k, 1.0, 1e-2) for k in (2, 4, 8)),
    *(Candidate("linear", k, 0.01) for k in (2, 3, 4, 8)),
    Candidate("linear", 2, 1.0, more=(("expert", "student_t"),)),
    Candidate("linear", 4, 1.0, more=(("gate", "tree"),)),
    Candidate("linear", 4, 1.0, more=(("gate", "gaussian"),)),
    *(Candidate("spline", k, a) for k, a in ((1, 1.0), (2, 1.0), (4, 1.0), (2, 0.1))),
    *(Candidate("square", k, a) for k, a in ((1, 1.0), (2, 1.0), (4, 1.0), (1, 0.01))),
    *(Candidate("kernel", k, a) for k, a in ((1, 1.0), (2, 1.0), (4, 1.0), (1, 0.01))),
    *(Candidate(features, 2, 1.0, 1e-2) for features in ("spline", "kernel")),
]
OF_MANY_ROWS = [
    Candidate("linear", 1, 1.0),
    Candidate("linear", 16, 1.0),
    Candidate("spline", 8, 1.0),
    Candidate("square", 8, 1.0),
    Candidate("square", 16, 1.0),
]
OF_CLASSES = [
    *(Candidate("linear", 1, a) for a in (0.1, 1.0, 10.0)),
    *(Candidate("linear", 2, a, 1e-2) for a in (0.1, 1.0)),
    Candidate("linear", 3, 1.0, 1e-2),
    Candidate("kernel", 1, 1.0),
]


class Committee:
    """A candidate in the race: its members, and what they say about rows that they did not see."""

    def __init__(self, candidate: Candidate, task: str) -> None:
        self.candidate, self.task = candidate, task
        self.members: list[Any] = []
        self.total: Any = 0.0
        self.count: Any = 0.0

    def admit(self, X: Array, y: Any, train: Index, test: Index) -> None:
        """Fit a member on some rows, and ask it about others."""
        member = self.candidate.model(X.shape[1], len(self.members), self.task).fit(X[train], y[train])
        self.members.append(member)
        answer = self._answer(member, X[test])
        total, count = np.zeros((len(y), *answer.shape[1:])), np.zeros(len(y))
        total[test], count[test] = answer, 1.0
        self.total, self.count = self.total + total, self.count + count

    def loss(self, y: Any) -> float:
        """Give the loss on the rows that some member did not see."""
        known = self.count > 0
        return loss(self.held_out(known), y[known], self.task)

    def held_out(self, known: Any = slice(None)) -> Array:
        """Give the mean answer, for each row, of the members that did not see it."""
        return np.asarray((self.total[known].T / self.count[known]).T)

    def answer(self, X: Array) -> Array:
        """Give the members' mean, of numbers or of class probabilities."""
        return np.asarray(np.mean([self._answer(member, X) for member in self.members], axis=0))

    def _answer(self, member: Any, X: Array) -> Array:
        return np.asarray(member.predict_proba(X) if self.task == "classification" else member.predict(X))


def loss(answer: Array, y: Any, task: str) -> float:
    """Give the mean squared error, or the log loss of class codes."""
    if task == "regression":
        return float(np.mean((answer - y) ** 2))
    return float(-np.log(np.maximum(answer[np.arange(len(y)), y], 1e-15)).mean())


def race(candidates: Iterable[Candidate], X: Array, y: Any, task: str = "regression") -> list[Committee]:
    """Let candidates grow round by round, and only the best go on (Jamieson & Talwalkar 2016).

    A round deals the rows into five folds and admits five members. Of many rows the first fold alone is the
    first round, and the other four are the second. What comes back is the best committee, or the best two or
    three where their mean answer has less loss on rows that their members did not see.
    """
    folds: Any = KFold if task == "regression" else StratifiedKFold
    many = len(y) >= LARGE
    deals = 1 if many else 4 if task == "regression" else 2
    dealt = [list(folds(5, shuffle=True, random_state=100 + r).split(X, y)) for r in range(deals)]
    rounds = [dealt[0][:1], dealt[0][1:]] if many else dealt
    running = [Committee(candidate, task) for candidate in candidates]
    for left, parts in zip(range(len(rounds), 0, -1), rounds, strict=True):
        for committee in running:
            for train, test in parts:
                committee.admit(X, y, train, test)
        running = sorted(running, key=lambda one: one.loss(y))[: FINALISTS + (0 if many else left - 1)]
    parties = [running[:size] for size in range(1, FINALISTS + 1)]
    return min(parties, key=lambda some: loss(np.mean([one.held_out() for one in some], axis=0), y, task))


def together(finalists: list[Committee], X: Array) -> Any:
    """Give the mean of the finalists' answers, or the code of the class that it makes the likeliest."""
    mean = np.mean([committee.answer(X) for committee in finalists], axis=0)
    return mean.argmax(axis=1) if mean.ndim == 2 else mean


# -- the table

OURS = ("plain", "bagged", "boosted", "chosen")
EVERY = (*_data.NAMES, "kin8nm", *_data.CLASSES)
SPLITS = 4  # of kin8nm
QUICK = ("mcycle", "wine")
LOSS_ALLOWED = 0.005  # of Ridge's error; of logistic regression's accuracy


def plain(X: Array, y: Any, task: str) -> Any:
    """Choose one mixture with linear experts by cross-validation on the training rows."""
    model = Candidate("linear", 1, 1.0).model(X.shape[1], 0, task)
    tried: tuple[Any, ...]
    if task == "classification":
        tried, scoring, folds = ((1, 2), (0.1, 1.0), (1e-2,)), "neg_log_loss", StratifiedKFold
    else:
        few = ((1, 2, 3, 4, 6), (0.1, 1.0), (1e-10, 1e-2))
        tried, folds = ((1, 8, 16), (1.0,), (1e-10,)) if len(y) >= LARGE else few, KFold
        scoring = "neg_mean_squared_error"
    names = (f"{model.steps[-1][0]}__{name}" for name in ("n_experts", "alpha", "gate_alpha"))
    deal = folds(3 if len(y) >= LARGE else 5, shuffle=True, random_state=100)
    grid = dict(zip(names, tried, strict=True))
    return GridSearchCV(model, grid, scoring=scoring, cv=deal).fit(X, y).best_estimator_


def fold(job: _data.Job) -> tuple[str, dict[str, float], str, float]:
    """Fit everything on the training rows of a fold, and measure it on the test rows."""
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    X, y, unseen = job.X[job.train], job.y[job.train], job.X[job.test]
    models = {name: model.fit(X, y) for name, model in _data.peers(job.task).items()}
    models["plain"] = one = plain(X, y, job.task)
    candidates = OF_CLASSES
    if job.task == "regression":
        candidates = OF_MANY_ROWS
        if len(y) < LARGE:
            candidates = CANDIDATES
            models["bagged"] = BaggingRegressor(one, 20, random_state=0).fit(X, y)
            models["boosted"] = AdaBoostRegressor(one, n_estimators=10, random_state=0).fit(X, y)
    finalists = race(candidates, X, y, job.task)
    answers = {name: model.predict(unseen) for name, model in models.items()}
    answers["chosen"] = together(finalists, unseen)
    truth = job.y[job.test]
    if job.task == "classification":
        figures = {name: float(np.mean(answer == truth)) for name, answer in answers.items()}
    else:
        figures = {name: float(np.sqrt(np.mean((a - truth) ** 2))) for name, a in answers.items()}
    return job.name, figures, str(finalists[0].candidate), time.perf_counter() - begun


def verdict(name: str, means: dict[str, float]) -> str:
    """Say whether `chosen` reached its aim and kept to the linear model, and which single model is better."""
    ours = means["chosen"]
    if name in _data.CLASSES:
        reached = ours >= means["linear"] - LOSS_ALLOWED
        aim = f"aim >= {means['linear'] - LOSS_ALLOWED:.4f}"
        better = [peer for peer in _data.PEERS if means.get(peer, 0.0) > ours + 1e-9]
    else:
        reached = ours <= _data.AIMS[name] and ours <= means["linear"] * (1 + LOSS_ALLOWED)
        aim = f"aim <= {_data.AIMS[name]:g}"
        better = [peer for peer in (*_data.PEERS, *_data.PUBLISHED) if means.get(peer, np.inf) < ours - 1e-9]
    lost = f"; loses to {', '.join(better)}" if better else ""
    return f"{aim} {'reached' if reached else 'missed'}{lost}"


def print_table(title: str, names: list[str], results: list[Any]) -> None:
    """Print a line for each data set, then what was chosen."""
    if not any(result[0] in names for result in results):
        return
    columns = (*_data.PEERS, *_data.PUBLISHED, *OURS)
    widths = [13 if "*" in column else 8 for column in columns]
    head = "".join(f"{column:>{width}}" for column, width in zip(columns, widths, strict=True))
    print(f"\n{title}\n{'':<20}{head}")
    notes = []
    for name in names:
        own = [result for result in results if result[0] == name]
        if not own:
            continue
        means = {c: float(np.mean([figures[c] for _, figures, _, _ in own])) for c in own[0][1]}
        means |= {column: known[name] for column, known in _data.PUBLISHED.items() if name in known}
        cells = (f"{means[c]:.4g}" if c in means else "-" for c in columns)
        print(f"{name:<20}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
        picks = ", ".join(f"{pick} ({n})" for pick, n in Counter(pick for _, _, pick, _ in own).most_common())
        folds, seconds = len(own), sum(taken for *_, taken in own)
        notes.append(f"{name}: {verdict(name, means)}. First in {folds} folds: {picks}. {seconds:.0f} s")
    print("\n".join(notes))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small data sets")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=EVERY, help="these data sets")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    names = given.only or (QUICK if given.quick else EVERY)
    run: Callable[..., Any] = delayed(fold)
    results = Parallel(n_jobs=given.n_jobs)(run(job) for job in _data.jobs(names, SPLITS))
    regressions = [name for name in names if name not in _data.CLASSES]
    print_table(f"RMSE; kin8nm: {SPLITS} of the 20 published splits", regressions, results)
    print_table("accuracy", [name for name in names if name in _data.CLASSES], results)
    print("\nlinear: Ridge(1), LogisticRegression. * published figure, measured elsewhere on the same folds.")


if __name__ == "__main__":
    main()
