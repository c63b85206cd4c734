"""Command lines from dataclasses: a TOML file first, flags over it, and the resolved result printed on request."""

import dataclasses
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from agents.cli.names import nearest
from agents.config import unknown_key
from budget_wrappers.errors import ConfigError

Parsed = TypeVar("Parsed")

PRESETS = Path(__file__).parent.parent / "methods" / "presets"
"""Where the package keeps the settings of published studies: ``<recipe>/<name>.toml``."""


@dataclass(frozen=True)
class FileOptions:
    """Options that every verb with a configuration has.

    Attributes:
        config: TOML file with options, read first: flags override it.
        dry_run: print the resolved options as TOML and stop.
    """

    config: Path | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class PresetOptions(FileOptions):
    """Options of a verb that has presets.

    Attributes:
        preset: settings of a published study, read before everything else: ``--config`` and flags override them.
    """

    preset: str | None = None


def parse(
    form: type[Parsed],
    arguments: Sequence[str],
    prog: str,
    description: str = "",
    recipe: str | None = None,
    unused: Sequence[str] = (),
) -> Parsed:
    """Return ``form`` filled from the preset and the file that ``arguments`` name, if any, and then from the rest.

    Args:
        form: a dataclass; fields that are dataclasses are flattened.
        arguments: the command line after the verb.
        prog: what usage lines start with.
        description: first lines of the help.
        recipe: whose presets ``--preset`` chooses from.
        unused: keys that presets may have and ``form`` has no option for; a ``--config`` may not have them.

    Raises:
        ConfigError: an unreadable file, an unknown preset, an unknown key, or a value out of bounds.
        SystemExit: help was asked for (0), or a flag is unknown or malformed (2); tyro has said so.
    """
    preset, config = value_of("--preset", arguments), value_of("--config", arguments)
    files = [] if preset is None else [(preset_file(recipe or prog, preset), unused)]
    files += [] if config is None else [(Path(config), ())]
    # Whoever wrote the file is not the one to say that files may be trusted.
    known = [key for key in keys_of(form) if key != "trust"]
    from_files = []
    for path, skipped in files:
        table = {key: value for key, value in read_toml(path).items() if key not in skipped}
        from_files += flags_of(table, known, str(path))
    return tyro.cli(form, args=[*from_files, *arguments], prog=prog, description=description or None)


def presets_of(recipe: str) -> list[str]:
    """Return the names of a recipe's presets."""
    return sorted(path.stem for path in (PRESETS / recipe).glob("*.toml"))


def preset_file(recipe: str, name: str) -> Path:
    """Return the file of a preset.

    Raises:
        ConfigError: no such preset; the message names the nearest, or all.
    """
    known = presets_of(recipe)
    if name not in known:
        raise ConfigError(
            f"preset={name!r}: {recipe} has no such preset; "
            + (nearest(name, known) if known else "it has none at all: pass the options themselves")
        )
    return PRESETS / recipe / f"{name}.toml"


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """Return what follows ``flag`` in ``arguments``, ``None`` where it does not stand."""
    for place, word in enumerate(arguments):
        if word == flag and place + 1 < len(arguments):
            return arguments[place + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config={str(path)!r} cannot be read ({error}): expected a TOML file such as --dry-run prints; check it"
        ) from error


def keys_of(form: type) -> list[str]:
    """Return the names of all options of ``form``, those of inner dataclasses included."""
    names = []
    for name, kind in get_type_hints(form).items():
        names += keys_of(kind) if dataclasses.is_dataclass(kind) else [name]
    return names


def flags_of(table: Mapping[str, Any], known: Sequence[str], path: str) -> list[str]:
    """Return ``table`` as flags, so that a file is checked by the same parser as the command line.

    Raises:
        ConfigError: a key that is no option (the message names the nearest), or a value that no flag can hold.
    """
    flags: list[str] = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise unknown_key(key, list(known), path)
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        elif isinstance(value, dict):
            raise ConfigError(f"{path}: {key} is a table: expected a value; write its keys at the top level")
        else:
            flags.append(f"{flag}={value}")
    return flags


def resolved(options: Any) -> dict[str, Any]:
    """Return the options of a parsed form, flat, as plain data; ``None`` and the file's own options are left out."""
    table: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            table |= resolved(value)
        elif value is not None and field.name not in ("config", "dry_run", "preset", "trust"):
            table[field.name] = str(value) if isinstance(value, Path) else value
    return table


def write_resolved(options: Any) -> None:
    """Write the options to standard output as TOML."""
    # JSON's strings, numbers, booleans and flat lists are TOML's.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in resolved(options).items()]
    sys.stdout.write("\n".join([*lines, ""]))


def flat(kind: type) -> Any:
    """Return ``kind`` annotated so that its fields become options without a prefix."""
    return Annotated[kind, tyro.conf.arg(name="")]


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
