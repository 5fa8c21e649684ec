"""Small mixtures for the tests of their page, from NumPy alone: a formula, rows, and what it says of them.

`evaluate` is the slow, obvious twin of the page's panel: one row at a time, one formula after another.
"""

import math
from typing import Any

import numpy as np

from expertise.report.record import (
    Coefficients,
    Column,
    Frame,
    GateMap,
    MixtureRecord,
    Profile,
    Score,
)

EVIL = """</script><b>"x" & 'y'"""
LEVELS = ("Europe", EVIL, "Japan")
YEAR = 31556952.0
GATES = ("softmax", "constant", "gaussian", "tree")
LINKS = ("identity", "exp", "share", "constant", "logistic", "softmax", "constant classes")


# ---- the twin


def features(formula: dict[str, Any], values: list[float]) -> list[float]:
    found = []
    for column, value in zip(formula["columns"], values, strict=True):
        missing = math.isnan(value)
        if missing and column["kind"] == "category" and column["missing_level"] is not None:
            value = column["missing_level"]
        for feature in column["features"]:
            kind = feature["kind"]
            if kind == "missing":
                found.append(1.0 if missing else 0.0)
            elif kind == "level":
                found.append(1.0 if value == feature["level"] else 0.0)
            else:
                used = feature["fill"] if missing else value
                if kind == "year":
                    used = 1970 + used / YEAR
                elif kind == "wave":
                    angle = 2 * math.pi * used / feature["period"]
                    used = math.sin(angle) if feature["phase"] == "sin" else math.cos(angle)
                found.append(used)
    return found


def linear(beta: Any, z: list[float]) -> np.ndarray:
    return np.array([1.0, *z]) @ np.array(beta)


def softmax(eta: np.ndarray) -> np.ndarray:
    powers = np.exp(eta - eta.max())
    return powers / powers.sum()


def gate_of(gate: dict[str, Any], z: list[float]) -> np.ndarray:
    if gate["kind"] == "softmax":
        return softmax(linear(gate["beta"], z))
    if gate["kind"] == "constant":
        return softmax(np.array(gate["log_prior"]))
    if gate["kind"] == "gaussian":
        joint = []
        for prior, mean, precision, log_det in zip(
            gate["log_prior"], gate["means"], gate["precisions"], gate["log_dets"], strict=True
        ):
            off = np.array(z) - np.array(mean)
            joint.append(prior - (off @ np.array(precision) @ off + log_det) / 2)
        return softmax(np.array(joint))
    weights = np.ones(gate["n_experts"])
    for node in gate["nodes"]:
        for share, leaves in zip(softmax(linear(node["beta"], z)), node["leaves"], strict=True):
            weights[leaves] *= share
    return weights


def expert_of(expert: dict[str, Any], classes: int, z: list[float]) -> Any:
    if expert["link"] == "constant":
        return np.array(expert["values"], dtype=float)
    eta = linear(expert["beta"], z)
    if expert["link"] == "softmax":
        return softmax(eta)
    if expert["link"] == "exp":
        return math.exp(eta[0])
    if expert["link"] == "identity":
        return eta[0]
    p = 1 / (1 + math.exp(-eta[0]))
    return np.array([1 - p, p]) if classes else p


