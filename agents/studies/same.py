"""Refusing what was made with other settings than those asked for now."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budget_wrappers.errors import ConfigError


def require_same(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse what was made with other settings than the wanted ones.

    Args:
        path: of what is stored, for the message.
        stored: its settings, nested as they may be.
        wanted: the same keys, as plain data that JSON gives back.

    Raises:
        ConfigError: with the first setting that differs.
    """
    theirs, ours = _flat(stored), _flat(wanted)
    for key in sorted(theirs.keys() | ours.keys()):
        if theirs.get(key) != ours.get(key):
            raise ConfigError(
                f"{path} was made with {key.removeprefix('settings.')}={theirs.get(key)!r}: expected "
                f"{ours.get(key)!r}, as asked for now; choose another folder, or delete this one to train anew"
            )


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
