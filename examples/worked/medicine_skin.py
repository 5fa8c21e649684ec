"""Six skin diseases that look alike: a specialist for each, and a gate that reads the symptoms.

Task: the disease of 366 patients from 34 attributes. Data: UCI dermatology (Guvenir, Demiroz & Ilter 1998).
Compared: a specialist for each disease, the partition given or found by EM, beside the single model of the
size of a specialist, logistic regressions, one with as many parameters as the mixture, and gradient boosting.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from _tools import Floats, compare, data_file, print_table, with_products
from scipy.optimize import linear_sum_assignment
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from expertise import MixtureOfExpertsClassifier
from expertise.mixture import FewCasesWarning

DISEASES = (
    "psoriasis",
    "seborrheic dermatitis",
    "lichen planus",
    "pityriasis rosea",
    "chronic dermatitis",
    "pityriasis rubra pilaris",
)
Fit = Callable[[Floats, Any, float], Any]  # X, disease, ridge -> a fitted classifier


def load() -> tuple[Floats, Any, tuple[str, ...]]:
    """Give attributes (366, 34), eight ages NaN; the diseases; the names of the attributes."""
    path = data_file("health/dermatology.csv")
    names = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    table = np.genfromtxt(path, delimiter=",", skip_header=1)  # an age that is "?" becomes NaN
    return table[:, :-1], np.array(DISEASES)[table[:, -1].astype(int) - 1], tuple(names[:-1])


def given(X: Floats, y: Any, ridge: float) -> MixtureOfExpertsClassifier:
    """Fit a specialist for each disease, who says his disease; the gate learns to send patients to him."""
    model = MixtureOfExpertsClassifier(partition="given", expert="constant", gate_alpha=ridge)
    return model.fit(X, y, subtask=y)


def found(X: Floats, y: Any, ridge: float) -> MixtureOfExpertsClassifier:
    """Fit as many experts; nobody says which is for whom, EM finds it."""
    return MixtureOfExpertsClassifier(
        len(np.unique(y)), expert="constant", gate_alpha=ridge, n_init=5, tol=1e-4, random_state=0
    ).fit(X, y)


def logistic(X: Floats, y: Any, ridge: float, products: int = 0) -> Any:
    """Fit a multinomial logistic regression; the ridge is a row's, as that of a gate."""
    scale = StandardScaler()
    more = FunctionTransformer(with_products(scale.fit_transform(X), products))
    model = LogisticRegression(C=1 / (ridge * len(X)), max_iter=3000)
    return make_pipeline(scale, more, StandardScaler(), model).fit(X, y)


RIDGES = (0.001, 0.003, 0.01, 0.03)  # a model with none gets the one that was chosen for the specialists
OURS, FOUND = "given: specialist per disease", "found: 6 constant experts"
MODELS: dict[str, tuple[Fit, Sequence[float]]] = {
    OURS: (given, RIDGES),
    FOUND: (found, ()),
    "size of a specialist: frequencies": (lambda X, y, _: DummyClassifier(strategy="prior").fit(X, y), ()),
    "multinomial logistic regression": (logistic, RIDGES),
    "the same + 6 products": (partial(logistic, products=6), RIDGES),
    "gradient boosting": (lambda X, y, _: HistGradientBoostingClassifier(max_leaf_nodes=8).fit(X, y), ()),
}


def count(model: Any) -> str:
    """Give the number of free parameters."""
    if isinstance(model, HistGradientBoostingClassifier):
        return "trees"
    inputs = model[-1].n_features_in_ if isinstance(model, Pipeline) else 0
    return str(getattr(model, "n_parameters_", (len(model.classes_) - 1) * (inputs + 1)))


def log_loss(model: Any, X: Floats, y: Any) -> float:
    """Give the mean of -log P(the right disease), no probability below 1e-6."""
    right = model.predict_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(-np.log(np.maximum(right, 1e-6)).mean())


def choose(fit: Fit, ridges: Sequence[float], X: Floats, y: Any) -> float:
    """Give the ridge with the smallest log loss over three inner folds."""
    folds = [*StratifiedKFold(3, shuffle=True, random_state=1).split(X, y)]
    return min(ridges, key=lambda ridge: sum(log_loss(fit(X[a], y[a], ridge), X[b], y[b]) for a, b in folds))


def specialists(model: Any, X: Floats, y: Any) -> Any:
    """Give the disease of each expert: the match that agrees most with the gate."""
    diseases, gate = np.unique(y), model.gate_proba(X)
    agreement = np.array([gate[y == disease].sum(axis=0) for disease in diseases])
    rows, experts = linear_sum_assignment(agreement, maximize=True)
    return diseases[rows][np.argsort(experts)]


def main(quick: bool = False) -> None:
    warnings.simplefilter("ignore", FewCasesWarning)  # the rarest disease has 12 patients in an inner fold
    X, y, names = load()
    ridge, fitted = 0.0, {}
    figures: dict[str, list[tuple[float, ...]]] = {name: [] for name in MODELS}
    folds = [*StratifiedKFold(10, shuffle=True, random_state=0).split(X, y)]
    for train, test in folds[: 2 if quick else None]:
        age = SimpleImputer(strategy="median").fit(X[train])
        A, B = age.transform(X[train]), age.transform(X[test])
        for name, (fit, ridges) in MODELS.items():
            if ridges:
                ridge = ridges[0] if quick else choose(fit, ridges, A, y[train])
            model = fitted[name] = fit(A, y[train], ridge)
            mass = np.nan
            if isinstance(model, MixtureOfExpertsClassifier):
                right = specialists(model, A, y[train]) == y[test][:, None]
                mass = float(model.gate_proba(B)[right].mean())
            figures[name].append((model.score(B, y[test]), log_loss(model, B, y[test]), mass))
    table = {name: np.array(rows).T for name, rows in figures.items()}
    mean = {name: [f"{x:.3f}" if x == x else "-" for x in each.mean(axis=1)] for name, each in table.items()}
    rows = {name: (count(fitted[name]), *mean[name]) for name in MODELS}
    print_table(("parameters", "accuracy", "log loss", "on the right one"), rows)
    for row, what in ((1, "log loss"), (0, "accuracy")):
        print(f"\n{what}")
        for ours in (OURS, FOUND):
            for other in [*MODELS][2:]:
                print(compare(ours, other, table[ours][row], table[other][row], lower_is_better=row == 1))
    last, hard = fitted[OURS], B[y[test] == "pityriasis rosea"]
    print(f"\nexperts: {', '.join(last.subtasks_)}; of the patients held out last who have pityriasis rosea")
    unsure = np.argmin(last.gate_proba(hard)[:, last.subtasks_ == "pityriasis rosea"])
    told = replace(last.explain(hard[[unsure]]), feature_names=names)
    print("the one of whom the gate is least sure", told, sep="\n")
    loss = {name: each[1].mean() for name, each in table.items()}
    near = [name for name in MODELS if loss[name] < min(loss.values()) + 0.005]
    print(f"\nsmallest log loss, within .005: {'; '.join(near)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two folds of the ten, one ridge of the four")
    main(parser.parse_args().quick)
