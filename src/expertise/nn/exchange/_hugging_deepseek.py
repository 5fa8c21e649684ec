"""DeepSeek-V3: sigmoid scores, groups, a bias for the choice alone, a scale, and shared experts.

DeepSeek-AI 2024, arXiv 2412.19437, eq. 12-16.
"""

from typing import Any, ClassVar

from expertise.nn.exchange._hugging import (
    ANY,
    SHARED,
    Block,
    read_shared,
    sizes,
    swiglu_experts,
    top_k_router,
    write_shared,
    write_swiglu,
)
from expertise.nn.exchange._parts import put
from expertise.nn.layer import MoE


class _DeepseekV3(Block):
    name = "DeepseekV3MoE"
    folder = "deepseek_v3"
    config = "DeepseekV3Config"
    allows: ClassVar[dict[str, tuple[Any, ...]]] = {
        "router.activation": ("sigmoid",),
        "router.scale": ANY,
        "router.groups": ANY,
        "router.selection_bias": ANY,
        "shared": (SHARED,),
    }

    def read(self, block: Any) -> MoE:
        gate = block.gate
        grouped = gate.num_group > 1
        router = top_k_router(
            gate.weight,
            gate.top_k,
            gate.norm_topk_prob,
            activation="sigmoid",
            scale=float(gate.routed_scaling_factor),
            groups=gate.num_group if grouped else None,
            groups_kept=gate.topk_group if grouped else None,
            selection_bias=True,
        )
        put(router, selection_bias_E=gate.e_score_correction_bias.float())
        experts = swiglu_experts(block, router.dim)
        return MoE(router, experts, shared=read_shared(block.shared_experts))

    def settings(self, layer: MoE) -> dict[str, Any]:
        router, experts = sizes(layer)
        shared: Any = layer.shared
        if shared.hidden % experts.hidden:
            raise ValueError(
                f"{self.name} has a whole number of shared experts of the size of the others; the layer's "
                f"shared one has hidden={shared.hidden}, which is no multiple of {experts.hidden}"
            )
        return {
            "hidden_size": router.dim,
            "moe_intermediate_size": experts.hidden,
            "n_routed_experts": router.num_experts,
            "num_experts_per_tok": router.k,
            "n_shared_experts": shared.hidden // experts.hidden,
            "routed_scaling_factor": router.scale,
            "n_group": router.groups or 1,
            "topk_group": router.groups_kept or 1,
            "norm_topk_prob": router.renormalize,
        }

    def write(self, layer: MoE, block: Any) -> None:
        router, _ = sizes(layer)
        write_swiglu(layer, block)
        bias_E = router.selection_bias_E
        if bias_E is None:
            bias_E = router.weight_ED.new_zeros(router.num_experts).float()
        put(block.gate, e_score_correction_bias=bias_E)
        write_shared(layer.shared, block.shared_experts)


DEEPSEEK_V3 = _DeepseekV3()
