"""A mixture with the table that it was fitted on: what `expertise fit` writes, and the other commands read.

Letters: n rows, K experts, V classes. Rows and experts count from 0.
"""

import os
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from expertise import __version__
from expertise._files import atomic_file
from expertise._optional import require
from expertise.mixture import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture.loading import load_trusted
from expertise.table.columns import Column, Encoder
from expertise.table.values import Floats

Task = Literal["regression", "classification"]
Mixture = MixtureOfExpertsRegressor | MixtureOfExpertsClassifier
FORMAT = 1


@dataclass(frozen=True)
class KeptRows:
    """Held-out rows that the model keeps for its page.

    values : (n, columns) as `Encoder.read` gives them. y : (n,) numbers, or codes of classes. row : (n,)
    where they stood in the file. of : how many rows they are a sample of.
    """

    values: Floats
    y: npt.NDArray[Any]
    row: npt.NDArray[np.intp]
    of: int


@dataclass
class TableModel:
    """A fitted mixture, the columns it was fitted on, and how it did.

    Parameters
    ----------
    task, target : what is predicted.
    encoder : the columns of inputs.
    mixture : the fitted estimator; its X is ``encoder.encode(values)``.
    facts : what was fitted, name and value in words.
    scores : of each model on the held-out rows, the mixture first: (name, metrics).
    verdict, helps : whether the mixture helps; None where nothing was held out.
    warnings : what the fit warned of.
    errors : standard errors: "coef", "intercept", "gate_coef", "gate_intercept"; empty where there are none.
    kept : held-out rows for the page, or None.
    source : name of the file.
    """

    task: Task
    target: str
    encoder: Encoder
    mixture: Mixture
    source: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    scores: list[tuple[str, dict[str, float | None]]] = field(default_factory=list)
    verdict: str = ""
    helps: bool | None = None
    warnings: list[str] = field(default_factory=list)
    errors: dict[str, Any] = field(default_factory=dict)
    kept: KeptRows | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels of the classes, V; empty for regression."""
        return tuple(self.mixture.classes_.tolist()) if self.task == "classification" else ()

    @property
    def n_experts(self) -> int:
        """Number of experts, K."""
        return self.mixture.n_experts_

    # -- what it answers

    def encode(self, table: Any, *, source: str = "the table", **options: Any) -> Floats:
        """Give X (n, d) of a `pyarrow.Table`, or of a pandas data frame; see `Encoder.read`."""
        if not hasattr(table, "column_names"):
            table = require("pyarrow", "table").Table.from_pandas(table, preserve_index=False)
        return self.encoder.encode(self.encoder.read(table, source=source, **options))

    def predict(self, table: Any, *, coverage: float = 0.9, **options: Any) -> dict[str, npt.NDArray[Any]]:
        """Predict the rows of a table.

        Parameters
        ----------
        table : a `pyarrow.Table` or a data frame with the columns of the fit.
        coverage : of the interval.
        options : ``source``, ``missing``, ``new``, ``first`` of `Encoder.read`.

        Returns
        -------
        "prediction" (n,); of a regression "lower" and "upper" (n,), the central interval; of a classifier
        "probability of CLASS" (n,) each; "expert" (n,), the one with the largest weight; "weight of expert k"
        (n,) each.

        Raises
        ------
        ValueError : missing columns, wrong values, new categories: with row and column.
        """
        return self.answer(self.encode(table, **options), coverage)

    def answer(self, X: Floats, coverage: float = 0.9) -> dict[str, npt.NDArray[Any]]:
        """Predict encoded rows (n, d), as `predict`."""
        gate = self.mixture.gate_proba(X)
        found: dict[str, npt.NDArray[Any]] = {}
        if isinstance(self.mixture, MixtureOfExpertsClassifier):
            proba = self.mixture.predict_proba(X)
            found["prediction"] = np.array(self.classes, dtype=object)[proba.argmax(axis=1)]
            found |= {f"probability of {label}": proba[:, v] for v, label in enumerate(self.classes)}
        else:
            found["prediction"] = self.mixture.predict(X)
            lower, upper = self.mixture.predict_interval(X, coverage).T
            found |= {"lower": lower, "upper": upper}
        found["expert"] = gate.argmax(axis=1)
        return found | {f"weight of expert {k}": gate[:, k] for k in range(gate.shape[1])}

    # -- on disk

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a skops file, whole or not at all; reading it runs no code."""
        skops = require("skops.io", "table")
        kept = None if self.kept is None else dict(vars(self.kept))
        plain = {**vars(self), "encoder": None, "kept": kept}
        plain["encoder"] = {
            "columns": [column.as_dict() for column in self.encoder.columns],
            "left_out": self.encoder.left_out,
        }
        content = {"expertise table": FORMAT, "version": __version__, **plain}
        with atomic_file(path) as file:
            file.write_bytes(skops.dumps(content, compression=zipfile.ZIP_DEFLATED))


def load_model(path: str | os.PathLike[str]) -> TableModel:
    """Read what `TableModel.save` wrote. Reading runs no code.

    Raises
    ------
    ValueError : no such file, no skops file, one that `expertise fit` did not write, or unknown types.
    """
    try:
        found = load_trusted(path)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # all are zipfile's
        raise ValueError(f"{path} is damaged ({error}); fit again, or take another copy") from None
    if not isinstance(found, dict) or "expertise table" not in found:
        kind = type(found).__name__
        raise ValueError(
            f"{path} holds a {kind}, and no model of a table; expertise fit writes one. What Python "
            "saved is read by expertise.mixture.load"
        )
    written, version = found.pop("expertise table"), found.pop("version")
    if written > FORMAT:
        raise ValueError(
            f"{path} was written by expertise {version}, this is {__version__}; use the newer one"
        )
    encoder = found.pop("encoder")
    columns = tuple(Column.from_dict(one) for one in encoder["columns"])
    kept = found.pop("kept")
    return TableModel(
        **found,
        encoder=Encoder(columns, encoder["left_out"]),
        kept=None if kept is None else KeptRows(**kept),
    )
