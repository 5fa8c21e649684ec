"""Own data from arrays to a table: spoken digits of a speaker whom no model has heard.

The Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0): 3,000 recordings of six speakers. Frames
are 40 log-mel energies of 25 ms, every 10 ms. The classes are the ten digits. Speakers are no classes: who is
held out was never trained on. Each speaker is a partition of one pack; training takes those of the others.

Models see every frame, and every mean, divided by its length. What all frames share, the colour of voice and
microphone, would take most of that length, so three features are packed:

- spectrum: the frame minus the recording's mean level. Its mean is the average spectrum, colour and all.
- sound: the frame minus the recording's mean spectrum, and a constant, which keeps loudness in the direction.
- arc: the frame minus the mean spectrum, times cosines of the time. Its means are the first terms of a cosine
  series over the recording: so a clip-level model sees when things happen, although means know no order.

Letters: T frames of all recordings, N recordings.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expertise.youtube8m import Flags
from expertise.youtube8m.evaluate import evaluate
from expertise.youtube8m.pack import pack
from expertise.youtube8m.train import train

FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "speech" / "fsdd_logmel40_u8.npz"
LOUD = 80.0  # the constant beside a frame; frames have lengths of about 150
ARCS = 6  # cosines: half a period to three

CLIPS = {"num_epochs": 20}
FRAMES = {"frame_features": True, "num_epochs": 5, "max_frames": 64}
# what the row is called: the model, its feature with its size, its flags
MODELS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "mean spectrum logistic": ("LogisticModel", "spectrum", 40, CLIPS),
    "mean spectrum mixture": ("MoeModel", "spectrum", 40, CLIPS),
    "arcs logistic": ("LogisticModel", "arc", 40 * ARCS, CLIPS),
    "arcs mixture": ("MoeModel", "arc", 40 * ARCS, CLIPS),
    "frames attention": ("AttentionModel", "sound", 41, FRAMES),
    "frames sparse experts": ("FrameMoeModel", "sound", 41, {**FRAMES, "frame_moe_hidden": 64}),
    "frames LSTM": ("LstmModel", "sound", 41, {**FRAMES, "lstm_cells": 64, "lstm_layers": 1}),
    "frames GRU": ("GruModel", "sound", 41, {**FRAMES, "gru_cells": 64, "gru_layers": 1}),
}


def features(frames_TD: NDArray[np.uint8], ptr: NDArray[np.int32]) -> dict[str, Any]:
    """Give spectrum (T, 40), sound (T, 41) and arc (T, 40 ARCS); recording i is rows ptr[i] to ptr[i + 1]."""
    x_TD, lengths_N = frames_TD.astype(np.float32), np.diff(ptr)
    means_ND = np.add.reduceat(x_TD, ptr[:-1]) / lengths_N[:, None]
    own_TD = x_TD - np.repeat(means_ND, lengths_N, axis=0)
    time_T = (np.arange(len(x_TD)) - np.repeat(ptr[:-1], lengths_N) + 0.5) / np.repeat(lengths_N, lengths_N)
    waves_TK = np.cos(np.pi * np.arange(1, ARCS + 1) * time_T[:, None]).astype(np.float32)
    return {
        "spectrum": x_TD - np.repeat(means_ND.mean(axis=1), lengths_N)[:, None],
        "sound": np.insert(own_TD, 40, LOUD, axis=1),
        "arc": (waves_TK[:, :, None] * own_TD[:, None, :]).reshape(len(x_TD), -1),
    }


def write_arrays(data: Any, path: Path) -> tuple[str, ...]:
    """Write what pack reads, one row a frame; give the speakers."""
    rows = np.repeat(np.arange(len(data["digit"])), np.diff(data["ptr"]))
    speakers = data["speaker_names"]
    arrays: dict[str, Any] = {
        "id": np.char.add("recording", rows.astype(str)),
        "labels": data["digit"][rows].astype(str),
        "partition": speakers[data["speaker"][rows]],
    }
    np.savez(path, **arrays, **features(data["frames"], data["ptr"]))
    return tuple(speakers.tolist())


def hold_out(folder: Path, row: str, speakers: tuple[str, ...], held_out: str) -> tuple[float, float]:
    """Train on all speakers but one; give Hit@1 and GAP on that one."""
    model, name, size, flags = MODELS[row]
    level = "frame" if "frame_features" in flags else "video"
    patterns = {speaker: f"{folder}/packed/{level}/{speaker}[0-9]*" for speaker in speakers}
    train_dir = str(folder / "runs" / f"{row} {held_out}".replace(" ", "-"))
    shared: dict[str, Any] = {"train_dir": train_dir, "cache_dir": str(folder / "cache"), "num_readers": 1}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(
            Flags(
                train_data_pattern=",".join(patterns[one] for one in speakers if one != held_out),
                vocabulary=str(folder / "packed" / "vocabulary.csv"),
                feature_names=name if level == "frame" else f"mean_{name}",
                feature_sizes=str(size),
                model=model,
                batch_size=64,
                device="cpu",
                **shared,
                **flags,
            )
        )
        found = evaluate(Flags(eval_data_pattern=patterns[held_out], run_once=True, device="cpu", **shared))
    return found["hit_at_1"], found["gap"]


def show(metric: str, table: dict[str, list[float]], speakers: tuple[str, ...]) -> None:
    """Print one number for each model and speaker, and their mean."""
    print(f"\n{metric:<26}" + "".join(f"{name:>10}" for name in (*speakers, "mean")))
    for row, values in table.items():
        print(f"{row:<26}" + "".join(f"{value:>10.3f}" for value in (*values, np.mean(values))))
    best = max(table, key=lambda row: float(np.mean(table[row])))
    print(
        f"{metric}: {best} wins; by speaker "
        + ", ".join(f"{name} {max(table, key=lambda row: table[row][i])}" for i, name in enumerate(speakers))
    )


def main(folder: Path, num_speakers: int) -> None:
    """Pack the recordings, train every model without each of some speakers, and print what it then knows."""
    file = Path(os.environ["EXPERTISE_DATA"], *FILE.parts[-2:]) if "EXPERTISE_DATA" in os.environ else FILE
    if not file.is_file():
        print(f"speech: SKIPPED, no {file}; set EXPERTISE_DATA to the folder of the data")
        return
    begun = time.perf_counter()
    with np.load(file) as data:
        speakers = write_arrays(data, folder / "digits.npz")
    arrays, packed = str(folder / "digits.npz"), str(folder / "packed")
    with contextlib.redirect_stderr(io.StringIO()):
        done = pack(Flags(input_data_pattern=arrays, output_dir=packed, feature_names=""))
    print(
        f"{done.videos:,} recordings, {done.frames:,} frames, {done.classes} digits, {len(speakers)} voices"
    )
    held_out = speakers[:num_speakers]
    found = {row: [hold_out(folder, row, speakers, one) for one in held_out] for row in MODELS}
    show("Hit@1", {row: [hit for hit, _ in values] for row, values in found.items()}, held_out)
    show("GAP", {row: [gap for _, gap in values] for row, values in found.items()}, held_out)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speakers", type=int, default=6, choices=range(1, 7), help="held out in turn")
    with tempfile.TemporaryDirectory() as made:
        main(Path(made), parser.parse_args().speakers)
