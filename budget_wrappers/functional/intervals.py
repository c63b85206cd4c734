"""How sure a score is: the interquartile mean, Student's interval of a mean, bootstrap intervals over runs.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". ``R`` is the number
of runs (seeds), ``T`` the number of tasks (strata).
"""

import math
from collections.abc import Callable
from statistics import NormalDist

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


def t_interval(scores: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean: mean ± t · s/√R, with the t quantile of R − 1 degrees of freedom.

    Args:
        scores: shape ``(R,)``, one a run.
        level: coverage, in (0, 1). It is exact for normal scores; for five runs of an exponential distribution it is
            .88 at .95, where bootstrap intervals of the mean cover .80.

    Returns:
        The lower and the upper end. With one run both are that run's score: one run says nothing about spread.

    Raises:
        ConfigError: for an empty or wrongly shaped ``scores``, or ``level`` out of bounds.
        NonFiniteError: for NaN or infinite scores.
    """
    table = _table(scores)
    if table.ndim != 1:
        raise ConfigError(f"scores has shape {table.shape}; expected (runs,): give one task at a time")
    a_number("level", level, "a coverage in (0, 1), such as 0.95", lambda share: 0 < share < 1)
    runs = len(table)
    if runs == 1:
        return float(table[0]), float(table[0])
    centre = float(np.mean(table))
    reach = t_quantile((1 + level) / 2, runs - 1) * float(np.std(table, ddof=1)) / math.sqrt(runs)
    return centre - reach, centre + reach


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's distribution.

    Args:
        probability: below the quantile, in [0.5, 1).
        freedom: degrees of freedom, 1 or more.
    """
    low, high = 0.0, 1.0
    while _t_within(high, freedom) < 2 * probability - 1:
        high *= 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _t_within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return high


def _t_within(t: float, freedom: int) -> float:
    """Return P(|T| < t): Abramowitz and Stegun 26.7.3 and 26.7.4, finite sums for whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(freedom // 2):
        total += term
        term *= cosine**2 * (2 * step + 1 + odd) / (2 * step + 2 + odd)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Statistic = mean,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated (BCa) bootstrap interval of ``statistic``, stratified by task.

    Each resample draws R runs of every task with replacement, independently between tasks, so that no task is ever
    over-represented; ``statistic`` then sees all R·T scores at once. The ends are the resamples' quantiles at

    Φ(z₀ + (z₀ + z) / (1 − a · (z₀ + z)))  for z = ±Φ⁻¹((1 + level) / 2),

    with z₀ the normal quantile of the share of resamples below the statistic, and a, the acceleration, from leaving out
    one run at a time (Efron 1987, "Better Bootstrap Confidence Intervals").

    Args:
        scores: shape ``(R,)``, or ``(R, T)`` for several tasks.
        statistic: reduces the last axis, such as ``mean`` or ``interquartile_mean``.
        level: coverage aimed at, in (0, 1). The interval of few runs is too narrow (five normal runs: .83 at .95), so
            give R beside it; for a mean, ``t_interval`` covers what it is asked to.
        resamples: resamples drawn.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        The lower and the upper end. With one run both are the statistic itself: one run says nothing about spread.

    Raises:
        ConfigError: for an empty or wrongly shaped ``scores``, or ``level`` or ``resamples`` out of bounds.
        NonFiniteError: for NaN or infinite scores.
    """
    table = _table(scores)
    a_number("level", level, "a coverage in (0, 1), such as 0.95", lambda share: 0 < share < 1)
    a_count("resamples", resamples, 1, 10**7)
    a_count("seed", seed, most=2**63 - 1)
    table = table.reshape(table.shape[0], -1)
    runs, tasks = table.shape
    found = float(statistic(table.reshape(-1)))
    if runs == 1:
        return found, found
    drawn = np.random.default_rng(seed).integers(runs, size=(resamples, runs, tasks))
    values = statistic(table[drawn, np.arange(tasks)].reshape(resamples, runs * tasks))
    # Half of the ties, so that a symmetric distribution on few values has no bias.
    below = (np.mean(values < found) + np.mean(values <= found)) / 2
    # A share of 0 or 1 has no quantile; half a resample is the least that can be told from it.
    bias = NormalDist().inv_cdf(float(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples)))
    acceleration = _acceleration(table, statistic)
    ends = []
    for probability in ((1 - level) / 2, (1 + level) / 2):
        z = bias + NormalDist().inv_cdf(probability)
        # |a| is at most 1/6, so the divisor is above 0 but for levels beyond any use, whose end is then the outermost.
        ends.append(100 * NormalDist().cdf(bias + z / max(1 - acceleration * z, 1e-9)))
    low, high = np.percentile(values, ends)
    return float(low), float(high)


def _acceleration(table: NDArray[np.float64], statistic: Statistic) -> float:
    """Return ``Σ U³/R³ / (6 · (Σ U²/R²)^1.5)``, sums over tasks and runs, of the jackknife's influences U.

    Args:
        table: shape ``(R, T)``, R at least 2.
        statistic: reduces the last axis.
    """
    runs, tasks = table.shape
    scores = table.reshape(-1)
    left_out = [float(statistic(np.delete(scores, index))) for index in range(len(scores))]
    without = np.array(left_out).reshape(runs, tasks)
    influence = (runs - 1) * (without.mean(axis=0) - without)
    square = float(np.sum(influence**2)) / runs**2
    return float(np.sum(influence**3)) / runs**3 / (6 * square**1.5) if square > 0 else 0.0


def _table(scores: ArrayLike) -> NDArray[np.float64]:
    """Return ``scores`` as finite numbers of one or two dimensions.

    Raises:
        ConfigError: it has none or another shape.
        NonFiniteError: NaN or infinite scores.
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
    return table
