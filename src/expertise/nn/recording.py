"""Recording the routings of layers deep inside a model, for the time of one block of code.

There is nothing between the layer and the list: a layer of the model in ``with record_routing(model)`` hands
its routing over, and no layer keeps anything afterwards.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from expertise.nn._modes import recomputing
from expertise.nn.routing import Routing, SoftRouting

_ALTERNATIVE = "give the routing out of the model instead: y, routing = layer(x, return_routing=True)"


class Recorded(list[Any]):
    """The routings of a block (of soft layers `SoftRouting`), in the order in which the layers ran.

    Attributes
    ----------
    layers : the layer of each routing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[nn.Module] = []


class Recorder:
    """Takes routings from layers. Made by `record_routing`."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        self._with_grad = torch.is_grad_enabled()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Nothing: a copy of a layer made within the block is not recorded, nor keeps anything after it."""

    def add(self, layer: nn.Module, routing: Routing | SoftRouting) -> None:
        """Keep a routing, unless this is a recomputation of one that was kept.

        Raises
        ------
        RuntimeError : in compiled code, or under reentrant checkpointing.
        """
        if torch.compiler.is_compiling():
            raise RuntimeError(f"record_routing cannot look into compiled code; {_ALTERNATIVE}")
        if recomputing():
            return
        if self._with_grad and not torch.is_grad_enabled() and _in_reentrant_checkpoint():
            raise RuntimeError(
                "record_routing cannot record under reentrant checkpointing, whose first forward has no "
                f"gradient; use checkpoint(..., use_reentrant=False), or {_ALTERNATIVE}"
            )
        self.recorded.append(routing)
        self.recorded.layers.append(layer)


@contextmanager
def record_routing(model: nn.Module) -> Iterator[Recorded]:
    """Record every routing of ``model`` in this block, in order.

    Yields
    ------
    a list of `Routing` with an attribute ``layers``, the layer of each. It fills while the model runs;
    after the block only the caller refers to it.

    Raises
    ------
    ValueError : the model has no mixture-of-experts layer.
    RuntimeError : the model is compiled, or checkpointed with use_reentrant=True: there nothing, or something
        without gradient, would be recorded. The message names the alternative.

    Examples
    --------
    >>> from expertise.nn import MoE, Experts, TopKRouter
    >>> model = nn.Sequential(nn.Linear(3, 4), MoE(TopKRouter(4, 2), Experts(2, 4, 8)))
    >>> with record_routing(model) as routings:
    ...     y = model(torch.randn(5, 3))
    >>> len(routings), routings[0].load_E.sum().item()
    (1, 10)
    """
    for name, module in model.named_modules():
        if _is_compiled(module):
            where = f"its part {name!r}" if name else "it"
            raise RuntimeError(
                f"record_routing(model): {where} is compiled, and compiled code records nothing; record the "
                f"model before torch.compile, or {_ALTERNATIVE}"
            )
    layers = [module for module in model.modules() if "recorder" in vars(module)]
    if not layers:
        raise ValueError(
            f"record_routing(model): {type(model).__name__} has no MoE or SoftMoE layer, so there is nothing "
            "to record"
        )
    recorder = Recorder()
    before = [vars(layer)["recorder"] for layer in layers]
    try:
        for layer in layers:
            layer.recorder = recorder  # type: ignore[assignment]
        yield recorder.recorded
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.recorder = old


def _is_compiled(module: nn.Module) -> bool:
    # importing the compiler takes seconds; where it was not imported nothing is compiled
    compiler = sys.modules.get("torch._dynamo")
    wrapped = compiler is not None and isinstance(module, compiler.OptimizedModule)
    return wrapped or module._compiled_call_impl is not None


def _in_reentrant_checkpoint() -> bool:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename.endswith("checkpoint.py") and frame.f_code.co_name == "forward":
            return True
    return False
