"""The classifier for other programs: a torch.export program and an ONNX model, normalisation inside.

A video-level model takes "features", float32 (B, D) raw features side by side. A frame-level model takes
"frames", uint8 (B, L, D) as they are in the records, and "num_frames", int64 (B,): so many of the L are real.
Both give "probabilities", float32 (B, C), for any B and L of at least 1. How to use them:

    program = torch.export.load("model.pt2").module()
    probabilities = program(features)

    session = onnxruntime.InferenceSession("model.onnx")
    (probabilities,) = session.run(None, {"features": features})

torch.export.load uses pickle inside, so a .pt2 file from somebody else can run any code when it is loaded:
load only those that you trust. An ONNX file is read as data; so are the exports that `load_model` reads.
"""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expertise._files import atomic_file
from expertise._optional import require
from expertise.youtube8m.flag_rules import check, choose
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import VideoModel, load_model, prepare
from expertise.youtube8m.models import AbstractModel

TOLERANCE = 1e-4  # largest difference between an exported model and ours: sums run in another order there
OUTPUT = "probabilities"
_CHECKED_BATCHES = (1, 7, 64)
_CHECKED_FRAMES = (3, 40, 11)


class ExportError(ValueError):
    """An exported model does not give what ours gives; it was not put in its place."""


def export(flags: Flags) -> list[Path]:
    """Write the newest export of ``flags.train_dir`` as model.pt2 and model.onnx, with a model_card.json.

    They go to ``output_dir``, or to train_dir/exported. ``output_format`` is torch, onnx or all (default). A
    file gets its name after its answers were compared with ours.

    Returns
    -------
    The files written.

    Raises
    ------
    FlagError : a flag is wrong, there is no model, or it answers at random.
    CheckpointError : the weights can't be read.
    MissingExtraError : the ONNX packages are not installed.
    ExportError : the exported model differs from ours by more than 1e-4.
    """
    check(flags, "export")
    formats = choose("output_format", flags.output_format or "all", FORMATS)
    if "onnx" in formats:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "export")  # missing ones are said before any work is done
    model = load_model(flags.train_dir, device="cpu")
    options = model.flags.options
    if model.flags.model == "DbofModel" and options.dbof_random_evaluation and options.iterations:
        raise FlagError(
            f"the model in --train_dir={flags.train_dir} was trained with --dbof_random_evaluation: it "
            "answers otherwise every time, so an export could not be checked; train it without that flag"
        )
    folder = Path(flags.output_dir or Path(flags.train_dir) / "exported").expanduser()
    program = export_program(model)
    files = []
    for name in formats:
        suffix, write, answer = _KINDS[name]
        file = folder / f"model{suffix}"
        with atomic_file(file) as part:
            write(program, part)
            _compare(model, answer(part), file)
        files.append(file)
    files.append(_write_card(model, folder / "model_card.json", files))
    for file in files:
        print(f"wrote {file}")
    return files


