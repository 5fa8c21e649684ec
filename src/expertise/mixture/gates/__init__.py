"""The gates, one file each. The table is what ``gate=`` accepts by name."""

from expertise.mixture.gates._abstract import AbstractGate, GateSettings
from expertise.mixture.gates.constant import ConstantGate
from expertise.mixture.gates.estimator import EstimatorGate
from expertise.mixture.gates.gaussian import GaussianGate
from expertise.mixture.gates.softmax import SoftmaxGate
from expertise.mixture.gates.tree import TreeGate

GATES: dict[str, type[AbstractGate]] = {
    "constant": ConstantGate,
    "softmax": SoftmaxGate,
    "gaussian": GaussianGate,
    "tree": TreeGate,
    "estimator": EstimatorGate,
}

__all__ = [
    "GATES",
    "AbstractGate",
    "ConstantGate",
    "EstimatorGate",
    "GateSettings",
    "GaussianGate",
    "SoftmaxGate",
    "TreeGate",
]
