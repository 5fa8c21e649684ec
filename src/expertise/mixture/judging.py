"""What a fit is worth beside others of the same rows, and which of its experts are no models."""

from scipy.special import logsumexp

from expertise.mixture.em import Fit, Source
from expertise.mixture.rows import Rows


def worth(fit: Fit, source: Source) -> float:
    """Give what fits of the same rows are compared by: how well y is explained, given x.

    It is the objective, less log p(x) where the gate models x. EM raises both together; but among the places
    where it ends, the highest sum is often that of a gate that describes x alone (a column of zeros and ones,
    or one that nearly repeats another), whatever y is.
    """
    gate = fit.model.gate
    if not gate.models_inputs:
        return fit.objective
    evidence = (chunk.gate_weight @ logsumexp(gate.log_joint(chunk.gate), axis=1) for chunk in source)
    return fit.objective - float(sum(evidence))


def troubles_of(fit: Fit, rows: Rows, n_rows: int | None = None) -> dict[int, str]:
    """Say which experts are degenerate. A variance at its floor is none where many rows support it.

    Data without noise are fitted exactly by right; a likelihood that grows without bound on a few rows is no
    measure of fit. ``n_rows`` is how many rows were fitted, where ``rows`` are a sample of them.
    """
    if fit.model.gate.says_where:
        return {}  # an expert for each case has one row, by intent
    n = len(rows) if n_rows is None else n_rows
    count = n * fit.count / max(float(fit.count.sum()), 1e-300)
    enough = max(20 * rows.expert.shape[1], 0.2 * n)
    return {k: why for k, why in fit.troubles().items() if "floor" not in why or count[k] < enough}
