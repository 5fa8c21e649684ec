"""Exports: other programs get the same answers, and a file that differs is never put in its place."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from expertise._optional import MissingExtraError
from expertise.youtube8m import checkpoint
from expertise.youtube8m import export as module
from expertise.youtube8m.export import ExportError, export
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.loading import VideoModel, load_model
from expertise.youtube8m.model_flags import OPTIONS, ModelFlags
from expertise.youtube8m.models import FRAME_MODELS, MODELS, VIDEO_MODELS, build_model

NAMES = ("cats", "dogs", "fish", "trees", "stones")


def write_export(train_dir: Path, step: int, name: str, **changes: Any) -> None:
    values = {"feature_names": ("mean_rgb", "mean_audio"), "feature_sizes": (6, 2), "num_classes": 5}
    flags = ModelFlags(model=name, **(values | {"class_names": NAMES} | changes))
    model = build_model(flags)
    generator = torch.Generator().manual_seed(step)
    model.reset(generator, scale=20.0)
    for key, moments in model.named_buffers():  # as after training: 0 and 1 would not be missed
        if key.endswith(("running_mean", "running_variance")):
            moments.uniform_(0.2, 2.0, generator=generator)
    checkpoint.save(train_dir, step, model, torch.optim.SGD(model.parameters()), {}, flags)


SMALL: dict[str, Any] = {
    **{name: 4 for name in OPTIONS if name.endswith(("_size", "_cells", "_hidden"))},
    "nextvlad_reduction": 2,
}
FRAMES = {"frame_features": True, "feature_names": ("rgb", "audio")}
FAST = "FrameMoeModel"  # the tests of the frame-level models compare each one's exports, too
VARIANTS = [
    *(pytest.param((name, {}), id=name) for name in sorted(VIDEO_MODELS)),
    *(
        pytest.param(
            (name, {**FRAMES, "options": Flags(moe_rank=0, **SMALL)}),
            id=name,
            marks=[] if name == FAST else [pytest.mark.slow],
        )
        for name in sorted(FRAME_MODELS)
    ),
    pytest.param(("MoeModel", {"options": Flags(moe_rank=3), "input_scale": 2.8}), id="MoeModel of rank 3"),
]


@pytest.fixture(scope="module", params=VARIANTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose model is exported in all formats."""
    train_dir = tmp_path_factory.mktemp("run")
    name, changes = request.param
    for step in (3, 12):
        write_export(train_dir, step, name, **changes)
    files = export(Flags(train_dir=str(train_dir)))
    assert [file.relative_to(train_dir / "exported").as_posix() for file in files] == [
        "model.pt2",
        "model.onnx",
        "model_card.json",
    ]
    return train_dir


def torch_answer(folder: Path) -> Callable[..., torch.Tensor]:
    program = torch.export.load(folder / "model.pt2").module()
    return lambda *inputs: program(*inputs)


def onnx_answer(folder: Path) -> Callable[..., torch.Tensor]:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def answer(*inputs: torch.Tensor) -> torch.Tensor:
        names = ["features"] if len(inputs) == 1 else ["frames", "num_frames"]
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(["probabilities"], given)[0])

    return answer


def draw(model: VideoModel, size: int) -> tuple[torch.Tensor, ...]:
    """Raw inputs; one video is all 0, or has no frame, so that there is no length to divide by."""
    generator = torch.Generator().manual_seed(size)
    if not model.flags.frame_features:
        features = torch.randn(size, 8, generator=generator) * 100
        features[0] = 0 if size > 1 else features[0]
        return (features,)
    frames = torch.randint(0, 256, (size, size + 3, 8), generator=generator, dtype=torch.uint8)
    lengths = torch.randint(1, size + 4, (size,), generator=generator)
    lengths[0] = 0 if size > 1 else lengths[0]
    return frames, lengths


@pytest.mark.parametrize("answer", [torch_answer, onnx_answer])
def test_answers_are_ours_for_any_batch(exported: Path, answer: Any) -> None:
    model = load_model(exported, device="cpu")
    assert model.step == 12
    theirs = answer(exported / "exported")
    for size in (1, 2, 7, 60):
        inputs = draw(model, size)
        found = theirs(*inputs)
        assert found.shape == (size, 5)
        assert found.dtype == torch.float32
        tolerance = 1e-5 if model.flags.model in ("LogisticModel", "MoeModel") else 1e-4
        torch.testing.assert_close(found, model.predict(*inputs), rtol=0, atol=tolerance)


def test_normalisation_is_inside(exported: Path) -> None:
    if load_model(exported, device="cpu").flags.frame_features:
        return  # bytes have no other scale
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for answer in (torch_answer(exported / "exported"), onnx_answer(exported / "exported")):
        torch.testing.assert_close(answer(features * 50), answer(features), rtol=0, atol=1e-5)


