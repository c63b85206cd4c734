"""Environments of published studies that have no Gymnasium id of their own.

``gymnasium.make("agents.studies.environments:budget/WalkerStand-v0")`` registers and makes one; so does ``--env`` with
that text.
"""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import DtypeObservation, FlattenObservation


def ant_with_contact_forces(**settings: Any) -> gym.Env:
    """Return Ant-v4 with the contact forces in its observation (111 numbers) and in its reward."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Ant-v4 is out of date")  # on purpose: v5 has 105 numbers
        return gym.make("Ant-v4", use_contact_forces=True, disable_env_checker=True, **settings)


def dm_control(task: str, **settings: Any) -> gym.Env:
    """Return a task of dm_control with one float32 vector as its observation.

    Args:
        task: its id behind ``dm_control/``.
        settings: of ``gymnasium.make``.
    """
    env = gym.make(f"shimmy:dm_control/{task}", disable_env_checker=True, **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered")  # of bounds that are infinite
        return DtypeObservation(FlattenObservation(env), np.float32)


class EndOnSuccess(gym.Wrapper):
    """Terminates an episode at the step whose ``info`` says ``is_success``, as some studies of Fetch train it."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; raises KeyError where it says nothing of success."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, bool(terminated or info["is_success"]), truncated, info


def fetch_until_success(**settings: Any) -> gym.Env:
    """Return FetchPickAndPlace-v4 whose episodes end on success, which the authors of the asymmetric study chose."""
    return EndOnSuccess(gym.make("gymnasium_robotics:FetchPickAndPlace-v4", disable_env_checker=True, **settings))


gym.register("budget/FetchPickAndPlaceUntilSuccess-v0", "agents.studies.environments:fetch_until_success")
gym.register("budget/AntContactForces-v0", "agents.studies.environments:ant_with_contact_forces")
for _name, _task in (("WalkerStand", "walker-stand-v0"), ("FingerSpin", "finger-spin-v0")):
    gym.register(f"budget/{_name}-v0", "agents.studies.environments:dm_control", kwargs={"task": _task})
