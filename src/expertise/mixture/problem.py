"""A mixture to be fitted: its parts, its columns and its settings, and how one fit of it goes."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans

from expertise._progress import Meter
from expertise.mixture import _checking
from expertise.mixture._warnings import DegenerateExpertWarning
from expertise.mixture.em import Model, Source
from expertise.mixture.experts import AbstractExpert, ExpertSettings
from expertise.mixture.gates import AbstractGate
from expertise.mixture.preparing import Columns, Scales, Table, canonical, make_rows
from expertise.mixture.rows import Array, Rows
from expertise.mixture.search import Found, Search, SearchSettings


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be fitted, whatever the data.

    gate, experts : the parts, without parameters or with those that they keep.
    columns : which columns of X they see.
    numbers : y is numbers with a location and a scale, so it is standardised.
    partition : "mapping", "inputs" or "given".
    """

    gate: AbstractGate
    experts: tuple[AbstractExpert, ...]
    columns: Columns
    numbers: bool
    partition: str
    expert_settings: ExpertSettings
    search: SearchSettings

    def fit(self, table: Table, meter: Meter | None = None) -> "Solution":
        """Fit a checked table."""
        if self.partition == "inputs":
            table = replace(table, resp=self._clusters(table))
        table, scales, rows = self.prepare(table)
        search = self.search_over(rows, scales, meter)
        found = search.run()
        if found.troubles and self._can_do_with_fewer(found):
            return self._with_fewer(table, found, meter)
        return Solution(self, found, scales, rows)

    def prepare(self, table: Table) -> tuple[Table, Scales, Rows]:
        """Bring the rows in order, measure their scales, and standardise them."""
        table = canonical(table)
        scales = Scales.of(table, self.columns, numbers=self.numbers)
        return table, scales, self.rows(table, scales)

    def search_over(self, rows: Rows, scales: Scales, meter: Meter | None = None) -> Search:
        """Give the search for these rows."""
        experts = tuple(self._inside(expert, rows, scales) for expert in self.experts)
        return Search(rows, self.gate.scaled(scales.gate), experts, self.search, meter)

    def with_experts(self, n_experts: int) -> "Problem":
        """Give the same problem with so many experts, all alike."""
        return replace(self, experts=self.experts[:1] * n_experts)

    def rows(self, table: Table, scales: Scales) -> Rows:
        """Make standardised rows."""
        raw = not (self.gate.additive and all(expert.additive for expert in self.experts))
        return make_rows(table, self.columns, scales, numbers=self.numbers, raw=raw)

    def _inside(self, expert: AbstractExpert, rows: Rows, scales: Scales) -> AbstractExpert:
        bound = expert.bound(self.expert_settings)
        _checking.check_given(bound, len(self.columns.expert))
        return bound.scaled(scales.expert, scales.y) if bound.is_fitted else bound

    def _clusters(self, table: Table) -> Array:
        """Cluster the standardised inputs of the gate."""
        n_experts = len(self.experts)
        scales = Scales.of(table, self.columns, numbers=False)
        inputs = make_rows(table, self.columns, scales, numbers=False, raw=False).gate.x[:, 1:]
        inputs = inputs if sparse.issparse(inputs) else np.nan_to_num(inputs)
        clusters = KMeans(n_experts, n_init=10, random_state=self.search.seed % 2**31)
        label = clusters.fit_predict(inputs, sample_weight=table.weight)
        return np.asarray(label[:, None] == np.arange(n_experts), float)

    def _can_do_with_fewer(self, found: Found) -> bool:
        return (
            self.partition == "mapping"
            and len(self.experts) > 1
            and self.gate.trainable
            and self.gate.wanted_experts() is None
            and not self.gate.has_parameters
            and not any(expert.is_fitted for expert in self.experts)
            and len({id(expert) for expert in self.experts}) == 1
        )

    def _with_fewer(self, table: Table, found: Found, meter: Meter | None) -> "Solution":
        reasons = "; ".join(f"expert {k}: {why}" for k, why in found.troubles.items())
        fewer = max(1, len(self.experts) - len(found.troubles))
        warnings.warn(
            f"every start with {len(self.experts)} experts ended with degenerate ones ({reasons}); fitted "
            f"{fewer} instead. More rows, fewer inputs, alpha > 0 or fewer n_experts would avoid this",
            DegenerateExpertWarning,
            stacklevel=5,
        )
        return self.with_experts(fewer).fit(table, meter)


@dataclass(frozen=True, eq=False)
class Solution:
    """A fitted problem: what was found, and how it was standardised."""

    problem: Problem
    found: Found
    scales: Scales
    rows: Rows
    source: Source | None = None  # all rows, where these are a sample of them

    def model(self) -> Model:
        """Give gate and experts on the original scale; experts that were frozen are the objects given."""
        return self.outside(self.found.fit.model)

    def outside(self, inside: Model) -> Model:
        """Bring a model of standardised columns to the original scale."""
        scales = self.scales
        experts = tuple(
            replace(given, settings=expert.settings)
            if given.frozen and given.is_fitted
            else expert.unscaled(scales.expert, scales.y)
            for given, expert in zip(self.problem.experts, inside.experts, strict=True)
        )
        if inside.gate.trainable:
            return Model(inside.gate.unscaled(scales.gate), experts)
        assert inside.gate.settings is not None
        given_gate = self.problem.gate.started(len(experts), self.rows.gate, inside.gate.settings)
        return Model(given_gate, experts)
