"""A fitted mixture of networks, as core's face needs it."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from expertise.core.estimator import AbstractMixture, Inputs
from expertise.nn.neural import arguments
from expertise.nn.neural.batch import evaluating, pick
from expertise.nn.neural.networks import AbstractExpert, FittedExpert, Mixture, NetworkExpert, Shape
from expertise.nn.neural.training import EVALUATION_ROWS

Floats = npt.NDArray[np.float64]


class FittedNeural(AbstractMixture):
    """A gate and experts that were trained by gradient.

    Attributes
    ----------
    experts_ : the modules, or fitted estimators, by number; gate_ : the module that gives the logits.
    """

    _mixture_: Mixture
    _shape_: Shape
    _single_: bool
    dtype: str
    router: str
    k: int

    # -- the parts

    @property
    def experts_(self) -> list[Any]:
        """The experts: modules, which see what ``standardize`` says, or fitted scikit-learn estimators."""
        return [
            expert.estimator if isinstance(expert, FittedExpert) else expert.network
            for expert in self._mixture_.all_experts()
            if isinstance(expert, FittedExpert | NetworkExpert)
        ]

    @property
    def gate_(self) -> nn.Module:
        """The gate: gives a logit for each expert."""
        network = getattr(self._mixture_.gate, "network", self._mixture_.gate)
        assert isinstance(network, nn.Module)
        return network

    @property
    def sigma_(self) -> Floats:
        """Noise widths of the experts of a regression, in units of y: (K,), or (K, m) of several outputs."""
        if not self._shape_.numbers:
            raise AttributeError("sigma_ is of regressions; classes have no noise width")
        widths = np.stack([self._sigma(expert) for expert in self._mixture_.all_experts()])
        return widths[:, 0] if self._single_ else widths

    def _sigma(self, expert: AbstractExpert) -> Floats:
        with torch.no_grad():
            return np.asarray(expert.log_sigma().exp().double().cpu().numpy() * self._shape_.y.scale)

    def parameters_of(self, part: Any) -> list[nn.Parameter]:
        """Give the parameters of one part: theta_0 of the gate, theta_k of an expert.

        Parameters
        ----------
        part : "gate", or the number of an expert. Those of an expert have its noise width last.

        Raises
        ------
        ValueError : no such part.
        """
        check_is_fitted(self)
        if isinstance(part, str) and part == "gate":
            return list(self._mixture_.gate.parameters())
        expert = self._mixture_.expert(self._number(part))
        own = [parameter for parameter in expert.parameters() if parameter is not expert.log_width]
        return own if expert.log_width is None else [*own, expert.log_width]

    def _number(self, k: Any) -> int:
        check_is_fitted(self)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k < self.n_experts_:
            raise ValueError(f"there is no expert {k!r}; the experts are 0 to {self.n_experts_ - 1}")
        return int(k)

    def __getstate__(self) -> dict[str, Any]:
        """Give what is pickled: on the CPU, so that it opens on a machine without a GPU."""
        state: dict[str, Any] = dict(super().__getstate__())
        if "_mixture_" in state and self._device.type != "cpu":
            state["_mixture_"] = copy.deepcopy(state["_mixture_"]).cpu()
        return state

    # -- from arrays to tensors and back

    @property
    def _device(self) -> torch.device:
        return next(iter(self._mixture_.parameters()), torch.zeros(0)).device

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        """Bring floats to the device in the precision of the mixture, and whole numbers as they are."""
        dtype = torch.long if values.dtype.kind in "iu" else arguments.DTYPES[self.dtype]
        return torch.tensor(np.ascontiguousarray(values), dtype=dtype, device=self._device)

    def _in_chunks(self, run: Callable[[Tensor], Tensor], X: Floats) -> Floats:
        """Run part of the mixture over rows of X, (n, d); gives an array of doubles."""
        parts = []
        with evaluating(self._mixture_):
            for start in range(0, max(len(X), 1), EVALUATION_ROWS):
                inside = self._shape_.x.inside(X[start : start + EVALUATION_ROWS])
                parts.append(run(self._tensor(inside)).double().cpu().numpy())
        return np.concatenate(parts)

    # -- what core asks of a mixture

    @property
    def _sparse_allowed(self) -> bool:
        return False

    @property
    def _top(self) -> int | None:
        """How many experts a row picks, None for all."""
        return min(self.k, self.n_experts_) if self.router == "top_k" else None

    def _validate(self, X: Any, offset: Any = None) -> Inputs:
        if offset is not None:
            raise ValueError(
                "offset was given, but experts that are networks take none; leave it out, or give it as a "
                "column of X"
            )
        return super()._validate(X)

    def _log_gate(self, inputs: Inputs) -> Floats:
        def run(x_BD: Tensor) -> Tensor:
            log_gate_BE: Tensor = self._mixture_.gate(x_BD).double().log_softmax(dim=1)
            if self._top is None:
                return log_gate_BE
            chosen_BK, log_weight_BK = pick(log_gate_BE, self._top)
            return torch.full_like(log_gate_BE, -torch.inf).scatter_(1, chosen_BK, log_weight_BK)

        return self._in_chunks(run, inputs.X)

    def _gate_proba(self, inputs: Inputs) -> Floats:
        return np.asarray(np.exp(self._log_gate(inputs)))

    def _predict_expert(self, k: int, inputs: Inputs) -> Floats:
        said = self._say(k, inputs.X)
        return said[:, 0] if self._shape_.numbers and self._single_ else said

    def _say(self, k: int, X: Floats) -> Floats:
        """Give what expert k predicts, (n, O) numbers on the original scale or class probabilities."""
        expert = self._mixture_.expert(k)
        if isinstance(expert, FittedExpert):
            return expert.predict(X)
        if self._shape_.numbers:
            return self._shape_.y.outside(self._in_chunks(expert, X))
        return self._in_chunks(lambda x_BD: expert(x_BD).double().softmax(dim=1), X)

    def _row_logliks(self, X: Floats, y: npt.NDArray[Any]) -> Floats:
        """Give log p(y | x) of rows that were checked, (n,)."""
        inputs = Inputs(X)
        both = self._log_gate(inputs) + self._expert_log_density(inputs, y)
        with np.errstate(divide="ignore"):
            return np.asarray(logsumexp(both, axis=1))

    def _normal(self, k: int, inputs: Inputs) -> Any:
        """Give the distribution of a regression's expert."""
        sigma = self._sigma(self._mixture_.expert(k))
        return stats.norm(self._predict_expert(k, inputs), sigma[0] if self._single_ else sigma)

    def _parameter_counts(self) -> tuple[int | None, list[int | None]]:
        gate = sum(parameter.numel() for parameter in self._mixture_.gate.parameters())
        experts = self._mixture_.all_experts()
        return gate, [
            None if isinstance(expert, FittedExpert) else sum(p.numel() for p in expert.parameters())
            for expert in experts
        ]

    def _count_parameters(self) -> None:
        """Set the numbers of experts and of parameters."""
        self.n_experts_ = len(self._mixture_.experts)
        gate, experts = self._parameter_counts()
        known = [count for count in (gate, *experts) if count is not None]
        self.n_parameters_ = sum(known) if len(known) == len(experts) + 1 else None

    def _summary_lines(self) -> list[str]:
        experts = [type(expert).__name__ for expert in self.experts_]
        picked = "all experts" if self._top is None else f"{self._top} of {self.n_experts_} experts a row"
        return [
            f"gate: {type(self.gate_).__name__}, {picked}",
            f"experts: {', '.join(dict.fromkeys(experts))}",
        ]
