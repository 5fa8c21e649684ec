"""Six skin diseases that look alike: a specialist for each, and a gate that reads the symptoms.

Task: 366 patients, 34 attributes (12 at the bedside, 22 under the microscope), six diseases. Data: UCI
dermatology (Guvenir, Demiroz & Ilter 1998). Ten stratified folds; ridges by log loss in three inner folds.
Compared: mixtures whose partition is given (a specialist learns where its disease is, so its family is
"constant") or found by EM, beside the single model as large as one expert, single models with as many
parameters as each mixture (multinomial logistic regression with products), and gradient boosting.
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
from scipy.optimize import linear_sum_assignment
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
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
BEDSIDE = (*range(11), 33)  # eleven clinical signs and the age; the other columns need a biopsy
Fit = Callable[[Floats, Any, float], Any]  # X, disease, ridge -> a fitted classifier


def load() -> tuple[Floats, Any, tuple[str, ...]]:
    """Give attributes (366, 34), eight ages NaN; the diseases; the names of the attributes."""
    with data_file("health/dermatology.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = tuple(name for name in rows[0] if name != "class")
    X = np.array([[float(row[name].replace("?", "") or "nan") for name in names] for row in rows])
    return X, np.array([DISEASES[int(row["class"]) - 1] for row in rows]), names


def given(X: Floats, y: Any, ridge: float, **options: Any) -> MixtureOfExpertsClassifier:
    """Fit a specialist for each disease; the gate learns to send patients to it."""
    model = MixtureOfExpertsClassifier(partition="given", expert="constant", gate_alpha=ridge, **options)
    return model.fit(X, y, subtask=y)


def found(X: Floats, y: Any, ridge: float, experts: int, family: str) -> MixtureOfExpertsClassifier:
    """Fit experts whose partition EM finds; nobody says which expert is for whom."""
    return MixtureOfExpertsClassifier(
        experts, expert=family, alpha=ridge * len(X), gate_alpha=ridge, n_init=5, tol=1e-4, random_state=0
    ).fit(X, y)


def logistic(X: Floats, y: Any, ridge: float, products: int = 0) -> Any:
    """Fit a multinomial logistic regression; the ridge is a row's, as that of a gate."""
    scale, (first, second) = StandardScaler().fit(X), np.triu_indices(X.shape[1], 1)
    spread = (scale.transform(X)[:, first] * scale.transform(X)[:, second]).std(axis=0)
    kept = np.argsort(-spread, kind="stable")[:products]  # the products that vary most

    def more(Z: Floats) -> Floats:
        Z = scale.transform(Z)
        return np.hstack([Z, Z[:, first[kept]] * Z[:, second[kept]]])

    model = LogisticRegression(C=1 / (ridge * len(X)), max_iter=3000)
    return make_pipeline(FunctionTransformer(more), StandardScaler(), model).fit(X, y)


def boosting(X: Floats, y: Any, rate: float) -> Any:
    """Fit a gradient boosting."""
    return HistGradientBoostingClassifier(learning_rate=rate, max_leaf_nodes=8, random_state=0).fit(X, y)


def frequencies(X: Floats, y: Any, ridge: float) -> Any:
    """Fit one constant: how often each disease comes."""
    return DummyClassifier(strategy="prior").fit(X, y)


RIDGES = (0.001, 0.003, 0.01, 0.03)
# a model without ridges takes the one that was chosen for the specialists
MODELS: dict[str, tuple[Fit, Sequence[float]]] = {
    "given: specialist per disease": (given, RIDGES),
    "found: 6 constant experts": (partial(found, experts=6, family="constant"), ()),
    "found: 2 multinomial experts": (partial(found, experts=2, family="multinomial"), ()),
    "given, gate at the bedside": (partial(given, gate_features=BEDSIDE), RIDGES),
    "size of a specialist: frequencies": (frequencies, (0.0,)),
    "multinomial logistic regression": (logistic, RIDGES),
    "the same + 6 products": (partial(logistic, products=6), RIDGES),
    "the same + 42 products": (partial(logistic, products=42), RIDGES),
    "gradient boosting": (boosting, (0.1,)),
}
PAIRS = (
    ("given: specialist per disease", "size of a specialist: frequencies"),
    ("given: specialist per disease", "multinomial logistic regression"),
    ("given: specialist per disease", "the same + 6 products"),
    ("given: specialist per disease", "gradient boosting"),
    ("found: 6 constant experts", "the same + 6 products"),
    ("found: 2 multinomial experts", "multinomial logistic regression"),
    ("found: 2 multinomial experts", "the same + 42 products"),
    ("given: specialist per disease", "given, gate at the bedside"),
)


