"""The page of YouTube-8M runs: who wins, how they learned, which expert works where, and who decided."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from expertise.report import _comparing, _deciding
from expertise.report._deciding import Decision, ExpertUse
from expertise.report.page import Block, Cell, Page, Section, Table, Tile, format_value, write_page
from expertise.report.runs import Run, read_run

__all__ = ["Decision", "ExpertUse", "Run", "read_run", "video_page", "write_video_page"]


def write_video_page(
    path: str | os.PathLike[str],
    runs: Sequence[Run],
    expert_use: Sequence[ExpertUse] = (),
    decisions: Sequence[Decision] = (),
    *,
    title: str = "Which expert to trust",
    about: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Write the page of one or more runs as one HTML file, whole or not at all.

    Parameters
    ----------
    path : the file; its folder is made where it is missing.
    runs : at least one; those that are to be compared were evaluated on the same videos.
    expert_use : of each class of the mixture; left out where the videos have no known regimes.
    decisions : a few videos.
    title : of the page.
    about : paragraphs on the data and the runs, shown with the results.
    settings : flags of the runs, by name.

    Raises
    ------
    ValueError
        There is no run, or two have the same name.
    """
    return write_page(
        path, video_page(runs, expert_use, decisions, title=title, about=about, settings=settings)
    )


def video_page(
    runs: Sequence[Run],
    expert_use: Sequence[ExpertUse] = (),
    decisions: Sequence[Decision] = (),
    *,
    title: str = "Which expert to trust",
    about: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> Page:
    """What `write_video_page` writes, as a `Page`."""
    names = [run.name for run in runs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"runs must be at least one, each with a name of its own; got the names {names}")
    sections = [
        Section("Who wins", _comparing.result(runs, about)),
        Section("How they learned", _comparing.learning(runs)),
        Section("Class by class", _by_class(runs, expert_use)),
        Section("Who decided", _deciding.decisions(decisions)),
        Section("How this was made", _settings(settings)),
    ]
    tiles = tuple(
        Tile(f"GAP of {run.name}", format_value(run.metric("gap"), 3), _size(run))
        for run in runs
        if run.evaluation
    )
    return Page(
        title,
        _comparing.lead(runs),
        tuple(section for section in sections if section.blocks),
        tiles,
        "Made by expertise. This file needs no network: it can be kept, sent and printed as it is.",
    )


def _by_class(runs: Sequence[Run], use: Sequence[ExpertUse]) -> tuple[Block, ...]:
    """Which run is good at which class, and which of its experts works where: side by side."""
    text, *experts = _deciding.expert_use(use) or (None,)
    return (*([text] if text else []), *_comparing.by_class(runs), *experts)


def _size(run: Run) -> str:
    parameters = "" if run.parameters is None else f"{run.parameters:,} parameters"
    return " · ".join(part for part in (parameters, f"{run.steps:,} steps" if run.steps else "") if part)


def _settings(settings: Mapping[str, object] | None) -> tuple[Block, ...]:
    if not settings:
        return ()
    rows = tuple((name, Cell(str(value))) for name, value in settings.items())
    return (Table(("flag", "value"), rows),)
