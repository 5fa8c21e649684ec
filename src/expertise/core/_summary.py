"""A fitted mixture in a few lines of plain text."""

import numpy as np
import numpy.typing as npt


def count_for_criteria(total: int | None, counts: tuple[int | None, list[int | None]]) -> int:
    """Give the number of free parameters, or say who has none.

    Raises
    ------
    ValueError : there is no number of parameters.
    """
    if total is not None:
        return total
    gate, experts = counts
    unknown = [k for k, count in enumerate(experts) if count is None]
    who = f"expert {unknown[0]}" if unknown else "the gate" if gate is None else "this mixture"
    raise ValueError(f'information criteria need a number of parameters; {who} has none; use criterion="cv"')


def summary(
    *,
    name: str,
    lines: list[str],
    weights: npt.NDArray[np.float64],
    gate_count: int | None,
    expert_counts: list[int | None],
    total: int | None,
    loglik: float,
    seconds: float | None,
) -> str:
    """Write the name, lines about gate and experts, a table of the experts, and the totals."""
    table = [("expert", "mean weight", "parameters")]
    for k, (weight, count) in enumerate(zip(weights, expert_counts, strict=True)):
        table.append((str(k), f"{weight:.3f}", "unknown" if count is None else f"{count:,}"))
    widths = [max(len(row[j]) for row in table) for j in range(3)]
    rows = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    known = [count for count in expert_counts if count is not None]
    active = None
    if gate_count is not None and len(known) == len(expert_counts):
        active = gate_count + max(known)
    facts = [
        ("parameters", "unknown" if total is None else f"{total:,}"),
        # argmax pooling asks the gate and one expert; the largest is the most it can cost
        ("active per prediction", "unknown" if active is None else f"{active:,} (gate and largest expert)"),
        ("log-likelihood", f"{loglik:,.3f}"),
    ]
    if seconds is not None:
        facts.append(("fit time", f"{seconds:.2f} s"))
    width = max(len(key) for key, _ in facts)
    experts = "1 expert" if len(weights) == 1 else f"{len(weights)} experts"
    end = [f"{key.ljust(width)}  {value}" for key, value in facts]
    return "\n".join([f"{name}: {experts}", *lines, "", *rows, "", *end])
