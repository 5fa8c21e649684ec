"""What every fitted mixture answers, however it was trained. Reads fitted models; never trains."""

from expertise.core.classifier import AbstractMixtureClassifier
from expertise.core.distribution import MixtureDistribution
from expertise.core.estimator import AbstractMixture
from expertise.core.explanation import Explanation
from expertise.core.inputs import Inputs
from expertise.core.pooling import POOLINGS
from expertise.core.regressor import AbstractMixtureRegressor

__all__ = [
    "POOLINGS",
    "AbstractMixture",
    "AbstractMixtureClassifier",
    "AbstractMixtureRegressor",
    "Explanation",
    "Inputs",
    "MixtureDistribution",
]