def count(model: Any) -> str:
    """Give the number of free parameters."""
    if hasattr(model, "n_parameters_"):
        return str(model.n_parameters_)
    if isinstance(model, HistGradientBoostingClassifier):
        return "trees"
    inputs = 0 if isinstance(model, DummyClassifier) else model[-1].n_features_in_
    return str((len(model.classes_) - 1) * (inputs + 1))


def log_loss(model: Any, X: Floats, y: Any) -> float:
    """Give the mean of -log P(the right disease), no probability below 1e-6."""
    right = model.predict_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(-np.log(np.maximum(right, 1e-6)).mean())


def choose(fit: Fit, ridges: Sequence[float], X: Floats, y: Any) -> float:
    """Give the ridge with the smallest log loss over three inner folds."""
    if len(ridges) == 1:
        return ridges[0]
    folds = [*StratifiedKFold(3, shuffle=True, random_state=1).split(X, y)]
    loss = [sum(log_loss(fit(X[a], y[a], ridge), X[b], y[b]) for a, b in folds) for ridge in ridges]
    return ridges[int(np.argmin(loss))]


def specialists(model: Any, X: Floats, y: Any) -> Any:
    """Give the disease of each expert: its label, or the match that agrees most with the gate."""
    if model.partition == "given":
        return model.subtasks_
    gate, diseases = model.gate_proba(X), np.unique(y)
    agreement = np.array([gate[y == disease].sum(axis=0) for disease in diseases])
    rows, experts = linear_sum_assignment(agreement, maximize=True)
    return diseases[rows][np.argsort(experts)]


def main(quick: bool = False) -> None:
    """Print the tables."""
    # the rarest disease has 12 patients in an inner fold; a ridge holds all that would need more of them
    warnings.simplefilter("ignore", FewCasesWarning)
    X, y, names = load()
    sizes: dict[str, str] = {}
    ridge = 0.0
    folds = [*StratifiedKFold(10, shuffle=True, random_state=0).split(X, y)][: 2 if quick else None]
    figures: dict[str, list[tuple[float, ...]]] = {name: [] for name in MODELS}
    for train, test in folds:
        age = SimpleImputer(strategy="median").fit(X[train])
        A, B = age.transform(X[train]), age.transform(X[test])
        for name, (fit, ridges) in MODELS.items():
            if ridges:
                ridge = choose(fit, ridges[:1] if quick else ridges, A, y[train])
            model = fit(A, y[train], ridge)
            mass, sizes[name] = np.nan, count(model)
            if getattr(model, "n_experts_", 0) == 6:
                right = specialists(model, A, y[train]) == y[test][:, None]
                mass = float(model.gate_proba(B)[right].mean())
            figures[name].append((model.score(B, y[test]), log_loss(model, B, y[test]), mass))
            if name == "given: specialist per disease":
                last, hard = model, B[y[test] == "pityriasis rosea"]
    table = {name: np.array(rows) for name, rows in figures.items()}
    rows = {}
    for name, each in table.items():
        mean = [f"{value:.3f}" if value == value else "-" for value in each.mean(axis=0)]
        rows[name] = (sizes[name], *mean)
    print_table(("parameters", "accuracy", "log loss", "on the right one"), rows)
    for column, what, lower, pairs in ((1, "log loss", True, PAIRS), (0, "accuracy", False, PAIRS[1:4])):
        print(f"\n{what}")
        for ours, other in pairs:
            print(
                compare(ours, other, table[ours][:, column], table[other][:, column], lower_is_better=lower)
            )
    print(f"\nexperts: {', '.join(last.subtasks_)}; of the patients held out last who have pityriasis rosea")
    case = hard[[np.argmin(last.gate_proba(hard)[:, list(last.subtasks_).index("pityriasis rosea")])]]
    print("the one of whom the gate is least sure")
    print(replace(last.explain(case), feature_names=names))
    loss, accuracy = (
        {name: sign * each[:, column].mean() for name, each in table.items()}
        for column, sign in ((1, 1), (0, -1))
    )
    for what, values in (("smallest log loss", loss), ("highest accuracy", accuracy)):
        near = [name for name, value in values.items() if value < min(values.values()) + 0.005]
        print(f"\n{what}, within .005: {'; '.join(near)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two folds of the ten, one ridge of the four")
    main(parser.parse_args().quick)
