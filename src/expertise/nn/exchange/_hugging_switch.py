"""Switch Transformer: one expert a token, a fixed capacity of each sequence; what does not fit is 0.

Fedus et al. 2021, arXiv 2101.03961.
"""

from typing import Any, ClassVar

import torch

from expertise.nn.exchange._hugging import ANY, Block, sizes, top_k_router
from expertise.nn.exchange._parts import experts_of, known_activation, put
from expertise.nn.layer import MoE


class _Switch(Block):
    name = "SwitchTransformersSparseMLP"
    folder = "switch_transformers"
    config = "SwitchTransformersConfig"
    allows: ClassVar[dict[str, tuple[Any, ...]]] = {
        "router.k": (1,),
        "router.bias": ANY,
        "router.jitter": ANY,
        "experts.activation": ("relu", "gelu"),
        "experts.dropout": ANY,
        "capacity": ANY,
        "capacity_per_sequence": (True,),
        "capacity_order": ("position",),
    }
    other_settings: ClassVar[dict[str, Any]] = {}

    def read(self, block: Any) -> MoE:
        theirs = block.router
        experts = [block.experts[f"expert_{e}"] for e in range(theirs.num_experts)]
        activation = known_activation(experts[0].act)
        if activation not in ("relu", "gelu"):
            raise ValueError(f"block: its activation must be relu or gelu (exact); got {experts[0].act!r}")
        classifier = theirs.classifier
        router = top_k_router(
            classifier.weight,
            1,
            False,
            bias=classifier.bias is not None,
            jitter=float(theirs.jitter_noise),
        )
        if classifier.bias is not None:
            put(router, bias_E=classifier.bias)
        up = torch.stack([expert.wi.weight.detach() for expert in experts])
        down = torch.stack([expert.wo.weight.detach() for expert in experts])
        up.requires_grad_(experts[0].wi.weight.requires_grad)
        down.requires_grad_(experts[0].wo.weight.requires_grad)
        return MoE(
            router,
            experts_of(up, down, activation=activation, dropout=experts[0].dropout.p),
            capacity=theirs.expert_capacity,
            capacity_per_sequence=True,
        )

    def settings(self, layer: MoE) -> dict[str, Any]:
        router, experts = sizes(layer)
        if layer.capacity is None:
            raise ValueError(
                f"{self.name} has a fixed capacity; the layer has none; make the layer with capacity=, the "
                "tokens of a sequence that an expert takes at most"
            )
        return {
            "d_model": router.dim,
            "d_ff": experts.hidden,
            "num_experts": router.num_experts,
            "expert_capacity": layer.capacity,
            "router_bias": router.bias_E is not None,
            "router_jitter_noise": router.jitter,
            "dense_act_fn": experts.activation,
            "dropout_rate": experts.dropout,
        }

    def write(self, layer: MoE, block: Any) -> None:
        router, experts = sizes(layer)
        put(block.router.classifier, weight=router.weight_ED)
        if router.bias_E is not None:
            put(block.router.classifier, bias=router.bias_E)
        up, down = experts.up_weight.unbind(0), experts.down_weight.unbind(0)
        for e in range(router.num_experts):
            put(block.experts[f"expert_{e}"].wi, weight=up[e])
            put(block.experts[f"expert_{e}"].wo, weight=down[e])


SWITCH = _Switch()
