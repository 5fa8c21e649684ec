"""What `expertise fit` tells of its work, in plain words and tables."""

from typing import TYPE_CHECKING, Any

import numpy as np

from expertise.table.columns import MISSING, Encoder
from expertise.table.values import Floats

if TYPE_CHECKING:
    from expertise.table.model import TableModel
    from expertise.table.request import Request

_PLURAL = {"number": "numbers", "category": "categories", "boolean": "booleans", "date": "dates"}
NAMES = 8  # columns that are named in a line


def of_table(
    source: str,
    n_rows: int,
    encoder: Encoder,
    found: Floats,
    request: "Request",
    task: str,
    without_target: int,
) -> str:
    """Tell what the columns hold, which were left out, and what is missing."""
    lines = [f"{source}: {n_rows:,} rows; predict {request.target} ({task})"]
    if without_target:
        lines.append(f"  {without_target:,} rows without {request.target} are left out")
    for kind, plural in _PLURAL.items():
        names = [
            f"{column.name} ({len(column.levels)})" if kind == "category" else column.name
            for column in encoder.columns
            if column.kind == kind
        ]
        if names:
            more = f", and {len(names) - NAMES} more" if len(names) > NAMES else ""
            lines.append(f"  {plural:11}{len(names):4}  {', '.join(names[:NAMES])}{more}")
    for name, reason in encoder.left_out.items():
        lines.append(f"  left out       {name}: {reason}")
    for j, column in enumerate(encoder.columns):
        gone = int(np.isnan(found[:, j]).sum())
        if column.kind == "category" and MISSING in column.levels:
            gone = int((found[:, j] == column.levels.index(MISSING)).sum())
            lines.append(f"  missing        {column.name}: {gone:,} rows, a category of their own")
        elif gone:
            lines.append(
                f"  missing        {column.name}: {gone:,} rows, filled with what is usual, and marked"
            )
    return "\n".join(lines)


def of_split(train: int, test: int, request: "Request") -> str:
    """Tell how many rows are fitted and held out."""
    if not test:
        return f"fit: {train:,} rows; none are held out, so nothing is compared"
    how = f", by {request.groups}" if request.groups else ""
    return f"fit: {train:,} rows; held out: {test:,} ({request.test:.0%}{how}, seed {request.seed})"


def facts(model: "TableModel", request: "Request", train: int, test: int) -> list[tuple[str, str]]:
    """Name what was fitted, for the page."""
    mixture: Any = model.mixture
    kinds = list(dict.fromkeys(expert.name for expert in mixture.experts_))
    how = "chosen by BIC from 1 to 6" if request.experts == "auto" and len(request.expert) < 2 else "as asked"
    found = [
        ("target", f"{model.target} ({model.task})"),
        ("experts", f"{model.n_experts} ({how}), {', '.join(kinds)}"),
        (
            "gate",
            mixture.gate_.name
            + (f", sees {', '.join(request.gate_features)}" if request.gate_features else ""),
        ),
        ("rows", f"{train:,} fitted, {test:,} held out (seed {request.seed})"),
        ("inputs", f"{len(model.encoder.columns)} columns, {len(model.encoder.names)} after encoding"),
        ("parameters", "unknown" if mixture.n_parameters_ is None else f"{mixture.n_parameters_:,}"),
        ("log-likelihood", f"{mixture.loglik_:,.2f} of the fitted rows"),
        ("EM", f"{mixture.n_iter_} iterations, {'converged' if mixture.converged_ else 'not converged'}"),
    ]
    if model.encoder.left_out:
        found.append(
            ("left out", "; ".join(f"{name}: {why}" for name, why in model.encoder.left_out.items()))
        )
    return found


def of_fit(model: "TableModel") -> str:
    """Tell what was fitted, and how all models did on the held-out rows."""
    mixture: Any = model.mixture
    kinds = ", ".join(dict.fromkeys(expert.name for expert in mixture.experts_))
    shares = ", ".join(f"{share:.0%}" for share in mixture.weights_)
    lines = [
        f"fitted: {model.n_experts} {'experts' if model.n_experts > 1 else 'expert'} ({kinds}), gate "
        f"{mixture.gate_.name}; they decide for {shares} of the rows"
    ]
    if model.scores:
        metrics = list(model.scores[0][1])
        width = max(len(name) for name, _ in model.scores)
        lines.append("held-out rows".ljust(width) + "".join(f"  {metric:>14}" for metric in metrics))
        for name, values in model.scores:
            cells = ("–" if values[metric] is None else f"{values[metric]:.4g}" for metric in metrics)
            lines.append(name.ljust(max(width, 13)) + "".join(f"  {cell:>14}" for cell in cells))
        lines.append(model.verdict)
    lines += [f"warning: {warning}" for warning in model.warnings]
    return "\n".join(lines)
