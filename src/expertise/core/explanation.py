"""Why a mixture predicted what it did: who decided, what each expert said, which inputs moved them."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expertise.core.inputs import Inputs
from expertise.core.pooling import pool

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


def effects(
    X: Floats,
    typical: Floats,
    evaluate: Callable[[Floats], Floats],
    blocks: Sequence[Sequence[int]] | None = None,
) -> Floats:
    """Compute how much each column changes a value: f(x) minus f(x with the column at its typical value).

    Parameters
    ----------
    X : (n, d) inputs.
    typical : (d,) a typical value of each column; a column whose typical value is NaN has no effect.
    evaluate : gives the value of each row, (n,) or (n, m).
    blocks : b lists of columns that move together, those that one category was encoded to; each column by
        itself if None.

    Returns
    -------
    (n, d) or (n, d, m); with blocks b for d. Costs as many evaluations, and one more.

    >>> effects(np.array([[1.0, 5.0]]), np.array([0.0, 2.0]), lambda X: X[:, 0] + 2 * X[:, 1])
    array([[1., 6.]])
    >>> effects(np.array([[1.0, 5.0]]), np.array([0.0, 2.0]), lambda X: X[:, 0] + 2 * X[:, 1], [[0, 1]])
    array([[7.]])
    """
    if blocks is None:
        blocks = [[column] for column in range(X.shape[1])]
    base = np.asarray(evaluate(X))
    result = np.zeros((len(X), len(blocks), *base.shape[1:]))
    moved = np.array(X)
    for number, block in enumerate(blocks):
        columns = [column for column in block if not np.isnan(typical[column])]
        if (X[:, columns] == typical[columns]).all():
            continue
        moved[:, columns] = typical[columns]
        result[:, number] = base - evaluate(moved)
        moved[:, columns] = X[:, columns]
    return result


@dataclass(frozen=True, eq=False)
class Explanation:
    """The decisions of a mixture about n rows; ``str()`` gives them in plain words, ``e[0]`` is one row.

    Parameters
    ----------
    rows : (n,) the number of each row in the X that was explained.
    inputs : (n, d) the inputs.
    feature_names : d names of the columns.
    gate_proba : (n, K) gate probabilities.
    expert_predictions : (n, K), (n, K, m) or class probabilities (n, K, V): what each expert said.
    prediction : (n,) or (n, m): what the mixture predicted, weighted_sum; a label of a classifier.
    chosen : (n,) the expert with the largest gate probability.
    gate_effects : (n, d) gate probability of the chosen expert minus that with one column at its typical
        value, the mean of the training data.
    expert_effects : (n, d), or (n, d, m) of several outputs: the same of the chosen expert's own prediction;
        of a classifier, of its probability of the predicted class.
    explained_column : (n,) the column of the class probabilities that is explained; None of a regressor.
    """

    rows: Rows
    inputs: Floats
    feature_names: tuple[str, ...]
    gate_proba: Floats
    expert_predictions: Floats
    prediction: npt.NDArray[Any]
    chosen: Rows
    gate_effects: Floats
    expert_effects: Floats
    explained_column: Rows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> "Explanation":
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"row {index} of an explanation of {len(self)} rows")
            index = [index]
        taken = {
            field.name: value[index]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(self, **taken)

    def __str__(self) -> str:
        return "\n\n".join(self._in_words(i) for i in range(len(self)))

    def _in_words(self, i: int) -> str:
        k = self.chosen[i]
        said = self.expert_predictions[i]
        about = ""
        if self.explained_column is not None:
            said = said[:, self.explained_column[i]]
            about = f" for {_show(self.prediction[i])}"
        each = [
            f"expert {j} {_show(value)} (weight {weight:.2f})"
            for j, (value, weight) in enumerate(zip(said, self.gate_proba[i], strict=True))
        ]
        return "\n".join(
            [
                f"row {self.rows[i]}: predicted {_show(self.prediction[i])}; "
                f"expert {k} decided with weight {self.gate_proba[i, k]:.2f}",
                f"  experts said{about}: {', '.join(each)}",
                f"  what moved the gate to expert {k}: {self._movers(i, self.gate_effects[i])}",
                f"  what moved expert {k}{about}: {self._movers(i, self.expert_effects[i])}",
            ]
        )

    def _movers(self, i: int, moved: Floats) -> str:
        """Name up to 3 inputs with the largest effect, each with its value."""
        size = np.abs(moved).reshape(len(moved), -1).max(axis=1)
        largest = [j for j in np.argsort(-size, kind="stable")[:3] if size[j] > 0]
        if not largest:
            return "nothing, each input alone makes no difference"
        return ", ".join(
            f"{self.feature_names[j]} = {_show(self.inputs[i, j])} ({_show(moved[j], '+')})" for j in largest
        )


def _show(value: Any, sign: str = "") -> str:
    """Write a number in 4 digits, several in brackets, anything else as it is."""
    if isinstance(value, np.ndarray) and value.ndim:
        return "[" + ", ".join(_show(one, sign) for one in value) + "]"
    if isinstance(value, float | np.floating):
        return f"{value:{sign}.4g}"
    return str(value)


def explain(
    inputs: Inputs,
    *,
    typical: Floats,
    feature_names: tuple[str, ...],
    gate_proba: Callable[[Inputs], Floats],
    predict_expert: Callable[[int, Inputs], Floats],
    explained: Callable[[Floats], tuple[npt.NDArray[Any], Rows | None]],
    n_experts: int,
) -> Explanation:
    """Explain each row of dense inputs; d + 1 passes of the gate and of the chosen experts."""
    gate = gate_proba(inputs)
    experts = np.stack([predict_expert(k, inputs) for k in range(n_experts)], axis=1)
    chosen = np.argmax(gate, axis=1)
    prediction, column = explained(pool(gate, lambda k, rows: experts[rows, k]))
    of_gate = np.zeros(inputs.X.shape)
    of_expert = np.zeros(inputs.X.shape + (experts.shape[2:] if column is None else ()))
    for k in np.unique(chosen).tolist():
        rows = np.flatnonzero(chosen == k)
        part, about = inputs.take(rows), None if column is None else column[rows]

        def weight(X: Floats, k: int = k, part: Inputs = part) -> Floats:
            return gate_proba(part._replace(X=X))[:, k]

        def output(X: Floats, k: int = k, part: Inputs = part, about: Rows | None = about) -> Floats:
            values = predict_expert(k, part._replace(X=X))
            return values if about is None else values[np.arange(len(about)), about]

        of_gate[rows] = effects(part.X, typical, weight)
        of_expert[rows] = effects(part.X, typical, output)
    return Explanation(
        rows=np.arange(len(gate)),
        inputs=inputs.X,
        feature_names=feature_names,
        gate_proba=gate,
        expert_predictions=experts,
        prediction=prediction,
        chosen=chosen,
        gate_effects=of_gate,
        expert_effects=of_expert,
        explained_column=column,
    )
