"""What the page draws of a model: profiles, the map of the gate, coefficients, calibration, iterations.

Letters: n rows of the page, K experts, V classes, m points of a grid, s rows of a sample.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.mixture import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.report.record import Coefficients, Frame, GateMap, Profile
from expertise.report.record import Column as ShownColumn
from expertise.table.columns import DAY
from expertise.table.cycles import Cycle, hidden, placed
from expertise.table.model import TableModel
from expertise.table.values import Floats

SHOWN = 300  # rows of the sample that iterations are drawn on, and over which profiles are averaged
AVERAGED = 100  # rows over which a map is averaged
POINTS = 25  # of a profile
SIDE = 24  # points of a side of the map
PROFILES = 12
ENOUGH = (
    0.05  # of a gate weight, or of the spread of the answers, by which a cycle must move them to be shown
)
FRAMES = 40
CLASSES = 4  # up to so many classes have their coefficients shown


# -- along the inputs


def grid(column: ShownColumn, points: int) -> Floats:
    """Give the values at which a column is looked at: its levels, or points over where the rows are."""
    if column.kind in ("category", "boolean"):
        return np.arange(float(len(column.levels) or 2))
    there = column.values[~np.isnan(column.values)]
    if not len(there):
        return np.array([column.typical])
    some = np.unique(there)
    if len(some) <= points:
        return some
    low, high = np.quantile(there, [0.01, 0.99])
    at = np.linspace(low, high, points) if high > low else np.linspace(some[0], some[-1], points)
    if column.kind == "date" and (some % DAY == 0).all():
        return np.unique(np.round(at / DAY) * DAY)
    return at


def profiles(model: TableModel, values: Floats, columns: tuple[ShownColumn, ...]) -> tuple[Profile, ...]:
    """Average gate and experts over rows in which one input alone is set to each value of its grid.

    A date has one more for each cycle that its grid is too coarse to show, where that moves a gate weight or
    the answer by enough.
    """
    scale = max((column.expert_effect for column in columns), default=0.0) or 1.0
    moving = [j for j, c in enumerate(columns) if c.gate_effect > 0 or c.expert_effect > 0]
    order = sorted(moving, key=lambda j: -max(columns[j].gate_effect, columns[j].expert_effect / scale / 2))
    part = values[: min(len(values), SHOWN)]
    found = []
    for j in sorted(order[:PROFILES], key=lambda j: -columns[j].gate_effect):
        column, at = model.encoder.columns[j], grid(columns[j], POINTS)
        found.append(Profile(j, at, *_averages(model, part, j, placed(column, at, part[:, j]))))
        for cycle in hidden(column, at):
            own = np.where(np.isnan(part[:, j]), column.fill, part[:, j])
            slots = np.stack([cycle.moved(own, slot) for slot in range(len(cycle.slots))])
            gate, experts, answer = _averages(model, part, j, slots)
            least = ENOUGH * _spread(model, part)
            if np.ptp(gate, axis=0).max() < ENOUGH and np.ptp(answer, axis=0).max() < least:
                continue
            axis = _axis(columns[j], cycle)
            found.append(Profile(j, np.arange(float(len(slots))), gate, experts, answer, axis=axis))
    return tuple(found)


def _spread(model: TableModel, values: Floats) -> float:
    """Give the standard deviation of the answers to rows; of classes the largest one."""
    X = model.encoder.encode(values)
    if isinstance(model.mixture, MixtureOfExpertsClassifier):
        return float(np.std(model.mixture.predict_proba(X), axis=0).max())
    return float(np.std(model.mixture.predict(X)))


def _axis(column: ShownColumn, cycle: Cycle) -> ShownColumn:
    """Give the place of a date in a cycle as a column of its own."""
    return replace(
        column,
        name=f"{column.name}, {cycle.name}",
        kind="category",
        levels=cycle.slots,
        values=cycle.slot(column.values),
        typical=float(cycle.slot(np.array(column.typical))),
    )


def _averages(model: TableModel, values: Floats, j: int, settings: Floats) -> tuple[Floats, Floats, Floats]:
    """Average gate, experts and mixture over rows (s,), with their column j set to each of (m, s)."""
    gates, experts, predictions = [], [], []
    for column in settings:
        moved = np.array(values)
        moved[:, j] = column
        X = model.encoder.encode(moved)
        gate, said = model.mixture.gate_proba(X), model.mixture.predict_experts(X)
        weight = gate.reshape(*gate.shape, *[1] * (said.ndim - 2))
        gates.append(gate.mean(axis=0))
        experts.append(said.mean(axis=0))
        predictions.append((weight * said).sum(axis=1).mean(axis=0))
    return np.array(gates), np.array(experts), np.array(predictions)


def gate_map(model: TableModel, values: Floats, columns: tuple[ShownColumn, ...]) -> GateMap | None:
    """Average the gate over rows in which the two inputs that move it most are set; None with fewer."""
    order = sorted(range(len(columns)), key=lambda j: -columns[j].gate_effect)[:2]
    if len(order) < 2 or not columns[order[1]].gate_effect > 0:
        return None
    x_column, y_column = order
    x, y = grid(columns[x_column], SIDE), grid(columns[y_column], SIDE)
    part = values[: min(len(values), AVERAGED)]
    across, up = (
        placed(model.encoder.columns[j], at, part[:, j]) for j, at in ((x_column, x), (y_column, y))
    )
    gate = np.empty((len(y), len(x), model.n_experts))
    for i in range(len(y)):
        moved = np.repeat(part[None], len(x), axis=0)
        moved[:, :, y_column] = up[i]
        moved[:, :, x_column] = across
        flat = model.mixture.gate_proba(model.encoder.encode(moved.reshape(-1, values.shape[1])))
        gate[i] = flat.reshape(len(x), len(part), -1).mean(axis=1)
    return GateMap(x_column, y_column, x, y, gate)


# -- coefficients


def coefficients(model: TableModel) -> tuple[Coefficients, ...]:
    """Give the coefficients of experts and gate side by side, with standard errors where there are any."""
    formula = model.mixture.formula()
    if formula is None:
        return ()
    names = np.array(["intercept", *model.encoder.names])
    of_experts = names[[0, *(1 + j for j in formula["expert_columns"])]]
    of_gate = names[[0, *(1 + j for j in formula["gate_columns"])]]
    found = _of_classes(model, formula, of_experts) or [_of_experts(model, formula, of_experts)]
    gate = _of_gate(model, formula["gate"], of_gate)
    return (*found, *([gate] if gate is not None and model.n_experts > 1 else []))


def _of_experts(model: TableModel, formula: dict[str, Any], names: npt.NDArray[Any]) -> Coefficients:
    """Take one column an expert: linear predictors of numbers, or log odds of two classes."""
    links = {expert["link"] for expert in formula["experts"]}
    units = {
        "identity": f"in units of {model.target} for one more of the input",
        "exp": f"of the log of the mean of {model.target}",
        "logistic": "log odds",
    }
    values = np.full((len(names), model.n_experts), np.nan)
    for k, expert in enumerate(formula["experts"]):
        if expert["link"] == "constant":
            values[0, k] = np.ravel(expert["values"])[-1]
        else:
            values[:, k] = np.array(expert["beta"])[:, 0]
    errors = np.full_like(values, np.nan)
    if np.ndim(model.errors.get("coef", 0)) == 2 and len(links) == 1:
        errors = np.vstack([model.errors["intercept"], np.asarray(model.errors["coef"]).T])
    note = "; ".join(units[link] for link in sorted(links & set(units)))
    about = f": {model.classes[1]} against {model.classes[0]}" if len(model.classes) == 2 else ""
    return Coefficients(f"experts{about}", tuple(names), values, errors, note)


def _of_classes(model: TableModel, formula: dict[str, Any], names: npt.NDArray[Any]) -> list[Coefficients]:
    """Take one table a class: log odds against the last class."""
    if any(expert["link"] != "softmax" for expert in formula["experts"]):
        return []
    beta = np.array([expert["beta"] for expert in formula["experts"]])  # (K, q, V)
    error = np.full(beta.shape, np.nan)
    if np.ndim(model.errors.get("coef", 0)) == 3:
        error[:, 0], error[:, 1:] = model.errors["intercept"], np.swapaxes(model.errors["coef"], 1, 2)
    last = model.classes[-1]
    more = (
        f"; the first {CLASSES} of {len(model.classes)} classes" if len(model.classes) > CLASSES + 1 else ""
    )
    return [
        Coefficients(
            f"experts: {label} against {last}",
            tuple(names),
            beta[:, :, v].T,
            error[:, :, v].T,
            f"log odds{more}",
        )
        for v, label in enumerate(model.classes[:-1][:CLASSES])
    ]


def _of_gate(model: TableModel, gate: dict[str, Any], names: npt.NDArray[Any]) -> Coefficients | None:
    if gate["kind"] == "gaussian":
        means = np.array(gate["means"]).T
        empty = np.full(means.shape, np.nan)
        return Coefficients(
            "gate: centre of each expert", tuple(names[1:]), means, empty, "in units of the input"
        )
    if gate["kind"] == "softmax":
        values = np.array(gate["beta"])
    elif gate["kind"] == "constant":
        log_prior = np.array(gate["log_prior"])
        values, names = (log_prior - log_prior[-1])[None], names[:1]
    else:
        return None
    errors = np.full(values.shape, np.nan)
    if model.errors.get("gate_coef") is not None and np.ndim(model.errors["gate_coef"]) == 2:
        found = np.vstack([model.errors["gate_intercept"], np.asarray(model.errors["gate_coef"]).T])
        errors = found if found.shape == values.shape else errors
    return Coefficients("gate", tuple(names), values, errors, "log odds against the last expert")


# -- calibration


def trust(model: TableModel, X: Floats, y: Any, levels: Floats) -> tuple[Floats | None, Floats | None]:
    """Give P(Y <= y) of each row, and wanted and found coverage (c, 2); None where there is none."""
    if y is None or not isinstance(model.mixture, MixtureOfExpertsRegressor):
        return None, None
    distribution = model.mixture.predict_distribution(X)
    if not distribution.discrete:
        cdf = np.asarray(distribution.cdf(y))
        found = [float((np.abs(cdf - 0.5) <= level / 2).mean()) for level in levels]
        return cdf, np.column_stack([levels, found])
    found = []
    for level in levels:
        low, high = distribution.interval(float(level))
        found.append(float(((low <= y) & (y <= high)).mean()))
    return None, np.column_stack([levels, found])


# -- the iterations of the fit


def frames(
    model: TableModel, X: Floats, y: Any, labels: Any, shown: npt.NDArray[np.intp]
) -> tuple[Frame, ...]:
    """Look at the recorded iterations on the page's rows; the last is the fitted mixture."""
    path = model.mixture.path_
    if y is None or not path:
        return ()
    steps = np.unique(np.linspace(0, len(path) - 1, min(FRAMES, len(path))).round().astype(int))
    sees_nothing = model.mixture.gate_.name == "constant"
    found = []
    for step in steps.tolist():
        mixture = model.mixture.at_step(step)
        resp = mixture.responsibilities(X, labels)
        experts = mixture.predict_experts(X)
        if isinstance(mixture, MixtureOfExpertsClassifier):
            wrong = (experts.argmax(axis=2) != np.asarray(y)[:, None]).astype(float)
        else:
            wrong = (experts - np.asarray(y)[:, None]) ** 2
        mean = (resp * wrong).sum(axis=0) / np.maximum(resp.sum(axis=0), 1e-300)
        weights = resp if sees_nothing else mixture.gate_proba(X)
        found.append(
            Frame(
                path[step][0],
                weights[shown],
                mean if isinstance(mixture, MixtureOfExpertsClassifier) else np.sqrt(mean),
                float(mixture.score_samples(X, labels).mean()),
            )
        )
    return tuple(found)
