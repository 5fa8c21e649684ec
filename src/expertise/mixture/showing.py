"""What a fitted mixture shows of itself: likelihoods, mean weights, warnings, the lines of its summary."""

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.special import logsumexp

from expertise.mixture._warnings import DegenerateExpertWarning, FewCasesWarning
from expertise.mixture.em import Model, Source
from expertise.mixture.gates import TreeGate
from expertise.mixture.preparing import Scales, Table
from expertise.mixture.rows import Array, Rows
from expertise.mixture.search import Found

if TYPE_CHECKING:
    from expertise.mixture.problem import Solution

FEW_CASES = 3  # rows that an expert should have for each of its parameters


def typical_row(table: Table) -> Array:
    """Average the inputs, (d,); NaN do not count."""
    if sparse.issparse(table.X):
        return np.asarray(table.X.T @ table.weight / table.weight.sum()).ravel()
    mean = table.weight @ table.X / table.weight.sum()
    if not np.isnan(mean).any():
        return np.asarray(mean)
    there = ~np.isnan(table.X)
    total = np.maximum(table.weight @ there, np.finfo(float).tiny)
    return np.asarray(table.weight @ np.where(there, table.X, 0.0) / total)


def mean_prior(model: Model, source: Source) -> Array:
    """Average the gate's prior over the rows: (K,)."""
    total = sum(chunk.gate_weight @ np.exp(model.gate.log_gate(chunk.gate)) for chunk in source)
    return np.asarray(total) / source.total_weight


def log_likelihoods(model: Model, source: Source, scales: Scales) -> tuple[float, float]:
    """Compute the joint log-likelihood, of x and y where the gate models x, and that of y given x."""
    joint = conditional = 0.0
    for chunk in source:
        log_joint = model.gate.log_joint(chunk.gate)
        density = model.log_densities(_fresh(chunk))
        if chunk.group_start is not None:
            density = np.add.reduceat(density * chunk.weight[:, None], chunk.group_start, axis=0)
        weight = chunk.gate_weight
        both = float(weight @ logsumexp(log_joint + density, axis=1))
        joint += both
        conditional += both - (
            float(weight @ logsumexp(log_joint, axis=1)) if model.gate.models_inputs else 0.0
        )
    if model.gate.models_inputs:
        joint -= source.total_weight * float(np.log(scales.gate.scale).sum())
    return joint, conditional


def _fresh(chunk: Rows) -> Rows:
    """Give the chunk as rows that no expert has seen: out-of-fold predictions are for EM alone."""
    from dataclasses import replace

    return replace(chunk, index=None)


def warn_degenerate(found: Found, *, stacklevel: int) -> None:
    """Warn of degenerate experts of the best fit."""
    for k, why in found.troubles.items():
        warnings.warn(
            f"expert {k} is degenerate: {why}. Its likelihood is no measure of fit; fewer experts, "
            "alpha > 0, a larger variance_floor or more rows would help",
            DegenerateExpertWarning,
            stacklevel=stacklevel,
        )


def warn_few_cases(solution: "Solution", names: Sequence[int], *, stacklevel: int) -> None:
    """Warn where experts have few rows for their parameters, or all rows fewer than all parameters."""
    count = solution.found.fit.count
    if solution.rows.group_start is not None:
        return  # the count is of groups
    experts = solution.found.fit.model.experts
    sizes = [expert.n_parameters for expert in experts]
    few = [k for k in names if (size := sizes[k]) is not None and count[k] < FEW_CASES * size]
    total = solution.found.fit.model.gate.n_parameters
    if total is not None and all(size is not None for size in sizes):
        total += sum(size for size in sizes if size is not None)
        if count.sum() < total and len(experts) > 1:
            warnings.warn(
                f"{count.sum():.6g} rows are fewer than the {total} parameters of {len(experts)} experts and "
                "their gate; use fewer experts or inputs, alpha > 0, or more rows",
                FewCasesWarning,
                stacklevel=stacklevel,
            )
            return
    if few and len(experts) > 1:
        each = ", ".join(f"expert {k}: {count[k]:.4g} cases for {sizes[k]} parameters" for k in few)
        warnings.warn(
            f"few cases per expert ({each}); one model may do better: compare with n_experts=1, or use "
            'n_experts="auto"',
            FewCasesWarning,
            stacklevel=stacklevel,
        )


# -- the summary


def summary_lines(model: Any) -> list[str]:
    """Give lines on the fit, the experts' coefficients and the gate's, on the original scale."""
    end = "converged" if model.converged_ else "not converged"
    lines = [
        f"gate: {model.gate_.name}; {model.n_iter_} iterations, {end}; best of {len(model.starts_)} starts "
        f"({model.starts_[0]['kind'] if model.starts_ else 'none'})",
    ]
    if model.joint_loglik_ != model.loglik_:
        lines.append(f"joint log-likelihood with the inputs' density: {model.joint_loglik_:.4f}")
    names = model._feature_names()
    lines += list(_expert_lines(model, [names[j] for j in model._columns_.expert]))
    lines += list(_gate_lines(model, [names[j] for j in model._columns_.gate]))
    if isinstance(model.gate_, TreeGate):
        lines += [
            "tree of gates:",
            *model.gate_.to_text([names[j] for j in model._columns_.gate]).splitlines(),
        ]
    return lines


def _expert_lines(model: Any, names: list[str]) -> Iterator[str]:
    if not all(getattr(expert, "beta", None) is not None for expert in model.experts_):
        return
    if model.experts_[0].beta.shape[1] != 1:
        return
    header = ["intercept", *names]
    width = max([len(name) for name in header] + [10])
    numbers = range(model.n_experts_)
    yield "experts, on the original scale:"
    yield "  " + " " * width + "".join(f"{'expert ' + str(k):>14}" for k in numbers)
    for row, name in enumerate(header):
        yield f"  {name:{width}}" + "".join(f"{expert.beta[row, 0]:14.6g}" for expert in model.experts_)
    for extra in ("sigma", "nu", "shape"):
        if all(getattr(expert, extra, None) is not None for expert in model.experts_):
            values = (float(np.ravel(getattr(expert, extra))[0]) for expert in model.experts_)
            yield f"  {extra:{width}}" + "".join(f"{value:14.6g}" for value in values)


def _gate_lines(model: Any, names: list[str]) -> Iterator[str]:
    beta = getattr(model.gate_, "beta", None)
    if beta is None or model.n_experts_ == 1:
        return
    header = ["intercept", *names]
    width = max([len(name) for name in header] + [10])
    yield "gate, log odds against the last expert:"
    for row, name in enumerate(header):
        yield f"  {name:{width}}" + "".join(f"{value:14.6g}" for value in beta[row])
