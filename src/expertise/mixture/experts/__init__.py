"""The families of experts, one file each. The tables are what ``expert=`` accepts by name."""

from expertise.mixture.experts._abstract import AbstractExpert, ExpertSettings
from expertise.mixture.experts.binomial import BinomialExpert
from expertise.mixture.experts.constant import ConstantClassExpert, ConstantExpert
from expertise.mixture.experts.estimator import ClassifierExpert, RegressorExpert
from expertise.mixture.experts.gamma import GammaExpert
from expertise.mixture.experts.gaussian import GaussianExpert
from expertise.mixture.experts.logistic import LogisticExpert
from expertise.mixture.experts.multinomial import MultinomialExpert
from expertise.mixture.experts.poisson import PoissonExpert
from expertise.mixture.experts.student_t import StudentTExpert

REGRESSION_EXPERTS: dict[str, type[AbstractExpert]] = {
    "gaussian": GaussianExpert,
    "student_t": StudentTExpert,
    "poisson": PoissonExpert,
    "gamma": GammaExpert,
    "binomial": BinomialExpert,
    "constant": ConstantExpert,
    "estimator": RegressorExpert,
}

CLASSIFICATION_EXPERTS: dict[str, type[AbstractExpert]] = {
    "logistic": LogisticExpert,
    "multinomial": MultinomialExpert,
    "constant": ConstantClassExpert,
    "estimator": ClassifierExpert,
}

EXPERTS: tuple[type[AbstractExpert], ...] = (*REGRESSION_EXPERTS.values(), *CLASSIFICATION_EXPERTS.values())

__all__ = [
    "CLASSIFICATION_EXPERTS",
    "EXPERTS",
    "REGRESSION_EXPERTS",
    "AbstractExpert",
    "BinomialExpert",
    "ClassifierExpert",
    "ConstantClassExpert",
    "ConstantExpert",
    "ExpertSettings",
    "GammaExpert",
    "GaussianExpert",
    "LogisticExpert",
    "MultinomialExpert",
    "PoissonExpert",
    "RegressorExpert",
    "StudentTExpert",
]