class _TraceableVideos(nn.Module):
    """Raw features to probabilities, without the loop over blocks of rows, whose number a trace would fix."""

    def __init__(self, model: AbstractModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.pool_and_pullback(*self.model.logits(*prepare(features)))[0]


class _TraceableFrames(nn.Module):
    """Frames, and how many there are of each video, to probabilities."""

    def __init__(self, model: AbstractModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        return self.model.pool_and_pullback(*self.model.logits(*prepare(frames, num_frames)))[0]


@dataclass(frozen=True)
class _Form:
    """What goes into an exported model: for each input its name, type, and the names of its free sizes."""

    frames: bool

    @property
    def names(self) -> tuple[str, ...]:
        return ("frames", "num_frames") if self.frames else ("features",)

    @property
    def free(self) -> dict[str, dict[int, str]]:
        if self.frames:
            return {"frames": {0: "batch", 1: "length"}, "num_frames": {0: "batch"}}
        return {"features": {0: "batch"}}

    def draw(self, batch: int, length: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw inputs; one video's features are all 0, or it has no frame."""
        if not self.frames:
            features = torch.randn(batch, size, generator=generator)
            features[batch // 2] *= batch > 1
            return (features,)
        frames = torch.randint(0, 256, (batch, length, size), generator=generator, dtype=torch.uint8)
        lengths = torch.randint(1, length + 1, (batch,), generator=generator)
        lengths[batch // 2] *= batch > 1
        return frames, lengths


def export_program(model: VideoModel) -> torch.export.ExportedProgram:
    """Trace a model, raw inputs to probabilities, for any number of videos (and frames)."""
    form = _Form(model.flags.frame_features)
    example = form.draw(2, 7, model.flags.input_size, torch.Generator().manual_seed(0))
    sizes = {name: torch.export.Dim(name, min=1) for name in ("batch", "length")}
    free = {name: {axis: sizes[size] for axis, size in axes.items()} for name, axes in form.free.items()}
    traceable = _TraceableFrames if form.frames else _TraceableVideos
    with quiet(), torch.no_grad():
        program = torch.export.export(traceable(model.module.model).eval(), example, dynamic_shapes=free)
    for module in program.graph_module.modules():  # a loop over frames has a graph of its own
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it would carry the paths of this machine into the files
    return program


def write_torch(program: torch.export.ExportedProgram, file: Path) -> None:
    """Write a program in the format of torch.export, whatever the file's name."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    file.write_bytes(buffer.getbuffer())


def write_onnx(program: torch.export.ExportedProgram, file: Path) -> None:
    """Write a program as ONNX, weights inside the file."""
    form = _Form(frames=len(program.graph_signature.user_inputs) == 2)
    with quiet():
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(form.names),
            output_names=[OUTPUT],
            dynamic_shapes=form.free,
        )
        assert onnx is not None
        onnx.save(os.fspath(file), external_data=False)


Answer = Callable[..., Tensor]


def _torch_answer(file: Path) -> Answer:
    program: Answer = torch.export.load(io.BytesIO(file.read_bytes())).module()
    return program


def _onnx_answer(file: Path) -> Answer:
    runtime = require("onnxruntime", "export")
    session = runtime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def answer(*inputs: Tensor) -> Tensor:
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run([OUTPUT], given)[0])

    return answer


_KINDS: dict[str, tuple[str, Callable[..., None], Callable[[Path], Answer]]] = {
    "torch": (".pt2", write_torch, _torch_answer),
    "onnx": (".onnx", write_onnx, _onnx_answer),
}
FORMATS: dict[str, tuple[str, ...]] = {**{name: (name,) for name in _KINDS}, "all": tuple(_KINDS)}


def _compare(model: VideoModel, answer: Answer, file: Path) -> None:
    """Compare the answers for batches, and videos, of several sizes."""
    form, generator = _Form(model.flags.frame_features), torch.Generator().manual_seed(0)
    for batch, length in zip(_CHECKED_BATCHES, _CHECKED_FRAMES, strict=True):
        inputs = form.draw(batch, length, model.flags.input_size, generator)
        with torch.inference_mode():
            difference = (answer(*inputs) - model.predict(*inputs)).abs().max().item()
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{file.name} differs from the model by {difference:g} for a batch of {batch}, more than "
                f"{TOLERANCE:g}; it was not written. Please report this with the versions of torch and onnx"
            )


def _write_card(model: VideoModel, file: Path, files: list[Path]) -> Path:
    flags = model.flags
    card: dict[str, Any] = {
        "model": flags.model,
        "step": model.step,
        "files": [written.name for written in files],
        "input": {
            **_card_inputs(flags.frame_features, flags.input_size),
            "features": [
                {"name": name, "size": size}
                for name, size in zip(flags.feature_names, flags.feature_sizes, strict=True)
            ],
            "normalisation": "inside the model: give raw features, side by side in this order",
        },
        "output": {
            "name": OUTPUT,
            "shape": ["batch", flags.num_classes],
            "dtype": "float32",
            "classes": list(model.class_names),
        },
    }
    with atomic_file(file) as part:
        part.write_text(json.dumps(card, indent=1) + "\n")
    return file


def _card_inputs(frames: bool, size: int) -> dict[str, Any]:
    if not frames:
        return {"name": "features", "shape": ["batch", size], "dtype": "float32"}
    lengths = {"name": "num_frames", "shape": ["batch"], "dtype": "int64"}
    return {"name": "frames", "shape": ["batch", "length", size], "dtype": "uint8", "lengths": lengths}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the exporters print, log and warn about off the terminal; errors still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
