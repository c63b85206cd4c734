"""Vector wrapper that makes compute cost reward: ``ComputePenaltyReward``."""

from typing import Any, Literal

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from budget_wrappers.functional.costs import penalised_reward
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.account import RawReturn
from budget_wrappers.wrappers.reading import plain, refuse_vector_reward
from budget_wrappers.wrappers.reward import FLOAT32_SHARE, checked_floor, warn_vanishing
from budget_wrappers.wrappers.vector.arrays import stepped
from budget_wrappers.wrappers.vector.modes import NEXT_STEP, find_in_vector
from budget_wrappers.wrappers.vector.reading import (
    VectorCostReader,
    as_handed_out,
    finite_rewards,
    refuse_second_penalty,
)
from budget_wrappers.wrappers.weighing import Weighing

ALWAYS_LOOK = 32
"""Steps that are looked at for penalties that float32 would lose, and then one of so many: it takes half of a step."""


class ComputePenaltyReward(Weighing, VectorCostReader, RecordConstructorArgs):
    """Subtracts the cost of each environment's action from its reward: ``reward − weight · cost``.

    The vector version of ``budget_wrappers.wrappers.ComputePenaltyReward``, in every autoreset mode: ``cost`` is in raw
    FLOPs of the meter's convention, ``weight`` in reward per FLOP, and with ``floor`` a penalty never pulls a reward
    below it. Rewards are ``(n,)`` in the environments' own float type, float64 where they have none. A step that only
    resets costs nothing. ``RecordComputeStatistics``, inside or outside, reports the raw return beside the penalised
    one. With ``weight="auto"`` one weight for all environments keeps their mean cost per step at ``budget``, one for
    all; ``infos["penalty_weight"]`` is ``(n,)``.

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
        self,
        env: VectorEnv,
        weight: float | Literal["auto"],
        floor: float | None = None,
        meter: str | ComputeMeter = "policy",
        budget: float | None = None,
        initial_weight: float | None = None,
        rate: float | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, InfeasibleBudgetError, WrapperOrderError and SpaceError.

        Args:
            env: the vector environment.
            weight: reward per FLOP, >= 0, or ``"auto"``.
            floor: what a penalty never pulls a reward below; None for no floor.
            meter: name or object of the meter that the policy charges.
            budget: mean FLOPs per step of one environment that ``"auto"`` keeps, above 1.
            initial_weight: that ``"auto"`` begins with, see the wrapper of a single environment.
            rate: of the weight's logarithm per step of one environment, see there.
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
        VectorCostReader.__init__(self, env)
        refuse_vector_reward(self)
        self.open_account(meter)
        refuse_second_penalty(self, self.meter)
        self.floor, least = floor, int(find_in_vector(env, "choice_flops", [0])[0])
        elsewhere = find_in_vector(env, "set_budget") is not None
        self.open_weight(weight, budget, initial_weight, rate, least, elsewhere)
        inner = find_in_vector(env, "raw_return")
        self._writes_raw = inner is None
        self.raw_return: RawReturn = RawReturn() if inner is None else inner
        if inner is None:
            self.raw_return.value = np.zeros(self._n)
        self._return, self._warned, self._looks = np.zeros(self._n), self._counts, 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``, drop what is pending and start accounts."""
        refuse_second_penalty(self, self.meter)  # a weight inside may have been set since
        self.take_budget(options)
        obs, infos, mask = self.reset_rows(seed, options)
        self._account.clear(self._return, mask)
        if self._writes_raw:
            self._account.clear(self.raw_return.value, mask)
        return obs, self.tell_reset(infos, dict(self.multiplier.report()), mask) if self.multiplier.adapts else infos

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
        weight = self.multiplier.weight
        penalised = as_handed_out(penalised_reward(raw, cost, weight, self.floor), handed_out)
        if self._looks < ALWAYS_LOOK or not self._looks % ALWAYS_LOOK:
            self._warn(raw, weight * cost)
        self._looks += 1
        if self._writes_raw:
            self._account.add(self.raw_return.value, raw)
        self._account.add(self._return, penalised)
        if self.multiplier.adapts:
            infos = self._adapt(infos, cost, raw)
        return obs, penalised, terminations, truncations, self.amend(infos)

    def _adapt(self, infos: dict[str, Any], cost: np.ndarray, raw: np.ndarray) -> dict[str, Any]:
        """Count what the environments have spent on their steps, and return ``infos`` with the weight."""
        if self._counts:
            only_reset = self._account.fresh if self._mode == NEXT_STEP else None
            acted = self._n if only_reset is None else self._n - np.count_nonzero(only_reset)
            size = np.abs(raw) if only_reset is None else np.abs(raw)[~only_reset]
            self.multiplier.count(int(cost.sum()), acted, float(size.sum()))
        return self.tell(infos, self.weight_report(), dict(self.multiplier.report()))

    def _warn(self, raw: np.ndarray, penalty: np.ndarray) -> None:
        if self._warned:
            return
        vanishing = np.flatnonzero((penalty > 0) & (penalty < FLOAT32_SHARE * np.abs(raw)))
        if vanishing.size:
            self._warned = True
            warn_vanishing(float(raw[vanishing[0]]), float(penalty[vanishing[0]]))

    def report(self) -> dict[str, np.ndarray]:
        """Return the returns after this penalty, and the weight where that adapts."""
        return {"return_penalised": self._return.copy(), **self.weight_report()}

    def weight_report(self) -> dict[str, np.ndarray]:
        """Return what ``infos["compute"]`` says of the weight, ``(n,)``: nothing where it does not adapt."""
        return {key: np.full(self._n, value) for key, value in self.multiplier.report().items()}


__all__ = ["ComputePenaltyReward"]
