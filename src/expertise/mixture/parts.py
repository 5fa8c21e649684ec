"""From what the constructor was given, names or objects, to experts and a gate."""

import difflib
from collections.abc import Iterable
from typing import Any, Literal

from expertise.mixture.experts import (
    CLASSIFICATION_EXPERTS,
    REGRESSION_EXPERTS,
    AbstractExpert,
    ClassifierExpert,
    RegressorExpert,
)
from expertise.mixture.gates import GATES, AbstractGate, EstimatorGate

Task = Literal["regression", "classification"]


def unknown(argument: str, value: object, known: Iterable[str], more: str = "") -> ValueError:
    """Make the error for a name that no table has: the known ones, and the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{argument}={value!r} is unknown; known are {', '.join(known)}{more}{hint}")


def is_estimator(value: object) -> bool:
    """Whether this is an object with scikit-learn's fit."""
    return callable(getattr(value, "fit", None)) and not isinstance(value, type)


def resolve_expert(value: Any, task: Task) -> AbstractExpert:
    """Make one expert from a name, an expert, or a scikit-learn estimator."""
    table = REGRESSION_EXPERTS if task == "regression" else CLASSIFICATION_EXPERTS
    if isinstance(value, AbstractExpert):
        if value.task != task:
            raise ValueError(
                f"expert={value.name!r} is for {value.task}, this is for {task}; known: {', '.join(table)}"
            )
        return value
    if isinstance(value, str):
        if value not in table or value == "estimator":
            named = (name for name in table if name != "estimator")
            raise unknown("expert", value, named, ", or any scikit-learn estimator")
        return table[value]()
    if is_estimator(value):
        return RegressorExpert(value) if task == "regression" else ClassifierExpert(value)
    raise ValueError(
        f"expert must be a name ({', '.join(table)}), an expert, a scikit-learn estimator, or a list of "
        f"these; got {value!r}"
    )


def resolve_experts(value: Any, n_experts: int | None, task: Task) -> tuple[AbstractExpert, ...]:
    """Make the experts: a list as it stands, or so many of one kind (2 where nothing says how many)."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("expert=[] names no expert; give at least one")
        if n_experts is not None and n_experts != len(value):
            raise ValueError(
                f"n_experts={n_experts}, but expert lists {len(value)}; leave n_experts out, or make them "
                "agree"
            )
        experts = tuple(resolve_expert(one, task) for one in value)
    else:
        experts = (resolve_expert(value, task),) * (n_experts or 2)
    if len({expert.discrete for expert in experts}) > 1 and task == "regression":
        counts = ", ".join(sorted({expert.name for expert in experts if expert.discrete}))
        others = ", ".join(sorted({expert.name for expert in experts if not expert.discrete}))
        raise ValueError(
            f"expert mixes families of counts ({counts}) with densities ({others}); their likelihoods don't "
            "compare; use one kind"
        )
    return experts


def resolve_gate(value: Any) -> AbstractGate:
    """Make the gate from a name, a gate, or a scikit-learn classifier."""
    if isinstance(value, AbstractGate):
        return value
    if isinstance(value, str):
        if value not in GATES or value == "estimator":
            named = (name for name in GATES if name != "estimator")
            raise unknown("gate", value, named, ", or any scikit-learn classifier with predict_proba")
        return GATES[value]()
    if is_estimator(value):
        return EstimatorGate(value)
    raise ValueError(
        f"gate must be a name ({', '.join(GATES)}), a gate, or a scikit-learn classifier; got {value!r}"
    )
