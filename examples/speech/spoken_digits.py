"""Own data from arrays to a table: spoken digits of a speaker whom no model has heard.

The Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0) has 3,000 recordings of six speakers; a frame is
the 40 log-mel energies of 25 ms, every 10 ms. The classes are the ten digits. The speakers are no classes: whoever
is held out was never trained on. Each speaker is a partition of one pack, so all folds share its records, and
training takes the patterns of the others.

Models see every frame, and every mean, divided by its length. What all frames share, the colour of voice and
microphone, would take most of that length, so three features are packed:

- spectrum: the frame minus the recording's mean level. Its mean is the average spectrum: colour and all.
- frame: the frame minus the recording's mean spectrum, and a constant, which keeps loudness through the division.
- arc: the frame minus the mean spectrum, times cosines of the time. The means of these are the first terms of a
  Fourier series over the recording: a clip-level model sees when things happen, although means know no order.

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
import torch
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
    "mean spectrum, logistic": ("LogisticModel", "spectrum", 40, CLIPS),
    "mean spectrum, mixture": ("MoeModel", "spectrum", 40, CLIPS),
    "arcs, logistic": ("LogisticModel", "arc", 40 * ARCS, CLIPS),
    "arcs, mixture": ("MoeModel", "arc", 40 * ARCS, CLIPS),
    "frames, LSTM": ("LstmModel", "frame", 41, {**FRAMES, "lstm_cells": 64, "lstm_layers": 1}),
    "frames, GRU": ("GruModel", "frame", 41, {**FRAMES, "gru_cells": 64, "gru_layers": 1}),
}
