"""What every wrapper that reads a meter shares, and where in a stack it may stand."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from budget_wrappers.core import Chooser
from budget_wrappers.errors import ConfigError, NonFiniteError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.account import StepAccount, find_attribute, join_accounts

SUMMARY_KEY = "compute"
"""Where ``RecordComputeStatistics`` puts the account of an episode in ``info``."""

NO_NUMBER = (TypeError, ValueError, OverflowError, RuntimeError)
"""What ``math.isfinite`` raises for anything that is not one number: text, lists, tensors of several elements."""


class CostReader(gym.Wrapper):
    """Base of the wrappers that read what a step cost.

    Attributes:
        compute_accounts: every account of the stack up to here, for the wrappers further out.
    """

    compute_accounts: tuple[StepAccount, ...]

    def open_account(self, meter: str | ComputeMeter) -> None:
        """Share the account that a wrapper inside owns, or own a new one."""
        self.compute_accounts, self._account, self._closes = join_accounts(self.env, meter)
        self._account.acts_inside = find_chooser(self.env) is not None
        self._amends = self.env.has_wrapper_attr("cost_key")  # a RecordComputeStatistics inside
        CostReader.begin_episode(self)

    @property
    def meter(self) -> ComputeMeter:
        """The meter whose cost is read."""
        return self._account.meter

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, drop what is pending on the meter and start an account."""
        obs, info = self.env.reset(seed=seed, options=options)
        if self._closes:
            self._account.discard()
        self.begin_episode()
        return obs, info

    def read_cost(self) -> int:
        """Return the FLOPs spent since the last reading; called once after each inner step."""
        account = self._account
        total = account.collect() if self._closes else account.total
        if account.episode != self._episode:
            self.begin_episode()
        cost = total - self._seen
        self._seen = total
        return cost

    def begin_episode(self) -> None:
        """Forget the last episode: after a reset, and where a step after its end has begun another."""
        self._seen, self._episode = 0, self._account.episode
        self._return, self._steps = 0.0, 0  # of those wrappers that sum rewards up

    def report(self) -> dict[str, np.float64]:
        """Return what this wrapper knows better than a recorder inside of it."""
        return {}

    def compute_summary(self) -> dict[str, Any]:
        """Return the account of the episode so far, as the recorder inside and this wrapper see it."""
        return {**self.env.get_wrapper_attr("compute_summary")(), **self.report()}

    def amend(self, info: dict[str, Any], ended: bool) -> dict[str, Any]:
        """Return ``info`` with our report in the recorder's account, and with that where we have ended the episode."""
        if not self._amends or not (ended or SUMMARY_KEY in info):
            return info
        return {**info, SUMMARY_KEY: self.compute_summary()}


def find_chooser(env: gym.Env) -> Chooser | None:
    """Return the layer inside ``env`` that runs one of K sub-policies in its ``step``, through any nesting."""
    chooser = getattr(find_attribute(env, "hold_last_action"), "__self__", None)
    return chooser if isinstance(chooser, Chooser) else None


def refuse_second_penalty(wrapper: gym.Wrapper, meter: ComputeMeter) -> None:
    """Check that no layer inside ``wrapper`` makes the same cost reward already.

    Raises:
        WrapperOrderError: one does, so the cost would be subtracted twice.
    """
    layer = wrapper.env
    while isinstance(layer, gym.Wrapper):
        if hasattr(layer, "raw_return") and layer.meter is meter and layer.weight > 0:
            raise WrapperOrderError(
                f"{wrapper.class_name()} would charge the rewards for meter {meter.name!r} a second time: "
                f"{layer.class_name()} inside has weight={layer.weight!r}. Keep one, or set the inner weight to 0."
            )
        layer = layer.env


def vector_reward_layer(env: gym.Env | VectorEnv) -> Any:
    """Return the layer of ``env`` whose ``reward_space`` describes the vectors handed out, ``None`` for numbers.

    Vectors end at MO-Gymnasium's ``LinearReward``, which does not say so by itself and is known by its name, and at a
    layer that says so: ``reward_space = None``.
    """
    layer = env
    while isinstance(layer, gym.Wrapper | VectorWrapper) and not hasattr(layer, "reward_space"):
        if any(base.__name__ == "LinearReward" for base in type(layer).__mro__):
            return None
        layer = layer.env
    return layer if getattr(layer, "reward_space", None) is not None else None


def reward_space_of(env: gym.Env | VectorEnv) -> gym.spaces.Box | None:
    """Return the space of the vectors that ``env`` hands out as rewards, ``None`` for numbers."""
    return getattr(vector_reward_layer(env), "reward_space", None)


def refuse_vector_reward(wrapper: gym.Wrapper | VectorWrapper) -> None:
    """Check that rewards are numbers, one for each environment.

    Raises:
        WrapperOrderError: a layer inside hands out vector rewards.
    """
    layer = vector_reward_layer(wrapper.env)
    if layer is not None:
        ours = type(layer).__name__ == "ComputeVectorReward"
        raise WrapperOrderError(
            f"{type(wrapper).__name__} needs a number as reward, and {wrapper.env} hands out vectors in "
            f"{layer.reward_space}. "
            + ("Put ComputeVectorReward outermost." if ours else "Make one number of them inside, by LinearReward.")
        )


def finite_reward(reward: Any, step: int) -> float:
    """Return ``reward`` as a Python float.

    Args:
        reward: what the environment handed out.
        step: which step of the episode, from 1, for the message.

    Raises:
        NonFiniteError: it is NaN or infinite.
        SpaceError: it is no number.
    """
    try:
        finite = math.isfinite(reward)  # unlike float() it takes no text
    except NO_NUMBER as error:
        raise SpaceError(
            f"The reward of step {step} is {reward!r} of type {type(reward).__name__}; expected one number that a "
            "float can hold. It comes from the environment: hand out float(reward) there."
        ) from error
    if not finite:
        raise NonFiniteError(
            f"The reward of step {step} is {float(reward)!r}; expected a finite number. It comes from the environment: "
            "look for a division by zero or a state that has left its bounds."
        )
    return float(reward)


def finite_reward_parts(reward: Any, step: int) -> list[float]:
    """Return a vector reward as Python floats, see ``finite_reward``.

    Raises:
        NonFiniteError: a part of it is NaN or infinite.
        SpaceError: it is no vector of numbers.
    """
    try:
        parts = list(reward)
    except TypeError as error:
        raise SpaceError(
            f"The reward of step {step} is {reward!r}; expected a vector, as reward_space of the environment says. "
            "Hand out an array there."
        ) from error
    return [finite_reward(part, step) for part in parts]


def require_options(options: Any) -> None:
    """Check the options of a reset, which say a budget by its name.

    Raises:
        ConfigError: no dictionary.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(
            f"reset(options={options!r}); expected a dictionary or None. A budget is given by its name: "
            "options={'budget': ...}."
        )


def plain(value: Any) -> Any:
    """Return a scalar of NumPy as the Python number that it holds, as specs are written as JSON; else ``value``."""
    return value.item() if isinstance(value, np.generic) else value


__all__ = [
    "NO_NUMBER",
    "SUMMARY_KEY",
    "CostReader",
    "find_chooser",
    "finite_reward",
    "finite_reward_parts",
    "plain",
    "refuse_second_penalty",
    "refuse_vector_reward",
    "require_options",
    "reward_space_of",
    "vector_reward_layer",
]
