"""Every flag of the role "model" changes what a model of the table does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from expertise.youtube8m.flags import Flags
from expertise.youtube8m.loading import prepare
from expertise.youtube8m.model_flags import OPTIONS, ModelFlags
from expertise.youtube8m.models import FRAME_MODELS, AbstractModel, AbstractVideoModel, build_model

D, C, L = 8, 5, 12
SMALL: dict[str, Any] = {
    **{name: 8 for name in OPTIONS if name.endswith(("_size", "_cells", "_hidden"))},
    "moe_rank": 0,
    "nextvlad_groups": 2,
    "nextvlad_reduction": 2,
    "attention_heads": 2,
    "frame_moe_experts": 3,
    "context_gating_rank": 2,
}


def built(model: str, changes: dict[str, Any]) -> AbstractModel:
    flags = ModelFlags(
        model=model, feature_names=("a",), feature_sizes=(D,), num_classes=C, class_names=(),
        frame_features=model in FRAME_MODELS, options=Flags(**{**SMALL, **changes}),
    )  # fmt: skip
    made = build_model(flags)
    made.reset(torch.Generator().manual_seed(0))
    return made


def inputs(model: str) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    if model not in FRAME_MODELS:
        return prepare(torch.randn(6, D, generator=generator))
    frames = torch.randint(0, 256, (6, L, D), generator=generator, dtype=torch.uint8)
    return prepare(frames, torch.tensor([L, L - 3, 5, 2, 1, 7]))


def sizes(model: str, changes: dict[str, Any]) -> Any:
    """Names and shapes of all variables."""
    return {name: tuple(weight.shape) for name, weight in built(model, changes).named_parameters()}


def learned(model: str, changes: dict[str, Any]) -> Any:
    """What it answers in training, and all that is learned there, with the same random numbers."""
    made = built(model, changes).train()
    torch.manual_seed(0)
    outputs = made.training_outputs(*inputs(model))
    loss = 0.0 if outputs.loss is None else outputs.loss.item()
    return made.pool_and_pullback(*outputs.logits)[0].tolist(), loss, made.early_weight


def said(model: str, changes: dict[str, Any]) -> Any:
    """What it answers twice after training."""
    made = built(model, changes).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        return made(*inputs(model)).tolist(), made(*inputs(model)).tolist()


def penalties(model: str, changes: dict[str, Any]) -> Any:
    return [l2 for _, l2 in built(model, changes).penalized()]


def remembered(model: str, changes: dict[str, Any]) -> Any:
    """What it answers after it has seen some videos, where it remembers any."""
    made = built(model, changes).eval()
    x_BD, labels_BC = torch.eye(D)[:5], torch.eye(C) > 0
    if isinstance(made, AbstractVideoModel) and made.memory_size:
        made.remember([(x_BD, labels_BC)])
    with torch.no_grad():
        return made(x_BD).tolist()


def remembered_by_three(model: str, changes: dict[str, Any]) -> Any:
    return remembered(model, {"memory_videos": 3, **changes})


Observe = Callable[[str, dict[str, Any]], Any]
CASES: dict[str, tuple[str, Any, Observe]] = {
    "moe_num_mixtures": ("MoeModel", 3, sizes),
    "moe_rank": ("MoeModel", 4, sizes),
    "moe_l2": ("MoeModel", 1e-3, penalties),
    "video_level_classifier_model": ("AttentionModel", "LogisticModel", sizes),
    "dropout": ("MoeModel", 0.5, learned),
    "context_gating_rank": ("ContextGatedMoeModel", 3, sizes),
    "chain_stages": ("ChainMoeModel", 3, sizes),
    "chain_size": ("ChainMoeModel", 5, sizes),
    "chain_loss": ("ChainMoeModel", 0.7, learned),
    "input_dropout": ("SharedExpertMoeModel", 0.5, learned),
    "shared_expert_size": ("SharedExpertMoeModel", 5, sizes),
    "shared_expert_layers": ("SharedExpertMoeModel", 2, sizes),
    "memory_videos": ("SharedExpertMoeModel", 4, remembered),
    "memory_neighbours": ("SharedExpertMoeModel", 1, remembered_by_three),
    "memory_weight": ("SharedExpertMoeModel", 0.7, remembered_by_three),
    "memory_temperature": ("SharedExpertMoeModel", 2.0, remembered_by_three),
    "iterations": ("DbofModel", 3, said),
    "sample_random_frames": ("DbofModel", False, learned),
    "dbof_add_batch_norm": ("DbofModel", False, sizes),
    "dbof_cluster_size": ("DbofModel", 5, sizes),
    "dbof_hidden_size": ("DbofModel", 5, sizes),
    "dbof_pooling_method": ("DbofModel", "average", said),
    "dbof_activation": ("DbofModel", "relu", said),
    "dbof_random_evaluation": ("DbofModel", True, said),
    "lstm_cells": ("LstmModel", 5, sizes),
    "lstm_layers": ("LstmModel", 3, sizes),
    "gru_cells": ("GruModel", 5, sizes),
    "gru_layers": ("GruModel", 1, sizes),
    "netvlad_cluster_size": ("NetVladModel", 5, sizes),
    "netvlad_hidden_size": ("NetVladModel", 5, sizes),
    "nextvlad_cluster_size": ("NeXtVladModel", 5, sizes),
    "nextvlad_groups": ("NeXtVladModel", 4, sizes),
    "nextvlad_expansion": ("NeXtVladModel", 3, sizes),
    "nextvlad_hidden_size": ("NeXtVladModel", 6, sizes),
    "nextvlad_reduction": ("NeXtVladModel", 4, sizes),
    "attention_heads": ("AttentionModel", 3, sizes),
    "attention_size": ("AttentionModel", 5, sizes),
    "frame_moe_experts": ("FrameMoeModel", 4, sizes),
    "frame_moe_k": ("FrameMoeModel", 1, said),
    "frame_moe_hidden": ("FrameMoeModel", 5, sizes),
    "frame_moe_balance": ("FrameMoeModel", 0.5, learned),
}


def test_no_flag_is_forgotten() -> None:
    assert set(CASES) == set(OPTIONS)


@pytest.mark.parametrize("flag", CASES)
def test_a_flag_changes_its_model(flag: str) -> None:
    model, value, observe = CASES[flag]
    assert observe(model, {flag: value}) != observe(model, {}), f"--{flag}={value} changes nothing"
    assert observe(model, {}) == observe(model, {}), "otherwise any two would differ"


def test_dbof_evaluation_draws_frames_only_where_that_is_asked_for() -> None:
    for asked in (False, True):
        first, second = said("DbofModel", {"dbof_random_evaluation": asked, "iterations": 2})
        assert (first == second) != asked
