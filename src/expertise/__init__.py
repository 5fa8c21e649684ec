"""Mixtures of experts: many models, each a specialist, and a gate that decides whom to trust."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from expertise.mixture import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
    from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor

# Names of the package that load on first use (PEP 562), and where they live.
_PLACES = {
    "MixtureOfExpertsRegressor": "expertise.mixture",
    "MixtureOfExpertsClassifier": "expertise.mixture",
    "NeuralMixtureRegressor": "expertise.nn.estimators",
    "NeuralMixtureClassifier": "expertise.nn.estimators",
}

__all__ = [
    "MixtureOfExpertsClassifier",
    "MixtureOfExpertsRegressor",
    "NeuralMixtureClassifier",
    "NeuralMixtureRegressor",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing the package costs nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'expertise' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
