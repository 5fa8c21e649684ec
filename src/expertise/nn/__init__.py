"""Mixtures trained by gradient, and layers: routers, experts, dispatch, losses. Needs torch."""

from expertise._optional import require

require("torch", "torch")

from expertise.nn.balance import load_balance_loss
from expertise.nn.experts import ExpertList, Experts
from expertise.nn.layer import MoE
from expertise.nn.recording import record_routing
from expertise.nn.routers import ROUTERS, TopKRouter
from expertise.nn.routing import Routing, SoftRouting
from expertise.nn.soft import SoftMoE

__all__ = [
    "ROUTERS",
    "ExpertList",
    "Experts",
    "MoE",
    "Routing",
    "SoftMoE",
    "SoftRouting",
    "TopKRouter",
    "load_balance_loss",
    "record_routing",
]
