"""The optimizers, each against its formula written out."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from expertise.youtube8m.optimizers import OPTIMIZERS

RATE = 0.1
Steps = Callable[[float, list[float]], float]


def adam(w: float, gradients: list[float]) -> float:
    """TensorFlow's form: epsilon is added before the bias is taken out."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= RATE * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 1e-8)
    return w


def adamw(w: float, gradients: list[float]) -> float:
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        w *= 1 - RATE * 0.01
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= RATE * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def gradient_descent(w: float, gradients: list[float]) -> float:
    return w - RATE * sum(gradients)


def momentum(w: float, gradients: list[float]) -> float:
    speed = 0.0
    for g in gradients:
        speed = 0.9 * speed + g
        w -= RATE * speed
    return w


def adagrad(w: float, gradients: list[float]) -> float:
    squares = 0.1
    for g in gradients:
        squares += g * g
        w -= RATE * g / math.sqrt(squares)
    return w


def rmsprop(w: float, gradients: list[float]) -> float:
    squares = 0.0
    for g in gradients:
        squares = 0.9 * squares + 0.1 * g * g
        w -= RATE * g / (math.sqrt(squares) + 1e-8)
    return w


FORMULAS: dict[str, Steps] = {
    "AdamOptimizer": adam,
    "Adam": adam,
    "AdamW": adamw,
    "GradientDescentOptimizer": gradient_descent,
    "GradientDescent": gradient_descent,
    "SGD": gradient_descent,
    "MomentumOptimizer": momentum,
    "Momentum": momentum,
    "AdagradOptimizer": adagrad,
    "Adagrad": adagrad,
    "RMSPropOptimizer": rmsprop,
    "RMSProp": rmsprop,
    "RMSprop": rmsprop,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps(name: str) -> None:
    gradients = [1.0, -0.5, 0.25, 2.0, -0.1]
    weight = torch.nn.Parameter(torch.tensor([1.0, -3.0]))
    optimizer = OPTIMIZERS[name]([weight])
    for g in gradients:
        weight.grad = torch.tensor([g, -2 * g])
        for group in optimizer.param_groups:
            group["lr"] = RATE
        optimizer.step()
    expected = [FORMULAS[name](1.0, gradients), FORMULAS[name](-3.0, [-2 * g for g in gradients])]
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5)


def test_epsilon_hat_matters_for_tiny_gradients() -> None:
    """The first step on a gradient of 1e-9: TensorFlow moves by far less than torch would."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = OPTIMIZERS["Adam"]([weight])
    optimizer.param_groups[0]["lr"] = RATE
    weight.grad = torch.tensor([1e-9])
    optimizer.step()
    assert weight.item() == pytest.approx(adam(0.0, [1e-9]), rel=1e-4)
    torch_would = -RATE * 1e-9 / (1e-9 + 1e-8)
    assert abs(weight.item()) < 0.1 * abs(torch_would)
