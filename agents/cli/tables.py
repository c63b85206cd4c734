"""Tables of TOML files as words of a command line, in which no value can be read as a flag."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.config import RefusedError, kind_of, unknown_key
from budget_wrappers.errors import ConfigError


def key_of(flag: str) -> str:
    """Return the key of a flag, which may have a value."""
    return flag.partition("=")[0].removeprefix("--").replace("-", "_")


def flag_of(key: str, no: bool = False) -> str:
    """Return the flag of a key, or its flag with ``no-``, which switches it off."""
    group, dot, name = key.rpartition(".")
    return f"--{group}{dot}{'no-' if no else ''}{name}".replace("_", "-")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"config={str(path)!r} cannot be read ({error}): expected a TOML file such as --dry-run prints; check it"
        ) from error


def keys_in(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a table, those of inner tables as ``inner.key``."""
    for key, value in table.items():
        name = prefix + key.replace("-", "_")
        if isinstance(value, Mapping):
            yield from keys_in(value, f"{name}.")
        else:
            yield name


def entry_of(table: Mapping[str, Any], key: str) -> Any:
    """Return what a table has under ``key`` or ``inner.key``, ``None`` for nothing."""
    found: Any = table
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def flags_of(
    table: Mapping[str, Any],
    known: Sequence[str],
    path: str,
    prefix: str = "",
    kinds: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return ``table`` as flags, so that a file is checked by the same parser as the command line.

    A value is never a flag itself: it follows ``=`` in the word of its key, or as an entry of a list does not begin as
    flags do.

    Args:
        table: of a file.
        known: keys that are options.
        path: of the file.
        prefix: what the keys of an inner table begin with.
        kinds: types of the options, where they are known.

    Raises:
        ConfigError: a key that is no option (the message names the nearest), a value of another type, or one that no
            flag can hold.
    """
    flags: list[str] = []
    for key, value in table.items():
        name = prefix + key.replace("-", "_")
        if isinstance(value, dict) and any(option.startswith(f"{name}.") for option in known):
            flags += flags_of(value, known, path, f"{name}.", kinds)
            continue
        if name not in known:
            raise unknown_key(prefix + key, list(known), path)
        if isinstance(value, dict):
            raise ConfigError(f"{path}: {prefix}{key} is a table: expected a value; write its keys at the top level")
        require_kind(value, (kinds or {}).get(name), f"{path}: {prefix}{key}")
        flag = flag_of(name)
        if isinstance(value, bool):
            flags.append(flag if value else flag_of(name, no=True))
        elif isinstance(value, list):
            flags += [flag, *(entry_word(entry, f"{path}: {prefix}{key}") for entry in value)]
        else:
            flags.append(f"{flag}={value}")
    return flags


def require_kind(value: Any, annotation: Any, where: str) -> None:
    """Raise unless a file's value is of an option's type; one value may stand for a list of one.

    Raises:
        ConfigError: with the value and what was expected.
    """
    kind = kind_of(annotation)
    for candidate in (value, [value]):
        try:
            kind.take(candidate)
        except RefusedError:
            continue
        return
    raise ConfigError(f"{where} = {value!r}: expected {kind.expected}; correct it, or pass it on the command line")


def entry_word(entry: Any, where: str) -> str:
    """Return an entry of a file's list as a word of the command line that is not a flag.

    Raises:
        ConfigError: a text that begins as flags do, or a list or table within a list.
    """
    if isinstance(entry, (list, dict)):
        raise ConfigError(f"{where} has the entry {entry!r}: expected one text or number for each; take it out")
    if isinstance(entry, str) and entry.startswith("-"):
        raise ConfigError(
            f"{where} has the entry {entry!r}: expected one that does not begin with '-', as flags do; write a path as "
            f"'./{entry}', and pass flags on the command line"
        )
    return str(entry)
