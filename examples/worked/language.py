"""Topics of sentences in twelve languages: a mixture whose experts are languages.

SIB-200 (Adelani et al., arXiv:2309.07445): 1,004 sentences with seven topics, the same in every language,
split by sentence. Models see 200 singular columns of the TF-IDF of character n-grams (1-4, hashed into 65,536
columns), learned from training rows. Nobody is told the language at prediction.

- Meta-Pi: a logistic regression a language (told in training), frozen; the gate learns on the blend.
- found, clusters: the same with twelve clusters of the training rows in place of languages: no label at all.
- found, gradient: experts and gate trained together.
Ridges and sizes were chosen on the dev split. Intervals: over 12 blocks of 17 test sentences.
"""

import argparse
from typing import Any

import numpy as np
import torch
from _tools import compare, data_file, print_table
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from expertise import NeuralMixtureClassifier

Array = NDArray[Any]
COLUMNS, TOPICS, BLOCKS = 200, 7, 12
LINEAR: Any = {"C": 1 / 30, "max_iter": 1000}  # an expert, and the single model of its size
EXPERT = (TOPICS - 1) * (COLUMNS + 1)  # parameters
LEFT_OUT = ["spa_Latn", "deu_Latn", "rus_Cyrl", "hin_Deva"]
TWELVE, ARABIC = "text/sib200_12_languages.tsv", "text/sib200_arabic_dialects.tsv"


class Sentences:
    """Language, split, number and topic of sentences (n,), and counts of their n-grams (n, 65536)."""

    def __init__(self, file: str, wanted: list[str] | None) -> None:
        with data_file(file).open(encoding="utf-8") as lines:  # no csv: quotation marks are part of the text
            rows = [line.rstrip("\n").split("\t") for line in lines][1:]
        kept = [row for row in rows if wanted is None or row[0] in wanted]
        self.language, self.split, number, self.topic, text = map(np.array, zip(*kept, strict=True))
        self.number = number.astype(int)
        grams = {"analyzer": "char_wb", "ngram_range": (1, 4), "n_features": 2**16, "dtype": np.float32}
        self.counts = HashingVectorizer(norm=None, alternate_sign=False, **grams).transform(text)

    def columns(self, learn: Array) -> tuple[Any, Array]:
        """Give TF-IDF (n, 65536) and its standardised singular columns (n, 200), learned from some rows."""
        grams = TfidfTransformer(sublinear_tf=True).fit(self.counts[learn]).transform(self.counts)
        few = make_pipeline(TruncatedSVD(COLUMNS, n_iter=2, random_state=0), StandardScaler())
        return grams, few.fit(grams[learn]).transform(grams).astype(float)


def meta_pi(X: Array, topic: Array, part: Array) -> Any:
    """Fit an expert to each part of the rows, in the order of np.unique, and a gate on their blend."""
    experts = [
        LogisticRegression(**LINEAR).fit(X[part == one], topic[part == one]) for one in np.unique(part)
    ]
    gate: Any = {"objective": "cooperative", "epochs": 10, "early_stopping": False, "random_state": 0}
    model = NeuralMixtureClassifier(experts=experts, freeze_experts=True, **gate)
    return model.fit(X, topic)


def network(parameters: int) -> Any:
    """Make a network of one hidden layer with about so many parameters."""
    hidden = round((parameters - TOPICS) / (COLUMNS + 1 + TOPICS))
    return MLPClassifier(hidden, alpha=3.0, early_stopping=True, max_iter=200, random_state=0)


