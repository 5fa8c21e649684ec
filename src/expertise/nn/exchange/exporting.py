"""A layer for other programs: the dense form, plain operations only, and ONNX of it.

torch.export takes the sparse layer too, with the operations of this package inside, so loading that program
needs ``import expertise.nn``. The dense form needs torch alone.

Letters of shapes: T tokens, D model, E experts, K chosen, F columns of the first product, H hidden;
S sequences, L tokens of a sequence, P = K L choices of a sequence in the order of their claim.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from expertise._files import atomic_file
from expertise._optional import require
from expertise.nn.dispatch import Capacity
from expertise.nn.exchange._parts import demand_moe
from expertise.nn.experts import ACTIVATIONS, ExpertList, Experts
from expertise.nn.layer import MoE
from expertise.nn.routing import Routing

INPUT, OUTPUT = "x", "y"
TOLERANCE = 1e-5  # largest difference between the ONNX file and the layer, relative to the largest output


class DenseForm(nn.Module):
    """A layer's values by plain operations: every expert runs on every token; made by `dense_form`.

    It costs E/K times the layer's work and holds (E, T, 2H) hidden values, with a capacity of the order
    "priority" also (T, T) comparisons: for ONNX, and as a check. Its weights are the layer's own, so that a
    change of one is a change of the other.
    """

    def __init__(self, layer: MoE) -> None:
        super().__init__()
        self.layer = layer
        self.training = layer.training

    def forward(self, x: Tensor, mask: Tensor | None = None, token_ids: Tensor | None = None) -> Tensor:
        """Run on x (..., D); the arguments are those of `MoE`."""
        layer = self.layer
        routing: Routing = layer.router(x, mask, token_ids)
        capacity = layer._capacity()
        if capacity is not None:
            routing = replace(routing, kept_TK=_kept(routing, capacity))
        x_TD = x.reshape(-1, x.shape[-1])
        weights_TE = _weights_by_expert(routing).to(x_TD.dtype)
        y_ETD = _every_expert(layer.experts, x_TD)
        # an expert that did not run must not spoil the sum with a value that is not finite
        took_ET1 = _took(routing).T[..., None]
        y_ETD = torch.where(took_ET1, y_ETD, y_ETD.new_zeros(()))
        y_TD = (y_ETD * weights_TE.T[..., None]).sum(0)
        if layer.shared is not None:
            y_TD = y_TD + layer._run_shared(x_TD, routing.mask_T)
        return y_TD.reshape(*x.shape[:-1], y_TD.shape[-1])


def dense_form(layer: MoE) -> DenseForm:
    """Give a module of plain operations with the layer's values to rounding, gradients too, and its weights.

    Every expert runs on every token and is weighted by the routing, with capacity, mask and shared expert as
    in the layer.

    Raises
    ------
    ValueError : this is no `MoE`.

    Examples
    --------
    >>> from expertise.nn import TopKRouter
    >>> layer = MoE(TopKRouter(4, 3, k=2), Experts(3, 4, 8))
    >>> x = torch.randn(2, 5, 4)
    >>> bool((dense_form(layer)(x) - layer(x)).abs().max() < 1e-6)
    True
    """
    demand_moe(layer)
    return DenseForm(layer)


def to_onnx(layer: MoE, path: str | os.PathLike[str], example: Tensor) -> None:
    """Write the dense form of a layer, in evaluation mode, as ONNX; weights are inside the file.

    The file's input "x" is float32 of the shape of ``example``, its output "y" too; the first dimension may
    have any size. It gets its name after ONNX Runtime gave what the layer gives, for ``example`` and for
    other sizes of the first dimension. It is read as data: loading it runs no code.

    Parameters
    ----------
    layer : of float32, without a router that needs token_ids. A capacity is that of evaluation.
    path : the file.
    example : (..., D), one dimension before D at least, of typical values.

    Raises
    ------
    ValueError : an argument that does not fit, a layer that cannot be exported for any batch (expert choice
        compares the tokens of a batch), or a file that gives other values; that is not written.
    MissingExtraError : onnx, onnxscript or onnxruntime is not installed.

    Examples
    --------
    ``to_onnx(layer, "layer.onnx", torch.randn(4, 10, 256))``
    """
    demand_moe(layer)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "export")  # what is missing is said before any work is done
    if layer.router.needs_token_ids:
        raise ValueError(f"layer: the router {layer.router.name!r} needs token_ids, which the file has not")
    if example.dim() < 2 or example.shape[-1] != layer.router.dim or not len(example):
        raise ValueError(
            f"example must have the shape (batch, ..., {layer.router.dim}), batch at least 1; got "
            f"{tuple(example.shape)}"
        )
    types = {tensor.dtype for tensor in (example, *layer.parameters())}
    if types != {torch.float32}:
        raise ValueError(
            f"layer and example must be float32; got {', '.join(sorted(map(str, types)))}; use "
            "copy.deepcopy(layer).float()"
        )
    modes = [(module, module.training) for module in layer.modules()]
    try:
        form = dense_form(layer.eval())
        with atomic_file(path) as file:
            _write(form, example, file)
            _compare(layer, file, example, Path(path).name)
    finally:
        for module, mode in modes:
            module.training = mode


def _weights_by_expert(routing: Routing) -> Tensor:
    """Give each expert's weight for each token, (T, E): 0 where it does not run."""
    weights_TK = torch.where(routing.picked_TK, routing.weights_TK, routing.weights_TK.new_zeros(()))
    return _spread(routing, weights_TK)


