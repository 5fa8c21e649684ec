"""The cases on which every router of the table is tested: some settings of each, with what they promise."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expertise.nn import Experts, MoE
from expertise.nn.routers import (
    AbstractRouter,
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

Make = Callable[[int, int], AbstractRouter]


@dataclass(frozen=True)
class Case:
    """A router with its settings.

    ``weights`` is what a token's weights promise: they "sum to 1", "sum to at most 1", or lie "between 0
    and 1". ``draws``: training is random. ``row_independent``: None is what the class says.
    """

    name: str
    id: str
    make: Make
    weights: str
    draws: bool = False
    row_independent: bool | None = None

    def router(self, dim: int = 4, num_experts: int = 4, seed: int = 0) -> AbstractRouter:
        """Give the router with random parameters; some start at 0, where everything is a tie."""
        torch.manual_seed(seed)
        router = self.make(dim, num_experts)
        for name, parameter in router.named_parameters():
            if name == "threshold_E":
                nn.init.constant_(parameter, 0.8 / num_experts)
            else:
                nn.init.normal_(parameter)
        return router

    def layer(self, dim: int = 4, num_experts: int = 4, seed: int = 0, **settings) -> MoE:  # type: ignore[no-untyped-def]
        router = self.router(dim, num_experts, seed)
        return MoE(router, Experts(num_experts, dim, 5, activation="gelu", bias=True), **settings)


ONE, AT_MOST, BETWEEN = "sum to 1", "sum to at most 1", "between 0 and 1"


def _top_k_groups(D: int, E: int) -> AbstractRouter:
    groups = 2 if E % 2 == 0 else 1
    k = min(2, E // groups)
    return TopKRouter(D, E, k, activation="sigmoid", groups=groups, groups_kept=1, selection_bias=True)


def _hierarchical(k: int, kept: int, noisy: bool) -> Make:
    def make(D: int, E: int) -> AbstractRouter:
        groups = 2 if E % 2 == 0 else 1
        return HierarchicalRouter(
            D, E, min(k, E // groups), groups=groups, groups_kept=min(kept, groups), noisy=noisy
        )

    return make


CASES = [
    Case("dense", "softmax", DenseRouter, ONE),
    Case("dense", "sigmoid", lambda D, E: DenseRouter(D, E, activation="sigmoid"), BETWEEN),
    Case("top_k", "k1", lambda D, E: TopKRouter(D, E, 1), AT_MOST),
    Case("top_k", "k2", lambda D, E: TopKRouter(D, E, min(2, E)), ONE),
    Case("top_k", "groups", _top_k_groups, BETWEEN),
    Case("noisy_top_k", "k1", lambda D, E: NoisyTopKRouter(D, E, 1), AT_MOST, draws=True),
    Case("noisy_top_k", "k2", lambda D, E: NoisyTopKRouter(D, E, min(2, E)), ONE, draws=True),
    Case("expert_choice", "batch", lambda D, E: ExpertChoiceRouter(D, E), AT_MOST),
    Case(
        "expert_choice",
        "thresholds",
        lambda D, E: ExpertChoiceRouter(D, E, inference="thresholds"),
        AT_MOST,
        row_independent=True,
    ),
    Case("hash", "k1", lambda D, E: HashRouter(D, E), ONE),
    Case("hash", "k2", lambda D, E: HashRouter(D, E, min(2, E), seed=3), ONE),
    Case("sinkhorn", "k1", lambda D, E: SinkhornRouter(D, E), AT_MOST),
    Case("sinkhorn", "k2", lambda D, E: SinkhornRouter(D, E, min(2, E), activation="sigmoid"), BETWEEN),
    Case("base", "default", BaseRouter, BETWEEN),
    Case("top_p", "plain", lambda D, E: TopPRouter(D, E, 0.6), AT_MOST),
    Case("top_p", "renormalized", lambda D, E: TopPRouter(D, E, 0.6, renormalize=True), ONE),
    Case("top_p", "at_most_2", lambda D, E: TopPRouter(D, E, 0.9, max_experts=min(2, E)), AT_MOST),
    Case("hierarchical", "one_of_one", _hierarchical(1, 1, False), AT_MOST),
    Case("hierarchical", "two_of_two", _hierarchical(2, 2, False), ONE),
    Case("hierarchical", "noisy", _hierarchical(1, 2, True), AT_MOST, draws=True),
    Case("sampled", "default", SampledRouter, ONE, draws=True),
]

# what every token takes everybody with, where there is such a thing
TAKES_ALL: dict[str, Make] = {
    "dense": DenseRouter,
    "top_k": lambda D, E: TopKRouter(D, E, E),
    "noisy_top_k": lambda D, E: NoisyTopKRouter(D, E, E),
    "expert_choice": lambda D, E: ExpertChoiceRouter(D, E, capacity_factor=float(E)),
    "hash": lambda D, E: HashRouter(D, E, E),
    "sinkhorn": lambda D, E: SinkhornRouter(D, E, E),
    "top_p": lambda D, E: TopPRouter(D, E, 1.0),
    "hierarchical": lambda D, E: HierarchicalRouter(D, E, E // 2, groups=2, groups_kept=2),
}
TAKES_ONE = {"base", "sampled"}


def ids_for(x: Tensor) -> Tensor:
    """Give different token ids of the shape of the tokens."""
    return torch.arange(1000, 1000 + x[..., 0].numel()).view(x.shape[:-1])
