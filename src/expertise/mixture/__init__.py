"""Statistical mixtures of experts, fitted by EM: gate, experts, and a probabilistic model that joins them."""

from expertise.mixture._warnings import DegenerateExpertWarning, FewCasesWarning, ObjectiveFellWarning
from expertise.mixture.estimators import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture.experts import (
    BinomialExpert,
    ClassifierExpert,
    ConstantClassExpert,
    ConstantExpert,
    GammaExpert,
    GaussianExpert,
    LogisticExpert,
    MultinomialExpert,
    PoissonExpert,
    RegressorExpert,
    StudentTExpert,
)
from expertise.mixture.gates import ConstantGate, EstimatorGate, GaussianGate, SoftmaxGate, TreeGate
from expertise.mixture.loading import from_json, load
from expertise.mixture.streaming import ParquetChunks

__all__ = [
    "BinomialExpert",
    "ClassifierExpert",
    "ConstantClassExpert",
    "ConstantExpert",
    "ConstantGate",
    "DegenerateExpertWarning",
    "EstimatorGate",
    "FewCasesWarning",
    "GammaExpert",
    "GaussianExpert",
    "GaussianGate",
    "LogisticExpert",
    "MixtureOfExpertsClassifier",
    "MixtureOfExpertsRegressor",
    "MultinomialExpert",
    "ObjectiveFellWarning",
    "ParquetChunks",
    "PoissonExpert",
    "RegressorExpert",
    "SoftmaxGate",
    "StudentTExpert",
    "TreeGate",
    "from_json",
    "load",
]
