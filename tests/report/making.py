"""Made-up runs, experts and decisions for the tests of the page, with names that try to break it."""

from typing import Any

import numpy as np

from expertise.report.videos import Decision, ExpertUse, Run

EVIL = '<script>alert("1")</script> & $x$'
CLASSES = ("cat", "dog", EVIL, "a name that is far too long for an axis")


def make_run(name: str, gap: float, *, parameters: int | None = 100, steps: int = 100) -> Run:
    log: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        share = gap * step / steps
        log.append({"kind": "train", "step": step, "loss": 2.0 - share, "gap": share, "hit_at_1": share})
        if step % 20 == 0:
            figures = dict.fromkeys(("gap", "map", "perr", "hit_at_1"), share)
            log.append({"kind": "eval", "step": step, "loss": 2.1 - share, **figures})
    classes = [
        {
            "index": i,
            "name": one,
            "positives": 10 * i,
            "average_precision": None if i == 0 else gap - 0.1 * i,
        }
        for i, one in enumerate(CLASSES)
    ]
    metrics = dict.fromkeys(("gap", "map", "perr", "hit_at_1"), gap)
    evaluation = {"step": steps, "loss": 2.1 - gap, "num_videos": 1000, **metrics, "classes": classes}
    return Run(name, parameters, tuple(log), evaluation)


def make_use() -> list[ExpertUse]:
    swapped = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]])
    same = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]])
    return [ExpertUse(CLASSES[i], ("day", "night"), same if i == 1 else swapped) for i in range(len(CLASSES))]


def make_decision(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "video_id": "ab<b>",
        "regime": "night",
        "truth": ("cat", EVIL),
        "class_name": "cat",
        "score": 0.73,
        "gate_weights": np.array([0.8, 0.1, 0.1]),
        "expert_votes": np.array([0.9, 0.1]),
        "picture": np.linspace(-0.1, 1.1, 12).reshape(3, 4),
        "picture_alt": "a test card",
    }
    return Decision(**{**values, **changes})
