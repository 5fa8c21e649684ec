"""A trained model, ready to predict: from a run's folder, an export, or an archive of one."""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from expertise.youtube8m import checkpoint
from expertise.youtube8m.flag_rules import choose
from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.frames import dequantize, frame_mask
from expertise.youtube8m.losses import LOSSES
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models import AbstractModel, Explanation, build_model, l2_normalize

_ARCHIVE_FILES = {"model.safetensors", "model_flags.json"}
_ARCHIVE_LIMIT = 16 << 30  # bytes that an archive may unpack to


class Classifier(nn.Module):
    """From raw features to probabilities (B, C): normalises, then asks the model.

    Features are float32 (B, D); of frames, uint8 or float32 (B, L, D) with the number of frames of each video
    (B,). Bytes become numbers here, on the device, just before they are used.
    """

    def __init__(self, model: AbstractModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give the probability of every class, float32 (B, C)."""
        result: Tensor = self.model(*prepare(features, lengths))
        return result


def prepare(features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
    """Normalise raw features: what a model takes. Padding frames become 0."""
    if lengths is None:
        return (l2_normalize(features),)
    if features.device.type == "cpu" and not (torch.compiler.is_exporting() or features.requires_grad):
        return _video_by_video(features, lengths), lengths
    mask_BL = frame_mask(lengths, features.shape[1])
    return l2_normalize(dequantize(features)) * mask_BL.unsqueeze(-1), lengths


def _video_by_video(frames_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """Do as the other way does, but one video after the other, which stays in the processor's cache."""
    out_BLD = torch.empty(frames_BLD.shape, dtype=torch.float32)
    for frames_LD, out_LD, length in zip(frames_BLD, out_BLD, lengths_B.tolist(), strict=True):
        x_LD = dequantize(frames_LD[:length])
        squares_L1 = torch.linalg.vecdot(x_LD, x_LD).unsqueeze(1)
        torch.mul(x_LD, squares_L1.clamp_min_(1e-12).rsqrt_(), out=out_LD[:length])
        out_LD[length:] = 0.0
    return out_BLD


@dataclass(frozen=True)
class VideoModel:
    """A trained model with all that is needed to use it."""

    module: Classifier
    flags: ModelFlags
    step: int
    device: torch.device
    precision: str = "fp32"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; 'class 7' where the model was trained without a vocabulary."""
        return self.flags.class_names or tuple(f"class {c}" for c in range(self.flags.num_classes))

    @torch.inference_mode()
    def predict(self, features: np.ndarray | Tensor, lengths: np.ndarray | Tensor | None = None) -> Tensor:
        """Give the probability of every class.

        Parameters
        ----------
        features : (B, D) raw features, concatenated in the order of ``flags.feature_names``; of a frame-level
            model (B, L, D), bytes as in the records (uint8) or the numbers that they stand for.
        lengths : (B,) frames of each video, for a frame-level model; all L unless given.

        Returns
        -------
        (B, C) float32, on the CPU.

        Raises
        ------
        ValueError : the features have another shape, or a length is not from 0 to L.
        """
        inputs = self._checked(features, lengths)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            result: Tensor = self.module(*inputs)
        return result.cpu()

    @torch.inference_mode()
    def explain(
        self, features: np.ndarray | Tensor, lengths: np.ndarray | Tensor | None = None
    ) -> Explanation:
        """Say who decided: the gate's weights and the experts' votes, as NumPy arrays.

        Raises
        ------
        ValueError : the features have another shape, or the model has no experts.
        """
        return self.module.model.explain(*prepare(*self._checked(features, lengths)))

    def _checked(
        self, features: np.ndarray | Tensor, lengths: np.ndarray | Tensor | None
    ) -> tuple[Tensor, ...]:
        x = torch.as_tensor(features, device=self.device)
        frames = self.flags.frame_features
        if x.dtype != torch.uint8 or not frames:
            x = x.float()
        if x.ndim != (3 if frames else 2) or x.shape[-1] != self.flags.input_size:
            parts = ", ".join(
                f"{name} {size}"
                for name, size in zip(self.flags.feature_names, self.flags.feature_sizes, strict=True)
            )
            raise ValueError(
                f"features have shape {tuple(x.shape)}; this model takes "
                f"(videos, {'frames, ' if frames else ''}{self.flags.input_size}): {parts}"
            )
        if not frames:
            if lengths is not None:
                raise ValueError(
                    "lengths are for frame-level models; this one is video-level, leave them out"
                )
            return (x,)
        B, L = x.shape[:2]
        lengths_B = torch.as_tensor(L if lengths is None else lengths, device=self.device)
        lengths_B = lengths_B.expand(B) if lengths is None else lengths_B
        if tuple(lengths_B.shape) != (B,) or not bool(((lengths_B >= 0) & (lengths_B <= L)).all()):
            raise ValueError(f"lengths must be {B} whole numbers from 0 to {L}, the frames of each video")
        return x, lengths_B.long()


def check_segments(flags: ModelFlags, where: str) -> None:
    """Raise FlagError where a model that shall look at segments, found in ``where``, sees no frames."""
    if not flags.frame_features:
        raise FlagError(
            f"--segment_labels: {flags.model} in {where} is a video-level model, which sees no segments; "
            "take one that was trained with --frame_features, or leave --segment_labels out"
        )


def choose_device(device: str) -> torch.device:
    """Give the device of a flag: auto is the GPU where there is one.

    Raises
    ------
    FlagError : cuda is asked for, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise FlagError("--device=cuda: torch finds no GPU here; take --device=cpu or auto")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def find_export(path: str | Path) -> tuple[Path, int]:
    """Find the newest export at or under a path: a run's folder, or an export folder itself.

    Returns
    -------
    Its folder, and the step that it was written at (-1 where its name does not say).

    Raises
    ------
    FlagError : there is nothing of the kind.
    """
    folder = Path(path)
    if (folder / "model.safetensors").is_file():
        name = folder.name.removeprefix("step_")
        return folder, int(name) if name.isdecimal() else -1
    exports = checkpoint.steps_of(folder, "export")
    if not exports:
        why = "has no export yet" if folder.is_dir() else "does not exist"
        raise FlagError(f"--train_dir={path} {why}; give the folder of a run of `expertise youtube8m train`")
    step = max(exports)
    return exports[step], step


def load_model(path: str | Path, *, device: str = "auto", precision: str = "fp32") -> VideoModel:
    """Load a trained model. Runs no code of what it reads: safetensors and JSON only.

    Parameters
    ----------
    path : the folder of a run (its newest export is taken), one export folder, or a .tgz of one.
    device : auto, cpu or cuda.
    precision : of the matrix products, fp32 or bf16.

    Raises
    ------
    FlagError : there is no model at ``path``, or its flags can't be read.
    CheckpointError : its weights can't be read.
    """
    if Path(path).is_file():
        with _unpacked(Path(path)) as folder:
            return _load(folder, -1, device, precision)
    return _load(*find_export(path), device, precision)


def _load(folder: Path, step: int, device: str, precision: str) -> VideoModel:
    flags = ModelFlags.read(folder / "model_flags.json")
    choose("label_loss", flags.label_loss, LOSSES)
    with torch.device("meta"):  # flags that lie about sizes take no memory: the weights must fit first
        model = build_model(flags)
    checkpoint.load_weights(folder / "model.safetensors", model)
    on = choose_device(device)
    return VideoModel(Classifier(model).to(on).eval(), flags, step, on, precision)


@contextmanager
def _unpacked(archive: Path) -> Iterator[Path]:
    """Unpack the two files of a model and nothing else: an archive may hold anything."""
    with tempfile.TemporaryDirectory(prefix="expertise-") as folder:
        try:
            with tarfile.open(archive, "r:*") as tar:
                for member in tar:
                    name = Path(member.name).name
                    target = Path(folder) / name
                    if member.isfile() and name in _ARCHIVE_FILES and member.size <= _ARCHIVE_LIMIT:
                        source = tar.extractfile(member)
                        assert source is not None
                        with target.open("xb") as file:  # a name that comes twice is refused
                            shutil.copyfileobj(source, file, 1 << 20)
        except (tarfile.TarError, EOFError, OSError) as error:
            why = str(error).splitlines()[0].rstrip(":")  # of a file of another kind, tarfile says more
            raise FlagError(
                f"--input_model_tgz={archive} can't be unpacked: {why}; give what --output_model_tgz wrote"
            ) from error
        missing = _ARCHIVE_FILES - {file.name for file in Path(folder).iterdir()}
        if missing:
            raise FlagError(f"--input_model_tgz={archive} holds no {' and no '.join(sorted(missing))}")
        yield Path(folder)
