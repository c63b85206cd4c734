"""Wrapper that records what acting costs: ``RecordComputeStatistics``."""

from math import isfinite
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.arguments import a_flag
from budget_wrappers.errors import ConfigError, InfoKeyError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.account import find_attribute
from budget_wrappers.wrappers.reading import NO_NUMBER, SUMMARY_KEY, CostReader, finite_reward, refuse_vector_reward
from budget_wrappers.wrappers.repeats import RepeatWatch


class RecordComputeStatistics(CostReader, RecordConstructorArgs):
    """Writes the FLOPs of each step into ``info["cost"]`` and each episode's account into ``info["compute"]``.

    ``info["cost"]`` is an ``np.float64``: what the policy spent on the action of this step, in FLOPs of the meter's
    convention, 0.0 at reset. ``info["compute"]`` is there when the episode ends, numbers only::

        {"flops", "flops_per_step", "steps",            # FLOPs of the episode; steps are primitive ones
         "return_raw", "return_penalised",              # before and after every penalty of the stack, in either order
         "share_flops": {name: ...}, "share_steps": {name: ...},  # of each sub-policy or watched module
         "limit", "overshoot", "held_steps", "penalty_weight"}  # with a ComputeLimit; with a weight that adapts

    The convention stands in the attribute ``convention``, as text in an ``info`` breaks some trainers. Wrappers that
    repeat an action (``RepeatAction``, ``SubPolicyAction``) belong inside and this one outside, as they hand out the
    last ``info`` only. A vector version exists: ``budget_wrappers.wrappers.vector.RecordComputeStatistics``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers import RecordComputeStatistics
        >>> meter = get_meter("docs.record")
        >>> env = RecordComputeStatistics(gym.make("CartPole-v1", max_episode_steps=2), meter="docs.record")
        >>> obs, info = env.reset(seed=0)
        >>> meter.add(640, "actor")  # the policy charges what it spends
        >>> env.step(0)[-1]["cost"]
        np.float64(640.0)
        >>> env.step(1)[-1]["compute"]["flops"]  # an action that no policy computed costs nothing
        np.float64(640.0)

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self, env: gym.Env, meter: str | ComputeMeter = "policy", key: str = "cost", stable_info: bool = False
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            meter: name or object of the meter that the policy charges.
            key: where the cost of a step goes; change it where the environment owns ``"cost"``.
            stable_info: put ``info["compute"]`` into every ``info``, with the same keys, for recorders that need it
                (Minari). Watch the policy before the first reset: names that turn up later are counted as ``"other"``.

        Raises:
            ConfigError: ``key`` is ``"compute"`` or no text, ``meter`` is no meter.
            WrapperOrderError: rewards are vectors already.
            InfoKeyError: a wrapper inside records already.
        """
        if not isinstance(key, str) or key in ("", SUMMARY_KEY):
            raise ConfigError(f"key={key!r}; expected a text other than {SUMMARY_KEY!r}, the episode's account.")
        stable_info = a_flag("stable_info", stable_info)
        RecordConstructorArgs.__init__(self, meter=meter, key=key, stable_info=stable_info, _disable_deepcopy=True)
        CostReader.__init__(self, env)
        refuse_vector_reward(self)
        if env.has_wrapper_attr("cost_key"):
            raise InfoKeyError(f"{env} writes info[{SUMMARY_KEY!r}] already. One RecordComputeStatistics is enough.")
        self.open_account(meter)
        self.cost_key, self.convention = key, self.meter.convention
        self._stable_info, self._stable_names = stable_info, ()
        self._raw, self._options = find_attribute(env, "raw_return"), find_attribute(env, "option_report")
        self._limit, self._weight = (find_attribute(env, name, dict) for name in ("limit_report", "weight_report"))
        self._last_cost, self._cost, self._repeats = 0, np.float64(0), RepeatWatch()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, drop what is pending on the meter and start an account."""
        obs, info = super().reset(seed=seed, options=options)
        if self._stable_info and not self._stable_names:
            self._stable_names = (*self._account.by_name()[0], "other")
        return obs, self._write(info, 0, self._stable_info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, close the account of the step and write its cost.

        Raises:
            InfoKeyError, NonFiniteError, SpaceError: the key is the environment's, or the reward not finite, no number.
            MeterError: the episode has ended and the meter was never used, or it was charged for a batch.
            WrapperOrderError: a wrapper outside repeats actions and hands out the last info only.
        """
        account, seen = self._account, self._seen
        if account.over:
            account.begin_step()
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._seen = account.collect() if self._closes else account.total  # read_cost() written out
        if account.episode != self._episode:
            self.begin_episode()
            self._seen, seen = account.total, 0
        cost = self._seen - seen
        self._steps += 1
        try:  # finite_reward() written out
            finite = isfinite(reward)
        except NO_NUMBER:
            finite = False
        self._return += float(reward) if finite else finite_reward(reward, self._steps)
        if terminated or truncated:
            account.require_use(self._steps)
            return obs, reward, terminated, truncated, self._write(info, cost, True)
        if cost != self._last_cost:  # most policies cost the same at every step
            self._repeats.changed(self, cost)
            self._last_cost, self._cost = cost, np.float64(cost)
        if self._stable_info or self.cost_key in info:
            return obs, reward, terminated, truncated, self._write(info, cost, self._stable_info)
        info = info.copy()  # as some environments hand out one dict again and again
        info[self.cost_key] = self._cost
        return obs, reward, terminated, truncated, info

    def compute_summary(self) -> dict[str, Any]:
        """Return the account of the episode so far, as ``info["compute"]`` holds it."""
        total, steps = self._account.total, self._steps
        report = {**self._limit(), **self._weight()}
        if self._options is not None:
            flops_by_name, steps_by_name, steps = self._options(total)
        else:
            flops_by_name, steps_by_name = (_fold(counts, self._stable_names) for counts in self._account.by_name())
            steps += int(report.get("held_steps", 0))  # steps that a limit inside has run within one of ours
        return {
            "flops": np.float64(total),
            "flops_per_step": np.float64(total / max(steps, 1)),
            "steps": np.float64(steps),
            "return_raw": np.float64(self._return if self._raw is None else self._raw.value),
            "return_penalised": np.float64(self._return),
            "share_flops": {name: np.float64(flops / max(total, 1)) for name, flops in flops_by_name.items()},
            "share_steps": {name: np.float64(count / max(steps, 1)) for name, count in steps_by_name.items()},
        } | report

    def _write(self, info: dict[str, Any], cost: int, full: bool) -> dict[str, Any]:
        """Return a copy of ``info`` with our keys: some environments hand out one dict again and again."""
        if self.cost_key in info or (full and SUMMARY_KEY in info):
            raise _taken(info, self.cost_key, self.env)
        return {**info, self.cost_key: np.float64(cost)} | ({SUMMARY_KEY: self.compute_summary()} if full else {})


def _taken(info: dict[str, Any], key: str, env: gym.Env) -> InfoKeyError:
    return InfoKeyError(
        f"info has {sorted(info)} and {key!r} and {SUMMARY_KEY!r} are ours; {env} writes one of them inside. Choose "
        "another place for the cost, RecordComputeStatistics(env, key='compute_cost')."
    )


def _fold(counts: dict[str, int], names: tuple[str, ...]) -> dict[str, int]:
    """Return the counts under ``names`` only, the rest under the last of them; as they are without any names."""
    if not names:
        return counts
    folded = dict.fromkeys(names, 0)
    for name, count in counts.items():
        folded[name if name in folded else names[-1]] += count
    return folded


__all__ = ["RecordComputeStatistics"]
