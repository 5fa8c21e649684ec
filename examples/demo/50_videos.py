"""Videos: a mixture of experts learns two regimes that it was never told of, beside logistic models.

Clips of handwritten digits, half of them inverted: what is bright in one half is dark in the other, so a
pixel that speaks for a digit there speaks against it here. Trained with the same steps: LogisticModel,
MoeModel, and a LogisticModel with as many parameters as MoeModel, whose input has products of two features
beside the features. Writes predictions, and a page that shows who decided.

Needs: youtube8m, report
"""

import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expertise.report.videos import Decision, ExpertUse, Run, read_run, write_video_page
from expertise.youtube8m import Flags, load_model, read_batches, write_sample
from expertise.youtube8m.evaluate import evaluate
from expertise.youtube8m.infer import infer
from expertise.youtube8m.records import encode_example, parse_example, read_records, write_records
from expertise.youtube8m.train import train

NAMES, SIZES = "mean_rgb,mean_audio", "64,16"
D = 80  # features of a clip
PRODUCTS = 4 * D + 1  # LogisticModel has D + 1 parameters a class, MoeModel with two experts 5 D + 2
REGIMES = ("upright", "inverted")
TRAINING = {"batch_size": 128, "num_epochs": 10, "base_learning_rate": 0.02, "export_model_steps": 50}


def main(out: Path) -> None:
    """Make the data, train three models, evaluate them on clips of unseen images, and write the page."""
    shutil.rmtree(out, ignore_errors=True)
    sample = out / "sample"
    write_sample(sample)
    write_products(sample / "video", out / "products")

    runs = [
        run(out, "LogisticModel", sample / "video", "LogisticModel"),
        run(out, "LogisticModel + products", out / "products", "LogisticModel", f",{PRODUCTS}"),
        run(out, "MoeModel", sample / "video", "MoeModel"),
    ]
    moe = out / "runs" / "MoeModel"
    predictions = out / "predictions.csv"
    infer(flags(moe, input_data_pattern=str(sample / "video" / "test*"), output_file=str(predictions)))
    page = write_video_page(
        out / "page.html",
        runs,
        *who_decides(moe, sample),
        title="Which expert to trust: digit clips",
        about=ABOUT,
        settings={"feature_names": NAMES, "feature_sizes": SIZES, **TRAINING, "moe_num_mixtures": 2},
    )
    for one in runs:
        print(f"{one.name:26}{one.parameters:>7,} parameters   GAP {one.metric('gap'):.3f}")
    print(f"predictions: {predictions}\nthe page:    {page}", flush=True)


ABOUT = (
    "A clip shows one to three handwritten digits; its labels are the digits, and what they have in common "
    "(even, prime, with a loop). In half of the clips the images are inverted, so that a pixel which speaks "
    "for a digit there speaks against it here. One linear model a class cannot serve both halves. Nobody "
    "told the models which half a clip is from, and no image of the test clips was in training.",
    f"LogisticModel has one weight a feature. MoeModel has two experts a class and a gate, five times as many "
    f"parameters. So a second LogisticModel has the same number: it also sees {PRODUCTS} products of two "
    "features, drawn at random. A product of two pixels stays the same when both are inverted: whoever "
    "knows this regime can choose such features by hand; the mixture found it without.",
)


def flags(train_dir: Path, **more: str) -> Flags:
    """Flags that all commands have in common."""
    return Flags(train_dir=str(train_dir), cache_dir=str(train_dir.parent.parent / "cache"), **more)


def write_products(source: Path, target: Path) -> None:
    """Write the clips with products of two features as one more feature."""
    pairs = np.stack(np.triu_indices(D))
    first, second = np.random.default_rng(0).permutation(pairs.T)[:PRODUCTS].T

    def clips(shard: Path) -> Iterator[bytes]:
        for record in read_records(shard):
            clip = parse_example(record)
            x = np.concatenate([clip[name] for name in NAMES.split(",")])
            yield encode_example({**clip, "products": x[first] * x[second]})

    for shard in sorted(source.iterdir()):
        write_records(target / shard.name, clips(shard))
