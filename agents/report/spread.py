"""How far the seeds of a row lie apart: an interval where there are enough of them, else their range, else nothing.

Fewer than ``LEAST`` seeds are given no interval: Student's of two seeds is 25 standard errors wide, and a bootstrap's
is their range under a better name (true coverage about half).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from budget_wrappers.functional.intervals import Statistic, bootstrap_interval, t_interval

LEAST = 5
"""Seeds from which an interval is given."""

LEVEL = 0.95

Kind = Literal["interval", "range", "nothing"]


@dataclass(frozen=True)
class Spread:
    """Two ends and what they are.

    Attributes:
        low: lower end; with one seed its value.
        high: upper end.
        kind: ``"interval"`` (95 %), ``"range"`` (lowest to highest), or ``"nothing"`` for one seed.
    """

    low: float
    high: float
    kind: Kind


def spread_of(values: Sequence[float], statistic: Statistic | None = None) -> Spread:
    """Return the spread of ``values``, one a seed.

    Args:
        values: at least one.
        statistic: whose BCa bootstrap interval is given from ``LEAST`` seeds on; by default Student's of the mean,
            which covers 95 % where five seeds are normal. Bootstraps of five cover 83 %.
    """
    if len(values) >= LEAST:
        ends = (
            t_interval(values, level=LEVEL) if statistic is None else bootstrap_interval(values, statistic, level=LEVEL)
        )
        return Spread(*ends, "interval")
    return Spread(float(min(values)), float(max(values)), "range" if len(values) > 1 else "nothing")


def counted(counts: Sequence[int]) -> str:
    """Return numbers of seeds in words.

    >>> counted([2, 2]), counted([1]), counted([3, 2, 1])
    ('2 seeds', 'one seed', '1 to 3 seeds')
    """
    low, high = min(counts), max(counts)
    if low < high:
        return f"{low} to {high} seeds"
    return "one seed" if low == 1 else f"{low} seeds"


def spread_name(counts: Sequence[int]) -> str:
    """Return what a column of spreads is called, given the number of seeds in each row.

    >>> spread_name([2, 2]), spread_name([5, 10]), spread_name([1]), spread_name([3, 5])
    ('range of 2 seeds', '95 % interval', 'range of seeds', 'range of seeds, or 95 % interval')
    """
    few = [count for count in counts if 1 < count < LEAST]
    many = [count for count in counts if count >= LEAST]
    if many:
        return "range of seeds, or 95 % interval" if few else "95 % interval"
    return f"range of {counted(few)}" if few else "range of seeds"


def spread_note(counts: Sequence[int]) -> str:
    """Return the sentence that says what spreads are, given the number of seeds in each row.

    >>> spread_note([2, 2])
    'mean and range of 2 seeds'
    >>> spread_note([5])
    'mean of 5 seeds, 95 % interval over seeds'
    >>> spread_note([1])
    'one seed: no interval over trainings can be given'
    """
    few, many = any(1 < count < LEAST for count in counts), any(count >= LEAST for count in counts)
    single = "; – for one seed" if min(counts) == 1 else ""
    if not few and not many:
        return "one seed: no interval over trainings can be given"
    if few and many:
        return (
            f"mean of {counted(counts)}, 95 % interval over seeds from {LEAST} seeds on, "
            f"the seeds' range for fewer{single}"
        )
    if many:
        return f"mean of {counted(counts)}, 95 % interval over seeds{single}"
    return f"mean and range of {counted([count for count in counts if count > 1])}{single}"
