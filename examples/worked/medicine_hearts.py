"""Heart disease in four hospitals: an expert for each hospital, and a patient from one that nobody has seen.

Task: 920 patients, 13 findings; is a coronary vessel narrowed by half? All is fitted on three hospitals, and
measured on the fourth; settings by leaving one of the three out. Data: UCI heart disease (Detrano 1989).
Compared: the mixture, logistic regressions as large as an expert and as the mixture, and gradient boosting.
"""

import argparse
import csv
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from _tools import Floats, compare, data_file, delong, print_table, with_products
from scipy import stats
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from expertise import MixtureOfExpertsClassifier
from expertise.mixture import FewCasesWarning

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
NUMBERS = ("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak", "ca")
KINDS = ("cp", "restecg", "slope", "thal")
Fit = Callable[..., tuple[Any, int]]  # X, y, hospital, settings -> a fitted model, its parameters


def load() -> tuple[Floats, Floats, Any]:
    """Give findings (920, 13) with NaN where missing, disease 0 or 1, and the hospital of each patient."""
    with data_file("health/heart_disease_uci_4_hospitals.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    X = np.array([[float(row[name] or "nan") for name in (*NUMBERS, *KINDS)] for row in rows])
    X[:, 2:4][X[:, 2:4] == 0] = np.nan  # no blood pressure or cholesterol is 0
    return X, np.array([float(row["num"]) > 0 for row in rows]) * 1.0, np.array([r["hospital"] for r in rows])


def preparation() -> Any:
    """Impute with indicators, one column a kind (missing is a kind too), standardise."""
    numbers = SimpleImputer(strategy="median", add_indicator=True)
    kinds = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = (numbers, [*range(9)]), (kinds, [*range(9, 13)])
    return make_pipeline(make_column_transformer(*parts, verbose_feature_names_out=False), StandardScaler())


def mixture(X: Floats, y: Floats, hospital: Any, alpha: float, gate_alpha: float) -> Any:
    """Fit a logistic expert for each hospital; the gate sees findings, never the name of a hospital."""
    model = MixtureOfExpertsClassifier(
        partition="given", expert="logistic", alpha=alpha, gate_alpha=gate_alpha, tol=1e-5, random_state=0
    )
    steps = make_pipeline(preparation(), model)
    return steps.fit(X, y, mixtureofexpertsclassifier__subtask=hospital), model.n_parameters_


def logistic(X: Floats, y: Floats, hospital: Any, C: float, products: int = 0) -> Any:
    """Fit a logistic regression, with so many products of columns for each column and the intercept."""
    Z = preparation().fit_transform(X)
    more = FunctionTransformer(with_products(Z, products * (Z.shape[1] + 1)))
    model = LogisticRegression(C=C, max_iter=2000)
    steps = make_pipeline(preparation(), more, StandardScaler(), model).fit(X, y)
    return steps, 1 + model.n_features_in_


def boosting(X: Floats, y: Floats, hospital: Any, rate: float, leaves: int) -> Any:
    """Fit a gradient boosting of 100 trees, which takes missing findings as they are."""
    model = HistGradientBoostingClassifier(learning_rate=rate, max_leaf_nodes=leaves, random_state=0)
    return model.fit(X, y), 100 * leaves


MODELS: dict[str, tuple[Fit, Sequence[tuple[float, ...]]]] = {
    "mixture, hospitals given": (mixture, [*product([3, 10, 30], [0.03, 0.3])]),
    "same size: logistic": (logistic, [(C,) for C in (0.003, 0.01, 0.03, 0.1, 1.0)]),
    # three experts and the gate are 3 + 2 times as large as one
    "equal parameters: logistic": (logistic, [(C, 4) for C in (0.0003, 0.001, 0.003, 0.01, 0.1)]),
    "gradient boosting": (boosting, [*product([0.02, 0.05, 0.1], [4, 8])]),
}


def choose(fit: Fit, settings: Sequence[Any], X: Floats, y: Floats, hospital: Any) -> Any:
    """Give the settings with the smallest log loss when each training hospital is left out in turn."""
    folds = [*LeaveOneGroupOut().split(X, y, hospital)]

    def loss(setting: Any) -> float:
        models = [fit(X[a], y[a], hospital[a], *setting)[0] for a, _ in folds]
        each = [log_loss(y[b], m.predict_proba(X[b])) for m, (_, b) in zip(models, folds, strict=True)]
        return float(np.sum(each))

    return min(settings, key=loss)


def calibration_error(y: Floats, p: Floats, bins: int = 10) -> float:
    """Give the mean distance of said and seen shares over bins of equal width, weighted by patients."""
    at = np.minimum((p * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(at, p - y, bins)).sum() / len(y))


def main(quick: bool = False) -> None:
    warnings.simplefilter("ignore", FewCasesWarning)  # hospitals left out inside judge the settings
    X, y, hospital = load()
    truth = {h: y[hospital == h] for h in HOSPITALS}
    said: dict[str, dict[str, Floats]] = {name: {} for name in MODELS}
    sizes, fitted = {}, {}
    for h in HOSPITALS:
        known = [one[hospital != h] for one in (X, y, hospital)]
        for name, (fit, settings) in MODELS.items():
            chosen = settings[0] if quick else choose(fit, settings, *known)
            fitted[name, h], sizes[name] = fit(*known, *chosen)
            said[name][h] = fitted[name, h].predict_proba(X[hospital == h])[:, 1]
    rows, auc = {}, {}
    for name, each in said.items():
        auc[name] = np.array([roc_auc_score(truth[h], each[h]) for h in HOSPITALS])
        brier = np.mean([np.mean((each[h] - truth[h]) ** 2) for h in HOSPITALS])
        error = np.mean([calibration_error(truth[h], each[h]) for h in HOSPITALS])
        rows[name] = (str(sizes[name]), *auc[name], auc[name].mean(), brier, error)
    print_table(("parameters", *HOSPITALS, "mean AUC", "Brier", "calibration"), rows)
    ours, *others = MODELS
    for other in others:
        print(compare(ours, other, auc[ours], auc[other], lower_is_better=False))
        mean, variance = np.mean([delong(truth[h], said[ours][h], said[other][h]) for h in HOSPITALS], axis=0)
        half = stats.norm.ppf(0.975) * np.sqrt(variance / len(HOSPITALS))
        print(f"  over patients: {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")
    print("\nmean gate weight of each hospital's expert, for patients of a hospital left out")
    weights = {}
    for h in HOSPITALS:
        prepare, experts = fitted[ours, h][:-1], fitted[ours, h][-1]
        Z = prepare.transform(X[hospital == h])
        gate = dict(zip(experts.subtasks_, experts.gate_proba(Z).mean(axis=0), strict=True))
        weights[h] = [f"{gate[one]:.2f}" if one in gate else "-" for one in HOSPITALS]
    print_table(HOSPITALS, weights)
    names = ", ".join(experts.subtasks_)
    print(f"\nthe first patient of va, left out: experts {names}; standardised findings")
    columns = tuple(prepare.get_feature_names_out([*NUMBERS, *KINDS]))
    print(replace(experts.explain(Z[:1]), feature_names=columns))
    best, sharpest = max(rows, key=lambda name: rows[name][5]), min(rows, key=lambda name: rows[name][6])
    print(f"\nhighest mean AUC: {best}; smallest Brier score: {sharpest}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one setting of each model, none is chosen")
    main(parser.parse_args().quick)
