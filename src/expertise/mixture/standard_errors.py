"""Standard errors from the observed information.

The gradient of the log-likelihood is that of the expected complete log-likelihood at the current
responsibilities (Fisher's identity; Louis 1982), which every part knows in closed form. Differences of it
give the Hessian, and its inverse the covariance of all parameters together, gate and experts.
"""

from dataclasses import dataclass

import numpy as np

from expertise.mixture.em import InMemory, Model, expectation
from expertise.mixture.gates import ConstantGate
from expertise.mixture.preparing import Scales
from expertise.mixture.rows import Array, Rows

STEP = 1e-5


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Standard errors on the original scale; NaN where the information is singular.

    coef, intercept : of the experts, as ``coef_`` and ``intercept_``; None for experts without coefficients.
    gate_coef, gate_intercept : as ``gate_coef_`` and ``gate_intercept_`` (the reference's row is 0), of a
        softmax or constant gate; None for others.
    covariance : of all parameters, gate first, in standardised columns.
    """

    coef: Array | None
    intercept: Array | None
    gate_coef: Array | None
    gate_intercept: Array | None
    covariance: Array


def standard_errors(model: Model, rows: Rows, scales: Scales) -> StandardErrors:
    """Compute the standard errors of a fitted model in standardised columns.

    Raises
    ------
    ValueError : a part without parameters of its own (a forest), or a gate that models the inputs.
    """
    _check(model)
    source = InMemory(rows)
    at = _parameters(model)
    information = np.empty((len(at), len(at)))
    for j in range(len(at)):
        step = STEP * max(1.0, abs(at[j]))
        ahead, behind = at.copy(), at.copy()
        ahead[j] += step
        behind[j] -= step
        up, down = (_gradient(_with(model, vector), source) for vector in (ahead, behind))
        information[:, j] = -(up - down) / (2 * step)
    information = (information + information.T) / 2
    covariance = _inverse(information)
    return _shown(model, scales, covariance)


def _check(model: Model) -> None:
    parts = [(model.gate.name, model.gate.parameters), *((e.name, e.parameters) for e in model.experts)]
    for name, parameters in parts:
        if parameters is None:
            raise ValueError(f"standard errors need parameters with a gradient; {name!r} has none")


def _parts(model: Model) -> list[int]:
    gate = model.gate.parameters
    assert gate is not None
    sizes = [gate.size]
    for expert in model.experts:
        vector = expert.parameters
        assert vector is not None
        sizes.append(vector.size)
    return sizes


def _parameters(model: Model) -> Array:
    vectors = [model.gate.parameters, *(expert.parameters for expert in model.experts)]
    return np.concatenate([vector for vector in vectors if vector is not None])


def _with(model: Model, vector: Array) -> Model:
    gate, *experts = np.split(vector, np.cumsum(_parts(model))[:-1])
    changed = (e.with_parameters(v) for e, v in zip(model.experts, experts, strict=True))
    return Model(model.gate.with_parameters(gate), tuple(changed))


def _gradient(model: Model, source: InMemory) -> Array:
    total = np.zeros(sum(_parts(model)))
    for chunk in source:
        found = expectation(model, chunk)
        gate = model.gate.gradient(chunk.gate, found.gate_resp, found.log_joint, chunk.gate_weight)
        experts = [e.gradient(chunk, found.row_resp[:, k]) for k, e in enumerate(model.experts)]
        total += np.concatenate([gate, *experts])
    return total


def _inverse(information: Array) -> Array:
    """Invert; directions without information have an infinite variance, shown as NaN."""
    root = np.sqrt(np.maximum(np.diag(information), 1e-300))
    unit = information / np.outer(root, root)
    values, vectors = np.linalg.eigh(unit)
    sound = values > 1e-10
    inverse = (vectors[:, sound] / values[sound]) @ vectors[:, sound].T
    lost = (vectors[:, ~sound] ** 2).sum(axis=1) > 1e-6
    inverse[lost] = np.nan
    inverse[:, lost] = np.nan
    return np.asarray(inverse / np.outer(root, root))


def _shown(model: Model, scales: Scales, covariance: Array) -> StandardErrors:
    ends = np.cumsum([0, *_parts(model)])
    experts: list[Array] = []
    for k, expert in enumerate(model.experts):
        beta = getattr(expert, "beta", None)
        if beta is None:
            experts = []
            break
        block = slice(ends[k + 1], ends[k + 1] + beta.size)
        free = _free_outputs(expert.parameters, beta)
        block = slice(ends[k + 1], ends[k + 1] + beta.shape[0] * free)
        y_scale = scales.y.scale if type(expert).multioutput else np.ones(1)
        errors = _original(covariance[block, block], scales.expert.mean, scales.expert.scale, len(beta), free)
        experts.append(np.pad(errors * y_scale[: max(free, 1)], ((0, 0), (0, beta.shape[1] - free))))
    gate_errors = None
    gate_beta = getattr(model.gate, "beta", None)
    if gate_beta is not None:
        free = gate_beta.shape[1] - 1
        block = slice(0, ends[1])
        errors = _original(
            covariance[block, block], scales.gate.mean, scales.gate.scale, len(gate_beta), free
        )
        gate_errors = np.pad(errors, ((0, 0), (0, 1)))
    if isinstance(model.gate, ConstantGate):
        with np.errstate(invalid="ignore"):
            odds = np.sqrt(np.maximum(np.diag(covariance)[: ends[1]], 0.0))
        gate_errors = np.append(odds, 0.0)[None]
    stacked = np.stack(experts) if experts else None
    return StandardErrors(
        coef=None if stacked is None else _squeezed(stacked[:, 1:].transpose(0, 2, 1), 1),
        intercept=None if stacked is None else _squeezed(stacked[:, 0], 1),
        gate_coef=None if gate_errors is None else gate_errors[1:].T,
        gate_intercept=None if gate_errors is None else gate_errors[0],
        covariance=covariance,
    )


def _free_outputs(parameters: Array | None, beta: Array) -> int:
    """Give the columns of beta that were fitted: all but the reference, for families with one."""
    assert parameters is not None
    return int(beta.shape[1] if parameters.size >= beta.size else beta.shape[1] - 1)


def _squeezed(values: Array, axis: int) -> Array:
    return values.squeeze(axis) if values.shape[axis] == 1 else values


def _original(covariance: Array, mean: Array, scale: Array, q: int, outputs: int) -> Array:
    """Turn the covariance of scaled coefficients (q * outputs, row by row) into errors of original ones."""
    errors = np.zeros((q, outputs))
    transform = np.eye(q)
    transform[0, 1:] = -mean / scale
    transform[np.arange(1, q), np.arange(1, q)] = 1 / scale
    for j in range(outputs):
        block = covariance[j::outputs, j::outputs]
        with np.errstate(invalid="ignore"):
            errors[:, j] = np.sqrt(np.maximum(np.diag(transform @ block @ transform.T), 0.0))
    return errors
