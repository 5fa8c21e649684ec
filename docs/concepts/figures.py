"""The figures of the concept pages, and the numbers that stand beside them.

`python docs/concepts/figures.py` draws all of them into this folder and prints the table of each;
`python docs/concepts/figures.py oblique` draws one. All data are made here. What each figure measures:

parts           R2 of two experts with a gate, and of one line, where two laws meet
spectrum        error of constants by the width of a fixed gate and their number; of lines by their number
partition       R2 when rows are divided by clusters of inputs, and by the law from x to y
oblique         R2 of a softmax gate and of decision trees when the border between two regimes turns
how-many        BIC and held-out log-likelihood by the number of experts, where three regimes made the data
objectives      error of the blend and of one expert, and entropy of the gate, under E1, E2 and E3 of 1991
climbs          the log-likelihood at every iteration of EM, from several starts
ensembles       R2 of boosting, bagging, stacking, a mixture and one model on two tasks; spread of the weights
learning-curve  error by the number of rows to learn from
extrapolation   error and coverage of intervals inside and outside of the range of the training rows
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from figures_of.boosting import ensembles
from figures_of.index import parts
from figures_of.mathematics import climbs, objectives
from figures_of.partitioning import how_many, oblique, partition
from figures_of.shared import (
    STYLE,
    Drawing,
    Numbers,
)
from figures_of.spectrum import spectrum
from figures_of.when_not import extrapolation, learning_curve
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent

FIGURES: dict[str, tuple[Callable[[], tuple[Numbers, Drawing]], tuple[float, float]]] = {
    "parts": (parts, (6.0, 4.2)),
    "spectrum": (spectrum, (9.0, 3.2)),
    "partition": (partition, (7.5, 3.2)),
    "oblique": (oblique, (7.5, 3.2)),
    "how-many": (how_many, (7.5, 3.0)),
    "objectives": (objectives, (9.0, 3.2)),
    "climbs": (climbs, (6.0, 3.2)),
    "ensembles": (ensembles, (8.5, 3.2)),
    "learning-curve": (learning_curve, (6.0, 3.6)),
    "extrapolation": (extrapolation, (6.0, 3.4)),
}


def as_table(numbers: Numbers) -> str:
    """Give the numbers in Markdown; a row that shares no column with the table so far begins a new one."""
    tables: list[Numbers] = []
    for name, row in numbers.items():
        if not tables or not set(row) & {column for one in tables[-1].values() for column in one}:
            tables.append({})
        tables[-1][name] = row
    lines = []
    for table in tables:
        columns = list(dict.fromkeys(column for row in table.values() for column in row))
        lines += ["", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, row in table.items():
            cells = (f"{row[column]:.3f}" if column in row else "–" for column in columns)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(names: Sequence[str]) -> None:
    """Measure and draw the named figures."""
    for name in names or FIGURES:
        measure, size = FIGURES[name]
        numbers, drawing = measure()
        print(f"## {name}\n{as_table(numbers)}\n", flush=True)
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            drawing(figure)
            figure.savefig(HERE / f"{name}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # argparse holds the empty default against the choices, too
    parser.add_argument(
        "names", nargs="*", choices=[*FIGURES, []], help="which figures; all if none is named"
    )
    with threadpool_limits(1):
        main(parser.parse_args().names)
