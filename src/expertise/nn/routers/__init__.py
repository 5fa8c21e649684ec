"""Routers: which tokens go to which experts. `ROUTERS` is the table of them."""

from expertise.nn.routers._abstract import AbstractRouter
from expertise.nn.routers.base import BaseRouter
from expertise.nn.routers.dense import DenseRouter
from expertise.nn.routers.expert_choice import ExpertChoiceRouter
from expertise.nn.routers.hash import HashRouter
from expertise.nn.routers.hierarchical import HierarchicalRouter
from expertise.nn.routers.noisy_top_k import NoisyTopKRouter
from expertise.nn.routers.sampled import SampledRouter
from expertise.nn.routers.sinkhorn import SinkhornRouter
from expertise.nn.routers.top_k import TopKRouter
from expertise.nn.routers.top_p import TopPRouter

ROUTERS: dict[str, type[AbstractRouter]] = {
    router.name: router
    for router in (
        DenseRouter,
        TopKRouter,
        NoisyTopKRouter,
        ExpertChoiceRouter,
        HashRouter,
        SinkhornRouter,
        BaseRouter,
        TopPRouter,
        HierarchicalRouter,
        SampledRouter,
    )
}

__all__ = [
    "ROUTERS",
    "AbstractRouter",
    "BaseRouter",
    "DenseRouter",
    "ExpertChoiceRouter",
    "HashRouter",
    "HierarchicalRouter",
    "NoisyTopKRouter",
    "SampledRouter",
    "SinkhornRouter",
    "TopKRouter",
    "TopPRouter",
]
