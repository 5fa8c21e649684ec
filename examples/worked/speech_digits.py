"""Spoken digits of a new voice: before the mixture has heard it, and after five recordings of each digit.

The Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0): six speakers, ten digits, fifty recordings of
each. A recording is ten time slices of twenty log-mel bands without its mean level, and its length, as 60
principal columns; its mean spectrum, the voice, is 4 more. Experts see all, the gate sees the voice.

Each speaker in turn is new. All learn from recordings 5-49 of the other five (their 0-4 test what is known).
Then recordings 5-9 of the new speaker are shots; his other 450 test. Mixtures add an expert for them; single
models are trained anew, the shots counting once or 45 times. Nobody is told who speaks at prediction.
Ridges were chosen with the first five speakers held out; yweweler, the sixth, was not looked at before.
"""

import argparse
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from _tools import compare, data_file, print_table
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from expertise import NeuralMixtureClassifier

Array = NDArray[Any]
SLICES, BANDS, SOUNDS, VOICES = 10, 20, 60, 4
HIDDEN = 39  # as many parameters as five experts and their gate
NAN = float("nan")
SIZES = {"Meta-Pi": 2945, "found": 2945, "one weight for all": 2925, "logistic": 585, "network": 2935}
SIZES |= {"shots alone": 585}  # parameters; ten classes have nine free logits
COLUMNS = ("known", "new", "known, shots", "new, shots", "known, x45", "new, x45")


def features(frames: Array, ptr: Array) -> Array:
    """Give slices, length, mean spectrum (n, 221); recording i is rows ptr[i] to ptr[i + 1]."""
    sounds = []
    for first, last in pairwise(ptr):
        bands = frames[first:last].reshape(last - first, BANDS, -1).astype(float).mean(axis=2)
        edges = np.linspace(0, last - first, SLICES + 1)
        parts = [bands[int(a) : max(int(a) + 1, int(np.ceil(b)))] for a, b in pairwise(edges)]
        slices = np.array([part.mean(axis=0) for part in parts])
        sounds.append(np.append(slices - slices.mean(), np.log(last - first)))
    sound = np.array(sounds)
    return np.hstack([sound, sound[:, :-1].reshape(-1, SLICES, BANDS).mean(axis=1)])


def columns(values: Array, known: Array) -> Array:
    """Give the principal columns of sound and voice, (n, SOUNDS + VOICES), learned from the known rows."""
    sound, voice = (make_pipeline(StandardScaler(), PCA(size)) for size in (SOUNDS, VOICES))
    both = ColumnTransformer([("sound", sound, slice(-BANDS)), ("voice", voice, slice(-BANDS, None))])
    return np.asarray(both.fit(values[known]).transform(values))


def logistic(ridge: float = 100.0) -> Any:
    """Make the linear model; an expert has a smaller ridge, as it did better with it."""
    return LogisticRegression(C=1 / ridge, max_iter=2000)


def mixture(**options: Any) -> Any:
    """Make a mixture whose gate sees the voice alone."""
    gate: Any = {"gate_features": slice(SOUNDS, SOUNDS + VOICES), "epochs": 20, "early_stopping": False}
    return NeuralMixtureClassifier(**gate, **options, random_state=0)


