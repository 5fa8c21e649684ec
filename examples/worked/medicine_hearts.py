"""Heart disease in four hospitals: an expert for each hospital, and a patient from one that nobody has seen.

Task: 920 patients, 13 findings; is a coronary vessel narrowed by half? Leave one hospital out: all is fitted
on three, settings by leaving one of these three out (log loss), and measured on the fourth. Data: UCI heart
disease (Janosi, Steinbrunn, Pfisterer & Detrano 1988; Detrano et al., Am. J. Cardiology 1989). Findings that
were not taken, and a cholesterol or blood pressure of 0, are missing: imputed, with an indicator. Compared:
mixtures with hospitals given or experts found, beside logistic regression, alone and with products of columns
up to the size of the mixture, and gradient boosting: AUC, Brier score, calibration error.
"""

import argparse
import csv
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from _tools import Floats, compare, data_file, print_table
from scipy import stats
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from expertise import MixtureOfExpertsClassifier
from expertise.mixture import DegenerateExpertWarning, FewCasesWarning

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
NUMBERS = ("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak", "ca")
KINDS = ("cp", "restecg", "slope", "thal")
Predict = Callable[[Floats], Floats]  # findings -> probabilities of disease
Fit = Callable[..., tuple[Predict, int, Any]]  # X, y, hospital, settings -> and parameters, and the model


