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
from expertise.youtube8m.models.attention import AttentionModel
from expertise.youtube8m.models.chain import ChainMoeModel
from expertise.youtube8m.models.context_gated import ContextGatedMoeModel
from expertise.youtube8m.models.dbof import DbofModel
from expertise.youtube8m.models.frame_logistic import FrameLevelLogisticModel
from expertise.youtube8m.models.frame_moe import FrameMoeModel
from expertise.youtube8m.models.frame_moments import FrameMomentsModel
from expertise.youtube8m.models.gru import GruModel
from expertise.youtube8m.models.logistic import LogisticModel
from expertise.youtube8m.models.lstm import LstmModel
from expertise.youtube8m.models.moe import MoeModel
from expertise.youtube8m.models.netvlad import NetVladModel
from expertise.youtube8m.models.nextvlad import NeXtVladModel
from expertise.youtube8m.models.shared_expert import SharedExpertMoeModel

VIDEO_MODELS: dict[str, type[AbstractVideoModel]] = {
    "LogisticModel": LogisticModel,
    "MoeModel": MoeModel,
    "ContextGatedMoeModel": ContextGatedMoeModel,
    "ChainMoeModel": ChainMoeModel,
    "SharedExpertMoeModel": SharedExpertMoeModel,
}

FRAME_MODELS: dict[str, type[AbstractFrameModel]] = {
    "FrameLevelLogisticModel": FrameLevelLogisticModel,
    "DbofModel": DbofModel,
    "LstmModel": LstmModel,
    "GruModel": GruModel,
    "NetVladModel": NetVladModel,
    "NeXtVladModel": NeXtVladModel,
    "AttentionModel": AttentionModel,
    "FrameMoeModel": FrameMoeModel,
    "FrameMomentsModel": FrameMomentsModel,
}

MODELS: dict[str, type[AbstractVideoModel] | type[AbstractFrameModel]] = {**VIDEO_MODELS, **FRAME_MODELS}

__all__ = [
    "FRAME_MODELS",
    "MODELS",
    "VIDEO_MODELS",
    "AbstractFrameModel",
    "AbstractModel",
    "AbstractVideoModel",
    "AttentionModel",
    "ChainMoeModel",
    "ContextGatedMoeModel",
    "DbofModel",
    "Explanation",
    "FrameLevelLogisticModel",
    "FrameMoeModel",
    "FrameMomentsModel",
    "GruModel",
    "LogisticModel",
    "LstmModel",
    "MoeModel",
    "NeXtVladModel",
    "NetVladModel",
    "Outputs",
    "SharedExpertMoeModel",
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

    def classifier_of(size: int, value_size: float, name: str = "") -> AbstractVideoModel:
        classifier = choose(
            "video_level_classifier_model", name or flags.options.video_level_classifier_model, VIDEO_MODELS
        )
        scale = flags.value_scale / value_size if flags.value_scale else 1.0
        built: AbstractVideoModel = classifier.from_flags(flags, size, scale)
        return built

    return FRAME_MODELS[flags.model].from_flags(flags, classifier_of)
