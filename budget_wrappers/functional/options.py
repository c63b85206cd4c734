"""The arithmetic of options (SMDP) and of a hard limit on what they spend. Pure: numbers, arrays or tensors in and out.

``n`` primitive steps of one option, ``c`` its cost relative to the cheapest, ``h`` the steps that a choice holds,
``s`` the FLOPs of one selector call, ``F_0`` the FLOPs of one primitive step of the cheapest sub-policy.
"""

from typing import Any, Literal

DiscountExponent = Literal["duration", "one"]
"""``"duration"``: bootstrap with γⁿ. ``"one"``: with γ, as the published code of asymmetric sub-policies does."""


def option_reward(reward_sum: Any, steps: Any, relative_cost: Any, weight: float) -> Any:
    """Return the reward of one option, ``r_Ω = Σ r − weight · n · c``.

    Rewards inside an option are summed undiscounted.
    Source: "Reducing the Deployment-Time Inference Control Costs of DRL Agents via an Asymmetric Architecture".

    Args:
        reward_sum: ``Σ r`` over the primitive steps really taken.
        steps: ``n``, the primitive steps really taken (fewer than ``h`` where the episode ended).
        relative_cost: ``c``, FLOPs of the option's sub-policy in units of the cheapest.
        weight: ``λ``, reward per unit of ``c`` and primitive step.
    """
    return reward_sum - weight * (steps * relative_cost)  # tensors: counts first, or they round the product to float32


def option_discount(gamma: float, steps: Any, terminated: Any, exponent: DiscountExponent = "duration") -> Any:
    """Return the factor of the bootstrap value after an option, ``γⁿ · (1 − terminated)``.

    Truncation does not cut it: only ``terminated`` does.

    Args:
        gamma: discount of one primitive step.
        steps: ``n``, the primitive steps really taken.
        terminated: 1 (or True) where the episode terminated inside the option.
        exponent: see ``DiscountExponent``.
    """
    power = steps if exponent == "duration" else 1
    return gamma**power * (1 - 1 * terminated)  # 1 * …: torch refuses 1 - bool


def decision_flops(steps_left: int | None, hold: int, cheapest: int, selector: int) -> int:
    """Return what the cheapest decision costs: one selector call and one option, ``s + min(h, H) · F_0``.

    Args:
        steps_left: ``H``, primitive steps that the episode may still last; None when nothing bounds it.
        hold: ``h``.
        cheapest: ``F_0``.
        selector: ``s``.
    """
    steps = hold if steps_left is None else min(hold, steps_left)
    return selector + steps * cheapest


def path_flops(steps_left: int, hold: int, cheapest: int, selector: int) -> int:
    """Return what the cheapest path through the rest of an episode costs, ``H · F_0 + ⌈H / h⌉ · s``."""
    return steps_left * cheapest + -(-steps_left // hold) * selector


def affordable_flops(
    remaining: int, steps_left: int, hold: int, cheapest: int, selector: int, duration: int | None = None
) -> int:
    """Return what one choice may spend so that the cheapest path stays affordable afterwards.

    ``B − path(H − n)`` with ``n = min(d, H)``; where the cheapest path through the whole rest is out of reach already,
    ``n · F_0``: only the cheapest choice is left. The selector call of this decision has been paid from ``B``. Short
    choices need more calls, so that even the cheapest may have to last longer than was asked, to keep the path.

    Args:
        remaining: ``B``, FLOPs left.
        steps_left: ``H``, primitive steps that the episode may still last.
        hold: ``h``, of the cheapest path: the longest duration, where there are several.
        cheapest: ``F_0``.
        selector: ``s``.
        duration: ``d``, of this choice; ``None`` for ``h``.
    """
    steps = min(hold if duration is None else duration, steps_left)
    beyond = remaining - path_flops(steps_left - steps, hold, cheapest, selector)
    if remaining < path_flops(steps_left, hold, cheapest, selector) - selector:
        beyond = max(beyond, steps * cheapest)
    return min(beyond, remaining)


__all__ = ["DiscountExponent", "affordable_flops", "decision_flops", "option_discount", "option_reward", "path_flops"]
