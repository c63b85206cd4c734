"""Penalties that Stable-Baselines3 loses, as it stores rewards as float32."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from budget_wrappers.wrappers import ComputePenaltyReward, SubPolicyAction


def warn_of_lost_penalties(model: Any, flops_per_action: Callable[[Any], int]) -> None:
    """Warn where a step's penalty is below half of float32's spacing at the size of the rewards that are stored.

    Args:
        model: of ``stable_baselines3``, with rewards in its replay or rollout buffer.
        flops_per_action: called with the model, if there are penalties.
    """
    buffer = getattr(model, "replay_buffer", None) or getattr(model, "rollout_buffer", None)
    penalties = [penalty for penalty in (_penalty(env, model, flops_per_action) for env in _envs(model)) if penalty > 0]
    if not penalties or buffer is None:
        return
    stored = buffer.rewards if buffer.full else buffer.rewards[: buffer.pos]
    size = np.float32(np.abs(stored).max(initial=0.0))
    if min(penalties) < 0.5 * float(np.spacing(size)):
        warnings.warn(
            f"Stable-Baselines3 stores rewards as float32: beside rewards of {size:.6g}, a step's penalty of "
            f"{min(penalties):.3g} is rounded away and the model cannot learn from it. Raise the weight, or scale the "
            "rewards down.",
            UserWarning,
            stacklevel=5,
        )


def _penalty(env: gym.Env, model: Any, flops_per_action: Callable[[Any], int]) -> float:
    """Return what the wrappers of ``env`` take off the reward of a step, at the FLOPs of one action."""
    penalty = 0.0
    while isinstance(env, gym.Wrapper):
        if isinstance(env, ComputePenaltyReward):
            penalty += env.weight * flops_per_action(model)
        elif isinstance(env, SubPolicyAction):
            penalty += env.weight  # of one step of the cheapest
        env = env.env
    return penalty


def _envs(model: Any) -> list[gym.Env]:
    """Return the environments that live in this process."""
    vector = model.get_env()
    return list(getattr(getattr(vector, "unwrapped", vector), "envs", []))


__all__ = ["warn_of_lost_penalties"]