def hold_out(
    values: Array, y: Array, speaker: Array, index: Array, new: int
) -> tuple[dict[str, Array], Array]:
    """Give the numbers of COLUMNS for every model; and who is asked, and who is right, about the new one."""
    is_new, is_shot = speaker == new, (index >= 5) & (index < 10)
    learn, shots = np.flatnonzero(~is_new & (index >= 5)), np.flatnonzero(is_new & is_shot)
    X = columns(values, learn)
    known, unheard = ~is_new & (index < 5), is_new & ~is_shot

    def right(model: Any) -> list[float]:
        return [model.score(X[rows], y[rows]) for rows in (known, unheard)]

    found = {}
    parts = [learn[speaker[learn] == one] for one in range(6) if one != new]
    experts = [logistic(10.0).fit(X[part], y[part]) for part in parts]
    pi = mixture(experts=experts, freeze_experts=True, objective="cooperative").fit(X[learn], y[learn])
    asked = np.bincount(pi.apply(X[unheard]), minlength=5) / unheard.sum()
    said = pi.predict_experts(X)
    alone = (said[unheard].argmax(axis=2) == y[unheard][:, None]).mean(axis=0)
    gradient = mixture(n_experts=5, expert_hidden=(), learning_rate=0.003, weight_decay=1.0)
    gradient.fit(X[learn], y[learn])
    own = logistic(10.0).fit(X[shots], y[shots])
    for name, model, expert in (("Meta-Pi", pi, own), ("found", gradient, None)):
        before = right(model)
        found[name] = [*before, *right(model.add_expert(X[shots], y[shots], expert=expert)), NAN, NAN]
    mean = said.mean(axis=1).argmax(axis=1) == y
    found["one weight for all"] = [mean[known].mean(), mean[unheard].mean(), *[NAN] * 4]
    stop: Any = {"early_stopping": True, "max_iter": 500, "learning_rate_init": 0.005, "random_state": 0}
    for name, single in (("logistic", logistic()), ("network", MLPClassifier(HIDDEN, alpha=10.0, **stop))):
        found[name] = []
        for times in (0, 1, 45):
            rows = np.r_[learn, np.tile(shots, times)]
            found[name] += right(single.fit(X[rows], y[rows]))
    found["shots alone"] = [NAN, NAN, *right(own), NAN, NAN]
    return {k: np.array(row) for k, row in found.items()}, np.insert([asked, alone], new, NAN, axis=1)


def cells(row: Array) -> list[float | str]:
    """Give the cells of a row, a dash where there is no such number."""
    return ["-" if np.isnan(value) else float(value) for value in row]


def main(n_speakers: int) -> None:
    """Hold out so many speakers in turn; print the tables, and say who wins."""
    torch.set_num_threads(1)
    with np.load(data_file("speech/fsdd_logmel40_u8.npz")) as data:
        values = features(data["frames"], data["ptr"])
        y, speaker, index = (data[key].astype(int) for key in ("digit", "speaker", "index"))
        names, accents = data["speaker_names"].tolist(), [one[:3] for one in data["accent"].tolist()]
    runs = [hold_out(values, y, speaker, index, new) for new in range(n_speakers)]
    scores = {name: np.array([found[name] for found, _ in runs]) for name in SIZES}  # (speakers, COLUMNS)
    print(f"right answers, mean over {n_speakers} speakers, each new in turn")
    table = {name: [str(SIZES[name]), *cells(rows.mean(axis=0))] for name, rows in scores.items()}
    print_table(["parameters", *COLUMNS], table)
    for what, column in (("", 1), (", after his shots", 3)):
        print(f"\nright answers about the new speaker{what}")
        kept = {name: list(rows[:, column]) for name, rows in scores.items() if rows[0, column] > 0}
        print_table(names[:n_speakers], kept)
    for i, what in enumerate(("rows for which the gate of Meta-Pi asks", "right answers, alone, of")):
        print(f"\n{what} the expert of (rows: who is new)")
        who = {f"{names[j]}, {accents[j]}": cells(picks[i]) for j, (_, picks) in enumerate(runs)}
        print_table(names, who)
    pairs = [(j, s) for j in range(n_speakers) for s in range(6) if s != j and accents[s] == accents[j]]
    most, best = (sum(int(np.nanargmax(runs[j][1][i]) == s) for j, s in pairs) for i in (0, 1))
    print(f"{len(pairs)} have a partner of their accent: {most} ask him most, he alone is best for {best}")
    for what, mine, theirs in (("new", 1, 1), ("shots", 3, 3), ("shots against shots x45", 3, 5)):
        print()
        for name in ("Meta-Pi", "found"):
            for other in ("logistic", "network"):
                pair = scores[name][:, mine], scores[other][:, theirs]
                print(f"{what}: {compare(name, other, *pair, lower_is_better=False)}")
    for what, some in (("a new speaker", [1]), ("him after his shots, as heavy as one likes", [3, 5])):
        mean = {name: np.nan_to_num(rows[:, some].mean(axis=0)).max() for name, rows in scores.items()}
        print(f"most often right about {what}: {max(mean, key=lambda name: mean[name])}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 new speakers of 6")
    main(2 if parser.parse_args().quick else 6)
