"""From a table to a fitted mixture, judged on rows it has not seen. `fit_table` reads top to bottom."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from expertise.mixture import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.table import baselines, saying
from expertise.table.columns import Encoder
from expertise.table.kinds import find, read_order
from expertise.table.model import KeptRows, Mixture, TableModel
from expertise.table.reading import read_table
from expertise.table.request import Request
from expertise.table.sampling import sample
from expertise.table.scoring import COVERAGE, MIXTURE, ONE, Held, scores, verdict
from expertise.table.splitting import hold_out, hold_out_last
from expertise.table.targets import check_weights, read_groups, read_target, read_weights, task_of
from expertise.table.values import Floats

KEPT = 2000  # held-out rows that a model keeps for its page
Say = Callable[[str], None]


def fit_table(
    path: str | os.PathLike[str], request: Request, *, encoding: str = "utf8", say: Say = print
) -> TableModel:
    """Fit a mixture of experts to a table, and compare it with simpler models on held-out rows.

    Parameters
    ----------
    path : of a table; see `read_table`.
    request : the target, and how to fit; see `Request`.
    encoding : of a CSV.
    say : where the lines go that tell what was done.

    Returns
    -------
    The model of the fitted rows: what was measured is what is given.

    Raises
    ------
    ValueError : an argument or data that cannot be used; says which, where, and what to do.
    """
    source = Path(path).name
    table = read_table(path, encoding=encoding)
    request.check(table.column_names, source)
    missing = request.wishes.missing
    task = task_of(table[request.target], request.task, missing)
    request.check_task(task)
    y, there = read_target(request.target, table[request.target], task, missing, source=source)
    rows = np.flatnonzero(there)
    request.check_target(y, there, task)
    besides = {request.target, request.weights, request.groups}
    names = [name for name in table.column_names if name not in besides]
    encoder, found = find(table, names, request.wishes, source=source)
    say(saying.of_table(source, table.num_rows, encoder, found, request, task, int((~there).sum())))
    if task == "regression" and (hint := saying.of_few_values(request, y[there])):
        say(hint)

    weight = np.ones(len(y))
    if request.weights:
        weight = read_weights(request.weights, table[request.weights], missing, source=source)
    groups = read_groups(request.groups, table[request.groups], missing, source) if request.groups else None
    labels = y if task == "regression" else np.where(there, y, "").astype(str)
    of_classes = labels if task == "classification" else None
    train, test, together, since = _split(table, rows, of_classes, groups, request, source)
    if task == "classification":
        test = _of_fitted_classes(labels, train, test, say)
        y = np.searchsorted(np.unique(labels[train]), labels)
    check_weights(request.weights, weight[train], "row to fit")
    check_weights(request.weights, weight[test], "held-out row")
    say(saying.of_split(len(train), len(test), request, since))
    encoder = encoder.refilled(found[train])
    if since:  # the rows held out lie beyond those fitted, where all is extrapolated
        encoder = encoder.narrowed(found[train])
    X = encoder.encode(found)

    shared = _shared(X, groups, train, request, encoder, say)
    model, said = fit_mixture(request, task, encoder, X[train], labels[train], weight[train], shared)
    result = TableModel(task, request.target, encoder, model, source, warnings=said)
    if len(test) and groups is None and not since and (column := in_order(encoder, found)):
        said.append(saying.of_order(column))
    result.facts = saying.facts(result, request, len(train), len(test), since)
    result.errors = standard_errors(model, X[train], labels[train], weight[train])
    if len(test):
        one = single(request, result, X[train], labels[train], weight[train])
        fitted, held = (Part(X[part], y[part], weight[part]) for part in (train, test))
        judge(result, request, one, fitted, held, None if together is None else together[test])
        if request.keep_rows:
            kept = sample(len(test), KEPT, request.seed)
            result.kept = KeptRows(found[test][kept], y[test][kept], test[kept], len(test))
    say(saying.of_fit(result))
    return result


class Split(NamedTuple):
    """Rows to fit and held out.

    together : (n,) of all rows, what those share that err together: a group, or a moment. since : of an order
    the first moment held out.
    """

    train: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]
    together: npt.NDArray[Any] | None
    since: str = ""


def _split(
    table: Any,
    rows: npt.NDArray[np.intp],
    classes: npt.NDArray[Any] | None,
    groups: npt.NDArray[Any] | None,
    request: Request,
    source: str,
) -> Split:
    """Part the rows that have a target; classes and groups are of all rows of the table."""
    if request.order:
        array = table[request.order]
        column, moment = read_order(request.order, array, request.wishes, rows, source=source)
        train, test = hold_out_last(moment[rows], request.test)
        return Split(rows[train], rows[test], moment, column.text(moment[rows[test]].min()))
    train, test = hold_out(
        len(rows),
        request.test,
        request.seed,
        classes=None if classes is None else classes[rows],
        groups=None if groups is None else groups[rows],
    )
    return Split(rows[train], rows[test], groups)


def _of_fitted_classes(
    labels: npt.NDArray[Any], train: npt.NDArray[np.intp], test: npt.NDArray[np.intp], say: Say
) -> npt.NDArray[np.intp]:
    """Give the held-out rows whose class the fit sees; a label that no model can know measures nothing."""
    fitted = np.unique(labels[train])
    if len(fitted) < 2:
        raise ValueError(
            f"the rows to fit are all of the class {str(fitted[0])!r}; use another --seed, or more rows or "
            "groups"
        )
    known = np.isin(labels[test], fitted)
    if not known.all():
        new = ", ".join(map(repr, np.unique(labels[test][~known]).tolist()))
        say(f"{int((~known).sum()):,} held-out rows are left out: no fitted row has their class ({new})")
    return test[known]


def fit_mixture(
    request: Request,
    task: str,
    encoder: Encoder,
    X: Floats,
    y: npt.NDArray[Any],
    weight: Floats,
    groups: npt.NDArray[Any] | None = None,
) -> tuple[Mixture, list[str]]:
    """Fit the estimator that was asked for; give it, and what the fit warned of."""
    kind = MixtureOfExpertsRegressor if task == "regression" else MixtureOfExpertsClassifier
    model = kind(**request.arguments(encoder), verbose=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y, sample_weight=weight, groups=groups)
    model.set_params(verbose=False)
    return model, list(dict.fromkeys(saying.of_warning(one.message) for one in caught))


def in_order(encoder: Encoder, found: Floats) -> str:
    """Name the column of dates in whose order the rows (n, columns) stand; "" where there is none."""
    for j, column in enumerate(encoder.columns):
        steps = np.diff(found[:, j])
        if column.kind == "date" and len(steps) > 1 and ((steps >= 0).all() or (steps <= 0).all()):
            return column.name
    return ""


def _shared(
    X: Floats, groups: Any, train: npt.NDArray[np.intp], request: Request, encoder: Encoder, say: Say
) -> npt.NDArray[Any] | None:
    """Give groups whose rows share an expert: where all that the gate sees is the same in a group."""
    if groups is None:
        return None
    chosen = request.gate_columns(encoder)
    seen = X[train][:, [] if request.gate == "constant" else slice(None) if chosen is None else chosen]
    _, first, member = np.unique(groups[train], return_index=True, return_inverse=True)
    if (seen == seen[first][member]).all():
        say(f"groups: rows of the same {request.groups} share their expert, and are not split")
        return np.asarray(groups[train])
    say(
        f"groups: rows of the same {request.groups} are not split; each row has its own expert, because what "
        "the gate sees varies inside groups (--gate=constant, or other --gate-features, lets them share one)"
    )
    return None


class Part(NamedTuple):
    """Encoded rows: X (n, d), y (n,) numbers or codes of classes, weights (n,)."""

    X: Floats
    y: npt.NDArray[Any]
    weight: Floats


def judge(
    result: TableModel,
    request: Request,
    one: Mixture,
    fitted: Part,
    held: Part,
    groups: npt.NDArray[Any] | None = None,
) -> None:
    """Score the mixture, the one expert and the baselines on held-out rows, and say whether it helps.

    ``fitted`` are the rows that the baselines learn from; ``groups`` (n,) belong to the held-out rows: they
    err together. Of rows in an order these are the moments.
    """
    models = [answers(MIXTURE, result.mixture, held.X, held.y), answers(ONE, one, held.X, held.y)]
    n_classes = len(result.classes)
    for name, estimator in (baselines.linear(result.task), baselines.boosting(result.task, request.seed)):
        models.append(baselines.fit_and_predict(name, estimator, *fitted, held.X, n_classes))
    result.scores = [(model.name, scores(model, held.y, held.weight)) for model in models]
    chosen = request.experts == "auto"
    judged = verdict(
        models,
        held.y,
        held.weight,
        result.n_experts,
        chosen=chosen,
        groups=groups,
        in_order=bool(request.order),
    )
    result.verdict, result.helps = judged.text, judged.helps


def single(request: Request, result: TableModel, X: Floats, y: npt.NDArray[Any], weight: Floats) -> Mixture:
    """Fit one expert of the first kind that was asked for: the mixture without a choice."""
    arguments = request.arguments(result.encoder)
    arguments |= {"n_experts": 1, "gate": "constant", "gate_features": None, "keep_path": False}
    arguments["expert"] = (request.expert or (None,))[0]
    kind = type(result.mixture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mixture's own warnings have been told
        return kind(**arguments).fit(X, y, sample_weight=weight)


def answers(name: str, model: Mixture, X: Floats, y: npt.NDArray[Any]) -> Held:
    """Give a mixture's answers to held-out rows; y are numbers or codes of classes."""
    if isinstance(model, MixtureOfExpertsClassifier):
        return Held(name, model.predict_proba(X))
    return Held(name, model.predict(X), model.score_samples(X, y), model.predict_interval(X, COVERAGE))


def standard_errors(model: Mixture, X: Floats, y: npt.NDArray[Any], weight: Floats) -> dict[str, Any]:
    """Give standard errors as plain arrays; empty for parts that have none, or very many parameters."""
    if (model.n_parameters_ or 10**9) > MOST_PARAMETERS:
        return {}
    try:
        found = model.standard_errors(X, y, sample_weight=weight)
    except ValueError:
        return {}  # a forest, or a gate that models the inputs, has no gradient
    names = ("coef", "intercept", "gate_coef", "gate_intercept")
    return {name: value for name in names if (value := getattr(found, name)) is not None}


MOST_PARAMETERS = 1500  # of which standard errors are computed: two passes over the rows for each
