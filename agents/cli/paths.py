"""Paths that a verb will write to, checked before it has worked for what it could not write."""

import os
from pathlib import Path

from budget_wrappers.errors import ConfigError


def require_folder(path: Path | None, option: str) -> None:
    """Check that ``path`` is a folder to write in, or can become one; ``None`` is a default and fine.

    Args:
        path: what was given.
        option: as which.

    Raises:
        ConfigError: it is a file, lies below one, or may not be written.
    """
    if path is None:
        return
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise ConfigError(f"{option}={str(path)!r}: {there} is a file; expected a folder, or where to make one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}={str(path)!r}: {there} may not be written to; expected a folder of yours")


def require_file(path: Path | None, option: str) -> None:
    """Check that ``path`` is a file to write, or can become one; ``None`` is a default and fine.

    Args:
        path: what was given.
        option: as which.

    Raises:
        ConfigError: it is a folder, lies below a file, or may not be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option}={str(path)!r} is a folder; expected a file's path, such as {path / 'name'}")
    require_folder(path.parent, option)
