"""Where EM starts: first responsibilities, or a smaller model that is nested in the one wanted.

Each kind turns rows into a model whose parts have parameters. Identical experts would never separate, so no
start gives all experts the same rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from expertise.mixture import em
from expertise.mixture.em import Expectation, InMemory, Model
from expertise.mixture.gates import AbstractGate, ConstantGate
from expertise.mixture.rows import Array, IntArray, Rows

DIRECTIONS = 2  # random directions of the inputs along which an expert is split
TELLING = 0.1  # share by which rows must differ for a given prior to be a start
CLEAR = 0.9  # share of a row that its first expert gets; the others share the rest


def random(model: Model, rows: Rows, rng: np.random.Generator) -> Array:
    """Draw the shares of every row at random (flat Dirichlet)."""
    return rng.dirichlet(np.ones(len(model.experts)), len(rows.gate_weight))


def kmeans(model: Model, rows: Rows, rng: np.random.Generator) -> Array:
    """Cluster the inputs."""
    return _clustered(_inputs(rows), model, rows, rng)


def kmeans_xy(model: Model, rows: Rows, rng: np.random.Generator) -> Array:
    """Cluster inputs and target together."""
    inputs = _inputs(rows)
    target = _target(model, rows)
    if model.experts[0].task == "classification":
        target = 2.0 * (rows.y[:, None] == np.unique(rows.y))
    if hasattr(inputs, "toarray"):
        from scipy import sparse

        return _clustered(sparse.hstack([inputs, target], format="csr"), model, rows, rng)
    return _clustered(np.column_stack([inputs, target]), model, rows, rng)


def residual(model: Model, rows: Rows, rng: np.random.Generator) -> Array:
    """Fit every expert on a few rows; each row goes to the expert to which it is likeliest."""
    n_experts, groups = len(model.experts), len(rows.gate_weight)
    few = min(max(2 * rows.expert.shape[1], 4), max(groups // n_experts, 1))
    drawn = rng.permutation(groups)[: few * n_experts]
    resp = np.zeros((groups, n_experts))
    resp[drawn, np.arange(len(drawn)) % n_experts] = 1.0
    rough = em.first_model(model, InMemory(rows), _by_gate_row(resp, rows))
    density = rough.log_densities(replace(rows, index=None))
    return _soft(_group_sum(density, rows).argmax(axis=1), n_experts)


def tree(model: Model, rows: Rows, rng: np.random.Generator) -> Array:
    """Grow a regression or classification tree of as many leaves as experts."""
    n_experts = len(model.experts)
    classes = model.experts[0].task == "classification"
    maker: Any = DecisionTreeClassifier if classes else DecisionTreeRegressor
    grown = maker(max_leaf_nodes=max(n_experts, 2), random_state=int(rng.integers(2**31)))
    inputs = _inputs(rows)
    target = rows.y if classes else _target(model, rows)
    leaves = grown.fit(inputs, target, sample_weight=rows.weight).apply(inputs)
    label = np.unique(leaves, return_inverse=True)[1] % n_experts
    return _soft(_majority(label, n_experts, rows), n_experts)


def prior(model: Model, rows: Rows, rng: np.random.Generator) -> Array:
    """Take the shares that a gate with given parameters says."""
    return np.exp(model.gate.log_gate(rows.gate))


def tells_apart(gate: AbstractGate, rows: Rows) -> bool:
    """Say whether the gate's prior depends on the row: from equal shares, experts never separate."""
    shares = np.exp(gate.log_gate(rows.gate))
    return bool(np.ptp(shares, axis=0).max(initial=0.0) > TELLING)


START_KINDS: dict[str, Callable[[Model, Rows, np.random.Generator], Array]] = {
    "random": random,
    "residual": residual,
    "kmeans_xy": kmeans_xy,
    "tree": tree,
    "kmeans": kmeans,
}
REPEATABLE = {"tree"}  # the same again however often it is drawn


def first(kind: str, model: Model, rows: Rows, rng: np.random.Generator) -> Model:
    """Make the model of a start: its responsibilities, then one M-step."""
    if kind == "given":
        assert rows.resp is not None
        resp = rows.resp
    else:
        resp = (prior if kind == "prior" else START_KINDS[kind])(model, rows, rng)
    return em.first_model(model, InMemory(rows), _by_gate_row(resp, rows))


def _by_gate_row(resp: Array, rows: Rows) -> Callable[[Rows], Array]:
    """Give the responsibilities of a chunk, which knows its rows by their index."""
    if rows.group_start is not None:
        where = {int(rows.index[start]): g for g, start in enumerate(rows.group_start)}  # type: ignore[index]

        def of_groups(chunk: Rows) -> Array:
            assert chunk.index is not None
            assert chunk.group_start is not None
            return resp[[where[int(chunk.index[start])] for start in chunk.group_start]]

        return of_groups
    assert rows.index is not None
    place = np.empty(int(rows.index.max()) + 1, np.intp)
    place[rows.index] = np.arange(len(rows))
    return lambda chunk: resp[place[chunk.index]]


def _target(model: Model, rows: Rows) -> Array:
    """Give y on a scale on which distances mean something: (n, m); counts as logs, shares as logits."""
    if not model.experts[0].discrete:
        return rows.z
    y = np.asarray(rows.y, float)
    if y.ndim == 2:
        return np.asarray(np.log((y[:, :1] + 0.5) / (y[:, 1:] + 0.5)))
    return np.asarray(np.log1p(y)[:, None])