def evaluate(formula: dict[str, Any], values: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give gate (K,), experts (K,) or (K, V), and prediction for one row; NaN is missing."""
    x = features(formula, values)
    gate = gate_of(formula["gate"], [x[i] for i in formula["gate_columns"]])
    z = [x[i] for i in formula["expert_columns"]]
    experts = np.array([expert_of(expert, formula["classes"], z) for expert in formula["experts"]])
    return gate, experts, sum(weight * said for weight, said in zip(gate, experts, strict=True))


# ---- a formula


def make_columns(n: int, rng: np.random.Generator, *, missing: bool) -> tuple[Column, ...]:
    weight = np.round(rng.uniform(1000, 3000, n), 1)
    origin = rng.integers(0, 3, n).astype(float)
    turbo = rng.integers(0, 2, n).astype(float)
    built = np.floor(rng.uniform(0, 365.2425 * 20, n)) * 86400.0
    if missing:
        for values in (weight, origin, built):
            values[rng.random(n) < 0.05] = math.nan
    return (
        Column("weight", "number", (), weight, 2000.0, 0.31, 2.5),
        Column("origin", "category", LEVELS, origin, 2.0, 0.12, 0.9),
        Column("turbo", "boolean", (), turbo, 0.0, 0.0, 0.2),
        Column("built", "date", (), built, 3650 * 86400.0, 0.2, 1.5),
    )


def describe(column: Column) -> dict[str, Any]:
    kinds: dict[str, list[dict[str, Any]]] = {
        "number": [{"kind": "value", "fill": column.typical}, {"kind": "missing"}],
        "category": [{"kind": "level", "level": level} for level in range(3)],
        "boolean": [{"kind": "value", "fill": column.typical}],
        "date": [
            {"kind": "year", "fill": column.typical},
            {"kind": "wave", "period": YEAR, "phase": "sin", "fill": column.typical},
            {"kind": "wave", "period": YEAR, "phase": "cos", "fill": column.typical},
        ],
    }
    return {
        "name": column.name,
        "kind": column.kind,
        "levels": list(column.levels),
        "typical": column.typical,
        "low": float(np.nanmin(column.values)),
        "high": float(np.nanmax(column.values)),
        "whole": False,
        "may_miss": column.kind != "boolean",
        "missing_level": 1 if column.kind == "category" else None,
        "features": kinds[column.kind],
    }


# weight, missing weight, three origins, turbo, year, two waves: what one unit of each is worth
UNITS = np.array([1 / 500, 1, 1, 1, 1, 1, 1 / 5, 1, 1])
CENTRE = np.array([2000.0, 0, 0, 0, 0, 0, 1980.0, 0, 0])


def betas(q: list[int], m: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """Random coefficients of moderate effect for these features, intercept first, (1 + q, m)."""
    slopes = rng.normal(0, size, (len(q), m)) * UNITS[q, None]
    return np.vstack([rng.normal(0, size / 3, m) - CENTRE[q] @ slopes, slopes])


def make_gate(kind: str, q: list[int], k: int, rng: np.random.Generator) -> dict[str, Any]:
    if kind == "constant":
        return {"kind": kind, "log_prior": np.log(softmax(rng.normal(size=k))).tolist()}
    if kind == "gaussian":
        means = CENTRE[q] + rng.normal(0, 1, (k, len(q))) / UNITS[q]
        turns = [np.eye(len(q)) + 0.2 * rng.normal(size=(len(q), len(q))) for _ in range(k)]
        precisions = [(turn @ turn.T) * np.outer(UNITS[q], UNITS[q]) for turn in turns]
        log_dets = [-float(np.linalg.slogdet(precision)[1]) for precision in precisions]
        return {
            "kind": kind,
            "log_prior": [-math.log(k)] * k,
            "means": means.tolist(),
            "precisions": [precision.tolist() for precision in precisions],
            "log_dets": log_dets,
        }
    if kind == "tree":
        nodes = []
        left = list(range(k))
        while len(left) > 1:  # each node sets its first expert apart from the rest
            nodes.append({"beta": betas(q, 2, 2.0, rng).tolist(), "leaves": [left[:1], left[1:]]})
            left = left[1:]
        return {"kind": kind, "n_experts": k, "nodes": nodes}
    return {"kind": kind, "beta": betas(q, k, 2.5, rng).tolist()}


def make_expert(link: str, q: list[int], v: int, rng: np.random.Generator) -> dict[str, Any]:
    if link == "constant":
        return {"link": "constant", "values": float(rng.normal(20, 5))}
    if link == "constant classes":
        return {"link": "constant", "values": softmax(rng.normal(size=v)).tolist()}
    if link == "identity":
        beta = betas(q, 1, 3.0, rng)
        beta[0] += 20
        return {"link": "identity", "beta": beta.tolist()}
    if link == "softmax":
        return {"link": "softmax", "beta": betas(q, v, 1.2, rng).tolist()}
    return {"link": "exp" if link == "exp" else "logistic", "beta": betas(q, 1, 0.8, rng).tolist()}


def make_formula(
    gate: str, link: str, k: int, v: int, columns: tuple[Column, ...], rng: np.random.Generator
) -> dict[str, Any]:
    q = [0, 1, 2, 3, 4, 6, 7]
    p = [0, 2, 3, 5, 6, 8]
    return {
        "columns": [describe(column) for column in columns],
        "gate_columns": q,
        "expert_columns": p,
        "gate": make_gate(gate, q, k, rng),
        "experts": [make_expert(link, p, v, rng) for _ in range(k)],
        "classes": v,
    }


# ---- a record


def make_record(
    gate: str = "softmax",
    link: str = "identity",
    *,
    k: int = 3,
    v: int = 0,
    n: int = 120,
    seed: int = 0,
    missing: bool = True,
    n_frames: int = 6,
) -> MixtureRecord:
    """A record whose rows are drawn from the mixture of its formula."""
    rng = np.random.default_rng(seed)
    columns = make_columns(n, rng, missing=missing)
    formula = make_formula(gate, link, k, v, columns, rng)
    values = np.column_stack([column.values for column in columns])
    said = [evaluate(formula, row.tolist()) for row in values]
    gates, experts, prediction = (np.array(part) for part in zip(*said, strict=True))
    chosen = np.array([rng.choice(k, p=row) for row in gates])
    own = experts[np.arange(n), chosen]
    if v:
        y = np.array([float(rng.choice(v, p=row)) for row in own])
        density = experts[np.arange(n), :, y.astype(int)]
    else:
        noise = 0.05 * float(np.std(prediction) or 1.0)
        y = own + rng.normal(0, noise, n)
        density = normal(y[:, None], experts, noise)
    joint = gates * density
    pooled = joint.sum(1, keepdims=True)
    resp = np.where(pooled > 0, joint / np.where(pooled > 0, pooled, 1), gates)
    cdf = None if v else np.sum(gates * normal_cdf((y[:, None] - experts) / noise), axis=1)
    intervals = None if v else np.array([interval(g, f, noise) for g, f in zip(gates, experts, strict=True)])
    shown = np.arange(0, n, 2)
    entropy = -(gates * np.log(np.maximum(gates, 1e-300))).sum(1)
    scores, helps = make_scores(prediction, y, v)
    return MixtureRecord(
        target="mpg" if not v else "kind",
        task="classification" if v else "regression",
        classes=tuple(f"class {c}" if c != 1 else EVIL for c in range(v)),
        source=f"{n} held-out rows of cars.csv",
        facts=(("gate", gate), ("experts", f"{k}, {link}"), ("seed", str(seed))),
        scores=scores,
        verdict=f"The mixture {'beats' if helps else 'does not beat'} the simplest answer.",
        helps=helps,
        warnings=(f"a warning about {EVIL}",),
        columns=columns,
        y=y,
        gate=gates,
        responsibilities=resp,
        experts=experts,
        prediction=prediction,
        intervals=intervals,
        cdf=cdf,
        coverage=None if v else coverage_of(cdf),
        row_names=tuple(f"row {i + 2}" for i in range(n)),
        uncertain=np.argsort(-entropy, kind="stable")[: min(100, n)],
        profiles=tuple(make_profile(formula, columns, values, j) for j in range(len(columns))),
        gate_map=make_map(formula, columns, values),
        coefficients=make_coefficients(k, rng),
        starts=tuple(make_start(i) for i in range(5)),
        history=-500 + 100 * (1 - 0.7 ** np.arange(20.0)),
        frames=make_frames(gates, resp, experts, y, shown, n_frames, v, gate),
        shown=shown,
        formula=formula,
        target_unit="" if v else "miles a gallon",
    )


def make_scores(prediction: np.ndarray, y: np.ndarray, v: int) -> tuple[tuple[Score, ...], bool]:
    """The mixture against the same answer for every row: the mean, or the shares of the classes."""
    n = len(y)
    simplest = np.tile(np.bincount(y.astype(int), minlength=v) / n, (n, 1)) if v else np.full(n, y.mean())
    found = []
    for said in (prediction, simplest):
        if v:
            loss = -np.log(np.maximum(said[np.arange(n), y.astype(int)], 1e-15)).mean()
            found.append({"log loss": float(loss), "accuracy": float((said.argmax(1) == y).mean())})
        else:
            error = float(((said - y) ** 2).mean())
            found.append({"RMSE": math.sqrt(error), "R2": 1 - error / float(y.var())})
    helps = next(iter(found[0].values())) < next(iter(found[1].values()))
    return (Score("mixture", found[0], is_mixture=True), Score("the simplest answer", found[1])), helps


def normal(x: np.ndarray, mean: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def normal_cdf(z: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda one: 0.5 * (1 + math.erf(one / math.sqrt(2))))(z)


def interval(gate: np.ndarray, experts: np.ndarray, noise: float) -> list[float]:
    grid = np.linspace(experts.min() - 5 * noise, experts.max() + 5 * noise, 400)
    cdf = (gate * normal_cdf((grid[:, None] - experts) / noise)).sum(1)
    return [float(np.interp(level, cdf, grid)) for level in (0.05, 0.95)]


def coverage_of(cdf: Any) -> np.ndarray:
    wanted = np.array([0.5, 0.8, 0.9, 0.95])
    return np.column_stack([wanted, [(np.abs(cdf - 0.5) <= share / 2).mean() for share in wanted]])


def make_profile(formula: dict[str, Any], columns: tuple[Column, ...], values: np.ndarray, j: int) -> Profile:
    column = columns[j]
    known = column.values[~np.isnan(column.values)]
    named = column.kind in ("category", "boolean")
    at = np.unique(known) if named else np.linspace(known.min(), known.max(), 8)
    means = []
    for value in at:
        rows = values[:16].copy()
        rows[:, j] = value
        said = [evaluate(formula, row.tolist()) for row in rows]
        means.append([np.mean(part, axis=0) for part in zip(*said, strict=True)])
    gate, experts, prediction = (np.array(part) for part in zip(*means, strict=True))
    return Profile(j, at, gate, experts, prediction)


def make_map(formula: dict[str, Any], columns: tuple[Column, ...], values: np.ndarray) -> GateMap:
    x, y = (np.linspace(np.nanmin(columns[j].values), np.nanmax(columns[j].values), 16) for j in (0, 3))
    gate = np.zeros((16, 16, len(formula["experts"])))
    for i, up in enumerate(y):
        for j, across in enumerate(x):
            for row in values[:3].copy():
                row[0], row[3] = across, up
                gate[i, j] += evaluate(formula, row.tolist())[0] / 3
    return GateMap(0, 3, x, y, gate)


def make_coefficients(k: int, rng: np.random.Generator) -> tuple[Coefficients, ...]:
    names = ("intercept", "weight", f"origin = {EVIL}", "built")
    values = rng.normal(size=(4, k)) * np.array([20, 1e-3, 2, 0.1])[:, None]
    errors = np.abs(values) * rng.uniform(0.1, 0.8, (4, k))
    errors[:, -1] = math.nan
    return (Coefficients("experts", names, values, errors, "In units of the target per unit of the input."),)


def make_start(i: int) -> dict[str, Any]:
    return {
        "kind": "random",
        "objective": -400.0 - 3 * i,
        "n_iter": 30 - 5 * i,
        "continued": i < 2,
        "converged": i < 2,
        "degenerate": {1: "has one row"} if i == 4 else {},
    }


def make_frames(
    gates: np.ndarray,
    resp: np.ndarray,
    experts: np.ndarray,
    y: np.ndarray,
    shown: np.ndarray,
    count: int,
    v: int,
    gate: str,
) -> tuple[Frame, ...]:
    """From equal weights to those of the mixture; of a gate that sees nothing, responsibilities."""
    ends = resp if gate == "constant" else gates
    wrong = (experts.argmax(2) != y[:, None]).astype(float) if v else (experts - y[:, None]) ** 2
    frames = []
    for i in range(count):
        share = i / max(count - 1, 1)
        weights = (1 - share) / gates.shape[1] + share * ends
        error = (weights * wrong).sum(0) / np.maximum(weights.sum(0), 1e-12)
        frames.append(Frame(3 * i, weights[shown], error if v else np.sqrt(error), -3.0 + share))
    return tuple(frames)