def load() -> tuple[Floats, Floats, Any]:
    """Give findings (920, 13) with NaN where missing, disease 0 or 1, and the hospital of each patient."""
    with data_file("health/heart_disease_uci_4_hospitals.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    X = np.array([[float(row[name] or "nan") for name in (*NUMBERS, *KINDS)] for row in rows])
    X[:, 2:4][X[:, 2:4] == 0] = np.nan
    return X, np.array([float(row["num"]) > 0 for row in rows]) * 1.0, np.array([r["hospital"] for r in rows])


def preparation() -> Any:
    """Impute with indicators, one column a kind (missing is a kind too), standardise."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True))
    kinds = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer(
        (numbers, [*range(9)]), (kinds, [*range(9, 13)]), verbose_feature_names_out=False
    )
    return make_pipeline(columns, StandardScaler())


def mixture(given: bool) -> Fit:
    """Make a mixture of logistic experts; the gate sees only findings, never the name of a hospital."""
    for small in (FewCasesWarning, DegenerateExpertWarning):
        warnings.simplefilter("ignore", small)  # hospitals left out inside judge the settings that starve one

    def fit(X: Floats, y: Floats, hospital: Any, experts: int, alpha: float, gate_alpha: float) -> Any:
        prepare = preparation().fit(X)
        model = MixtureOfExpertsClassifier(
            None if given else experts,
            expert="logistic",
            partition="given" if given else "mapping",
            alpha=alpha,
            gate_alpha=gate_alpha,
            n_init=3,
            tol=1e-5,
            random_state=0,
        ).fit(prepare.transform(X), y, subtask=hospital if given else None)
        return (
            lambda Z: model.predict_proba(prepare.transform(Z))[:, 1],
            model.n_parameters_,
            (prepare, model),
        )

    return fit


def logistic(products: bool) -> Fit:
    """Make a logistic regression, with products of columns up to the size of three experts and their gate."""

    def fit(X: Floats, y: Floats, hospital: Any, C: float) -> Any:
        prepare = preparation().fit(X)
        q = prepare.transform(X[:1]).shape[1]
        # the products that vary most, so that none is of two kinds that exclude each other
        pairs = np.array([*itertools.combinations(range(q), 2)]).T
        spread = (prepare.transform(X)[:, pairs[0]] * prepare.transform(X)[:, pairs[1]]).std(axis=0)
        kept = pairs[:, np.argsort(-spread, kind="stable")[: 4 * (q + 1) if products else 0]]

        def more(Z: Floats) -> Floats:
            Z = prepare.transform(Z)
            return np.hstack([Z, Z[:, kept[0]] * Z[:, kept[1]]])

        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000)).fit(more(X), y)
        return lambda Z: model.predict_proba(more(Z))[:, 1], 1 + q + kept.shape[1], model

    return fit


def boosting(X: Floats, y: Floats, hospital: Any, rate: float, leaves: int) -> Any:
    """Make a gradient boosting of 100 trees, which takes missing findings as they are."""
    model = HistGradientBoostingClassifier(learning_rate=rate, max_leaf_nodes=leaves, random_state=0).fit(
        X, y
    )
    return lambda Z: model.predict_proba(Z)[:, 1], 100 * leaves, model


MODELS: dict[str, tuple[Fit, list[tuple[Any, ...]]]] = {
    "mixture, hospitals given": (mixture(True), [*itertools.product([3], [3, 10, 30], [0.03, 0.3])]),
    "mixture, experts found": (mixture(False), [*itertools.product([2, 3], [10, 30], [0.03, 0.1])]),
    "same size: logistic": (logistic(False), [(C,) for C in (0.003, 0.01, 0.03, 0.1, 1.0)]),
    "equal parameters: logistic": (logistic(True), [(C,) for C in (0.0003, 0.001, 0.003, 0.01, 0.1)]),
    "gradient boosting": (boosting, [*itertools.product([0.02, 0.05, 0.1], [4, 8])]),
}


def choose(fit: Fit, settings: Sequence[Any], X: Floats, y: Floats, hospital: Any) -> Any:
    """Give the settings with the smallest mean log loss when each training hospital is left out in turn."""
    if len(settings) == 1:
        return settings[0]
    loss = []
    for setting in settings:
        each = []
        for name in np.unique(hospital):
            out = hospital == name
            p = np.clip(fit(X[~out], y[~out], hospital[~out], *setting)[0](X[out]), 1e-6, 1 - 1e-6)
            each.append(-np.mean(np.where(y[out] == 1, np.log(p), np.log(1 - p))))
        loss.append(np.mean(each))
    return settings[int(np.argmin(loss))]


def placements(y: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Give, for each sick and each healthy patient, the share of the other kind on its right side.

    The mean of either is the AUC; their variances give that of the AUC (DeLong et al., Biometrics 1988).
    """
    sick, healthy = p[y == 1], p[y == 0]
    right = (sick[:, None] > healthy) + 0.5 * (sick[:, None] == healthy)
    return right.mean(axis=1), right.mean(axis=0)


def calibration_error(y: Floats, p: Floats, bins: int = 10) -> float:
    """Give the mean distance of said and seen shares over bins of equal width, weighted by patients."""
    at = np.minimum((p * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(at, p - y, bins)).sum() / len(y))


def versus(ours: str, other: str, y: dict[str, Floats], said: dict[str, dict[str, Floats]]) -> None:
    """Print both intervals of a difference of mean AUC: over hospitals, and over patients of these four."""
    auc, variance = [], 0.0
    for h in y:
        a, b = (placements(y[h], said[name][h]) for name in (ours, other))
        auc.append((a[0].mean(), b[0].mean()))
        variance += sum((u - v).var(ddof=1) / len(u) for u, v in zip(a, b, strict=True)) / len(y) ** 2
    both = np.array(auc).T
    print(compare(ours, other, both[0], both[1], lower_is_better=False))
    mean, half = float((both[0] - both[1]).mean()), float(stats.norm.ppf(0.975) * np.sqrt(variance))
    print(f"  over patients: {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")


def main(quick: bool = False) -> None:
    """Print the tables."""
    X, y, hospital = load()
    truth = {h: y[hospital == h] for h in HOSPITALS}
    said: dict[str, dict[str, Floats]] = {name: {} for name in MODELS}
    sizes, weights, explained = {}, {}, ""
    for name, (fit, settings) in MODELS.items():
        for h in HOSPITALS:
            train = hospital != h
            known = X[train], y[train], hospital[train]
            predict, sizes[name], model = fit(*known, *choose(fit, settings[: 1 if quick else None], *known))
            said[name][h] = predict(X[~train])
            if name == "mixture, hospitals given":
                prepare, experts = model
                gate = dict(
                    zip(experts.subtasks_, experts.gate_proba(prepare.transform(X[~train])).T, strict=True)
                )
                weights[h] = ["-" if one == h else f"{gate[one].mean():.2f}" for one in HOSPITALS]
                if h == "va":
                    names = tuple(prepare.get_feature_names_out([*NUMBERS, *KINDS]))
                    case = replace(experts.explain(prepare.transform(X[~train][:1])), feature_names=names)
                    explained = f"experts {', '.join(experts.subtasks_)}; standardised findings\n{case}"
    rows = {}
    for name, each in said.items():
        auc = [placements(truth[h], each[h])[0].mean() for h in HOSPITALS]
        brier = np.mean([np.mean((each[h] - truth[h]) ** 2) for h in HOSPITALS])
        error = np.mean([calibration_error(truth[h], each[h]) for h in HOSPITALS])
        rows[name] = (str(sizes[name]), *auc, np.mean(auc), brier, error)
    print_table(("parameters", *HOSPITALS, "mean AUC", "Brier", "calibration"), rows)
    for ours in list(MODELS)[:2]:
        for other in list(MODELS)[2:]:
            versus(ours, other, truth, said)
    print("\nmean gate weight of each hospital's expert, for patients of a hospital left out")
    print_table(HOSPITALS, weights)
    print(f"\nthe first patient of va, left out: {explained}")
    print(
        f"\nhighest mean AUC: {max(rows, key=lambda name: rows[name][5])}; "
        f"smallest Brier score: {min(rows, key=lambda name: rows[name][6])}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one setting of each model, none is chosen")
    main(parser.parse_args().quick)
