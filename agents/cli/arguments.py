"""Command lines from dataclasses: a TOML file first, flags over it, and the resolved result printed on request."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from agents.cli.tables import flag_of, flags_of, key_of, read_toml
from agents.runs.records import NAME, TRUST, require_own_module
from agents.studies.names import PRESETS, preset_file
from budget_wrappers.errors import ConfigError

Parsed = TypeVar("Parsed")
Files = Sequence[tuple[str, Mapping[str, Any]]]
"""Path and table of each TOML file, the later ones overriding those before."""

ASKED_FOR = {
    "trust": ("--trust",),
    "run": ("--run", "--folder"),
    "folder": ("--folder", "--run"),
    "resume": ("--resume",),
    "ray": ("--ray",),
}
"""Options that the command line alone gives, with their flags: the author of a file is not the one to say what may run
code, where to write, or which cluster to join."""
OF_THE_FILE = ("config", "preset", "dry_run")
"""Options that say which files are read; those of a file would not be."""


RayAddress = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="ADDRESS",
        help="train as Ray tasks: local starts Ray here, auto and HOST:PORT join a cluster that shares the folder; by "
        "default processes of this machine train.",
    ),
]
"""Type of the option ``--ray``."""


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
    aliases, kinds = aliases or {}, types_of(form)
    known = [key for key in [*kinds, *aliases] if key not in ASKED_FOR and key not in OF_THE_FILE]
    if files is None:
        files = files_of(arguments) if "config" in kinds else []
    words: list[str] = []
    for path, table in files:
        require_own_environment(table, path, arguments, "trust" in kinds)
        words += meant(flags_of(table, known, path, kinds=kinds), aliases, f"{path}: ")
    words += meant(arguments, aliases)
    options = tyro.cli(form, args=words, prog=prog, description=description or None)
    require_asked(options, arguments)
    return options


def require_own_environment(table: Mapping[str, Any], path: str, arguments: Sequence[str], trusting: bool) -> None:
    """Raise for a file's environment that has a module imported, unless the command line names one, or trusts the file.

    Args:
        table: of the file.
        path: of the file.
        arguments: the command line after the verb.
        trusting: whether the verb has ``--trust``.

    Raises:
        UntrustedFileError: see ``agents.runs.records.require_own_module``.
    """
    named = table.get("env")
    if value_of("--env", arguments) is None and not Path(path).is_relative_to(PRESETS):
        for env_id in named if isinstance(named, list) else [named]:
            if isinstance(env_id, str):
                require_own_module(env_id, path, "--trust" in arguments, (*(TRUST if trusting else ()), *NAME))


def require_asked(options: Any, arguments: Sequence[str]) -> None:
    """Raise where an option is set that the command line alone gives, and does not.

    Raises:
        ConfigError: with the option.
    """
    for key, flags in ASKED_FOR.items():
        if getattr(options, key, None) and not any(word.partition("=")[0] in flags for word in arguments):
            raise ConfigError(f"{key} is set by a file: expected {flags[0]} on the command line; pass it there")


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


def keys_of(form: Any) -> list[str]:
    """Return the names of all options of ``form``, those of inner dataclasses included: ``key`` or ``inner.key``."""
    return list(types_of(form))


def types_of(form: Any, prefix: str = "") -> dict[str, Any]:
    """Return all options of ``form`` as ``keys_of`` names them, each with the type that it is annotated with."""
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(form, include_extras=True).items():
        key, plain = prefix + name.rstrip("_"), get_args(kind)[0] if is_flat(kind) else kind
        if dataclasses.is_dataclass(plain):
            types |= types_of(plain, prefix if is_flat(kind) else f"{key}.")
        else:
            types[key] = plain
    return types


def resolved(options: Any, prefix: str = "") -> dict[str, Any]:
    """Return the options of a parsed form by the names that ``keys_of`` gives them, as plain data.

    ``None``, a ``with`` that names nothing, and the file's own options are left out.
    """
    table: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        key, value = prefix + field.name.rstrip("_"), getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            table |= resolved(value, prefix if is_flat(field.type) else f"{key}.")
        elif value is not None and (value or field.name != "with_") and key not in ASKED_FOR and key not in OF_THE_FILE:
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
