"""Where direct labels go so that they cover neither each other nor the data. Pure geometry, in pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float64]

# Right of the point reads best, then left, above, below, the corners.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (10.0, 18.0, 30.0, 46.0, 66.0, 90.0)

# Prices of a place, in steps of distance: being cut off is worst, then hiding another label, then hiding data.
_OUTSIDE = 1000.0
_ON_LABEL = 100.0
_ON_MARK = 8.0


def place_labels(
    anchors: Pixels, sizes: Pixels, obstacles: Pixels, frame: Sequence[float], scale: float = 1.0
) -> Pixels:
    """Return the centres of N labels, each at the cheapest free place around its point.

    Greedy and deterministic: labels are placed in the given order; of all directions and distances each takes the one
    that stays inside the frame, hides the fewest placed labels and obstacles, and is nearest.

    Args:
        anchors: ``(N, 2)``: the points that the labels name.
        sizes: ``(N, 2)``: width and height of each label.
        obstacles: ``(M, 2)``: what should stay visible.
        frame: ``(left, bottom, right, top)`` that labels stay inside.
        scale: multiplies the distances; 1 at 100 dots an inch.

    Returns:
        Centres, ``(N, 2)``.
    """
    frame = np.asarray(frame, dtype=np.float64)
    low, high = np.empty_like(anchors), np.empty_like(anchors)
    for index, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        centres, prices = _candidates(anchor, size, scale)
        lows, highs = centres - size / 2, centres + size / 2
        outside = ((lows < frame[:2]) | (highs > frame[2:])).any(axis=1)
        on_label = _overlaps(lows, highs, low[:index], high[:index])
        on_mark = _overlaps(lows, highs, obstacles, obstacles)
        prices = prices + _OUTSIDE * outside + _ON_LABEL * on_label + _ON_MARK * on_mark
        best = int(np.argmin(prices))
        low[index], high[index] = lows[best], highs[best]
    return (low + high) / 2


def spread(levels: Pixels, distance: float) -> Pixels:
    """Return levels at least ``distance`` apart, in the same order, moved as little as possible (least squares).

    With the i-th smallest level lowered by i·distance, "at least ``distance`` apart" becomes "not decreasing", which
    pooling adjacent violators solves.

    Args:
        levels: shape ``(N,)``.
        distance: the least distance between two of them.
    """
    order = np.argsort(levels, kind="stable")
    steps = np.arange(len(levels)) * distance
    pools: list[tuple[float, int]] = []
    for value in levels[order] - steps:
        mean, count = float(value), 1
        while pools and pools[-1][0] > mean:
            before, size = pools.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        pools.append((mean, count))
    apart = np.empty_like(levels, dtype=np.float64)
    apart[order] = np.repeat([mean for mean, _ in pools], [count for _, count in pools]) + steps
    return apart


def _candidates(anchor: Pixels, size: Pixels, scale: float) -> tuple[Pixels, Pixels]:
    """Return the centres of all places around ``anchor`` and what each costs for being far or unusual."""
    centres, prices = [], []
    for rank, distance in enumerate(_DISTANCES):
        for order, direction in enumerate(_DIRECTIONS):
            # It is the side or corner facing the point that lies at the distance.
            reach = distance * scale * (0.7 if all(direction) else 1.0)
            centres.append(anchor + np.array(direction) * (reach + size / 2))
            prices.append(rank + 0.1 * order)
    return np.array(centres), np.array(prices)


def _overlaps(lows: Pixels, highs: Pixels, other_lows: Pixels, other_highs: Pixels) -> NDArray[np.int64]:
    """Return how many of the other boxes (points are boxes of no size) each box meets."""
    meets = (lows[:, None] < other_highs[None]) & (highs[:, None] > other_lows[None])
    return meets.all(axis=2).sum(axis=1)
