"""The rows of a comparison: each method over its seeds, measured against a reference row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents.report.groups import two_groups
from agents.report.point import TradeoffPoint
from agents.report.spread import spread_note, spread_of
from budget_wrappers.errors import ConfigError

Key = tuple[str, str]
"""Method and label."""

Groups = tuple[tuple[TradeoffPoint, ...], ...]
"""Two groups of seeds, or none where seeds agree."""

LEARNT = 0.1
"""Share of the way from random actions to the reference that a row has to earn to have learnt anything."""

DERIVED = ("fit", "student", "coin", "shuffled", "cheapest", "dearest")
"""Controls that are made of a method, and so cannot be what methods are measured against."""


@dataclass(frozen=True)
class Row:
    """One method over its seeds.

    Attributes:
        method: as in its points.
        label: as in its points.
        points: its points, by seed.
        mean_return: mean over seeds.
        low: lower end of the 95 % interval of that mean from five seeds on; of fewer, and of seeds in two groups, the
            lowest return.
        high: upper end, or the highest return.
        interval_over: what ``low`` and ``high`` are over: ``"seeds"``, or with one seed ``"nothing"``.
        flops_per_step: mean over seeds.
        saved: share of the reference's FLOPs that this row saves; below 0 when it spends more. 0 for the reference.
        reference_flops: the reference's FLOPs per step.
        share_large: mean share of steps on the dearest sub-policy, where it was recorded.
        weight: λ, where there is one.
        baseline: whether it is there to be compared with.
        reference: whether savings are measured against it: the dearest baseline that is not made of a method, or
            without any the dearest row.
        efficient: whether it is on the Pareto front: it has learnt, its seeds agree, and no other such row earns as
            much for less.
        return_groups: its points in two groups by return, the higher first, where seeds fall into two; else empty.
        flops_groups: its points in two groups by FLOPs, the cheaper first; else empty.
        learnt: whether it earns 10 % of what the reference earns above random actions, ``None`` where the return of
            random actions is not known.
        control: what kind of control it is, ``None`` for others.
        of: label of the row that it is a control of.
        what: a sentence that says what it is.
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
    reference_flops: float
    share_large: float | None
    weight: float | None
    baseline: bool
    reference: bool
    efficient: bool
    return_groups: Groups = ()
    flops_groups: Groups = ()
    learnt: bool | None = None
    control: str | None = None
    of: str | None = None
    what: str | None = None

    @property
    def split(self) -> bool:
        """Whether its seeds fall into two groups, so that no policy lies near its mean."""
        return bool(self.return_groups or self.flops_groups)


@dataclass(frozen=True)
class _Means:
    """One row's points and what is compared of them."""

    points: tuple[TradeoffPoint, ...]
    value: float
    flops: float
    baseline: bool


def summarise(points: Iterable[TradeoffPoint], random: float | None = None) -> list[Row]:
    """Return one row a (method, label), cheapest first.

    Args:
        points: of one environment.
        random: mean return of random actions, where it is known.

    Raises:
        ConfigError: for no points, or one seed twice in a row.
    """
    means = _means_of(list(points))
    reference = _reference(means)
    found = {key: _row(key, own, means[reference], key == reference, random) for key, own in means.items()}
    standing = [row for row in found.values() if not row.split and row.learnt is not False]
    return [
        replace(row, efficient=row in standing and not any(_beats(other, row) for other in standing))
        for row in sorted(found.values(), key=lambda row: (row.flops_per_step, row.method, row.label))
    ]


def _means_of(points: Sequence[TradeoffPoint]) -> dict[Key, _Means]:
    grouped: dict[Key, list[TradeoffPoint]] = {}
    for point in _priced_apart(points):
        grouped.setdefault((point.method, point.label), []).append(point)
    if not grouped:
        raise ConfigError("points is empty; expected at least one method: train one before you report")
    found = {}
    for key, own in grouped.items():
        own.sort(key=lambda point: point.seed)
        seeds = [point.seed for point in own]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(
                f"{key[1]!r} has seeds {seeds}; expected each once, as these runs have equal settings: leave the "
                "repeated run out, or give each folder a name (`budget report FOLDER FOLDER --label NAME NAME`)"
            )
        found[key] = _Means(
            tuple(own),
            _mean([point.mean_return for point in own]),
            _mean([point.flops_per_step for point in own]),
            any(point.extras.get("baseline") for point in own),
        )
    return found


def _reference(means: Mapping[Key, _Means]) -> Key:
    baselines = [key for key, own in means.items() if own.baseline]
    plain = [key for key in baselines if means[key].points[0].extras.get("control") not in DERIVED]
    return max(plain or baselines or means, key=lambda key: means[key].flops)


def _row(key: Key, own: _Means, reference: _Means, is_reference: bool, random: float | None) -> Row:
    spread = spread_of([point.mean_return for point in own.points])
    shares = [point.extras["share_large"] for point in own.points if point.extras.get("share_large") is not None]
    first = own.points[0].extras
    by_return = two_groups(
        own.points, lambda point: point.mean_return, _scale_of_returns(reference, is_reference, random)
    )
    return Row(
        *key,
        points=own.points,
        mean_return=own.value,
        low=spread.low if not by_return else min(point.mean_return for point in own.points),
        high=spread.high if not by_return else max(point.mean_return for point in own.points),
        interval_over="nothing" if spread.kind == "nothing" else "seeds",
        flops_per_step=own.flops,
        saved=1 - own.flops / reference.flops,
        reference_flops=reference.flops,
        share_large=_mean(shares) if shares else None,
        weight=first.get("weight"),
        baseline=own.baseline,
        reference=is_reference,
        efficient=False,
        return_groups=by_return[::-1] if by_return else (),
        flops_groups=two_groups(own.points, lambda point: point.flops_per_step, reference.flops) or (),
        learnt=None if random is None else _has_learnt(own.value, reference.value, random),
        control=first.get("control"),
        of=first.get("of"),
        what=first.get("what"),
    )


def _scale_of_returns(reference: _Means, is_reference: bool, random: float | None) -> float:
    """Return the difference between two returns that is worth as much as anything can be here, 0 for unknown.

    Without the return of random actions the reference's own return stands in, twice, as a return of 0 means nothing
    in itself; the reference's seeds are then not judged.
    """
    if random is not None:
        return reference.value - random
    return 0.0 if is_reference else 2 * abs(reference.value)


def _has_learnt(value: float, reference: float, random: float) -> bool:
    return value > random and value >= random + LEARNT * (reference - random)


def _beats(other: Row, row: Row) -> bool:
    one, two = (other.flops_per_step, other.mean_return), (row.flops_per_step, row.mean_return)
    return one[0] <= two[0] and one[1] >= two[1] and one != two


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


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
