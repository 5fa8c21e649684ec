"""Vowels of men, women and children: does a gate that sees only the formants find who speaks?

Peterson & Barney (JASA 24:175-184, 1952): ten vowels, said twice by 76 speakers, as f0 to F3. Men, women and
children are three sub-tasks. Meta-Pi (an expert a group, trained apart and frozen) and "given" are told
the group in training, "found" (EM) is not, and nobody at prediction. Ten folds by speaker; all settings were
fixed before. Ten classes have nine free logits.
"""

import argparse
import warnings
from typing import Any

import numpy as np
import torch
from _tools import compare, data_file, print_table
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from expertise import MixtureOfExpertsClassifier, NeuralMixtureClassifier
from expertise.mixture import FewCasesWarning

Array = NDArray[Any]
GROUPS = {"m": "men", "w": "women", "c": "children"}
INPUTS = {"F1 F2": [1, 2], "f0-F3": [0, 1, 2, 3]}
RIDGE = 0.1
BESIDE = {  # of a mixture: the model of the size of its expert, and those of its own size
    "F1 F2": ("logistic, F1 F2", "products, f0 F1 F2", "network, 5 hidden"),
    "f0-F3": ("logistic, f0-F3", "products, f0-F3", "network, 9 hidden"),
}


def read() -> tuple[Array, Array, Array, Array]:
    """Give log f0 to F3 (n, 4), and vowels, groups and speakers (n,)."""
    rows = np.loadtxt(data_file("vowels/peterson_barney_1952.csv"), str, delimiter=",", skiprows=1)
    return np.log(rows[:, 5:9].astype(float)), rows[:, 3], rows[:, 0], rows[:, 2]


def logistic(columns: list[int], degree: int = 1) -> Any:
    """Make a logistic regression on some columns and their products up to a degree, all standardised."""
    see = ColumnTransformer([("see", StandardScaler(), columns)])
    products = PolynomialFeatures(degree, include_bias=False)
    return make_pipeline(see, products, StandardScaler(), LogisticRegression(C=1 / RIDGE, max_iter=5000))


def network(hidden: int) -> Any:
    """Make a network with one hidden layer that sees everything."""
    net = MLPClassifier(hidden, solver="lbfgs", alpha=RIDGE, max_iter=20_000, max_fun=50_000, random_state=0)
    return make_pipeline(StandardScaler(), net)


def fit_all(X: Array, y: Array, group: Array) -> dict[str, tuple[int, Any]]:
    """Fit every model; give its number of free parameters beside it (of trees, the leaves)."""
    models: dict[str, tuple[int, Any]] = {}
    for sees, columns in INPUTS.items():
        expert = 9 * (1 + len(columns))
        whole = 3 * expert + 2 * (1 + X.shape[1])
        experts = [logistic(columns).fit(X[group == one], y[group == one]) for one in GROUPS]
        pi = NeuralMixtureClassifier(
            experts=experts, freeze_experts=True, objective="cooperative", epochs=60, random_state=0
        )
        models[f"Meta-Pi, {sees}"] = whole, pi.fit(X, y)
        options: Any = {"expert_features": columns, "alpha": RIDGE, "gate_alpha": 1e-3, "random_state": 0}
        given = MixtureOfExpertsClassifier(partition="given", **options)
        models[f"given, {sees}"] = whole, given.fit(X, y, subtask=group)
        found = MixtureOfExpertsClassifier(3, n_init=3, tol=1e-5, **options)
        models[f"found, {sees}"] = whole, found.fit(X, y)
        models[f"logistic, {sees}"] = expert, logistic(columns).fit(X, y)
    models["products, f0 F1 F2"] = 9 * 10, logistic([0, 1, 2], degree=2).fit(X, y)
    models["products, f0-F3"] = 9 * 15, logistic([0, 1, 2, 3], degree=2).fit(X, y)
    for hidden in (5, 9):
        models[f"network, {hidden} hidden"] = 15 * hidden + 10, network(hidden).fit(X, y)
    trees = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(X, y)
    leaves = sum(tree.get_n_leaf_nodes() for stage in trees._predictors for tree in stage)
    models["boosted trees"] = leaves, trees
    return models


