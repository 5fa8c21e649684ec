"""Change one expert of a fitted neural mixture and leave the others as they are, to the last bit."""

import copy
import os
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from expertise.core._checks import check_fit_weight
from expertise.core.inputs import Inputs
from expertise.nn.neural import arguments, saving
from expertise.nn.neural.fitting import NeuralFitting
from expertise.nn.neural.measures import region
from expertise.nn.neural.networks import AbstractExpert, CutGate, GrownGate, Mixture, NetworkExpert
from expertise.nn.neural.rows import Table
from expertise.nn.neural.training import learn_novelty, own_randomness, train

Floats = npt.NDArray[np.float64]

OLD_ROWS = 1000  # cases drawn from where the old experts' cases lay, when none are given
FEW_ROWS = 160  # an epoch of fewer passes over them so often: a handful makes too few steps
SEED = 0  # of the changes, so that the same change gives the same model


class NeuralEditing(NeuralFitting):
    """A fitted mixture whose experts can be changed one by one; and files."""

    def add_expert(self, X: Any, y: Any, *, expert: Any = None, X_old: Any = None, epochs: int = 100) -> Self:
        """Add an expert for new cases, of which a few are enough; gate and other experts stay byte for byte.

        The new expert learns the new cases alone. Then the gate gets one more output, which learns to tell
        the new cases from the old; among the old experts it goes on to choose as before.

        Parameters
        ----------
        X, y : the new cases.
        expert : None, a copy of the expert that does best on the new cases; a module; or a fitted estimator.
        X_old : some of the old cases. Without them, cases are drawn from Gaussians where each expert's
            training cases lay.
        epochs : of the new expert.
        """
        _check_epochs(epochs)
        new = self._checked_rows(X, y)
        old_X = self._imagined() if X_old is None else self._validate(X_old).X
        with self._whole_or_not(), own_randomness(SEED, self._device):
            added = self._placed(self._best_on(new) if expert is None else self._make_expert(expert))
            self._learn_alone(added, new, epochs)
            gate = self._placed(GrownGate(self._mixture_.gate, self._shape_.gate_columns.tolist()))
            inside = self._shape_.x.inside
            learn_novelty(gate, self._tensor(inside(new.X)), self._tensor(inside(old_X)))
            self._set_mixture(gate, [*self._mixture_.all_experts(), added])
            self._regions_ = [*self._regions_, region(inside(new.X), new.weight)]
            before, now = self._total_weight_, float(new.weight.sum())
            old_share = self._gate_proba_of(old_X).mean(axis=0)
            new_share = np.average(self._gate_proba_of(new.X), axis=0, weights=new.weight)
            self.weights_ = (before * old_share + now * new_share) / (before + now)
            self._total_weight_ = before + now
        return self

    def replace_expert(
        self, k: int, expert: Any = None, X: Any = None, y: Any = None, *, epochs: int = 100
    ) -> Self:
        """Replace expert k; the gate and the others stay byte for byte.

        Parameters
        ----------
        k : its number.
        expert : a module, a fitted estimator, or None for a new network as the constructor makes them.
        X, y : data of all experts, on which the new one is trained in its place; not needed for one that is
            trained already.
        epochs : of the training.
        """
        k = self._number(k)
        if expert is None and (X is None or y is None):
            raise ValueError(
                "replace_expert needs X and y to train a new network, or an expert that is trained"
            )
        _check_epochs(epochs)
        with self._whole_or_not(), own_randomness(SEED, self._device):
            new = self._placed(self._make_expert(expert))
            old = self._mixture_.expert(k)
            if X is None and new.log_width is not None:
                assert old.log_width is not None
                new.log_width.data.copy_(old.log_width.data)
            experts = self._mixture_.all_experts()
            if X is not None:
                table = self._checked_rows(X, y)
                inside = [copy.copy(one) for one in experts]
                for one in inside:
                    one.frozen = one.width_frozen = True
                inside[k] = new
                self._learn(self._mixture_.gate, inside, table, epochs)
            experts[k] = new
            self._set_mixture(self._mixture_.gate, experts)
        return self

    def remove_expert(self, k: int) -> Self:
        """Remove expert k: the priors of the others grow in proportion; numbers above k shift down by one."""
        k = self._number(k)
        if self.n_experts_ == 1:
            raise ValueError("the last expert cannot be removed")
        experts = self._mixture_.all_experts()
        del experts[k]
        self._regions_ = [one for j, one in enumerate(self._regions_) if j != k]
        rest = np.delete(self.weights_, k)
        self._set_mixture(CutGate(self._mixture_.gate, k), experts)
        self.weights_ = rest / rest.sum()
        return self

    def freeze(self, part: Any) -> Self:
        """Freeze "gate" or an expert by its number, with its width: `refit` then leaves it as it is."""
        return self._freeze(part, True)

    def unfreeze(self, part: Any) -> Self:
        """Let "gate" or an expert by its number learn again in `refit`."""
        return self._freeze(part, False)

    def _freeze(self, part: Any, frozen: bool) -> Self:
        check_is_fitted(self)
        if isinstance(part, str) and part == "gate":
            self._mixture_.gate_frozen = frozen
            return self
        expert = self._mixture_.expert(self._number(part))
        if not isinstance(expert, NetworkExpert) and not frozen:
            raise ValueError(f"expert {part} is a fitted estimator, which does not learn here; replace it")
        expert.frozen = expert.width_frozen = frozen
        return self

    def refit(self, X: Any, y: Any, sample_weight: Any = None, *, epochs: int | None = None) -> Self:
        """Go on training from the present parameters; what is frozen stays as it is, to the last bit."""
        check_is_fitted(self)
        if epochs is not None:
            _check_epochs(epochs)
        table = self._checked_rows(X, y, sample_weight)
        with self._whole_or_not(), own_randomness(SEED, self._device):
            self._mixture_ = copy.deepcopy(self._mixture_)  # an interrupted training leaves the old one whole
            typical = self._typical_row_
            self._show(table, self._train(table, SEED, epochs))
            self._typical_row_ = typical
        return self

    # -- on disk

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all; `load` reads it. No pickle: reading runs no code.

        Raises
        ------
        ValueError : an expert that is a fitted scikit-learn estimator.
        """
        check_is_fitted(self)
        saving.save(self, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, experts: Any = None, gate: Any = None, loss: Any = None
    ) -> Self:
        """Read a mixture from the file that `save` wrote.

        Parameters
        ----------
        path : the file.
        experts, gate : modules of the same make, where the mixture had modules that were given: the file has
            their parameters, not their code. One entry for each expert, None for those made here.
        loss : the function, where one was given.

        Raises
        ------
        ValueError : no such file of this class, or modules that do not fit.
        """
        return saving.load(cls, path, experts, gate, loss)

    # -- tools

    def _checked_rows(self, X: Any, y: Any, sample_weight: Any = None) -> Table:
        inputs = self._validate(X)
        codes = self._check_y(y, len(inputs.X))
        weight = check_fit_weight(sample_weight, len(inputs.X))
        table = Table(inputs.X, codes, weight)
        return table.take(np.flatnonzero(weight > 0))

    def _placed(self, module: Any) -> Any:
        return module.to(device=self._device, dtype=arguments.DTYPES[self.dtype])

    def _set_mixture(self, gate: nn.Module, experts: list[AbstractExpert]) -> None:
        frozen = self._mixture_.gate_frozen
        self._mixture_ = Mixture(gate, experts)
        self._mixture_.gate_frozen = frozen
        self._mixture_.eval()
        self._count_parameters()
        self.loglik_ = float("nan")  # no more that of the fit

    def _learn(self, gate: nn.Module, experts: list[AbstractExpert], table: Table, epochs: int) -> None:
        """Train what is not frozen of these experts, the gate as it is, on a few rows: none are held out."""
        kept, n = self._mixture_, self.n_experts_
        self._mixture_, self.n_experts_ = Mixture(gate, experts), len(experts)
        self._mixture_.gate_frozen = True
        try:
            rows, plan = self._rows_of(table), self._plan()
            epochs *= max(1, FEW_ROWS // len(rows))
            settings = replace(self._settings(len(rows), SEED, epochs), patience=epochs)
            train(self._mixture_, rows, None, plan, settings)
            if self._shape_.numbers and plan.dress != "mean_and_width":
                self._learn_widths(table)
        finally:
            self._mixture_, self.n_experts_ = kept, n

    def _learn_alone(self, expert: AbstractExpert, table: Table, epochs: int) -> None:
        """Train one expert as if there were no others."""
        self._learn(_Alone(), [expert], table, epochs)

    def _best_on(self, new: Table) -> AbstractExpert:
        """Give a copy of the network that does best on the new cases, or a new one where there is none."""
        scores = self._expert_log_density(Inputs(new.X), new.y).T @ new.weight
        experts = self._mixture_.all_experts()
        for k in np.argsort(-scores).tolist():
            if isinstance(experts[k], NetworkExpert):
                found: AbstractExpert = copy.deepcopy(experts[k])
                found.frozen = found.width_frozen = False
                if self._shape_.numbers:
                    # as wide as it errs now: else the first slopes are huge, and Adam remembers them for long
                    y = new.y.reshape(len(new), -1)
                    square = np.average((y - self._say(k, new.X)) ** 2, axis=0, weights=new.weight)
                    found.set_sigma(np.sqrt(square) / self._shape_.y.scale)
                return found
        return self._make_expert(None)

    def _imagined(self) -> Floats:
        """Draw inputs from where the experts' cases lay, (n, d)."""
        rng = np.random.default_rng(SEED)
        counts = rng.multinomial(OLD_ROWS, self.weights_ / self.weights_.sum())
        drawn = []
        for count, (mean, factor) in zip(counts, self._regions_, strict=True):
            noise = rng.normal(size=(count, len(mean)))
            full = factor.shape[1] == len(mean)
            drawn.append(mean + (noise @ factor.T if full else noise * factor[:, 0]))
        return self._shape_.x.outside(np.concatenate(drawn))


class _Alone(nn.Module):
    """The gate of one expert."""

    def forward(self, x_BD: Tensor) -> Tensor:
        return torch.zeros(len(x_BD), 1, dtype=x_BD.dtype, device=x_BD.device)


def _check_epochs(epochs: Any) -> None:
    constraint = arguments.CONSTRAINTS["epochs"]
    if not constraint.holds(epochs):
        raise ValueError(f"epochs must be {constraint.words}; got {epochs!r}")
