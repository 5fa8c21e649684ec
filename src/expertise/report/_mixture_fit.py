"""The first section: what was fitted, how well, and whether the mixture helps."""

import numpy as np

from expertise.report._mixture_words import SURE, capital, leading, own_error, percent, target
from expertise.report.page import Block, Cell, Prose, Row, Table, Tile, format_value
from expertise.report.record import MixtureRecord, Score

# Parts of names of metrics, in small letters: of which less is better, of which more. Others have no best.
LESS = ("rmse", "mae", "mse", "error", "loss", "brier", "deviance", "crps", "wrong", "pinball")
MORE = ("r2", "r²", "accuracy", "auc", "likelihood", "log density", "f1", "kappa", "precision", "recall")


def lead(record: MixtureRecord) -> str:
    """The first sentences of the page: whether the mixture helps."""
    if record.verdict:
        return record.verdict
    many = "s" if record.n_experts > 1 else ""
    return f"A mixture of {record.n_experts} expert{many} for {target(record)}, on {record.source}."


def tiles(record: MixtureRecord) -> tuple[Tile, ...]:
    """Key figures."""
    sure = float((record.gate.max(1) >= SURE).mean())
    used = len(np.unique(leading(record.gate)))
    found = [
        Tile("Does the mixture help?", _helps(record), _against(record)),
        *_error_tile(record),
    ]
    alone = record.n_experts == 1
    many = "one model, no gate" if alone else f"{used} of them lead{'s' if used == 1 else ''} somewhere"
    found.append(Tile("Experts", str(record.n_experts), many))
    found.append(Tile("Rows of this page", f"{len(record.gate):,}", record.source))
    if not alone:
        found.append(Tile("The gate is sure", percent(sure), f"of rows have a weight of {SURE} or more"))
    return tuple(found)


def _error_tile(record: MixtureRecord) -> list[Tile]:
    where = f", on {record.measured}" if record.measured else ""
    for metric in _metrics(record)[:1]:
        value = record.scores[0].values[metric]
        return [Tile(capital(metric), format_value(value), f"of the mixture{where}")]
    error = own_error(record)
    return [] if error is None else [Tile(capital(error[0]), format_value(error[1]), "of the mixture")]


def _metrics(record: MixtureRecord) -> list[str]:
    """The metrics; first the one that the verdict names, so that the tiles speak of the same."""
    metrics = list(record.scores[0].values) if record.scores else []
    return sorted(metrics, key=lambda metric: f"{metric} " not in record.verdict)


def _helps(record: MixtureRecord) -> str:
    """A word on whether the mixture helps; "yes" only where it is also the best."""
    best = _best_other(record)
    if record.helps and best is not None:
        metric, other = best
        ahead = direction(metric) * (_value(record.scores[0], metric) - _value(other, metric))
        return "yes" if ahead >= 0 else "over one expert"
    return {True: "yes", False: "no", None: "not compared"}[record.helps]


def _against(record: MixtureRecord) -> str:
    best = _best_other(record)
    if best is None:
        return ""
    metric, other = best
    return f"{metric} of the best other, {other.name}: {format_value(other.values[metric])}"


def _best_other(record: MixtureRecord) -> tuple[str, Score] | None:
    """The first metric that has a direction, and the best of the other models in it."""
    for metric in _metrics(record):
        others = [one for one in record.scores if not one.is_mixture and one.values.get(metric) is not None]
        if direction(metric) and others:
            return metric, max(others, key=lambda one: direction(metric) * _value(one, metric))
    return None


def _value(score: Score, metric: str) -> float:
    return float(score.values[metric] or 0.0)


def direction(metric: str) -> int:
    """Whether more (1) or less (-1) of a metric is better; 0 where that is not known.

    >>> direction("RMSE"), direction("R2"), direction("log loss"), direction("coverage")
    (-1, 1, -1, 0)
    """
    name = metric.lower()
    if any(part in name for part in LESS) or "negative log" in name:
        return -1
    return 1 if any(part in name for part in MORE) else 0


def section(record: MixtureRecord) -> tuple[Block, ...]:
    """What follows from the verdict (which leads the page), scores, facts, warnings."""
    blocks: list[Block] = [Prose((plain,))] if (plain := _plain(record)) else []
    if record.scores:
        blocks.append(_scores(record.scores, record.measured or record.source))
    if record.facts:
        blocks.append(Table(("what", "value"), record.facts, "What was fitted"))
    if record.warnings:
        blocks.append(Prose(("The fit warned:",), record.warnings))
    return tuple(blocks)


def _plain(record: MixtureRecord) -> str:
    if record.helps is None:
        return "No other model was fitted to the same rows: this page cannot say whether the mixture helps."
    if record.helps or record.n_experts == 1:
        return ""
    return (
        "Use the simpler model unless you need what the experts say of the data: "
        "these rows do not show that the mixture is better than the best of the other models."
    )


def _scores(scores: tuple[Score, ...], source: str) -> Table:
    metrics = list(dict.fromkeys(name for score in scores for name in score.values))
    best = {metric: _best(scores, metric) for metric in metrics}
    table: list[Row] = []
    for score in scores:
        values = [(metric, score.values.get(metric)) for metric in metrics]
        cells = [Cell(v, _digits(v), strong=_shown(v) == best[metric]) for metric, v in values]
        name = Cell(score.name, colour="series-2" if score.is_mixture else "nobody")
        table.append((name, *cells))
    marked = [metric for metric in metrics if best[metric] is not None]
    note = " Bold: the best of a column; ties are all bold." if marked else ""
    return Table(("model", *metrics), tuple(table), f"On {source}.{note}")


def _shown(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else format_value(value, _digits(value))


def _digits(value: float | None) -> int:
    return 3 if value is not None and abs(value) < 100 else 1


def _best(scores: tuple[Score, ...], metric: str) -> str | None:
    """The best value as it is shown; None where there is nothing to compare or no direction."""
    known = [
        value for score in scores if (value := score.values.get(metric)) is not None and not np.isnan(value)
    ]
    if len(known) < 2 or not direction(metric):
        return None
    return _shown(max(known) if direction(metric) > 0 else min(known))
