"""Layers in files: exactly the same after reading, damaged files are told, and nothing in a file runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from expertise.nn import ExpertList, Experts, MoE, TopKRouter
from expertise.nn.exchange import FeedForward, load_layer, save_layer
from expertise.nn.routers import ROUTERS
from nn.router_cases import CASES, Case, ids_for

D, E = 4, 4
LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared": {"shared": FeedForward(D, 3, activation="relu", bias=True, dropout=0.1)},
    "shared, gated": {"shared": FeedForward(D, 3), "shared_gate": True},
    "factor": {"capacity_factor": 1.25, "eval_capacity_factor": 2.0, "capacity_order": "priority"},
    "capacity": {"capacity": 3, "capacity_per_sequence": True},
}


def assert_same(layer: MoE, again: MoE) -> None:
    assert repr(again) == repr(layer)
    old, new = layer.state_dict(), again.state_dict()
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        assert tensor.dtype == new[name].dtype
        assert torch.equal(tensor, new[name]), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.id}")
def test_every_router_of_the_table_comes_back(case: Case, tmp_path: Path) -> None:
    layer = case.layer(D, E)
    save_layer(layer, tmp_path / "layer.safetensors")
    state = torch.get_rng_state()
    again = load_layer(tmp_path / "layer.safetensors")
    assert torch.equal(torch.get_rng_state(), state), "reading must not move the caller's generator"
    assert_same(layer, again)
    attributes = {
        name: value
        for name, value in vars(layer.router).items()
        if isinstance(value, bool | int | float | str)
    }
    for name, value in attributes.items():
        assert vars(again.router)[name] == value, name
    x = torch.randn(3, 5, D)
    assert torch.equal(layer.eval()(x, token_ids=ids_for(x)), again.eval()(x, token_ids=ids_for(x)))


def test_others_may_read_the_file_as_any_other(tmp_path: Path) -> None:
    save_layer(CASES[0].layer(D, E), tmp_path / "layer.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "layer.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_no_router_is_left_out() -> None:
    assert {case.name for case in CASES} == set(ROUTERS)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_setting_of_the_layer_comes_back(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    router = TopKRouter(
        D, E, 3, activation="sigmoid", scale=2.5, groups=2, groups_kept=2, selection_bias=True
    )
    layer = MoE(router, Experts(E, D, 5, activation="gelu", dropout=0.2), **LAYERS[name]).to(dtype)
    nn.init.normal_(router.selection_bias_E)  # type: ignore[arg-type]
    save_layer(layer, tmp_path / "new" / "folder" / "layer.safetensors")
    again = load_layer(tmp_path / "new" / "folder" / "layer.safetensors")
    assert_same(layer, again)
    for attribute in ("capacity", "capacity_factor", "eval_capacity_factor", "capacity_order", "causal"):
        assert getattr(again, attribute) == getattr(layer, attribute)
    assert again.capacity_per_sequence == layer.capacity_per_sequence
    assert again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    x = torch.randn(2, 3, D, dtype=dtype)
    assert torch.equal(layer.eval()(x), again.eval()(x))


def saved(folder: Path) -> tuple[Path, dict[str, torch.Tensor], dict[str, str]]:
    path = folder / "layer.safetensors"
    save_layer(MoE(TopKRouter(D, E), Experts(E, D, 5)), path)
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    return path, load_file(path), metadata


def change(metadata: dict[str, str], part: str, **values: Any) -> dict[str, str]:
    description = json.loads(metadata["layer"])
    target = description[part]
    target.get("arguments", target).update(values)
    return metadata | {"layer": json.dumps(description)}


def test_files_that_are_no_layers(tmp_path: Path) -> None:
    path, tensors, metadata = saved(tmp_path)
    with pytest.raises(ValueError, match=r"absent.safetensors cannot be read as a layer: .*No such file"):
        load_layer(tmp_path / "absent.safetensors")
    whole = path.read_bytes()
    for broken in (b"", whole[:5], whole[:100], whole[:-7], b"\x80\x04pickle" * 40):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"layer.safetensors cannot be read as a layer: "):
            load_layer(path)
    for other in (None, {"format": "pt"}):
        save_file(tensors, path, other)
        with pytest.raises(ValueError, match=r"is no layer that save_layer wrote: its format is "):
            load_layer(path)
    save_file(tensors, path, metadata | {"version": "2"})
    with pytest.raises(
        ValueError, match=r"has version '2' of the format; this expertise reads version 1; inst"
    ):
        load_layer(path)


def test_descriptions_that_do_not_fit(tmp_path: Path) -> None:
    path, tensors, metadata = saved(tmp_path)
    cases = [
        (tensors, metadata | {"layer": "{"}, r"is damaged: its description cannot be read"),
        (tensors, metadata | {"layer": "[]"}, r"is damaged: its description cannot be read"),
        (tensors, change(metadata, "router", k=9), r"do not fit its description: k must be a whole number"),
        (tensors, change(metadata, "router", colour=9), r"do not fit its description: .*colour"),
        (
            tensors,
            change(metadata, "experts", hidden=6),
            r"experts.down_weight must be \(4, 4, 6\); got \(4, 4, 5\)",
        ),
        ({**tensors, "more": torch.ones(1)}, metadata, r"'more belongs nowhere'"),
        (
            {name: t for name, t in tensors.items() if "router" not in name},
            metadata,
            r"'router.weight_ED is missing'",
        ),
    ]
    for changed, described, text in cases:
        save_file(changed, path, described)
        with pytest.raises(ValueError, match=text):
            load_layer(path)
    description = json.loads(metadata["layer"])
    description["router"]["name"] = "os.system"
    save_file(tensors, path, metadata | {"layer": json.dumps(description)})
    with pytest.raises(
        ValueError, match=r"has the router 'os.system', which is not known; known: dense, top_k"
    ):
        load_layer(path)


class OwnRouter(nn.Module):
    name, dim, num_experts = "own", D, E


def test_layers_that_have_no_file(tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    path.write_bytes(b"as it was")
    router = TopKRouter(D, E)
    listed = MoE(TopKRouter(D, 1, 1), ExpertList([nn.Identity()]))
    with pytest.raises(
        ValueError, match=r"its experts must be Experts to be saved; got ExpertList.*state_dict"
    ):
        save_layer(listed, path)
    with pytest.raises(ValueError, match=r"its shared module must be a FeedForward to be saved; got Linear"):
        save_layer(MoE(router, Experts(E, D, 5), shared=nn.Linear(D, D)), path)
    with pytest.raises(
        ValueError, match=r"its router must be one of the table ROUTERS to be saved; got OwnR"
    ):
        save_layer(MoE(OwnRouter(), Experts(E, D, 5)), path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"layer must be an expertise.nn.MoE; got Linear"):
        save_layer(nn.Linear(2, 2), path)  # type: ignore[arg-type]
    layer = MoE(router, Experts(E, D, 5))
    layer.capacity_factor = torch.tensor(1.0)  # type: ignore[assignment]
    with pytest.raises(
        ValueError, match=r"capacity_factor=tensor\(1.\) is no plain value, so it cannot be sav"
    ):
        save_layer(layer, path)
    layer = MoE(router, Experts(E, D, 5))
    del router.scale
    with pytest.raises(
        ValueError, match=r"TopKRouter does not keep its argument 'scale', so it cannot be made"
    ):
        save_layer(layer, path)
    assert path.read_bytes() == b"as it was"
    assert [file.name for file in tmp_path.iterdir()] == ["layer.safetensors"]
