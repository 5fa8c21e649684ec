"""Optional packages: imported where they are used, with an error that names the extra to install."""

import importlib
import re
from types import ModuleType


class MissingExtraError(ImportError):
    """A package of one of the extras is not installed; the message says which extra to install."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra of expertise brings it.

    >>> require("json", "table").dumps({})
    '{}'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # a package that is there but broken inside must show its own error
        if error.name is None or not re.match(rf"{re.escape(error.name)}(\.|$)", module):
            raise
        raise MissingExtraError(
            f"this needs the package {error.name!r}, which is not installed; "
            f"install it with: pip install 'expertise[{extra}]'"
        ) from error
