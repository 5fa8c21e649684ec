"""Handwritten digits: experts for groups of classes, given by hand or found by learning.

digits: 1,797 images of 8 x 8 pixels (Alpaydin & Kaynak 1998, UCI; in scikit-learn), five folds. MNIST (LeCun
et al. 1998), 14 x 14 pixels: five training sets of 4,000 images, none in two of them, and 3,000 to test.
given: a network for each group of classes learns its group alone, and is frozen. Then a gate learns from the
loss of the blend; it has to find the group in the pixels. learned: the gate and three networks as large are
trained together, and the groups are theirs. Beside them a network as small as one expert, and one with no
fewer parameters than the mixture. All train alike; the settings were chosen on training images of MNIST.
"""

import argparse
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from _tools import Floats, compare, data_file, print_table
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from expertise import NeuralMixtureClassifier

Labels = NDArray[np.intp]
GIVEN, LEARNED, ONE, EQUAL = "groups given", "groups learned", "one expert", "equal parameters"
PAIRS = [(GIVEN, ONE), (GIVEN, EQUAL), (LEARNED, ONE), (LEARNED, EQUAL), (GIVEN, LEARNED)]
GROUPS = ((0, 6, 8, 9), (1, 4, 7), (2, 3, 5))  # loops, strokes, open curves
GROUP_OF = np.array([next(k for k, group in enumerate(GROUPS) if c in group) for c in range(10)])
HIDDEN, CLASSES = 32, len(GROUP_OF)


def read(name: str, quick: bool) -> Iterator[tuple[Floats, Labels, Floats, Labels]]:
    """Give images (n, height, width) from 0 to 1 and classes to learn from, and those to test, set by set."""
    if name == "digits":
        images, y = load_digits(return_X_y=True)
        images, folds = images.reshape(-1, 8, 8) / 16, StratifiedKFold(5, shuffle=True, random_state=0)
        for learn, test in islice(folds.split(images, y), 2 if quick else 5):
            yield images[learn], y[learn], images[test], y[test]
        return
    with np.load(data_file("vision/mnist_20k_train_3k_test.npz")) as data:
        images, y, test_images, test_y = (data[f"{one}_{part}"] for part in ("train", "test") for one in "xy")
    for part in np.arange(20000).reshape(5, 4000)[: 2 if quick else 5, : 500 if quick else 4000]:
        yield small(images[part]), y[part].astype(int), small(test_images), test_y.astype(int)


def small(images: NDArray[np.uint8]) -> Floats:
    """Average each 2 x 2 pixels."""
    n, height, width = images.shape
    return np.asarray(images.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4)) / 255)


def fit_all(X: Floats, y: Labels, epochs: int) -> dict[str, tuple[Any, int]]:
    """Fit every model; give it with its number of parameters."""
    d, experts = X.shape[1], len(GROUPS)

    def network(hidden: int, rows: Any = slice(None), **options: Any) -> Any:
        options |= {"early_stopping": False, "weight_decay": 1.0, "dtype": "float32", "random_state": 0}
        sizes: dict[str, Any] = {"expert_hidden": (hidden,), "gate_hidden": (HIDDEN,), "epochs": epochs}
        return NeuralMixtureClassifier(**sizes, **options).fit(X[rows], y[rows])

    def size(hidden: int, outputs: int = CLASSES) -> int:
        return int((d + 1) * hidden + (hidden + 1) * outputs)

    specialists = [network(HIDDEN, np.isin(y, group), n_experts=1) for group in GROUPS]
    given = network(HIDDEN, experts=specialists, freeze_experts=True, objective="cooperative")
    gate, whole = size(HIDDEN, experts), size(HIDDEN, experts) + experts * size(HIDDEN)
    wide = next(w for w in count(1) if size(w) >= whole)
    return {
        GIVEN: (given, gate + sum(size(HIDDEN, len(group)) for group in GROUPS)),
        LEARNED: (network(HIDDEN, n_experts=experts), whole),
        ONE: (network(HIDDEN, n_experts=1), size(HIDDEN)),
        EQUAL: (network(wide, n_experts=1), size(wide)),
        "logistic regression": (LogisticRegression(C=0.1, max_iter=1000).fit(X, y), (d + 1) * CLASSES),
    }


