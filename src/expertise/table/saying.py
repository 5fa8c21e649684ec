"""What `expertise fit` tells of its work, in plain words and tables."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from expertise.mixture import DegenerateExpertWarning, FewCasesWarning
from expertise.table.columns import MISSING, Encoder
from expertise.table.values import MONTH_FIRST, Floats

if TYPE_CHECKING:
    from expertise.table.model import TableModel
    from expertise.table.request import Request

_PLURAL = {"number": "numbers", "category": "categories", "boolean": "booleans", "date": "dates"}
NAMES = 8  # columns that are named in a line
# where in a warning of the fit the advice begins, which speaks of arguments
_ADVICE = {
    FewCasesWarning: "; ",
    DegenerateExpertWarning: r"\. More rows|; fewer experts",
    ConvergenceWarning: "; raise ",
}
FEW_VALUES = 10  # different whole numbers up to which a target may be codes of classes


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
        verb = "is" if without_target == 1 else "are"
        lines.append(f"  {_rows(without_target)} without {request.target} {verb} left out")
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
    lines += [f"  {line}" for line in _two_ways(encoder, found)]
    for j, column in enumerate(encoder.columns):
        gone = int(np.isnan(found[:, j]).sum())
        if column.kind == "category" and MISSING in column.levels:
            gone = int((found[:, j] == column.levels.index(MISSING)).sum())
            lines.append(f"  missing        {column.name}: {_rows(gone)}, a category of their own")
        elif gone:
            lines.append(
                f"  missing        {column.name}: {_rows(gone)}, filled with what is usual, and marked"
            )
    return "\n".join(lines)


def _two_ways(encoder: Encoder, found: Floats) -> list[str]:
    """Say which dates could be read with the day first as well, where nobody said so."""
    lines = []
    for column, x in zip(encoder.columns, found.T, strict=True):
        if column.kind != "date" or not column.form.startswith(MONTH_FIRST):
            continue
        day = np.array([int(column.text(one)[8:10]) for one in np.unique(x[~np.isnan(x)])])
        if (day <= 12).all():
            lines.append(
                f"dates          {column.name}: read as month/day/year; day/month/year is possible too: "
                "--day-first"
            )
    return lines


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def of_few_values(request: "Request", y: Floats) -> str:
    """Say that a target of few whole numbers, predicted as a number, may be meant as classes; or ""."""
    values = np.unique(y)
    if request.task != "auto" or request.expert or len(values) > FEW_VALUES or (values % 1).any():
        return ""
    return (
        f"  {request.target} holds {len(values)} different whole numbers, and is taken as an amount; where "
        "they stand for classes: --task=classification"
    )


def of_order(column: str) -> str:
    """Say what a random split of rows in the order of time tells, and what it does not."""
    return (
        f"the rows stand in the order of {column}, but those held out are drawn at random from all times: "
        "the scores tell how well gaps are filled, not how well the future is foretold. For that: "
        f"--order={column}"
    )


def of_warning(message: Warning | str) -> str:
    """Say a warning of the fit in the words of the command: its advice names flags, not arguments."""
    text = str(message)
    for kind, advice in _ADVICE.items():
        if isinstance(message, kind):
            found = re.split(advice, text)[0]
            return f"{found}; more rows, fewer --experts, or fewer inputs (--drop) may do better"
    return text


def of_split(train: int, test: int, request: "Request", since: str = "") -> str:
    """Tell how many rows are fitted and held out; ``since`` is the first moment held out of an order."""
    if not test:
        return f"fit: {train:,} rows; none are held out, so nothing is compared"
    if since:
        share = test / (train + test)
        return f"fit: {train:,} rows; held out: {test:,} ({share:.0%}, {request.order} from {since} on)"
    how = f", by {request.groups}" if request.groups else ""
    return f"fit: {train:,} rows; held out: {test:,} ({request.test:.0%}{how}, seed {request.seed})"


def facts(
    model: "TableModel", request: "Request", train: int, test: int, since: str = ""
) -> list[tuple[str, str]]:
    """Name what was fitted, for the page."""
    held = f"{test:,} held out" + (f", {request.order} from {since} on" if since else "")
    mixture: Any = model.mixture
    columns = len(model.encoder.columns)
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
        ("rows", f"{train:,} fitted, {held} (seed {request.seed})"),
        (
            "inputs",
            f"{columns} column{'' if columns == 1 else 's'}, {len(model.encoder.names)} after encoding",
        ),
        ("parameters", f"{mixture.n_parameters_:,}, for one row at most {_active(mixture):,}"),
        ("log-likelihood", f"{mixture.loglik_:,.2f} of the fitted rows"),
        (
            "EM",
            f"{mixture.n_iter_} iterations, {'converged' if mixture.converged_ else 'not converged'}; "
            f"{mixture.fit_seconds_:.1f} s for all starts",
        ),
    ]
    if model.encoder.left_out:
        found.append(
            ("left out", "; ".join(f"{name}: {why}" for name, why in model.encoder.left_out.items()))
        )
    return found


def _active(mixture: Any) -> int:
    """Count the parameters of the gate and the largest expert: what a row costs that one expert decides."""
    return int(mixture.gate_.n_parameters + max(expert.n_parameters for expert in mixture.experts_))


def of_fit(model: "TableModel") -> str:
    """Tell what was fitted, and how all models did on the held-out rows."""
    mixture: Any = model.mixture
    kinds = ", ".join(dict.fromkeys(expert.name for expert in mixture.experts_))
    shares = ", ".join(f"{share:.0%}" for share in mixture.weights_)
    many = f"gate {mixture.gate_.name}; they decide for {shares} of the rows"
    alone = f"fitted: 1 expert ({kinds}); it decides for all rows"
    lines = [f"fitted: {model.n_experts} experts ({kinds}), {many}" if model.n_experts > 1 else alone]
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
