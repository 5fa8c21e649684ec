"""Change one expert of a fitted mixture and leave the others as they are, to the last bit.

Add (also from a few examples), replace, remove, freeze, split and merge experts; drop the unneeded. Whatever
is not named stays the very object it was.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from expertise.core._checks import check_fit_weight
from expertise.mixture import _checking, em, saving, showing, starts
from expertise.mixture.chunked import ChunkFitting
from expertise.mixture.em import Fit, InMemory, Model
from expertise.mixture.experts import AbstractExpert, ExpertSettings
from expertise.mixture.gates import AbstractGate, ConstantGate, GateSettings
from expertise.mixture.judging import worth
from expertise.mixture.parts import resolve_expert
from expertise.mixture.preparing import Scales, Table, canonical, make_rows
from expertise.mixture.rows import Array, Design, Rows
from expertise.mixture.standard_errors import StandardErrors, standard_errors


class EditableMixture(ChunkFitting):
    """A fitted mixture whose experts can be changed one by one."""

    # -- with data

    def add_expert(
        self, X: Any, y: Any, *, expert: Any = None, X_old: Any = None, y_old: Any = None, max_iter: int = 50
    ) -> Self:
        """Add an expert for new cases; the other experts stay byte for byte as they are.

        Parameters
        ----------
        X, y : the new cases; a few are enough (give the expert a ridge then).
        expert : a family, an expert with options, or a scikit-learn estimator; the kind of expert 0 if None.
        X_old, y_old : some of the old cases, from which the gate learns where the new expert's region ends. A
            constant gate needs none: the share of the new expert is that of its cases.
        max_iter : M-steps of the new expert and the gate.

        Raises
        ------
        ValueError : no old cases, though the gate depends on the input.
        """
        new = self._table_of(X, y)
        constant = isinstance(self.gate_, ConstantGate)
        if X_old is None and not constant:
            raise ValueError(
                "add_expert needs X_old and y_old, some of the old cases: without them "
                f"gate={self.gate_.name!r} cannot learn where the region of the new expert ends"
            )
        family = resolve_expert(self.experts_[0].blank() if expert is None else expert, self._task)
        blank = family.bound(self._expert_settings())
        share = len(new) / (len(new) + self._total_weight_)
        grown = self.gate_.with_expert(None, min(share, 0.5))
        table, resp = new, np.zeros((len(new), self.n_experts_ + 1))
        resp[:, -1] = 1.0
        if X_old is not None:
            table = _joined(new, self._table_of(X_old, y_old))
            old = np.pad(self.responsibilities(X_old, y_old), ((0, 0), (0, 1)))
            resp = np.vstack([resp, old])
        rows, scales = self._rows_of(table)
        held = [replace(e, frozen=True).scaled(scales.expert, scales.y) for e in self.experts_]
        learning = grown.frozen() if X_old is None else grown.scaled(scales.gate).forgotten()
        begin = Model(learning, (*held, blank.scaled(scales.expert, scales.y) if blank.is_fitted else blank))
        if not blank.is_fitted:
            begin = em.first_model(begin, InMemory(rows), lambda chunk: resp[chunk.index])
        if X_old is not None:  # the gate first, at the responsibilities that are known; then all that learns
            given = self._run(begin, replace(rows, resp=resp), max_iter).model
            begin = self._run(given, rows, max_iter).model
        added = blank if blank.is_fitted else begin.experts[-1].unscaled(scales.expert, scales.y)
        learned = begin.gate.unscaled(scales.gate) if X_old is not None else grown
        self._set_model(Model(replace(learned, trainable=self.gate_.trainable), (*self.experts_, added)))
        self._total_weight_ += float(new.weight.sum())
        return self._after_edit(None if X_old is None else table)

    def replace_expert(
        self, k: int, X: Any = None, y: Any = None, *, expert: Any = None, max_iter: int = 50
    ) -> Self:
        """Replace expert k: by one that is fitted, or fit a new one on (X, y); gate and others stay.

        Parameters
        ----------
        k : its number.
        X, y : data of all experts: the new one gets the responsibilities of its place. Not needed for an
            ``expert`` that is fitted.
        expert : a family, an expert, or an estimator; the kind of the one replaced if None.
        """
        k = self._number(k)
        family = resolve_expert(self.experts_[k].blank() if expert is None else expert, self._task)
        experts = list(self.experts_)
        if not family.is_fitted:
            if X is None or y is None:
                raise ValueError(
                    "replace_expert needs X and y to fit the new expert, or an expert that is fitted"
                )
            table = self._table_of(X, y)
            resp = self.responsibilities(X, y)
            rows, scales = self._rows_of(table)
            held = [replace(e, frozen=True).scaled(scales.expert, scales.y) for e in experts]
            held[k] = family.bound(self._expert_settings())
            inside = Model(self.gate_.scaled(scales.gate).frozen(), tuple(held))
            given = em.first_model(inside, InMemory(rows), lambda chunk: resp[chunk.index])
            given = self._run(given, rows, max_iter).model
            family = given.experts[k].unscaled(scales.expert, scales.y)
        experts[k] = family
        self._set_model(Model(self.gate_, tuple(experts)))
        return self._after_edit(None)

    def refit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        offset: Any = None,
        groups: Any = None,
        *,
        max_iter: int | None = None,
    ) -> Self:
        """Go on with EM from the present parameters; frozen experts, and a frozen gate, stay as they are."""
        table = self._table_of(X, y, sample_weight, offset, groups)
        rows, scales = self._rows_of(table)
        inside = tuple(e.scaled(scales.expert, scales.y) for e in self.experts_)
        fit = self._run(Model(self.gate_.scaled(scales.gate), inside), rows, max_iter or self.max_iter)
        experts = tuple(
            kept if kept.frozen else e.unscaled(scales.expert, scales.y)
            for kept, e in zip(self.experts_, fit.model.experts, strict=True)
        )
        gate = fit.model.gate.unscaled(scales.gate) if self.gate_.trainable else self.gate_
        self._set_model(Model(gate, experts))
        self.objective_history_ = np.array(fit.history)
        self.n_iter_, self.converged_ = max(fit.n_iter, 1), fit.converged
        return self._after_edit(table)

    def split_expert(self, k: int, X: Any, y: Any, *, max_iter: int = 200) -> Self:
        """Split expert k in two, the second of which is the last; the others stay byte for byte.

        Both halves and the gate are fitted on (X, y).
        """
        k = self._number(k)
        table = self._table_of(X, y)
        rows, scales = self._rows_of(table)
        held = [
            replace(e, frozen=j != k).scaled(scales.expert, scales.y) for j, e in enumerate(self.experts_)
        ]
        model = Model(self.gate_.scaled(scales.gate), tuple(held))
        rng = np.random.default_rng(0)
        tried = [self._run(one, rows, max_iter) for one in starts.splits(model, rows, k, rng)]
        best = max(tried, key=lambda fit: worth(fit, InMemory(rows))).model
        experts = list(self.experts_)
        halves = [best.experts[j].unscaled(scales.expert, scales.y) for j in (k, -1)]
        experts[k] = halves[0]
        self._set_model(Model(best.gate.unscaled(scales.gate), (*experts, halves[1])))
        return self._after_edit(table)

    def merge_experts(self, j: int, k: int, X: Any, y: Any, *, max_iter: int = 200) -> Self:
        """Merge expert k into expert j: one expert is fitted to the rows of both; the others stay.

        Numbers above k shift down by one.
        """
        j, k = self._number(j), self._number(k)
        if j == k:
            raise ValueError(f"merge_experts needs two different experts; got {j} twice")
        table = self._table_of(X, y)
        resp = self.responsibilities(X, y)
        resp[:, j] += resp[:, k]
        resp = np.delete(resp, k, axis=1)
        rows, scales = self._rows_of(table)
        kept = [e for i, e in enumerate(self.experts_) if i != k]
        at = j if j < k else j - 1
        held = [replace(e, frozen=i != at).scaled(scales.expert, scales.y) for i, e in enumerate(kept)]
        gate = self.gate_.without_expert(k).scaled(scales.gate)
        given = em.first_model(Model(gate, tuple(held)), InMemory(rows), lambda chunk: resp[chunk.index])
        fit = self._run(given, rows, max_iter)
        kept[at] = fit.model.experts[at].unscaled(scales.expert, scales.y)
        self._set_model(Model(fit.model.gate.unscaled(scales.gate), tuple(kept)))
        return self._after_edit(table)

    # -- without

    def remove_expert(self, k: int) -> Self:
        """Remove expert k: the priors of the others grow in proportion; numbers above k shift down by one."""
        k = self._number(k)
        if self.n_experts_ == 1:
            raise ValueError("the last expert cannot be removed")
        experts = tuple(e for j, e in enumerate(self.experts_) if j != k)
        self._set_model(Model(self.gate_.without_expert(k), experts))
        rest = np.delete(self.weights_, k)
        self.weights_ = rest / rest.sum()
        return self._after_edit(None)

    def freeze_expert(self, k: int, *, frozen: bool = True) -> Self:
        """Freeze expert k (or let it learn again): `refit` then leaves it as it is."""
        k = self._number(k)
        self.experts_[k] = replace(self.experts_[k], frozen=frozen)
        return self

    def freeze_gate(self, *, frozen: bool = True) -> Self:
        """Freeze the gate (or let it learn again): `refit` then leaves it as it is."""
        check_is_fitted(self)
        self.gate_ = replace(self.gate_, trainable=not frozen)
        return self

    def prune(self, X: Any, y: Any, *, tolerance: float = 1e-3) -> list[dict[str, Any]]:
        """Remove the expert that is missed least, again and again while the mean log-likelihood loses little.

        Parameters
        ----------
        X, y : data on which the loss is measured.
        tolerance : largest total loss of mean log p(y | x), in nats a row.

        Returns
        -------
        A line for each expert removed: its number at the time, its mean weight, and the loss so far.
        """
        begin = float(np.mean(self.score_samples(X, y)))
        removed: list[dict[str, Any]] = []
        while self.n_experts_ > 1:
            state = (self.gate_, list(self.experts_), self.weights_)
            losses = []
            for k in range(self.n_experts_):
                losses.append(begin - float(np.mean(self.remove_expert(k).score_samples(X, y))))
                self._restore(state)
            k = int(np.argmin(losses))
            if not losses[k] <= tolerance:
                break
            removed.append({"expert": k, "weight": float(self.weights_[k]), "loss": losses[k]})
            self.remove_expert(k)
        return removed

    def _restore(self, state: tuple[AbstractGate, list[AbstractExpert], Array]) -> None:
        self._set_model(Model(state[0], tuple(state[1])))
        self.weights_ = state[2]

    # -- standard errors

    def standard_errors(
        self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, groups: Any = None
    ) -> StandardErrors:
        """Compute standard errors of all coefficients from the observed information on the data of the fit.

        Parameters
        ----------
        X, y, sample_weight, offset, groups : the data that were fitted.

        Raises
        ------
        ValueError : experts or a gate without parameters that have a gradient.
        """
        table = self._table_of(X, y, sample_weight, offset, groups)
        rows, scales = self._rows_of(table)
        inside = tuple(e.scaled(scales.expert, scales.y) for e in self.experts_)
        return standard_errors(Model(self.gate_.scaled(scales.gate), inside), rows, scales)

    # -- on disk

    def save(self, path: Any) -> None:
        """Write the mixture as a skops file (extra ``table``), whole or not at all; `load` reads it.

        No pickle: reading the file runs no code.
        """
        check_is_fitted(self)
        saving.save(self, path)

    def to_json(self) -> str:
        """Give the fitted mixture as JSON, for the built-in gates and families; `from_json` reads it.

        Raises
        ------
        ValueError : a part that is a scikit-learn estimator; use `save`.
        """
        check_is_fitted(self)
        return saving.to_json(self)

    # -- tools

    def _number(self, k: Any) -> int:
        check_is_fitted(self)
        if not isinstance(k, int | np.integer) or not 0 <= k < self.n_experts_:
            raise ValueError(f"there is no expert {k!r}; the experts are 0 to {self.n_experts_ - 1}")
        return int(k)

    def _table_of(
        self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, groups: Any = None
    ) -> Table:
        inputs = self._validate(X, offset)
        for name, given in {"offset": offset, "groups": groups}.items():
            if name in self._uses_ and given is None:
                raise ValueError(
                    f"this mixture was fitted with {name}, and would learn otherwise without; give {name} "
                    "to refit or standard_errors; other changes cannot take it: fit anew"
                )
        codes = self._check_y(y, inputs.X.shape[0])
        weight = check_fit_weight(sample_weight, inputs.X.shape[0])
        same = _checking.check_groups(groups, inputs.X, self._columns_.gate, weight)
        table = Table(inputs.X, codes, weight, inputs.offset, same)
        return canonical(table) if same is not None else table

    def _expert_settings(self) -> ExpertSettings:
        settings = self.experts_[0].settings
        return settings if settings is not None else ExpertSettings(self.alpha, self.variance_floor)

    def _rows_of(self, table: Table) -> tuple[Rows, Scales]:
        numbers = self._task == "regression" and not self.experts_[0].discrete
        scales = Scales.of(table, self._columns_, numbers=numbers)
        return make_rows(table, self._columns_, scales, numbers=numbers, raw=True), scales

    def _run(self, model: Model, rows: Rows, max_iter: int) -> Fit:
        settings = GateSettings(self.gate_alpha, float(rows.gate_weight.sum()))
        model = replace(model, gate=replace(model.gate, settings=settings))
        hard = self.algorithm == "hard"
        return em.maximise(model, InMemory(rows), max_iter=max_iter, tol=self.tol, hard=hard)

    def _after_edit(self, table: Table | None) -> Self:
        """Bring what is said of the fit up to date: the mean prior where there are data."""
        self.loglik_ = self.joint_loglik_ = float("nan")  # no more that of the fit
        if table is not None:
            rows, scales = self._rows_of(table)
            parts = tuple(e.scaled(scales.expert, scales.y) for e in self.experts_)
            model = Model(self.gate_.scaled(scales.gate), parts)
            self.weights_ = showing.mean_prior(model, InMemory(rows))
            self.joint_loglik_, self.loglik_ = showing.log_likelihoods(model, InMemory(rows), scales)
            self.cases_ = em.expectation(model, rows).gate_resp.sum(axis=0)
        elif isinstance(self.gate_, ConstantGate):
            self.weights_ = np.exp(self.gate_.log_gate(Design.of(np.zeros((1, 0)))))[0]
        if len(self.cases_) != self.n_experts_:
            self.cases_ = self.weights_ * self._total_weight_
        self.__dict__.pop("_stepwise_", None)
        return self


def _joined(first: Table, second: Table) -> Table:
    names: Sequence[str] = ("X", "y", "weight")
    if sparse.issparse(first.X):
        both = sparse.vstack([first.X, second.X], format="csr")
        return Table(both, np.concatenate([first.y, second.y]), np.concatenate([first.weight, second.weight]))
    return Table(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names})
