"""Command lines from dataclasses: a TOML file first, flags over it, and the resolved result printed on request."""

import dataclasses
import itertools
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from agents.cli.names import nearest
from agents.config import unknown_key
from budget_wrappers.errors import ConfigError

Parsed = TypeVar("Parsed")
Files = Sequence[tuple[str, Mapping[str, Any]]]
"""Path and table of each TOML file, the later ones overriding those before."""

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
    files: Files | None = None,
    aliases: Mapping[str, Sequence[str]] | None = None,
) -> Parsed:
    """Return ``form`` filled from the files that ``arguments`` name, if any, and then from the rest.

    Args:
        form: a dataclass; of its fields that are dataclasses, those marked ``flat`` have options without a prefix.
        arguments: the command line after the verb.
        prog: what usage lines start with.
        description: first lines of the help.
        files: what ``files_of`` returned, where the verb has presets.
        aliases: further keys, each with the options that it may mean; a key that may mean several is refused.

    Raises:
        ConfigError: an unreadable file, an unknown key, a key that may mean several options, a value out of bounds.
        SystemExit: help was asked for (0), or a flag is unknown or malformed (2); tyro has said so.
    """
    aliases = aliases or {}
    # The author of a file is not the one to say that files may be trusted.
    known = [key for key in [*keys_of(form), *aliases] if key != "trust"]
    words: list[str] = []
    for path, table in files_of(arguments) if files is None else files:
        words += meant(flags_of(table, known, path), aliases, f"{path}: ")
    words += meant(arguments, aliases)
    return tyro.cli(form, args=words, prog=prog, description=description or None)


def files_of(arguments: Sequence[str], recipe: str = "", unused: Sequence[str] = ()) -> Files:
    """Return the tables of the preset and of the file that ``arguments`` name, with their paths.

    Args:
        arguments: the command line after the verb.
        recipe: whose presets ``--preset`` chooses from.
        unused: keys that presets may have and the verb has no option for; a ``--config`` may not have them.

    Raises:
        ConfigError: an unreadable file or an unknown preset.
    """
    preset, config = value_of("--preset", arguments), value_of("--config", arguments)
    files: list[tuple[str, dict[str, Any]]] = []
    if preset is not None:
        path = preset_file(recipe, preset)
        files.append((str(path), {key: value for key, value in read_toml(path).items() if key not in unused}))
    if config is not None:
        files.append((config, read_toml(Path(config))))
    return files


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


def words_after(flag: str, arguments: Sequence[str]) -> list[str] | None:
    """Return the words from the last ``flag`` to the flag that follows it, ``None`` where it does not stand."""
    found = None
    for place, word in enumerate(arguments):
        if word == flag:
            found = list(itertools.takewhile(lambda later: not later.startswith("-"), arguments[place + 1 :]))
        elif word.startswith(f"{flag}="):
            found = [word.partition("=")[2]]
    return found


def meant(words: Sequence[str], aliases: Mapping[str, Sequence[str]], where: str = "") -> list[str]:
    """Return ``words`` with each flag that is an alias replaced by the option that it means.

    Raises:
        ConfigError: an alias that may mean several options; the message names them.
    """
    result = []
    for word in words:
        flag, equals, value = word.partition("=")
        key = key_of(flag)
        group, dot, name = key.rpartition(".")
        positive = key if key in aliases else group + dot + name.removeprefix("no_")
        if not flag.startswith("--") or positive not in aliases:
            result.append(word)
            continue
        options = [flag_of(option, no=positive != key) for option in aliases[positive]]
        if len(options) > 1:
            raise ConfigError(
                f"{where}{flag} may mean several options: expected {' or '.join(options)}; pass one of them"
            )
        result.append(options[0] + equals + value)
    return result


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
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config={str(path)!r} cannot be read ({error}): expected a TOML file such as --dry-run prints; check it"
        ) from error


def keys_of(form: Any, prefix: str = "") -> list[str]:
    """Return the names of all options of ``form``, those of inner dataclasses included: ``key`` or ``inner.key``."""
    names = []
    for name, kind in get_type_hints(form, include_extras=True).items():
        key, plain = prefix + name.rstrip("_"), get_args(kind)[0] if is_flat(kind) else kind
        names += keys_of(plain, prefix if is_flat(kind) else f"{key}.") if dataclasses.is_dataclass(plain) else [key]
    return names


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


def flags_of(table: Mapping[str, Any], known: Sequence[str], path: str, prefix: str = "") -> list[str]:
    """Return ``table`` as flags, so that a file is checked by the same parser as the command line.

    Args:
        table: of a file.
        known: keys that are options.
        path: of the file.
        prefix: what the keys of an inner table begin with.

    Raises:
        ConfigError: a key that is no option (the message names the nearest), or a value that no flag can hold.
    """
    flags: list[str] = []
    for key, value in table.items():
        name = prefix + key.replace("-", "_")
        if isinstance(value, dict) and any(option.startswith(f"{name}.") for option in known):
            flags += flags_of(value, known, path, f"{name}.")
            continue
        if name not in known:
            raise unknown_key(prefix + key, list(known), path)
        flag = flag_of(name)
        if isinstance(value, bool):
            flags.append(flag if value else flag_of(name, no=True))
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        elif isinstance(value, dict):
            raise ConfigError(f"{path}: {prefix}{key} is a table: expected a value; write its keys at the top level")
        else:
            flags.append(f"{flag}={value}")
    return flags


def resolved(options: Any, prefix: str = "") -> dict[str, Any]:
    """Return the options of a parsed form by the names that ``keys_of`` gives them, as plain data.

    ``None``, a ``with`` that names nothing, and the file's own options are left out.
    """
    table: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        key, value = prefix + field.name.rstrip("_"), getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            table |= resolved(value, prefix if is_flat(field.type) else f"{key}.")
        elif (
            value is not None
            and (value or field.name != "with_")
            and key not in ("config", "dry_run", "preset", "trust")
        ):
            table[key] = str(value) if isinstance(value, Path) else value
    return table


def write_resolved(options: Any, aliases: Mapping[str, Sequence[str]] | None = None) -> None:
    """Write the options to standard output as TOML that ``parse`` reads back, given the same ``aliases``."""
    # A key that may mean another option, too, stands under the first of its names.
    table = {(aliases or {}).get(key, [key])[0]: value for key, value in resolved(options).items()}
    # JSON's strings, numbers, booleans and flat lists are TOML's.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    sys.stdout.write("\n".join([*lines, ""]))


def flat(kind: type) -> Any:
    """Return ``kind`` annotated so that its fields become options without a prefix."""
    return Annotated[kind, tyro.conf.arg(name="")]


def is_flat(kind: Any) -> bool:
    """Return whether ``flat`` made ``kind``, if it is a dataclass's."""
    return get_origin(kind) is Annotated


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
