"""Other forms of a layer: the dense form, torch.export of both, and ONNX, all with the layer's values."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expertise import _optional
from expertise.nn import ExpertList, Experts, MoE, TopKRouter
from expertise.nn.exchange import FeedForward, dense_form, exporting, to_onnx
from expertise.nn.routers import HashRouter
from expertise.nn.routers._abstract import AbstractLinearRouter
from expertise.nn.routing import Routing
from nn.router_cases import CASES, Case, ids_for

D, E = 4, 6


def make(k: int = 2, dtype: torch.dtype = torch.float32, **more: Any) -> MoE:
    torch.manual_seed(0)
    return MoE(TopKRouter(D, E, k), Experts(E, D, 5), **more).to(dtype)


CAPACITIES: dict[str, dict[str, Any]] = {
    "none": {},
    "factor": {"capacity_factor": 0.7},
    "tokens": {"capacity": 3},
    "nothing fits": {"capacity": 0},
    "priority": {"capacity_factor": 0.7, "capacity_order": "priority"},
    "per sequence": {"capacity_factor": 0.7, "capacity_per_sequence": True},
    "per sequence, priority": {
        "capacity": 2,
        "capacity_order": "priority",
        "capacity_per_sequence": True,
    },
}


# -- the dense form


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", CAPACITIES)
def test_the_dense_form_agrees_with_every_capacity(name: str, masked: bool) -> None:
    layer = make(dtype=torch.float64, **CAPACITIES[name])
    form = dense_form(layer)
    for seed in range(5):
        x = torch.randn(3, 8, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        mask = torch.rand(3, 8) < 0.7 if masked else None
        y, routing = layer(x, mask=mask, return_routing=True)
        assert name == "none" or routing.dropped > 0
        assert (form(x, mask) - y).abs().max() <= 1e-12


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.id}")
def test_the_dense_form_agrees_for_every_router(case: Case) -> None:
    layer = case.layer(D, E).eval()
    x = torch.randn(2, 9, D)
    found = dense_form(layer)(x, token_ids=ids_for(x))
    assert (found - layer(x, token_ids=ids_for(x))).abs().max() <= 1e-5


@pytest.mark.parametrize("activation", ["swiglu", "gelu", "relu"])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_the_dense_form_are_the_layers(activation: str, bias: bool) -> None:
    torch.manual_seed(0)
    experts = Experts(E, D, 5, activation=activation, bias=bias)
    shared = FeedForward(D, 3)
    layer = MoE(TopKRouter(D, E, 2), experts, shared=shared, shared_gate=True, capacity=4).double()
    other = copy.deepcopy(layer)
    x = torch.randn(20, D, dtype=torch.float64)
    direction = torch.randn_like(x)
    (layer(x) * direction).sum().backward()
    (dense_form(other)(x) * direction).sum().backward()
    for (name, one), two in zip(layer.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert (one.grad - two.grad).abs().max() <= 1e-12, name


def test_the_dense_form_shares_weights_and_mode() -> None:
    layer = make(capacity_factor=0.5, eval_capacity_factor=2.0)
    form = dense_form(layer)
    assert [id(p) for p in form.parameters()] == [id(p) for p in layer.parameters()]
    x = torch.randn(30, D)
    for mode in (True, False):
        form.train(mode)
        assert layer.training is mode
        assert (form(x) - layer(x)).abs().max() <= 1e-6
    assert dense_form(layer.eval()).training is False


def test_an_expert_that_did_not_run_spoils_nothing() -> None:
    layer = make(k=1)
    with torch.no_grad():
        layer.experts.down_weight[2] = torch.inf  # type: ignore[index]
    x = torch.randn(50, D)
    x = x[layer.router(x).experts_TK[:, 0] != 2]
    y = dense_form(layer)(x)
    assert y.isfinite().all()
    assert (y - layer(x)).abs().max() <= 1e-6


def test_modules_of_any_kind_and_no_tokens() -> None:
    torch.manual_seed(0)
    layer = MoE(TopKRouter(D, 2, 1), ExpertList([nn.Linear(D, D), nn.Identity()]), capacity_factor=1.0)
    x = torch.randn(3, 5, D)
    assert (dense_form(layer)(x) - layer(x)).abs().max() <= 1e-6
    assert dense_form(layer)(x[:0]).shape == (0, 5, D)
    with pytest.raises(ValueError, match=r"layer must be an expertise.nn.MoE; got Linear"):
        dense_form(nn.Linear(2, 2))  # type: ignore[arg-type]


# -- torch.export


def round_trip(module: nn.Module, example: Tensor) -> nn.Module:
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: batch},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    return torch.export.load(buffer).module()


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("shape", [pytest.param((7, D), marks=pytest.mark.slow), (3, 5, D)], ids=str)
def test_torch_export_of_both_forms(dense: bool, shape: tuple[int, ...]) -> None:
    layer = make(shared=FeedForward(D, 3)).eval()
    example = torch.randn(shape)
    program = round_trip(dense_form(layer) if dense else layer, example)
    for size in (1, 2, 3, 40):
        x = torch.randn(size, *shape[1:])
        assert (program(x) - layer(x)).abs().max() <= 1e-5
    sparse_inside = "expertise" in str(program.graph)  # type: ignore[union-attr]
    assert sparse_inside is not dense


@pytest.mark.slow
def test_torch_export_with_a_capacity() -> None:
    layer = make(capacity=2, capacity_per_sequence=True).eval()
    x = torch.randn(6, 10, D)
    assert layer(x, return_routing=True)[1].dropped > 0
    for module in (layer, dense_form(layer)):
        assert (round_trip(module, torch.randn(3, 10, D))(x) - layer(x)).abs().max() <= 1e-5
    layer = make(capacity_factor=0.7).eval()
    assert (round_trip(dense_form(layer), torch.randn(3, 10, D))(x) - layer(x)).abs().max() <= 1e-5


# -- ONNX


def answer(path: Path, x: Tensor) -> Tensor:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x.numpy()})
    return torch.from_numpy(y)


ONNX_LAYERS: dict[str, Any] = {
    "top_k": lambda: make(shared=FeedForward(D, 3), shared_gate=True),
    "deepseek": lambda: MoE(
        TopKRouter(D, E, 2, activation="sigmoid", groups=3, groups_kept=2, selection_bias=True, scale=2.5),
        Experts(E, D, 5, activation="gelu", bias=True),
    ),
    "switch": lambda: MoE(
        TopKRouter(D, E, 1, bias=True),
        Experts(E, D, 5, activation="relu"),
        capacity=2,
        capacity_per_sequence=True,
    ),
    "priority": lambda: make(capacity_factor=0.7, capacity_order="priority"),
    "modules": lambda: MoE(TopKRouter(D, 2, 2), ExpertList([nn.Linear(D, D), nn.Tanh()])),
}


@pytest.mark.parametrize(
    "name",
    [
        "top_k",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ONNX_LAYERS if name != "top_k"),
    ],
)
def test_onnx_runtime_gives_what_the_layer_gives(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    layer = ONNX_LAYERS[name]()
    path = tmp_path / "folder" / "layer.onnx"
    to_onnx(layer, path, torch.randn(3, 8, D))
    assert layer.training
    assert all(module.training for module in layer.modules())
    layer.eval()
    for size in (1, 2, 5, 64):
        x = torch.randn(size, 8, D)
        assert (answer(path, x) - layer(x)).abs().max() <= 1e-5
    assert [file.name for file in path.parent.iterdir()] == ["layer.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if case.name in ("noisy_top_k", "sinkhorn", "base", "top_p", "hierarchical", "sampled")
    ],
    ids=lambda case: f"{case.name}-{case.id}",
)
def test_onnx_of_other_routers_from_one_row(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    layer = case.layer(D, E).eval()
    to_onnx(layer, tmp_path / "layer.onnx", torch.randn(1, D))
    x = torch.randn(33, D)
    assert (answer(tmp_path / "layer.onnx", x) - layer(x)).abs().max() <= 1e-5


class FixedRouter(AbstractLinearRouter):
    """It knows one number of tokens only."""

    name, differentiable, row_independent = "fixed", True, True

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        probs_TE = self._logits(x_TD).softmax(-1)
        experts_TK = torch.zeros(int(x_TD.shape[0]), 1, dtype=torch.int64)
        return Routing(self.num_experts, (), probs_TE, experts_TK, probs_TE[:, :1])


def test_a_layer_for_one_size_of_the_batch_alone(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    layer = MoE(FixedRouter(D, E), Experts(E, D, 5))
    with pytest.raises(
        ValueError, match=r"the router 'fixed' or an expert takes the number of tokens for a fix"
    ):
        to_onnx(layer, tmp_path / "layer.onnx", torch.randn(3, D))
    assert not list(tmp_path.iterdir())


def test_a_file_that_gives_other_values_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    layer = make()
    write = exporting._write

    def write_another(form: nn.Module, example: Tensor, file: Path) -> None:
        other = dense_form(copy.deepcopy(layer).eval())
        with torch.no_grad():
            other.layer.experts.down_weight += 1e-3  # type: ignore[operator]
        write(other, example, file)

    monkeypatch.setattr(exporting, "_write", write_another)
    path = tmp_path / "layer.onnx"
    path.write_bytes(b"as it was")
    with pytest.raises(
        ValueError, match=r"layer.onnx differs from the layer by .*more than 1e-05; it was not w"
    ):
        to_onnx(layer, path, torch.randn(3, D))
    assert path.read_bytes() == b"as it was"
    assert [file.name for file in tmp_path.iterdir()] == ["layer.onnx"]
    assert layer.training


def test_arguments_of_to_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "layer.onnx"
    for example in (torch.randn(D), torch.randn(3, D + 1), torch.randn(0, D)):
        with pytest.raises(
            ValueError, match=r"example must have the shape \(batch, \.\.\., 4\), batch at least 1"
        ):
            to_onnx(make(), path, example)
    for layer, example in ((make().double(), torch.randn(3, D)), (make(), torch.randn(3, D).bfloat16())):
        with pytest.raises(ValueError, match=r"layer and example must be float32; got torch\.b?float"):
            to_onnx(layer, path, example)
    hashed = MoE(HashRouter(D, E), Experts(E, D, 5))
    with pytest.raises(ValueError, match=r"the router 'hash' needs token_ids, which the file has not"):
        to_onnx(hashed, path, torch.randn(3, D))
    with pytest.raises(ValueError, match=r"layer must be an expertise.nn.MoE; got Linear"):
        to_onnx(nn.Linear(2, 2), path, torch.randn(3, D))  # type: ignore[arg-type]

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(_optional.importlib, "import_module", missing)
    with pytest.raises(_optional.MissingExtraError, match=r"'onnx', which is not.*expertise\[export\]"):
        to_onnx(make(), path, torch.randn(3, D))
    assert not path.exists()
