"""The classifier for other programs: a torch.export program and an ONNX model, normalisation inside.

Both take "features", float32 (B, D) raw features side by side, and give "probabilities", float32 (B, C), for
any B >= 1. How to use them:

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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expertise._files import atomic_file
from expertise._optional import require
from expertise.youtube8m.flag_rules import check, choose
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.loading import VideoModel, load_model
from expertise.youtube8m.models import AbstractModel, l2_normalize

TOLERANCE = 1e-5  # largest difference between an exported model and ours
INPUT, OUTPUT = "features", "probabilities"
_CHECKED_BATCHES = (1, 7, 64)


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
    FlagError : a flag is wrong, or there is no model.
    CheckpointError : the weights can't be read.
    MissingExtraError : the ONNX packages are not installed.
    ExportError : the exported model differs from ours by more than 1e-5.
    """
    check(flags, "export")
    formats = choose("output_format", flags.output_format or "all", FORMATS)
    if "onnx" in formats:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "export")  # missing ones are said before any work is done
    model = load_model(flags.train_dir, device="cpu")
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


class _Traceable(nn.Module):
    """Raw features to probabilities, without the loop over blocks of rows, whose number a trace would fix."""

    def __init__(self, model: AbstractModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        logits = self.model.logits(l2_normalize(features))
        return self.model.pool_and_pullback(*logits)[0]


def export_program(model: VideoModel) -> torch.export.ExportedProgram:
    """Trace a model, raw features (B, D) to probabilities (B, C), for any B."""
    example = torch.zeros(2, model.flags.input_size)
    batch = torch.export.Dim("batch", min=1)
    with quiet(), torch.no_grad():
        program = torch.export.export(
            _Traceable(model.module.model).eval(), (example,), dynamic_shapes={INPUT: {0: batch}}
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it would carry the paths of this machine into the files
    return program


def write_torch(program: torch.export.ExportedProgram, file: Path) -> None:
    """Write a program in the format of torch.export, whatever the file's name."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    file.write_bytes(buffer.getbuffer())


def write_onnx(program: torch.export.ExportedProgram, file: Path) -> None:
    """Write a program as ONNX, weights inside the file."""
    with quiet():
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: "batch"}},
        )
        assert onnx is not None
        onnx.save(os.fspath(file), external_data=False)


def _torch_answer(file: Path) -> Callable[[Tensor], Tensor]:
    program: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(file.read_bytes())).module()
    return program


def _onnx_answer(file: Path) -> Callable[[Tensor], Tensor]:
    runtime = require("onnxruntime", "export")
    session = runtime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    return lambda features: torch.from_numpy(session.run([OUTPUT], {INPUT: features.numpy()})[0])


_KINDS: dict[str, tuple[str, Callable[..., None], Callable[[Path], Callable[[Tensor], Tensor]]]] = {
    "torch": (".pt2", write_torch, _torch_answer),
    "onnx": (".onnx", write_onnx, _onnx_answer),
}
FORMATS: dict[str, tuple[str, ...]] = {**{name: (name,) for name in _KINDS}, "all": tuple(_KINDS)}


def _compare(model: VideoModel, answer: Callable[[Tensor], Tensor], file: Path) -> None:
    """Compare the answers for batches of several sizes; one video's features are all 0."""
    generator = torch.Generator().manual_seed(0)
    for size in _CHECKED_BATCHES:
        features = torch.randn(size, model.flags.input_size, generator=generator)
        features[size // 2] *= size > 1
        with torch.inference_mode():
            difference = (answer(features) - model.predict(features)).abs().max().item()
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{file.name} differs from the model by {difference:g} for a batch of {size}, more than "
                f"{TOLERANCE:g}; it was not written. Please report this with the versions of torch and onnx"
            )


def _write_card(model: VideoModel, file: Path, files: list[Path]) -> Path:
    flags = model.flags
    card: dict[str, Any] = {
        "model": flags.model,
        "step": model.step,
        "files": [written.name for written in files],
        "input": {
            "name": INPUT,
            "shape": ["batch", flags.input_size],
            "dtype": "float32",
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
