"""Meta-Pi (Hampshire & Waibel 1989-1992): experts trained first, each on its source, then a gate.

Peterson & Barney (1952), ten vowels of 76 speakers: the sources are men, women and children. The experts are
multinomial logistic regressions on log F1 and log F2, of scikit-learn, and stay as they are. The gate reads
log f0 to F3 and learns from the squared error of the blended class probabilities (E1 of Jacobs et al. 1991);
it is never told the source. Six folds by speaker, each with the same part of every source.

Few shots: one source is new. Half of its speakers give five examples of each vowel, the others are tested.
Gate and experts come from half of the speakers of the other two sources, whose other half is tested too.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from expertise.nn.estimators import NeuralMixtureClassifier

Array = npt.NDArray[Any]
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
SOURCES = ("m", "w", "c")
NAMES = {"m": "men", "w": "women", "c": "children"}
FORMANTS, ALL = [1, 2], [0, 1, 2, 3]
SHOTS = ("others alone", "one added", "5 a vowel alone", "pooled", "with f0 to F3", "others before", "after")


def read(file: Path) -> tuple[Array, Array, Array, Array]:
    """Give log f0..F3 (n, 4), and vowels, sources and speakers (n,)."""
    rows = np.loadtxt(file, str, delimiter=",", skiprows=1)
    return np.log(rows[:, 5:9].astype(float)), rows[:, 3], rows[:, 0], rows[:, 2].astype(int)


def logistic(columns: list[int], C: float = 10.0) -> Any:
    """Make a multinomial logistic regression that sees some columns, standardised."""
    see = ColumnTransformer([("see", StandardScaler(), columns)])
    return make_pipeline(see, LogisticRegression(C=C, max_iter=5000))


def squared_error(y: Tensor, probabilities: Tensor) -> Tensor:
    """Give the squared error of class probabilities (B, V) for classes (B,)."""
    return (probabilities - nn.functional.one_hot(y, probabilities.shape[1])).square().sum(1)


def meta_pi(experts: list[Any], hidden: tuple[int, ...], epochs: int) -> NeuralMixtureClassifier:
    """Make the mixture of fitted experts whose gate will be trained on the blend."""
    return NeuralMixtureClassifier(
        experts=experts,
        freeze_experts=True,
        objective="cooperative",
        loss=squared_error,
        gate_hidden=hidden,
        epochs=epochs,
        random_state=0,
    )


def one_fold(old: Any, new: Any, epochs: int) -> dict[str, float]:
    """Fit everything on one part, and give the percentages on the other."""
    (X, y, source), (new_X, new_y, new_source) = old, new
    experts = [logistic(FORMANTS).fit(X[source == s], y[source == s]) for s in SOURCES]
    right = np.array([expert.predict(new_X) == new_y for expert in experts])
    proba = np.mean([expert.predict_proba(new_X) for expert in experts], axis=0)
    own, rows = np.array([SOURCES.index(s) for s in new_source]), np.arange(len(new_y))
    found = {
        "pooled": logistic(FORMANTS).fit(X, y).score(new_X, new_y),
        "experts of the wrong sources": (right.sum(axis=0) - right[own, rows]).mean() / 2,
        "uniform average": np.mean(experts[0].classes_[proba.argmax(axis=1)] == new_y),
        "expert of the right source": right[own, rows].mean(),
    }
    for name, hidden in {"Meta-Pi": (), "Meta-Pi, 16 hidden": (16,)}.items():
        model = meta_pi(experts, hidden, epochs).fit(X, y)
        picked = model.gate_proba(new_X).argmax(axis=1)
        found[name] = model.score(new_X, new_y)
        if not hidden:
            found["Meta-Pi, argmax"] = right[picked, rows].mean()
            found["gate picks the source"] = np.mean(picked == own)
    found["pooled, with f0 to F3"] = logistic(ALL).fit(X, y).score(new_X, new_y)
    return {name: 100 * float(value) for name, value in found.items()}


def few_shots(data: tuple[Array, ...], left: str, seed: int, epochs: int) -> list[float]:
    """Leave a source out, adapt with five examples of each vowel; give the percentages of SHOTS."""
    X, y, source, speaker = data
    learnt, is_new = speaker % 2 == seed % 2, source == left
    old, new_test, old_test = learnt & ~is_new, ~learnt & is_new, ~learnt & ~is_new
    experts = [
        logistic(FORMANTS).fit(X[old & (source == s)], y[old & (source == s)]) for s in SOURCES if s != left
    ]
    model, rng = meta_pi(experts, (), epochs).fit(X[old], y[old]), np.random.default_rng(seed)
    known = [np.flatnonzero(learnt & is_new & (y == vowel)) for vowel in np.unique(y)]
    shots = np.concatenate([rng.choice(rows, 5, replace=False) for rows in known])
    both = np.concatenate([np.flatnonzero(old), shots])
    own = logistic(FORMANTS, C=1.0).fit(X[shots], y[shots])
    alone, before = (model.score(X[test], y[test]) for test in (new_test, old_test))
    model.add_expert(X[shots], y[shots], expert=own)
    adapted, after = (model.score(X[test], y[test]) for test in (new_test, old_test))
    others = (own, *(logistic(columns).fit(X[both], y[both]) for columns in (FORMANTS, ALL)))
    scores = [other.score(X[new_test], y[new_test]) for other in others]
    return [100 * score for score in (alone, adapted, *scores, before, after)]


def main(quick: bool = False) -> None:
    """Print the two tables."""
    begun = time.perf_counter()
    file = Path(os.environ.get("EXPERTISE_DATA", BESIDE)) / "vowels" / "peterson_barney_1952.csv"
    if not file.is_file():
        print(f"vowels: SKIPPED, no {file}; set EXPERTISE_DATA to the folder of the data")
        return
    (X, y, source, speaker), epochs = read(file), 15 if quick else 60
    folds = StratifiedGroupKFold(6, shuffle=True, random_state=0).split(X, source, speaker)
    parts = [[(X[rows], y[rows], source[rows]) for rows in fold] for fold in folds]
    found = [one_fold(old, new, epochs) for old, new in (parts[:2] if quick else parts)]
    print(f"{f'percent, {len(found)} of 6 folds by speaker':<36}{'mean':>8}{'sd':>8}")
    for name in found[0]:
        values = np.array([fold[name] for fold in found])
        print(f"{name:<36}{values.mean():>8.1f}{values.std(ddof=1):>8.1f}")
    draws = range(1 if quick else 6)
    print(f"{f'few shots, {len(draws)} draws':<20}" + "".join(f"{name:>17}" for name in SHOTS))
    for left in SOURCES:
        mean = np.mean([few_shots((X, y, source, speaker), left, draw, epochs) for draw in draws], axis=0)
        print(f"{f'new: {NAMES[left]}':<20}" + "".join(f"{score:>17.1f}" for score in mean), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 folds of 6, 1 draw of 6, fewer epochs")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main(parser.parse_args().quick)
