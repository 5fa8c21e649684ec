"""What families with a link share: mean = f(b + w'x + offset), and one Newton step an update."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from expertise.mixture.experts._abstract import AbstractExpert, ExpertSettings, solve_spd
from expertise.mixture.rows import Array, Design, Rows, Scaling
from expertise.mixture.sums import Statistics, Sums

TINY_RIDGE = (
    1e-6  # keeps coefficients finite where the likelihood has no maximum: separable classes, all zeros
)
LARGEST_CHANGE = 3.0  # of the linear predictor in one step, root mean square
LARGEST_ETA = 500.0  # exp of it is still a number, and so is its square


@dataclass(frozen=True, eq=False)
class AbstractLinkExpert(AbstractExpert):
    """A generalised linear model: its linear predictor is eta = b + w'x + offset.

    One update is one step of iteratively reweighted least squares (McCullagh & Nelder 1989, section 2.5),
    shortened where eta would change by more than `LARGEST_CHANGE`. The first one, without parameters yet, is
    weighted least squares on the linked target. The penalised log-likelihood subtracts ridge |w|^2 / 2, with
    ridge = max(alpha, 1e-6); the intercept has the 1e-6 only.

    Parameters
    ----------
    alpha : ridge on standardised columns, >= 0; the mixture's if None.
    beta : (q, 1) intercept first, then a coefficient a column.
    """

    alpha: float | None = None
    beta: Array | None = None

    link: ClassVar[Literal["exp", "logistic"]]  # from the linear predictor to the mean

    closed_form = False
    takes_offset = True

    # -- what each family says

    @staticmethod
    @abstractmethod
    def _start(y: Array) -> tuple[Array, Array]:
        """Give the linked target and its weight in the first least squares: (n,), (n,)."""

    @classmethod
    @abstractmethod
    def _log_density(cls, experts: Sequence[Self], y: Array, eta: Array) -> Array:
        """Compute log p_k(y_i | eta_ik) from eta (n, K), which may be overwritten: (n, K)."""

    @abstractmethod
    def _score(self, y: Array, eta: Array) -> tuple[Array, Array]:
        """Give d log p / d eta and the expected information on eta: (n,), (n,)."""

    @staticmethod
    @abstractmethod
    def _mean(eta: Array) -> Array:
        """Turn the linear predictor (n,) into what `predict` gives."""

    # -- what they share

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings where the expert has none of its own."""
        return replace(self, settings=settings, alpha=settings.alpha if self.alpha is None else self.alpha)

    @property
    def is_fitted(self) -> bool:
        """Whether there are parameters."""
        return self.beta is not None

    @property
    def n_parameters(self) -> int:
        """Coefficients."""
        return int(self._beta.size)

    @classmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log p_k(y_i | x_i): (n, len(experts))."""
        beta = np.concatenate([expert._beta for expert in experts], axis=1)
        return cls._log_density(experts, _target(rows), _predictor(rows.expert, beta, rows.offset))

    @classmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Sum h x s and h v x x', with score s and information v; count is the sum of h."""
        y = _target(rows)
        score = np.empty((len(rows), len(experts)), order="F")
        information = np.empty_like(score)
        for k, expert in enumerate(experts):
            score[:, k], information[:, k] = expert._working(rows, y)
        gradient = rows.expert.cross(resp * score)
        hessian = rows.expert.gram(resp * information)
        count = resp.sum(axis=0)
        return [
            Sums(
                gradient=gradient[:, [k]],
                hessian=hessian[k],
                count=count[k],
                **expert._more(rows, y, resp[:, k]),
            )
            for k, expert in enumerate(experts)
        ]

    def _working(self, rows: Rows, y: Array) -> tuple[Array, Array]:
        """Give score and information: of the log-density, or of the first least squares around beta = 0."""
        if self.beta is not None:
            return self._score(y, self._eta(rows))
        target, weight = self._start(y)
        if rows.offset is not None:
            target = target - rows.offset
        return weight * target, weight

    def _more(self, rows: Rows, y: Array, resp: Array) -> dict[str, Array]:
        """Give further sums that the family needs."""
        return {}

    def update(self, statistics: Statistics) -> Self:
        """Make one Newton step."""
        assert isinstance(statistics, Sums)
        return replace(self, beta=self._newton(statistics))

    def _newton(self, sums: Sums) -> Array:
        """Step from beta (from 0, if there is none) by the penalised sums: (q, 1)."""
        gradient, hessian = sums["gradient"], sums["hessian"]
        before = np.zeros_like(gradient) if self.beta is None else self.beta
        if float(sums["count"]) <= 1e-100:  # nobody: keep what there was
            return before
        ridge = self._ridge(len(gradient))
        step = solve_spd(hessian + np.diag(ridge), gradient - ridge[:, None] * before)
        if self.beta is not None:
            # the first column is of ones, so hessian[0, 0] is the sum of the weights of this mean square
            change = float((step * (hessian @ step)).sum() / max(float(hessian[0, 0]), 1e-300))
            step *= min(1.0, LARGEST_CHANGE / max(change, 1e-300) ** 0.5)
        after: Array = before + step
        return after

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``."""
        return replace(other, beta=self._beta + share * (other._beta - self._beta))

    def penalty(self) -> float:
        """Give ridge |w|^2 / 2."""
        return float(0.5 * self._ridge(len(self._beta)) @ self._beta[:, 0] ** 2)

    def scaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the coefficients for original columns into those for standardised ones."""
        return self if self.beta is None else replace(self, beta=x.coefficients_in(self.beta))

    def unscaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the coefficients for standardised columns into those for original ones."""
        return replace(self, beta=x.coefficients_out(self._beta))

    def formula(self) -> dict[str, Any] | None:
        """Give the link and the coefficients (q, 1)."""
        return {"link": self.link, "beta": self._beta.tolist()}

    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the mean of y: (n,); classifiers: probabilities (n, 2)."""
        return self._mean(_predictor(design, self._beta, offset)[:, 0])

    @property
    def parameters(self) -> Array:
        """Coefficients."""
        return self._beta.ravel()

    def with_parameters(self, vector: Array) -> Self:
        """Set the coefficients."""
        return replace(self, beta=vector.reshape(-1, 1))

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate: h x s for the coefficients."""
        score, _ = self._score(_target(rows), self._eta(rows))
        return rows.expert.cross((resp * score)[:, None])[:, 0]

    def _eta(self, rows: Rows) -> Array:
        """Compute the linear predictor: (n,)."""
        eta: Array = _predictor(rows.expert, self._beta, rows.offset)[:, 0]
        return eta

    @property
    def _beta(self) -> Array:
        assert self.beta is not None
        return self.beta

    def _ridge(self, q: int) -> Array:
        ridge = np.full(q, max(self.alpha or 0.0, TINY_RIDGE))
        ridge[0] = TINY_RIDGE
        return ridge


def _target(rows: Rows) -> Array:
    return np.asarray(rows.y, dtype=np.float64)


def _predictor(design: Design, beta: Array, offset: Array | None) -> Array:
    """Compute eta (n, K) for coefficients (q, K), inside what exp can take."""
    eta = design.times(beta)
    if offset is not None:
        eta = eta + offset[:, None]
    return np.clip(eta, -LARGEST_ETA, LARGEST_ETA, out=eta)


def check_counts(family: str, y: npt.NDArray[Any]) -> None:
    """Raise a ValueError unless y holds counts: 0, 1, 2, ..."""
    y = np.asarray(y)
    if not len(y):
        return
    at = np.unravel_index(int(np.argmin(y)), y.shape)
    if y[at] < 0:
        raise ValueError(
            f"expert={family!r} takes counts, 0 or more; the smallest of y is {y[at]:g}, in row {at[0]}. "
            'Use expert="gaussian" or "student_t" for a target that may be negative.'
        )
    broken = np.flatnonzero((y != np.floor(y)).reshape(len(y), -1).any(axis=1))
    if len(broken):
        row = int(broken[0])
        raise ValueError(
            f"expert={family!r} takes whole numbers; y in row {row} is {np.asarray(y[row]).tolist()!r}. "
            'Round y, or use expert="gamma" for a positive target that is measured, not counted.'
        )
