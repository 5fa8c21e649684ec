"""Videos: a mixture of experts learns two regimes that it was never told of, beside logistic models.

Clips of handwritten digits, half of them inverted: what is bright in one half is dark in the other, so a
pixel that speaks for a digit there speaks against it here. Trained with the same steps: LogisticModel,
MoeModel, and a LogisticModel with as many parameters as MoeModel, whose input has products of two features
beside the features. Then a sparse mixture that sees single frames, of a fifth of the clips. Writes
predictions, and a page that shows who decided.

Needs: youtube8m, report
"""

import contextlib
import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
TRAINING: dict[str, Any] = {
    "batch_size": 128,
    "num_epochs": 10,
    "base_learning_rate": 0.02,
    "export_model_steps": 50,
}


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
        run_frames(out, sample / "frame"),
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
        settings={
            "feature_names": NAMES,
            "feature_sizes": SIZES,
            **TRAINING,
            "moe_num_mixtures": 2,
            **{f"{name}, FrameMoeModel": value for name, value in FRAME_TRAINING.items()},
        },
    )
    for one in runs:
        print(f"{one.name:26}{one.parameters:>7,} parameters   GAP {one.metric('gap'):.3f}")
    print(f"predictions: {predictions}\nthe page:    {page}", flush=True)


FRAME_TRAINING: dict[str, Any] = {
    "frame_moe_experts": 4,
    "frame_moe_hidden": 32,
    "batch_size": 64,
    "num_epochs": 8,
}


def run_frames(out: Path, clips: Path) -> Run:
    """Train the mixture over frames, evaluate it on the same test clips, and give what it left."""
    train_dir, name = out / "runs" / "FrameMoeModel", "FrameMoeModel"
    print(f"training {name}", flush=True)
    train(
        flags(
            train_dir,
            model=name,
            frame_features=True,
            train_data_pattern=str(clips / "train*"),
            eval_data_pattern=str(clips / "validate*"),
            feature_names="rgb,audio",
            feature_sizes=SIZES,
            vocabulary=str(out / "sample" / "vocabulary.csv"),
            export_model_steps=50,
            **FRAME_TRAINING,
        )
    )
    with contextlib.redirect_stdout(None):
        evaluate(flags(train_dir, eval_data_pattern=str(clips / "test*"), run_once=True))
    return read_run(train_dir, name)


ABOUT = (
    "A clip shows one to three handwritten digits; its labels are the digits, and what they have in common "
    "(even, prime, with a loop). In half of the clips the images are inverted, so that a pixel which speaks "
    "for a digit in the one half speaks against it in the other, and one linear model a class cannot serve "
    "both. Nobody told the models which half a clip is from, and no image of the test clips was in training.",
    "LogisticModel has one weight a feature. MoeModel has two experts a class and a gate: five times as many "
    "parameters. A second LogisticModel has exactly as many, because its input also holds "
    f"{PRODUCTS} products of two features, drawn at random. A product of two pixels stays the same when both "
    "are inverted: who knows the regimes can choose such features by hand. The mixture was told nothing.",
    "These three see the mean of a clip's frames. FrameMoeModel sees the frames, of one in five of the same "
    "training clips, and is tested on the same clips: each frame goes to two of four experts, and a mixture "
    "as above looks at their mean and maximum. A frame shows one digit, where the mean shows up to three.",
    "One run of each, from one seed: a difference of a few thousandths may be chance.",
)


def flags(train_dir: Path, **more: Any) -> Flags:
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


def run(out: Path, name: str, clips: Path, model: str, more_sizes: str = "") -> Run:
    """Train one model, evaluate it on the test clips, and give what it left in its folder."""
    print(f"training {name}", flush=True)
    train_dir = out / "runs" / name
    train(
        flags(
            train_dir,
            model=model,
            train_data_pattern=str(clips / "train*"),
            eval_data_pattern=str(clips / "validate*"),
            feature_names=NAMES + (",products" if more_sizes else ""),
            feature_sizes=SIZES + more_sizes,
            vocabulary=str(out / "sample" / "vocabulary.csv"),
            **TRAINING,
        )
    )
    with contextlib.redirect_stdout(None):  # its table is on the page
        evaluate(flags(train_dir, eval_data_pattern=str(clips / "test*"), run_once=True))
    return read_run(train_dir, name)


def who_decides(train_dir: Path, sample: Path) -> tuple[list[ExpertUse], list[Decision]]:
    """Ask the mixture about the test clips: how it uses its experts, and some single decisions."""
    with (sample / "regimes.csv").open(newline="", encoding="utf-8") as file:
        inverted = {row["id"]: int(row["inverted"]) for row in csv.DictReader(file)}
    model = load_model(train_dir)
    names = model.class_names
    (clips,) = read_batches(
        str(sample / "video" / "test*"),
        feature_names=NAMES,
        feature_sizes=SIZES,
        num_classes=len(names),
        batch_size=100_000,
        cache_dir=str(train_dir.parent.parent / "cache"),
    )
    truth = clips.labels.numpy().astype(bool)
    regime = np.array([inverted[clip] for clip in clips.ids])
    told = model.explain(clips.features)
    use = [
        ExpertUse(
            name,
            REGIMES,
            np.stack([told.gate_weights[truth[:, c] & (regime == r), c].mean(axis=0) for r in (0, 1)]),
        )
        for c, name in enumerate(names)
    ]
    decisions = [
        Decision(
            video_id=clips.ids[i],
            regime=REGIMES[regime[i]],
            truth=tuple(name for name, has in zip(names, truth[i], strict=True) if has),
            class_name=names[c],
            score=float(told.probabilities[i, c]),
            gate_weights=told.gate_weights[i, c],
            expert_votes=told.expert_votes[i, c],
            picture=(clips.features[i, :64].numpy().reshape(8, 8) + 1) / 2,
            picture_alt=f"mean of the frames of an {REGIMES[regime[i]]} clip, 8 by 8 pixels",
        )
        for i, c in choose_decisions(told.probabilities, told.gate_weights, truth, regime)
    ]
    return use, decisions


def choose_decisions(
    scores: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    truth: npt.NDArray[np.bool_],
    regime: npt.NDArray[np.int64],
) -> list[tuple[int, int]]:
    """Choose clips and classes to show: the two digits whose experts divide the regimes most sharply, a clip
    of each regime; then the clip on which the gate is least decided, and the worst mistake.

    Parameters
    ----------
    scores, truth : (clips, classes).
    weights : (clips, classes, experts + 1).
    regime : (clips,).
    """
    shift = [
        np.abs(np.subtract(*(weights[truth[:, c] & (regime == r), c, 0].mean() for r in (0, 1))))
        for c in range(10)
    ]
    chosen = []
    for c in np.argsort(shift)[::-1][:2].tolist():
        for r in (0, 1):
            typical = np.where(truth[:, c] & (regime == r), scores[:, c], -1)
            chosen.append((int(typical.argmax()), c))
    divided = np.where(truth[:, :10], weights[:, :10, :2].min(axis=2), -1)
    mistake = np.abs(scores - truth)
    return [*chosen, _place(divided), _place(mistake)]


def _place(values: npt.NDArray[np.floating]) -> tuple[int, int]:
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output/videos")
    target.mkdir(parents=True, exist_ok=True)
    main(target)
