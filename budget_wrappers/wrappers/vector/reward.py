"""Vector wrapper that makes compute cost reward: ``ComputePenaltyReward``."""

from typing import Any

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from budget_wrappers.functional.costs import penalised_reward
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.account import RawReturn
from budget_wrappers.wrappers.reading import plain, refuse_vector_reward
from budget_wrappers.wrappers.reward import FLOAT32_SHARE, checked_floor, validate_weight, warn_vanishing
from budget_wrappers.wrappers.vector.arrays import stepped
from budget_wrappers.wrappers.vector.modes import find_in_vector
from budget_wrappers.wrappers.vector.reading import (
    VectorCostReader,
    as_handed_out,
    finite_rewards,
    refuse_second_penalty,
)

ALWAYS_LOOK = 32
"""Steps that are looked at for penalties that float32 would lose, and then one of so many: it takes half of a step."""


class ComputePenaltyReward(VectorCostReader, RecordConstructorArgs):
    """Subtracts the cost of each environment's action from its reward: ``reward − weight · cost``.

    The vector version of ``budget_wrappers.wrappers.ComputePenaltyReward``, in every autoreset mode: ``cost`` is in raw
    FLOPs of the meter's convention, ``weight`` in reward per FLOP, and with ``floor`` a penalty never pulls a reward
    below it. Rewards are ``(n,)`` in the environments' own float type, float64 where they have none. A step that only
    resets costs nothing. ``RecordComputeStatistics``, inside or outside, reports the raw return beside the penalised
    one.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.vector import ComputePenaltyReward
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> envs = ComputePenaltyReward(envs, weight=0.001, meter="docs.vector.penalty")
        >>> obs, infos = envs.reset(seed=0)
        >>> get_meter("docs.vector.penalty").add(750, rows=2, by_row=[250, 500])
        >>> envs.step([0, 1])[1]
        array([0.75, 0.5 ])

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self, env: VectorEnv, weight: float, floor: float | None = None, meter: str | ComputeMeter = "policy"
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the vector environment.
            weight: reward per FLOP, >= 0.
            floor: what a penalty never pulls a reward below; None for no floor.
            meter: name or object of the meter that the policy charges.

        Raises:
            ConfigError: ``weight`` is negative or NaN, ``floor`` is NaN, ``meter`` is no meter.
            WrapperOrderError: a layer inside charges for the same cost already, or hands out vector rewards.
            SpaceError: ``env`` is no vector environment.
        """
        weight, floor = plain(weight), checked_floor(floor)
        RecordConstructorArgs.__init__(self, weight=weight, floor=floor, meter=meter, _disable_deepcopy=True)
        VectorCostReader.__init__(self, env)
        refuse_vector_reward(self)
        self.open_account(meter)
        refuse_second_penalty(self, self.meter)
        self.floor = floor
        self.set_weight(weight)
        inner = find_in_vector(env, "raw_return")
        self._writes_raw = inner is None
        self.raw_return: RawReturn = RawReturn() if inner is None else inner
        if inner is None:
            self.raw_return.value = np.zeros(self._n)
        self._return, self._warned, self._looks = np.zeros(self._n), False, 0

    def set_weight(self, weight: float) -> None:
        """Change the reward per FLOP from the next step on.

        Raises:
            ConfigError: it is negative, NaN or infinite.
        """
        self.weight = validate_weight(weight)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``, drop what is pending and start accounts."""
        refuse_second_penalty(self, self.meter)  # a weight inside may have been set since
        obs, infos, mask = self.reset_rows(seed, options)
        self._account.clear(self._return, mask)
        if self._writes_raw:
            self._account.clear(self.raw_return.value, mask)
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, Any, Any, dict[str, Any]]:
        """Step, close the accounts of the step and subtract its costs.

        Raises:
            NonFiniteError: a reward of the environments is NaN or infinite.
            SpaceError: rewards are no numbers.
            MeterError: an episode has ended and the meter was never used, or rows belong to no environment.
        """
        obs, rewards, terminations, truncations, infos = stepped(self.env, actions)
        cost = self.read_cost(terminations, truncations)
        handed_out = finite_rewards(rewards, (self._n,))
        raw = handed_out.astype(np.float64, copy=False)
        penalised = as_handed_out(penalised_reward(raw, cost, self.weight, self.floor), handed_out)
        if self._looks < ALWAYS_LOOK or not self._looks % ALWAYS_LOOK:
            self._warn(raw, self.weight * cost)
        self._looks += 1
        if self._writes_raw:
            self._account.add(self.raw_return.value, raw)
        self._account.add(self._return, penalised)
        return obs, penalised, terminations, truncations, self.amend(infos)

    def _warn(self, raw: np.ndarray, penalty: np.ndarray) -> None:
        if self._warned:
            return
        vanishing = np.flatnonzero((penalty > 0) & (penalty < FLOAT32_SHARE * np.abs(raw)))
        if vanishing.size:
            self._warned = True
            warn_vanishing(float(raw[vanishing[0]]), float(penalty[vanishing[0]]))

    def report(self) -> dict[str, np.ndarray]:
        """Return the returns after this penalty."""
        return {"return_penalised": self._return.copy()}


__all__ = ["ComputePenaltyReward"]