def measure(model: Any, X: Floats, y: Labels) -> list[float]:
    """Give the accuracy, that with the likeliest expert alone, and the log-likelihood of an image."""
    proba, is_mixture = model.predict_proba(X), isinstance(model, NeuralMixtureClassifier)
    alone = model.predict(X, pooling="argmax") if is_mixture else model.predict(X)
    likelihood = np.maximum(proba[np.arange(len(y)), y], 1e-12)
    return [np.mean(proba.argmax(axis=1) == y), np.mean(alone == y), np.mean(np.log(likelihood))]


def who_decides(model: Any, X: Floats, y: Labels) -> None:
    """Print how much of each class each expert decides, and how much of it each expert alone gets right."""
    decides = model.apply(X)[:, None] == np.arange(len(GROUPS))
    right = model.predict_experts(X).argmax(axis=2) == y[:, None]
    for what, true in (("decides", decides), ("alone is right", right)):
        shares = 100 * np.array([true[y == c].mean(axis=0) for c in range(CLASSES)])
        rows = {f"  expert {k} {what}": [f"{one:.0f}" for one in row] for k, row in enumerate(shares.T)}
        print_table([str(c) for c in range(CLASSES)], rows)


def draw(path: Path, mixtures: dict[str, Any], images: Floats, y: Labels) -> None:
    """Draw the mean of the images that each expert decides."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.4), layout="constrained")
    panels = figure.subplots(len(mixtures), len(GROUPS))
    for (name, model), row in zip(mixtures.items(), panels, strict=True):
        decides = model.apply(images.reshape(len(images), -1))
        for k, axes in enumerate(row):
            most = " ".join(str(c) for c in range(CLASSES) if np.mean(decides[y == c] == k) > 0.5)
            axes.imshow(images[decides == k].mean(axis=0), cmap="gray_r")
            axes.set_title(f"{name}: expert {k}\n{np.mean(decides == k):.0%}; most of {most}", fontsize=9)
            axes.set_axis_off()
    figure.savefig(path, dpi=80)


def main(quick: bool, path: Path | None) -> None:
    """Print the tables of both data sets; draw what the experts of the second see."""
    for name in ("digits", "MNIST"):
        found: dict[str, list[list[float]]] = {}
        right_group = []
        for images, y, test_images, test_y in read(name, quick):
            X, test_X = (one.reshape(len(one), -1) for one in (images, test_images))
            models = fit_all(X, y, 5 if quick else 30)
            for one, (model, _) in models.items():
                found.setdefault(one, []).append(measure(model, test_X, test_y))
            right_group.append(np.mean(models[GIVEN][0].apply(test_X) == GROUP_OF[test_y]))
        print(
            f"{name}: {len(X)} images to learn from, {len(test_X)} to test, mean of {len(right_group)} sets"
        )
        rows = {one: [*np.mean(values, axis=0), str(models[one][1])] for one, values in found.items()}
        print_table(("accuracy", "one decides", "log-lik.", "parameters"), rows)
        print("accuracy, differences with paired 95 % intervals over the sets")
        for a, b in PAIRS:
            first, second = (np.array(found[one])[:, 0] for one in (a, b))
            print("  " + compare(a, b, first, second, lower_is_better=False))
        print(f"the gate finds the given group of {np.mean(right_group):.3f} of the images")
        for mixture in (GIVEN, LEARNED):
            print(f"{mixture}, last set, percent of each class")
            who_decides(models[mixture][0], test_X, test_y)
        print(f"{name}: {max(rows, key=lambda one: rows[one][0])} wins by accuracy\n")
    if path:
        draw(path, {one: models[one][0] for one in (GIVEN, LEARNED)}, test_images, test_y)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 sets, fewer images and epochs")
    parser.add_argument(
        "--figure", type=Path, help="file for a picture of what each expert sees (matplotlib)"
    )
    arguments = parser.parse_args()
    main(arguments.quick, arguments.figure)
