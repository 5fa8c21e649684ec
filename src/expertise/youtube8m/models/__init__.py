"""The models, one file each. The table is what --model accepts."""

from expertise.youtube8m.models._abstract import AbstractVideoModel, Explanation, l2_normalize
from expertise.youtube8m.models.logistic import LogisticModel
from expertise.youtube8m.models.moe import MoeModel

MODELS: dict[str, type[AbstractVideoModel]] = {
    "LogisticModel": LogisticModel,
    "MoeModel": MoeModel,
}

__all__ = ["MODELS", "AbstractVideoModel", "Explanation", "LogisticModel", "MoeModel", "l2_normalize"]
