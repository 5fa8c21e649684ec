"""Layers from and to the mixture-of-experts blocks of the library transformers (version 5), same weights.

`from_transformers` reads attributes and imports nothing; `to_transformers` needs transformers. `BLOCKS` is
the table of the blocks that are known; what they have in common stands in `_hugging`.
"""

import difflib
from typing import Any

import torch
from torch import nn

from expertise._optional import require
from expertise.nn.exchange._hugging import Block
from expertise.nn.exchange._hugging_deepseek import DEEPSEEK_V3
from expertise.nn.exchange._hugging_softmax import MIXTRAL, OLMOE, QWEN2, QWEN3
from expertise.nn.exchange._hugging_switch import SWITCH
from expertise.nn.exchange._parts import assert_filled, demand_moe
from expertise.nn.layer import MoE

BLOCKS: dict[str, Block] = {
    block.name: block for block in (MIXTRAL, QWEN2, QWEN3, OLMOE, DEEPSEEK_V3, SWITCH)
}


def from_transformers(block: nn.Module) -> MoE:
    """Make a layer with copies of the weights of a block of transformers; types, devices and mode are kept.

    Known are the blocks of `BLOCKS`: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE, DeepSeek-V3 and Switch. Forward
    and gradients are theirs to rounding. What differs:

    - The router works in float32 at least. Theirs (but DeepSeek's and Switch's) works in the type of the
      weights, so in half precision a token near a tie may go to another expert.
    - Jitter in training (Mixtral, Switch) moves what the router sees; theirs also what the experts see.

    Parameters
    ----------
    block : the module of one layer, model.model.layers[3].mlp for example.

    Raises
    ------
    ValueError : a block that is not known, or a setting of it that `MoE` does not have.

    Examples
    --------
    ``model.model.layers[0].mlp = from_transformers(model.model.layers[0].mlp)``
    """
    kind = _block(type(block).__name__, "block is a")
    layer = kind.read(block)
    assert_filled(layer)
    return layer.train(block.training)


def to_transformers(layer: MoE, block: str, config: Any = None) -> nn.Module:
    """Make a block of transformers with copies of a layer's weights; the way back of `from_transformers`.

    Parameters
    ----------
    layer : with a `TopKRouter`, `Experts`, and what else the block can express.
    block : the name of the block's class, one of `BLOCKS`.
    config : of the model that the block will be part of; it must agree with the layer. None: made from the
        layer, with experts_implementation "eager".

    Raises
    ------
    ValueError : a name that is not known, something in the layer that the block does not have, or a config
        that does not agree with the layer; says what.
    MissingExtraError : transformers is not installed.

    Examples
    --------
    ``block = to_transformers(layer, "MixtralSparseMoeBlock")``
    """
    kind = _block(block, "block is the name")
    demand_moe(layer)
    kind.check(layer)
    wanted = kind.settings(layer)
    module = require(f"transformers.models.{kind.folder}.modeling_{kind.folder}", "peers")
    if config is None:
        config_class = getattr(require("transformers", "peers"), kind.config)
        config = config_class(**wanted, **kind.other_settings)
        config._experts_implementation = "eager"
    for name, value in wanted.items():
        got = getattr(config, name, None)
        if got != value:
            raise ValueError(f"config.{name} must be {value!r}, as in the layer; got {got!r}")
    with torch.device("meta"):
        made: nn.Module = getattr(module, kind.name)(config)
    kind.write(layer, made)
    assert_filled(made)
    return made.train(layer.training)


def _block(name: str, what: str) -> Block:
    if name in BLOCKS:
        return BLOCKS[name]
    near = difflib.get_close_matches(name, BLOCKS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{what} {name!r}, which is not known; known: {', '.join(BLOCKS)}{hint}")
