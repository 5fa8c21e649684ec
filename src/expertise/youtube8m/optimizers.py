"""The optimizers, by their TensorFlow and their torch names, and the learning rate."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn


class TensorFlowAdam(torch.optim.Adam):
    """Adam in TensorFlow's epsilon-hat form (Kingma & Ba 2015, the text before section 2.1).

    w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps): epsilon is added before the bias of v is taken
    out. torch adds it afterwards; with its epsilon divided by sqrt(1 - b2^t) the two are the same.
    """

    epsilon_hat = 1e-8

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step."""
        for group in self.param_groups:
            state = self.state.get(group["params"][0])
            done = float(state["step"]) if state else 0.0
            group["eps"] = self.epsilon_hat / math.sqrt(1.0 - group["betas"][1] ** (done + 1.0))
        super().step(closure)


Parameters = Iterable[nn.Parameter]


def _adam(parameters: Parameters) -> torch.optim.Optimizer:
    return TensorFlowAdam(parameters, fused=True)


def _adamw(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True)


def _gradient_descent(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, fused=True)


def _momentum(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, momentum=0.9, fused=True)


def _adagrad(parameters: Parameters) -> torch.optim.Optimizer:
    # TensorFlow starts the sum of squares at .1, which keeps the first steps small
    return torch.optim.Adagrad(parameters, initial_accumulator_value=0.1)


def _rmsprop(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, alpha=0.9)


OPTIMIZERS: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    "AdamOptimizer": _adam,
    "Adam": _adam,
    "AdamW": _adamw,
    "GradientDescentOptimizer": _gradient_descent,
    "GradientDescent": _gradient_descent,
    "SGD": _gradient_descent,
    "MomentumOptimizer": _momentum,
    "Momentum": _momentum,
    "AdagradOptimizer": _adagrad,
    "Adagrad": _adagrad,
    "RMSPropOptimizer": _rmsprop,
    "RMSProp": _rmsprop,
    "RMSprop": _rmsprop,
}


def staircase(base: float, decay: float, decay_examples: float, examples: int) -> float:
    """Give the learning rate after so many examples: base decay^floor(examples / decay_examples).

    >>> staircase(0.01, 0.95, 4_000_000, 3_999_999), staircase(0.01, 0.95, 4_000_000, 4_000_000)
    (0.01, 0.0095)
    """
    return float(base * decay ** (examples // decay_examples))


def clip_each(parameters: Parameters, limit: float) -> None:
    """Scale down each parameter's gradient whose norm is over ``limit``; 0 or less does nothing.

    Variable by variable, as the reference does, not all together.
    """
    if limit <= 0:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            norm = torch.linalg.vector_norm(parameter.grad)
            if norm.device.type != "cpu":  # to ask for the norm would be to wait for the device
                parameter.grad.mul_((limit / norm).clamp(max=1.0))
            # a gradient within the limit is most gradients: it is not touched again
            elif not norm <= limit:
                parameter.grad.mul_(limit / norm)
