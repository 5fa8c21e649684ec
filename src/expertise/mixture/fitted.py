"""A fitted mixture's gate and experts, as core's face needs them, and its coefficients."""

from copy import copy
from typing import Any, Self

import numpy as np
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted

from expertise.core.estimator import AbstractMixture, Inputs
from expertise.mixture import _checking, showing
from expertise.mixture.em import Model
from expertise.mixture.experts import AbstractExpert
from expertise.mixture.gates import AbstractGate, ConstantGate
from expertise.mixture.parts import resolve_gate
from expertise.mixture.preparing import Columns
from expertise.mixture.rows import Array, Design


class FittedMixture(AbstractMixture):
    """A gate and experts on the original scale, however they were found.

    Attributes
    ----------
    gate_, experts_ : the parts, on the original scale.
    """

    gate_: AbstractGate
    experts_: list[AbstractExpert]
    path_: list[tuple[int, AbstractGate, list[AbstractExpert]]]
    _columns_: Columns
    _uses_: list[str]
    gate: Any
    expert_features: Any

    def _set_parts(self, gate: AbstractGate, experts: list[AbstractExpert]) -> None:
        self._set_model(Model(gate, tuple(experts)))

    def _set_model(self, model: Model) -> None:
        self.gate_ = model.gate
        self.experts_ = list(model.experts)
        self.n_experts_ = len(model.experts)
        counts = [expert.n_parameters for expert in model.experts]
        known = [count for count in (*counts, model.gate.n_parameters) if count is not None]
        self.n_parameters_ = sum(known) if len(known) == len(counts) + 1 else None

    def at_step(self, step: int) -> Self:
        """Give the mixture as it was after a recorded iteration of the fit: entry ``step`` of ``path_``.

        It predicts as it did then. What a fit measures (``loglik_``, ``weights_``, ``cases_``) stays that of
        the last iteration.

        Raises
        ------
        ValueError : nothing was recorded.
        """
        check_is_fitted(self)
        if not self.path_:
            raise ValueError(
                "path_ is empty; fit with keep_path=True, and with built-in experts and gates, whose "
                "iterations are a few numbers each"
            )
        _, gate, experts = self.path_[step]
        earlier = copy(self)
        earlier._set_parts(gate, list(experts))
        return earlier

    def formula(self) -> dict[str, Any] | None:
        """Give gate and experts as plain numbers, enough to compute `predict` in any language.

        Returns
        -------
        "gate" and "experts" as their own ``formula`` gives them, "gate_columns" and "expert_columns" (which
        columns of X they see), "classes" (V, or 0 of a regressor). None where a part has no formula (a
        forest), or y has several outputs. The prediction is sum_k g_k(x) f_k(x).
        """
        check_is_fitted(self)
        gate, experts = self.gate_.formula(), [expert.formula() for expert in self.experts_]
        if gate is None or any(expert is None for expert in experts):
            return None
        return {
            "gate": gate,
            "experts": experts,
            "gate_columns": self._columns_.gate.tolist(),
            "expert_columns": self._columns_.expert.tolist(),
            "classes": len(self.classes_) if hasattr(self, "classes_") else 0,
        }

    # -- what core asks of a mixture

    @property
    def _nan_allowed(self) -> bool:
        gate = self.gate_ if hasattr(self, "gate_") else resolve_gate(self.gate)
        if not gate.integrates_nan:
            return False
        if hasattr(self, "_columns_"):
            return len(np.setdiff1d(self._columns_.gate, self._columns_.expert)) > 0
        return self.expert_features is not None

    @property
    def _sparse_allowed(self) -> bool:
        return resolve_gate(self.gate).takes_sparse

    def _gate_design(self, inputs: Inputs) -> Design:
        return Design.of(inputs.X[:, self._columns_.gate])

    def _expert_design(self, inputs: Inputs) -> Design:
        return Design.of(inputs.X[:, self._columns_.expert])

    def _validate(self, X: Any, offset: Any = None) -> Inputs:
        inputs = super()._validate(X, offset)
        if offset is not None:
            _checking.check_offset(offset, inputs.X.shape[0], self.experts_)
        if self._nan_allowed:
            hidden = np.setdiff1d(self._columns_.gate, self._columns_.expert)
            _checking.check_finite(inputs.X, hidden, self.gate_.name)
        return inputs

    def _gate_proba(self, inputs: Inputs) -> Array:
        return np.exp(self._log_gate(inputs))

    def _log_gate(self, inputs: Inputs) -> Array:
        return np.ascontiguousarray(self.gate_.log_gate(self._gate_design(inputs)))

    def _log_evidence(self, inputs: Inputs) -> Array:
        if not self.gate_.models_inputs:
            return np.zeros(inputs.X.shape[0])
        return np.asarray(logsumexp(self.gate_.log_joint(self._gate_design(inputs)), axis=1))

    def _predict_expert(self, k: int, inputs: Inputs) -> Array:
        return self.experts_[k].predict(self._expert_design(inputs), inputs.offset)

    def _parameter_counts(self) -> tuple[int | None, list[int | None]]:
        return self.gate_.n_parameters, [expert.n_parameters for expert in self.experts_]

    def _summary_lines(self) -> list[str]:
        return showing.summary_lines(self)

    def _model(self) -> Model:
        return Model(self.gate_, tuple(self.experts_))

    # -- coefficients on the original scale

    def _coefficients(self) -> Array:
        betas = [getattr(expert, "beta", None) for expert in self.experts_]
        if any(beta is None for beta in betas):
            raise AttributeError("coef_ and intercept_ are of linear experts; this mixture has others")
        return np.stack([beta for beta in betas if beta is not None])

    @property
    def coef_(self) -> Array:
        """Coefficients of the experts: (K, p), or (K, m, p) for several outputs or classes."""
        beta = self._coefficients()
        return (
            np.squeeze(beta[:, 1:].transpose(0, 2, 1), axis=1)
            if beta.shape[2] == 1
            else beta[:, 1:].transpose(0, 2, 1)
        )

    @property
    def intercept_(self) -> Array:
        """Intercepts of the experts: (K,), or (K, m)."""
        beta = self._coefficients()
        return beta[:, 0, 0] if beta.shape[2] == 1 else beta[:, 0]

    @property
    def gate_coef_(self) -> Array:
        """Coefficients of a softmax gate: (K, q), log odds against the last expert, whose row is 0."""
        return self._gate_beta()[1:].T

    @property
    def gate_intercept_(self) -> Array:
        """Intercepts of a softmax or constant gate: (K,), log odds against the last expert."""
        return np.asarray(self._gate_beta()[0])

    def _gate_beta(self) -> Array:
        if isinstance(self.gate_, ConstantGate):
            return np.append(self.gate_.parameters, 0.0)[None]
        beta = getattr(self.gate_, "beta", None)
        if beta is None:
            raise AttributeError(
                f"gate_coef_ and gate_intercept_ are of a softmax gate; this is {self.gate_.name!r}"
            )
        return np.asarray(beta)

    @property
    def sigma_(self) -> Array:
        """Noise widths of the experts: (K,), or (K, m), in units of y."""
        sigmas = [getattr(expert, "sigma", None) for expert in self.experts_]
        if any(sigma is None for sigma in sigmas):
            raise AttributeError("sigma_ is of experts with a noise width; this mixture has others")
        widths = np.stack([np.atleast_1d(sigma) for sigma in sigmas if sigma is not None])
        return widths[:, 0] if widths.shape[1] == 1 else widths
