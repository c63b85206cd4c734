"""Seeds that fall into two groups: a row of which no policy lies near the mean.

Values of a row are split at their widest gap. They are two groups if both hold:

- the gap is at least ``GROSS`` of a scale that does not come from the row: for FLOPs the reference's FLOPs per step,
  for returns what the reference earns above random actions;
- the gap is at least ``EMPTY`` of the distance from the lowest to the highest seed. With two seeds that is always so.

Seeds of a normal distribution are called two groups by mistake the more often, the more they differ. Share of 20,000
samples, by the standard deviation of a seed beside the scale:

==================  =======  =======  =======  ========
standard deviation  2 seeds  3 seeds  5 seeds  10 seeds
==================  =======  =======  =======  ========
0.10                0.0 %    0.0 %    0.0 %    0.0 %
0.15                1.8 %    0.7 %    0.2 %    0.0 %
0.20                7.7 %    5.2 %    1.8 %    0.4 %
==================  =======  =======  =======  ========

Two seeds that differ by half of all there is to gain are shown as two seeds, whatever they were drawn from: their mean
says less.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

GROSS = 0.5
"""Width of the gap beside the scale, at least."""

EMPTY = 0.5
"""Width of the gap beside the range of the seeds, at least."""

Item = TypeVar("Item")


def two_groups(
    items: Sequence[Item], value: Callable[[Item], float], scale: float
) -> tuple[tuple[Item, ...], tuple[Item, ...]] | None:
    """Return ``items`` in two groups, the lower first; ``None`` where they are one.

    Args:
        items: one a seed.
        value: of each.
        scale: difference between two values that is worth as much as anything can be here; 0 or less for unknown, which
            never splits.
    """
    ordered = sorted(items, key=value)
    if len(ordered) < 2 or scale <= 0:
        return None
    values = [value(item) for item in ordered]
    gaps = [high - low for low, high in pairwise(values)]
    widest = max(gaps)
    if widest < GROSS * scale or widest < EMPTY * (values[-1] - values[0]):
        return None
    at = gaps.index(widest) + 1
    return tuple(ordered[:at]), tuple(ordered[at:])
