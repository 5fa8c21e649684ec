"""What is asked of a fit, checked against the table before any work is done."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from expertise.mixture import TreeGate
from expertise.mixture.experts import CLASSIFICATION_EXPERTS, REGRESSION_EXPERTS
from expertise.mixture.gates import GATES
from expertise.table.columns import Encoder
from expertise.table.kinds import Wishes

# Ridges that hardly matter with a hundred rows, and keep rare categories and separable borders finite.
ALPHA = 0.1
GATE_ALPHA = 1e-4


@dataclass(frozen=True)
class Request:
    """What `fit_table` was asked for; see there."""

    target: str
    task: Literal["auto", "regression", "classification"] = "auto"
    experts: int | Literal["auto"] = "auto"
    expert: tuple[str, ...] = ()
    gate: str = "softmax"
    gate_features: tuple[str, ...] = ()
    weights: str = ""
    groups: str = ""
    order: str = ""
    test: float = 0.2
    seed: int = 0
    wishes: Wishes = field(default_factory=Wishes)
    keep_rows: bool = True

    def check(self, names: Sequence[str], source: str) -> None:
        """Check all that can be checked by names alone.

        Raises
        ------
        ValueError : which argument, what it was, what is allowed.
        """
        if not 0 <= self.test < 1:
            raise ValueError(f"--test={self.test:g} must be a share from 0 to under 1; 0.2 holds a fifth out")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed={self.seed} must be a whole number from 0 to {2**32 - 1}")
        if self.experts != "auto" and self.experts < 1:
            raise ValueError(f"--experts={self.experts} must be auto or a whole number of at least 1")
        if self.task not in ("auto", "regression", "classification"):
            raise ValueError(f"--task={self.task} is unknown; known are auto, regression, classification")
        for flag in ("target", "weights", "groups", "order"):
            if (name := getattr(self, flag)) or flag == "target":
                column_of(name, names, f"--{flag}", source)
        taken = [name for name in (self.target, self.weights, self.groups) if name]
        if len(set(taken)) < len(taken):
            raise ValueError(f"--target, --weights and --groups must differ; got {', '.join(taken)}")
        self._check_order()
        wishes = self.wishes
        if self.target in wishes.drop:
            raise ValueError(
                f"--drop names the target {self.target!r}, which is no input; leave it out there"
            )
        for flag, several in (
            ("gate-features", self.gate_features),
            ("categories", wishes.categories),
            ("keep", wishes.keep),
            ("drop", wishes.drop),
        ):
            for name in several:
                column_of(name, names, f"--{flag}", source)
        self._check_parts()

    def _check_order(self) -> None:
        if not self.order:
            return
        if self.order == self.target:
            raise ValueError(f"--order={self.order} is the target; give the column that tells the time")
        if self.groups:
            raise ValueError(
                f"--order={self.order} holds out the last rows, and --groups={self.groups} whole groups; "
                "give one of the two"
            )
        if not self.test:
            raise ValueError(f"--order={self.order} is how rows are held out, and --test=0 holds out none")

    def _check_parts(self) -> None:
        known = [*REGRESSION_EXPERTS, *CLASSIFICATION_EXPERTS]
        for name in self.expert:
            if name not in known or name in ("estimator", "binomial"):
                allowed = sorted({*known} - {"estimator", "binomial"})
                raise ValueError(f"--expert={name} is unknown; known are {', '.join(allowed)}")
        if len(self.expert) > 1 and self.experts not in ("auto", len(self.expert)):
            raise ValueError(
                f"--experts={self.experts}, but --expert names {len(self.expert)}, one an expert; leave "
                "--experts out, or name one kind"
            )
        if self.gate not in GATES or self.gate == "estimator":
            allowed = sorted({*GATES} - {"estimator"})
            raise ValueError(f"--gate={self.gate} is unknown; known are {', '.join(allowed)}")

    def check_task(self, task: str) -> None:
        """Check that the experts asked for are for this task."""
        table = REGRESSION_EXPERTS if task == "regression" else CLASSIFICATION_EXPERTS
        for name in self.expert:
            if name not in table:
                allowed = ", ".join(sorted({*table} - {"estimator", "binomial"}))
                raise ValueError(f"--expert={name} is not for {task}; known are {allowed}")

    def check_target(self, y: npt.NDArray[Any], there: npt.NDArray[np.bool_], task: str) -> None:
        """Check that the experts asked for can have this target; rows are those of the table."""
        for name in self.expert if task == "regression" else ():
            REGRESSION_EXPERTS[name].check_y(np.where(there, y, 1.0))  # 1 is for every family

    def arguments(self, encoder: Encoder) -> dict[str, Any]:
        """Give the arguments of the estimator."""
        expert: Any = list(self.expert) if len(self.expert) > 1 else (self.expert or (None,))[0]
        n_experts: Any = None if len(self.expert) > 1 else self.experts
        gate: Any = self.gate
        if self.gate == "tree" and n_experts == "auto":
            gate, n_experts = TreeGate(grow=True), None
        return {
            "n_experts": n_experts,
            "expert": expert,
            "gate": gate,
            "gate_features": self.gate_columns(encoder),
            "alpha": ALPHA,
            "gate_alpha": GATE_ALPHA,
            "random_state": self.seed,
            "keep_path": True,
        }

    def gate_columns(self, encoder: Encoder) -> list[int] | None:
        """Give the columns of X that the gate sees; None for all.

        Raises
        ------
        ValueError : a column that is no input.
        """
        if not self.gate_features:
            return None
        chosen: list[int] = []
        for name in self.gate_features:
            if name not in [column.name for column in encoder.columns]:
                reason = encoder.left_out.get(name, "not an input")
                raise ValueError(f"--gate-features names {name!r}, which is {reason}")
            chosen += encoder.blocks[encoder.number(name)]
        return sorted(chosen)


def column_of(name: str, names: Sequence[str], flag: str, source: str) -> str:
    """Give back the name of a column that is there; else name the nearest."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{flag}={name}: {source} has no such column{hint}; it has {', '.join(map(repr, names))}"
    )
