"""Learning curves: evaluations at the steps that were asked for, ending where and at what the table says."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

OVER_TRAINING = "mean_return_over_training"
"""Key of a point's extras: the mean of all evaluations while training, the final evaluation not among them."""

Curve = Sequence[tuple[float, float]]


def curve_to_the_end(evaluations: Iterable[tuple[float, float]], every: int, steps: int, value: float) -> Curve:
    """Return the curve of a training: its evaluations at the steps asked for, and the final evaluation as its end.

    An evaluation takes place at the first step at which it can, a few after the one asked for where a choice lasts
    several steps. The final evaluation has episodes of its own, so an evaluation at the last step gives way to it.

    Args:
        evaluations: (environment steps, return) while training.
        every: environment steps between two of them.
        steps: environment steps of the training.
        value: return of the final evaluation, which the table shows.

    Returns:
        No curve where nothing was evaluated while training.
    """
    asked = [(step // every * every, found) for step, found in evaluations]
    return [*((step, found) for step, found in asked if step < steps), (steps, value)] if asked else []


def common_grid(curves: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the steps that all of R curves reached, ``(T,)``, and the returns of each there, ``(R, T)``.

    Steps of two curves that differ by less than half of the distance between two evaluations are one step; elsewhere a
    curve is interpolated.

    Args:
        curves: of one row, none of them empty.
    """
    tables = [np.array(sorted(curve), dtype=np.float64) for curve in curves]
    shortest = min(tables, key=lambda table: (table[-1, 0], -len(table)))
    near = [0.5 * np.diff(table[:, 0]).min() if len(table) > 1 else 0.0 for table in tables]
    start = max(table[0, 0] - reach for table, reach in zip(tables, near, strict=True))
    steps = shortest[shortest[:, 0] >= min(start, shortest[-1, 0]), 0]
    return steps, np.array([_at(steps, table, reach) for table, reach in zip(tables, near, strict=True)])


def _at(steps: NDArray[np.float64], table: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    nearest = np.abs(steps[:, None] - table[None, :, 0]).argmin(axis=1)
    there = np.abs(steps - table[nearest, 0]) < near
    return np.where(there, table[nearest, 1], np.interp(steps, table[:, 0], table[:, 1]))
