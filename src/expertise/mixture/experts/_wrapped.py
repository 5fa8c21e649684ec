"""What experts made of scikit-learn estimators share: fits by weight, and held-out predictions."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from expertise.mixture.experts._abstract import AbstractExpert, ExpertSettings
from expertise.mixture.experts._fitting import fit_weighted, fold_of, interpolates, is_already_fitted
from expertise.mixture.rows import Array, Design, Rows
from expertise.mixture.sums import Stack, Statistics


@dataclass(frozen=True, eq=False)
class AbstractEstimatorExpert(AbstractExpert):
    """A clone of any scikit-learn estimator, fitted by weight in every M-step, on the inputs as they came.

    Weights go to ``sample_weight`` where the estimator's ``fit`` takes it (that of a pipeline's last step);
    else the rows are drawn by weight, with `settings.random_state`. What follows single rows (trees, forests,
    neighbours) fits them better than new ones, so that the E-step would keep every row where it is: with
    ``out_of_fold``, the rows of the fit are judged by models that did not see them.

    Parameters
    ----------
    estimator : the estimator; with ``frozen`` it must be fitted already, and is used as it is.
    out_of_fold : True or False; None means where the estimator interpolates.
    folds : how many folds, at least 2.
    model : the fitted estimator.
    held_out : predictions of the rows of the fit by their index, from models that did not see them; NaN for
        rows that were not there.
    """

    estimator: Any = None
    out_of_fold: bool | None = None
    folds: int = 5
    model: Any = None
    held_out: Array | None = None

    closed_form = False
    additive = False

    def bound(self, settings: ExpertSettings) -> Self:
        """Take the mixture's settings; check the options."""
        if not hasattr(type(self.estimator), "fit"):
            raise ValueError(
                f"estimator must be a scikit-learn estimator, got {self.estimator!r}; "
                f"write {type(self).__name__}(Ridge()) for example"
            )
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}; for none give out_of_fold=False")
        if self.frozen and self._fitted is None:
            raise ValueError(
                f"frozen=True needs an estimator that is fitted already, got {self.estimator!r}; "
                "call its fit first, or leave frozen=False"
            )
        return replace(self, settings=settings)

    @property
    def n_parameters(self) -> None:
        """Not counted: an estimator's flexibility is not its number of numbers."""
        return None

    @classmethod
    def _kept(cls, rows: Rows, resp: Array) -> Statistics:
        """Keep what `update` needs of the rows, for one expert with resp (n,)."""
        return Stack(x=_inputs(rows.expert), y=rows.y, resp=resp, index=rows.index)

    def between(self, other: Self, share: float) -> Self:
        """Give ``other``: there is no way between two forests."""
        return other

    def to_dict(self) -> dict[str, Any]:
        """Raise: an estimator has no plain values."""
        raise ValueError(
            f"expert {type(self.estimator).__name__} has no JSON form; save the mixture with skops instead, "
            'or use a built-in expert such as "gaussian" or "multinomial"'
        )

    # -- what the two kinds say

    @abstractmethod
    def _answers(self, model: Any, x: Any) -> Array:
        """Predict inputs with a fitted model: (n,), or class probabilities (n, V)."""

    # -- what they share

    def _refitted(self, stack: Stack) -> tuple[Self, Array]:
        """Fit to the stack; also give the predictions (n, ...) by which its rows are judged."""
        x, y, resp, index = (stack.column(name) for name in ("x", "y", "resp", "index"))
        if self.frozen:
            return self, self._answers(self._fitted, x)
        if not resp.sum() > 0 and self.model is not None:  # nobody: keep what there was
            return self, self._judged(x, index)
        seed = self._seed
        model = fit_weighted(self.estimator, x, y, resp, seed)
        if not self._holds_out or len(y) < 2:
            return replace(self, model=model, held_out=None), self._answers(model, x)
        folds = min(self.folds, len(y))
        fold = fold_of(index, len(y), folds, seed)
        judged: list[tuple[Any, Array]] = []
        for f in range(folds):
            here = fold == f
            part = fit_weighted(self.estimator, x[~here], y[~here], resp[~here], seed)
            judged.append((here, self._answers(part, x[here])))
        answers = np.empty((len(y), *judged[0][1].shape[1:]))
        for here, answer in judged:
            answers[here] = answer
        return replace(self, model=model, held_out=_by_index(answers, index)), answers

    def _answers_for(self, rows: Rows) -> Array:
        """Predict rows: those of the fit by models that did not see them, where there are such."""
        return self._judged(_inputs(rows.expert), rows.index)

    def _judged(self, x: Any, index: Any) -> Array:
        if self.held_out is None or index is None:
            return self._answers(self._fitted, x)
        inside = (index >= 0) & (index < len(self.held_out))
        answers = self.held_out[np.where(inside, index, 0)]
        answers[~inside] = np.nan
        missing = np.flatnonzero(np.isnan(answers.reshape(len(answers), -1)[:, 0]))
        if len(missing):
            answers[missing] = self._answers(self._fitted, x[missing])
        return answers

    def _predicted(self, design: Design) -> Array:
        return self._answers(self._fitted, _inputs(design))

    @property
    def _fitted(self) -> Any:
        """Give the model: the last fit, or the given estimator if it is frozen and fitted."""
        if self.model is None and self.frozen and is_already_fitted(self.estimator):
            return self.estimator
        return self.model

    @property
    def _holds_out(self) -> bool:
        return interpolates(self.estimator) if self.out_of_fold is None else self.out_of_fold

    @property
    def _seed(self) -> int:
        return 0 if self.settings is None else self.settings.random_state


def _inputs(design: Design) -> Any:
    """Give the inputs as they came: (n, p)."""
    return design.x[:, 1:] if design.raw is None else design.raw


def _by_index(answers: Array, index: npt.NDArray[np.intp] | None) -> Array | None:
    """Order predictions by the rows' index in the fit; NaN where there is no row."""
    if index is None or not (index >= 0).any():
        return None
    held_out = np.full((int(index.max()) + 1, *answers.shape[1:]), np.nan)
    held_out[index[index >= 0]] = answers[index >= 0]
    return held_out
