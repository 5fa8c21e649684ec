"""Sections on the experts of a mixture: which of them works where, and who decided."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from expertise.report import figures
from expertise.report._colours import expert_colour
from expertise.report.page import Block, Card, Cell, Prose, Table, format_value

Floats = npt.NDArray[np.floating]

MAX_CLASSES = 24  # rows of a figure
NOBODY = "nobody"  # the gate's last choice: an expert that always says no


@dataclass(frozen=True)
class ExpertUse:
    """How far the gate of one class trusts each of its experts, by regime of the videos.

    ``weights`` (R, M + 1): the mean gate weights in each regime; the last one is the expert that says no.
    """

    class_name: str
    regime_names: tuple[str, ...]
    weights: Floats = field(compare=False)

    def __post_init__(self) -> None:
        """Check the shape."""
        if self.weights.ndim != 2 or len(self.weights) != len(self.regime_names):
            raise ValueError(
                f"weights of class {self.class_name!r} have the shape {self.weights.shape}; "
                f"it must be (regimes, experts + 1) with {len(self.regime_names)} regimes"
            )


@dataclass(frozen=True)
class Decision:
    """Who decided on one class of one video.

    ``truth`` are the labels of the video, ``score`` the answer for ``class_name``. ``gate_weights`` (M + 1,),
    the last one of the expert that says no; ``expert_votes`` (M,). ``picture``, (height, width) in 0 to 1,
    is shown beside it.
    """

    video_id: str
    regime: str
    truth: tuple[str, ...]
    class_name: str
    score: float
    gate_weights: Floats = field(compare=False)
    expert_votes: Floats = field(compare=False)
    picture: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    picture_alt: str = ""

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.gate_weights.shape != (len(self.expert_votes) + 1,):
            raise ValueError(
                f"video {self.video_id!r}: gate_weights have the shape {self.gate_weights.shape}; with "
                f"{len(self.expert_votes)} expert_votes it must be ({len(self.expert_votes) + 1},)"
            )


# ---- which expert works where


def expert_use(use: Sequence[ExpertUse]) -> tuple[Block, ...]:
    if not use:
        return ()
    regimes = use[0].regime_names
    experts = use[0].weights.shape[1] - 1
    for one in use:
        if one.regime_names != regimes or one.weights.shape != (len(regimes), experts + 1):
            raise ValueError(
                f"expert_use of class {one.class_name!r} has regimes {one.regime_names} and weights "
                f"{one.weights.shape}; those of {use[0].class_name!r} are {regimes} and "
                f"{use[0].weights.shape}"
            )
    order = sorted(use[:MAX_CLASSES], key=lambda one: float(one.weights[-1, 0] - one.weights[0, 0]))
    weights = np.array([one.weights for one in order], dtype=np.float64)
    parts = [(f"expert {m + 1}", expert_colour(m)) for m in range(experts)] + [(NOBODY, "nobody")]
    text = (
        f"Every class has {experts} experts of its own, and a gate that looks at the video and says how far "
        "to trust each. The rest of its trust goes to nobody: an expert that always says no. The gate was "
        f"never told which videos are {' and which are '.join(regimes)}.",
    )
    return (
        Prose(text),
        figures.shares(
            _use_title(use, regimes),
            [one.class_name for one in order],
            regimes,
            parts,
            weights,
            row_label="class",
            x_label="mean gate weight (share of 1), over videos that have the class",
            note="The numbers of the experts mean nothing across classes: each class numbers its own.",
        ),
    )


def _use_title(use: Sequence[ExpertUse], regimes: Sequence[str]) -> str:
    changes = sum(len(set(np.argmax(one.weights[:, :-1], axis=1).tolist())) > 1 for one in use)
    between = f"from {regimes[0]} to {regimes[1]} videos" if len(regimes) == 2 else "with the regime"
    if not changes:
        return f"In none of {len(use)} classes does the leading expert change {between}"
    return f"In {changes} of {len(use)} classes the leading expert changes {between}"


# ---- who decided


def decisions(decisions: Sequence[Decision]) -> tuple[Block, ...]:
    if not decisions:
        return ()
    text = "Each expert adds what it says times the trust of the gate; the sum is the score of the class."
    return (Prose((text,)), *(_card(one) for one in decisions))


def _card(one: Decision) -> Card:
    adds = one.gate_weights[:-1] * one.expert_votes
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(f"expert {m + 1}", colour=expert_colour(m)),
            Cell(float(one.gate_weights[m]), 2, bar=expert_colour(m)),
            Cell(float(one.expert_votes[m]), 2, bar=expert_colour(m)),
            Cell(float(adds[m]), 2),
        )
        for m in range(len(adds))
    ]
    nobody = float(one.gate_weights[-1])
    rows.append(
        (
            Cell(NOBODY, colour="nobody"),
            Cell(nobody, 2, bar="nobody"),
            Cell(0.0, 2, bar="nobody"),
            Cell(0.0, 2),
        )
    )
    rows.append((Cell("score"), Cell(""), Cell(""), Cell(one.score, 2)))
    has, says = one.class_name in one.truth, one.score >= 0.5
    return Card(
        f"{one.class_name}: score {one.score:.2f}",
        Table(("", "gate trusts", "expert says", "adds"), tuple(rows)),
        (_who(one), f"Labels: {', '.join(one.truth) or 'none'}."),
        (one.regime, "answer right" if has == says else "answer wrong", f"video {one.video_id}"),
        one.picture,
        one.picture_alt,
    )


def _who(one: Decision) -> str:
    adds = [*(one.gate_weights[:-1] * one.expert_votes), 0.0]
    # of weights that are shown alike, that of the expert which adds more
    lead = max(range(len(adds)), key=lambda m: (round(float(one.gate_weights[m]), 2), adds[m]))
    weight = format_value(float(one.gate_weights[lead]), 2)
    if lead == len(one.expert_votes):
        return f"The gate vetoes: it gives {weight} to nobody, whatever the experts say."
    says = format_value(float(one.expert_votes[lead]), 2)
    how = "decides" if one.gate_weights[lead] >= 0.8 else "has the most to say"
    return f"Expert {lead + 1} {how}: the gate trusts it with {weight}, and it says {says}."
