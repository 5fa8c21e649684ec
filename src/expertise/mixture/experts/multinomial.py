"""Multinomial logistic regression: P(class v) = softmax(b_v + w_v'x), for any number of classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from expertise.mixture._logit import between, log_softmax, newton_sums, newton_update, ridge_penalty
from expertise.mixture.experts._abstract import AbstractExpert, ExpertSettings
from expertise.mixture.rows import Array, Design, Rows, Scaling
from expertise.mixture.sums import Statistics, Sums

TINY_RIDGE = 1e-6  # keeps coefficients finite where classes can be separated, or only some are there


@dataclass(frozen=True, eq=False)
class MultinomialExpert(AbstractExpert):
    """Any number of classes V; the last one is the reference, with coefficients 0.

    One update is one Newton step with all blocks of the Hessian (Bohning 1992); the first starts at equal
    probabilities. The ridge max(alpha, 1e-6) acts on the coefficients centred over classes, so that no class
    is special and one expert is scikit-learn's ``LogisticRegression(C=1 / alpha)`` on standardised columns;
    the intercepts have the 1e-6 only.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    beta : (q, V) intercept first, then a coefficient a column; the last column is 0.
    """

    alpha: float | None = None
    beta: Array | None = None

    name = "multinomial"
    task = "classification"
    closed_form = False

    @classmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Accept any class codes."""

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings where the expert has none of its own."""
        return replace(self, settings=settings, alpha=settings.alpha if self.alpha is None else self.alpha)

    @property
    def is_fitted(self) -> bool:
        """Whether there are parameters."""
        return self.beta is not None

    @property
    def n_parameters(self) -> int:
        """Coefficients of all classes but the last."""
        return int(self._beta[:, 1:].size)

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log P_k(y_i | x_i): (n, len(experts))."""
        at, codes = np.arange(len(rows)), np.asarray(rows.y, dtype=np.intp)
        return np.column_stack([expert._log_proba(rows.expert)[at, codes] for expert in experts])

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Sum gradient and Hessian of sum h log P."""
        sums: list[Statistics] = []
        for k, expert in enumerate(experts):
            hits = expert._hits(rows) * resp[:, [k]]
            newton = newton_sums(rows.expert, hits, expert._log_proba(rows.expert), resp[:, k])
            sums.append(Sums(count=resp[:, k].sum(), **newton))
        return sums

    def update(self, statistics: Statistics) -> Self:
        """Make one Newton step."""
        assert isinstance(statistics, Sums)
        q, n_classes = statistics["gradient"].shape
        beta = np.zeros((q, n_classes)) if self.beta is None else self.beta
        if float(statistics["count"]) <= 1e-100:  # nobody: keep what there was
            return replace(self, beta=beta)
        return replace(self, beta=newton_update(beta, _with_intercepts_held(statistics, beta), self._ridge))

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``."""
        return replace(other, beta=between(self._beta, other._beta, share))

    def penalty(self) -> float:
        """Give half the ridge times the squared centred coefficients."""
        intercepts = _centred(self._beta[0])
        return ridge_penalty(self._beta, self._ridge) + float(0.5 * TINY_RIDGE * (intercepts @ intercepts))

    def scaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the coefficients for original columns into those for standardised ones."""
        return self if self.beta is None else replace(self, beta=x.coefficients_in(self.beta))

    def unscaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the coefficients for standardised columns into those for original ones."""
        return replace(self, beta=x.coefficients_out(self._beta))

    def formula(self) -> dict[str, Any] | None:
        """Give the coefficients (q, V)."""
        return {"link": "softmax", "beta": self._beta.tolist()}

    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the class probabilities (n, V)."""
        return np.exp(self._log_proba(design))

    @property
    def parameters(self) -> Array:
        """Coefficients of all classes but the last."""
        return self._beta[:, :-1].ravel()

    def with_parameters(self, vector: Array) -> Self:
        """Set the coefficients of all classes but the last."""
        free = vector.reshape(len(self._beta), -1)
        return replace(self, beta=np.column_stack([free, np.zeros(len(free))]))

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate: h (1[y = v] - P_v) x."""
        short: Array = self._hits(rows) - np.exp(self._log_proba(rows.expert))
        return rows.expert.cross(resp[:, None] * short)[:, :-1].ravel()

    def _log_proba(self, design: Design) -> Array:
        """Compute the logs of the class probabilities (n, V); alike before the first update."""
        if self.beta is None:
            return np.full((design.shape[0], self._n_classes), -np.log(self._n_classes))
        return log_softmax(design.times(self.beta))

    def _hits(self, rows: Rows) -> npt.NDArray[np.bool_]:
        hits: npt.NDArray[np.bool_] = np.asarray(rows.y)[:, None] == np.arange(self._n_classes)
        return hits

    @property
    def _n_classes(self) -> int:
        if self.beta is not None:
            return int(self.beta.shape[1])
        assert self.settings is not None
        return self.settings.n_outputs

    @property
    def _beta(self) -> Array:
        assert self.beta is not None
        return self.beta

    @property
    def _ridge(self) -> float:
        return max(self.alpha or 0.0, TINY_RIDGE)


def _centred(values: Array) -> Array:
    centred: Array = values - values.mean()
    return centred


def _with_intercepts_held(sums: Sums, beta: Array) -> Sums:
    """Add the tiny ridge on the centred intercepts, which Newton for gates leaves free."""
    held = Sums(sums)
    held["gradient"] = sums["gradient"].copy()
    held["gradient"][0] -= TINY_RIDGE * _centred(beta[0])
    if "bound" in sums:
        held["bound"] = sums["bound"].copy()
        held["bound"][0, 0, 0] += 2 * TINY_RIDGE  # which enters by half
        return held
    n_classes = beta.shape[1]
    first, second = np.triu_indices(n_classes - 1)
    held["hessian"] = sums["hessian"].copy()
    held["hessian"][:, 0, 0] += TINY_RIDGE * ((first == second) - 1 / n_classes)
    return held
