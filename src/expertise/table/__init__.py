"""Mixtures of experts on a table in a file: fit, predict, explain and report without writing Python."""

from typing import TYPE_CHECKING, Any

from expertise._optional import require

if TYPE_CHECKING:
    from expertise.table.explaining import explain_rows
    from expertise.table.fitting import fit_table
    from expertise.table.kinds import Wishes
    from expertise.table.model import TableModel, load_model
    from expertise.table.pages import write_page
    from expertise.table.predicting import predict_file
    from expertise.table.reading import read_table
    from expertise.table.request import Request

_PLACES = {
    "Request": "request",
    "TableModel": "model",
    "Wishes": "kinds",
    "explain_rows": "explaining",
    "fit_table": "fitting",
    "load_model": "model",
    "predict_file": "predicting",
    "read_table": "reading",
    "write_page": "pages",
}

__all__ = [
    "Request",
    "TableModel",
    "Wishes",
    "explain_rows",
    "fit_table",
    "load_model",
    "predict_file",
    "read_table",
    "write_page",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(
            f"module 'expertise.table' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    from importlib import import_module

    require("pyarrow", "table")
    return getattr(import_module(f"expertise.table.{_PLACES[name]}"), name)
