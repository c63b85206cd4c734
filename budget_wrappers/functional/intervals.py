"""How sure a score is: the interquartile mean, and bootstrap intervals over runs.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". ``R`` is the number
of runs (seeds), ``T`` the number of tasks (strata).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from budget_wrappers.arguments import a_count, a_number
from budget_wrappers.errors import ConfigError, NonFiniteError

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Reduces the last axis: ``(..., N) -> (...)``."""


def mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis, ``(..., N) -> (...)``."""
    return np.mean(scores, axis=-1)


def interquartile_mean(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of the middle half of ``scores`` over the last axis, ``(..., N) -> (...)``.

    ``floor(N/4)`` scores are dropped at either end, as ``scipy.stats.trim_mean(·, 0.25)`` does; fewer than four scores
    give the plain mean.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    dropped = ordered.shape[-1] // 4
    return np.mean(ordered[..., dropped : ordered.shape[-1] - dropped], axis=-1)


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Statistic = mean,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of ``statistic``, stratified by task.

    Each resample draws R runs of every task with replacement, independently between tasks, so that no task is ever
    over-represented; ``statistic`` then sees all R·T scores at once.

    Args:
        scores: shape ``(R,)``, or ``(R, T)`` for several tasks.
        statistic: reduces the last axis, such as ``mean`` or ``interquartile_mean``.
        level: coverage aimed at, in (0, 1). The percentile interval of few runs is too narrow: say R beside it.
        resamples: resamples drawn.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        The lower and the upper end. With one run both are the statistic itself: one run says nothing about spread.

    Raises:
        ConfigError: for an empty or wrongly shaped ``scores``, or ``level`` or ``resamples`` out of bounds.
        NonFiniteError: for NaN or infinite scores.
    """
    try:
        table = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"scores={scores!r} ({error}): expected numbers of shape (runs,) or (runs, tasks)") from error
    if table.ndim not in (1, 2) or table.size == 0:
        raise ConfigError(f"scores has shape {table.shape}; expected (runs,) or (runs, tasks), none of them 0")
    if not np.isfinite(table).all():
        count = int(np.count_nonzero(~np.isfinite(table)))
        raise NonFiniteError(f"scores holds {count} NaN or infinite of {table.size} values; drop or repair these runs")
    a_number("level", level, "a coverage in (0, 1), such as 0.95", lambda share: 0 < share < 1)
    a_count("resamples", resamples, 1, 10**7)
    a_count("seed", seed, most=2**63 - 1)
    table = table.reshape(table.shape[0], -1)
    runs, tasks = table.shape
    drawn = np.random.default_rng(seed).integers(runs, size=(resamples, runs, tasks))
    values = statistic(table[drawn, np.arange(tasks)].reshape(resamples, runs * tasks))
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
