"""Two machines: a robot arm, whose law is smooth, and a power plant, whose law is rough.

kin8nm (DELVE): how far the hand of an arm is from a point, by the angles of its eight joints. power_plant
(Tufekci 2014, UCI): MW by temperature AT, vacuum V, pressure AP and humidity RH. Five published splits.
By EM: eight experts, linear in inputs, squares and products. By gradient: four networks. Both gates are
linear. Beside each: one expert alone, and a single model of its kind with no fewer parameters than the whole
mixture. Settings are the same for both machines; cases that a split tests had no part in them.
"""

import argparse
import warnings
from dataclasses import replace
from functools import partial
from itertools import count
from math import comb
from typing import Any

import numpy as np
from _tools import Floats, compare, data_file, print_table
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from expertise import MixtureOfExpertsRegressor, NeuralMixtureRegressor
from expertise.mixture import FewCasesWarning

EM, ONE_EM, EQUAL_EM = "polynomials by EM", "one expert: polynomial", "equal size: polynomial"
NN, ONE_NN, EQUAL_NN = "networks by gradient", "one expert: network", "equal size: network"
RIDGE, TREES = "ridge", "boosted trees"
PAIRS = [(EM, ONE_EM), (EM, EQUAL_EM), (EM, TREES), (NN, ONE_NN), (NN, EQUAL_NN), (NN, TREES)]
MEASURES = {"RMSE": True, "log-lik.": False}  # whether lower is better
# a model, the highest degree of products of inputs that it sees, its number of parameters (0: unknown)
Fitted = tuple[Any, int, int]


class WithNoise:
    """A model of the mean, and normal noise: as wide as its training residuals, or as two quantile fits."""

    def __init__(self, mean: Any, *ends: Any) -> None:
        self.mean, self.ends = mean, ends

    def fit(self, X: Floats, y: Floats) -> None:
        for model in (self.mean, *self.ends):
            model.fit(X, y)
        self.sigma = np.std(y - self.mean.predict(X))

    def predict_distribution(self, X: Floats) -> Any:
        mean, ends = self.mean.predict(X), [end.predict(X) for end in self.ends]
        width = (ends[1] - ends[0]) / np.ptp(norm.ppf((0.05, 0.95))) if ends else self.sigma
        return norm(mean, np.maximum(width, self.sigma))  # quantile fits may cross


def products(Z: Floats, degree: int) -> Floats:
    """Give all products of up to so many inputs; the first columns are the inputs."""
    return np.asarray(PolynomialFeatures(degree, include_bias=False).fit_transform(Z))


def fit_all(Z: Floats, y: Floats, em_experts: int, epochs: int) -> dict[str, Fitted]:
    """Fit every model to standardised inputs."""
    d, found, trees = Z.shape[1], {}, partial(HistGradientBoostingRegressor, random_state=0)

    def add(name: str, model: Any, degree: int = 1, parameters: int = 0) -> None:
        model.fit(products(Z, degree), y)
        found[name] = (model, degree, parameters or getattr(model, "n_parameters_", 0))

    def add_polynomial(name: str, degree: int) -> None:
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))
        add(name, WithNoise(ridge), degree, comb(d + degree, d) + 1)

    def add_networks(name: str, experts: int, w: int, parameters: int = 0) -> None:
        plain: dict[str, Any] = {"early_stopping": False, "dtype": "float32", "random_state": 0}
        model = NeuralMixtureRegressor(experts, expert_hidden=(w, w), epochs=epochs, **plain)
        add(name, model, 1, parameters)

    def network_size(w: int) -> int:
        return int(w * (w + d + 3) + 2)  # d -> w -> w -> 1, and the width of the noise

    gate = slice(0, d)  # the products begin with the inputs themselves
    mixture = MixtureOfExpertsRegressor(em_experts, gate_features=gate, n_init=2, tol=1e-4, random_state=0)
    add(EM, mixture, 2)
    add_polynomial(ONE_EM, 2)
    add_polynomial(EQUAL_EM, next(p for p in count(1) if comb(d + p, d) + 1 >= found[EM][2]))
    add_networks(NN, 4, 16)
    wide = next(w for w in count(1) if network_size(w) >= found[NN][2])
    for name, w in ((ONE_NN, 16), (EQUAL_NN, wide)):
        add_networks(name, 1, w, network_size(w))
    add_polynomial(RIDGE, 1)
    add(TREES, WithNoise(trees(), *(trees(loss="quantile", quantile=q) for q in (0.05, 0.95))))
    return found


