"""What a comparison measured: a point for each method and seed, and the file that keeps them."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from agents.report.differences import facts_of, labels_apart
from agents.report.point import TradeoffPoint
from agents.report.reading import checked_record
from agents.report.rows import Row, interval_note, summarise
from budget_wrappers.core import Convention
from budget_wrappers.errors import CheckpointError, ConfigError, NonFiniteError
from budget_wrappers.files import inside, is_text, read_text, sealed, unsealed, write_text

FILE_NAME, RUN_CONFIG = "tradeoff.json", "config.json"
FORMAT = 1

# Points and rows have modules of their own and are found here, too, as a comparison is worked with by all three.
__all__ = ["FILE_NAME", "FORMAT", "Comparison", "Row", "TradeoffPoint", "interval_note", "summarise"]


@dataclass(frozen=True)
class Comparison:
    """Every point of one comparison, and what a reader needs to make it again.

    Attributes:
        env_id: the environment that all points share.
        points: one a method, label and seed.
        convention: what the FLOPs count.
        command: the command line that made it.
        versions: package -> version; mujoco's too, as returns depend on it.
        settings: the resolved configuration, and anything else worth keeping (JSON-able). ``random_return`` is the
            mean return of random actions, from which learning is measured.
    """

    env_id: str
    points: Sequence[TradeoffPoint]
    convention: Convention = "matmul"
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(self.points))
        if not self.points:
            raise ConfigError("points is empty; expected at least one method: train one before you report")
        names = [("env_id", self.env_id), ("command", self.command)]
        names += [(key, getattr(point, key)) for point in self.points for key in ("method", "label")]
        for key, text in names:
            if not is_text(text):
                raise ConfigError(f"{key}={text!a}: expected a text that UTF-8 can hold; give it another name")

    def write(self, folder: Path) -> Path:
        """Write ``tradeoff.json`` into ``folder``, whole or not at all, and return its path."""
        path = folder / FILE_NAME
        write_text(path, sealed({"format": FORMAT, **asdict(self)}))
        return path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the comparison that ``write`` left in ``folder``.

        Raises:
            ConfigError: when there is none.
            CheckpointError: when the file is damaged or of another format.
        """
        path = inside(folder, FILE_NAME)
        if not path.is_file():
            if (folder / RUN_CONFIG).is_file():
                raise ConfigError(
                    f"{path} does not exist, as the training of {folder} has not ended: expected a run that was "
                    f"evaluated at its end; resume it with `{shlex.join(['budget', 'train', '--resume', str(folder)])}`"
                )
            raise ConfigError(f"{path} does not exist; expected a folder that `budget tradeoff` wrote: name that one")
        try:
            record = unsealed(read_text(path))
            found = record.pop("format")
            if found != FORMAT:
                raise CheckpointError(f"{path} has format {found!r}; expected {FORMAT}: make it anew with this version")
            record = checked_record(record)
            points = [TradeoffPoint(**point) for point in record.pop("points")]
            return cls(points=points, **record)
        except (ConfigError, NonFiniteError):
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is not a comparison that this version wrote ({error}); expected the keys "
                f"{', '.join(item.name for item in fields(cls))}: make it anew with `budget tradeoff`"
            ) from error

    @classmethod
    def merged(cls, comparisons: Sequence["Comparison"], labels: Sequence[str] = ()) -> "Comparison":
        """Return one comparison with the points of all.

        Points of two comparisons that were made with different settings get labels that say what differs, so that they
        are never seeds of one row.

        Args:
            comparisons: at least one.
            labels: a name for each of them, in place of the label of its only row and in front of several; none for
                the labels as they are.

        Raises:
            ConfigError: when they differ in environment or in what their FLOPs count, or for another number of labels.
        """
        first = comparisons[0]
        if labels and len(labels) != len(comparisons):
            raise ConfigError(
                f"label={tuple(labels)}: expected {len(comparisons)}, one for each folder in the same order, or none"
            )
        for other in comparisons[1:]:
            if (other.env_id, other.convention) != (first.env_id, first.convention):
                raise ConfigError(
                    f"cannot compare {other.env_id} ({other.convention}) with {first.env_id} ({first.convention}); "
                    "expected one environment and one convention: report them apart"
                )
        versions: dict[str, str] = {}
        for name, version in (item for one in comparisons for item in one.versions.items()):
            known = versions.setdefault(name, version)
            if version not in known.split(" and "):
                versions[name] = f"{known} and {version}"
        return cls(
            first.env_id,
            _told_apart(comparisons, labels),
            first.convention,
            "\n".join(dict.fromkeys(one.command for one in comparisons if one.command)),
            versions,
            first.settings if len(comparisons) == 1 else _shared_settings(comparisons),
        )


def _shared_settings(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return what several comparisons say about their environment: the mean of what random actions returned in it."""
    found = [one.settings["random_return"] for one in comparisons if one.settings.get("random_return") is not None]
    return {"random_return": statistics.fmean(found)} if found else {}


def _told_apart(comparisons: Sequence[Comparison], labels: Sequence[str]) -> list[TradeoffPoint]:
    """Return the points of all ``comparisons`` under labels that differ wherever settings do."""
    points, facts, owners = [], [], []
    for number, (one, label) in enumerate(zip(comparisons, labels or [""] * len(comparisons), strict=True)):
        names = {point.label for point in one.points}
        together = facts_of(one.settings)
        for point in one.points:
            # A point of a study of several methods has settings of its own.
            own = facts_of(point.extras["settings"]) if point.extras.get("settings") else together
            named = point.label if not label else label if len(names) == 1 else f"{label}: {point.label}"
            points.append(replace(point, label=named))
            facts.append(own)
            owners.append((number, point.label))
    titles = [(point.method, point.label) for point in points]
    texts = labels_apart(titles, facts) if len(comparisons) > 1 else [label for _, label in titles]
    return _renamed(points, texts, owners)


def _renamed(
    points: Sequence[TradeoffPoint], labels: Sequence[str], owners: Sequence[tuple[int, str]]
) -> list[TradeoffPoint]:
    """Return ``points`` under new labels, with controls following the label of their method's row.

    Args:
        points: of all comparisons.
        labels: new, one for each.
        owners: number of the comparison of each, and its label there.
    """
    new: dict[tuple[int, str], set[str]] = {}
    for owner, label in zip(owners, labels, strict=True):
        new.setdefault(owner, set()).add(label)
    renamed = []
    for point, label, (number, _) in zip(points, labels, owners, strict=True):
        of = new.get((number, point.extras.get("of")), set())
        extras = {**point.extras, "of": next(iter(of))} if len(of) == 1 else point.extras
        renamed.append(replace(point, label=label, extras=extras))
    return renamed
