"""The parts of a mixture trained by gradient: networks in one frame, whoever made them.

Letters: B cases, D columns of X, G columns that the gate reads, E experts, O outputs (or V classes).

Inside, inputs are standardised, and so is the y of a regression; of a classification the experts say
logarithms of class probabilities. The frames bring modules that want the original scale into this form.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Floats = npt.NDArray[np.float64]

LEAST_LOG = -30.0  # of a class that a fitted expert never saw, in training: exp(-30) is 1e-13


@dataclass(frozen=True, eq=False)
class Scaling:
    """Location and scale of columns, (D,) each."""

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, columns: Floats, weight: Floats) -> "Scaling":
        """Measure columns (n, D); one that is constant is only moved."""
        mean = np.average(columns, axis=0, weights=weight)
        spread = np.sqrt(np.average((columns - mean) ** 2, axis=0, weights=weight))
        # a constant column has a spread of rounding errors only
        constant = spread <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
        return cls(mean, np.where(constant, 1.0, spread))

    @classmethod
    def identity(cls, columns: int) -> "Scaling":
        """Leave all as it is."""
        return cls(np.zeros(columns), np.ones(columns))

    def inside(self, columns: Floats) -> Floats:
        """Standardise."""
        return np.asarray((columns - self.mean) / self.scale)

    def outside(self, columns: Floats) -> Floats:
        """Give the original scale back."""
        return np.asarray(columns * self.scale + self.mean)


@dataclass(frozen=True, eq=False)
class Shape:
    """What a mixture is made of: sizes, kind, scales, and the columns that the gate reads."""

    outputs: int
    numbers: bool
    x: Scaling
    y: Scaling
    gate_columns: npt.NDArray[np.intp]
    variance_floor: float = 0.0


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Make a network of linear layers with SiLU between them; no hidden layer is a linear map."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, int(size)), nn.SiLU()]
        inputs = int(size)
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class _Frame(nn.Module):
    """A module on the original scale: undoes the standardising before, and does it again after."""

    x_mean: Tensor
    x_scale: Tensor
    y_mean: Tensor
    y_scale: Tensor

    def __init__(self, x: Scaling, y: Scaling) -> None:
        super().__init__()
        named = {"x_mean": x.mean, "x_scale": x.scale, "y_mean": y.mean, "y_scale": y.scale}
        for name, values in named.items():
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.get_default_dtype()))

    def before(self, x: Tensor) -> Tensor:
        return x * self.x_scale + self.x_mean

    def after(self, out: Tensor) -> Tensor:
        return (out - self.y_mean) / self.y_scale


class AbstractExpert(nn.Module):
    """An expert in the frame of a mixture; of a regression it has a noise width of its own.

    ``frozen`` says that it does not learn; its width may still, until that is frozen too.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.outputs, self.numbers = shape.outputs, shape.numbers
        self.variance_floor = float(shape.variance_floor)
        self.log_width = nn.Parameter(torch.zeros(shape.outputs)) if shape.numbers else None
        self.frozen = self.width_frozen = False

    def log_sigma(self) -> Tensor:
        """Give the logarithm of the noise widths, (O,), inside the scaling; never under the floor."""
        return log_sigmas([self])[0]

    def set_sigma(self, sigma: Floats) -> None:
        """Set the noise widths, (O,), inside the scaling."""
        assert self.log_width is not None, "classes have no width"
        free = np.maximum(sigma**2 - self.variance_floor, 1e-12)
        with torch.no_grad():
            self.log_width.copy_(torch.as_tensor(np.log(free) / 2))


def log_sigmas(experts: Sequence[AbstractExpert]) -> Tensor:
    """Give the logarithms of the noise widths of several experts of one mixture, (E, O)."""
    widths = []
    for expert in experts:
        assert expert.log_width is not None, "classes have no width"
        widths.append(expert.log_width.detach() if expert.width_frozen else expert.log_width)
    return torch.log(torch.exp(2 * torch.stack(widths)) + experts[0].variance_floor) / 2


