"""The blocks of transformers are the oracle: same weights, same output, same gradients, and back again."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers", minversion="5.0")

import transformers
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from expertise.nn import Experts, MoE, TopKRouter
from expertise.nn.exchange import from_transformers, to_transformers

D, E, H = 12, 8, 10
CLOSE = 5e-6  # in float32


class Case(NamedTuple):
    block: type[nn.Module]
    config: type[Any]
    settings: dict[str, Any]


def softmax_case(block: type[nn.Module], config: type[Any], hidden: str, **more: Any) -> Case:
    plain = {"hidden_size": D, hidden: H, "num_attention_heads": 1, "num_key_value_heads": 1}
    return Case(block, config, {**plain, "num_experts_per_tok": 3, **more})


def deepseek(**more: Any) -> Case:
    settings = {"n_routed_experts": E, "n_shared_experts": 2, "routed_scaling_factor": 2.5, **more}
    return softmax_case(DeepseekV3MoE, transformers.DeepseekV3Config, "moe_intermediate_size", **settings)


def switch(**more: Any) -> Case:
    plain = {"d_model": D, "d_ff": H, "num_experts": E, "dropout_rate": 0.0, "router_jitter_noise": 0.0}
    return Case(SwitchTransformersSparseMLP, transformers.SwitchTransformersConfig, {**plain, **more})


MIXTRAL = softmax_case(
    MixtralSparseMoeBlock, transformers.MixtralConfig, "intermediate_size", num_local_experts=E
)
QWEN2, QWEN2_NORM = (
    softmax_case(
        Qwen2MoeSparseMoeBlock,
        transformers.Qwen2MoeConfig,
        "moe_intermediate_size",
        num_experts=E,
        shared_expert_intermediate_size=14,
        norm_topk_prob=norm,
    )
    for norm in (False, True)
)
QWEN3, QWEN3_NORM = (
    softmax_case(
        Qwen3MoeSparseMoeBlock,
        transformers.Qwen3MoeConfig,
        "moe_intermediate_size",
        num_experts=E,
        norm_topk_prob=norm,
    )
    for norm in (False, True)
)
OLMOE, OLMOE_NORM = (
    softmax_case(
        OlmoeSparseMoeBlock,
        transformers.OlmoeConfig,
        "intermediate_size",
        num_experts=E,
        norm_topk_prob=norm,
    )
    for norm in (False, True)
)
CASES = {
    "mixtral": MIXTRAL,
    "qwen2": QWEN2,
    "qwen2 renormalised": QWEN2_NORM,
    "qwen3": QWEN3,
    "qwen3 renormalised": QWEN3_NORM,
    "qwen3 top 1": QWEN3._replace(settings=QWEN3.settings | {"num_experts_per_tok": 1}),
    "olmoe": OLMOE,
    "olmoe renormalised": OLMOE_NORM,
    "deepseek, groups": deepseek(n_group=4, topk_group=2),
    "deepseek, one group": deepseek(n_group=1, topk_group=1),
    "deepseek, not renormalised": deepseek(
        n_group=2, topk_group=1, norm_topk_prob=False, routed_scaling_factor=1.0
    ),
    "switch": switch(expert_capacity=64),
    "switch, rows drop": switch(expert_capacity=1),
    "switch, bias and gelu": switch(expert_capacity=2, router_bias=True, dense_act_fn="gelu"),
}
one_of_each = pytest.mark.parametrize(
    "name", ["mixtral", "qwen2", "qwen3", "olmoe", "deepseek, groups", "switch, bias and gelu"]
)


def make(name: str, seed: int = 0) -> Any:
    case = CASES[name]
    config = case.config(**case.settings)
    config._experts_implementation = "eager"
    torch.manual_seed(seed)
    block = case.block(config)
    for key, tensor in block.state_dict().items():
        # so that values are of order one all through: CLOSE is an absolute bound
        nn.init.normal_(tensor, std=0.1 if "bias" in key else tensor.shape[-1] ** -0.5)
    return block


def experts_gradients(block: Any) -> tuple[Tensor, Tensor]:
    if isinstance(block, SwitchTransformersSparseMLP):
        grads = [
            [torch.zeros_like(p) if p.grad is None else p.grad for p in (e.wi.weight, e.wo.weight)]
            for e in (block.experts[f"expert_{i}"] for i in range(E))
        ]
        return torch.stack([g[0] for g in grads]), torch.stack([g[1] for g in grads])
    return block.experts.gate_up_proj.grad, block.experts.down_proj.grad


def gradients(block: Any) -> dict[str, Tensor]:
    """Give a block's gradients under our names."""
    up, down = experts_gradients(block)
    found = {"experts.up_weight": up, "experts.down_weight": down}
    if isinstance(block, SwitchTransformersSparseMLP):
        found["router.weight_ED"] = block.router.classifier.weight.grad
        if block.router.classifier.bias is not None:
            found["router.bias_E"] = block.router.classifier.bias.grad
        return found
    found["router.weight_ED"] = block.gate.weight.grad
    children = dict(block.named_children())
    shared = children.get("shared_expert", children.get("shared_experts"))
    if shared is not None:
        found["shared.up_weight"] = torch.cat([shared.gate_proj.weight.grad, shared.up_proj.weight.grad])
        found["shared.down_weight"] = shared.down_proj.weight.grad
    if "shared_expert_gate" in children:
        found["shared_gate.weight"] = block.shared_expert_gate.weight.grad
    return found


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CASES)
def test_forward_and_all_gradients_are_theirs(name: str, training: bool) -> None:
    for seed, shape in ((0, (3, 11, D)), (1, (2, 16, D)), (2, (1, 1, D)), (3, (4, 1, D))):
        block = make(name, seed).train(training)
        layer = from_transformers(block)
        assert layer.training is training
        x, x_theirs = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for _ in range(2))
        y, y_theirs = layer(x.requires_grad_()), block(x_theirs.requires_grad_())
        assert (y - y_theirs).abs().max() <= CLOSE
        direction = torch.randn(shape)
        (y * direction).sum().backward()
        (y_theirs * direction).sum().backward()
        assert x.grad is not None
        assert (x.grad - x_theirs.grad).abs().max() <= CLOSE
        expected = gradients(block)
        found = dict(layer.named_parameters())
        assert expected.keys() == found.keys()
        for key, grad in expected.items():
            assert (found[key].grad - grad).abs().max() <= CLOSE, key
        assert expected["router.weight_ED"].abs().max() > 0


