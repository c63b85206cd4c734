"""Probe environments: a few steps each, so every value is known and a wrong one says what is broken.

Each exists with discrete and with continuous actions. A continuous action earns ``1 − (a − best)²``, so its best value
is 1; a discrete one earns 1 where it is the best and −1 elsewhere.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Probe(gym.Env):
    """An environment given by what it shows, what it pays and how long it lasts.

    Args:
        show: the observation at step ``t``, drawn with the environment's generator.
        pay: the reward of ``(t, observation, action)``.
        length: steps until the episode terminates.
        discrete: two actions, or one number in [-1, 1].
        truncates: end by a time limit instead.
    """

    def __init__(
        self,
        show: Callable[[int, np.random.Generator], float],
        pay: Callable[[int, float, Any], float],
        length: int = 1,
        *,
        discrete: bool = True,
        truncates: bool = False,
    ) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.show, self.pay, self.length, self.truncates = show, pay, length, truncates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self.pay(self.t, self.shown, action)
        self.t += 1
        over = self.t == self.length
        return self._observe(), float(reward), over and not self.truncates, over and self.truncates, {}

    def _observe(self) -> np.ndarray:
        self.shown = float(self.show(self.t, self.np_random))
        return np.array([self.shown], np.float32)


def sign(t: int, generator: np.random.Generator) -> float:
    """Return −1 or 1."""
    return 2.0 * generator.integers(2) - 1.0


def right(action: Any, wanted: float) -> float:
    """Return what ``action`` earns where ``wanted`` (−1 or 1) asks for action 0 or 1, or for −0.5 or 0.5."""
    if isinstance(action, np.ndarray) and action.ndim:
        return 1.0 - float(action[0] - 0.5 * wanted) ** 2
    return 1.0 if action == (wanted > 0) else -1.0


def constant(discrete: bool) -> Probe:
    """One step that pays 1: ``V = 1``. Fails: the critic's loss or its optimizer."""
    return Probe(lambda t, _: 0.0, lambda t, shown, action: 1.0, discrete=discrete)


def of_the_observation(discrete: bool) -> Probe:
    """One step that pays the observation: ``V(s) = s``. Fails: the observation on its way to the critic."""
    return Probe(sign, lambda t, shown, action: shown, discrete=discrete)


def discounting(discrete: bool) -> Probe:
    """Two steps, the second pays 1: ``V(0) = γ``, ``V(1) = 1``. Fails: bootstrap or discount."""
    return Probe(lambda t, _: float(t), lambda t, shown, action: float(t == 1), 2, discrete=discrete)


def of_the_action(discrete: bool) -> Probe:
    """One step that pays the action: the best earns 1. Fails: the policy's update."""
    return Probe(lambda t, _: 0.0, lambda t, shown, action: right(action, 1.0), discrete=discrete)


def of_both(discrete: bool) -> Probe:
    """One step that pays action and observation agreeing. Fails: the pairing of the two in a batch."""
    return Probe(sign, lambda t, shown, action: right(action, shown), discrete=discrete)


def only_truncates(discrete: bool) -> Probe:
    """Every step pays 1 and a time limit of 5 steps is all that ends: ``V = 1/(1 − γ)`` as if it went on for ever."""
    return Probe(lambda t, _: 0.0, lambda t, shown, action: 1.0, 5, discrete=discrete, truncates=True)


def cheap_is_right(discrete: bool = True) -> Probe:
    """Ten steps that pay 1 whatever is done: nothing justifies a dear sub-policy."""
    return Probe(sign, lambda t, shown, action: 1.0, 10, truncates=True)


def dear_is_worth_it(discrete: bool = True) -> Probe:
    """Ten steps; where the observation is 1 only action 1 pays 1, where it is −1 anything does."""
    return Probe(sign, lambda t, shown, action: 1.0 if shown < 0 else float(action == 1), 10, truncates=True)
