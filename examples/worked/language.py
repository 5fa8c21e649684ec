"""Topics of sentences in twelve languages: a mixture whose experts are languages.

SIB-200 (Adelani et al., arXiv:2309.07445): 1,004 sentences, seven topics, the same in every language. Models
see 200 singular columns of the TF-IDF of character n-grams. Nobody is told the language at prediction.
Meta-Pi has an expert a language; "found" has clusters of the training rows in their place, or is trained as a
whole. Ridges and sizes were chosen on the dev split; intervals are over 12 blocks of test sentences.
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
GATE: Any = {"freeze_experts": True, "objective": "cooperative", "epochs": 10, "early_stopping": False}
WHOLE: Any = {"epochs": 20, "expert_hidden": (), "random_state": 0}
LINEAR: Any = {"C": 1 / 30, "max_iter": 1000}  # an expert, and the single model of its size
EXPERT = (TOPICS - 1) * (COLUMNS + 1)  # parameters
LEFT_OUT, MIXTURES = ["spa_Latn", "deu_Latn", "rus_Cyrl", "hin_Deva"], ["Meta-Pi", "found, clusters"]
TWELVE, ARABIC = "text/sib200_12_languages.tsv", "text/sib200_arabic_dialects.tsv"


class Sentences:
    """Language, split, number and topic of sentences (n,), and counts of their n-grams (n, 65536)."""

    def __init__(self, file: str, wanted: list[str] | None = None) -> None:
        with data_file(file).open(encoding="utf-8") as lines:  # no csv: quotation marks are part of the text
            rows = [line.rstrip("\n").split("\t") for line in lines][1:]
        kept = [row for row in rows if wanted is None or row[0] in wanted]
        self.language, self.split, self.number, self.topic, text = map(np.array, zip(*kept, strict=True))
        grams = {"analyzer": "char_wb", "ngram_range": (1, 4), "n_features": 2**16, "dtype": np.float32}
        self.counts = HashingVectorizer(norm=None, alternate_sign=False, **grams).transform(text)

    def columns(self, learn: Array) -> tuple[Any, Array]:
        """Give TF-IDF (n, 65536) and its standardised singular columns (n, 200), learned from some rows."""
        grams = TfidfTransformer(sublinear_tf=True).fit(self.counts[learn]).transform(self.counts)
        few = make_pipeline(TruncatedSVD(COLUMNS, n_iter=2, random_state=0), StandardScaler())
        return grams, few.fit(grams[learn]).transform(grams).astype(float)


def meta_pi(X: Array, topic: Array, part: Array) -> Any:
    """Fit an expert to each part of the rows, in the order of np.unique, and a gate on their blend."""
    own = (part == one for one in np.unique(part))
    experts = [LogisticRegression(**LINEAR).fit(X[rows], topic[rows]) for rows in own]
    return NeuralMixtureClassifier(experts=experts, **GATE, random_state=0).fit(X, topic)


def network(parameters: int) -> Any:  # with about so many parameters
    size = round((parameters - TOPICS) / (COLUMNS + 1 + TOPICS))
    return MLPClassifier(size, alpha=3.0, early_stopping=True, max_iter=200, random_state=0)


def study(data: Sentences, show: str, everything: bool) -> tuple[dict[str, Array], Array]:
    """Fit on the training rows, print the tables of the test rows; give who was right, and sentences."""
    learn, test = data.split == "train", data.split == "test"
    grams, X = data.columns(learn)
    y, part, names = data.topic[learn], data.language[learn], np.unique(data.language)
    K, truth, where = len(names), data.topic[test], np.searchsorted(names, data.language[test])
    whole = K * EXPERT + (K - 1) * (COLUMNS + 1)  # parameters of the mixture
    print(f"{len(truth)} test sentences in {K} languages")
    parts = KMeans(K, n_init=5, random_state=0).fit_predict(normalize(X[learn, :20]))
    found = {"Meta-Pi": meta_pi(X[learn], y, part), "found, clusters": meta_pi(X[learn], y, parts)}
    if everything:
        slow: Any = {"learning_rate": 0.003, "weight_decay": 1.0, "early_stopping": False, **WHOLE}
        found["found, gradient"] = NeuralMixtureClassifier(K, **slow).fit(X[learn], y)
    asked = {name: model.apply(X[test]) for name, model in found.items()}
    experts = found["Meta-Pi"].predict_experts(X[test])[np.arange(len(where)), where]
    right = {"told the language": found["Meta-Pi"].classes_[experts.argmax(axis=1)] == truth}
    found["logistic"] = LogisticRegression(**LINEAR).fit(X[learn], y)
    found["network"] = net = network(whole).fit(X[learn], y)
    right |= {name: model.predict(X[test]) == truth for name, model in found.items()}
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
    short = [name[:3] for name in names]
    print(f"\n{show}: share of test sentences for which the gate picks each expert")
    print_table(
        short if show == "Meta-Pi" else [str(k) for k in range(K)],
        dict(zip(names, map(list, shares), strict=True)),
        2,
    )
    print("\nright answers in each language")
    print_table(short, {name: [v[where == k].mean() for k in range(K)] for name, v in right.items()}, 2)
    return right, data.number[test]


def left_out(data: Sentences, language: str) -> list[float | str]:
    """Give the right answers about a language that no training row is in, and who is asked."""
    learn = (data.split == "train") & (data.language != language)
    test = (data.split == "test") & (data.language == language)
    X, y, part = data.columns(learn)[1], data.topic[learn], data.language[learn]
    model, K = meta_pi(X[learn], y, part), len(np.unique(part))
    picks = np.bincount(model.apply(X[test]), minlength=K) / test.sum()
    most = ", ".join(f"{np.unique(part)[k][:3]} {picks[k]:.2f}" for k in np.argsort(-picks)[:3])
    single = network(K * EXPERT + (K - 1) * (COLUMNS + 1)).fit(X[learn], y)
    models = (model, LogisticRegression(**LINEAR).fit(X[learn], y), single)
    return [*(one.score(X[test], data.topic[test]) for one in models), most]


def verdicts(right: dict[str, Array], number: Array) -> None:
    """Print the comparisons of mixtures with all others, over blocks of sentences, and who wins."""
    sentences, which = np.unique(number.astype(int), return_inverse=True)
    block = which * BLOCKS // len(sentences)  # of a sentence, in all languages
    score = {name: np.bincount(block, values) / np.bincount(block) for name, values in right.items()}
    for name in MIXTURES:
        for other in (one for one in score if one not in MIXTURES):
            print(compare(name, other, score[name], score[other], lower_is_better=False))
    best = max(score, key=lambda one: score[one].mean() * (one != "told the language"))
    print("most often right of those who are not told:", best)


def main(quick: bool) -> None:
    torch.set_num_threads(1)
    data = Sentences(TWELVE, ["eng_Latn", "spa_Latn", "hin_Deva"] if quick else None)
    verdicts(*study(data, "found, clusters", everything=not quick))
    if not quick:
        print("\na language that no training row is in")
        print_table(["Meta-Pi", "logistic", "network", "asks"], {x: left_out(data, x) for x in LEFT_OUT})
        print("\nsix varieties of Arabic:")
        verdicts(*study(Sentences(ARABIC), "Meta-Pi", everything=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 languages, nothing else")
    main(parser.parse_args().quick)