def test_the_same_rows_are_dropped_as_in_switch() -> None:
    dropped_of_all = 0
    for seed in range(5):
        block = make("switch, rows drop", seed)
        x = torch.randn(3, 20, D)
        y, routing = from_transformers(block)(x, return_routing=True)
        chosen, _, _ = block.router(x)
        assert torch.equal(routing.picked_TK.view(3, 20), chosen.sum(-1).bool())
        assert torch.equal((y == 0).all(-1), (block(x) == 0).all(-1))
        dropped_of_all += int(routing.dropped)
    assert dropped_of_all > 100


def test_groups_and_selection_bias_of_deepseek_matter_in_this_oracle() -> None:
    block = make("deepseek, groups")
    layer = from_transformers(block)
    x = torch.randn(4, 50, D)
    _, routing = layer(x, return_routing=True)
    for change in ({"groups": None}, {"selection_bias_E": torch.zeros(E)}):
        other = from_transformers(block)
        for name, value in change.items():
            setattr(other.router, name, value)
        _, without = other(x, return_routing=True)
        assert not torch.equal(routing.experts_TK.sort(-1).values, without.experts_TK.sort(-1).values)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_again_is_exact(name: str) -> None:
    block = make(name)
    layer = from_transformers(block)
    made = to_transformers(layer, type(block).__name__)
    assert type(made) is type(block)
    assert made.state_dict().keys() == block.state_dict().keys()
    for key, tensor in block.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[key]), key
    x = torch.randn(2, 7, D)
    assert torch.equal(made(x), block(x))
    again = from_transformers(made)
    assert repr(again) == repr(layer)
    for key, tensor in layer.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key


