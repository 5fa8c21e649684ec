"""What every gate answers. A gate is one file; the table of gates is in ``__init__``."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import logsumexp

from expertise.mixture.rows import Array, Design, Scaling
from expertise.mixture.sums import Statistics


@dataclass(frozen=True, eq=False)
class GateSettings:
    """What the mixture asks of its gate.

    alpha : ridge a row on the centred coefficients of standardised columns.
    total_weight : sum of the sample weights (the number of groups, with groups).
    random_state : seed of gates that draw.
    """

    alpha: float = 1e-8
    total_weight: float = 1.0
    random_state: int = 0


@dataclass(frozen=True, eq=False)
class AbstractGate(ABC):
    """The prior of each expert given the input, g_k(x), with its options and, once fitted, its parameters.

    A gate never changes: `update` gives a new one. Inside EM its parameters are those for standardised
    columns; `unscaled` gives the gate for the original ones.

    Parameters
    ----------
    trainable : False keeps the parameters as they are.
    settings : set by the mixture.
    """

    name: ClassVar[str]
    closed_form: ClassVar[bool] = True  # update reaches the maximum of its part; else it is one Newton step
    additive: ClassVar[bool] = True  # its statistics are `Sums`
    integrates_nan: ClassVar[bool] = False
    models_inputs: ClassVar[bool] = False  # log_joint holds the density of x
    takes_sparse: ClassVar[bool] = True

    trainable: bool = field(default=True, kw_only=True)
    settings: GateSettings | None = field(default=None, kw_only=True)

    def wanted_experts(self) -> int | None:
        """Give the number of experts that the options ask for, or None."""
        return None

    @property
    def has_parameters(self) -> bool:
        """Whether it was given parameters, to start from or to keep."""
        return any(getattr(self, name, None) is not None for name in ("prior", "beta", "betas", "means"))

    @property
    def says_where(self) -> bool:
        """Whether the given parameters, which stay, say already where each expert works."""
        return False

    @abstractmethod
    def started(self, n_experts: int, design: Design, settings: GateSettings) -> Self:
        """Give the gate for so many experts, before the first M-step: all alike, or its given parameters.

        design : the standardised inputs of the start, for their number of columns.
        """

    @property
    @abstractmethod
    def n_experts(self) -> int:
        """Experts of a started gate."""

    @property
    @abstractmethod
    def n_parameters(self) -> int | None:
        """How many numbers were fitted; None where that has no meaning."""

    @abstractmethod
    def log_joint(self, design: Design) -> Array:
        """Compute log g_k(x) (n, K); for a gate that models the inputs, log a_k p(x | k)."""

    def log_gate(self, design: Design) -> Array:
        """Compute log g_k(x): (n, K), normalised."""
        joint = self.log_joint(design)
        return joint - logsumexp(joint, axis=1, keepdims=True) if self.models_inputs else joint

    def formula(self) -> dict[str, Any] | None:
        """Give what `log_gate` computes with as plain numbers; None where there is no formula.

        "kind" says how: "constant", "softmax", "gaussian" or "tree".
        """
        return None

    @abstractmethod
    def statistics(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Statistics:
        """Sum what the M-step needs.

        Parameters
        ----------
        design : (n, q).
        resp : (n, K) responsibilities times weights.
        log_joint : (n, K) as `log_joint` gave it.
        weight : (n,) weights: resp sums to them.
        """

    @abstractmethod
    def update(self, statistics: Statistics) -> Self:
        """Make the M-step."""

    def between(self, other: Self, share: float) -> Self:
        """Go from here towards ``other`` by ``share``: shortens a Newton step that went too far."""
        assert self.closed_form
        return other

    def penalty(self) -> float:
        """Give what the penalised log-likelihood subtracts for these parameters."""
        return 0.0

    def scaled(self, x: Scaling) -> Self:
        """Turn the parameters for original columns into those for standardised ones."""
        return self

    def unscaled(self, x: Scaling) -> Self:
        """Turn the parameters for standardised columns into those for original ones."""
        return self

    # -- adding, removing and joining experts; the others' odds among themselves stay as they are

    def with_expert(self, like: int | None, share: float) -> Self:
        """Add an expert, the last.

        It takes ``share`` (0 to 1) of the prior of expert ``like``, everywhere; of all experts if None.
        """
        raise NotImplementedError

    def without_expert(self, k: int) -> Self:
        """Remove expert k: the others' priors grow in proportion."""
        raise NotImplementedError

    def forgotten(self) -> Self:
        """Give the gate for as many experts, its borders forgotten: none is so steep that it cannot move."""
        return self

    # -- standard errors: the parameters as one vector, in standardised columns

    @property
    def parameters(self) -> Array | None:
        """Give the parameters as one vector, unconstrained; None where there are none."""
        return None

    def with_parameters(self, vector: Array) -> Self:
        """Set the parameters from one vector."""
        raise NotImplementedError

    def gradient(self, design: Design, resp: Array, log_joint: Array, weight: Array) -> Array:
        """Differentiate sum_ik resp_ik log_joint_ik by ``parameters``."""
        raise NotImplementedError

    # -- JSON

    def to_dict(self) -> dict[str, Any]:
        """Give options and parameters as plain values; settings are not among them."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "settings"}
        return {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make the gate again from `to_dict`."""
        parts: dict[str, Any] = {
            k: np.array(v, float) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**parts)

    def frozen(self) -> Self:
        """Give the gate that does not learn."""
        return replace(self, trainable=False)