def _inputs(rows: Rows) -> Any:
    """Give the inputs of gate and experts, standardised, without the ones; NaN at the mean."""
    parts = [rows.expert.x[:, 1:]]
    if rows.gate is not rows.expert:
        of_gate = rows.gate.x[:, 1:]
        if rows.group_start is not None:
            of_gate = of_gate[_member(rows)]
        parts.append(of_gate)
    if any(hasattr(part, "toarray") for part in parts):
        from scipy import sparse

        return sparse.hstack(parts, format="csr")
    joined = np.column_stack(parts)
    return np.where(np.isnan(joined), 0.0, joined)


def _clustered(points: Any, model: Model, rows: Rows, rng: np.random.Generator) -> Array:
    n_experts = len(model.experts)
    if points.shape[1] == 0 or points.shape[0] < n_experts:
        return random(model, rows, rng)
    seed = int(rng.integers(2**31))
    label = KMeans(n_experts, n_init=1, random_state=seed).fit_predict(points, sample_weight=rows.weight)
    return _soft(_majority(label, n_experts, rows), n_experts)


def _soft(label: IntArray, n_experts: int) -> Array:
    first = (label[:, None] == np.arange(n_experts)).astype(np.float64)
    return np.asarray(CLEAR * first + (1 - CLEAR) / n_experts)


def _member(rows: Rows) -> IntArray:
    assert rows.group_start is not None
    return np.repeat(np.arange(len(rows.group_start)), np.diff(np.append(rows.group_start, len(rows))))


def _majority(label: IntArray, n_experts: int, rows: Rows) -> IntArray:
    """Give each group the label of most of its rows."""
    if rows.group_start is None:
        return label
    counts = np.zeros((len(rows.group_start), n_experts))
    np.add.at(counts, (_member(rows), label), rows.weight)
    return np.asarray(counts.argmax(axis=1), np.intp)


def _group_sum(values: Array, rows: Rows) -> Array:
    if rows.group_start is None:
        return values
    return np.asarray(np.add.reduceat(values, rows.group_start, axis=0))


# -- smaller models that are nested in the one wanted


def with_gate(gate: AbstractGate, experts: Model, rows: Rows) -> Model:
    """Put a gate before the experts of a mixture with a constant gate, at the same likelihood."""
    shares = np.exp(experts.gate.log_gate(rows.gate.take(slice(0, 1))))
    resp = np.repeat(shares, len(rows.gate_weight), axis=0) * rows.gate_weight[:, None]
    for _ in range(8):  # Newton from equal priors
        sums = gate.statistics(rows.gate, resp, gate.log_joint(rows.gate), rows.gate_weight)
        gate = gate.update(sums)
    return Model(gate, experts.experts)


def can_grow(gate: AbstractGate) -> bool:
    """Whether an expert can be added to this kind of gate."""
    return type(gate).with_expert is not AbstractGate.with_expert


def splits(model: Model, rows: Rows, k: int, rng: np.random.Generator) -> Iterator[Model]:
    """Copy expert k and part the copies a little: along the inputs, and by the sign of the residual.

    Two copies share the rows of expert k half and half, so nothing changes; parted, EM leaves this saddle
    upwards (Waterhouse & Robinson 1996).
    """
    doubled = Model(model.gate.with_expert(k, 0.5), (*model.experts, model.experts[k]))
    found = em.expectation(doubled, rows)
    for sign in _signs(model, rows, k, found, rng):
        resp = found.gate_resp.copy()
        both = resp[:, k] + resp[:, -1]
        resp[:, k], resp[:, -1] = both * (0.5 + 0.4 * sign), both * (0.5 - 0.4 * sign)
        given = replace(found, gate_resp=resp, row_resp=_of_rows(resp, rows))
        yield em.maximisation(doubled, em.statistics(doubled, rows, given))


def _of_rows(gate_resp: Array, rows: Rows) -> Array:
    if rows.group_start is None:
        return gate_resp
    return np.asarray(gate_resp[_member(rows)] * rows.weight[:, None])


def _signs(model: Model, rows: Rows, k: int, found: Expectation, rng: np.random.Generator) -> Iterator[Array]:
    """Give +1 or -1 for each row of the gate's design."""
    weight = found.gate_resp[:, k]
    inputs = rows.gate.x[:, 1:]
    if not hasattr(inputs, "toarray"):
        inputs = np.where(np.isnan(inputs), 0.0, inputs)
    if inputs.shape[1] and not isinstance(model.gate, ConstantGate):
        for _ in range(DIRECTIONS):
            along = inputs @ rng.normal(size=inputs.shape[1])
            middle = (weight @ along) / max(weight.sum(), 1e-300)
            yield np.where(along > middle, 1.0, -1.0)
    target = _target(model, rows)
    if model.experts[k].task == "regression" and target.shape[1] == 1:
        distance = target[:, 0] - target[:, 0].mean()
        if model.experts[k].multioutput:  # families of location
            distance = rows.z[:, 0] - model.experts[k].predict(rows.expert)
        distance = _group_sum(distance[:, None], rows)[:, 0]
        yield np.where(distance > 0, 1.0, -1.0)
    yield np.where(rng.random(len(weight)) < 0.5, 1.0, -1.0)
