"""Which widths the two sub-policies get: the published rule as a function of measured scores, and the search for it.

Source: "Reducing the Deployment-Time Inference Control Costs of DRL Agents via an Asymmetric Architecture" (ICRA 2021):
train with 512 units as the criterion; the large policy has the fewest units that reach 90 % of its score, the small one
at most a quarter of those and around or below a third of the score.

Our reading: a width's *share* of the criterion is ``(score − random) / (criterion − random)`` with the score of random
actions, because returns may be negative, where 90 % of one means nothing. With ``random = 0`` it is the published rule.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agents.config import require
from budget_wrappers.errors import NonFiniteError

QUARTER = 4
"""The small policy has at most the large one's units divided by this."""
ROUNDING = 1e-9
"""A share this close to a bound reaches it: 84.6 of 94.0 is 0.8999… in binary."""


@dataclass(frozen=True)
class SizingRule:
    """What is asked of the two widths. Defaults are the published ones.

    Attributes:
        criterion: units whose score counts as 1.
        widths: units to try, each below the criterion's; put in ascending order.
        large_share: the large policy reaches this share of the criterion, in (0, 1].
        small_share: the small policy reaches at most this share, in (0, 1].

    Raises:
        ConfigError: a width twice, below 1 or not below the criterion's; a share outside of (0, 1].
    """

    criterion: int = 512
    widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    large_share: float = 0.9
    small_share: float = 1 / 3

    def __post_init__(self) -> None:
        widths = tuple(sorted(self.widths))
        require(len(set(widths)) == len(widths) > 0, "widths", self.widths, "one width at least, each once")
        require(widths[0] >= 1, "widths", self.widths, "at least 1 unit")
        require(self.criterion > widths[-1], "criterion", self.criterion, f"more units than all widths, {widths}")
        for name in ("large_share", "small_share"):
            require(0 < getattr(self, name) <= 1, name, getattr(self, name), "a share in (0, 1]")
        object.__setattr__(self, "widths", widths)


@dataclass(frozen=True)
class Sizes:
    """What the rule says to some scores.

    Attributes:
        shares: of the criterion, by width; empty where the criterion is no better than random actions.
        missing: the width whose score is needed next; ``None`` once the choice is made.
        large: units of the large policy, ``None`` where it is open.
        small: units of the small policy, ``None`` where it is open or where no network is smaller.
        large_reason: why this one; a sentence without its full stop.
        small_reason: the same of the small one.
    """

    shares: Mapping[int, float]
    missing: int | None = None
    large: int | None = None
    small: int | None = None
    large_reason: str = ""
    small_reason: str = ""


def choose_sizes(rule: SizingRule, scores: Mapping[int, float], random: float) -> Sizes:
    """Return the widths that ``rule`` picks, or the one width whose score it needs next.

    The criterion comes first, then the widths upwards until one is large. What is small is picked from those below,
    which have a score by then; where the list has none of at most a quarter, one more width is asked for.

    Args:
        rule: what is asked of them.
        scores: mean return by width; widths that the rule does not get to are not looked at.
        random: mean return of random actions.

    Raises:
        NonFiniteError: a score that is NaN or infinite.
    """
    for name, score in (*((f"{width} units", score) for width, score in scores.items()), ("random actions", random)):
        if not math.isfinite(score):
            raise NonFiniteError(
                f"the score of {name} is {score}: expected a finite return; look at that training's metrics for the "
                "step where it diverged"
            )
    if rule.criterion not in scores:
        return Sizes({}, missing=rule.criterion)
    span = scores[rule.criterion] - random
    if not span > 0:
        reason = (
            f"the criterion, {rule.criterion} units, returns {scores[rule.criterion]:g} and random actions {random:g}: "
            "without a criterion that learned something there is no scale; train for longer"
        )
        return Sizes({}, large_reason=reason, small_reason="there is no large one")
    shares = {width: (score - random) / span for width, score in scores.items()}
    large = rule.criterion
    for width in rule.widths:
        if width not in shares:
            return Sizes(shares, missing=width)
        if shares[width] >= rule.large_share - ROUNDING:
            large = width
            break
    return _with_small(rule, shares, large, _why_large(rule, shares, large))


def _why_large(rule: SizingRule, shares: Mapping[int, float], large: int) -> str:
    bound = f"{percent(rule.large_share)} of the criterion"
    if large == rule.criterion:
        return f"none of {', '.join(map(str, rule.widths))} units reaches {bound}, so that it is the criterion itself"
    return f"the fewest units that reach {bound}: {percent(shares[large])}"


def _with_small(rule: SizingRule, shares: Mapping[int, float], large: int, large_reason: str) -> Sizes:
    """Return the choice with the small policy beside the ``large`` one."""
    if large < QUARTER:
        return Sizes(shares, None, large, None, large_reason, f"a quarter of {large} units is less than one")
    candidates = [width for width in rule.widths if width <= large // QUARTER]
    if not candidates:
        extra = large // QUARTER
        if extra not in shares:
            return Sizes(shares, missing=extra)
        candidates = [extra]
    low = [width for width in candidates if shares[width] <= rule.small_share + ROUNDING]
    small = max(low, default=min(candidates))
    bound = f"{percent(rule.small_share)} of the criterion"
    if low:
        reason = (
            f"the most units, up to a quarter of the large one's, that reach at most {bound}: {percent(shares[small])}"
        )
    else:
        reason = (
            f"the fewest units tried, yet they reach {percent(shares[small])}, more than {bound}: the small policy is "
            "good already, and a master beside it has little to gain"
        )
    return Sizes(shares, None, large, small, large_reason, reason)


def search_sizes(
    rule: SizingRule, score_of: Callable[[int], float], random: float
) -> tuple[Sizes, Mapping[int, float]]:
    """Return the choice and the scores it took, asking for as few as needed.

    Args:
        rule: what is asked of the widths.
        score_of: trains a width and returns its mean return.
        random: mean return of random actions.

    Raises:
        NonFiniteError: a score that is NaN or infinite.
    """
    scores: dict[int, float] = {}
    while (sizes := choose_sizes(rule, scores, random)).missing is not None:
        scores[sizes.missing] = score_of(sizes.missing)
    return sizes, scores


def percent(share: float) -> str:
    """Return a share as text.

    >>> percent(1 / 3), percent(-0.25)
    ('33.3 %', '−25.0 %')
    """
    return f"{100 * share:.1f} %".replace("-", "−")
