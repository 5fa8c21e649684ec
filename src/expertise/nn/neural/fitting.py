"""The way from fit(X, y) to a fitted mixture of networks: check, prepare, train, show."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_random_state, validate_data
from torch import nn

from expertise._progress import progress
from expertise.core._checks import check_fit_weight
from expertise.core.inputs import Inputs
from expertise.nn import objectives
from expertise.nn.neural import arguments
from expertise.nn.neural.batch import Plan, Rows
from expertise.nn.neural.fitted import FittedNeural
from expertise.nn.neural.given import (
    OnTheOriginalScale,
    ReturnsTensor,
    check_columns,
    check_fitted_expert,
    frame_expert,
    frame_gate,
)
from expertise.nn.neural.measures import region, variances
from expertise.nn.neural.networks import AbstractExpert, FittedExpert, Mixture, Scaling, Shape
from expertise.nn.neural.rows import Table, canonical, split
from expertise.nn.neural.training import Run, Settings, own_randomness, train

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

ROWS_TO_HOLD_OUT = 200  # early_stopping="auto" holds rows out where there are at least so many


class NeuralFitting(FittedNeural):
    """Training by gradient, for regressors and classifiers alike; the arguments are described there."""

    classes_: Array
    loss_curve_: list[float]
    validation_curve_: list[float] | None
    n_iter_: int

    def __init__(
        self,
        n_experts: int | None = None,
        *,
        experts: Any = None,
        expert_hidden: Sequence[int] = (32,),
        gate: Any = None,
        gate_hidden: Sequence[int] = (),
        gate_features: Any = None,
        objective: str = "likelihood",
        loss: Any = None,
        baseline: str = "batch",
        router: str = "dense",
        k: int = 1,
        balance: float = 0.01,
        freeze_experts: Any = False,
        freeze_gate: bool = False,
        standardize: bool = True,
        variance_floor: float = 1e-4,
        epochs: int = 200,
        batch_size: int | None = None,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        early_stopping: Any = "auto",
        validation_fraction: float = 0.1,
        patience: int = 25,
        device: str = "auto",
        dtype: str = "float64",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_experts = n_experts
        self.experts = experts
        self.expert_hidden = expert_hidden
        self.gate = gate
        self.gate_hidden = gate_hidden
        self.gate_features = gate_features
        self.objective = objective
        self.loss = loss
        self.baseline = baseline
        self.router = router
        self.k = k
        self.balance = balance
        self.freeze_experts = freeze_experts
        self.freeze_gate = freeze_gate
        self.standardize = standardize
        self.variance_floor = variance_floor
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    # -- what regressors and classifiers do differently

    @abstractmethod
    def _learn_y(self, y: Any, weight: Floats, fitted: list[Any]) -> Array:
        """Check y at the fit, and give it as the training takes it: floats, or codes of classes."""

    @abstractmethod
    def _make_plan(self) -> Plan:
        """Say what is minimised."""

    @abstractmethod
    def _outputs(self, y: Array) -> int:
        """Say how many numbers an expert gives."""

    # -- the fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train gate and experts together.

        Parameters
        ----------
        X : (n, d) inputs: array or data frame.
        y : (n,) targets; (n, m) several outputs of a regression.
        sample_weight : (n,) weights >= 0: a row of weight 2 is the row twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError : an argument or data that cannot be used; says which, what was got, what to do.
        """
        begun = time.perf_counter()
        arguments.check_arguments(self.get_params(deep=False))
        device = arguments.resolve_device(self.device)
        with self._whole_or_not():
            table = self._checked_table(X, y, sample_weight)
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            with own_randomness(seed, device):
                self._mixture_ = self._make_mixture(device)
                self._count_parameters()
                self._show(table, self._train(table, seed))
        self.fit_seconds_ = time.perf_counter() - begun
        return self

    def _checked_table(self, X: Any, y: Any, sample_weight: Any) -> Table:
        """Check the data, and measure them; sets the shape of the mixture."""
        try:
            X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True)
        except ValueError as error:
            arguments.check_numbers(X, error)
            raise
        weight = check_fit_weight(sample_weight, len(X))
        fitted = [one for one in self.experts or () if one is not None and not isinstance(one, nn.Module)]
        for expert in fitted:
            check_fitted_expert(expert)
        table = canonical(Table(X, self._learn_y(y, weight, fitted), weight))
        rows = int((weight > 0).sum())
        if rows < 2:
            raise ValueError(f"n_samples = {rows} (with weight) is too few to fit; give at least 2 rows")
        outputs, numbers = self._outputs(table.y), table.y.dtype.kind == "f"
        names = getattr(self, "feature_names_in_", None)
        self._single_ = table.y.ndim == 1
        self._shape_ = Shape(
            outputs=outputs,
            numbers=numbers,
            x=Scaling.of(table.X, table.weight),
            y=Scaling.of(table.y.reshape(len(table), -1), table.weight) if numbers else Scaling.identity(1),
            gate_columns=arguments.resolve_columns(self.gate_features, X.shape[1], names),
            variance_floor=self.variance_floor,
        )
        return table

    # -- the parts

    def _make_mixture(self, device: torch.device) -> Mixture:
        count = arguments.count_experts(self.n_experts, self.experts)
        given = [None] * count if self.experts is None else list(self.experts)
        experts = [self._make_expert(one) for one in given]
        for k in arguments.frozen_experts(self.freeze_experts, count):
            experts[k].frozen = True
        mixture = Mixture(self._make_gate(count), experts)
        mixture.gate_frozen = bool(self.freeze_gate)
        return mixture.to(device=device, dtype=arguments.DTYPES[self.dtype])

    def _make_gate(self, count: int) -> nn.Module:
        return frame_gate(self.gate, count, self._shape_, self.gate_hidden, raw=not self.standardize)

    def _make_expert(self, given: Any) -> AbstractExpert:
        if given is not None and not isinstance(given, nn.Module):
            check_columns(given, self.n_features_in_, getattr(self, "feature_names_in_", None))
        labels = None if self._shape_.numbers else self.classes_
        return frame_expert(given, self._shape_, self.expert_hidden, labels, raw=not self.standardize)

    # -- training

    def _rows_of(self, table: Table) -> Rows:
        """Bring rows to the device; experts that do not learn are asked about each of them now."""
        shape = self._shape_
        y = shape.y.inside(table.y.reshape(len(table), -1)) if shape.numbers else table.y
        given = {}
        for k, expert in enumerate(self._mixture_.all_experts()):
            if isinstance(expert, FittedExpert):
                given[k] = self._tensor(expert.inside(table.X, shape.y))
            elif expert.frozen:
                given[k] = self._tensor(self._in_chunks(expert, table.X))
        weight = table.weight / table.weight.mean()
        return Rows(self._tensor(shape.x.inside(table.X)), self._tensor(y), self._tensor(weight), given)

    def _settings(self, rows: int, seed: int, epochs: int | None = None) -> Settings:
        return Settings(
            epochs=epochs or self.epochs,
            batch_size=self.batch_size or int(np.clip(rows // 16, 16, 1024)),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            seed=seed,
        )

    def _train(self, table: Table, seed: int, epochs: int | None = None) -> Run:
        """Train what is not frozen, on all rows or but those that are held out."""
        rows, held_out = self._rows_of(table), None
        wanted = len(table) >= ROWS_TO_HOLD_OUT if self.early_stopping == "auto" else self.early_stopping
        if wanted:
            rng = np.random.default_rng(seed)
            training, held = split(table, self.validation_fraction, rng, by_class=not self._shape_.numbers)
            if not len(training):
                raise ValueError(
                    f"validation_fraction={self.validation_fraction:g} of {len(table)} different rows leaves "
                    "none to train on; use a smaller one, or early_stopping=False"
                )
            held_out = rows.take(self._tensor(held))
            rows = rows.take(self._tensor(training))
        settings = self._settings(len(rows), seed, epochs)
        plan = self._plan()
        with ExitStack() as stack:
            meter = None
            if self.verbose:
                meter = stack.enter_context(progress("train", settings.epochs, "epochs"))
            run = train(self._mixture_, rows, held_out, plan, settings, meter)
        if self._shape_.numbers and plan.dress != "mean_and_width":
            self._learn_widths(table)
        return run

    def _plan(self) -> Plan:
        """Say what is minimised, with what holds for regressions and classifications alike."""
        return replace(self._make_plan(), k=self._top, baseline=self.baseline, balance=self.balance)

    def _given_loss(self) -> objectives.Loss:
        """Give the loss that the user gave, on the original scale of y."""
        loss, y = ReturnsTensor(self.loss), self._shape_.y
        if not self._shape_.numbers:
            return loss
        return OnTheOriginalScale(loss, self._tensor(y.mean), self._tensor(y.scale), self._single_)

    def _learn_widths(self, table: Table) -> None:
        """Find the noise widths that the objective does not know, with gate and means as they are."""
        rows = self._rows_of(table)
        experts = self._mixture_.all_experts()
        said = [
            rows.given[k].double().cpu().numpy() if k in rows.given else self._in_chunks(expert, table.X)
            for k, expert in enumerate(experts)
        ]
        y = rows.y.double().cpu().numpy()
        square = np.stack([(y - mean) ** 2 for mean in said])
        variance = variances(square, self._gate_proba_of(table.X).T, table.weight, self.variance_floor)
        for expert, own in zip(experts, variance, strict=True):
            if not expert.width_frozen:
                expert.set_sigma(np.sqrt(own))

    def _gate_proba_of(self, X: Floats) -> Floats:
        return self._gate_proba(Inputs(X))

    # -- what the fit shows

    def _show(self, table: Table, run: Run) -> None:
        """Set the learned attributes."""
        self.loss_curve_ = run.loss_curve
        self.validation_curve_ = run.validation_curve or None
        self.n_iter_ = max(len(run.loss_curve), 1)
        self._typical_row_ = self._shape_.x.mean
        self._total_weight_ = float(table.weight.sum())
        gate = self._gate_proba_of(table.X)
        self.weights_ = np.average(gate, axis=0, weights=table.weight)
        self._regions_ = [region(self._shape_.x.inside(table.X), table.weight * own) for own in gate.T]
        self.loglik_ = float(table.weight @ self._row_logliks(table.X, table.y))
