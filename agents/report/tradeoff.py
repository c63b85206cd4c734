"""What a comparison measured: a point for each method and seed, a row for each method, the file that keeps them."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from agents.report.differences import facts_of, labels_apart
from agents.report.reading import checked_record
from agents.report.spread import spread_note, spread_of
from budget_wrappers.core import Convention
from budget_wrappers.errors import CheckpointError, ConfigError, NonFiniteError
from budget_wrappers.files import inside, is_text, read_text, sealed, unsealed, write_text

FILE_NAME, RUN_CONFIG = "tradeoff.json", "config.json"
FORMAT = 1


@dataclass(frozen=True)
class TradeoffPoint:
    """One trained policy: what it earned, and what acting cost.

    Attributes:
        method: what was trained; points of one method share a colour.
        label: what the row is called. Points of equal method and label are seeds of one row.
        seed: of the training.
        mean_return: mean undiscounted return of the evaluation episodes.
        flops_per_step: acting FLOPs per control step, everything that runs to choose an action included.
        episodes: evaluation episodes, each with ``return``, ``flops`` and ``length`` (control steps).
        curve: ``(environment steps, evaluation return)`` while training.
        extras: further facts. Read here: ``baseline`` (bool), ``weight`` (λ, the price of compute) and ``share_large``
            (share of control steps that the dearest sub-policy acted on).
    """

    method: str
    label: str
    seed: int
    mean_return: float
    flops_per_step: float
    episodes: Sequence[Mapping[str, float]] = ()
    curve: Sequence[tuple[float, float]] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "episodes", tuple(dict(episode) for episode in self.episodes))
        object.__setattr__(self, "curve", tuple((float(step), float(value)) for step, value in self.curve))
        object.__setattr__(self, "extras", dict(self.extras))
        returns = [self.mean_return, *(episode["return"] for episode in self.episodes), *(y for _, y in self.curve)]
        if not all(math.isfinite(value) for value in returns):
            raise NonFiniteError(
                f"{self.label!r}, seed {self.seed}: a return is NaN or infinite; expected finite returns: "
                "look at this run's metrics for the step where it diverged"
            )
        if not math.isfinite(self.flops_per_step) or self.flops_per_step <= 0:
            raise ConfigError(
                f"{self.label!r}, seed {self.seed}: flops_per_step={self.flops_per_step!r}; expected a finite number "
                "above 0: nothing that acts is free, so watch the module that acts"
            )

    @classmethod
    def from_episodes(
        cls,
        method: str,
        label: str,
        seed: int,
        episodes: Sequence[Mapping[str, float]],
        curve: Sequence[tuple[float, float]] = (),
        extras: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the point of ``episodes``: the mean of their returns, and all their FLOPs over all their steps.

        Raises:
            ConfigError: for no episodes, or episodes of no steps.
        """
        steps = sum(episode["length"] for episode in episodes)
        if steps <= 0:
            raise ConfigError(f"{label!r}, seed {seed}: {len(episodes)} episodes of {steps} steps; expected at least 1")
        mean_return = sum(episode["return"] for episode in episodes) / len(episodes)
        flops = sum(episode["flops"] for episode in episodes) / steps
        return cls(method, label, seed, mean_return, flops, episodes, curve, extras or {})


