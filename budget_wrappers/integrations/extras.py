"""Loading the library of an integration when it is used, and saying what to install where it is missing."""

import importlib
from typing import Any

from budget_wrappers.errors import MissingExtraError


def library(module: str, extra: str) -> Any:
    """Return ``module`` of a third party, imported now.

    Args:
        module: as in an ``import`` statement.
        extra: of this package, which installs it.

    Raises:
        MissingExtraError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this integration needs {module}, which cannot be imported ({error}): expected `import {module}` to "
            f"work; pip install 'budget-wrappers[{extra}]'"
        ) from error


__all__ = ["library"]