def test_the_onnx_file_is_valid_whole_and_named(exported: Path) -> None:
    file = exported / "exported" / "model.onnx"
    onnx.checker.check_model(file, full_check=True)
    graph = onnx.load(file).graph
    frames = load_model(exported, device="cpu").flags.frame_features
    assert [entry.name for entry in graph.input] == (["frames", "num_frames"] if frames else ["features"])
    assert [entry.name for entry in graph.output] == ["probabilities"]
    shape = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert shape == (["batch", "length", 8] if frames else ["batch", 8])
    assert not any(tensor.external_data for tensor in graph.initializer)


def test_files_do_not_tell_about_this_machine(exported: Path) -> None:
    for file in (exported / "exported").iterdir():
        content = file.read_bytes()
        assert str(Path(module.__file__).parent).encode() not in content
        assert str(exported).encode() not in content


def test_the_model_card(exported: Path) -> None:
    card = json.loads((exported / "exported" / "model_card.json").read_text())
    assert card["model"] in MODELS
    assert card["step"] == 12
    assert card["files"] == ["model.pt2", "model.onnx"]
    frames = card["model"] in FRAME_MODELS
    assert card["input"]["shape"] == (["batch", "length", 8] if frames else ["batch", 8])
    names = ("rgb", "audio") if frames else ("mean_rgb", "mean_audio")
    assert card["input"]["features"] == [{"name": names[0], "size": 6}, {"name": names[1], "size": 2}]
    assert card["output"]["classes"] == list(NAMES)


def test_nothing_of_the_exporters_reaches_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_export(tmp_path, 1, "MoeModel")
    capfd.readouterr()
    files = export(Flags(train_dir=str(tmp_path), output_dir=str(tmp_path / "out")))
    out, err = capfd.readouterr()
    assert out == "".join(f"wrote {file}\n" for file in files)
    assert err == ""


@pytest.mark.parametrize(("output_format", "name"), [("torch", "model.pt2"), ("onnx", "model.onnx")])
def test_one_format_into_a_folder_of_choice(tmp_path: Path, output_format: str, name: str) -> None:
    write_export(tmp_path / "run", 1, "LogisticModel", class_names=())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("stays")
    export(
        Flags(train_dir=str(tmp_path / "run"), output_dir=str(tmp_path / "out"), output_format=output_format)
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"mine.txt", name, "model_card.json"}


def test_exporting_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    write_export(tmp_path, 1, "MoeModel")
    model = load_model(tmp_path, device="cpu")
    features = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    before = model.predict(features)
    module.export_program(model)
    assert torch.equal(model.predict(features), before)
    assert all(weight.requires_grad for weight in model.module.parameters())


@pytest.mark.parametrize("output_format", ["torch", "onnx"])
def test_a_file_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output_format: str
) -> None:
    write_export(tmp_path, 1, "MoeModel")
    (tmp_path / "exported").mkdir()
    older = tmp_path / "exported" / f"model{module._KINDS[output_format][0]}"
    older.write_text("older")
    trace = module.export_program

    def other_weights(model: Any) -> Any:
        program = trace(model)
        with torch.no_grad():
            next(iter(program.state_dict.values())).mul_(-1)
        return program

    monkeypatch.setattr(module, "export_program", other_weights)
    original = module._compare

    def compare(model: Any, answer: Any, file: Path) -> None:  # the program shares its weights with the model
        original(load_model(tmp_path, device="cpu"), answer, file)

    monkeypatch.setattr(module, "_compare", compare)
    with pytest.raises(ExportError, match=rf"{older.name} differs from the model by .* it was not written"):
        export(Flags(train_dir=str(tmp_path), output_format=output_format))
    assert [path.name for path in (tmp_path / "exported").iterdir()] == [older.name]
    assert older.read_text() == "older"


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_its_extra_and_torch_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    write_export(tmp_path, 1, "LogisticModel")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install 'expertise\[export\]'"):
        export(Flags(train_dir=str(tmp_path)))
    assert not (tmp_path / "exported").exists()
    assert len(export(Flags(train_dir=str(tmp_path), output_format="torch"))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_dir": "/nowhere"}, "--train_dir=/nowhere does not exist"),
        ({"output_format": "tflite"}, "--output_format='tflite' is not known; known are torch, onnx, all"),
    ],
)
def test_wrong_flags_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export(Flags(**changes))


def test_a_model_that_answers_at_random_is_not_exported(tmp_path: Path) -> None:
    options = {**SMALL, "moe_rank": 0, "dbof_random_evaluation": True}
    write_export(tmp_path, 1, "DbofModel", **FRAMES, options=Flags(**options))
    with pytest.raises(ValueError, match=r"was trained with --dbof_random_evaluation: it answers otherwise"):
        export(Flags(train_dir=str(tmp_path)))
    assert not (tmp_path / "exported").exists()
    write_export(tmp_path, 2, "DbofModel", **FRAMES, options=Flags(**options, iterations=0))
    assert len(export(Flags(train_dir=str(tmp_path), output_format="torch"))) == 2
