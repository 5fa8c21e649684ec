"""Mixtral, Qwen2-MoE, Qwen3-MoE and OLMoE: softmax, then the k largest, renormalised or not."""

from typing import Any, ClassVar

from torch import nn

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


class _Mixtral(Block):
    name = "MixtralSparseMoeBlock"
    folder = "mixtral"
    config = "MixtralConfig"
    allows: ClassVar[dict[str, tuple[Any, ...]]] = {"router.renormalize": (True,), "router.jitter": ANY}

    def read(self, block: Any) -> MoE:
        gate = block.gate
        router = top_k_router(gate.weight, gate.top_k, True, jitter=float(block.jitter_noise))
        return MoE(router, swiglu_experts(block, router.dim))

    def settings(self, layer: MoE) -> dict[str, Any]:
        router, experts = sizes(layer)
        return {
            "hidden_size": router.dim,
            "intermediate_size": experts.hidden,
            "num_local_experts": router.num_experts,
            "num_experts_per_tok": router.k,
            "router_jitter_noise": router.jitter,
        }

    def write(self, layer: MoE, block: nn.Module) -> None:
        write_swiglu(layer, block)


class _Softmax(Block):
    """Qwen3-MoE and OLMoE: norm_topk_prob says whether the weights are renormalised."""

    def __init__(self, name: str, folder: str, config: str, hidden: str) -> None:
        self.name, self.folder, self.config = name, folder, config
        self._hidden = hidden

    def read(self, block: Any) -> MoE:
        gate = block.gate
        router = top_k_router(gate.weight, gate.top_k, gate.norm_topk_prob)
        return MoE(router, swiglu_experts(block, router.dim))

    def settings(self, layer: MoE) -> dict[str, Any]:
        return _settings(layer, self._hidden)

    def write(self, layer: MoE, block: nn.Module) -> None:
        write_swiglu(layer, block)


class _Qwen2(Block):
    name = "Qwen2MoeSparseMoeBlock"
    folder = "qwen2_moe"
    config = "Qwen2MoeConfig"
    allows: ClassVar[dict[str, tuple[Any, ...]]] = {"shared": (SHARED,), "shared_gate": (True,)}

    def read(self, block: Any) -> MoE:
        gate = block.gate
        router = top_k_router(gate.weight, gate.top_k, gate.norm_topk_prob)
        shared = read_shared(block.shared_expert)
        layer = MoE(router, swiglu_experts(block, router.dim), shared=shared, shared_gate=True)
        assert layer.shared_gate is not None
        put(layer.shared_gate, weight=block.shared_expert_gate.weight)
        return layer

    def settings(self, layer: MoE) -> dict[str, Any]:
        shared: Any = layer.shared
        return {
            **_settings(layer, "moe_intermediate_size"),
            "shared_expert_intermediate_size": shared.hidden,
        }

    def write(self, layer: MoE, block: Any) -> None:
        write_swiglu(layer, block)
        write_shared(layer.shared, block.shared_expert)
        assert layer.shared_gate is not None
        put(block.shared_expert_gate, weight=layer.shared_gate.weight)


def _settings(layer: MoE, hidden: str) -> dict[str, Any]:
    router, experts = sizes(layer)
    return {
        "hidden_size": router.dim,
        hidden: experts.hidden,
        "num_experts": router.num_experts,
        "num_experts_per_tok": router.k,
        "norm_topk_prob": router.renormalize,
    }


MIXTRAL = _Mixtral()
QWEN2 = _Qwen2()
QWEN3 = _Softmax("Qwen3MoeSparseMoeBlock", "qwen3_moe", "Qwen3MoeConfig", "moe_intermediate_size")
OLMOE = _Softmax("OlmoeSparseMoeBlock", "olmoe", "OlmoeConfig", "intermediate_size")
