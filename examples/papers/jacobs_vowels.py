"""Adaptive mixtures of local experts (Jacobs, Jordan, Nowlan & Hinton 1991) on the vowels of the paper.

Peterson & Barney (1952): F1 and F2 in kHz of the vowels i, I, a, V (heed, hid, hod, hud), each said twice.
The paper has 75 speakers, 50 to learn from; the file has 76, the last, a child, is left out. In its order
33 men and 17 women are learnt from, 11 women and 14 children are new. "Equal numbers of parameters" fit only
one logistic output for each expert, hence targets i = 1, I = 0, a = 1, V = 0; the gate is a linear softmax.
Full-batch gradient descent without momentum from U(-.5, .5), until the mean squared error of the output is
.08; each model has one step, the fastest of a list, found with runs of its own. "survive": experts with a
mean mixing proportion above .01. Letters: R runs (in one tensor), N cases, K experts or hidden units.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from expertise.nn.objectives import OBJECTIVES, half_squared_error

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
VOWELS = {"i": 1.0, "I": 0.0, "A": 1.0, "V": 0.0}
STEPS = (5.7, 8.0, 11.3, 16.0, 22.6, 32.0)
GOAL, LIMIT, ALIVE = 0.08, 5000, 0.01
MODELS = {"4 experts": 4, "net, 6 hidden": 6, "8 experts": 8, "net, 12 hidden": 12}
COLUMNS = ("parameters", "epochs", "sd", "train %", "test %", "missed", "step", "survive", "fewest", "most")
Data = tuple[Tensor, Tensor]


def read(file: Path) -> tuple[Data, Data, Any]:
    """Give X (N, 3) with a column of ones and y (N,), learnt from and new, and the vowels of all."""
    rows = np.loadtxt(file, str, delimiter=",", skiprows=1)  # columns 2, 3, 6, 7: speaker, vowel, F1, F2
    rows = rows[np.isin(rows[:, 3], list(VOWELS)) & (rows[:, 2].astype(int) <= 75)]
    X = torch.from_numpy(np.insert(rows[:, 6:8].astype(np.float32) / 1000, 2, 1, axis=1))
    y = torch.tensor([VOWELS[vowel] for vowel in rows[:, 3]])
    n = int((rows[:, 2].astype(int) <= 50).sum())
    return (X[:n], y[:n]), (X[n:], y[n:]), rows[:, 3]


def start(K: int, kind: str, runs: int, seed: int, scale: float = 0.5) -> list[Tensor]:
    """Draw gate and experts, (K, R, 3) both; of a net hidden units (K, R, 3), then output (K + 1, R, 1)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((K, runs, 3), (K + 1, runs, 1) if kind == "net" else (K, runs, 3))
    drawn = [torch.rand(shape, generator=generator) for shape in shapes]
    return [(scale * (2 * each - 1)).requires_grad_() for each in drawn]


def parts(p: list[Tensor], X: Tensor) -> tuple[Tensor, Tensor]:
    """Give the logarithm of the gate, and what the experts say, both (K, R, N)."""
    return (p[0] @ X.T).log_softmax(0), (p[1] @ X.T).sigmoid()


