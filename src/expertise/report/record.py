"""What the page of a fitted mixture shows, as plain data: the table's room gathers it, the page draws it.

Letters: n rows of the page (held-out rows, or those of a table that was given), K experts, V classes, m
points of a grid. Experts are numbered from 0, as everywhere in `expertise.mixture`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Task = Literal["regression", "classification"]
Kind = Literal["number", "category", "boolean", "date"]


@dataclass(frozen=True)
class Column:
    """An input as it stands in the table, before it was encoded.

    Parameters
    ----------
    name : of the column.
    kind : numbers; categories; booleans; dates.
    levels : of a category, in the order of their codes; else empty.
    values : (n,) of the page's rows: a number; the code of the level; 0 or 1; seconds since 1970-01-01 UTC.
        NaN is missing.
    typical : the value of an ordinary row, in the same terms: median, most frequent level.
    gate_effect : mean over rows of how far the weight of the expert with the largest weight moves when this
        input alone is put to its typical value; 0 where the gate does not see it.
    expert_effect : the same of the chosen expert's prediction, in units of the target (of a probability).
    """

    name: str
    kind: Kind
    levels: tuple[str, ...]
    values: Floats
    typical: float
    gate_effect: float
    expert_effect: float


@dataclass(frozen=True)
class Score:
    """A model on the held-out rows: ``values`` by name of the metric ("RMSE", "R2", ...).

    ``is_mixture`` marks the mixture itself, the first.
    """

    name: str
    values: dict[str, float | None]
    is_mixture: bool = False


@dataclass(frozen=True)
class Profile:
    """Gate and experts along one input: the mean over rows in which this input alone is set to each value.

    column : number of the column.
    at : (m,) values, in the terms of the column, or of the axis.
    gate : (m, K) mean gate weights.
    experts : (m, K) mean predictions; of a classifier (m, K, V) mean class probabilities.
    prediction : (m,) or (m, V) of the mixture.
    axis : what is set, where it is a part of the column: the day of the week of a date.
    """

    column: int
    at: Floats
    gate: Floats
    experts: Floats
    prediction: Floats
    axis: Column | None = None


@dataclass(frozen=True)
class GateMap:
    """Mean gate weights over the two inputs that move it most: ``gate`` (my, mx, K) at ``x`` and ``y``."""

    x_column: int
    y_column: int
    x: Floats
    y: Floats
    gate: Floats


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of one part, side by side: of the experts, or of the gate (log odds against the last).

    what : "experts" or "gate"; for classes "experts, class B against A".
    names : (p,) "intercept", then the encoded inputs.
    values, errors : (p, K); errors are standard errors, NaN where there are none.
    note : in which units, and what was left out.
    """

    what: str
    names: tuple[str, ...]
    values: Floats
    errors: Floats
    note: str = ""


@dataclass(frozen=True)
class Frame:
    """The mixture after so many iterations of EM, on a sample of the page's rows (`MixtureRecord.shown`).

    weights : (s, K) how far each expert is trusted for each row of the sample: gate weights, or, of a gate
        that sees nothing, responsibilities.
    errors : (K,) error of each expert on the rows for which it is responsible (weighted RMSE; of a
        classifier the weighted share of wrong answers).
    log_likelihood : mean over the page's rows, nats a row.
    """

    iteration: int
    weights: Floats
    errors: Floats
    log_likelihood: float


@dataclass(frozen=True)
class Explained:
    """Why one row of the page got its prediction.

    row : number of the page's row. chosen : the expert with the largest weight there.
    gate_effects : (columns,) its weight minus that with the column alone at its typical value.
    expert_effects : (columns,) the same of its prediction; of a classifier, of its probability of ``about``,
        the predicted class.
    """

    row: int
    chosen: int
    gate_effects: Floats
    expert_effects: Floats
    about: str = ""


@dataclass(frozen=True)
class MixtureRecord:
    """All that the page of a fitted mixture shows.

    Parameters
    ----------
    target : name of the predicted column; ``classes`` (V,) its labels, empty for regression.
    source : which rows the page is about ("200 held-out rows of cars.csv").
    facts : what was fitted, name and value in words.
    scores : the mixture first, then one expert, ridge or logistic regression, boosting; may be empty.
    verdict : whether the mixture helps, in a sentence or two; ``helps`` is None without a comparison.
    warnings : what the fit warned of.
    columns : the inputs.
    y : (n,) observed; of a classifier the code of the class. None where the rows have no target.
    gate : (n, K). responsibilities : (n, K), None without y.
    experts : (n, K) predictions, or (n, K, V) class probabilities.
    prediction : (n,), or (n, V) class probabilities.
    intervals : (n, 2) of 90 %; None for classes.
    cdf : (n,) P(Y <= y) of the predictive distribution (probability integral transform); None for classes
        and counts.
    coverage : (c, 2) wanted and found share of rows inside central intervals; None for classes, or no y.
    row_names : (n,) how to find the row in the file ("row 17").
    uncertain : (u,) rows in order, the most uncertain first: largest entropy of the gate, u <= 100.
    starts : one dict a start, the best first: kind, objective, n_iter, continued, converged, degenerate.
    history : (i,) objective of every iteration of the chosen run.
    frames : the recorded iterations, the last one is the fitted mixture; empty where none were recorded.
    shown : (s,) rows of the sample that the frames are about, numbers of page rows.
    formula : what the what-if panel computes with; None where a part has no formula.
    target_unit : of the target, "" where unknown.
    measured : which rows the scores were measured on, where those are not the page's; "" where they are.
    explained : a few rows, and what moved gate and expert there.
    caution : why the page's rows say less than they seem to; "" where nothing is known against them.
    """

    target: str
    task: Task
    classes: tuple[str, ...]
    source: str
    facts: tuple[tuple[str, str], ...]
    scores: tuple[Score, ...]
    verdict: str
    helps: bool | None
    warnings: tuple[str, ...]
    columns: tuple[Column, ...]
    y: Floats | None
    gate: Floats
    responsibilities: Floats | None
    experts: Floats
    prediction: Floats
    intervals: Floats | None
    cdf: Floats | None
    coverage: Floats | None
    row_names: tuple[str, ...]
    uncertain: npt.NDArray[np.intp]
    profiles: tuple[Profile, ...]
    gate_map: GateMap | None
    coefficients: tuple[Coefficients, ...]
    starts: tuple[dict[str, Any], ...]
    history: Floats
    frames: tuple[Frame, ...] = ()
    shown: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    formula: dict[str, Any] | None = None
    target_unit: str = ""
    measured: str = ""
    caution: str = ""
    explained: tuple[Explained, ...] = ()

    @property
    def n_experts(self) -> int:
        """Number of experts, K."""
        return int(self.gate.shape[1])

    def axis(self, profile: Profile) -> Column:
        """Give what a profile goes along."""
        return profile.axis or self.columns[profile.column]
