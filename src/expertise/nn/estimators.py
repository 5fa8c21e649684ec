"""The two estimators trained by gradient: mixtures of networks, or of anything fitted."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from expertise.core.classifier import AbstractMixtureClassifier
from expertise.core.estimator import Inputs
from expertise.core.regressor import AbstractMixtureRegressor
from expertise.nn import objectives
from expertise.nn.neural.batch import Plan
from expertise.nn.neural.editing import NeuralEditing

__all__ = ["NeuralMixtureClassifier", "NeuralMixtureRegressor"]


class NeuralMixtureRegressor(NeuralEditing, AbstractMixtureRegressor):
    """Experts that are networks, and a gate that looks at the input, trained together by gradient.

    Parameters
    ----------
    n_experts : how many; None means 4, or as many as ``experts`` lists.
    experts : None, networks with the hidden layers ``expert_hidden``; or a list of torch.nn.Modules, (B, d)
        to (B, outputs), of which copies are trained, of fitted scikit-learn estimators, which stay as they
        are and see X as it came, and of None for a network made here. Searches and cross-validation clone
        what they are given: wrap fitted estimators as sklearn.frozen.FrozenEstimator there.
    expert_hidden, gate_hidden : sizes of the hidden layers of the networks made here; () is a linear map.
    gate : None, a network with the hidden layers ``gate_hidden``; or a torch.nn.Module that gives a logit for
        each expert, (B, columns) to (B, K).
    gate_features : which columns the gate sees: indices, names, or a slice.
    objective : "likelihood" (Jacobs et al. 1991): each expert a Gaussian with its own width, the best learns
        most; "expected": expected loss of one expert; "cooperative": loss of the blend, with frozen experts
        Meta-Pi; "reinforce": one expert is drawn, and only it learns.
    loss : for the last three: a function of (y, prediction), both on the original scale, (B,) or (B, m), that
        gives a loss per case, (B,); None is the squared error of standardised targets.
    baseline : of "reinforce": "none", "batch", or "gate", for which every expert runs (dense).
    router : "dense"; or "top_k": only the ``k`` likeliest experts of a row run, learn, and predict; with
        "reinforce" this holds for the prediction, as training draws one expert anyway.
    k : how many "top_k" picks. With 1 the blend is the expert itself, so the gate learns by the score: its
        gradient is that of "reinforce" with baseline "batch", at the expert that is picked.
    balance : weight of the load-balance loss of "top_k", against an expert that takes all.
    freeze_experts : True, or a list of numbers: experts that do not learn. freeze_gate : the gate does not.
    standardize : given modules see standardised inputs and say standardised targets; False: as they came.
        The networks made here always see them standardised.
    variance_floor : smallest variance of an expert, as a share of y's.
    epochs, batch_size, learning_rate, weight_decay : of AdamW, whose step falls along a cosine to 0;
        batch_size None is a sixteenth of the rows, from 16 to 1024.
    early_stopping : hold out ``validation_fraction`` of the rows, stop after ``patience`` epochs without
        improvement there, and keep the best epoch; "auto" does where there are 200 different rows.
    device : "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".
    dtype : "float64" or "float32" of all parameters. float32 is for large networks: there a row predicted
        alone and among others may differ by 1e-4 of its value.
    random_state : seed; the same seed gives the same model on the same machine.
    verbose : show a progress bar.

    Attributes
    ----------
    experts_, gate_ : the trained modules (or the fitted estimators); see `parameters_of`.
    sigma_ : (K,) noise widths, (K, m) of several outputs. Where the objective has none they are found after
        the training, by EM with means and gate as they are.
    weights_ : (K,) mean prior of each expert.
    loss_curve_, validation_curve_ : the objective of each epoch; the latter None without held-out rows.
    n_iter_ : epochs that ran.
    loglik_ : log-likelihood of the training data.
    n_parameters_ : None where an expert is a fitted estimator.
    n_features_in_, feature_names_in_ : of X.

    Raises
    ------
    ValueError : at the fit: an argument, or data, that cannot be used; says which, and what to do.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 101)[:, None]
    >>> model = NeuralMixtureRegressor(2, expert_hidden=(), random_state=0).fit(x, np.abs(x[:, 0]))
    >>> bool(np.abs(model.predict([[-0.5], [0.25]]) - [0.5, 0.25]).max() < 0.05)
    True
    """

    def _learn_y(self, y: Any, weight: npt.NDArray[np.float64], fitted: list[Any]) -> npt.NDArray[Any]:
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        try:
            return np.asarray(y, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"y must hold numbers; got {y.ravel()[:3]!r}; for labels use NeuralMixtureClassifier"
            ) from None

    def _outputs(self, y: npt.NDArray[Any]) -> int:
        return 1 if y.ndim == 1 else int(y.shape[1])

    def _check_y(self, y: Any, n: int) -> Any:
        y = super()._check_y(y, n)
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if outputs != self._shape_.outputs:
            raise ValueError(
                f"y must have {self._shape_.outputs} columns, as at the fit; got {outputs} (shape {y.shape})"
            )
        return y

    def _make_plan(self) -> Plan:
        if self.objective == "likelihood":
            return Plan("likelihood", objectives.gaussian_loss, "mean_and_width")
        loss = objectives.squared_error if self.loss is None else self._given_loss()
        return Plan(self.objective, loss, "mean")

    def _expert_distribution(self, k: int, inputs: Inputs) -> Any:
        return self._normal(k, inputs)


class NeuralMixtureClassifier(NeuralEditing, AbstractMixtureClassifier):
    """Experts that are networks giving class probabilities, and a gate, trained together by gradient.

    The arguments and attributes are those of `NeuralMixtureRegressor`, but modules in ``experts`` give a
    logit for each class; fitted estimators need ``predict_proba``, and ``classes_`` holds their labels too;
    ``loss`` takes the number of the class, (B,), and probabilities, (B, V), and is by default the
    cross-entropy, with which "cooperative" and "likelihood" are the same, -log sum_k g_k p_k(class).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> y = np.where((X[:, 0] > 0) == (X[:, 1] > 0), "same", "other")
    >>> model = NeuralMixtureClassifier(2, expert_hidden=(), random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9
    True
    """

    def _learn_y(self, y: Any, weight: npt.NDArray[np.float64], fitted: list[Any]) -> npt.NDArray[Any]:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        for expert in fitted:
            if not hasattr(expert, "predict_proba") or not hasattr(expert, "classes_"):
                raise ValueError(f"experts holds {expert!r:.80}, which has no predict_proba to give classes")
        known = [np.unique(y[weight > 0]), *(np.asarray(expert.classes_) for expert in fitted)]
        self.classes_ = np.unique(np.concatenate(known))
        return np.asarray(np.searchsorted(self.classes_, np.where(weight > 0, y, self.classes_[0])))

    def _outputs(self, y: npt.NDArray[Any]) -> int:
        return len(self.classes_)

    def _make_plan(self) -> Plan:
        if self.loss is not None:
            return Plan(self.objective, self._given_loss(), "proba")
        # log of the blend's probability is the log-likelihood: taken from logarithms, without underflow
        objective = "likelihood" if self.objective == "cooperative" else self.objective
        return Plan(objective, objectives.log_loss, "log_proba")