@one_of_each
def test_weights_are_copies_of_the_same_type(name: str) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        block = make(name).to(dtype)
        block.requires_grad_(False)
        layer = from_transformers(block)
        for key, parameter in layer.named_parameters():
            assert parameter.dtype == dtype, key
            assert not parameter.requires_grad
        kept = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
        for parameter in block.parameters():
            parameter.zero_()
        assert all(torch.equal(tensor, kept[key]) for key, tensor in layer.state_dict().items())
        y = layer(torch.randn(1, 5, D, dtype=dtype))
        assert y.dtype == dtype


def test_the_correction_bias_stays_float32() -> None:
    block = make("deepseek, groups").to(torch.bfloat16)
    router: Any = from_transformers(block).router
    assert router.selection_bias_E.dtype == torch.float32
    assert torch.equal(router.selection_bias_E, block.gate.e_score_correction_bias.float())
    assert "selection_bias_E" not in dict(router.named_parameters())


def test_a_block_for_a_given_config() -> None:
    case = CASES["mixtral"]
    config = case.config(**case.settings, vocab_size=77)
    config._experts_implementation = "batched_mm"
    layer = MoE(TopKRouter(D, E, 3), Experts(E, D, H))
    block: Any = to_transformers(layer, "MixtralSparseMoeBlock", config)
    assert block.experts.config is config
    x = torch.randn(2, 5, D)
    assert (block(x) - layer(x)).abs().max() <= CLOSE
    with pytest.raises(ValueError, match=r"config.num_experts_per_tok must be 2, as in the layer; got 3"):
        to_transformers(MoE(TopKRouter(D, E, 2), Experts(E, D, H)), "MixtralSparseMoeBlock", config)


def test_settings_of_a_block_that_the_layer_does_not_have() -> None:
    block = make("mixtral")
    block.experts.act_fn = nn.Tanh()
    with pytest.raises(ValueError, match=r"its activation must be silu, which swiglu is made of; got Tanh"):
        from_transformers(block)
    block = make("mixtral")
    block.gate.top_k = 1
    with pytest.raises(ValueError, match=r"renormalises the weight of its single chosen expert"):
        from_transformers(block)
    block = make("mixtral")
    block.experts = nn.ModuleList([nn.Identity()])
    with pytest.raises(ValueError, match=r"must have gate_up_proj and down_proj, as in transformers 5"):
        from_transformers(block)
    block = make("mixtral")
    block.experts.down_proj = nn.Parameter(torch.zeros(E, H, D))
    with pytest.raises(ValueError, match=r"down_proj \(E, 12, H\); got \(8, 20, 12\) and \(8, 10, 12\)"):
        from_transformers(block)
    block = make("switch")
    block.experts["expert_0"].act = nn.SiLU()
    with pytest.raises(ValueError, match=r"its activation must be relu or gelu \(exact\); got SiLU"):
        from_transformers(block)


def test_a_single_expert_of_mixtral_is_the_dense_block() -> None:
    case = CASES["mixtral"]
    settings = case.settings | {"num_local_experts": 1, "num_experts_per_tok": 1}
    config = case.config(**settings)
    config._experts_implementation = "eager"
    torch.manual_seed(0)
    block = case.block(config)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 4, D)
    assert (from_transformers(block)(x) - block(x)).abs().max() <= CLOSE * 100
    again = to_transformers(from_transformers(block), "MixtralSparseMoeBlock")
    assert torch.equal(again(x), block(x))
