"""Routers: which tokens go to which experts. `ROUTERS` is the table of them."""

from expertise.nn.routers._abstract import AbstractRouter
from expertise.nn.routers.top_k import TopKRouter

ROUTERS: dict[str, type[AbstractRouter]] = {router.name: router for router in (TopKRouter,)}

__all__ = ["ROUTERS", "AbstractRouter", "TopKRouter"]