def study(data: Sentences, show: str, everything: bool) -> tuple[dict[str, Array], Array]:
    """Fit on the training rows, print the tables of the test rows; give who was right, and sentences."""
    learn, test = data.split == "train", data.split == "test"
    grams, X = data.columns(learn)
    y, part, names = data.topic[learn], data.language[learn], np.unique(data.language)
    K, truth, where = len(names), data.topic[test], np.searchsorted(names, data.language[test])
    whole = K * EXPERT + (K - 1) * (COLUMNS + 1)  # parameters of the mixture
    print(f"{len(truth)} test sentences in {K} languages")
    found = {"Meta-Pi": meta_pi(X[learn], y, part)}
    places = normalize(X[learn, :20])  # a row's direction in the first singular columns
    parts = KMeans(K, n_init=5, random_state=0).fit_predict(places)
    found["found, clusters"] = meta_pi(X[learn], y, parts)
    if everything:
        slow: Any = {"epochs": 20, "learning_rate": 0.003, "weight_decay": 1.0, "early_stopping": False}
        gradient = NeuralMixtureClassifier(K, expert_hidden=(), random_state=0, **slow)
        found["found, gradient"] = gradient.fit(X[learn], y)
    asked = {name: model.apply(X[test]) for name, model in found.items()}
    experts = found["Meta-Pi"].predict_experts(X[test])[np.arange(len(where)), where]
    right = {"told the language": found["Meta-Pi"].classes_[experts.argmax(axis=1)] == truth}
    found |= {
        "logistic": LogisticRegression(**LINEAR).fit(X[learn], y),
        "network": network(whole).fit(X[learn], y),
    }
    right |= {name: model.predict(X[test]) == truth for name, model in found.items()}
    net = found["network"]
    weights = sum(part.size for part in (*net.coefs_, *net.intercepts_))
    sizes = {"told the language": K * EXPERT, "logistic": EXPERT, "network": weights}
    if everything:
        often = np.argsort(-grams[learn].getnnz(axis=0))
        for name, few in (("frequent n-grams", whole // (TOPICS - 1) - 1), ("all n-grams", grams.shape[1])):
            model = LogisticRegression(C=10, tol=1e-3, max_iter=1000).fit(grams[learn][:, often[:few]], y)
            right[name] = model.predict(grams[test][:, often[:few]]) == truth
            sizes[name] = (TOPICS - 1) * (few + 1)
    alike = {name: normalized_mutual_info_score(where, picks) for name, picks in asked.items()}
    rows = {name: [str(sizes.get(name, whole)), v.mean(), alike.get(name, "-")] for name, v in right.items()}
    print_table(["parameters", "right", "expert~language"], rows)
    shares = [np.bincount(asked[show][where == k], minlength=K) / np.sum(where == k) for k in range(K)]
    print(f"\n{show}: share of test sentences for which the gate picks each expert")
    short = [name[:3] for name in names]
    heads = short if show == "Meta-Pi" else [str(k) for k in range(K)]
    print_table(heads, dict(zip(names, map(list, shares), strict=True)), 2)
    print("\nright answers in each language")
    print_table(short, {name: [v[where == k].mean() for k in range(K)] for name, v in right.items()}, 2)
    return right, data.number[test]


def left_out(data: Sentences, language: str) -> list[float | str]:
    """Give the right answers about a language that no training row is in, and who is asked."""
    learn = (data.split == "train") & (data.language != language)
    test = (data.split == "test") & (data.language == language)
    X, y, part = data.columns(learn)[1], data.topic[learn], data.language[learn]
    model = meta_pi(X[learn], y, part)
    whole = model.n_experts_ * EXPERT + (model.n_experts_ - 1) * (COLUMNS + 1)
    picks = np.bincount(model.apply(X[test]), minlength=model.n_experts_) / test.sum()
    most = ", ".join(f"{np.unique(part)[k][:3]} {picks[k]:.2f}" for k in np.argsort(-picks)[:3])
    others = [LogisticRegression(**LINEAR).fit(X[learn], y), network(whole).fit(X[learn], y)]
    return [*(one.score(X[test], data.topic[test]) for one in (model, *others)), most]


def verdicts(right: dict[str, Array], number: Array, names: list[str]) -> None:
    """Print the comparisons of mixtures with all others, over blocks of sentences, and who wins."""
    sentences, which = np.unique(number, return_inverse=True)
    block = which * BLOCKS // len(sentences)  # of a sentence, in all languages
    score = {name: np.bincount(block, values) / np.bincount(block) for name, values in right.items()}
    for name in names:
        for other in (one for one in score if one not in names):
            print(compare(name, other, score[name], score[other], lower_is_better=False))
    score.pop("told the language")
    print(f"most often right of those who are not told: {max(score, key=lambda name: score[name].mean())}")


def main(quick: bool) -> None:
    """Print the tables, and say who wins."""
    torch.set_num_threads(1)
    data = Sentences(TWELVE, ["eng_Latn", "spa_Latn", "hin_Deva"] if quick else None)
    right, number = study(data, "found, clusters", everything=not quick)
    verdicts(right, number, ["Meta-Pi", "found, clusters"])
    if quick:
        return
    print("\na language that no training row is in")
    print_table(["Meta-Pi", "logistic", "network", "asks"], {one: left_out(data, one) for one in LEFT_OUT})
    print("\nsix varieties of Arabic:")
    right, number = study(Sentences(ARABIC, None), "Meta-Pi", everything=False)
    verdicts(right, number, ["Meta-Pi", "found, clusters"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 languages, nothing else")
    main(parser.parse_args().quick)
