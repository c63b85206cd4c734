"""Finished trainings on disk: one small file each, written whole or not at all, read for the same settings only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.report.reading import checked_point
from agents.report.tradeoff import TradeoffPoint
from budget_wrappers.errors import CheckpointError, ConfigError, NonFiniteError
from budget_wrappers.files import inside, read_text, sealed, unsealed, write_text

FOLDER = "points"


@dataclass(frozen=True)
class Job:
    """One training, as plain data.

    Attributes:
        method: what is trained.
        weight: λ, ``None`` for methods without a price.
        seed: of the training.
        settings: everything else that its numbers follow from, JSON-able.
    """

    method: str
    weight: float | None
    seed: int
    settings: Mapping[str, Any] = field(compare=False, default_factory=dict)

    @property
    def label(self) -> str:
        """What its row in a table is called."""
        return self.method if self.weight is None else f"{self.method}, λ = {self.weight:g}"

    @property
    def file(self) -> str:
        """Name of the file that holds its point."""
        price = "" if self.weight is None else f"-{self.weight:g}"
        return f"{self.method}{price}-seed{self.seed}.json"


def write_point(folder: Path, job: Job, point: TradeoffPoint) -> None:
    """Keep ``point`` as the result of ``job``."""
    write_text(inside(folder, FOLDER, job.file), sealed({"job": asdict(job), "point": asdict(point)}))


def read_points(folder: Path, jobs: Sequence[Job]) -> dict[Job, TradeoffPoint]:
    """Return the points of those ``jobs`` that are finished.

    Raises:
        ConfigError: a point of the same name with other settings.
        CheckpointError: a damaged file, or a link.
    """
    found = {}
    for job in jobs:
        path = inside(folder, FOLDER, job.file)
        if not path.is_file():
            continue
        try:
            record = unsealed(read_text(path))
            if record.keys() != {"job", "point"} or not isinstance(record["job"], dict):
                raise ValueError(f"the keys {sorted(record)}")
            stored, point = record["job"], TradeoffPoint(**checked_point(record["point"]))
        except (ValueError, KeyError, TypeError, NonFiniteError) as error:
            raise CheckpointError(
                f"{path} is not a point that this version wrote ({error}): expected a whole one; delete it, and it is "
                "trained again"
            ) from error
        require_same(path, stored, json.loads(json.dumps(asdict(job))))
        found[job] = point
    return found


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