def _took(routing: Routing) -> Tensor:
    """Say which experts run for each token, (T, E) bool."""
    return _spread(routing, routing.picked_TK.to(torch.float32)) > 0


def _spread(routing: Routing, values_TK: Tensor) -> Tensor:
    nobody = routing.num_experts
    total = values_TK.new_zeros(values_TK.shape[0], nobody + 1)
    return total.scatter_add(1, routing.experts_TK, values_TK)[:, :nobody]


def _kept(routing: Routing, capacity: Capacity) -> Tensor:
    """Say which choices are within the capacity, (T, K) bool, by counting: the exporters know no stable sort.

    What `dispatch.Capacity` says of order and sequences holds here.
    """
    T, K = routing.experts_TK.shape
    L = routing.shape[-1] if capacity.per_sequence and routing.shape else T
    if T == 0:
        return torch.ones_like(routing.experts_TK, dtype=torch.bool)
    experts_SLK = routing.experts_TK.reshape(-1, L, K)
    place_SL = position_SL = torch.arange(L, device=experts_SLK.device).expand(experts_SLK.shape[:2])
    if capacity.order == "priority":
        place_SL = _places_by_weight(routing.weights_TK.detach().amax(-1).reshape(-1, L))
        by_place_SL = torch.zeros_like(place_SL).scatter(1, place_SL, position_SL)
        experts_SLK = experts_SLK.gather(1, by_place_SL[..., None].expand(-1, -1, K))
    experts_SP = experts_SLK.transpose(1, 2).reshape(-1, K * L)
    experts_E = torch.arange(routing.num_experts, device=experts_SP.device)
    hot_SPE = (experts_SP[..., None] == experts_E).to(torch.int64)
    rank_SP = (hot_SPE * (hot_SPE.cumsum(1) - 1)).sum(-1)
    kept_SLK = (rank_SP < _limit(routing, capacity, L)).reshape(-1, K, L).transpose(1, 2)
    return kept_SLK.gather(1, place_SL[..., None].expand(-1, -1, K)).reshape(T, K)


def _places_by_weight(weight_SL: Tensor) -> Tensor:
    """Give each token's place, the largest weight first, of equal ones the first token: (S, L) int64."""
    later_SL1, other_S1L = weight_SL[:, :, None], weight_SL[:, None, :]
    position_L = torch.arange(weight_SL.shape[1], device=weight_SL.device)
    first = position_L[None, :] < position_L[:, None]
    return ((other_S1L > later_SL1) | ((other_S1L == later_SL1) & first)).sum(-1)


def _limit(routing: Routing, capacity: Capacity, L: int) -> Tensor | int:
    """Give the most tokens of an expert: a number, or (S, 1)."""
    if capacity.tokens is not None:
        return capacity.tokens
    T, K = routing.experts_TK.shape
    real_T = routing.experts_TK.new_ones(T) if routing.mask_T is None else routing.mask_T
    real_S1 = real_T.reshape(-1, L).sum(-1, keepdim=True).double()
    return (real_S1 * (capacity.factor * K / routing.num_experts) - 1e-9).ceil()


def _every_expert(experts: Experts | ExpertList, x_TD: Tensor) -> Tensor:
    """Run every expert on every token: (E, T, D)."""
    if isinstance(experts, ExpertList) or experts.dropout:
        return torch.stack([experts.one(e, x_TD) for e in range(experts.num_experts)])
    h_ETF = torch.matmul(x_TD, experts.up_weight.mT)
    if experts.up_bias is not None:
        h_ETF = h_ETF + experts.up_bias[:, None]
    y_ETD = torch.matmul(ACTIVATIONS[experts.activation](h_ETF), experts.down_weight.mT)
    return y_ETD if experts.down_bias is None else y_ETD + experts.down_bias[:, None]


def _write(form: DenseForm, example: Tensor, file: Path) -> None:
    # an example of one row would be taken for a fixed size
    example = example if len(example) > 1 else torch.cat([example, example])
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(form, (example,), dynamic_shapes=({0: batch},))
        except torch._dynamo.exc.UserError as error:
            raise ValueError(
                f"layer: the router {form.layer.router.name!r} or an expert takes the number of tokens for a "
                "fixed one, so there is no file for any size of the batch; torch.export says why above"
            ) from error
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it would carry the paths of this machine into the file
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
        )
        assert written is not None
        written.save(os.fspath(file), external_data=False)


def _compare(layer: MoE, file: Path, example: Tensor, name: str) -> None:
    runtime = require("onnxruntime", "export")
    session = runtime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    for x in (example, example[:1], torch.cat([example, example.flip(0), example])):
        with torch.no_grad():
            y = layer(x).cpu()
        (found,) = session.run([OUTPUT], {INPUT: x.detach().cpu().numpy()})
        difference = (torch.from_numpy(found) - y).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, y.abs().max().item()):
            raise ValueError(
                f"{name} differs from the layer by {difference:g} for x of shape {tuple(x.shape)}, more than "
                f"{TOLERANCE:g}; it was not written. Please report this with the versions of torch and onnx"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter prints, logs and warns about off the terminal; errors still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
