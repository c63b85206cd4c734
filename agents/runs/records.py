"""Reading and writing a run folder's text files: JSON objects, and metrics of one checked JSON object a row.

Such a folder may be a stranger's: links are not followed, damage and other forms are named errors, and no module is
imported because a file names it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from budget_wrappers.errors import CheckpointError, ConfigError, UntrustedFileError
from budget_wrappers.files import (
    CHECKSUM,
    checksum_of,
    inside,
    is_number,
    json_of,
    opened_to_read,
    read_text,
    sealed,
    unsealed,
    write_text,
)

METRICS, CONFIG, RUN = "metrics.jsonl", "config.json", "run.json"

OWN_MODULES = (
    "agents.studies.environments",
    "agents.recipes.environments",
    "budget_wrappers.integrations.minatar",
)
"""Modules with environments that are this package's: the second is the former name of the first."""

TRUST, NAME = ("pass --trust (in Python trust=True)",), ("name the environment yourself with --env {env_id}",)
"""What a user who trusts a file's maker can do about an environment of another module; not every verb has both."""

NEARLY_CHECKSUM = re.compile("|".join(f"{CHECKSUM[:at]}.?{CHECKSUM[at + 1 :]}" for at in range(len(CHECKSUM))))


def foreign_module(env_id: str) -> str | None:
    """Return the module that Gymnasium imports for an environment's id; ``None`` for none and for this package's."""
    module, colon, _ = env_id.rpartition(":")
    return module if colon and module not in OWN_MODULES else None


def require_own_module(env_id: str, where: str | Path, trust: bool = False, remedies: Sequence[str] = TRUST) -> None:
    """Raise for an environment's id that has Gymnasium import a module which is not this package's.

    Args:
        env_id: that a file names.
        where: the file.
        trust: whether the user trusts who made the file.
        remedies: of ``TRUST`` and ``NAME``, those that the caller has.

    Raises:
        UntrustedFileError: ``module:id`` of another module.
    """
    module = foreign_module(env_id)
    if module is not None and not trust:
        raise UntrustedFileError(
            f"{where} names the environment {env_id!r}: expected an id without a module, as importing {module!r} can "
            f"run any code. If you trust who made the file, {', or '.join(remedies).format(env_id=env_id)}"
        )


# ---- JSON objects ---------------------------------------------------------------------------------------------------


def read_config(folder: Path, trust: bool = True, remedies: Sequence[str] = TRUST) -> dict[str, Any]:
    """Return the ``config.json`` of a run folder: under ``"agent"`` a name, under ``"settings"`` and ``"run"`` tables.

    ``"methods"`` holds the budget methods that the agent was given; where the file has none, an empty table.

    Args:
        folder: of the run.
        trust: whether its environment may name a module to import.
        remedies: see ``require_own_module``.

    Raises:
        ConfigError: it is not there, not JSON, lacks any of these or has anything else.
        UntrustedFileError: an environment of a module that is not this package's, without ``trust``.
    """
    path = folder / CONFIG
    config = {"methods": {}, **read_json(path)}
    kinds = {"agent": str, "settings": dict, "run": dict, "methods": dict}
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind):
            raise ConfigError(
                f"{path} has {key}={config.get(key)!r}: expected what `budget train` wrote; check the path"
            )
    if unknown := sorted(config.keys() - kinds.keys()):
        raise ConfigError(f"{path} has the keys {', '.join(unknown)}: expected {', '.join(kinds)} alone; remove them")
    env_id = config["run"].get("env")
    if isinstance(env_id, str):
        require_own_module(env_id, path, trust, remedies)
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Return a run folder's JSON file, without its checksum where it has one.

    Raises:
        ConfigError: it is not there, no JSON object, or was damaged.
        CheckpointError: a link, a pipe or a device.
    """
    try:
        return unsealed(read_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path} ({error}): expected a run folder as `budget train` makes it; check the path"
        ) from error


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return the ``run.json`` of a run folder: ``"command"`` a text, ``"versions"`` texts by name, ``"commit"``.

    Raises:
        ConfigError: it is not there, or holds anything else.
    """
    record = read_json(folder / RUN)
    versions = record.get("versions")
    sound = isinstance(versions, dict) and all(isinstance(text, str) for text in versions.values())
    sound = sound and isinstance(record.get("command"), str) and record.keys() == {"command", "versions", "commit"}
    if not sound or not isinstance(record["commit"], str | None):
        raise ConfigError(
            f"{folder / RUN} holds {sorted(record)}: expected a command, versions and a commit, as texts; take another "
            "copy of the folder"
        )
    return record


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` to ``path``, whole or not at all, for people to edit: it has no checksum."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` and its checksum to ``path``, whole or not at all; ``read_json`` takes it back."""
    write_text(path, sealed(data))


# ---- metrics --------------------------------------------------------------------------------------------------------


def line_of(row: Mapping[str, Any], clock: Mapping[str, float]) -> bytes:
    """Return a row of the metrics, its checksum among the clock's fields, which differ from run to run anyway."""
    whole = {**row, "clock": clock}
    return (json.dumps({**row, "clock": {**clock, CHECKSUM: checksum_of(whole)}}) + "\n").encode()


def read_rows(folder: str | Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run folder's metrics; a last line that a killed process left half-written is not a row.

    Raises:
        ConfigError: there are none.
        CheckpointError: a row that is not what was written, or a link.
    """
    path = inside(folder, METRICS)
    try:
        file = opened_to_read(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error}): expected a run folder; check the path") from error
    with file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                row = _row_of(line, path, number)
                if kind is None or row.get("kind") == kind:
                    yield row


def _row_of(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json_of(line.decode("utf-8"))
        if not isinstance(row, dict) or not isinstance(row.get("clock"), dict):
            raise ValueError("not a row with a clock")
        stored = row["clock"].pop(CHECKSUM, None)
        if stored is None and any(map(NEARLY_CHECKSUM.fullmatch, row["clock"])):
            raise ValueError("its checksum has another name")
        # Versions before this one wrote no checksums.
        if stored is not None and (type(stored) is not int or stored != checksum_of(row)):
            raise ValueError(f"it has the checksum {checksum_of(row)}, and says {stored!r}")
    except ValueError as error:
        raise CheckpointError(
            f"row {number} of {path} is damaged ({error}): expected what was written there; take another copy of the "
            "file, or remove the row if no checkpoint was made after it"
        ) from error
    return row


def numbers_in(rows: Iterator[dict[str, Any]], *keys: str) -> list[tuple[float, ...]]:
    """Return the numbers that rows hold under ``keys``.

    Raises:
        CheckpointError: a row without one of them, or with one that is not finite as a float.
    """
    found = []
    for row in rows:
        values = [row.get(key) for key in keys]
        if not all(map(is_number, values)):
            raise CheckpointError(
                f"a row of the metrics has {str(dict(zip(keys, values, strict=True)))[:200]}: expected finite "
                "numbers; take another copy of the run folder"
            )
        found.append(tuple(values))
    return found
