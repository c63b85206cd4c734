"""What a row costs beyond a step of acting: whole episodes, time, learning, and when that learning has paid off."""

import math
from collections.abc import Sequence
from statistics import fmean, median

from agents.report.point import TradeoffPoint
from agents.report.rows import Row

Points = Sequence[TradeoffPoint]


def flops_per_episode(points: Points) -> float | None:
    """Return the mean over seeds of the acting FLOPs of an evaluation episode; ``None`` where a seed has no episodes.

    An agent that is cheaper per step and takes longer to finish may spend more on an episode.
    """
    if not all(point.episodes for point in points):
        return None
    return fmean(fmean(episode["flops"] for episode in point.episodes) for point in points)


def saved_per_episode(points: Points, reference: Row) -> float | None:
    """Return the share of the reference's FLOPs per episode that ``points`` save."""
    own, whole = flops_per_episode(points), flops_per_episode(reference.points)
    return None if own is None or not whole else 1 - own / whole


def us_per_action(points: Points) -> float | None:
    """Return the median over seeds of the measured time of an action in microseconds, ``None`` where one has none."""
    times = [point.extras.get("us_per_action") for point in points]
    return None if None in times else median(times)


def learning_times(points: Points, reference: Row) -> float | None:
    """Return the FLOPs of learning beside those of the reference, a ratio."""
    own, whole = mean_of(points, "train_learn_flops"), mean_of(reference.points, "train_learn_flops")
    return None if own is None or not whole else own / whole


def training_flops(points: Points) -> float | None:
    """Return the mean over seeds of all FLOPs of training, acting and learning."""
    acting, learning = mean_of(points, "train_act_flops"), mean_of(points, "train_learn_flops")
    return None if acting is None or learning is None else acting + learning


def break_even(points: Points, reference: Row) -> float | None:
    """Return after how many deployed steps ``points`` have saved what their training took more than the reference's.

    ``(training FLOPs − reference's) / (reference's FLOPs per step − own)``: infinite where nothing is saved, 0 where
    training took no more, ``None`` where a training was not counted.
    """
    own, whole = training_flops(points), training_flops(reference.points)
    saved = reference.flops_per_step - fmean(point.flops_per_step for point in points)
    if saved <= 0:
        return math.inf
    if own is None or whole is None:
        return None
    return max(own - whole, 0.0) / saved


def mean_of(points: Points, key: str) -> float | None:
    """Return the mean over seeds of a number in the extras; ``None`` where a seed has none."""
    values = [point.extras.get(key) for point in points]
    return None if None in values else fmean(values)
