"""Wrapper that makes compute cost reward: ``ComputePenaltyReward``."""

import warnings
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.arguments import a_number
from budget_wrappers.functional.costs import penalised_reward
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.account import RawReturn, find_attribute
from budget_wrappers.wrappers.reading import (
    CostReader,
    finite_reward,
    plain,
    refuse_second_penalty,
    refuse_vector_reward,
)
from budget_wrappers.wrappers.weighing import StepCounter, Weighing

FLOAT32_SHARE = 1e-6
"""Below this share of the reward a penalty is lost where rewards are stored as float32 (its precision is 1.2e-7)."""


class ComputePenaltyReward(Weighing, CostReader, RecordConstructorArgs):
    """Subtracts the cost of each action from the reward: ``reward − weight · cost``.

    ``cost`` is in raw FLOPs of the meter's convention, so ``weight`` is reward per FLOP: for a policy of about 10^5
    FLOPs and rewards of about 1, try 1e-6. With ``floor`` a penalty never pulls a reward below it; a reward that is
    below it already passes unchanged. The reward is a Python float. The raw return is kept, and reported beside the
    penalised one by ``RecordComputeStatistics``, inside or outside of this wrapper. A penalty below 1e-6 of the reward
    warns once, as it vanishes in trainers that store rewards as float32.

    With ``weight="auto"`` the weight is a Lagrange multiplier: it keeps the mean cost **per environment step** at
    ``budget`` while the agent learns, as ``flops_per_step`` of ``RecordComputeStatistics`` counts it, so an option of
    five steps is five. ``info["penalty_weight"]`` is the weight that the next step is charged with. ``set_weight``
    adapts on from there. ``set_budget`` and ``reset(options={"budget": …})`` change the budget; where a layer inside
    takes budgets itself they are that layer's, and ``multiplier.set_budget`` is this one's. Evaluation environments
    ``follow`` the training's, or ``freeze``. ``state_dict`` is plain numbers; training runs keep it in checkpoints.

    A vector version exists: ``budget_wrappers.wrappers.vector.ComputePenaltyReward``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers import ComputePenaltyReward
        >>> env = ComputePenaltyReward(gym.make("CartPole-v1"), weight=0.001, meter="docs.penalty")
        >>> obs, info = env.reset(seed=0)
        >>> get_meter("docs.penalty").add(250)
        >>> env.step(0)[1]
        0.75

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: gym.Env,
        weight: float | Literal["auto"],
        floor: float | None = None,
        meter: str | ComputeMeter = "policy",
        budget: float | None = None,
        initial_weight: float | None = None,
        rate: float | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, InfeasibleBudgetError and WrapperOrderError.

        Args:
            env: the environment.
            weight: reward per FLOP, >= 0, or ``"auto"``.
            floor: what a penalty never pulls a reward below; None for no floor.
            meter: name or object of the meter that the policy charges.
            budget: mean FLOPs per environment step that ``"auto"`` keeps, above 1.
            initial_weight: that ``"auto"`` begins with; by default spending the budget costs 2 % of the mean reward.
            rate: of the weight's logarithm per environment step that costs twice the budget, 1e-3 by default: for an
                agent that follows a new weight in about 1,000 steps. It moves every ``0.2 / rate`` steps.
        """
        weight, floor, budget = plain(weight), checked_floor(floor), plain(budget)
        initial_weight, rate = plain(initial_weight), plain(rate)
        RecordConstructorArgs.__init__(
            self,
            weight=weight,
            floor=floor,
            meter=meter,
            budget=budget,
            initial_weight=initial_weight,
            rate=rate,
            _disable_deepcopy=True,
        )
        CostReader.__init__(self, env)
        refuse_vector_reward(self)
        self.open_account(meter)
        refuse_second_penalty(self, self.meter)
        self.floor, self._counter = floor, StepCounter(env)
        elsewhere = env.has_wrapper_attr("set_budget")
        self.open_weight(weight, budget, initial_weight, rate, self._counter.least, elsewhere)
        inner = find_attribute(env, "raw_return")
        self._writes_raw = inner is None
        self.raw_return: RawReturn = RawReturn() if inner is None else inner
        self._warned = self._counts  # its remedies are of a weight that somebody chose

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, drop what is pending on the meter and start an account."""
        refuse_second_penalty(self, self.meter)  # a weight inside may have been set since
        self.take_budget(options)
        obs, info = super().reset(seed=seed, options=options)
        return obs, self.amend(self._told(info), ended=False)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, close the account of the step and subtract its cost.

        Raises:
            NonFiniteError: the environment's reward is NaN or infinite.
            SpaceError: it is no number.
            MeterError: the episode has ended and the meter was never used, or it was charged for a batch.
        """
        if self._account.over:
            self._account.begin_step()
        obs, reward, terminated, truncated, info = self.env.step(action)
        cost = self.read_cost()
        self._steps += 1
        raw, weight = finite_reward(reward, self._steps), self.multiplier.weight
        penalised = float(penalised_reward(raw, cost, weight, self.floor))
        if not self._warned and 0.0 < weight * cost < FLOAT32_SHARE * abs(raw):
            self._warned = True
            warn_vanishing(raw, weight * cost)
        if self._writes_raw:
            self.raw_return.value += raw
        self._return += penalised
        if self.multiplier.adapts:
            steps = self._counter.take(terminated or truncated)
            if self._counts:
                self.multiplier.count(cost, steps, abs(raw))
        if terminated or truncated:
            self._account.require_use(self._steps)
        return obs, penalised, terminated, truncated, self.amend(self._told(info), ended=False)

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return ``info`` with the weight, where that adapts."""
        return {**info, **self.multiplier.report()} if self.multiplier.adapts else info

    def begin_episode(self) -> None:
        """Forget the last episode, as a step after its end has begun another."""
        super().begin_episode()
        if self._writes_raw:
            self.raw_return.value = 0.0

    def report(self) -> dict[str, np.float64]:
        """Return the return after this penalty, and the weight where that adapts."""
        return {"return_penalised": np.float64(self._return), **self.multiplier.report()}


def checked_floor(floor: Any) -> float | None:
    """Return ``floor`` as a float, or ``None`` for no floor.

    Raises:
        ConfigError: it is no number, NaN or infinite.
    """
    return None if floor is None else a_number("floor", floor, "a finite number, or None for no floor")


def warn_vanishing(reward: float, penalty: float) -> None:
    """Warn that trainers which store rewards as float32 will not see ``penalty``."""
    warnings.warn(
        f"A penalty of {penalty:.3g} on a reward of {reward:.3g} is below {FLOAT32_SHARE:g} of it: a trainer that "
        "stores rewards as float32 rounds it away. Raise the weight or rescale the reward.",
        stacklevel=3,
    )


__all__ = ["ComputePenaltyReward", "checked_floor"]