def ask(network: nn.Module, x: Tensor, part: str) -> Any:
    """Run a module that may be the user's; ``part`` says what it is, where it fails."""
    try:
        return network(x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        way = f"it must take inputs of the shape (cases, {x.shape[1]})"
        if len(x) == 1 and network.training:
            way = (
                "one row alone came to it: batch normalisation needs two; use layer normalisation, a larger "
                'batch_size, or router="dense" with another objective than "reinforce"'
            )
        raise ValueError(
            f"{part} ({type(network).__name__}) failed on an input of shape {tuple(x.shape)}; {way}; it "
            f"said: {error}"
        ) from error


class NetworkExpert(AbstractExpert):
    """An expert that is a module.

    Parameters
    ----------
    network : (B, D) -> (B, O); (B,) where there is one output. Of a classification it gives logits.
    shape : of the mixture.
    raw : the network reads and says the original scale.
    hidden : sizes of the hidden layers of a network that was made here, which a file can bring back.
    """

    def __init__(
        self, network: nn.Module, shape: Shape, *, raw: bool = False, hidden: Sequence[int] | None = None
    ) -> None:
        super().__init__(shape)
        self.network = network
        self.hidden = None if hidden is None else [int(size) for size in hidden]
        self.raw = raw
        self.frame = _Frame(shape.x, shape.y) if raw else None

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give (B, O): means inside the scaling, or log probabilities of classes."""
        out = ask(self.network, x_BD if self.frame is None else self.frame.before(x_BD), "an expert")
        if isinstance(out, Tensor) and out.ndim == 1 and self.outputs == 1:
            out = out[:, None]
        if not isinstance(out, Tensor) or out.shape != (len(x_BD), self.outputs):
            raise ValueError(
                f"an expert must give the shape (cases, {self.outputs}), here ({len(x_BD)}, {self.outputs}); "
                f"got {tuple(getattr(out, 'shape', ()))} from {type(self.network).__name__}"
            )
        if not self.numbers:
            return out.log_softmax(dim=1)
        return out if self.frame is None else self.frame.after(out)


def named(X: Floats, names: Any) -> Any:
    """Give X as a data frame to an estimator that was fitted on one: it may choose columns by name."""
    if names is None:
        return X
    columns = {str(name): X[:, j] for j, name in enumerate(names)}
    for package in ("pandas", "polars"):
        try:
            return importlib.import_module(package).DataFrame(columns)
        except ImportError:
            continue
    return X


class FittedExpert(AbstractExpert):
    """An expert that is a fitted scikit-learn estimator: it never learns, and is asked with X as it came."""

    def __init__(self, estimator: Any, shape: Shape, classes: npt.NDArray[Any] | None) -> None:
        super().__init__(shape)
        self.estimator = estimator
        self.frozen = True
        self.columns = None if classes is None else np.searchsorted(classes, estimator.classes_)

    def predict(self, X: Floats) -> Floats:
        """Give (n, O) numbers on the original scale, or class probabilities in the mixture's order."""
        X = named(X, getattr(self.estimator, "feature_names_in_", None))
        if self.columns is None:
            said = np.asarray(self.estimator.predict(X), dtype=np.float64)
            return said.reshape(len(X), self.outputs)
        proba = np.zeros((len(X), self.outputs))  # a class that this expert never saw stays at 0
        proba[:, self.columns] = self.estimator.predict_proba(X)
        return proba

    def inside(self, X: Floats, y: Scaling) -> Floats:
        """Give the same as training takes it: inside the scaling of y, or logarithms, none of them -inf."""
        said = self.predict(X)
        return y.inside(said) if self.numbers else np.log(np.maximum(said, np.exp(LEAST_LOG)))


class NetworkGate(nn.Module):
    """A gate that is a module: (B, G) -> logits (B, E), from the columns that the gate reads."""

    columns: Tensor

    def __init__(
        self,
        network: nn.Module,
        n_experts: int,
        shape: Shape,
        *,
        raw: bool = False,
        hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.n_experts = n_experts
        self.hidden = None if hidden is None else [int(size) for size in hidden]
        self.raw = raw
        columns = shape.gate_columns
        self.register_buffer("columns", torch.as_tensor(columns, dtype=torch.long))
        read = Scaling(shape.x.mean[columns], shape.x.scale[columns])
        self.frame = _Frame(read, Scaling.identity(1)) if raw else None

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give logits (B, E)."""
        x_BG = x_BD[:, self.columns]
        logits_BE = ask(self.network, x_BG if self.frame is None else self.frame.before(x_BG), "gate")
        if not isinstance(logits_BE, Tensor) or logits_BE.shape != (len(x_BD), self.n_experts):
            raise ValueError(
                f"gate must give the shape (cases, experts), here ({len(x_BD)}, {self.n_experts}); "
                f"got {tuple(getattr(logits_BE, 'shape', ()))} from {type(self.network).__name__}"
            )
        return logits_BE


class GrownGate(nn.Module):
    """A gate with one expert more; what the old gate says of the old experts is not touched.

    The new logit is logsumexp(old) + novelty(x): the new expert's odds against all the others together are
    exp(novelty). Novelty is a parabola in each column, so that the new region may lie amid the old ones.
    """

    columns: Tensor

    def __init__(self, inner: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("columns", torch.as_tensor(columns, dtype=torch.long))
        self.novelty = nn.Linear(2 * len(columns), 1)
        nn.init.zeros_(self.novelty.weight)
        nn.init.zeros_(self.novelty.bias)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give logits (B, E + 1)."""
        old_BE = self.inner(x_BD)
        return torch.cat([old_BE, old_BE.logsumexp(dim=1, keepdim=True) + self.log_odds(x_BD)], dim=1)

    def log_odds(self, x_BD: Tensor) -> Tensor:
        """Give the log odds of the new expert against all the others together, (B, 1)."""
        x_BG = x_BD[:, self.columns]
        odds_B1: Tensor = self.novelty(torch.cat([x_BG, x_BG.square()], dim=1))
        return odds_B1


class CutGate(nn.Module):
    """A gate without one expert: the others' logits as they were, so their priors grow in proportion."""

    def __init__(self, inner: nn.Module, without: int) -> None:
        super().__init__()
        self.inner = inner
        self.without = without

    def forward(self, x_BD: Tensor) -> Tensor:
        """Give logits (B, E - 1)."""
        old_BE = self.inner(x_BD)
        return torch.cat([old_BE[:, : self.without], old_BE[:, self.without + 1 :]], dim=1)


class Mixture(nn.Module):
    """The gate and the experts, each under its own name."""

    def __init__(self, gate: nn.Module, experts: Sequence[AbstractExpert]) -> None:
        super().__init__()
        self.gate = gate
        self.experts = nn.ModuleList(experts)
        self.gate_frozen = False

    def expert(self, k: int) -> AbstractExpert:
        """Give expert k."""
        expert = self.experts[k]
        assert isinstance(expert, AbstractExpert)
        return expert

    def all_experts(self) -> list[AbstractExpert]:
        """Give the experts in order."""
        return [self.expert(k) for k in range(len(self.experts))]

    def learning(self) -> list[nn.Parameter]:
        """Give the parameters that learn; what a given module holds fixed by itself stays fixed."""
        parts: list[nn.Parameter] = [] if self.gate_frozen else list(self.gate.parameters())
        for expert in self.all_experts():
            if not expert.frozen:
                parts += expert.parameters()
            elif expert.log_width is not None and not expert.width_frozen:
                parts.append(expert.log_width)
        return [parameter for parameter in parts if parameter.requires_grad]

    def train(self, mode: bool = True) -> "Mixture":
        """Go into training or out of it; what is frozen stays out: no dropout, no running statistics."""
        super().train(mode)
        if self.gate_frozen:
            self.gate.eval()
        for expert in self.all_experts():
            if expert.frozen:
                expert.eval()
        return self