def measure(model: Any, seen: Floats, y: Floats) -> list[float]:
    """Give the RMSE, the mean log density of y, and coverage and mean width of the 90 % interval."""
    predicted = model.predict_distribution(seen)
    low, high = predicted.interval(0.9)
    rmse = np.sqrt(np.mean((predicted.mean() - y) ** 2))
    return [rmse, *(np.mean(each) for each in (predicted.logpdf(y), (low <= y) & (y <= high), high - low))]


def who_decides(model: Any, seen: Floats, y: Floats, names: list[str]) -> None:
    """Print where the cases lie that each expert decides, and the RMSE of every expert on them."""
    decides, error, rows = model.apply(seen), (model.predict_experts(seen) - y[:, None]) ** 2, {}
    for k in np.unique(decides):
        place = seen[decides == k, : len(names)].mean(axis=0)
        where = ", ".join(f"{names[j]} {place[j]:+.1f}" for j in np.argsort(-np.abs(place))[:2])
        each = [f"{one:.2f}" for one in np.sqrt(error[decides == k].mean(axis=0))]
        rows[f"decided by expert {k}"] = [f"{100 * np.mean(decides == k):.0f} %", where, *each]
    print_table(("cases", "mean place", *(f"RMSE of {k}" for k in range(error.shape[1]))), rows)


def main(quick: bool) -> None:
    """Print the tables of both machines."""
    splits, every, em_experts, epochs = (2, 16, 2, 3) if quick else (5, 1, 8, 60)
    for name in ("kin8nm", "power_plant"):
        header, *lines = data_file(f"uci/{name}.csv").read_text(encoding="utf-8").splitlines()
        names, data, measured = header.split(",")[:-1], np.loadtxt(lines, delimiter=","), []
        masks = np.loadtxt(data_file(f"uci/{name}_gal_test_mask.csv"), delimiter=",", usecols=range(splits))
        for mask in masks.T == 1:
            learn, test = data[~mask][::every], data[mask]
            scaler = StandardScaler().fit(learn[:, :-1])
            Z, y = scaler.transform(test[:, :-1]), test[:, -1]
            models = fit_all(scaler.transform(learn[:, :-1]), learn[:, -1], em_experts, epochs)
            measured.append([measure(model, products(Z, p), y) for model, p, _ in models.values()])
        print(f"{name}: {len(learn)} cases to learn from, {len(test)} to test, mean of {splits} splits")
        table = dict(zip(models, np.transpose(measured, (1, 2, 0)), strict=True))  # each (measures, splits)
        rows = {one: [*table[one].mean(axis=1), f"{models[one][2] or '-'}"] for one in models}
        print_table((*MEASURES, "coverage", "width", "parameters"), rows)
        for j, (what, lower) in enumerate(MEASURES.items()):
            print(f"{what}, differences with paired 95 % intervals over the splits")
            for a, b in PAIRS:
                print("  " + compare(a, b, table[a][j], table[b][j], lower_is_better=lower))
        for mixture in (EM, NN):
            print(f"{mixture}, last split: who decides where (places in standard deviations)")
            who_decides(models[mixture][0], products(Z, models[mixture][1]), y, names)
        case = models[NN][0].explain(Z[:1])
        case = replace(case, inputs=test[:1, :-1], feature_names=tuple(names))
        print(f"a case with {y[0]:.4g} observed; {NN}:\n{case}")
        first, likeliest = min(rows, key=lambda one: rows[one][0]), max(rows, key=lambda one: rows[one][1])
        print(f"{name}: {first} wins by RMSE, {likeliest} by log-likelihood\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 splits, fewer cases, experts and epochs")
    # a small region may be worth an expert; the table says whether it is
    warnings.simplefilter("ignore", FewCasesWarning)
    main(parser.parse_args().quick)
