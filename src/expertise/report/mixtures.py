"""The page of a fitted mixture: how well it does, who decides where, and what it would say of any row."""

import os
from pathlib import Path

from expertise.report import (
    _mixture_coefficients,
    _mixture_experts,
    _mixture_fit,
    _mixture_gate,
    _mixture_rows,
    _mixture_search,
    _mixture_trust,
    _mixture_whatif,
)
from expertise.report._mixture_checks import check
from expertise.report._mixture_words import target
from expertise.report.page import Page, Section, write_page
from expertise.report.record import MixtureRecord

__all__ = ["MixtureRecord", "mixture_page", "write_mixture_page"]


def write_mixture_page(path: str | os.PathLike[str], record: MixtureRecord) -> Path:
    """Write the page of a fitted mixture as one HTML file, whole or not at all.

    The same record gives the same bytes.

    Parameters
    ----------
    path : the file; its folder is made where it is missing.
    record : what the page shows.

    Raises
    ------
    ValueError
        Parts of the record contradict one another; the message says which.
    """
    return write_page(path, mixture_page(record))


def mixture_page(record: MixtureRecord) -> Page:
    """What `write_mixture_page` writes, as a `Page`."""
    check(record)
    sections = (
        Section("What was fitted, and how well", _mixture_fit.section(record)),
        Section("Who decides where", _mixture_gate.section(record)),
        Section("The experts", _mixture_experts.section(record)),
        Section("Coefficients", _mixture_coefficients.section(record)),
        Section("Can the numbers be trusted?", _mixture_trust.section(record)),
        Section("How it was found", _mixture_search.section(record)),
        *([Section("Why: some rows", _mixture_rows.section(record))] if record.explained else []),
        Section("What if?", _mixture_whatif.panel(record)),
        Section("The most uncertain rows", _mixture_whatif.uncertain(record)),
    )
    return Page(
        f"Who decides on {target(record)}",
        _mixture_fit.lead(record),
        sections,
        _mixture_fit.tiles(record),
        "Made by expertise. This file needs no network: it can be kept, sent and printed as it is.",
    )
