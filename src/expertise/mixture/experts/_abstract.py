"""What every expert answers. A family is one file; the table of families is in ``__init__``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dposv

from expertise.mixture.rows import Array, Design, Rows, Scaling
from expertise.mixture.sums import Statistics

LEARNED = frozenset({"beta", "sigma", "nu", "shape", "location", "proba", "model", "held_out"})


@dataclass(frozen=True, eq=False)
class ExpertSettings:
    """What the mixture asks of its experts, unless an expert says otherwise.

    alpha : ridge on the coefficients of standardised columns.
    variance_floor : smallest variance of a standardised target.
    n_outputs : columns of y; classes for classifiers.
    random_state : seed of experts that draw.
    classes : the labels behind the codes of classes, for classifiers that were fitted elsewhere.
    """

    alpha: float = 0.0
    variance_floor: float = 1e-6
    n_outputs: int = 1
    random_state: int = 0
    classes: tuple[Any, ...] | None = None


@dataclass(frozen=True, eq=False)
class AbstractExpert(ABC):
    """One conditional model p(y | x), with its options and, once fitted, its parameters.

    An expert never changes: `update` gives a new one. Inside EM its parameters are those for standardised
    columns; `unscaled` gives the expert for the original ones, which is what a fitted mixture shows.

    Parameters
    ----------
    frozen : True keeps the parameters as they are: only the gate and the others learn.
    settings : set by the mixture.
    """

    name: ClassVar[str]
    task: ClassVar[Literal["regression", "classification"]]
    discrete: ClassVar[bool] = False  # y counts: its likelihood does not compare with a density's
    multioutput: ClassVar[bool] = False  # takes y with several columns
    closed_form: ClassVar[bool] = True  # update reaches the maximum of its part; else it is one Newton step
    additive: ClassVar[bool] = True  # its statistics are `Sums`
    takes_sparse: ClassVar[bool] = True
    takes_offset: ClassVar[bool] = False

    frozen: bool = field(default=False, kw_only=True)
    settings: ExpertSettings | None = field(default=None, kw_only=True)

    # -- in other programs

    def formula(self) -> dict[str, Any] | None:
        """Give what `predict` computes with as plain numbers, of one output; None where there is no formula.

        "link" says what becomes of the linear predictor beta' (1, x): "identity", "exp", "logistic",
        "softmax"; "constant" has "values" instead.
        """
        return None

    # -- before the fit

    @classmethod
    @abstractmethod
    def check_y(cls, y: npt.NDArray[Any]) -> None:
        """Raise a ValueError that says what the family allows, what was got, and what to do."""

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings where the expert has none of its own."""
        return replace(self, settings=settings)

    def blank(self) -> Self:
        """Give the expert with its options and without what it learned."""
        own = {field.name for field in fields(self)}
        return replace(self, frozen=False, **dict.fromkeys(own & LEARNED))

    @property
    @abstractmethod
    def is_fitted(self) -> bool:
        """Whether there are parameters."""

    @property
    @abstractmethod
    def n_parameters(self) -> int | None:
        """How many numbers were fitted; None where that has no meaning (a forest)."""

    # -- EM

    @classmethod
    @abstractmethod
    def log_densities(cls, experts: Sequence[Self], rows: Rows) -> Array:
        """Compute log p_k(y_i | x_i) of fitted experts of this family: (n, len(experts))."""

    @classmethod
    @abstractmethod
    def statistics(cls, experts: Sequence[Self], rows: Rows, resp: Array) -> list[Statistics]:
        """Sum what the M-step of each expert needs.

        resp : (n, len(experts)) responsibilities times sample weights. Experts without parameters yet are
        started from their rows alone.
        """

    @abstractmethod
    def update(self, statistics: Statistics) -> Self:
        """Make the M-step."""

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``: shortens a Newton step that went too far.

        Parts in closed form cannot go too far, and give ``other``.
        """
        assert self.closed_form
        return other

    def penalty(self) -> float:
        """Give what the penalised log-likelihood subtracts for these parameters."""
        return 0.0

    def degenerate(self) -> str | None:
        """Say what is wrong with a fit that is no model (a variance at its floor), or None."""
        return None

    # -- scales

    def scaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the parameters for original columns into those for standardised ones."""
        return self

    def unscaled(self, x: Scaling, y: Scaling) -> Self:
        """Turn the parameters for standardised columns into those for original ones."""
        return self

    # -- prediction, on a design of original columns

    @abstractmethod
    def predict(self, design: Design, offset: Array | None = None) -> Array:
        """Give the mean of y: (n,), or (n, m) for several outputs; classifiers: probabilities (n, V)."""

    def distribution(self, design: Design, offset: Array | None = None) -> Any:
        """Give the distribution of y given x, of every row: a frozen distribution of scipy (regression)."""
        raise NotImplementedError  # classifiers have probabilities instead

    # -- standard errors: the parameters as one vector, in standardised columns

    @property
    def parameters(self) -> Array | None:
        """Give the parameters as one vector, unconstrained (logs of scales); None where there are none."""
        return None

    def with_parameters(self, vector: Array) -> Self:
        """Set the parameters from one vector."""
        raise NotImplementedError

    def gradient(self, rows: Rows, resp: Array) -> Array:
        """Differentiate sum_i resp_i log p(y_i | x_i) by ``parameters``; resp (n,)."""
        raise NotImplementedError

    # -- JSON

    def to_dict(self) -> dict[str, Any]:
        """Give options and parameters as plain values; settings and estimators are not among them."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "settings"}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make the expert again from `to_dict`."""
        parts: dict[str, Any] = {
            k: np.array(v, float) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**parts)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def solve_spd(matrix: Array, right: Array) -> Array:
    """Solve a symmetric positive semi-definite system (q, q) x = (q, m); (q, m).

    Where the matrix is singular up to rounding (a constant column, fewer rows than columns), the solution of
    least norm.
    """
    root = np.sqrt(np.maximum(matrix.diagonal(), 0.0))
    root[root <= 1e-12 * max(root.max(), 1e-300)] = np.inf
    unit = matrix / np.multiply.outer(root, root)
    right = right / root[:, None]
    factor, solution, info = dposv(unit, right)
    if info != 0 or factor.diagonal().min() <= 1e-5:
        values, vectors = np.linalg.eigh(unit)
        keep = values > 1e-10 * max(values[-1], 1e-300)
        solution = vectors[:, keep] @ ((vectors[:, keep].T @ right) / values[keep, None])
    return np.asarray(solution / root[:, None], np.float64)
