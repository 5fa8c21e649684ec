"""The section on single rows: who decided, and which inputs moved the gate and the expert, as figures."""

import numpy as np

from expertise.report._colours import expert_colour
from expertise.report._mixture_words import target, three, value_text
from expertise.report.figures import Dots, dots
from expertise.report.page import Block, Figure, Prose
from expertise.report.record import Explained, MixtureRecord

MOST = 6  # inputs of a figure


def section(record: MixtureRecord) -> tuple[Block, ...]:
    """Two figures a row: what moved the gate, and what moved the expert it chose."""
    text = (
        "The row that each expert decides most surely, and the one of which the gate is least sure. A dot: "
        "the weight of the chosen expert, or what it says, minus the same with this one input at its typical "
        "value. To the right, the input raised it. Inputs that act together are seen only as far as each "
        "alone does.",
    )
    found: list[Block] = [Prose(text)]
    for one in record.explained:
        name, weight = record.row_names[one.row], record.gate[one.row, one.chosen]
        about = f" for {one.about}" if one.about else ""
        found.append(
            _figure(
                record,
                one,
                one.gate_effects,
                f"{name}: expert {one.chosen} decides with a weight of {weight:.2f}",
                "moves it",
                f"effect on the weight of expert {one.chosen}",
                1.0,
            )
        )
        said = record.experts[one.row, one.chosen]
        value = said if said.ndim == 0 else said[record.classes.index(one.about)]
        found.append(
            _figure(
                record,
                one,
                one.expert_effects,
                f"{name}: expert {one.chosen} says {three(float(value))}{about}",
                "moves what it says",
                f"effect on {'its probability' if one.about else target(record)}",
                float(np.abs(one.expert_effects).max(initial=0)) * 1.1 or 1.0,
            )
        )
    return tuple(found)


def _figure(
    record: MixtureRecord,
    one: Explained,
    effects: np.ndarray[tuple[int], np.dtype[np.float64]],
    start: str,
    moves: str,
    x_label: str,
    reach: float,
) -> Figure:
    order = np.argsort(-np.abs(effects), kind="stable")[:MOST].tolist()
    names = [
        f"{record.columns[j].name} = {value_text(record.columns[j], record.columns[j].values[one.row])}"
        for j in order
    ]
    most = record.columns[order[0]].name
    end = f"; {most} {moves} most" if abs(effects[order[0]]) > 1e-6 * reach else "; no input alone matters"
    return dots(
        start + end,
        names,
        [Dots("effect", effects[order], expert_colour(one.chosen))],
        row_label="input",
        x_label=x_label,
        x_limits=(-reach, reach),
    )
