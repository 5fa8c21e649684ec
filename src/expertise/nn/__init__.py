"""Mixtures trained by gradient, and layers: routers, experts, dispatch, losses. Needs torch."""

from typing import TYPE_CHECKING, Any

from expertise._optional import require

require("torch", "torch")

from expertise.nn.balance import (
    entropy_loss,
    importance_loss,
    load_balance_loss,
    load_loss,
    router_z_loss,
    sequence_balance_loss,
)
from expertise.nn.experts import ExpertList, Experts
from expertise.nn.layer import MoE
from expertise.nn.loss_free import LossFreeBias
from expertise.nn.picking import only_picked
from expertise.nn.recording import record_routing
from expertise.nn.routers import (
    ROUTERS,
    BaseRouter,
    DenseRouter,
    ExpertChoiceRouter,
    HashRouter,
    HierarchicalRouter,
    NoisyTopKRouter,
    SampledRouter,
    SinkhornRouter,
    TopKRouter,
    TopPRouter,
)
from expertise.nn.routing import Routing, SoftRouting
from expertise.nn.soft import SoftMoE
from expertise.nn.statistics import routing_statistics

if TYPE_CHECKING:
    from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
    from expertise.nn.exchange import (
        FeedForward,
        dense_form,
        from_transformers,
        load_layer,
        merge,
        prune,
        save_layer,
        to_onnx,
        to_transformers,
        upcycle,
    )

# Names that load on first use: a layer needs no scikit-learn.
_PLACES = {
    "NeuralMixtureRegressor": "expertise.nn.estimators",
    "NeuralMixtureClassifier": "expertise.nn.estimators",
    "FeedForward": "expertise.nn.exchange",
    "dense_form": "expertise.nn.exchange",
    "from_transformers": "expertise.nn.exchange",
    "load_layer": "expertise.nn.exchange",
    "merge": "expertise.nn.exchange",
    "prune": "expertise.nn.exchange",
    "save_layer": "expertise.nn.exchange",
    "to_onnx": "expertise.nn.exchange",
    "to_transformers": "expertise.nn.exchange",
    "upcycle": "expertise.nn.exchange",
}

__all__ = [
    "ROUTERS",
    "BaseRouter",
    "DenseRouter",
    "ExpertChoiceRouter",
    "ExpertList",
    "Experts",
    "FeedForward",
    "HashRouter",
    "HierarchicalRouter",
    "LossFreeBias",
    "MoE",
    "NeuralMixtureClassifier",
    "NeuralMixtureRegressor",
    "NoisyTopKRouter",
    "Routing",
    "SampledRouter",
    "SinkhornRouter",
    "SoftMoE",
    "SoftRouting",
    "TopKRouter",
    "TopPRouter",
    "dense_form",
    "entropy_loss",
    "from_transformers",
    "importance_loss",
    "load_balance_loss",
    "load_layer",
    "load_loss",
    "merge",
    "only_picked",
    "prune",
    "record_routing",
    "router_z_loss",
    "routing_statistics",
    "save_layer",
    "sequence_balance_loss",
    "to_onnx",
    "to_transformers",
    "upcycle",
]


def __getattr__(name: str) -> Any:
    """Load a name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module 'expertise.nn' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)
