"""Vector wrapper that records what acting costs: ``RecordComputeStatistics``."""

from typing import Any

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import ConfigError, InfoKeyError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.reading import SUMMARY_KEY, refuse_vector_reward
from budget_wrappers.wrappers.repeats import RepeatWatch
from budget_wrappers.wrappers.vector.arrays import stepped
from budget_wrappers.wrappers.vector.infos import put, require_free
from budget_wrappers.wrappers.vector.modes import SAME_STEP, find_in_vector
from budget_wrappers.wrappers.vector.reading import VectorCostReader, finite_rewards


class RecordComputeStatistics(VectorCostReader, RecordConstructorArgs):
    """Writes each environment's FLOPs of a step into ``infos["cost"]``, and of an episode into ``infos["compute"]``.

    The vector version of ``budget_wrappers.wrappers.RecordComputeStatistics``: infos are those that the vector
    environment would hand out with that wrapper around each of its environments, to the digit. So ``infos["cost"]`` is
    ``(n,)`` float64 with the mask ``infos["_cost"]``, 0.0 at resets; ``infos["compute"]``, with masks, holds the
    accounts of the episodes that this step has ended. In ``SAME_STEP`` mode both stand in ``infos["final_info"]`` for
    the environments whose episode has ended, and the top level holds the reset's cost, 0.0.

    The policy acts on the whole batch in this process and charges the meter; rows are the environments, in order. Rows
    that cost differently are told by ``meter.add(…, by_row=…)``. What a policy spends on the step that only resets
    (``NEXT_STEP`` mode) is executed, not charged.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.vector import RecordComputeStatistics
        >>> meter = get_meter("docs.vector.record")
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync", max_episode_steps=2)
        >>> envs = RecordComputeStatistics(envs, meter="docs.vector.record")
        >>> obs, infos = envs.reset(seed=0)
        >>> meter.add(900, "actor", rows=2, by_row=[300, 600])  # the policy charges what it spends
        >>> envs.step([0, 1])[-1]["cost"]
        array([300., 600.])
        >>> meter.add(600, "actor", rows=2)
        >>> envs.step([1, 0])[-1]["compute"]["flops"]
        array([600., 900.])

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(self, env: VectorEnv, meter: str | ComputeMeter = "policy", key: str = "cost") -> None:
        """Wrap ``env``.

        Args:
            env: the vector environment.
            meter: name or object of the meter that the policy charges.
            key: where the cost of a step goes; change it where the environments own ``"cost"``.

        Raises:
            ConfigError: ``key`` is ``"compute"`` or no text, ``meter`` is no meter.
            WrapperOrderError: rewards are vectors already.
            InfoKeyError: a wrapper inside records already.
            SpaceError: ``env`` is no vector environment.
        """
        if not isinstance(key, str) or key in ("", SUMMARY_KEY):
            raise ConfigError(f"key={key!r}; expected a text other than {SUMMARY_KEY!r}, the episode's account.")
        RecordConstructorArgs.__init__(self, meter=meter, key=key, _disable_deepcopy=True)
        VectorCostReader.__init__(self, env)
        refuse_vector_reward(self)
        if find_in_vector(env, "cost_key") is not None:
            raise InfoKeyError(f"{env} writes infos[{SUMMARY_KEY!r}] already. One RecordComputeStatistics is enough.")
        self.open_account(meter)
        self.cost_key, self.convention = key, self.meter.convention
        self._raw, self._options = find_in_vector(env, "raw_return"), find_in_vector(env, "option_report")
        self._limit, self._weight = (find_in_vector(env, name, dict) for name in ("limit_report", "weight_report"))
        self._return = np.zeros(self._n)
        self._everywhere = np.ones(self._n, bool)
        self._repeats, self._paid = RepeatWatch(), False

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``, drop what is pending and start accounts."""
        obs, infos, mask = self.reset_rows(seed, options)
        self._account.clear(self._return, mask)
        mask = self._everywhere if mask is None else mask
        require_free(infos, (self.cost_key, SUMMARY_KEY), self.env)
        return obs, put(infos, {self.cost_key: np.zeros(self._n)}, mask, final=False)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, close the accounts of the step and write its costs.

        Raises:
            InfoKeyError: the environments have put something else under the key.
            NonFiniteError, SpaceError: a reward is NaN or infinite, or no number.
            MeterError: an episode has ended and the meter was never used, or rows belong to no environment.
            WrapperOrderError: a wrapper outside repeats actions and hands out the last infos only.
        """
        obs, rewards, terminations, truncations, infos = stepped(self.env, actions)
        cost, account = self.read_cost(terminations, truncations).astype(np.float64), self._account
        if (paid := np.count_nonzero(cost) > 0) is not self._paid:  # most policies cost something at every step
            self._paid = paid
            self._repeats.changed(self, paid)
        account.add(self._return, finite_rewards(rewards, (self._n,)))
        ended = account.ended
        if ended is not None:
            infos = self._write_ended(infos, cost, ended)
            cost = np.where(ended, 0.0, cost) if self._mode == SAME_STEP else cost
        elif self.cost_key in infos:
            require_free(infos, (self.cost_key,), self.env)
        return obs, rewards, terminations, truncations, {
            **infos, self.cost_key: cost, f"_{self.cost_key}": self._everywhere.copy()
        }  # fmt: skip

    def _write_ended(self, infos: dict[str, Any], cost: np.ndarray, ended: np.ndarray) -> dict[str, Any]:
        require_free(infos, (self.cost_key, SUMMARY_KEY), self.env)
        summary = {SUMMARY_KEY: self.compute_summary()}
        if self._mode != SAME_STEP:
            return put(infos, summary, ended, final=False)
        return put(infos, {self.cost_key: cost, **summary}, ended, final=True)

    def compute_summary(self) -> dict[str, Any]:
        """Return the accounts of the running episodes, ``(n,)`` float64 each, as ``infos["compute"]`` holds them.

        Where the last step has ended an episode it is the account of that one.
        """
        total, steps = self._account.total, self._account.steps
        flops_by_name, steps_by_name = self._account.by_name() if self._options is None else self._options(total)
        some, length = np.maximum(total, 1), np.maximum(steps, 1)
        return {
            "flops": total.astype(np.float64),
            "flops_per_step": total / length,
            "steps": steps.astype(np.float64),
            "return_raw": (self._return if self._raw is None else self._raw.value).copy(),
            "return_penalised": self._return.copy(),
            "share_flops": {name: flops / some for name, flops in flops_by_name.items()},
            "share_steps": {name: count / length for name, count in steps_by_name.items()},
            **self._limit(),
            **self._weight(),
        }


__all__ = ["RecordComputeStatistics"]