def objective(kind: str, p: list[Tensor], X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Give what is minimised, and the output of the net or the blend of the mixture, both (R, N)."""
    if kind == "net":
        net = ((p[1][:-1] * (p[0] @ X.T).sigmoid()).sum(0) + p[1][-1]).sigmoid()
        return (net - y).square(), net.detach()
    log_gate, said = parts(p, X)
    flat = log_gate.flatten(1).T, said.flatten(1).T[..., None], y.expand(said.shape[1:]).reshape(-1, 1)
    values = OBJECTIVES[kind](*flat, half_squared_error).view(said.shape[1:])
    return values, (log_gate.exp() * said).detach().sum(0)


def descend(kind: str, p: list[Tensor], data: Data, steps: Tensor, limit: int, goal: float = GOAL) -> Tensor:
    """Train in place, each run until its goal; give the epochs (R,), the limit where it was not reached."""
    epochs = torch.full_like(steps, limit)
    for epoch in range(limit):
        values, said = objective(kind, p, *data)
        reached = (said - data[1]).square().mean(1) <= goal
        epochs = torch.where(reached & (epochs == limit), epoch, epochs)
        going = steps * (epochs == limit)
        if not going.any():
            break
        slopes = torch.autograd.grad(values.mean(1).sum(), p)
        with torch.no_grad():
            for parameter, slope in zip(p, slopes, strict=True):
                parameter -= going[:, None] * slope
    return epochs


def measure(name: str, old: Data, new: Data, runs: int, scale: float) -> list[float]:
    """Search the step, train the runs, and give the numbers of COLUMNS."""
    K, kind, tries = MODELS[name], "net" if "net" in name else "likelihood", max(2, runs // 6)
    searched = torch.tensor(STEPS if runs == 25 else STEPS[1::3]).repeat_interleave(tries)
    p = start(K, kind, len(searched), 1000, scale)
    taken = descend(kind, p, old, searched, LIMIT // (2 if runs == 25 else 4)).view(-1, tries).mean(1)
    step = float(searched[tries * int(taken.argmin())])
    p = start(K, kind, runs, 0, scale)
    epochs = descend(kind, p, old, torch.full((runs,), step), LIMIT)
    done, size = epochs[epochs < LIMIT], sum(part.numel() for part in p) / runs
    right = [((objective(kind, p, X, y)[1] > 0.5) == (y > 0.5)).float().mean() for X, y in (old, new)]
    found = size, done.mean(), done.std(), 100 * right[0], 100 * right[1], (epochs == LIMIT).sum(), step
    shares = (p[0] @ old[0].T).softmax(0).mean(2)
    alive = (shares > ALIVE).sum(0) + (np.nan if kind == "net" else 0.0)
    return [float(number) for number in (*found, alive.mean(), alive.min(), alive.max())]


def alone(kind: str, data: Data, runs: int, epochs: int) -> list[float]:
    """Train 4 experts by an objective; give the error of one drawn expert, that of the blend, the entropy."""
    p = start(4, kind, runs, 0)
    descend(kind, p, data, torch.full((runs,), 16.0), epochs, goal=0.0)
    log_gate, said = (part.detach() for part in parts(p, data[0]))
    drawn = (log_gate.exp() * (said - data[1]).square()).sum(0)
    blend = (objective(kind, p, *data)[1] - data[1]).square()
    return [float(values.mean()) for values in (drawn, blend, -(log_gate.exp() * log_gate).sum(0))]


def line(label: str, cells: Any, digits: str) -> None:
    """Print a row of the table, numbers with so many digits; nan is a dash."""
    texts = ["–" if np.isnan(cell) else f"{cell:.{n}f}" for n, cell in zip(digits, cells, strict=False)]
    print(f"{label:<24}" + "".join(f"{text:>11}" for text in texts), flush=True)


def main(quick: bool = False) -> None:
    """Print the two tables."""
    file = Path(os.environ.get("EXPERTISE_DATA", BESIDE)) / "vowels" / "peterson_barney_1952.csv"
    if not file.is_file():
        print(f"vowels: SKIPPED, no {file}; set EXPERTISE_DATA to the folder of the data")
        return
    begun, (old, new, vowels) = time.perf_counter(), read(file)
    n, (runs, epochs) = len(old[1]), (4, 800) if quick else (25, 2500)
    print(f"{n} cases to learn from, {len(new[1])} new ones, {runs} runs")
    print(" " * 24 + "".join(f"{name:>11}" for name in COLUMNS))
    for scale in (0.5,) if quick else (0.5, 0.1, 1.0):
        found = [measure(name, old, new, runs, scale) for name in MODELS]
        for name, numbers in zip(MODELS, found, strict=True):
            line(name if scale == 0.5 else f"{name}, U(+-{scale})", numbers, "0000101100")
        longer = found[1][1] / found[0][1], found[3][1] / found[2][1]
        print(f"from U(+-{scale}) the nets take {longer[0]:.2f} and {longer[1]:.2f} times the epochs")
    print("paper: 1124 (sd 23) and 1083 (12) epochs with experts, 2209 (83) and 2435 (124) of the nets")
    for label, target in {"one logistic unit": np.r_[old[1], new[1]], "logistic, 4 vowels": vowels}.items():
        model = LogisticRegression(C=1e6, max_iter=5000).fit(old[0], target[:n])
        scores = 100 * model.score(old[0], target[:n]), 100 * model.score(new[0], target[n:])
        line(label, [3 * len(model.coef_), np.nan, np.nan, *scores], "00011")
    print(f"{f'4 experts, {epochs} epochs':<24}  one drawn      blend    entropy of the gate")
    for kind in ("cooperative", "expected", "likelihood"):
        line(kind, alone(kind, old, runs, epochs), "444")
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 runs instead of 25, a shorter search")
    torch.set_num_threads(1)
    main(parser.parse_args().quick)
