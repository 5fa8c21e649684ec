"""What cannot go to or come from transformers is told before anything is made: transformers is not needed."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from expertise import _optional
from expertise.nn import ExpertList, Experts, MoE, TopKRouter
from expertise.nn.exchange import BLOCKS, FeedForward, from_transformers, to_transformers

D, E, H = 12, 8, 10


def layer_with(router: dict[str, Any] | None = None, **changes: Any) -> MoE:
    return MoE(TopKRouter(D, E, **({"k": 3} | (router or {}))), Experts(E, D, H), **changes)


@pytest.mark.parametrize(
    ("block", "layer", "text"),
    [
        (
            "MixtralSparseMoeBlock",
            lambda: layer_with(shared=FeedForward(D, H)),
            r"MixtralSparseMoeBlock has only shared = None; the layer has 'FeedForward\(swiglu\)'",
        ),
        (
            "MixtralSparseMoeBlock",
            lambda: layer_with({"renormalize": False}),
            r"has only router.renormalize = True; the layer has False",
        ),
        (
            "Qwen3MoeSparseMoeBlock",
            lambda: layer_with({"activation": "sigmoid"}),
            r"has only router.activation = 'softmax'; the layer has 'sigmoid'",
        ),
        (
            "OlmoeSparseMoeBlock",
            lambda: layer_with(capacity_factor=1.5),
            r"has only capacity_factor = None; the layer has 1.5",
        ),
        (
            "Qwen2MoeSparseMoeBlock",
            lambda: layer_with(shared=nn.Linear(D, D), shared_gate=True),
            r"has only shared = 'FeedForward\(swiglu\)'; the layer has 'Linear'",
        ),
        (
            "DeepseekV3MoE",
            lambda: layer_with({"activation": "sigmoid"}, shared=FeedForward(D, H + 1)),
            r"has hidden=11, which is no multiple of 10",
        ),
        (
            "SwitchTransformersSparseMLP",
            lambda: MoE(TopKRouter(D, E, 1), Experts(E, D, H, activation="relu"), capacity_per_sequence=True),
            r"has a fixed capacity; the layer has none; make the layer with capacity=",
        ),
        (
            "MixtralSparseMoeBlock",
            lambda: MoE(TopKRouter(D, 1, 1), ExpertList([nn.Identity()])),
            r"needs a TopKRouter and Experts; the layer has TopKRouter and ExpertList",
        ),
        (
            "MixtralSparseMoeBlok",
            layer_with,
            r"block is the name 'MixtralSparseMoeBlok', which is not known; known: MixtralSparseMoeBlock, "
            r".*did you mean MixtralSparseMoeBlock\?",
        ),
        ("MixtralSparseMoeBlock", lambda: nn.Identity(), r"layer must be an expertise.nn.MoE; got Identity"),
    ],
)
def test_what_a_block_cannot_express(block: str, layer: Callable[[], MoE], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        to_transformers(layer(), block)


def test_an_unknown_block_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="block is a 'Linear', which is not known") as error:
        from_transformers(nn.Linear(2, 2))
    assert all(name in str(error.value) for name in BLOCKS)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(_optional.importlib, "import_module", missing)
    with pytest.raises(_optional.MissingExtraError, match=r"'transformers', which is.*expertise\[peers\]"):
        to_transformers(layer_with(), "MixtralSparseMoeBlock")
