"""The models, one file each. The table is what --model and --video_level_classifier_model accept."""

from expertise.youtube8m.flag_rules import choose
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import (
    AbstractFrameModel,
    AbstractModel,
    AbstractVideoModel,
    Explanation,
    Outputs,
    l2_normalize,
)
from expertise.youtube8m.models.logistic import LogisticModel
from expertise.youtube8m.models.moe import MoeModel

VIDEO_MODELS: dict[str, type[AbstractVideoModel]] = {
    "LogisticModel": LogisticModel,
    "MoeModel": MoeModel,
}

FRAME_MODELS: dict[str, type[AbstractFrameModel]] = {}

MODELS: dict[str, type[AbstractVideoModel] | type[AbstractFrameModel]] = {**VIDEO_MODELS, **FRAME_MODELS}

__all__ = [
    "FRAME_MODELS",
    "MODELS",
    "VIDEO_MODELS",
    "AbstractFrameModel",
    "AbstractModel",
    "AbstractVideoModel",
    "Explanation",
    "LogisticModel",
    "MoeModel",
    "Outputs",
    "build_model",
    "l2_normalize",
]


def build_model(flags: ModelFlags) -> AbstractModel:
    """Build the model that the flags describe, its weights not yet drawn.

    Raises
    ------
    FlagError : a name is not known, or a video-level model's where a frame-level one's belongs.
    """
    choose("model", flags.model, MODELS)
    if flags.model in VIDEO_MODELS:
        return VIDEO_MODELS[flags.model].from_flags(flags, flags.input_size, flags.input_scale)

    def classifier_of(size: int, value_size: float) -> AbstractVideoModel:
        classifier = choose(
            "video_level_classifier_model", flags.options.video_level_classifier_model, VIDEO_MODELS
        )
        scale = flags.value_scale / value_size if flags.value_scale else 1.0
        built: AbstractVideoModel = classifier.from_flags(flags, size, scale)
        return built

    return FRAME_MODELS[flags.model].from_flags(flags, classifier_of)