@dataclass(frozen=True)
class Comparison:
    """Every point of one comparison, and what a reader needs to make it again.

    Attributes:
        env_id: the environment that all points share.
        points: one a method, label and seed.
        convention: what the FLOPs count.
        command: the command line that made it.
        versions: package -> version; mujoco's too, as returns depend on it.
        settings: the resolved configuration, and anything else worth keeping (JSON-able).
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
            first.settings if len(comparisons) == 1 else {},
        )


def _told_apart(comparisons: Sequence[Comparison], labels: Sequence[str]) -> list[TradeoffPoint]:
    """Return the points of all ``comparisons`` under labels that differ wherever settings do."""
    points, facts = [], []
    for one, label in zip(comparisons, labels or [""] * len(comparisons), strict=True):
        names = {point.label for point in one.points}
        own = facts_of(one.settings)
        for point in one.points:
            named = point.label if not label else label if len(names) == 1 else f"{label}: {point.label}"
            points.append(replace(point, label=named))
            facts.append(own)
    texts = labels_apart([(point.method, point.label) for point in points], facts)
    return [replace(point, label=text) for point, text in zip(points, texts, strict=True)]


@dataclass(frozen=True)
class Row:
    """One method over its seeds.

    Attributes:
        method: as in its points.
        label: as in its points.
        points: its points, by seed.
        mean_return: mean over seeds.
        low: lower end of the 95 % bootstrap interval of that mean from five seeds on, else the lowest seed's return.
        high: upper end, or the highest seed's return.
        interval_over: what ``low`` and ``high`` are over: ``"seeds"``, or with one seed ``"nothing"``.
        flops_per_step: mean over seeds.
        saved: share of the reference's FLOPs that this row saves; below 0 when it spends more. 0 for the reference.
        share_large: mean share of steps on the dearest sub-policy, where it was recorded.
        weight: λ, where there is one.
        baseline: whether it is there to be compared with.
        reference: whether savings are measured against it: the dearest baseline, or without any the dearest row.
        efficient: whether no other row earns as much for less: it is on the Pareto front.
    """

    method: str
    label: str
    points: tuple[TradeoffPoint, ...]
    mean_return: float
    low: float
    high: float
    interval_over: str
    flops_per_step: float
    saved: float
    share_large: float | None
    weight: float | None
    baseline: bool
    reference: bool
    efficient: bool


def summarise(points: Iterable[TradeoffPoint], seed: int = 0) -> list[Row]:
    """Return one row a (method, label), cheapest first.

    Args:
        points: of one environment.
        seed: of the bootstrap.

    Raises:
        ConfigError: for no points, or one seed twice in a row.
    """
    groups: dict[tuple[str, str], list[TradeoffPoint]] = {}
    for point in _priced_apart(list(points)):
        groups.setdefault((point.method, point.label), []).append(point)
    if not groups:
        raise ConfigError("points is empty; expected at least one method: train one before you report")
    flops = {key: _mean(point.flops_per_step for point in group) for key, group in groups.items()}
    returns = {key: _mean(point.mean_return for point in group) for key, group in groups.items()}
    baselines = {key for key, group in groups.items() if any(point.extras.get("baseline") for point in group)}
    reference = max(baselines or groups, key=flops.__getitem__)
    rows = []
    for key in sorted(groups, key=lambda key: (flops[key], key)):
        group = sorted(groups[key], key=lambda point: point.seed)
        seeds = [point.seed for point in group]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(
                f"{key[1]!r} has seeds {seeds}; expected each once, as these runs have equal settings: leave the "
                "repeated run out, or give each folder a name (`budget report FOLDER FOLDER --label NAME NAME`)"
            )
        spread = spread_of([point.mean_return for point in group], seed=seed)
        shares = [point.extras["share_large"] for point in group if point.extras.get("share_large") is not None]
        rows.append(
            Row(
                *key,
                points=tuple(group),
                mean_return=returns[key],
                low=spread.low,
                high=spread.high,
                interval_over="nothing" if spread.kind == "nothing" else "seeds",
                flops_per_step=flops[key],
                saved=1 - flops[key] / flops[reference],
                share_large=_mean(shares) if shares else None,
                weight=group[0].extras.get("weight"),
                baseline=key in baselines,
                reference=key == reference,
                efficient=not any(
                    flops[other] <= flops[key]
                    and returns[other] >= returns[key]
                    and (flops[other], returns[other]) != (flops[key], returns[key])
                    for other in groups
                ),
            )
        )
    return rows


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def _priced_apart(points: Sequence[TradeoffPoint]) -> list[TradeoffPoint]:
    """Return ``points``, those of one method and label and several prices or budgets under labels that say which."""
    named = []
    for point in points:
        alike = [other.extras for other in points if (other.method, other.label) == (point.method, point.label)]
        names = [key for key in ("weight", "budget") if len({repr(extras.get(key)) for extras in alike}) > 1]
        words = [f"{'λ' if key == 'weight' else 'b'} = {_said(point.extras.get(key))}" for key in names]
        named.append(replace(point, label=", ".join([point.label, *words])))
    return named


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def interval_note(rows: Sequence[Row]) -> str:
    """Return the sentence that says what the intervals of ``rows`` are."""
    return spread_note([len(row.points) for row in rows])