def main(quick: bool) -> None:
    """Leave out the speakers of each fold in turn; print the tables, and say who wins."""
    torch.set_num_threads(1)
    # the 15 children are few for an expert, as the warning says: the ridge, the same for all, holds it
    warnings.simplefilter("ignore", FewCasesWarning)
    X, y, group, speaker = (part[:: 2 if quick else 1] for part in read())  # quick: each vowel once
    folds = list(StratifiedGroupKFold(10, shuffle=True, random_state=0).split(X, group, speaker))[
        : 2 if quick else 10
    ]
    rows, groups = np.concatenate([new for _, new in folds]), np.array(list(GROUPS))
    who = group[rows]
    right: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    picked: dict[str, list[Array]] = {}  # the group whose expert has the largest gate, row by row
    alike: dict[str, list[list[float]]] = {}  # mutual information of the expert with group and vowel
    alone: list[Array] = []  # whether each expert of Meta-Pi alone is right, (rows, 3)
    for old, new in folds:
        for name, (size, model) in fit_all(X[old], y[old], group[old]).items():
            right.setdefault(name, []).append(model.score(X[new], y[new]))
            sizes[name] = size
            if hasattr(model, "apply"):
                seen = [normalized_mutual_info_score(one[new], model.apply(X[new])) for one in (group, y)]
                alike.setdefault(name, []).append(seen)
            if name == "Meta-Pi, F1 F2":
                alone.append(model.classes_[model.predict_experts(X[new]).argmax(axis=2)] == y[new][:, None])
                told = alone[-1][group[new][:, None] == groups]
                right.setdefault("told the group, F1 F2", []).append(told.mean())
                sizes["told the group, F1 F2"] = 3 * 27
            if name.startswith("Meta-Pi"):
                picked.setdefault(name, []).append(groups[model.apply(X[new])])
            elif name.startswith("given"):
                picked.setdefault(name, []).append(model.subtasks_[model.apply(X[new])])
            elif name.startswith("found"):  # an expert is that group's whose training rows pick it most
                share = [np.bincount(model.apply(X[old][group[old] == one]), minlength=3) for one in groups]
                picked.setdefault(name, []).append(groups[np.argmax(share, axis=0)][model.apply(X[new])])
    print(f"{len(rows)} vowels of {len(set(speaker[rows]))} speakers whom no model has heard")
    table = {
        name: [str(sizes[name]), np.mean(v), *(np.mean(alike[name], axis=0) if name in alike else "--")]
        for name, v in right.items()
    }
    print_table(["parameters", "right", "expert~group", "expert~vowel"], table)
    print("\nthe gate picks an expert of (share of the rows of who speaks)")
    shares: dict[str, list[float | str]] = {}
    for name, parts in picked.items():
        choice = np.concatenate(parts)
        for one in GROUPS:
            shares[f"{name}: {GROUPS[one]}"] = [np.mean(choice[who == one] == other) for other in GROUPS]
        shares[f"{name}: the group is right"] = ["", "", "", np.mean(choice == who)]
    print_table([*GROUPS.values(), "all"], shares)
    print("\nwrong answers of an expert of Meta-Pi, F1 F2, alone (rows: who speaks)")
    wrong = {GROUPS[one]: list(1 - np.concatenate(alone)[who == one].mean(axis=0)) for one in GROUPS}
    print_table([f"expert of {name}" for name in GROUPS.values()], wrong)
    print()
    scores = {name: np.array(values) for name, values in right.items() if "told" not in name}
    for sees, others in BESIDE.items():
        for mixture in (f"{kind}, {sees}" for kind in ("Meta-Pi", "found")):
            for other in others:
                print(compare(mixture, other, scores[mixture], scores[other], lower_is_better=False))
    print(f"most often right: {max(scores, key=lambda name: scores[name].mean())}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 folds of 10, each vowel said once")
    main(parser.parse_args().quick)
